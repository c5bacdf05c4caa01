"""The local provider's verbs, top to bottom: deploy, look, scale, wake, pause, call, logs, delete.

A call never starts a supervisor just to look: where none lives and no journal waits, nothing exists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import quote

from pydantic import BeforeValidator, Field, SecretStr

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
    ChunkPage,
    Consistency,
    Content,
    DeploymentInfo,
    DeploymentSpec,
    DriverConfig,
    Found,
    Identity,
    InputModel,
    Invocation,
    Io,
    JobInfo,
    LogLine,
    Pace,
    Rate,
    Resource,
    Response,
    Scaling,
    Worker,
)
from unigpu.errors import ConfigurationError, ConflictError, DeploymentGone, JobExpired
from unigpu.models._values import duration

from . import _map, content, launch
from ._line import Line, ok, plain
from ._wire import (
    DeletedWire,
    DeploymentsWire,
    DeploymentWire,
    JobWire,
    LinesWire,
    PageWire,
    WorkerListWire,
    parse,
    refusal,
)

IDLE_EXIT: Final = 3600.0
LONG_POLL: Final = 20.0
_ATOMIC: Final = Consistency(kind="atomic")
_LOOK_S: Final = 10.0
_FOLLOW_S: Final = 0.25


class Options(InputModel):
    """``driver_options["local"]``.

    Attributes:
        base_url: A supervisor or mock that runs already; nothing is started then.
        token: What it asks for.
        idle_exit: Seconds without a call or a job after which the supervisor ends (deployments stay, without workers).
        python: The interpreter that runs handlers; default: this program's own.
    """

    base_url: str | None = None
    token: SecretStr | None = None
    idle_exit: Annotated[float, BeforeValidator(duration), Field(gt=0)] = IDLE_EXIT
    python: Annotated[str, Field(min_length=1)] | None = None


class SpecOptions(InputModel):
    """``provider_options["local"]``.

    Attributes:
        route: Where ``invoke`` posts the bare input, for a command whose server is not our worker.
    """

    route: Annotated[str, Field(pattern=r"^/[^\s?#]*$")] | None = None


class LocalDriver:
    """Real worker processes on this machine."""

    name: ClassVar[str] = "local"
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions

    long_poll = LONG_POLL
    submit_call = CallClass.IDEMPOTENT
    state_pace = Pace(floor=0.02, cap=0.5)

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        home = None
        if config.state_dir is not None:
            home = launch.Home(path=Path(config.state_dir) / "local", idle_exit=self._options.idle_exit)
        fixed = None
        if self._options.base_url is not None:
            fixed = launch.Link(base=_map.base_url(self._options.base_url), token=plain(self._options.token))
        elif self._options.token is not None:
            raise ConfigurationError("local: token= belongs to base_url=; a supervisor of this machine has its own")
        self._home = home
        self._line = Line(home=home, fixed=fixed)

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        """Placement is ignored, and said; what local cannot do at all is refused by its facts."""
        return Checked(adaptations=_map.adaptations(spec, idle_exit=self._options.idle_exit))

    def content(self, spec: DeploymentSpec) -> Content:
        """The code as it is now, found without running it.

        Raises:
            ConfigurationError: the handler's file, module or name is not there.
        """
        return content.content_of(spec, cwd=launch.working_directory())

    def rate(self, spec: DeploymentSpec) -> Rate:
        return _map.RATE

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        return (_Deployment(self, identity.provider_name, spec=spec, identity=identity),)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return (_Deployment(self, info.provider_name),)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        reply = await self._line.call(io, "GET", "/deployments", "deployment.list", deadline=deadline)
        if reply is None:
            return ()
        return tuple(map(_map.info_of, parse(DeploymentsWire, ok(reply, deployment=None)).deployments))

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        wire = await self.get(io, info.provider_name, deadline=deadline)
        return None if wire is None else _map.info_of(wire)

    async def get(self, io: Io, id: str, *, deadline: float) -> DeploymentWire | None:
        """The deployment as the supervisor shows it; ``None`` where it certainly does not exist."""
        reply = await self._line.call(io, "GET", f"/deployments/{id}", "deployment.get", deadline=deadline)
        if reply is None or _is_absent(reply[0]):
            return None
        return parse(DeploymentWire, ok(reply, deployment=None))

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        response = await self._about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(_map.worker_of, parse(WorkerListWire, response).workers))

    async def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        """Lines of one worker or all, in the order of their time; following ends with the deployment."""
        after: dict[str, int] = {}
        first = True
        while True:
            try:
                lines = await self._new_lines(io, info, worker, after)
            except DeploymentGone:
                if first:
                    raise
                return
            for line in lines[max(0, len(lines) - tail) :] if first else lines:
                yield line
            if not follow:
                return
            first = False
            if not lines:
                await io.sleep(_FOLLOW_S)

    async def _new_lines(
        self, io: Io, info: DeploymentInfo, worker: str | None, after: dict[str, int]
    ) -> list[LogLine]:
        """What came since the last look; *after* keeps how far each worker was read."""
        deadline = io.now() + _LOOK_S
        ids = [worker] if worker is not None else [w.id for w in await self.workers(io, info, deadline=deadline)]
        found: list[LogLine] = []
        for id in ids:
            more = True
            while more:
                path = f"/workers/{quote(id, safe='')}/logs"
                params = (("after", str(after.get(id, 0))),)
                response = await self._about(io, "GET", info, path, "worker.logs", deadline=deadline, params=params)
                page = parse(LinesWire, response)
                found += [_map.line_of(line, id) for line in page.lines]
                more = bool(page.lines) and page.after > after.get(id, 0)
                after[id] = page.after
        return sorted(found, key=lambda line: line.time or 0.0)

    # -- changing -----------------------------------------------------------------------------------------------------

    async def put(
        self,
        io: Io,
        spec: DeploymentSpec,
        identity: Identity,
        *,
        now: DeploymentInfo | None,
        deadline: float,
    ) -> DeploymentWire:
        """Create it cold (*now* is ``None``), or replace what is there, with the limits that are not stated kept.

        Raises:
            ConflictError: the name is taken meanwhile, or what is there is not *now* any more.
        """
        stated = spec.stated
        keep = now is not None
        workers = (0, spec.workers[1])
        idle_timeout, scaling = spec.idle_timeout, _scaling(spec.scaling)
        if now is not None:
            workers = spec.workers if "workers" in stated or now.workers is None else now.workers
            if "idle_timeout" not in stated and now.idle_timeout is not None:
                idle_timeout = now.idle_timeout
            if "scaling" not in stated:
                scaling = now.details.get("scaling")
        body = _map.put_body(
            spec,
            identity,
            workers=workers,
            idle_timeout=idle_timeout,
            scaling=scaling,
            origin=self.content(spec).origin,
            cwd=launch.working_directory(),
            python=self._options.python or launch.interpreter(),
            env=self._hidden_env(spec),
            folders=self._folders(spec, identity.namespace),
        )
        condition = ("if-match", f'"{now.attempt}"') if now is not None else ("if-none-match", "*")
        reply = await self._line.call(
            io,
            "PUT",
            f"/deployments/{identity.provider_name}",
            "deployment.put",
            json=body,
            headers=(condition,),
            deadline=deadline,
            start=not keep,
        )
        if reply is None:
            raise _gone(identity.name)
        if reply[0].status == 412:
            there = refusal(reply[0]).deployment
            if not keep and there is not None and there.attempt == identity.attempt:
                return there  # our own create, whose answer was lost
            raise ConflictError(
                f"{identity.name}: {refusal(reply[0]).error.message or 'it changed meanwhile'}",
                status=412,
                provider="local",
                operation="local.deployment.put",
                deployment=identity.name,
                maybe_executed=False,
            )
        return parse(DeploymentWire, ok(reply, deployment=identity.name))

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        """Old workers finish what they run while new ones start; what waits goes on waiting."""
        await self.put(io, spec, identity, now=info, deadline=deadline)

    def updatable(self, fields: frozenset[str]) -> bool:
        """All but what makes another thing of it."""
        return fields.isdisjoint({"name", "interface", "kind", "ttl"})

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        workers = (1, 1) if spec.kind == "pod" else spec.workers
        await self.scale(io, info, workers=workers, deadline=deadline)

    async def scale(
        self,
        io: Io,
        info: DeploymentInfo,
        *,
        workers: tuple[int, int] | None = None,
        idle_timeout: float | None = None,
        scaling: Scaling | None = None,
        deadline: float,
    ) -> None:
        body = _map.patch_body(workers, idle_timeout, _scaling(scaling))
        await self._about(io, "PATCH", info, "", "deployment.patch", json=body, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._about(io, "POST", info, "/wake", "deployment.wake", deadline=deadline)

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._about(io, "POST", info, "/stop", "deployment.stop", deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._about(io, "POST", info, "/start", "deployment.start", deadline=deadline)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it, and where that leaves nothing, wait until the supervisor is gone. Absent is success."""
        reply = await self._line.call(
            io, "DELETE", f"/deployments/{id}", "deployment.delete", deadline=deadline, cleanup=True
        )
        if reply is None or _is_absent(reply[0]):
            return
        if parse(DeletedWire, ok(reply, deployment=None)).last and self._home is not None and self._line.fixed is None:
            await launch.gone(io, self._home, reply[1], deadline=deadline)

    # -- calling ------------------------------------------------------------------------------------------------------

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        body = _map.job_body(call, stream=info.worker_protocol != "foreign")
        response = await self._about(
            io, "POST", info, "/jobs", "job.submit", json=body, role="jobs", deadline=call.deadline
        )
        return _map.job_of(parse(JobWire, response))

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        hold = _hold(io, wait, deadline)
        response = await self._job(io, "GET", info, job_id, "", "job.get", hold=hold, deadline=deadline)
        return _map.job_of(parse(JobWire, response))

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        response = await self._job(io, "POST", info, job_id, "/cancel", "job.cancel", deadline=deadline)
        return _map.job_of(parse(JobWire, response))

    async def chunks(
        self, io: Io, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage:
        hold = _hold(io, wait, deadline)
        params = (("after", str(after)),)
        response = await self._job(
            io, "GET", info, job_id, "/stream", "job.stream", hold=hold, params=params, deadline=deadline
        )
        return _map.page_of(parse(PageWire, response))

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _about(
        self, io: Io, method: str, info: DeploymentInfo, path: str, operation: str, *, deadline: float, **more: Any
    ) -> Response:
        """A call about a deployment that should be there.

        Raises:
            DeploymentGone: it is not.
        """
        reply = await self._line.call(
            io, method, f"/deployments/{info.provider_name}{path}", operation, deadline=deadline, **more
        )
        if reply is None or _is_gone(reply[0], operation):
            raise _gone(info.name)
        return ok(reply, deployment=info.name)

    async def _job(
        self,
        io: Io,
        method: str,
        info: DeploymentInfo,
        job_id: str,
        path: str,
        operation: str,
        *,
        deadline: float,
        hold: float = 0.0,
        params: tuple[tuple[str, str], ...] = (),
    ) -> Response:
        if hold > 0:
            params = (*params, ("wait", f"{hold:g}"))
        where = f"/deployments/{info.provider_name}/jobs/{quote(job_id, safe='')}{path}"
        reply = await self._line.call(
            io, method, where, operation, deadline=deadline, params=params, role="jobs", wait=hold
        )
        if reply is None or _is_gone(reply[0], operation):
            raise _gone(info.name)
        if _is_absent(reply[0]):
            raise JobExpired(
                f"the local supervisor does not know job {job_id}: {refusal(reply[0]).error.message or 'it is gone'}",
                job_id=job_id,
                provider="local",
                operation=f"local.{operation}",
                deployment=info.name,
            )
        return ok(reply, deployment=info.name)

    def _hidden_env(self, spec: DeploymentSpec) -> dict[str, str]:
        """Values of secrets, the callers' token, and where a handler outside the working directory is imported from.

        Raises:
            ConfigurationError: a value is missing.
        """
        env: dict[str, str] = {}
        for name, value in spec.secrets.items():
            if not isinstance(value, SecretStr):
                raise ConfigurationError(f"secrets: {name} has no value to send", provider="local")
            env[name] = value.get_secret_value()
        if spec.auth is not None and not isinstance(spec.auth, str) and spec.auth.env not in env:
            token = launch.own_variable(spec.auth.env)
            if not token:
                raise ConfigurationError(
                    f"auth: the variable {spec.auth.env} is not set in this environment", provider="local"
                )
            env[spec.auth.env] = token
        if spec.handler is not None and "PYTHONPATH" not in spec.env:
            source = content.find_handler(spec.handler, cwd=Path(launch.working_directory()))
            if source.import_from is not None:
                env["PYTHONPATH"] = str(source.import_from)
        return env

    def _folders(self, spec: DeploymentSpec, namespace: str) -> Mapping[str, str]:
        if not spec.volumes:
            return {}
        if self._home is None:
            raise ConfigurationError("volumes are folders under a state directory, and this client has none")
        return {v.name: launch.volume_folder(self._home, namespace, v.name) for v in spec.volumes}


@dataclass(frozen=True, slots=True)
class _Deployment:
    """The one thing that a local deployment consists of."""

    driver: LocalDriver
    id: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None

    kind: str = _map.KIND
    call: CallClass = CallClass.IDEMPOTENT
    consistency: Consistency = _ATOMIC
    bills_cold: str | None = None

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        found = await self.read(io, self.id, deadline=deadline)
        return () if found is None else (found,)

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        return _map.found_of(await self.driver.put(io, self.spec, self.identity, now=None, deadline=deadline))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await self.driver.get(io, id, deadline=deadline)
        return None if wire is None else _map.found_of(wire)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await self.driver.delete(io, id, deadline=deadline)


def _scaling(scaling: Scaling | None) -> dict[str, Any] | None:
    return None if scaling is None else scaling.model_dump()


def _hold(io: Io, wait: float, deadline: float) -> float:
    return max(0.0, min(wait, LONG_POLL, deadline - io.now() - 0.5))


def _is_absent(response: Response) -> bool:
    return response.status == 404


def _is_gone(response: Response, operation: str) -> bool:
    """Whether the deployment itself is not there (an unknown job or worker is another matter)."""
    if response.status != 404:
        return False
    return refusal(response).error.type == "gone" or operation.startswith("deployment.")


def _gone(name: str | None) -> DeploymentGone:
    return DeploymentGone(
        f"{name or 'the deployment'} does not exist on local any more",
        status=404,
        provider="local",
        deployment=name,
        maybe_executed=False,
    )
