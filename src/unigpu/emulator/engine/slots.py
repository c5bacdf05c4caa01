"""The slots of workers: who takes the next call, and whether a worker is busy or idle."""

from __future__ import annotations

from unigpu.models.deployment import WorkerState

from .entities import EngineWorker
from .state import EngineState


def pick(workers: list[EngineWorker], now: float, *, spread: bool = False) -> EngineWorker | None:
    """Who takes the next call: the least busy; of equals the one that worked last, so that others can leave.

    *spread*: of equals the one that has been idle longest.
    """
    free = [worker for worker in workers if worker.free(now) > 0]
    if not free:
        return None
    sign = 1 if spread else -1
    return min(free, key=lambda one: (one.running, sign * (one.idle_since or now), one.created_at, one.id))


def mark_busy(core: EngineState, worker: EngineWorker, now: float) -> None:
    """The worker has something to do from *now* on."""
    worker.idle_since = None
    if worker.state is WorkerState.IDLE:
        worker.state = WorkerState.BUSY
    core.meter.switch(worker.id, worker.deployment_id, "busy", now)


def mark_idle(core: EngineState, worker: EngineWorker, now: float) -> None:
    """The worker has let go of something; it is idle where that was the last."""
    if worker.gone or worker.load:
        return
    worker.idle_since = now
    if worker.state is WorkerState.BUSY:
        worker.state = WorkerState.IDLE
    if worker.ready_at is not None:
        core.meter.switch(worker.id, worker.deployment_id, "idle", now)
