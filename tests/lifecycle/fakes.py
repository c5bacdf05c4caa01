"""An atomic cloud in memory, a driver for it, and `Io`s that crash, interrupt, yield or lose answers where told."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import coroutine
from typing import Any, ClassVar

import anyio.lowlevel

from unigpu._io.clock import InstantClock, VirtualClock
from unigpu._io.contract import UNSET, CallClass, Headers, Request, Response, StreamResponse
from unigpu._io.poll import Pace
from unigpu._io.shield import shield_async, shield_sync
from unigpu._lifecycle import CallOptions, IntentStore, Scope
from unigpu.driver import (
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
    TransportError,
)
from unigpu.models import Event, JobError, Progress

BASE = "http://fake.test"


class Crash(BaseException):
    """The process is killed here: nothing after it has any effect."""


# -- the cloud ----------------------------------------------------------------------------------------------------


@dataclass
class Row:
    kind: str
    name: str
    attempt: str
    spec_hash: str
    created_at: float
    body: dict[str, Any]
    limits: tuple[int, int] = (0, 0)
    idle_timeout: float = 60.0
    scaling: Any = None
    stopped: bool = False
    deleting_until: float | None = None
    started: list[float] = field(default_factory=list)  # when each worker began to start


@dataclass
class Job:
    id: str
    row: Row
    input: dict[str, Any]
    submitted: float
    began: float | None = None
    ended: float | None = None
    status: str = "QUEUED"
    runs: int = 0
    lost: bool = False


@dataclass
class Fault:
    """``lost``: no answer arrives; ``refused``: it never leaves; or an HTTP status. Before or after the cloud acts."""

    operation: str
    kind: str | int
    when: str = "before"
    times: int = 1
    skip: int = 0


class FakeCloud:
    def __init__(self, clock: Any, *, kinds: Sequence[str] = ("deployment",), cold_start: float = 10.0) -> None:
        self.clock = clock
        self.kinds = tuple(kinds)
        self.cold_start = cold_start
        self.rows: dict[tuple[str, str], Row] = {}
        self.jobs: dict[str, Job] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.bodies: list[Any] = []
        self.created: list[tuple[str, str]] = []  # every create that acted, with its attempt
        self.start_failure: str | None = None  # every worker fails to start, in these words
        self.fails_after = 3
        self.tells_ready = True
        self.delete_takes = 0.0
        self.cancels = True
        self.lose_worker: int = 0  # so many jobs lose their worker

    @property
    def main(self) -> str:
        return self.kinds[-1]

    def handle(self, request: Request) -> Response:
        self.log.append(request.operation)
        fault = self._fault(request.operation)
        if fault is not None and fault.when == "before":
            return self._fail(fault, request)
        body = None if request.json is UNSET else request.json
        self.bodies.append(body)
        operation = request.operation.removeprefix("fake.")
        status, reply = getattr(self, "on_" + operation.replace(".", "_"))(request.url.removeprefix(BASE), body)
        if fault is not None:
            return self._fail(fault, request)
        import json

        return Response(
            status=status, headers=Headers(), content=json.dumps(reply).encode(), operation=request.operation
        )

    def _fault(self, operation: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation != operation or fault.times <= 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                return None
            fault.times -= 1
            return fault
        return None

    def _fail(self, fault: Fault, request: Request) -> Response:
        if fault.kind == "lost":
            raise TransportError(f"{request.operation}: no answer", operation=request.operation)
        if fault.kind == "refused":
            raise TransportError(f"{request.operation}: refused", never_sent=True, operation=request.operation)
        return Response(status=int(fault.kind), headers=Headers(), content=b"{}", operation=request.operation)

    # resources

    def on_create(self, url: str, body: Any) -> tuple[int, Any]:
        key = (body["kind"], body["name"])
        row = self.row(*key)
        if row is not None and row.attempt != body["attempt"]:
            return 412, self.show(row)
        if row is None:
            row = Row(
                kind=body["kind"],
                name=body["name"],
                attempt=body["attempt"],
                spec_hash=body["spec_hash"],
                created_at=self.clock.wall(),
                body=dict(body),
                idle_timeout=body["idle_timeout"],
            )
            self.rows[key] = row
            self.created.append((row.kind, row.attempt))
        return 200, self.show(row)

    def on_get(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        return (404, {}) if row is None else (200, self.show(row))

    def on_list(self, url: str, body: Any) -> tuple[int, Any]:
        return 200, [self.show(row) for key in list(self.rows) if (row := self.row(*key)) and row.kind == self.main]

    def on_delete(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 200, {"deleted": False}
        if self.delete_takes:
            row.deleting_until = row.deleting_until or self.clock.now() + self.delete_takes
        else:
            del self.rows[row.kind, row.name]
        return 200, {"deleted": True}

    def on_patch(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if body.get("workers") is not None:
            row.limits = tuple(body["workers"])
        if body.get("idle_timeout") is not None:
            row.idle_timeout = body["idle_timeout"]
        if body.get("scaling") is not None:
            row.scaling = body["scaling"]
        self.fill(row)
        return 200, self.show(row)

    def on_update(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if body["attempt"] != row.attempt:
            return 412, {}
        row.spec_hash, row.body = body["spec_hash"], {**row.body, **body}
        return 200, self.show(row)

    def on_wake(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if not row.started and row.limits[1] > 0:
            row.started.append(self.clock.now())
        return 200, {}

    def on_stop(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        row.stopped, row.started = True, []
        return 200, {}

    def on_start(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        row.stopped = False
        self.fill(row)
        return 200, {}

    def on_workers(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, []
        now, out = self.clock.now(), []
        for n, at in enumerate(row.started):
            if self.start_failure is not None:
                tries = int((now - at) // self.cold_start)
                out += [{"id": f"w{n}-{i}", "state": "FAILED", "reason": self.start_failure} for i in range(tries)]
                out.append({"id": f"w{n}-{tries}", "state": "STARTING", "reason": None})
            else:
                out.append({"id": f"w{n}", "state": "IDLE" if now >= at + self.cold_start else "STARTING"})
        return 200, out

    # jobs

    def on_submit(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if row.stopped:
            return 409, {}
        job = self.jobs.get(body["id"])
        if job is None:
            job = self.jobs[body["id"]] = Job(id=body["id"], row=row, input=body["input"], submitted=self.clock.now())
            if not row.started and row.limits[1] > 0:
                row.started.append(self.clock.now())
        return 200, self.show_job(job)

    def on_status(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        return (404, {}) if job is None else (200, self.show_job(job))

    def on_cancel(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        if job is None:
            return 404, {}
        self.step(job)
        if job.ended is None and self.cancels:
            job.status, job.ended = "CANCELLED", self.clock.now()
        return 200, self.show_job(job)

    def on_chunks(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        if job is None:
            return 404, {}
        self.step(job)
        every = float(job.input.get("every", 1.0))
        total = int(job.input.get("chunks", 0))
        there = 0 if job.began is None else min(total, int((self.clock.now() - job.began) // every) + 1)
        after = body["after"]
        return 200, {
            "chunks": list(range(after, there)),
            "after": there,
            "end": job.ended is not None,
            "ready_workers": self.ready(job.row) if self.tells_ready else None,
            "started": job.began is not None,
        }

    # what follows from time

    def row(self, kind: str, name: str) -> Row | None:
        row = self.rows.get((kind, name))
        if row is None:
            return None
        if row.deleting_until is not None and self.clock.now() >= row.deleting_until:
            del self.rows[kind, name]
            return None
        return row

    def fill(self, row: Row) -> None:
        while not row.stopped and len(row.started) < row.limits[0]:
            row.started.append(self.clock.now())
        del row.started[max(row.limits[1], 0) :]

    def ready(self, row: Row) -> int:
        if self.start_failure is not None:
            return 0
        return sum(self.clock.now() >= at + self.cold_start for at in row.started)

    def step(self, job: Job) -> None:
        now, row = self.clock.now(), job.row
        if job.ended is not None or self.start_failure is not None:
            return
        if job.began is None and row.started:
            at = min(row.started) + self.cold_start + float(job.input.get("queue", 0.0))
            if now >= max(at, job.submitted):
                job.began = max(at, job.submitted)
                job.status = "RUNNING"
                job.runs += 1
        if job.began is not None and now >= job.began + float(job.input.get("seconds", 0.0)):
            job.ended = now
            if self.lose_worker:
                self.lose_worker -= 1
                job.status, job.lost = "FAILED", True
            else:
                job.status = "FAILED" if job.input.get("raise") else "DONE"

    def state(self, row: Row) -> State:
        if row.deleting_until is not None:
            return State.DELETING
        if row.stopped:
            return State.STOPPED
        if not row.started:
            return State.COLD
        if self.start_failure is not None:
            failed = int((self.clock.now() - row.started[0]) // self.cold_start)
            return State.FAILED if failed >= self.fails_after else State.STARTING
        return State.READY if self.ready(row) else State.STARTING

    def show(self, row: Row) -> dict[str, Any]:
        return {
            "kind": row.kind,
            "name": row.name,
            "attempt": row.attempt,
            "spec_hash": row.spec_hash,
            "created_at": row.created_at,
            "expires_at": row.body.get("expires_at"),
            "origin": row.body.get("origin"),
            "logical": row.body.get("logical"),
            "namespace": row.body.get("namespace"),
            "state": str(self.state(row)),
            "reason": self.start_failure if self.state(row) is State.FAILED else None,
            "workers": list(row.limits),
            "idle_timeout": row.idle_timeout,
            "scaling": row.scaling,
            "ready_workers": self.ready(row),
        }

    def show_job(self, job: Job) -> dict[str, Any]:
        self.step(job)
        return {
            "id": job.id,
            "status": job.status,
            "output": {"echo": job.input} if job.status == "DONE" else None,
            "error": job.input.get("raise") if job.status == "FAILED" else None,
            "lost": job.lost,
            "ready_workers": self.ready(job.row) if self.tells_ready else None,
        }


# -- the driver ---------------------------------------------------------------------------------------------------


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


class FakeDriver:
    name: ClassVar[str] = "fake"
    driver_api: ClassVar[int] = 1
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = NoOptions
    SpecOptions: ClassVar[type[InputModel]] = NoOptions
    long_poll = 0.0
    submit_call = CallClass.IDEMPOTENT
    state_pace = Pace(floor=0.5, cap=2.0)

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

    submit = status = cancel = chunks = None  # type: ignore[assignment]  # not offered here

    def __init__(self, config: DriverConfig | None = None) -> None:
        super().__init__(config)
        self.replies: list[BaseException | Result] = []
        self.calls: list[Invocation] = []

    async def invoke(self, io: Any, info: DeploymentInfo, call_: Invocation) -> Result:
        self.calls.append(call_)
        await io.sleep(1.0)
        reply = self.replies.pop(0) if self.replies else Result(output={"echo": dict(call_.input)})
        if isinstance(reply, BaseException):
            raise reply
        return reply


# -- ways to the cloud --------------------------------------------------------------------------------------------


class FakeIo:
    """*hook* is called before and after every call, with ``"before create"`` and the like."""

    def __init__(
        self, cloud: FakeCloud, *, sync: bool = True, hook: Callable[[str], None] | None = None, rolls: float = 0.5
    ) -> None:
        self.cloud, self.sync, self.hook, self.rolls = cloud, sync, hook, rolls
        self.shields = 0

    def point(self, name: str) -> None:
        if self.hook is not None:
            self.hook(name)

    async def turn(self) -> None:
        if not self.sync:
            await anyio.lowlevel.checkpoint()

    async def send(self, request: Request) -> Response:
        name = request.operation.removeprefix("fake.")
        self.point(f"before {name}")
        await self.turn()
        reply = self.cloud.handle(request)
        await self.turn()
        self.point(f"after {name}")
        return reply

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        raise AssertionError("not used")

    async def sleep(self, seconds: float) -> None:
        self.point("sleep")
        if self.sync:
            self.cloud.clock.sleep(seconds)
        else:
            await self.cloud.clock.asleep(seconds)

    def now(self) -> float:
        return float(self.cloud.clock.now())

    def wall(self) -> float:
        return float(self.cloud.clock.wall())

    def random(self) -> float:
        return self.rolls

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        self.shields += 1
        return await (shield_sync if self.sync else shield_async)(work, seconds=seconds)


@coroutine
def _yield(what: str) -> Iterator[str]:
    yield what


class SteppedIo(FakeIo):
    """Yields before and after every call, so that a test decides whose turn it is."""

    async def send(self, request: Request) -> Response:
        name = request.operation.removeprefix("fake.")
        await _yield(f"before {name}")
        reply = self.cloud.handle(request)
        await _yield(f"after {name}")
        return reply

    async def sleep(self, seconds: float) -> None:
        await _yield("sleep")
        self.cloud.clock.sleep(seconds)

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        return await work()


class Killer:
    """Kills the process at the n-th point of a run; afterwards nothing works any more."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.points: list[str] = []
        self.dead = False

    def __call__(self, name: str) -> None:
        if self.dead:
            raise Crash
        self.points.append(name)
        if self.at is not None and len(self.points) > self.at:
            self.dead = True
            raise Crash(name)


# -- a world ------------------------------------------------------------------------------------------------------


class World:
    """One cloud, and as many clients (scopes) of it as a test wants."""

    def __init__(
        self, state_dir: Path | None, *, kinds: Sequence[str] = ("deployment",), virtual: bool = False
    ) -> None:
        self.clock = VirtualClock(1000.0, epoch=1.8e9) if virtual else InstantClock(1000.0, epoch=1.8e9)
        self.cloud = FakeCloud(self.clock, kinds=kinds)
        self.state_dir = state_dir
        self.events: list[Event] = []
        self.progress: list[Progress] = []

    def scope(
        self,
        *,
        sync: bool = True,
        hook: Callable[[str], None] | None = None,
        io: FakeIo | None = None,
        state_dir: Path | None = None,
        driver: FakeDriver | None = None,
        namespace: str = "default",
        stateless: bool = False,
        **more: Any,
    ) -> Scope:
        driver = driver or FakeDriver()
        driver.kinds = self.cloud.kinds
        where = state_dir or self.state_dir
        return Scope(
            io=io or FakeIo(self.cloud, sync=sync, hook=hook),
            driver=driver,
            namespace=namespace,
            store=None if stateless or where is None else IntentStore(where, hook=hook),
            base=BASE,
            emit=self.events.append,
            progress=self.progress.append,
            expected=(5.0, 30.0),
            **more,
        )

    def intents(self, state_dir: Path | None = None) -> list[str]:
        """Every intent and lock that is left. (A temporary file of a write that was killed is swept by the next deploy.)"""
        where = (state_dir or self.state_dir or Path("/nonexistent")) / "intents"
        return sorted(p.name for p in where.iterdir() if ".tmp-" not in p.name) if where.is_dir() else []

    @property
    def rows(self) -> list[tuple[str, str]]:
        return [key for key in list(self.cloud.rows) if self.cloud.row(*key)]


def spec(**fields: Any) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"name": "summarize", "handler": "app:summarize", **fields})


def options(**fields: Any) -> CallOptions:
    return CallOptions(**{"start_timeout": 60.0, "timeout": None, "execution_timeout": 100.0, **fields})


counter = itertools.count()
