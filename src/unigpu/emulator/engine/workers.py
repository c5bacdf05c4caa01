"""Workers: placed, started, ready, drained, gone; how many there should be; and what follows when they fail."""

from __future__ import annotations

import logging
from collections import deque

from unigpu.elasticity._scaling.policy import View, WorkerView, desired
from unigpu.models.deployment import WorkerState

from ..contract import JSON, StartWorker, StopWorker, WorkerExited, WorkerReady, WorkerStarted
from .entities import EngineDeployment, EngineWorker, Failure
from .jobs import Jobs
from .leases import Leases
from .state import EngineState

log = logging.getLogger("unigpu.cloud.engine")


class Workers:
    """The workers of every deployment."""

    def __init__(self, core: EngineState, jobs: Jobs, leases: Leases) -> None:
        self._core = core
        self._jobs = jobs
        self._leases = leases

    # What the driver reports.

    def started(self, worker: EngineWorker, event: WorkerStarted) -> None:
        worker.pid = event.pid if event.pid is not None else worker.pid

    def ready(self, deployment: EngineDeployment, worker: EngineWorker, event: WorkerReady, now: float) -> None:
        """A worker can take work. A failed start before it is forgotten; a crash only once it has proved itself."""
        worker.pid = event.pid if event.pid is not None else worker.pid
        worker.address = event.address if event.address is not None else worker.address
        if worker.state not in (WorkerState.PLACING, WorkerState.STARTING):
            return
        core = self._core
        worker.state, worker.ready_at, worker.idle_since = WorkerState.IDLE, now, now
        core.meter.switch(worker.id, deployment.id, "idle", now)
        deployment.start_failures, deployment.woken = 0, False
        if not deployment.crashes:
            deployment.failure = None
            deployment.retry_at = 0.0
        self._count_cold(deployment, now)
        core.touch(deployment.id)

        def stable(then: float) -> None:
            if worker.state.is_ready:
                self.proved(deployment, then)

        core.at(now + core.settings.stable_after, stable)

    def proved(self, deployment: EngineDeployment, now: float) -> None:
        """A worker did its work, or stayed for a while: earlier crashes are forgotten."""
        if deployment.crashes:
            deployment.crashes, deployment.failure, deployment.retry_at = 0, None, 0.0
            self._core.touch(deployment.id)

    def exited(self, deployment: EngineDeployment, worker: EngineWorker, event: WorkerExited, now: float) -> None:
        """A worker is gone: as it was told, or by itself."""
        if worker.gone:
            return
        before = worker.state
        words = event.reason or ("ended" if event.code is None else f"exited with code {event.code}")
        if worker.failed_start or (worker.stopping and worker.condemned):
            self._end(deployment, worker, WorkerState.FAILED, worker.reason or words, now)
        elif worker.stopping or (before is WorkerState.DRAINING and not worker.load):
            self._end(deployment, worker, WorkerState.EXITED, worker.reason, now)
        else:
            self._end(deployment, worker, WorkerState.FAILED, words, now)
            starting = before in (WorkerState.PLACING, WorkerState.STARTING)
            if before is not WorkerState.DRAINING:
                message = f"a worker ended {'before it was ready' if starting else 'while it was in service'}: {words}"
                self._failed(deployment, worker, event.cause or "crash_loop", message, now, start=starting)

    # What the engine does at each look.

    def settle(self, deployment: EngineDeployment, now: float) -> None:
        """Bring a deployment nearer to what it should be."""
        for worker in list(deployment.workers.values()):
            if worker.condemned and not worker.stopping:
                self._replace_hung(deployment, worker, now)
            elif worker.alive and (worker.version != deployment.version or deployment.stopped):
                self._drain(worker, now, self._drain_limit(deployment))
            if worker.state is WorkerState.DRAINING and not worker.stopping:
                lent = any(until is None for until in worker.jobs.values())
                if not (lent or worker.leases or worker.claims) or (
                    worker.drain_by is not None and now >= worker.drain_by
                ):
                    self._stop(deployment, worker, now, self._core.settings.stop_grace)
        self._count_cold(deployment, now)
        if deployment.deleting or deployment.stopped:
            return
        self._scale(deployment, now)

    def stop_all(self, deployment: EngineDeployment, now: float) -> None:
        """Every worker ends now, whatever it does."""
        for worker in list(deployment.workers.values()):
            if not worker.stopping:
                worker.state = WorkerState.DRAINING
                self._stop(deployment, worker, now, self._core.settings.delete_grace)
        while deployment.shelf:
            self._discard(deployment, deployment.shelf.pop())
        self._count_cold(deployment, now)

    def broken(self, deployment: EngineDeployment) -> bool:
        """Whether its workers failed too often in a row."""
        most = self._core.settings.failed_starts
        return deployment.start_failures >= most or deployment.crashes >= most

    def refusal(self, deployment: EngineDeployment, now: float) -> dict[str, JSON] | None:
        """Why no worker will come for a request of now, as an error; ``None``: one will."""
        if deployment.secrets_lost:
            names = ", ".join(deployment.secrets_lost)
            return {
                "type": "WorkerFailed",
                "reason": "secrets_lost",
                "message": f"its secrets ({names}) were lost with the supervisor; deploy it again",
                "logs": [],
            }
        failure = deployment.failure
        trying = any(worker.alive for worker in deployment.workers.values())
        if failure is None or not self.broken(deployment) or trying or now >= deployment.retry_at:
            return None
        return {
            "type": "WorkerFailed",
            "reason": failure.reason,
            "message": failure.message,
            "logs": list(failure.logs),
            "retry_after": round(deployment.retry_at - now, 3),
        }

    # Inside.

    def _scale(self, deployment: EngineDeployment, now: float) -> None:
        core, terms = self._core, deployment.terms
        alive = [worker for worker in deployment.workers.values() if worker.alive]
        waits = [deployment.jobs[deployment.queue[0]].queued_at] if deployment.queue else []
        waits += [deployment.waiting[0].since] if deployment.waiting else []
        waits += [ask.since for ask in deployment.asks.values()]
        decision = desired(
            terms.rule,
            View(
                now=now,
                min_workers=terms.min_workers,
                max_workers=terms.max_workers,
                concurrency=terms.concurrency,
                idle_timeout=terms.idle_timeout,
                queued=len(deployment.queue) + len(deployment.waiting) + len(deployment.asks),
                oldest_queued_at=min(waits, default=None),
                running=sum(worker.load for worker in alive),
                wake=deployment.woken,
                stopped=len(deployment.shelf)
                + sum(1 for worker in deployment.workers.values() if _returns(deployment, worker)),
                workers=tuple(_view(worker) for worker in alive),
            ),
        )
        deployment.keep = decision.keep
        while deployment.shelf and len(deployment.shelf) + len(alive) > max(deployment.keep, decision.workers):
            self._discard(deployment, deployment.shelf.pop(0))
        for id in decision.drain:
            self._drain(deployment.workers[id], now, self._drain_limit(deployment))
            core.touch(deployment.id)
        self._look_again(deployment, decision.next_check, now)
        missing = decision.workers - len(alive)
        # A worker that is on its way out still counts: there are never more than the most.
        room = terms.max_workers - len(deployment.workers)
        if missing <= 0 or deployment.secrets_lost:
            return
        if now < deployment.retry_at:
            self._look_again(deployment, deployment.retry_at, now)
            return
        if deployment.start_failures or deployment.crashes:
            missing = min(missing, 1 - sum(1 for worker in alive if not worker.state.is_ready))
        for _ in range(min(missing, room)):
            self._place(deployment, now)

    def _look_again(self, deployment: EngineDeployment, at: float | None, now: float) -> None:
        if at is None or at <= now or (deployment.check_at is not None and now < deployment.check_at <= at):
            return
        deployment.check_at = at
        self._core.at(at, lambda _: self._core.touch(deployment.id))

    def _place(self, deployment: EngineDeployment, now: float) -> None:
        core = self._core
        kept = self._from_shelf(deployment)
        worker = EngineWorker(
            id=kept or core.new_id("w"),
            again=kept is not None,
            deployment_id=deployment.id,
            version=deployment.version,
            concurrency=deployment.terms.concurrency,
            created_at=now,
        )
        deployment.workers[worker.id] = core.workers[worker.id] = worker
        if core.settings.placing > 0:
            core.at(now + core.settings.placing, lambda then: self._start(deployment, worker, then))
        else:
            self._start(deployment, worker, now)

    def _from_shelf(self, deployment: EngineDeployment) -> str | None:
        """A stopped worker, which is started again under its own id."""
        if not deployment.shelf:
            return None
        id = deployment.shelf.pop()
        deployment.ended = deque(worker for worker in deployment.ended if worker.id != id)
        return id

    def _discard(self, deployment: EngineDeployment, id: str) -> None:
        """A stopped worker is given up."""
        for worker in deployment.ended:
            if worker.id == id:
                worker.state = WorkerState.EXITED
        self._core.touch(deployment.id)

    def fail_one(self, deployment: EngineDeployment, worker: EngineWorker, reason: str, now: float) -> None:
        """It said that it cannot serve."""
        if worker.stopping:
            return
        starting = not worker.state.is_ready
        worker.failed_start, worker.reason = True, reason
        worker.state = WorkerState.DRAINING
        self._failed(deployment, worker, "crash_loop", f"a worker reported an error: {reason}", now, start=starting)
        self._stop(deployment, worker, now, self._core.settings.delete_grace)

    def end_one(self, deployment: EngineDeployment, worker_id: str, now: float) -> None:
        """End this one, whatever it does; a stopped one is given up."""
        if worker_id in deployment.shelf:
            deployment.shelf.remove(worker_id)
            self._discard(deployment, worker_id)
            return
        worker = deployment.workers[worker_id]
        worker.dismissed = True
        if not worker.stopping:
            worker.state = WorkerState.DRAINING
            self._stop(deployment, worker, now, self._core.settings.delete_grace)
        self._core.touch(deployment.id)

    def _start(self, deployment: EngineDeployment, worker: EngineWorker, now: float) -> None:
        core = self._core
        if worker.state is not WorkerState.PLACING:
            return
        worker.state, worker.started_at = WorkerState.STARTING, now
        core.meter.switch(worker.id, deployment.id, "loading", now)
        launch = deployment.terms.launch
        core.effects.append(StartWorker(worker_id=worker.id, deployment_id=deployment.id, launch=launch))
        stated = deployment.terms.start_limit
        limit = core.settings.start_limit if stated is None else stated
        core.at(now + limit, lambda then: self._start_limit(deployment, worker, limit, then))

    def _start_limit(self, deployment: EngineDeployment, worker: EngineWorker, limit: float, now: float) -> None:
        if worker.state is not WorkerState.STARTING:
            return
        worker.failed_start, worker.reason = True, f"not ready within {limit:g} s"
        worker.state = WorkerState.DRAINING
        self._failed(deployment, worker, "probe", f"a worker was not ready within {limit:g} s", now, start=True)
        self._stop(deployment, worker, now, self._core.settings.delete_grace)

    def _drain_limit(self, deployment: EngineDeployment) -> float:
        if deployment.stopped:
            return self._core.settings.drain_limit
        return deployment.terms.execution_timeout + self._core.settings.drain_limit

    def _drain(self, worker: EngineWorker, now: float, limit: float) -> None:
        """No new work; it ends when it has done what it runs, or at the limit."""
        core = self._core
        if not worker.alive:
            return
        worker.state, worker.drain_by = WorkerState.DRAINING, now + limit
        core.at(worker.drain_by, lambda _: core.touch(worker.deployment_id))
        core.touch(worker.deployment_id)

    def _replace_hung(self, deployment: EngineDeployment, worker: EngineWorker, now: float) -> None:
        if worker.alive:
            worker.reason = worker.condemned
            self._drain(worker, now, deployment.terms.execution_timeout)
            log.warning("%s: worker %s is replaced: %s", deployment.id, worker.id, worker.condemned)

    def _stop(self, deployment: EngineDeployment, worker: EngineWorker, now: float, grace: float) -> None:
        """Have it ended. What it still runs is lost; its exit is awaited, not for ever."""
        core = self._core
        worker.stopping = True
        if worker.started_at is None:
            self._end(deployment, worker, WorkerState.EXITED, worker.reason, now)
            return
        core.effects.append(StopWorker(worker_id=worker.id, grace=grace))
        self._jobs.lose_all(deployment, worker, now, why="the worker was stopped")
        silent = WorkerExited(worker_id=worker.id, reason="did not report its end")
        core.at(
            now + grace + core.settings.exit_limit,
            lambda then: self.exited(deployment, worker, silent, then),
        )

    def _end(
        self, deployment: EngineDeployment, worker: EngineWorker, state: WorkerState, reason: str | None, now: float
    ) -> None:
        """The one place where a worker is gone."""
        core = self._core
        worker.seconds = core.meter.seconds(worker.id, now)
        core.meter.close(worker.id, now)
        worker.state, worker.reason, worker.ended_at, worker.idle_since = state, reason, now, None
        self._count_cold(deployment, now)
        self._jobs.lose_all(deployment, worker, now, why=f"the worker ended ({reason or 'no reason was told'})")
        self._leases.drop_all(worker)
        deployment.workers.pop(worker.id, None)
        core.workers.pop(worker.id, None)
        alive = sum(1 for other in deployment.workers.values() if other.alive)
        kept = alive + len(deployment.shelf) < deployment.keep and worker.version == deployment.version
        if kept and state is WorkerState.EXITED and not (worker.dismissed or deployment.deleting):
            deployment.shelf.append(worker.id)
            worker.state = WorkerState.STOPPED
        deployment.ended.append(worker)
        while len(deployment.ended) > core.settings.ended_workers:
            deployment.ended.popleft()
        core.touch(deployment.id)

    def _failed(
        self, deployment: EngineDeployment, worker: EngineWorker, reason: str, message: str, now: float, *, start: bool
    ) -> None:
        """Count a failure, keep why, and set when to try again."""
        core, settings = self._core, self._core.settings
        if worker.version != deployment.version or deployment.deleting or deployment.stopped:
            return
        if start:
            deployment.start_failures += 1
        else:
            deployment.crashes += 1
        lines = [line.text for line in worker.log][-settings.failure_lines :]
        deployment.failure = Failure(
            reason=reason, message=message, logs=tuple(lines), at=core.wall(now), worker_id=worker.id
        )
        count = deployment.start_failures + deployment.crashes
        wait = min(settings.backoff * 2.0 ** min(count - 1, 20), settings.backoff_most)
        broken = self.broken(deployment)
        if broken:
            extra = max(0, max(deployment.start_failures, deployment.crashes) - settings.failed_starts)
            wait = max(wait, min(settings.backoff_broken * 2.0 ** min(extra, 20), settings.backoff_most))
        deployment.retry_at = now + wait
        log.warning("%s: %s; next try in %g s", deployment.id, message, wait)
        others = any(other.alive for other in deployment.workers.values() if other is not worker)
        if broken and deployment.terms.give_up and not others:
            deployment.woken = False
            error = {"type": "WorkerFailed", "reason": reason, "message": message, "logs": lines}
            self._jobs.fail_queued(deployment, error, now)
            self._leases.fail_waiting(deployment, error)
        core.touch(deployment.id)

    def _count_cold(self, deployment: EngineDeployment, now: float) -> None:
        """Keep the count of seconds without any ready worker."""
        if deployment.ready():
            deployment.cold_total, deployment.cold_since = deployment.cold(now), None
        elif deployment.cold_since is None:
            deployment.cold_since = now


def _returns(deployment: EngineDeployment, worker: EngineWorker) -> bool:
    """Whether it is on its way out in good order, so that it can be kept stopped."""
    failed = worker.dismissed or worker.condemned or worker.failed_start
    return worker.state is WorkerState.DRAINING and not failed and worker.version == deployment.version


def _view(worker: EngineWorker) -> WorkerView:
    ready = worker.state.is_ready
    since = worker.ready_at if ready else worker.created_at
    return WorkerView(
        id=worker.id,
        phase="ready" if ready else "starting",
        running=worker.load,
        since=worker.created_at if since is None else since,
        idle_since=worker.idle_since,
    )
