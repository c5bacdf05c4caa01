"""How many workers a deployment should have now: each platform's scaling rule, as a pure function.

A *rule* says what the load alone asks for. `desired` puts the limits around it, the same for every rule: never above
the most, never below the least, one worker where someone asked to wake it, and workers leave only by draining: those
above the most at once, the others after their idle timeout. The engine runs it on a clock, the simulator over a traffic
trace.

Times are seconds on one clock, which the caller chooses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from .common_rules import Declared, QueueDelay, RequestsPerWorker
from .rule import Rule, ScalingDecision, View, Wish, WorkerView
from .runpod import RunPodQueueDelay, RunPodRequestCount
from .vast import VastLoad

__all__ = [
    "RULES",
    "ScalingDecision",
    "Declared",
    "QueueDelay",
    "RequestsPerWorker",
    "Rule",
    "RunPodQueueDelay",
    "RunPodRequestCount",
    "VastLoad",
    "View",
    "Wish",
    "WorkerView",
    "desired",
    "rule_from",
    "rule_record",
]

_ALL: Final[tuple[type[Any], ...]] = (
    RequestsPerWorker,
    QueueDelay,
    Declared,
    VastLoad,
    RunPodQueueDelay,
    RunPodRequestCount,
)
RULES: Final[Mapping[str, type[Any]]] = {rule.name: rule for rule in _ALL}


def rule_record(rule: Rule) -> dict[str, Any]:
    """A rule as plain values; `rule_from` reads it."""
    return {"rule": rule.name, **asdict(rule)}  # type: ignore[call-overload]  # every rule is a dataclass (see `Rule`)


def rule_from(record: Mapping[str, Any]) -> Rule:
    """The rule of a record. One of a later release is taken as `RequestsPerWorker`."""
    values = {key: value for key, value in record.items() if key != "rule"}
    made: Rule = RULES[record["rule"]](**values) if record.get("rule") in RULES else RequestsPerWorker()
    return made


def desired(rule: Rule, view: View) -> ScalingDecision:
    """How many workers there should be, and which leave."""
    wish = rule.wanted(view)
    alive = len(view.workers)
    floor = max(view.min_workers, 1 if view.wake else 0)
    goal = min(max(wish.workers, floor), view.max_workers)
    keep = min(wish.keep, view.max_workers)
    if alive > view.max_workers:
        order = sorted(view.workers, key=_cheapest_to_lose)
        leave = tuple(worker.id for worker in order[: alive - view.max_workers])
        return ScalingDecision(workers=view.max_workers, drain=leave, next_check=wish.next_check, keep=keep)
    if goal >= alive or view.idle_timeout is None:
        return ScalingDecision(workers=max(goal, alive), next_check=wish.next_check, keep=keep)
    idle = sorted(
        (worker.idle_since + view.idle_timeout, worker.id)
        for worker in view.workers
        if worker.phase == "ready" and not worker.running and worker.idle_since is not None
    )[: alive - goal]
    leave = tuple(id for due, id in idle if due <= view.now)
    later = [due for due, _ in idle if due > view.now]
    checks = [*later[:1], *([wish.next_check] if wish.next_check is not None else [])]
    return ScalingDecision(workers=alive - len(leave), drain=leave, next_check=min(checks, default=None), keep=keep)


def _cheapest_to_lose(worker: WorkerView) -> tuple[int, int, float, str]:
    """Starting ones first (the youngest), then idle ones (the longest idle), then the least busy."""
    if worker.phase == "starting":
        return (0, 0, -worker.since, worker.id)
    if not worker.running:
        return (1, 0, worker.since if worker.idle_since is None else worker.idle_since, worker.id)
    return (2, worker.running, worker.since, worker.id)
