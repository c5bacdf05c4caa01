"""Drivers for the cloud in memory: with jobs, and without."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, ClassVar

from lifecycle_cloud import BASE

from unigpu._io.contract import UNSET, CallClass, Request
from unigpu._io.poll import Pace
from unigpu.driver import (
    Checked,
    ChunkPage,
    Consistency,
    Content,
    DeployDriver,
    DeploymentInfo,
    DeploymentSpec,
    DriverConfig,
    Found,
    Identity,
    InputModel,
    Invocation,
    JobInfo,
    JobStatus,
    LogLine,
    Rate,
    Resource,
    Result,
    Scaling,
    State,
    Worker,
    WorkerState,
    answered,
)
from unigpu.errors import (
    AuthenticationError,
    ConflictError,
    DeploymentGone,
    InvalidRequestError,
    JobExpired,
    NotFoundError,
    ProviderUnavailableError,
    RateLimitError,
)
from unigpu.models import JobError


class NoOptions(InputModel):
    pass


def call(
    operation: str, path: str, body: Any = UNSET, *, deadline: float, how: CallClass = CallClass.IDEMPOTENT
) -> Any:
    return Request(
        method="POST",
        url=f"{BASE}/{path}",
        operation=f"fake.{operation}",
        json=body,
        role="control",
        call=how,
        deadline=deadline,
    )


async def ask(io: Any, request: Request) -> Any:
    reply = await io.send(request)
    status = reply.status
    if status == 404:
        raise NotFoundError("no such thing", provider="fake", status=404, maybe_executed=False)
    if status in (409, 412):
        raise ConflictError("it is taken, or busy", provider="fake", status=status, maybe_executed=False)
    if status in (401, 403):
        raise AuthenticationError("the key is not valid", provider="fake", status=status, maybe_executed=False)
    if status == 429:
        raise RateLimitError("too many requests", provider="fake", status=status, maybe_executed=False)
    if status >= 500:
        raise ProviderUnavailableError("the platform has a fault", provider="fake", status=status)
    if status >= 400:
        raise InvalidRequestError("the platform says no", provider="fake", status=status, maybe_executed=False)
    return reply.json()


class FakeResource:
    call = CallClass.IDEMPOTENT
    consistency = Consistency(kind="atomic")
    bills_cold = None
    optional = False

    def __init__(self, driver: FakeDriver, kind: str, name: str, body: Mapping[str, Any] | None) -> None:
        self.driver, self.kind, self.name, self.body = driver, kind, name, body

    async def find(self, io: Any, *, deadline: float) -> Sequence[Found]:
        found = await self.read(io, self.name, deadline=deadline)
        return [] if found is None else [found]

    async def create_cold(self, io: Any, made: Mapping[str, Found], *, deadline: float) -> Found:
        assert self.body is not None
        return self.driver.found(await ask(io, call("create", "", {**self.body, "kind": self.kind}, deadline=deadline)))

    async def read(self, io: Any, id: str, *, deadline: float) -> Found | None:
        try:
            return self.driver.found(await ask(io, call("get", f"{self.kind}/{id}", deadline=deadline)))
        except NotFoundError:
            return None

    async def delete(self, io: Any, id: str, *, deadline: float) -> None:
        await ask(io, call("delete", f"{self.kind}/{id}", deadline=deadline))


class FakeDriver(DeployDriver):
    name: ClassVar[str] = "fake"
    driver_api: ClassVar[int] = 1
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = NoOptions
    SpecOptions: ClassVar[type[InputModel]] = NoOptions
    long_poll = 0.0
    submit_call = CallClass.IDEMPOTENT
    state_pace = Pace(floor=0.5, cap=2.0)
    update_kinds = frozenset({"serverless", "pod"})

    def __init__(self, config: DriverConfig | None = None) -> None:
        self.kinds: tuple[str, ...] = ("deployment",)
        self.code = "v1"
        self.origin: str | None = None
        self.in_place: frozenset[str] = frozenset({"code", "env", "image", "concurrency"})
        self.price = 1.0

    def check(self, spec: DeploymentSpec) -> Checked:
        return Checked()

    def content(self, spec: DeploymentSpec) -> Content:
        if spec.handler is None:
            return Content()
        return Content(items={"code": self.code}, origin=self.origin)

    def rate(self, spec: DeploymentSpec) -> Rate:
        return Rate(idle_per_hour=0.0, max_per_hour=self.price * spec.workers[1])

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        body = {
            "name": identity.provider_name,
            "logical": identity.name,
            "namespace": identity.namespace,
            "attempt": identity.attempt,
            "spec_hash": identity.spec_hash,
            "expires_at": identity.expires_at,
            "origin": self.content(spec).origin,
            "idle_timeout": spec.idle_timeout,
            "secrets": {k: "set" if v is not None else "unset" for k, v in spec.secrets.items()},
        }
        return [FakeResource(self, kind, identity.provider_name, body) for kind in self.kinds]

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return [FakeResource(self, kind, info.provider_name, None) for kind in self.kinds]

    def found(self, raw: Any) -> Found:
        main = raw["kind"] == self.kinds[-1]
        return Found(
            kind=raw["kind"],
            id=raw["name"],
            name=raw["name"],
            attempt=raw["attempt"],
            spec_hash=raw["spec_hash"],
            created_at=raw["created_at"],
            expires_at=raw["expires_at"],
            origin=raw["origin"],
            info=self.info(raw) if main else None,
        )

    def info(self, raw: Any) -> DeploymentInfo:
        return DeploymentInfo(
            provider=self.name,
            name=raw["logical"],
            namespace=raw["namespace"],
            provider_name=raw["name"],
            id=raw["name"],
            state=State(raw["state"]),
            reason=raw["reason"],
            workers=tuple(raw["workers"]),
            idle_timeout=raw["idle_timeout"],
            ready_workers=raw["ready_workers"],
            spec_hash=raw["spec_hash"],
            attempt=raw["attempt"],
            origin=raw["origin"],
            created_at=raw["created_at"],
            expires_at=raw["expires_at"],
            rate=Rate(idle_per_hour=raw["workers"][0] * self.price, max_per_hour=raw["workers"][1] * self.price),
            details={"scaling": raw["scaling"]},
        )

    async def deployments(self, io: Any, *, deadline: float) -> Sequence[DeploymentInfo]:
        return [self.info(raw) for raw in await ask(io, call("list", "", deadline=deadline))]

    async def read(self, io: Any, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        try:
            return self.info(await ask(io, call("get", self.path(info), deadline=deadline)))
        except NotFoundError:
            return None

    def path(self, info: DeploymentInfo) -> str:
        return f"{self.kinds[-1]}/{info.provider_name}"

    async def warm(self, io: Any, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
        await self.scale(
            io,
            info,
            workers=spec.workers,
            idle_timeout=spec.idle_timeout,
            scaling=spec.scaling,
            deadline=deadline,
        )

    async def scale(
        self,
        io: Any,
        info: DeploymentInfo,
        *,
        workers: tuple[int, int] | None = None,
        idle_timeout: float | None = None,
        scaling: Scaling | None = None,
        deadline: float,
    ) -> None:
        body = {
            "workers": workers,
            "idle_timeout": idle_timeout,
            "scaling": None if scaling is None else scaling.model_dump(),
        }
        try:
            await ask(io, call("patch", self.path(info), body, deadline=deadline))
        except NotFoundError as exc:
            raise DeploymentGone("it does not exist any more", provider="fake") from exc

    async def workers(self, io: Any, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        raw = await ask(io, call("workers", self.path(info), deadline=deadline))
        return [Worker(id=w["id"], state=WorkerState(w["state"]), reason=w.get("reason")) for w in raw]

    async def logs(
        self, io: Any, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        yield LogLine(text=f"{worker}: Traceback: no module named app", worker_id=worker)

    # jobs

    async def submit(self, io: Any, info: DeploymentInfo, call_: Invocation) -> JobInfo:
        body = {"id": call_.job_id, "input": dict(call_.input)}
        return self.job(
            await ask(io, call("submit", self.path(info), body, deadline=call_.deadline, how=self.submit_call))
        )

    async def status(
        self, io: Any, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float
    ) -> JobInfo:
        try:
            return self.job(await ask(io, call("status", job_id, deadline=deadline)))
        except NotFoundError:
            raise JobExpired("not known (any more)", job_id=job_id) from None

    async def cancel(self, io: Any, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        try:
            return self.job(await ask(io, call("cancel", job_id, deadline=deadline)))
        except NotFoundError:
            raise JobExpired("not known (any more)", job_id=job_id) from None

    def job(self, raw: Any) -> JobInfo:
        error = raw["error"]
        return JobInfo(
            id=raw["id"],
            status=JobStatus(raw["status"]),
            output=raw["output"],
            error=None if error is None else JobError(type="ValueError", message=error),
            lost=raw["lost"],
            worker_id="w0",
            ready_workers=raw["ready_workers"],
        )

    async def chunks(
        self, io: Any, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage:
        raw = await ask(io, call("chunks", job_id, {"after": after}, deadline=deadline))
        return ChunkPage(
            chunks=tuple(raw["chunks"]),
            after=raw["after"],
            end=raw["end"],
            ready_workers=raw["ready_workers"],
            started=raw["started"],
        )

    # the rest

    def updatable(self, fields: frozenset[str]) -> bool:
        return fields <= self.in_place

    async def update(
        self, io: Any, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        body = {"attempt": identity.attempt, "spec_hash": identity.spec_hash, "origin": self.content(spec).origin}
        await ask(io, call("update", self.path(info), body, deadline=deadline))

    async def wake(self, io: Any, info: DeploymentInfo, *, deadline: float) -> None:
        await ask(io, call("wake", self.path(info), deadline=deadline))

    async def stop(self, io: Any, info: DeploymentInfo, *, deadline: float) -> None:
        await ask(io, call("stop", self.path(info), deadline=deadline))

    async def start(self, io: Any, info: DeploymentInfo, *, deadline: float) -> None:
        await ask(io, call("start", self.path(info), deadline=deadline))


class HeldDriver(FakeDriver):
    """A platform without jobs: the caller holds the line."""

    cancel = chunks = None  # type: ignore[assignment]  # not offered here

    def __init__(self, config: DriverConfig | None = None) -> None:
        super().__init__(config)
        self.replies: list[BaseException | Result] = []
        self.calls: list[Invocation] = []

    def has_jobs(self, info: DeploymentInfo) -> bool:
        return False

    async def submit(self, io: Any, info: DeploymentInfo, call_: Invocation) -> JobInfo:
        self.calls.append(call_)
        await io.sleep(1.0)
        reply = self.replies.pop(0) if self.replies else Result(output={"echo": dict(call_.input)})
        if isinstance(reply, BaseException):
            raise reply
        return answered(call_, reply)
