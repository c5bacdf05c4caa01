"""The local provider's verbs, top to bottom: deploy, look, scale, wake, pause, call, logs, delete.

A call never starts a supervisor just to look: where none lives and no journal waits, nothing exists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar, Final
from urllib.parse import quote

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
    ChunkPage,
    Content,
    DeploymentInfo,
    DeploymentSpec,
    DriverConfig,
    HTTPCall,
    Identity,
    InputModel,
    Invocation,
    Io,
    JobInfo,
    LogLine,
    Offer,
    Pace,
    Rate,
    Resource,
    Scaling,
    StreamResponse,
    Worker,
)
from unigpu.errors import ConfigurationError, DeploymentGone

from . import bodies, calls, check, gpus, handler_source, launch, request, translate
from .api import SupervisorAPI, ok, plain
from .options import Options, SpecOptions
from .resources import LocalResource, Place, get, put
from .wire import (
    DeploymentsWire,
    JobWire,
    LinesWire,
    PageWire,
    WorkerListWire,
    parse,
)

LONG_POLL: Final = 20.0
_LOOK_S: Final = 10.0
_FOLLOW_S: Final = 0.25


class LocalDriver:
    """Real worker processes on this machine."""

    name: ClassVar[str] = "local"
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions

    long_poll = LONG_POLL
    submit_call = CallClass.IDEMPOTENT
    request_hold = request.HOLD
    state_pace = Pace(floor=0.02, cap=0.5)

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        directory = None
        if config.state_dir is not None:
            directory = launch.SupervisorDirectory(
                path=Path(config.state_dir) / "local", idle_exit=self._options.idle_exit
            )
        fixed = None
        if self._options.base_url is not None:
            fixed = launch.Link(base=check.base_url(self._options.base_url), token=plain(self._options.token))
        elif self._options.token is not None:
            raise ConfigurationError("local: token= belongs to base_url=; a supervisor of this machine has its own")
        self._api = SupervisorAPI(directory=directory, fixed=fixed)
        self._place = Place(api=self._api, directory=directory, python=self._options.python)

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        """Placement is ignored, and said; what local cannot do at all is refused by its facts."""
        return Checked(adaptations=check.adaptations(spec, idle_exit=self._options.idle_exit))

    def content(self, spec: DeploymentSpec) -> Content:
        """The code as it is now, found without running it.

        Raises:
            ConfigurationError: the handler's file, module or name is not there.
        """
        return handler_source.content_of(spec, cwd=launch.working_directory())

    def rate(self, spec: DeploymentSpec) -> Rate:
        return translate.RATE

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        return (LocalResource(place=self._place, id=identity.provider_name, spec=spec, identity=identity),)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return (LocalResource(place=self._place, id=info.provider_name),)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        reply = await self._api.call(io, "GET", "/deployments", "deployment.list", deadline=deadline)
        if reply is None:
            return ()
        return tuple(map(translate.info_of, parse(DeploymentsWire, ok(reply, deployment=None)).deployments))

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        wire = await get(self._place, io, info.provider_name, deadline=deadline)
        return None if wire is None else translate.info_of(wire)

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        response = await self._api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(translate.worker_of, parse(WorkerListWire, response).workers))

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
                response = await self._api.about(io, "GET", info, path, "worker.logs", deadline=deadline, params=params)
                page = parse(LinesWire, response)
                found += [translate.line_of(line, id) for line in page.lines]
                more = bool(page.lines) and page.after > after.get(id, 0)
                after[id] = page.after
        return sorted(found, key=lambda line: line.time or 0.0)

    async def offers(self, io: Io, **asked: object) -> Sequence[Offer]:
        """This machine, at $0, with the GPUs that its driver tells of. Nothing is started or sent."""
        return gpus.offers()

    # -- changing -----------------------------------------------------------------------------------------------------

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        """Old workers finish what they run while new ones start; what waits goes on waiting."""
        await put(self._place, io, spec, identity, now=info, deadline=deadline)

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
        body = bodies.patch_body(workers, idle_timeout, bodies.scaling_of(scaling))
        await self._api.about(io, "PATCH", info, "", "deployment.patch", json=body, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._api.about(io, "POST", info, "/wake", "deployment.wake", deadline=deadline)

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._api.about(io, "POST", info, "/stop", "deployment.stop", deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._api.about(io, "POST", info, "/start", "deployment.start", deadline=deadline)

    # -- calling ------------------------------------------------------------------------------------------------------

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        body = calls.job_body(call, stream=info.worker_protocol != "foreign")
        response = await self._api.about(
            io, "POST", info, "/jobs", "job.submit", json=body, role="jobs", deadline=call.deadline
        )
        return calls.job_of(parse(JobWire, response))

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        hold = _hold(io, wait, deadline)
        response = await self._api.job(io, "GET", info, job_id, "", "job.get", hold=hold, deadline=deadline)
        return calls.job_of(parse(JobWire, response))

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        response = await self._api.job(io, "POST", info, job_id, "/cancel", "job.cancel", deadline=deadline)
        return calls.job_of(parse(JobWire, response))

    async def chunks(
        self, io: Io, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage:
        hold = _hold(io, wait, deadline)
        params = (("after", str(after)),)
        response = await self._api.job(
            io, "GET", info, job_id, "/stream", "job.stream", hold=hold, params=params, deadline=deadline
        )
        return calls.page_of(parse(PageWire, response))

    def request(self, io: Io, info: DeploymentInfo, call: HTTPCall) -> AbstractAsyncContextManager[StreamResponse]:
        """The supervisor holds it until a worker is free; our own token does not reach the server."""
        return request.request(self._api, io, info, call)


def _hold(io: Io, wait: float, deadline: float) -> float:
    return max(0.0, min(wait, LONG_POLL, deadline - io.now() - 0.5))
