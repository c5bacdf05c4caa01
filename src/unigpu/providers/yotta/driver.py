"""Yotta Labs' verbs, in the order in which a deployment lives: declared replicas on a pool of several clouds.

An *endpoint* holds a declared number of identical workers, which the platform keeps alive. Nothing scales by itself:
``scale`` sets the number, ``stop`` is zero, and a request to a stopped endpoint is refused, so the lifecycle starts it
and holds the call. Manual: https://docs.yottalabs.ai/api-and-sdk/api-guides
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Literal

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
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
    Rate,
    Resource,
    Scaling,
    State,
    StreamResponse,
    Worker,
    answered,
    is_rehearsal,
    worker_hour,
    workers_hour,
)
from unigpu.errors import (
    APIStatusError,
    ConflictError,
    InvalidRequestError,
    NoCapacityError,
    NoWorkerReady,
    UnsupportedError,
)

from . import _known, account, calls, check, gpus, logs, request, resources, translate, workers
from .api import (
    CREDENTIAL,
    ENDPOINT,
    LIMITS,
    NOT_RUNNING,
    POD,
    PROVIDER,
    READ_TASK,
    SUBMIT_TASK,
    YottaAPI,
    kind_of,
)
from .gateway import Gateway
from .options import Options, SpecOptions
from .resources import Part, of_spec
from .wire import EndpointWire, PodWire, SubmittedWire, TaskWire, rows, shaped

_PRICE_LOOKS: Final = 5
_PRICE_PAUSE: Final = 2.0


class YottaDriver(DeployDriver):
    """Endpoints (QUEUE, ALB, CUSTOM) and pods of one account."""

    name: ClassVar[str] = PROVIDER
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = "YOTTA_API_KEY"
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    limits: ClassVar[Mapping[str, Limit]] = LIMITS

    long_poll = 0.0  # a task's status is told at once
    submit_call = CallClass.IDEMPOTENT  # our own taskId: a repeated submit is the same task
    request_hold = 0.0  # the gateway holds nothing

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        self.base = check.base_url(self._options.base_url)
        self._api = YottaAPI(base=self.base, key=config.api_key)

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        """What the facts cannot say: GPUs, ports, the login, and the disk's minimum."""
        return check.check(spec, self._options)

    def content(self, spec: DeploymentSpec) -> Content:
        """The image as given, which is a field of the spec already."""
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        """By the user's own prices, where all acceptable GPUs have one: the API tells none before it bills."""
        prices = [gpus.price_in(self._options.prices, code) for code in self._codes(spec)]
        known = [price for price in prices if price is not None]
        if not known or len(known) != len(prices):
            return Rate()
        most = workers_hour(max(1, spec.workers[0]), worker_hour(max(known), gpus.gpu_count(spec)))
        return Rate(idle_per_hour=most, max_per_hour=most, source="your own price table (driver_options)")

    def _codes(self, spec: DeploymentSpec) -> Sequence[str]:
        return gpus.gpu_codes(spec, self._options.prices)

    # -- what exists --------------------------------------------------------------------------------------------------

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        """A private registry's login first: the endpoint or pod names it."""
        return of_spec(self._api, self._options, spec, identity)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        """Whatever may carry its name. What a name alone stands for, and whether it has a login, is not told."""
        known = _known.by_info(info)
        common: dict[str, Any] = {"api": self._api, "options": self._options, "name": info.provider_name}
        return tuple(Part(**common, kind=kind, known=known, optional=True) for kind in (CREDENTIAL, POD, ENDPOINT))

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        """Endpoints and pods; what is terminated is over."""
        data = await self._api.listed(io, "/v2/serverless", "endpoint.list", deadline=deadline)
        found = [
            translate.endpoint_info(one, self._api.base, self._options)
            for one in rows(EndpointWire, data, "endpoint.list")
        ]
        data = await self._api.listed(io, "/v2/pods", "pod.list", deadline=deadline)
        found += [translate.pod_info(one, self._options) for one in rows(PodWire, data, "pod.list")]
        return tuple(one for one in found if one.state is not State.GONE)

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        """As it is now; what the platform does not show, as *info* has it."""
        return await resources.read(self._api, self._options, io, info, deadline=deadline)

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        """Each with its region and GPU: a pool of clouds may serve one deployment from several."""
        return await workers.workers(self._api, io, info, deadline=deadline)

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        return logs.logs(self._api, io, info, worker=worker, follow=follow, tail=tail)

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
        """Which GPU is available where. No price: none is published, and none is invented."""
        seen = await gpus.stock(self._api, io, deadline=deadline)
        return gpus.offers(seen, self._options, wanted=gpu, regions=regions, kind=kind)

    async def inventory(self, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
        """Endpoints, pods, virtual machines and volumes of the account, whoever made them."""
        found = [account.item_of(one) for one in await self.deployments(io, deadline=deadline)]
        found += await account.machines(self._api, io, deadline=deadline)
        found += await account.volumes(self._api, io, deadline=deadline)
        return tuple(found)

    # -- changing it --------------------------------------------------------------------------------------------------

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        """It was created with its workers. A cap on the price is held here: the price is told only now.

        Raises:
            NoCapacityError: a worker costs more than ``max_price``, or what it costs is not told.
        """
        if spec.max_price is not None and not is_rehearsal(io):
            info = await self._within(io, info, spec, spec.max_price, deadline=deadline)
        wanted = max(1, spec.workers[0])
        if spec.kind == "serverless" and info.workers is not None and info.workers != (wanted, wanted):
            await self.scale(io, info, workers=(wanted, wanted), deadline=deadline)

    async def _within(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, cap: float, *, deadline: float
    ) -> DeploymentInfo:
        """*info*, once its price is told and at most *cap*. Where it is not, the user's own prices hold the cap, if
        every acceptable GPU has one: none above the cap was asked for."""
        by_own_prices = all(gpus.price_in(self._options.prices, code) is not None for code in self._codes(spec))
        for turn in range(_PRICE_LOOKS):
            price = info.details.get(translate.WORKER_PRICE)
            if price is not None:
                if price <= cap:
                    return info
                raise _too_dear(info, f"a worker costs ${price:.2f}/h, more than max_price (${cap:.2f})")
            if by_own_prices:
                return info
            if turn + 1 < _PRICE_LOOKS:
                await io.sleep(_PRICE_PAUSE)
                info = await self.read(io, info, deadline=deadline) or info
        raise _too_dear(info, f"Yotta does not tell what a worker costs, so max_price (${cap:.2f}) cannot be held")

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
        """An absolute count. Zero is ``stop``; a stopped one is started first.

        Raises:
            ConflictError: it is busy with its last change.
        """
        if workers is None:
            return
        count = workers[0]
        if count == 0:
            await self.stop(io, info, deadline=deadline)
            return
        now = await self._must_exist(io, info, deadline=deadline)
        if now.state is State.STOPPED and not is_rehearsal(io):  # a plan has noted the start already
            await self.start(io, now, deadline=deadline)
        await self._api.about(
            io, "PUT", info, "/workers", "endpoint.scale", params=(("count", str(count)),), deadline=deadline
        )

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Stop it; a pod is paused. One that stops or has stopped is left as it is.

        Raises:
            ConflictError: it is busy with its last change, and has to be told again.
        """
        now = await self._must_exist(io, info, deadline=deadline)
        if now.state is State.STOPPED or (now.raw_state or "").upper() in ("STOPPING", "PAUSING"):
            return
        path, what = ("/stop", "endpoint.stop") if info.kind == "serverless" else ("/pause", "pod.pause")
        await self._api.about(io, "POST", info, path, what, json={}, deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Start it; a pod is resumed. Where somebody else did meanwhile, nothing is sent.

        Raises:
            ConflictError: it is still stopping.
        """
        now = info if is_rehearsal(io) else await self._must_exist(io, info, deadline=deadline)
        if now.state is not State.STOPPED and not is_rehearsal(io):
            if now.state is State.DEGRADED:
                raise ConflictError(
                    f"{info.name or info.id} is still stopping",
                    provider=PROVIDER,
                    deployment=info.name,
                    maybe_executed=False,
                )
            return
        path, what = ("/start", "endpoint.start") if info.kind == "serverless" else ("/resume", "pod.resume")
        await self._api.about(io, "POST", info, path, what, json={}, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Start a stopped one, with all its declared workers: there is no other sleep."""
        await self.start(io, info, deadline=deadline)

    async def _must_exist(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
        what = f"{kind_of(info)}.get"
        data = await self._api.about(io, "GET", info, "", what, deadline=deadline)
        if info.kind == "pod":
            return translate.pod_info(shaped(PodWire, data, what), self._options, _known.by_info(info))
        return translate.endpoint_info(
            shaped(EndpointWire, data, what), self._api.base, self._options, _known.by_info(info)
        )

    # -- calling it ---------------------------------------------------------------------------------------------------

    def has_jobs(self, info: DeploymentInfo) -> bool:
        """QUEUE endpoints have; calls of ALB endpoints and of pods are held."""
        return info.kind == "serverless" and info.details.get("service_mode", "QUEUE") == "QUEUE"

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        """Put a task into the queue. The gateway of an ALB endpoint, and a pod, answer the call itself.

        Raises:
            NoWorkerReady: the endpoint does not run.
        """
        if not self.has_jobs(info):
            return answered(call, await calls.invoke(self._gateway(io, info, call.deadline), call))
        body = calls.task_body(info, call)
        more: dict[str, Any] = {"json": body, "role": "jobs", "deadline": call.deadline, "limit_key": SUBMIT_TASK}
        try:
            data = await self._api.about(io, "POST", info, "/tasks", "task.submit", **more)
        except APIStatusError as exc:
            if exc.status in NOT_RUNNING:
                raise NoWorkerReady(
                    f"{info.name or info.provider_name} on yotta does not run, and takes no task",
                    provider=PROVIDER,
                    deployment=info.name,
                    state=str(info.state),
                    maybe_executed=False,
                ) from exc
            if isinstance(exc, InvalidRequestError) and not self.has_jobs(info):
                raise _no_jobs(info) from exc
            raise
        return calls.submitted(shaped(SubmittedWire, data, "task.submit").task_id)

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        more: dict[str, Any] = {"role": "jobs", "deadline": deadline, "limit_key": READ_TASK}
        data = await self._api.about(io, "GET", info, f"/tasks/{job_id}", "task.get", **more)
        return calls.job_of(shaped(TaskWire, data, "task.get"), info)

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        """There is no such call.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"task {job_id} cannot be cancelled: Yotta has no call for that.",
            provider=PROVIDER,
            deployment=info.name,
            capability="cancel",
            source="https://docs.yottalabs.ai/api-and-sdk/api-reference-v2/serverless",
            hint="It runs to its end; stop() ends its worker, with everything else that runs there.",
        )

    def request(self, io: Io, info: DeploymentInfo, call: HTTPCall) -> AbstractAsyncContextManager[StreamResponse]:
        """A request to the user's own server, by the same ways."""
        return request.request(self._gateway(io, info, call.deadline), call)

    def _gateway(self, io: Io, info: DeploymentInfo, deadline: float) -> Gateway:
        return Gateway(api=self._api, options=self._options, io=io, info=info, deadline=deadline)


def _too_dear(info: DeploymentInfo, why: str) -> NoCapacityError:
    return NoCapacityError(
        f"{info.name or info.provider_name} on yotta: {why}",
        provider=PROVIDER,
        deployment=info.name,
        retryable=False,
        maybe_executed=True,
        hint="Raise max_price, accept other GPUs, or leave max_price out.",
    )


def _no_jobs(info: DeploymentInfo) -> UnsupportedError:
    return UnsupportedError(
        f"{info.name or info.provider_name} takes no tasks: it is no QUEUE endpoint.",
        provider=PROVIDER,
        deployment=info.name,
        capability="submit",
    )
