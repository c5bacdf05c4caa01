"""How many workers a deployment should have now: each platform's scaling rule, as a pure function.

A *rule* says what the load alone asks for. `desired` puts the limits around it, the same for every rule: never above
the most, never below the least, one worker where someone asked to wake it, and workers leave only by draining: those
above the most at once, the others after their idle timeout. The engine runs it on a clock, the simulator over a traffic
trace.

Times are seconds on one clock, which the caller chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Literal, Protocol


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
    workers: tuple[WorkerView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the load alone asks for. ``next_check``: when the answer may change although nothing happens."""

    workers: int
    next_check: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do now.

    Attributes:
        workers: How many should be there, besides draining ones.
        drain: Which leave, in this order.
        next_check: When to ask again although nothing happens; ``None``: not before something does.
    """

    workers: int
    drain: tuple[str, ...] = ()
    next_check: float | None = None


class Rule(Protocol):
    """One platform's scaling signal. A frozen dataclass of plain values, so that a journal can keep it."""

    name: ClassVar[str]

    def wanted(self, view: View) -> Wish: ...


@dataclass(frozen=True, slots=True)
class RequestsPerWorker:
    """One worker for each *target* calls that wait or run. ``None``: as many as one worker takes at a time."""

    name: ClassVar[str] = "requests"
    target: float | None = None

    def wanted(self, view: View) -> Wish:
        calls = view.queued + view.running
        return Wish(workers=math.ceil(calls / (self.target or view.concurrency)))


@dataclass(frozen=True, slots=True)
class QueueDelay:
    """One more worker when a call has waited for *seconds*, and again only once that one is ready."""

    name: ClassVar[str] = "queue_delay"
    seconds: float = 4.0

    def wanted(self, view: View) -> Wish:
        busy = sum(1 for worker in view.workers if worker.running)
        if not view.queued or view.oldest_queued_at is None:
            return Wish(workers=busy)
        alive = len(view.workers)
        if not alive:
            return Wish(workers=1)
        due = view.oldest_queued_at + self.seconds
        if view.now < due:
            return Wish(workers=alive, next_check=due)
        starting = any(worker.phase == "starting" for worker in view.workers)
        return Wish(workers=alive if starting else alive + 1)


@dataclass(frozen=True, slots=True)
class Declared:
    """As many as the least says, whatever the load: declared replicas, and a pod's one machine."""

    name: ClassVar[str] = "declared"

    def wanted(self, view: View) -> Wish:
        return Wish(workers=view.min_workers)


RULES: Final[Mapping[str, type[Any]]] = {rule.name: rule for rule in (RequestsPerWorker, QueueDelay, Declared)}


def rule_record(rule: Rule) -> dict[str, Any]:
    """A rule as plain values; `rule_from` reads it."""
    return {"rule": rule.name, **asdict(rule)}  # type: ignore[call-overload]  # every rule is a dataclass (see `Rule`)


def rule_from(record: Mapping[str, Any]) -> Rule:
    """The rule of a record. One of a later release is taken as `RequestsPerWorker`."""
    values = {key: value for key, value in record.items() if key != "rule"}
    made: Rule = RULES[record["rule"]](**values) if record.get("rule") in RULES else RequestsPerWorker()
    return made


def desired(rule: Rule, view: View) -> Decision:
    """How many workers there should be, and which leave."""
    wish = rule.wanted(view)
    alive = len(view.workers)
    floor = max(view.min_workers, 1 if view.wake else 0)
    goal = min(max(wish.workers, floor), view.max_workers)
    if alive > view.max_workers:
        order = sorted(view.workers, key=_cheapest_to_lose)
        leave = tuple(worker.id for worker in order[: alive - view.max_workers])
        return Decision(workers=view.max_workers, drain=leave, next_check=wish.next_check)
    if goal >= alive or view.idle_timeout is None:
        return Decision(workers=max(goal, alive), next_check=wish.next_check)
    idle = sorted(
        (worker.idle_since + view.idle_timeout, worker.id)
        for worker in view.workers
        if worker.phase == "ready" and not worker.running and worker.idle_since is not None
    )[: alive - goal]
    leave = tuple(id for due, id in idle if due <= view.now)
    later = [due for due, _ in idle if due > view.now]
    checks = [*later[:1], *([wish.next_check] if wish.next_check is not None else [])]
    return Decision(workers=alive - len(leave), drain=leave, next_check=min(checks, default=None))


def _cheapest_to_lose(worker: WorkerView) -> tuple[int, int, float, str]:
    """Starting ones first (the youngest), then idle ones (the longest idle), then the least busy."""
    if worker.phase == "starting":
        return (0, 0, -worker.since, worker.id)
    if not worker.running:
        return (1, 0, worker.since if worker.idle_since is None else worker.idle_since, worker.id)
    return (2, worker.running, worker.since, worker.id)
