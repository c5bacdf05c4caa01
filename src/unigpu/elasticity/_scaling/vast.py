"""Vast.ai's scaling rule, as far as it is documented: workload a second against what the workers can do, and queues.

Sources: https://docs.vast.ai/guides/serverless/serverless-parameters.md and .../managing-scale.md, .../pricing.md. The
prediction of load over several horizons, and which machine leaves first (the worst by price and performance), are not
published: this rule goes by what waits and runs now, and the idle timeout stands for ``inactivity_timeout``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from .rule import View, Wish


@dataclass(frozen=True, slots=True)
class VastLoad:
    """Enough hot workers for the load and its spare, and enough workers in all, stopped ones included.

    * A busy slot is taken for its share of ``perf``. The hot capacity is that load over ``target_util``, so the spare
      is ``1 / target_util - 1`` (0.9: 11 %), and never under ``min_load`` (any above 0 is one worker).
    * What waits, or is piled up on workers beyond their slots, must be done within ``target_queue_time``.
    * In all there are ``cold_workers`` at least, ``min_cold_load``, and ``cold_mult`` times the hot load: those that
      are not needed are stopped, not given up. With all three at 0 nothing is left (the second level of zero).

    Attributes:
        perf: Workload a second of one worker, as its benchmark told.
        cost: Workload of one call.
    """

    name: ClassVar[str] = "vast_load"
    perf: float = 100.0
    cost: float = 100.0
    min_load: float = 0.0
    min_cold_load: float = 0.0
    target_util: float = 0.9
    cold_mult: float = 1.0
    cold_workers: int = 0
    target_queue_time: float = 10.0

    def wanted(self, view: View) -> Wish:
        perf = self.perf if self.perf > 0 else self.cost
        slots = view.concurrency * sum(1 for worker in view.workers if worker.phase == "ready")
        served = min(view.running, slots)
        piled = (view.running - served + view.queued) * self.cost
        load = served * perf / view.concurrency
        hot_load = max(self.min_load, load / self.target_util + piled / max(self.target_queue_time, 1e-3))
        hot = _workers(hot_load, perf)
        total = max(self.cold_workers, _workers(max(self.min_cold_load, self.cold_mult * hot_load), perf), hot)
        alive = len(view.workers)
        missing = min(total, view.max_workers) - view.stopped - alive
        # Machines that are only to be kept are rented, get ready once, and are stopped by their idle timeout.
        return Wish(workers=max(hot, alive + missing if missing > 0 else 0), keep=total)


def _workers(load: float, perf: float) -> int:
    return math.ceil(load / perf - 1e-9) if load > 0 else 0
