"""RunPod's verbs, top to bottom: check, deploy, read, change, call.

Deploying is one call (``POST /v2/serverless``), cold, and one more where a minimum of workers is set. A call is a job:
``/run`` and ``/status``, so that a lost connection loses nothing; where it may run twice, ``/runsync`` answers a short
one in one exchange. https://docs.runpod.io/api-reference-v2, https://docs.runpod.io/serverless/endpoints/overview
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Literal

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
    GPURequest,
    HTTPCall,
    Identity,
    InputModel,
    InventoryItem,
    Invocation,
    Io,
    JobInfo,
    Limit,
    LogLine,
    Offer,
    Pace,
    Rate,
    Resource,
    Scaling,
    State,
    StreamResponse,
    Worker,
    answered,
    parse,
    workers_hour,
)
from unigpu.errors import NotFoundError

from . import account, bodies, calls, gpus, logs, pods, request, translate
from .api import LIMITS, RunPodAPI
from .check import check
from .options import Options, SpecOptions
from .resources import parts_of, resources_of
from .scaling import act_on_pod, change_limits, roll, start_worker, warm_up
from .wire import PROVIDER, EndpointWire, HealthWire, JobWire, PodWire, WorkerListWire

_LIST_S: Final = 10.0
_IN_PLACE: Final = frozenset(
    {
        "code", "command", "concurrency", "disk", "env", "execution_timeout", "gpu", "handler", "idempotent", "image",
        "max_price", "port", "provider_options", "regions", "secrets",
    }
)  # fmt: skip


class RunPodDriver(DeployDriver):
    """Serverless endpoints and pods."""

    name: ClassVar[str] = PROVIDER
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = "RUNPOD_API_KEY"
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    limits: ClassVar[Mapping[str, Limit]] = LIMITS

    long_poll = calls.HELD
    submit_call = CallClass.USER_DECIDES  # RunPod makes the ids: a submit that is repeated runs twice
    request_hold = request.HOLD
    state_pace = Pace(floor=2.0, cap=10.0, jitter=0.2)  # each check is two or three calls, of some sixty a minute
    update_kinds: ClassVar[frozenset[str]] = frozenset({"serverless"})

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        self._api = RunPodAPI(base=self._options.control_url, jobs=self._options.jobs_url, key=config.api_key)
        self.base = self._options.control_url

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        return check(spec)

    def content(self, spec: DeploymentSpec) -> Content:
        """The image as given, which is a field of the spec already."""
        if bodies.loose_tag(spec.image):
            return Content(notes=(f"image: RunPod's hosts keep what they once pulled as {spec.image}; name a version",))
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        """By the printed price list: the catalogue is read when the deployment is created."""
        price = gpus.list_price(spec) if spec.kind == "serverless" else spec.max_price
        source = gpus.LIST_SOURCE if spec.kind == "serverless" else "max_price"
        kept = [translate.volume_month(one.size_gb) for one in spec.volumes]
        idle, most = (workers_hour(count, price) for count in spec.workers)
        return Rate(
            idle_per_hour=idle,
            max_per_hour=most,
            storage_per_month=sum(kept),
            source=None if price is None else source,
        )

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        return resources_of(self._api, self._options, spec, identity)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return parts_of(self._api, self._options, info)

    # -- reading ------------------------------------------------------------------------------------------------------

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        """All endpoints and pods. A list does not show which workers are ready, so an endpoint's state is unknown."""
        wires = await self._api.listed(
            io, EndpointWire, "/serverless", "endpoint.list", under="endpoints", deadline=deadline
        )
        machines = await self._api.listed(io, PodWire, "/pods", "pod.list", under="pods", deadline=deadline)
        return (
            *(translate.endpoint_info(wire, lb_url=self._options.lb_url) for wire in wires),
            *(self._pod(wire) for wire in machines if wire.status != "TERMINATED"),
        )

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        try:
            reply = await self._api.about(io, "GET", info, "", f"{_kind(info)}.get", deadline=deadline)
        except NotFoundError:
            return None
        if info.kind == "pod":
            wire = parse(PodWire, reply)
            if wire.status == "TERMINATED":
                return None
            return await self._probed(io, wire, deadline=deadline)
        endpoint = parse(EndpointWire, reply)
        health = await self._api.health(io, info, deadline=deadline)
        now = translate.endpoint_info(endpoint, lb_url=self._options.lb_url, health=health)
        return await self._explained(io, now, health, deadline=deadline)

    async def _explained(self, io: Io, now: DeploymentInfo, health: HealthWire, *, deadline: float) -> DeploymentInfo:
        """Where jobs wait and nothing starts, the account may be the reason: RunPod refuses such a start silently."""
        workers = health.workers
        stuck = health.jobs.inQueue > 0 and not (workers.initializing or workers.throttled or workers.unhealthy)
        if not stuck or now.state is not State.STARTING:
            return now
        why = await account.obstacle(self._api, self._options, io, deadline=deadline)
        return now if why is None else now.model_copy(update={"reason": f"{now.reason}: {why}"})

    async def _probed(self, io: Io, wire: PodWire, *, deadline: float) -> DeploymentInfo:
        """A pod is ready when its port answers: RunPod calls it RUNNING half a minute before."""
        first = self._pod(wire)
        if wire.status != "RUNNING" or wire.runtime is None:
            return first
        return self._pod(wire, answers=await pods.answers(io, first, deadline=deadline))

    def _pod(self, wire: PodWire, *, answers: bool | None = None) -> DeploymentInfo:
        return pods.pod_info(wire, proxy_url=self._options.proxy_url, answers=answers)

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        if info.kind == "pod":
            reply = await self._api.about(io, "GET", info, "", "pod.get", deadline=deadline)
            wire = parse(PodWire, reply)
            state = info.state if info.raw_state == wire.status else self._pod(wire).state
            return (pods.pod_worker(wire, state),)
        reply = await self._api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(translate.worker_of, parse(WorkerListWire, reply).workers))

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        """Each worker's log has a stream of its own; following asks each again for what came since."""

        async def workers() -> list[str]:
            return [one.id for one in await self.workers(io, info, deadline=io.now() + _LIST_S)]

        return logs.read(self._api, io, info, workers=workers, worker=worker, follow=follow, tail=tail)

    async def offers(
        self,
        io: Io,
        *,
        gpu: tuple[GPURequest, ...] | None,
        max_price: float | None,
        regions: tuple[str, ...] | None,
        kind: Literal["serverless", "pod"],
        deadline: float,
    ) -> Sequence[Offer]:
        return await gpus.offers(self._api, io, gpu=gpu, regions=regions, kind=kind, deadline=deadline)

    async def inventory(self, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
        """Endpoints by their workers now, pods, also stopped ones, and network volumes: ours and others'."""
        return await account.inventory(self._api, self._options, io, deadline=deadline)

    # -- changing -----------------------------------------------------------------------------------------------------

    def updatable(self, fields: frozenset[str]) -> bool:
        """An endpoint's release is rolled: idle workers are replaced at once, busy ones after their job."""
        return fields <= _IN_PLACE

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        await roll(self._api, io, info, spec, identity, deadline=deadline)

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        await warm_up(self._api, io, info, spec, deadline=deadline)

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
        await change_limits(
            self._api, io, info, workers=workers, idle_timeout=idle_timeout, scaling=scaling, deadline=deadline
        )

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await start_worker(self._api, io, info, deadline=deadline)

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await act_on_pod(self._api, io, info, "stop", deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await act_on_pod(self._api, io, info, "start", deadline=deadline)

    # -- calling ------------------------------------------------------------------------------------------------------

    def has_jobs(self, info: DeploymentInfo) -> bool:
        """An endpoint has; a call of a pod is one exchange with its worker."""
        return info.kind != "pod"

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        """``/run``; or ``/runsync``, where the caller waits anyway and it may run twice: then a short job is done in
        this one exchange, and a longer one is followed by its id as any other. A pod answers the call itself."""
        if info.kind == "pod":
            return answered(call, await pods.invoke(io, info, call))
        hold = calls.held_for(call, io.now())
        try:
            reply = await self._api.ask(
                io,
                "POST",
                info,
                "/runsync" if hold else "/run",
                "job.submit",
                json=calls.job_body(call),
                params=calls.wait_of(hold),
                call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
                limit_key="runpod.runsync" if hold else "runpod.run",
                read_timeout=hold + self._api.read_timeout,
                deadline=call.deadline,
            )
        except NotFoundError as exc:
            await self._api.about(
                io, "GET", info, "", "endpoint.get", deadline=call.deadline
            )  # raises DeploymentGone where it is
            raise calls.not_known(info, exc) from exc
        return calls.job_of(parse(JobWire, reply))

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        reply = await self._api.job(
            io, "GET", info, "/status", "job.get", job_id=job_id, limit_key="runpod.status", deadline=deadline
        )
        return calls.job_of(parse(JobWire, reply))

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        """A queued job, and a running one by a signal to its worker (runpod's package from 1.10 on)."""
        reply = await self._api.job(
            io, "POST", info, "/cancel", "job.cancel", job_id=job_id, limit_key="runpod.cancel", deadline=deadline
        )
        job = calls.job_of(parse(JobWire, reply))
        return job if job.status.is_terminal else await self.status(io, info, job_id, deadline=deadline)

    async def chunks(
        self, io: Io, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage:
        """What a job has yielded since the last read; what is lost on the way is taken from its whole output."""
        return await calls.chunks(self._api, io, info, job_id, after=after, wait=wait, deadline=deadline)

    def stream(self, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
        """Of a pod: its worker's answer, line by line. The stream of an endpoint is its job's (`chunks`)."""
        return pods.stream(io, info, call)

    def request(self, io: Io, info: DeploymentInfo, call: HTTPCall) -> AbstractAsyncContextManager[StreamResponse]:
        return request.request(self._api, io, info, call)


def _kind(info: DeploymentInfo) -> str:
    return "pod" if info.kind == "pod" else "endpoint"
