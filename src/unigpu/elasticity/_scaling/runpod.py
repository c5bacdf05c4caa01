"""RunPod's two scalers: https://docs.runpod.io/serverless/endpoints/endpoint-configurations (auto-scaling type).

What the page leaves open, and how it is taken here (unverified): a queue delay adds one worker at a time, and the next
one only when the first that waits has waited for the delay again, counted from when the last worker was added; a worker
that is still starting does not hold the next one up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .rule import View, Wish


@dataclass(frozen=True, slots=True)
class RunPodQueueDelay:
    """A worker at once where there is none; one more whenever a request has waited *seconds* in the queue.

    Workers leave after the idle timeout, which the limits around every rule see to.
    """

    name: ClassVar[str] = "runpod_queue_delay"
    seconds: float = 4.0

    def wanted(self, view: View) -> Wish:
        busy = sum(1 for worker in view.workers if worker.running)
        if not view.queued or view.oldest_queued_at is None:
            return Wish(workers=busy)
        alive = len(view.workers)
        if not alive:
            return Wish(workers=1)
        # A worker that came since the request did has its own delay to show what it can do.
        newest = max(worker.since for worker in view.workers)
        due = max(view.oldest_queued_at, newest) + self.seconds
        if view.now < due:
            return Wish(workers=alive, next_check=due)
        return Wish(workers=alive + 1, next_check=view.now + self.seconds)


@dataclass(frozen=True, slots=True)
class RunPodRequestCount:
    """``ceil((requestsInQueue + requestsInProgress) / count)`` workers."""

    name: ClassVar[str] = "runpod_request_count"
    count: int = 4

    def wanted(self, view: View) -> Wish:
        return Wish(workers=math.ceil((view.queued + view.running) / self.count))
