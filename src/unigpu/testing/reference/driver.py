"""A driver for the reference platform: the complete worked example of ``docs/write-a-driver.md``.

Read it as one reads a platform's manual: what a deployment consists of, and then verb by verb. Nothing here waits,
retries or remembers: that is the lifecycle's, the same for every platform.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
    Consistency,
    Content,
    DeployDriver,
    DeploymentInfo,
    DeploymentSpec,
    DriverConfig,
    Identity,
    InputModel,
    Invocation,
    Io,
    JobInfo,
    ListedResource,
    LogLine,
    Rate,
    Refusal,
    Resource,
    Scaling,
    Worker,
    parse,
    read_logs,
)

from . import translate
from .api import ReferenceAPI
from .wire import EndpointWire, JobWire, LinesWire, TemplateWire, WorkersWire

BASE: Final = "https://api.reference.test/v1"
LISTED: Final = Consistency(kind="listed", settle=15.0)


class Options(InputModel):
    """``driver_options["reference"]``: where the platform is."""

    base_url: str = BASE


class SpecOptions(InputModel):
    """``provider_options["reference"]``: there is nothing that only this platform has."""


def template(api: ReferenceAPI, name: str, **made_from: Any) -> Resource:
    """What runs. Nothing calls it, so it carries no `Found.info`."""
    return ListedResource(
        api=api, kind="template", name=name, path="/templates", under="items", consistency=LISTED,
        shape=TemplateWire, found=translate.found_template, body=translate.template_body, **made_from,
    )  # fmt: skip


def endpoint(api: ReferenceAPI, name: str, **made_from: Any) -> ListedResource[EndpointWire]:
    """What is called."""
    return ListedResource(
        api=api, kind="endpoint", name=name, path="/endpoints", under="items", consistency=LISTED,
        shape=EndpointWire, found=translate.found_endpoint, body=translate.endpoint_body, **made_from,
    )  # fmt: skip


class ReferenceDriver(DeployDriver):
    """The verbs, in the order in which a deployment lives."""

    name: ClassVar[str] = "reference"
    driver_api: ClassVar[int] = DRIVER_API
    env_key: ClassVar[str | None] = "REFERENCE_API_KEY"
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    facts: ClassVar[Any] = Path(__file__).with_name("facts.toml")

    long_poll = 0.0  # a job's status is told at once
    submit_call = CallClass.USER_DECIDES  # the platform makes the ids: a submit that is repeated runs twice

    def __init__(self, config: DriverConfig) -> None:
        self.base = str(config.options.get("base_url", BASE)).rstrip("/")
        self._api = ReferenceAPI(base=self.base, key=config.api_key)

    # -- before anything is sent

    def check(self, spec: DeploymentSpec) -> Checked:
        """What the facts cannot say: what the catalogue has, and a login that there is no field for."""
        refusals: list[Refusal] = []
        if spec.gpu is not None and not translate.offered(spec):
            text = f"gpu: none of these is offered at that price; choose from {', '.join(translate.PRICES)}."
            refusals.append(Refusal(field="gpu", capability="gpu", message=text))
        if spec.registry is not None:
            text = "registry: images must be public; leave it out."
            refusals.append(Refusal(field="registry", capability="images", message=text))
        return Checked(refusals=tuple(refusals))

    def content(self, spec: DeploymentSpec) -> Content:
        """The image as given, which is a field of the spec already."""
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        prices = [translate.PRICES[name] for name in translate.offered(spec)]
        return translate.rate_of(max(prices), spec.workers) if prices else Rate()

    # -- what exists

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        """In this order: an endpoint stands on its template."""
        name = identity.provider_name
        return tuple(make(self._api, name, spec=spec, identity=identity) for make in (template, endpoint))

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return tuple(make(self._api, info.provider_name) for make in (template, endpoint))

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        found = await self._api.listed(
            io, EndpointWire, "/endpoints", "endpoint.list", under="items", deadline=deadline
        )
        return tuple(map(translate.info_of, found))

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        found = await endpoint(self._api, info.provider_name).read(io, info.id, deadline=deadline)
        return None if found is None else found.info

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        reply = await self._api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(translate.worker_of, parse(WorkersWire, reply).items))

    def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        """Each worker has its own log; the number of its last line is the mark from which the next read goes on."""
        after: dict[str, int] = {}

        async def workers() -> Sequence[str]:
            return [one.id for one in await self.workers(io, info, deadline=io.now() + self._api.read_timeout)]

        async def read(id: str, tail: int | None) -> Sequence[LogLine]:
            path, params = f"/workers/{id}/logs", (("after", str(after.get(id, 0))),)
            until = io.now() + self._api.read_timeout
            reply = await self._api.about(io, "GET", info, path, "worker.logs", params=params, deadline=until)
            found = parse(LinesWire, reply).items
            after[id] = found[-1].n if found else after.get(id, 0)
            return [LogLine(text=line.text, worker_id=id, time=line.time) for line in found]

        return read_logs(io, workers=workers, read=read, worker=worker, follow=follow, tail=tail)

    # -- changing it

    async def warm(self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        await self.scale(io, info, workers=spec.workers, deadline=deadline)

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
        body = translate.limits_body(workers, idle_timeout, scaling)
        await self._api.about(io, "PATCH", info, "", "endpoint.patch", json=body, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._api.about(io, "POST", info, "/wake", "endpoint.wake", deadline=deadline)

    # -- calling it

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        reply = await self._api.about(
            io, "POST", info, "/jobs", "job.submit",
            json={"input": call.input, "timeout": call.execution_timeout},
            call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
            role="jobs", deadline=call.deadline,
        )  # fmt: skip
        return translate.job_of(parse(JobWire, reply))

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        reply = await self._api.about(io, "GET", info, f"/jobs/{job_id}", "job.get", role="jobs", deadline=deadline)
        return translate.job_of(parse(JobWire, reply))

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        reply = await self._api.about(
            io, "POST", info, f"/jobs/{job_id}/cancel", "job.cancel", role="jobs", deadline=deadline
        )
        return translate.job_of(parse(JobWire, reply))
