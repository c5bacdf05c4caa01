"""A driver for the reference platform: the complete worked example of ``docs/write-a-driver.md``.

Read it as one reads a platform's manual: what a deployment consists of, and then verb by verb. Nothing here waits,
retries or remembers: that is the lifecycle's, the same for every platform.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from unigpu.driver import (
    DRIVER_API,
    CallClass,
    Checked,
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
    Rate,
    Refusal,
    Resource,
    Scaling,
    Worker,
)
from unigpu.errors import NotFoundError

from . import translate
from .api import READ_TIMEOUT, Line
from .wire import EndpointWire, JobWire, LinesWire, TemplateWire, WorkersWire, parse, shaped

BASE: Final = "https://api.reference.test/v1"
_LISTED: Final = Consistency(kind="listed", settle=15.0)
_FOLLOW_S: Final = 2.0


class Options(InputModel):
    """``driver_options["reference"]``: where the platform is."""

    base_url: str = BASE


class SpecOptions(InputModel):
    """``provider_options["reference"]``: there is nothing that only this platform has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the two parts of a deployment have in common: found in a list by name, read and deleted by id.

    Creating one twice makes two. So the call class is RECONCILE, and after an unclear answer the list is looked at for
    ``settle`` seconds before anything is created again.
    """

    line: Line
    name: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    kind: str = ""
    call: CallClass = CallClass.RECONCILE
    consistency: Consistency = _LISTED
    bills_cold: str | None = None

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        rows = await self.line.rows(io, self.kind, deadline=deadline)
        found = [self.found(row, f"{self.kind}.list") for row in rows]
        return [one for one in found if one.name == self.name]

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        what = f"{self.kind}.get"
        try:
            reply = await self.line.send(io, "GET", f"/{self.kind}s/{id}", what, deadline=deadline)
        except NotFoundError:
            return None
        return self.found(reply.json(), what)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        try:
            await self.line.send(io, "DELETE", f"/{self.kind}s/{id}", f"{self.kind}.delete", deadline=deadline)
        except NotFoundError:
            return  # it is gone already

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        body, what = self.body(self.spec, self.identity, made), f"{self.kind}.create"
        reply = await self.line.send(
            io, "POST", f"/{self.kind}s", what, json=body, role="create", call=self.call, deadline=deadline
        )
        return self.found(reply.json(), what)

    def body(self, spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found]) -> dict[str, Any]:
        if self.kind == "template":
            return translate.template_body(self.name, spec, identity)
        return translate.endpoint_body(self.name, made["template"].id, spec, identity)

    def found(self, row: object, operation: str) -> Found:
        if self.kind == "template":
            return translate.found_template(shaped(TemplateWire, row, operation))
        return translate.found_endpoint(shaped(EndpointWire, row, operation))


class ReferenceDriver:
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
        self._line = Line(base=self.base, key=config.api_key)

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
        kinds = ("template", "endpoint")
        return tuple(Part(line=self._line, name=name, spec=spec, identity=identity, kind=kind) for kind in kinds)

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return tuple(Part(line=self._line, name=info.provider_name, kind=kind) for kind in ("template", "endpoint"))

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        rows = await self._line.rows(io, "endpoint", deadline=deadline)
        return tuple(translate.info_of(shaped(EndpointWire, row, "endpoint.list")) for row in rows)

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        endpoint = Part(line=self._line, name=info.provider_name, kind="endpoint")
        found = await endpoint.read(io, info.id, deadline=deadline)
        return None if found is None else found.info

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        reply = await self._line.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
        return tuple(map(translate.worker_of, parse(WorkersWire, reply).items))

    async def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        after: dict[str, int] = {}
        first = True
        while first or follow:
            until = io.now() + READ_TIMEOUT
            lines: list[LogLine] = []
            for id in [worker] if worker else [one.id for one in await self.workers(io, info, deadline=until)]:
                path, params = f"/workers/{id}/logs", (("after", str(after.get(id, 0))),)
                reply = await self._line.about(io, "GET", info, path, "worker.logs", params=params, deadline=until)
                found = parse(LinesWire, reply).items
                after[id] = found[-1].n if found else after.get(id, 0)
                lines += [LogLine(text=line.text, worker_id=id, time=line.time) for line in found]
            lines.sort(key=lambda line: line.time or 0.0)
            for line in lines[max(0, len(lines) - tail) :] if first else lines:
                yield line
            first = False
            if follow:
                await io.sleep(_FOLLOW_S)

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
        await self._line.about(io, "PATCH", info, "", "endpoint.patch", json=body, deadline=deadline)

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        await self._line.about(io, "POST", info, "/wake", "endpoint.wake", deadline=deadline)

    # -- calling it

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        more: dict[str, Any] = {
            "json": {"input": dict(call.input), "timeout": call.execution_timeout},
            "call": CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
            "deadline": call.deadline,
        }
        return translate.job_of(parse(JobWire, await self._line.about(io, "POST", info, "/jobs", "job.submit", **more)))

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        reply = await self._line.about(io, "GET", info, f"/jobs/{job_id}", "job.get", deadline=deadline)
        return translate.job_of(parse(JobWire, reply))

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        reply = await self._line.about(io, "POST", info, f"/jobs/{job_id}/cancel", "job.cancel", deadline=deadline)
        return translate.job_of(parse(JobWire, reply))
