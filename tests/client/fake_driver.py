"""A cloud in memory with jobs, and a driver for it: no sockets, any clock, any number of threads."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, ClassVar

from unigpu.driver import (
    CallClass,
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
    Io,
    JobInfo,
    JobStatus,
    LogLine,
    Rate,
    Resource,
    Scaling,
    State,
    Timing,
    Worker,
    WorkerState,
)
from unigpu.errors import ConflictError, JobExpired, NotFoundError
from unigpu.models import JobError


def local_facts() -> dict[str, Any]:
    text = resources.files("unigpu.elasticity").joinpath("facts/local.toml").read_text("utf-8")
    return tomllib.loads(text)


@dataclass
class Row:
    name: str
    attempt: str
    spec_hash: str
    identity: Identity
    spec: DeploymentSpec
    limits: tuple[int, int] = (0, 0)
    stopped: bool = False
    began: float | None = None  # when its worker began to start


@dataclass
class Entry:
    row: str
    call: Invocation
    began: float
    cancelled: bool = False


@dataclass
class FakeCloud:
    """What exists. Inputs say what a handler does: ``sleep``, ``fail``, ``lose``, ``chunks``, else it echoes."""

    cold_start: float = 0.0
    rows: dict[str, Row] = field(default_factory=dict)
    jobs: dict[str, Entry] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    lock: Any = field(default_factory=threading.RLock)
    most_running: int = 0
    fail_lists: Exception | None = None
    fail_deletes: Exception | None = None

    def count(self, what: str) -> int:
        return sum(entry.split(" ")[0] == what for entry in self.log)

    def note(self, what: str) -> None:
        with self.lock:
            self.log.append(what)


class Options(InputModel):
    base_url: str | None = None
    speed: int = 1


class SpecOptions(InputModel):
    tier: str = "basic"


class FakeDriver(DeployDriver):
    name: ClassVar[str] = "fake"
    driver_api: ClassVar[int] = 1
    env_key: ClassVar[str | None] = None
    Options: ClassVar[type[InputModel]] = Options
    SpecOptions: ClassVar[type[InputModel]] = SpecOptions
    facts: ClassVar[Mapping[str, Any]] = local_facts()
    cloud: ClassVar[FakeCloud]
    long_poll = 0.0
    submit_call = CallClass.IDEMPOTENT
    update_kinds = frozenset({"serverless", "pod"})

    def __init__(self, config: DriverConfig) -> None:
        self.config = config

    def check(self, spec: DeploymentSpec) -> Checked:
        return Checked()

    def content(self, spec: DeploymentSpec) -> Content:
        return Content()

    def rate(self, spec: DeploymentSpec) -> Rate:
        return Rate(idle_per_hour=spec.workers[0] * 2.0, max_per_hour=spec.workers[1] * 2.0, source="fake")

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        return [FakeResource(self, identity.provider_name, spec, identity)]

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return [FakeResource(self, info.provider_name, None, None)]

    async def deployments(self, io: Io, *, deadline: float) -> Sequence[DeploymentInfo]:
        self.cloud.note("list")
        if self.cloud.fail_lists is not None:
            raise self.cloud.fail_lists
        return [self.info(io, row) for row in list(self.cloud.rows.values())]

    async def read(self, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        self.cloud.note("read")
        row = self.cloud.rows.get(info.provider_name)
        return None if row is None else self.info(io, row)

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
        row = self.row(info)
        self.cloud.note(f"scale {workers}")
        row.limits = workers or row.limits
        if row.limits[0] > 0:
            self.begin(io, row)

    async def workers(self, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
        row = self.row(info)
        if row.began is None:
            return []
        ready = self.is_ready(io, row)
        return [Worker(id="w1", state=WorkerState.IDLE if ready else WorkerState.STARTING, started_at=row.began)]

    async def logs(
        self, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        self.row(info)
        for n in range(min(3, tail)):
            yield LogLine(text=f"line {n}", worker_id=worker or "w1")

    # -- calls

    async def submit(self, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
        row = self.row(info)
        self.cloud.note(f"submit {call.job_id}")
        if not row.stopped:
            self.begin(io, row)
        with self.cloud.lock:
            self.cloud.jobs.setdefault(call.job_id, Entry(info.provider_name, call, io.now()))
            running = [e for e in self.cloud.jobs.values() if io.now() < e.began + float(e.call.input.get("sleep", 0))]
            self.cloud.most_running = max(self.cloud.most_running, len(running))
        return self.job(io, call.job_id)

    async def status(self, io: Io, info: DeploymentInfo, job_id: str, *, wait: float = 0.0, deadline: float) -> JobInfo:
        self.cloud.note(f"status {job_id}")
        return self.job(io, job_id)

    async def cancel(self, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
        self.cloud.note(f"cancel {job_id}")
        if not self.job(io, job_id).status.is_terminal:
            self.cloud.jobs[job_id].cancelled = True
        return self.job(io, job_id)

    async def chunks(
        self, io: Io, info: DeploymentInfo, job_id: str, *, after: int, wait: float, deadline: float
    ) -> ChunkPage:
        job = self.job(io, job_id)
        entry = self.cloud.jobs[job_id]
        total = int(entry.call.input.get("chunks", 0))
        there = total if job.status is JobStatus.DONE else 0
        endless = entry.call.input.get("endless")
        if endless:
            there = after + 1
        found = tuple(range(after, there))
        return ChunkPage(chunks=found, after=there, end=job.status.is_terminal and not endless, ready_workers=1)

    # -- the rest

    async def wake(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        self.cloud.note("wake")
        self.begin(io, self.row(info))

    async def stop(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        row = self.row(info)
        self.cloud.note("stop")
        row.stopped, row.began = True, None

    async def start(self, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
        self.cloud.note("start")
        await io.sleep(0.01)
        row = self.row(info)
        row.stopped = False
        if any(entry.row == info.provider_name for entry in self.cloud.jobs.values()):
            self.begin(io, row)

    def updatable(self, fields: frozenset[str]) -> bool:
        return "image" not in fields

    async def update(
        self, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
    ) -> None:
        row = self.row(info)
        self.cloud.note("update")
        row.spec, row.spec_hash, row.identity = spec, identity.spec_hash, identity

    def row(self, info: DeploymentInfo) -> Row:
        try:
            return self.cloud.rows[info.provider_name]
        except KeyError:
            raise NotFoundError("no such deployment", provider="fake") from None

    def begin(self, io: Io, row: Row) -> None:
        with self.cloud.lock:
            if row.began is None:
                row.began = io.now()

    def is_ready(self, io: Io, row: Row) -> bool:
        return row.began is not None and io.now() >= row.began + self.cloud.cold_start

    def info(self, io: Io, row: Row) -> DeploymentInfo:
        if row.stopped:
            state = State.STOPPED
        elif row.began is None:
            state = State.COLD
        else:
            state = State.READY if self.is_ready(io, row) else State.STARTING
        spec = row.spec
        stated = spec.model_dump(include=set(spec.model_fields_set) - {"secrets"}, mode="json", exclude_none=True)
        if spec.secrets:
            stated["secrets"] = dict.fromkeys(spec.secrets)  # names only, as a platform would
        return DeploymentInfo(
            provider="fake",
            name=row.name,
            namespace=row.identity.namespace,
            provider_name=row.identity.provider_name,
            id=row.identity.provider_name,
            state=state,
            interface=spec.interface,
            kind=spec.kind,
            workers=row.limits,
            ready_workers=int(state is State.READY),
            execution_timeout=spec.execution_timeout,
            concurrency=spec.concurrency,
            idempotent=spec.idempotent,
            spec_hash=row.spec_hash,
            attempt=row.attempt,
            expires_at=row.identity.expires_at,
            details={"spec": stated},
        )

    def job(self, io: Io, job_id: str) -> JobInfo:
        entry = self.cloud.jobs.get(job_id)
        if entry is None:
            raise JobExpired(f"no job {job_id}", job_id=job_id)
        row = self.cloud.rows.get(entry.row)
        given = entry.call.input
        if entry.cancelled:
            return JobInfo(id=job_id, status=JobStatus.CANCELLED)
        if row is None or not self.is_ready(io, row):
            return JobInfo(id=job_id, status=JobStatus.QUEUED, ready_workers=0)
        if given.get("lose"):
            return JobInfo(id=job_id, status=JobStatus.FAILED, lost=True)
        if given.get("fail"):
            error = JobError(type="ValueError", message=str(given["fail"]))
            return JobInfo(id=job_id, status=JobStatus.FAILED, error=error, worker_id="w1")
        begun = max(entry.began, (row.began or 0.0) + self.cloud.cold_start)
        if io.now() < begun + float(given.get("sleep", 0.0)) or given.get("endless"):
            return JobInfo(id=job_id, status=JobStatus.RUNNING, worker_id="w1", ready_workers=1)
        output = list(range(int(given["chunks"]))) if "chunks" in given else dict(given)
        timing = Timing(queue=0.0, execution=float(given.get("sleep", 0.0)), source="fake")
        return JobInfo(id=job_id, status=JobStatus.DONE, output=output, worker_id="w1", timing=timing)


class FakeResource:
    kind = "endpoint"
    call = CallClass.IDEMPOTENT
    consistency = Consistency(kind="atomic")
    bills_cold = None
    optional = False

    def __init__(
        self, driver: FakeDriver, provider_name: str, spec: DeploymentSpec | None, identity: Identity | None
    ) -> None:
        self._driver, self._name, self._spec, self._identity = driver, provider_name, spec, identity

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        row = self._driver.cloud.rows.get(self._name)
        return [] if row is None else [self._found(io, row)]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        assert self._spec is not None
        assert self._identity is not None
        cloud = self._driver.cloud
        cloud.note(f"create {self._identity.name}")
        with cloud.lock:
            if self._name in cloud.rows:
                raise ConflictError("the name is taken")
            identity = self._identity
            row = Row(identity.name, identity.attempt, identity.spec_hash, identity, self._spec)
            cloud.rows[self._name] = row
        return self._found(io, row)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        row = self._driver.cloud.rows.get(id)
        return None if row is None else self._found(io, row)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        self._driver.cloud.note("delete")
        if self._driver.cloud.fail_deletes is not None:
            raise self._driver.cloud.fail_deletes
        self._driver.cloud.rows.pop(id, None)

    def _found(self, io: Io, row: Row) -> Found:
        return Found(
            kind=self.kind,
            id=row.identity.provider_name,
            name=row.identity.provider_name,
            attempt=row.attempt,
            spec_hash=row.spec_hash,
            expires_at=row.identity.expires_at,
            info=self._driver.info(io, row),
        )


def driver_for(cloud: FakeCloud, **attributes: Any) -> type[FakeDriver]:
    """A driver class of its own for one test."""
    return type("FakeDriverOfATest", (FakeDriver,), {"cloud": cloud, **attributes})
