"""What a scaling rule sees and says. Times are seconds on one clock, which the caller chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker that takes work, or will. Draining ones are not shown to a rule.

    Attributes:
        running: Calls that it runs.
        since: When it reached its phase.
        idle_since: When it last had something to do; ``None``: it has now, or was never ready.
    """

    id: str
    phase: Literal["starting", "ready"]
    running: int = 0
    since: float = 0.0
    idle_since: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a rule may look at.

    Attributes:
        idle_timeout: Seconds without work after which a worker above the least leaves; ``None``: never.
        queued: Calls that no worker has taken.
        oldest_queued_at: When the first of them came.
        running: Calls that workers run now.
        wake: Someone asked for a worker without a call.
        stopped: Workers that are kept stopped.
    """

    now: float
    min_workers: int
    max_workers: int
    concurrency: int = 1
    idle_timeout: float | None = 60.0
    queued: int = 0
    oldest_queued_at: float | None = None
    running: int = 0
    wake: bool = False
    stopped: int = 0
    workers: tuple[WorkerView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the load alone asks for.

    Attributes:
        next_check: When the answer may change although nothing happens.
        keep: How many there should be in all, where those that are not needed are stopped instead of given up.
    """

    workers: int
    next_check: float | None = None
    keep: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingDecision:
    """What to do now.

    Attributes:
        workers: How many should be there, besides draining ones.
        drain: Which leave, in this order.
        next_check: When to ask again although nothing happens; ``None``: not before something does.
        keep: How many are kept in all, stopped ones included.
    """

    workers: int
    drain: tuple[str, ...] = ()
    next_check: float | None = None
    keep: int = 0


class Rule(Protocol):
    """One platform's scaling signal. A frozen dataclass of plain values, so that a journal can keep it."""

    name: ClassVar[str]

    def wanted(self, view: View) -> Wish: ...
