"""Jobs, results, and what a call took and cost."""

from __future__ import annotations

import enum
from typing import Any

from pydantic import ConfigDict, Field

from ..errors import UniGPUError
from ._model_kinds import Data


class JobStatus(enum.StrEnum):
    """Where a job is. A status that we do not know is ``UNKNOWN``: never taken for an end."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_terminal(self) -> bool:
        return self in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.EXPIRED)


class Timing(Data):
    """What a call took, in seconds. ``None``: the platform does not tell, and we do not guess.

    Attributes:
        queue: From submit until a worker took it, less ``cold_start``.
        cold_start: The part of the wait in which no worker of the deployment was ready.
        execution: What the handler took.
        total: From our sending it to our having the answer, on this machine's clock.
        source: Who measured: ``"worker"``, ``"platform"``, ``"client"``, as in ``"queue: platform"``.
    """

    queue: float | None = None
    cold_start: float | None = None
    execution: float | None = None
    total: float | None = None
    source: str | None = None


class Cost(Data):
    """What a call cost, in USD.

    Attributes:
        amount: USD; ``None`` where it is unknown.
        kind: ``"known"`` (the platform says), ``"estimated"`` (computed, see ``basis``) or ``"unknown"``.
        basis: What an estimate was computed from.
    """

    amount: float | None = None
    kind: str = "unknown"
    basis: str | None = None


class JobError(Data):
    """A handler's failure, as data."""

    type: str = "Error"
    message: str = ""
    traceback: str | None = None


class StartFailure(Data):
    """Why a platform could start no worker for a job: the handler certainly did not run.

    Attributes:
        reason: As `unigpu.errors.WorkerFailed.reason`, or the platform's own word.
        logs: The last lines of the worker's log.
    """

    reason: str = "unknown"
    message: str = ""
    logs: tuple[str, ...] = ()


class JobInfo(Data):
    """One job as last seen.

    Attributes:
        id: The job's id on the platform.
        status: Where it is; `raw_status` is the platform's own word.
        output: The handler's output, once ``DONE``.
        error: The handler's failure, once ``FAILED``.
        start_failure: The job failed because no worker could start.
        lost: The job failed because its worker died, not because the handler raised.
        ready_workers: Workers of the deployment that were ready, where the platform tells with the job.
        result_kept_until: Epoch seconds after which the platform forgets the result, where it is known.
    """

    id: str
    status: JobStatus
    raw_status: str | None = None
    output: Any = None
    error: JobError | None = None
    start_failure: StartFailure | None = None
    lost: bool = False
    worker_id: str | None = None
    timing: Timing = Field(default_factory=Timing)
    ready_workers: int | None = None
    submitted_at: float | None = None
    result_kept_until: float | None = None


class Result(Data):
    """What a call returned.

    Attributes:
        output: What the handler returned. From `map` with ``on_error="return"``: ``None`` where it failed.
        error: Why it failed, from `map` with ``on_error="return"``; else ``None``.
        key: The input's key in a `map`.
        job_id: The platform's id of the job, where it has jobs.
        worker_id: The worker that ran it, where the platform tells.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, defer_build=True)

    output: Any = None
    timing: Timing = Field(default_factory=Timing)
    cost: Cost = Field(default_factory=Cost)
    worker_id: str | None = None
    job_id: str | None = None
    key: str | None = None
    error: UniGPUError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None
