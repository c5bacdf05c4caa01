"""Yotta Labs' verbs, in the order in which a deployment lives: declared replicas on a pool of several clouds.

An *endpoint* holds a declared number of identical workers, which the platform keeps alive. Nothing scales by itself:
``scale`` sets the number, ``stop`` is zero, and a request to a stopped endpoint is refused, so the lifecycle starts it
and holds the call. Manual: https://docs.yottalabs.ai/api-and-sdk/api-guides
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Literal

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
    worker_hour,
    workers_hour,
)
from unigpu.errors import UnsupportedError

from . import account, calls, check, gpus, logs, request, resources, translate, workers
from .api import ENDPOINT, LIMITS, PATHS, POD, PROVIDER, YottaAPI
from .gateway import Gateway
from .options import Options, SpecOptions
from .scaling import set_count, start, stop, warm
from .wire import EndpointWire, PodWire


class YottaDriver(DeployDriver):
    """Endpoints (QUEUE, ALB, CUSTOM) and pods of one account."""

    name: ClassVar[str] = PROVIDER
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = "YOTTA_API_KEY"
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    limits: ClassVar[Mapping[str, Limit]] = LIMITS

    long_poll = 0.0  # a task's status comes at once
    submit_call = CallClass.IDEMPOTENT  # our own taskId: a repeated submit is the same task
    request_hold = 0.0  # the gateway holds nothing

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        self.base = check.base_url(self._options.base_url)
        self._api = YottaAPI(base=self.base, key=config.api_key, options=self._options)

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        """What the facts cannot say: GPUs, ports, the login, and the disk's minimum."""
        return check.check(spec, self._options)

    def content(self, spec: DeploymentSpec) -> Content:
        """The image as given, which is a field of the spec already."""
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        """By the user's own prices, where all acceptable GPUs have one: the API shows none before it bills."""
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
        return resources.of_spec(self._api, spec, identity)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        """Every resource that may carry its name: a name alone does not say which there are."""
        return resources.of_name(self._api, info)

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        """Endpoints and pods; what is terminated is over."""
        api = self._api
        endpoints = await api.listed(io, EndpointWire, PATHS[ENDPOINT], "endpoint.list", deadline=deadline)
        pods = await api.listed(io, PodWire, PATHS[POD], "pod.list", deadline=deadline)
        found = [translate.endpoint_info(one, self._api.base, self._options) for one in endpoints]
        found += [translate.pod_info(one, self._options) for one in pods]
        return tuple(one for one in found if one.state is not State.GONE)

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        """As it is now; what the platform does not show, as *info* has it."""
        return await resources.read(self._api, io, info, deadline=deadline)

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
        """Endpoints, pods, virtual machines and volumes of the account, ours or not."""
        found = [account.item_of(one) for one in await self.deployments(io, deadline=deadline)]
        found += await account.machines(self._api, io, deadline=deadline)
        found += await account.volumes(self._api, io, deadline=deadline)
        return tuple(found)

    # -- changing it --------------------------------------------------------------------------------------------------

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        """It was created with its workers. A cap on the price is held here: Yotta shows the price only now."""
        await warm(self._api, io, info, spec, deadline=deadline)

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
        """An absolute count; 0 is `stop`."""
        if workers is not None:
            await set_count(self._api, io, info, workers[0], deadline=deadline)

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Stop it; a pod is paused."""
        await stop(self._api, io, info, deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Start it; a pod is resumed."""
        await start(self._api, io, info, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        """Start a stopped one, with all its declared workers: there is no other sleep."""
        await start(self._api, io, info, deadline=deadline)

    # -- calling it ---------------------------------------------------------------------------------------------------

    def has_jobs(self, info: DeploymentInfo) -> bool:
        """QUEUE endpoints have; calls of ALB endpoints and of pods are held."""
        return calls.has_jobs(info)

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        """Put a task into the queue. The gateway of an ALB endpoint, and a pod, answer the call itself."""
        if not self.has_jobs(info):
            return answered(call, await calls.invoke(self._gateway(io, info, call.deadline), call))
        return await calls.submit(self._api, io, info, call)

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        return await calls.status(self._api, io, info, job_id, deadline=deadline)

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
        return Gateway(api=self._api, io=io, info=info, deadline=deadline)
