"""The rules that more than one platform has. A platform's own stands in a file of its name: ``_rule_vast.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .rule import View, Wish


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
