"""The local provider's verbs, top to bottom: deploy, read, scale, wake, pause, call, logs, delete.

Reading never starts a supervisor: where none lives and no journal waits, nothing exists.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, ClassVar, Final

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
    ChunkPage,
    Content,
    DeployDriver,
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
    parse,
)
from unigpu.errors import ConfigurationError

from . import bodies, calls, check, gpus, handler_source, launch, logs, request, translate
from .api import SupervisorAPI
from .options import Options, SpecOptions
from .resources import DeploymentResource, put
from .wire import DeploymentsWire, DeploymentWire, JobWire, PageWire, WorkerListWire

LONG_POLL: Final = 20.0


class LocalDriver(DeployDriver):
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
    update_kinds = frozenset({"serverless", "pod"})

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        directory = None
        if config.state_dir is not None:
            directory = launch.SupervisorDirectory(
                path=Path(config.state_dir) / "local", idle_exit=self._options.idle_exit
            )
        fixed = None
        if self._options.base_url is not None:
            fixed = launch.Link(base=check.base_url(self._options.base_url), token=self._options.token)
        elif self._options.token is not None:
            raise ConfigurationError("local: token= belongs to base_url=; a supervisor of this machine has its own")
        self._api = SupervisorAPI(directory=directory, fixed=fixed)

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
        return (self._resource(identity.provider_name, spec=spec, identity=identity),)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return (self._resource(info.provider_name),)

    def _resource(self, name: str, **more: Any) -> DeploymentResource:
        return DeploymentResource(api=self._api, python=self._options.python, name=name, **more)

    # -- reading ------------------------------------------------------------------------------------------------------

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        reply = await self._api.reach(io, "GET", "/deployments", "deployment.list", deadline=deadline)
        if reply is None:
            return ()
        return tuple(map(translate.info_of, parse(DeploymentsWire, self._api.success(reply)).deployments))

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        reply = await self._api.optional(io, self._api.path_of(info), "deployment.get", deadline=deadline)
        return None if reply is None else translate.info_of(parse(DeploymentWire, reply))

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        response = await self._api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(translate.worker_of, parse(WorkerListWire, response).workers))

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        """Lines of one worker or all, in the order of their time; following ends with the deployment."""
        return logs.logs(self._api, io, info, worker=worker, follow=follow, tail=tail)

    async def offers(self, io: Io, **asked: object) -> Sequence[Offer]:
        """This machine, at $0, with the GPUs that its driver shows. Nothing is started or sent."""
        return gpus.offers()

    # -- changing -----------------------------------------------------------------------------------------------------

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        """Old workers finish what they run while new ones start; what waits goes on waiting."""
        await put(self._api, io, spec, identity, now=info, python=self._options.python, deadline=deadline)

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
