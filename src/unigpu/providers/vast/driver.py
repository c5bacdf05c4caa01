"""Vast's verbs, top to bottom: check, create, read, change, call.

A serverless deployment is a template, an endpoint and a workergroup; its workers are machines that Vast rents for it
from strangers. A call asks the engine for a worker, and then the worker itself. A pod is one such machine.
https://docs.vast.ai/guides/serverless/architecture, https://docs.vast.ai/api-reference
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar, Final, Literal

from unigpu.driver import (
    DRIVER_API,
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
    Pace,
    Rate,
    Resource,
    Scaling,
    State,
    StreamResponse,
    Worker,
    answered,
    gone,
)
from unigpu.errors import NotFoundError

from . import account, bodies, calls, instances, market, request, scaling, translate
from .api import LIMITS, VastAPI
from .check import check
from .logs import logs
from .options import Options, SpecOptions
from .resources import EndpointResource, GroupResource, ListCache, TemplateResource
from .scaling import set_limits
from .tls import trust_of
from .wire import PROVIDER, GroupWire

_IN_PLACE: Final = frozenset(
    {
        "code", "command", "concurrency", "disk", "env", "execution_timeout", "gpu", "handler", "idempotent", "image",
        "max_price", "port", "provider_options", "regions", "registry", "secrets",
    }
)  # fmt: skip


class VastDriver(DeployDriver):
    """Serverless endpoints and instances."""

    name: ClassVar[str] = PROVIDER
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = "VAST_API_KEY"
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    limits: ClassVar[Mapping[str, Limit]] = LIMITS

    request_hold = 3600.0  # the caller waits, not the platform: as long as it likes
    state_pace = Pace(floor=5.0, cap=15.0, jitter=0.2)  # a read is four requests, and Vast wants seconds between them
    update_kinds: ClassVar[frozenset[str]] = frozenset({"serverless"})

    def __init__(self, config: DriverConfig) -> None:
        self._options = Options.model_validate(dict(config.options))
        self.base = self._options.console_url
        self._api = VastAPI(
            base=self._options.console_url,
            engine=self._options.engine_url,
            key=config.api_key,
            trust=trust_of(self._options.worker_ca),
            http_workers=self._options.http_workers,
            by_endpoint=self._options.engine_key == "endpoint",
        )

    # -- before anything is sent -------------------------------------------------------------------------------------

    def check(self, spec: DeploymentSpec) -> Checked:
        return check(spec, self._options)

    def content(self, spec: DeploymentSpec) -> Content:
        """The image as given, which is a field of the spec already."""
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        """By the price cap: what a machine costs is known when Vast rents it."""
        kept = bodies.options_of(spec).cold_workers if spec.kind == "serverless" else 0
        return translate.rate_of(spec.max_price, spec.workers, kept)

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        """In this order: a workergroup names its endpoint and its template."""
        common: dict[str, Any] = {
            "api": self._api, "name": identity.provider_name, "spec": spec, "identity": identity, "lists": ListCache()
        }  # fmt: skip
        if spec.kind == "pod":
            return (instances.InstanceResource(**common),)
        return TemplateResource(**common), EndpointResource(**common), GroupResource(**common)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        """Ended from the last on: the endpoint first, as its end takes the rest along.

        All of both kinds, as an intent does not tell which it was; what the other kind has, this one need not have.
        """
        common: dict[str, Any] = {"api": self._api, "name": info.provider_name, "lists": ListCache()}
        pod = info.kind == "pod"
        return (
            TemplateResource(**common, optional=pod),
            GroupResource(**common, optional=pod),
            EndpointResource(**common, optional=pod),
            instances.InstanceResource(**common, optional=not pod),
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        """Endpoints and instances. What their workers do is not in the list: an endpoint's state is not known by it."""
        endpoints = await self._api.endpoints(io, deadline=deadline)
        groups: Sequence[GroupWire] = await self._api.groups(io, deadline=deadline) if endpoints else ()
        known = [known for one in endpoints if (known := translate.untag(one.endpoint_name))]
        templates = await self._api.templates(io, [name for name, _ in known], deadline=deadline)
        machines = await self._api.instances(io, deadline=deadline)
        return (
            *(translate.endpoint_among(one, templates, groups) for one in endpoints),
            *(instances.instance_info(one) for one in machines if translate.untag(one.label)),
        )

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        if info.kind == "pod":
            machine = await self._api.instance(io, info.id, deadline=deadline)
            return None if machine is None else await instances.probed(self._api, io, machine, deadline=deadline)
        wire = await self._api.endpoint(io, info.id, deadline=deadline)
        if wire is None:
            return None
        templates = await self._api.templates(io, [info.provider_name], deadline=deadline)
        template = next((one for one in templates if str(one.id) == info.ids.get("template")), None)
        group: GroupWire | None = None
        # An update that stopped in between shows in the workergroup: it is read where the template has anything new.
        same = template is not None and translate.found_template(template).spec_hash == info.spec_hash
        if not same or "workergroup" not in info.ids:
            groups = await self._api.groups(io, deadline=deadline)
            group = next((one for one in groups if one.endpoint_id == wire.id), None)
            template = translate.its_template(wire, templates, group)
        try:
            workers = await self._api.workers(io, info.id, deadline=deadline)
        except NotFoundError:
            workers = ()  # the engine does not know it yet: there are none
        now = translate.endpoint_info(wire, template=template, group=group, workers=workers)
        return now.model_copy(update={"ids": {**info.ids, **now.ids}})  # what stands beside it is known, and stays

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        if info.kind == "pod":
            machine = await self._api.instance(io, info.id, deadline=deadline)
            if machine is None:
                raise gone(info, operation="vast.instance.get")
            known = info.raw_state == machine.actual_status and info.state is not State.UNKNOWN
            now = info if known else await instances.probed(self._api, io, machine, deadline=deadline)
            return (instances.instance_worker(machine, now.state),)
        try:
            return tuple(map(translate.worker_of, await self._api.workers(io, info.id, deadline=deadline)))
        except NotFoundError as exc:
            if await self._api.endpoint(io, info.id, deadline=deadline) is None:
                raise gone(info, operation=exc.operation) from exc
            return ()

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        workers = functools.partial(self.workers, io, info)
        return logs(self._api, io, info, workers, worker=worker, follow=follow, tail=tail)

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
        return await market.offers(
            self._api, io, gpu=gpu, max_price=max_price, regions=regions, kind=kind, deadline=deadline
        )

    async def inventory(self, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
        return await account.inventory(self._api, io, deadline=deadline)

    # -- changing -----------------------------------------------------------------------------------------------------

    def updatable(self, fields: frozenset[str]) -> bool:
        """The template is changed, and Vast replaces the workers one after the other; calls that run are finished."""
        return fields <= _IN_PLACE

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        await scaling.update(self._api, io, info, spec, identity, deadline=deadline)

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        await scaling.warm(self._api, io, info, spec, deadline=deadline)

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
        await set_limits(self._api, io, info, workers, idle_timeout, scaling, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await scaling.wake(self._api, io, info, deadline=deadline)

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await scaling.stop(self._api, io, info, deadline=deadline)

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await scaling.start(self._api, io, info, deadline=deadline)

    # -- calling ------------------------------------------------------------------------------------------------------

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        return answered(call, await calls.invoke(self._api, io, info, call))

    def stream(self, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
        return calls.stream(self._api, io, info, call)

    def request(self, io: Io, info: DeploymentInfo, call: HTTPCall) -> AbstractAsyncContextManager[StreamResponse]:
        if info.kind == "pod":
            return request.pod_request(io, info, call)
        return request.request(self._api, io, info, call)
