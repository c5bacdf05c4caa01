"""What the engine knows: deployments, workers, jobs, and how the cloud is set. No rules, and no I/O."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from unigpu.elasticity._scaling.policy import RequestsPerWorker, Rule
from unigpu.models.deployment import Interface, Kind, WorkerState
from unigpu.models.job import JobStatus

from ..contract import JSON, Dropped, Forward, HttpCall, Launch, Reply
from .billing import Phase

Lag = float | Callable[[random.Random], float]
RefusedKind = Literal[
    "not_found", "gone", "exists", "changed", "absent", "stopped", "conflict", "expired", "queue_full", "invalid"
]
GONE_STATES: Final = frozenset({WorkerState.EXITED, WorkerState.FAILED, WorkerState.STOPPED})


class EngineRefused(Exception):
    """The engine says no. Emulated APIs turn it into their platform's answer; it never leaves `Engine.handle`."""

    def __init__(self, kind: RefusedKind, message: str, *, what: str = "") -> None:
        super().__init__(message)
        self.kind: RefusedKind = kind
        self.message = message
        self.what = what


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """How the cloud behaves where a deployment does not say. Seconds.

    Attributes:
        result_ttl: How long a finished job is kept.
        most_kept: Bytes of output kept in all; above it the oldest are forgotten, a minute after their end.
        placing: How long a worker waits for its machine before it starts.
        start_limit: A worker that is not ready by then is given up (``probe``).
        stop_grace: Between asking a worker to end and killing it.
        delete_grace: The same for workers of a deployment that is deleted.
        drain_limit: How long a stopped deployment's workers may go on with what they run.
        exit_limit: A stopped worker whose exit nobody reports is taken for gone that long after its grace.
        timeout_slack: How long after a job's execution timeout the worker's own answer is still awaited.
        let_go: How long a worker may keep a job that timed out or was cancelled, before it is replaced.
        failed_starts: That many failures in a row, and the deployment is FAILED.
        backoff: Before the second try; doubled each time.
        backoff_broken: The least wait before a FAILED deployment is tried again.
        backoff_most: The most.
        stable_after: A worker that was ready that long has proved itself.
        busy_pause: How long a worker that said "busy" is left alone.
        hold: How long an http request waits for a worker, where the caller does not say.
        most_queued: Jobs that may wait in one deployment.
        most_tries: How often an idempotent job is given to a worker.
        log_lines: Kept for each worker.
        failure_lines: Kept with a failure.
        ended_workers: Ended workers shown for each deployment.
        list_lag: How late lists show what was created or deleted: seconds, or a function of a seeded generator.
        read_lag: Whether reads by id lag as lists do.
    """

    result_ttl: float = 3600.0
    most_kept: int = 256_000_000
    placing: float = 0.0
    start_limit: float = 600.0
    stop_grace: float = 10.0
    delete_grace: float = 2.0
    drain_limit: float = 30.0
    exit_limit: float = 10.0
    timeout_slack: float = 1.0
    let_go: float = 5.0
    failed_starts: int = 3
    backoff: float = 0.5
    backoff_broken: float = 10.0
    backoff_most: float = 300.0
    stable_after: float = 30.0
    busy_pause: float = 0.25
    hold: float = 60.0
    most_queued: int = 10_000
    most_tries: int = 2
    log_lines: int = 1000
    failure_lines: int = 40
    ended_workers: int = 20
    list_lag: Lag = 0.0
    read_lag: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentTerms:
    """What a deployment is asked to be; a replacement changes it as a whole.

    Attributes:
        idle_timeout: Seconds; ``None``: workers never leave for being idle.
        dispatch: ``push``: the driver carries jobs to workers; ``pull``: workers come and take them.
        expires_at: Epoch seconds.
        price_per_hour: USD of a worker-hour; ``None``: unknown.
        start_limit: Seconds a worker may take to become ready; ``None``: what `EngineSettings` says.
        spread: Who takes the next call, of the least busy workers: the one that has been idle longest, so that all get
            some (a gateway's round robin); else the one that worked last, so that others can leave.
        give_up: Whether what waits ends where workers failed too often in a row; else it waits for the next try.
        secret_names: Variables of ``launch.env`` whose values no record may hold.
        data: What the emulated API keeps with it; the engine does not read it.
    """

    launch: Launch
    interface: Interface = "function"
    kind: Kind = "serverless"
    min_workers: int = 0
    max_workers: int = 1
    idle_timeout: float | None = 60.0
    execution_timeout: float = 600.0
    concurrency: int = 1
    idempotent: bool = False
    dispatch: Literal["push", "pull"] = "push"
    rule: Rule = field(default_factory=RequestsPerWorker)
    expires_at: float | None = None
    price_per_hour: float | None = None
    give_up: bool = True
    start_limit: float | None = None
    spread: bool = False
    secret_names: frozenset[str] = frozenset()
    data: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRecord:
    """One line of a worker's log. ``n`` counts from 1; ``time`` is epoch seconds."""

    n: int
    time: float
    stream: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the last worker failed: ``reason`` as `WorkerFailed.reason`, ``at`` epoch seconds, and its last log lines."""

    reason: str
    message: str
    logs: tuple[str, ...]
    at: float
    worker_id: str | None = None

    def record(self) -> dict[str, JSON]:
        return {
            "reason": self.reason,
            "message": self.message,
            "logs": list(self.logs),
            "at": self.at,
            "worker_id": self.worker_id,
        }


@dataclass(slots=True, kw_only=True, eq=False)
class EngineWorker:
    """One worker.

    Attributes:
        jobs: What occupies a slot, and until when it must let go (``None``: it runs it rightly).
        again: It was kept stopped, and is started again.
        dismissed: It was ended by name, so it is not kept stopped.
        claims: Calls that are on their way to it, or that it runs without the engine's hand in them: its platform only
            told a caller where it is. They take no slot, and keep it from being idle until that time (``None``: until
            it is told).
    """

    id: str
    deployment_id: str
    version: int
    concurrency: int
    created_at: float
    state: WorkerState = WorkerState.PLACING
    reason: str | None = None
    started_at: float | None = None
    ready_at: float | None = None
    ended_at: float | None = None
    idle_since: float | None = None
    pause_until: float = 0.0
    busy_since: float | None = None
    pid: int | None = None
    address: str | None = None
    jobs: dict[str, float | None] = field(default_factory=dict[str, float | None])
    leases: set[str] = field(default_factory=set[str])
    claims: dict[str, float | None] = field(default_factory=dict[str, float | None])
    cancels: list[str] = field(default_factory=list[str])
    drain_by: float | None = None
    condemned: str | None = None
    stopping: bool = False
    dismissed: bool = False
    again: bool = False
    failed_start: bool = False
    log: deque[LogRecord] = field(default_factory=deque[LogRecord])
    logged: int = 0
    seconds: Mapping[Phase, float] | None = None

    @property
    def gone(self) -> bool:
        return self.state in GONE_STATES

    @property
    def alive(self) -> bool:
        """It takes work, or will."""
        return not self.gone and self.state is not WorkerState.DRAINING

    @property
    def running(self) -> int:
        """Slots taken, also by work that should have let go."""
        return len(self.jobs) + len(self.leases)

    @property
    def load(self) -> int:
        """All that keeps it from being idle."""
        return self.running + len(self.claims)

    def free(self, now: float) -> int:
        if not self.state.is_ready or now < self.pause_until or self.condemned:
            return 0
        return self.concurrency - self.running


@dataclass(slots=True, kw_only=True, eq=False)
class EngineJob:
    """One job.

    Attributes:
        pin: The one worker that may run it; where that one is gone, the job is lost.
        kept: Seconds that it is kept after its end.
        waited, cold: Seconds in the queue over all tries, and those of them without a ready worker.
        tries: How often a worker took it; ``runs`` counts also those that said "busy" instead.
        ended: Called once it is at its end.
    """

    id: str
    deployment_id: str
    input: JSON
    digest: str
    execution_timeout: float
    stream: bool
    idempotent: bool
    submitted_at: float
    queued_at: float
    cold_mark: float
    status: JobStatus = JobStatus.QUEUED
    output: JSON = None
    error: Mapping[str, JSON] | None = None
    lost: bool = False
    pin: str | None = None
    kept: float = 3600.0
    worker_id: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    execution_s: float | None = None
    waited: float = 0.0
    cold: float = 0.0
    tries: int = 0
    runs: int = 0
    chunks: list[JSON] = field(default_factory=list[JSON])
    extra: Mapping[str, JSON] = field(default_factory=dict[str, JSON])
    ended: Callable[[EngineJob, float], None] | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """An http request that waits for a worker, in order. ``refuse`` makes its answer where none will come."""

    id: str
    deployment_id: str
    call: HttpCall
    since: float
    answer: Reply | Forward | Dropped | None = None
    refuse: Callable[[Mapping[str, JSON]], Reply] | None = None


@dataclass(frozen=True, slots=True)
class WaitingCaller:
    """Somebody asked for a worker, got none, and will ask again: it counts as waiting until then."""

    since: float
    until: float


@dataclass(slots=True, kw_only=True, eq=False)
class EngineDeployment:
    """One deployment, as the engine runs it.

    Attributes:
        version: Counts replacements; workers of an older one drain.
        deletion_told: The driver was handed the record of its deletion; before that it can still come back.
        start_failures: Failed starts in a row.
        crashes: Workers in a row that ended by themselves before they proved themselves.
        cold_total, cold_since: Seconds without any ready worker so far, and since when there is none now.
        visible_at: When lists show it.
        pins: Whether it ever had a job that only one worker may run.
        asks: Callers who come back for a worker, by their own keys.
        keep: How many workers the rule keeps in all, stopped ones included.
        shelf: Ids of workers that are kept stopped, to be started again; the last one first.
    """

    id: str
    platform: str
    terms: DeploymentTerms
    created_at: float
    visible_at: float
    version: int = 1
    stopped: bool = False
    deleting: bool = False
    deletion_told: bool = False
    woken: bool = False
    secrets_lost: tuple[str, ...] = ()
    start_failures: int = 0
    crashes: int = 0
    retry_at: float = 0.0
    failure: Failure | None = None
    cold_total: float = 0.0
    cold_since: float | None = 0.0
    workers: dict[str, EngineWorker] = field(default_factory=dict[str, EngineWorker])
    ended: deque[EngineWorker] = field(default_factory=deque[EngineWorker])
    jobs: dict[str, EngineJob] = field(default_factory=dict[str, EngineJob])
    expired_jobs: dict[str, None] = field(default_factory=dict[str, None])
    queue: deque[str] = field(default_factory=deque[str])
    running: set[str] = field(default_factory=set[str])
    waiting: deque[Ticket] = field(default_factory=deque[Ticket])
    pins: bool = False
    asks: dict[str, WaitingCaller] = field(default_factory=dict[str, WaitingCaller])
    keep: int = 0
    shelf: list[str] = field(default_factory=list[str])
    check_at: float | None = None

    def ready(self) -> list[EngineWorker]:
        return [worker for worker in self.workers.values() if worker.state.is_ready]

    def cold(self, now: float) -> float:
        """Seconds without a ready worker, from its creation until *now*."""
        return self.cold_total + (now - self.cold_since if self.cold_since is not None else 0.0)

    def everyone(self) -> list[EngineWorker]:
        """The workers there are, and those that ended lately, oldest first."""
        return [*self.ended, *self.workers.values()]


@dataclass(frozen=True, slots=True)
class Ghost:
    """A deleted deployment that lists still show."""

    deployment: EngineDeployment
    until: float
