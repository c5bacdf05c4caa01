"""What exists on a platform, as data: deployments, workers, rates, and what was adapted."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from ._model_kinds import Data

Interface = Literal["function", "http"]
Kind = Literal["serverless", "pod"]
Change = Literal["created", "reused", "scaled", "updated"]
TtlEnforcer = Literal["platform", "worker", "client", "nobody"]


class State(enum.StrEnum):
    """Where a deployment is. ``COLD``: it exists, has no worker, and a request will wake it."""

    CREATING = "CREATING"
    COLD = "COLD"
    STARTING = "STARTING"
    READY = "READY"
    DEGRADED = "DEGRADED"
    STOPPED = "STOPPED"
    DELETING = "DELETING"
    GONE = "GONE"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class WorkerState(enum.StrEnum):
    """Where a worker is. ``IDLE`` and ``BUSY`` are both ready; ``STOPPED`` ones may still bill storage."""

    PLACING = "PLACING"
    STARTING = "STARTING"
    IDLE = "IDLE"
    BUSY = "BUSY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    EXITED = "EXITED"
    UNKNOWN = "UNKNOWN"

    @property
    def is_ready(self) -> bool:
        return self in (WorkerState.IDLE, WorkerState.BUSY)


class Rate(Data):
    """What a deployment costs, in USD. ``None``: unknown.

    Attributes:
        idle_per_hour: With no request, at its minimum of workers.
        max_per_hour: With all workers running.
        storage_per_month: What is kept and billed whatever runs.
        source: Where the price comes from, with its date.
    """

    idle_per_hour: float | None = None
    max_per_hour: float | None = None
    storage_per_month: float | None = None
    source: str | None = None

    def __str__(self) -> str:
        text = f"idle {usd(self.idle_per_hour)}/h, at most {usd(self.max_per_hour)}/h"
        if self.storage_per_month:
            text += f", storage {usd(self.storage_per_month)}/month"
        return text


def usd(amount: float | None, *, unknown: str = "unknown") -> str:
    """In cents; below a cent as far as it takes, so that what costs something is never shown as ``$0.00``."""
    if amount is None:
        return unknown
    if not 0 < amount < 0.01:
        return f"${amount:.2f}"
    return "$" + f"{amount:.{1 - math.floor(math.log10(amount))}f}".rstrip("0")


class Adaptation(Data):
    """One thing that is not as the spec said, and why.

    Attributes:
        field: The spec field.
        asked: What was asked, in words.
        got: What is so instead.
        reason: The platform's rule behind it.
        source: Where that rule comes from.
    """

    field: str
    asked: str
    got: str
    reason: str
    source: str | None = None

    def __str__(self) -> str:
        return f"{self.field}: asked {self.asked}, got {self.got} ({self.reason})"


class Worker(Data):
    """One running container, with its GPUs.

    Attributes:
        reason: Why it is in this state, where there is something to say.
        started_at: Epoch seconds at which it began to start.
        ready_at: Epoch seconds at which it was first ready.
        billed_seconds: Seconds billed so far, where it is known.
    """

    id: str
    state: WorkerState
    raw_state: str | None = None
    reason: str | None = None
    gpu: str | None = None
    gpu_count: int | None = None
    region: str | None = None
    started_at: float | None = None
    ready_at: float | None = None
    jobs_running: int | None = None
    billed_seconds: float | None = None
    price_per_hour: float | None = None
    pid: int | None = None


class DeploymentInfo(Data):
    """A deployment as the platform showed it.

    Attributes:
        name: The logical name; ``None`` where only the provider's name is known.
        provider_name: The name it carries on the platform.
        id: The id of the resource that is called.
        ids: Kind → id, of each resource that it consists of.
        workers: The least and the most workers.
        ready_workers: Workers that are ready now; ``None`` where the platform does not tell.
        spec_hash: The hash of the spec it was made from, where it can be read back.
        attempt: The random id of the create call that made it, where it can be read back.
        origin: Local: the folder that the handler comes from.
        expires_at: Epoch seconds of its end, where it was given one.
        bills: What it still costs while stopped.
        assumed: Which of these values are defaults because the platform cannot be asked.
        ours: Whether it carries unigpu's tag.
        details: What else the platform tells, by the platform's words.
    """

    provider: str
    name: str | None = None
    namespace: str | None = None
    provider_name: str
    id: str
    ids: Mapping[str, str] = Field(default_factory=dict)
    state: State = State.UNKNOWN
    raw_state: str | None = None
    reason: str | None = None
    interface: Interface = "function"
    kind: Kind = "serverless"
    workers: tuple[int, int] | None = None
    ready_workers: int | None = None
    idle_timeout: float | None = None
    execution_timeout: float = 600.0
    concurrency: int = 1
    idempotent: bool = False
    port: int | None = None
    route: str | None = None
    auth_env: str | None = None
    worker_protocol: str | None = None
    url: str | None = None
    spec_hash: str | None = None
    attempt: str | None = None
    origin: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    rate: Rate = Field(default_factory=Rate)
    bills: str | None = None
    assumed: tuple[str, ...] = ()
    ours: bool = True
    details: Mapping[str, Any] = Field(default_factory=dict)


class LogLine(Data):
    """One line of a worker's log. ``time`` is epoch seconds; ``stream`` is ``stdout``, ``stderr`` or ``system``."""

    text: str
    worker_id: str | None = None
    stream: str = "stdout"
    time: float | None = None

    def __str__(self) -> str:
        return self.text


class Progress(Data):
    """How far a wait is.

    Attributes:
        phase: ``placing``, ``pulling``, ``starting``, ``loading``, ``ready``.
        elapsed: Seconds since the wait began.
        expected: Seconds a cold start takes, as ``(low, high)``, by the platform's facts.
        rate: USD per hour while it waits, where it is known.
        spent: USD so far, where it is known.
    """

    deployment: str
    provider: str
    phase: str
    elapsed: float
    expected: tuple[float, float] | None = None
    rate: float | None = None
    spent: float | None = None
    message: str | None = None


class Event(Data):
    """Something that a client did, for metrics and logs. Never holds a secret, a body or a query.

    Attributes:
        kind: As in ``"retry"``, ``"deploy.created"``, ``"worker.woken"``.
        time: Epoch seconds.
    """

    kind: str
    provider: str | None = None
    operation: str | None = None
    deployment: str | None = None
    time: float
    fields: Mapping[str, Any] = Field(default_factory=dict)
