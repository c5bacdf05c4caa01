"""Jobs: a first-in first-out queue for each deployment, results kept for a while, and each job ending exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from unigpu.models.job import JobStatus

from ..contract import JSON, CancelPush, Chunk, JobDone, Persist, Push
from .entities import EngineDeployment, EngineJob, EngineRefused, EngineWorker
from .records import digest_of, job_from, job_record, record_id
from .slots import mark_busy, mark_idle, pick
from .state import EngineState

_MOST_REMEMBERED: Final = 10_000
_KEPT_LEAST: Final = 60.0  # seconds
RESTARTED: Final = {"type": "WorkerLost", "message": "supervisor restarted"}


class Jobs:
    """The jobs of every deployment."""

    def __init__(self, core: EngineState) -> None:
        self._core = core
        self._kept: dict[
            EngineJob, tuple[EngineDeployment, int]
        ] = {}  # the answers of finished jobs, in bytes, oldest first
        self._kept_bytes = 0

    # What emulated APIs ask for.

    def submit(
        self,
        deployment: EngineDeployment,
        input: JSON,
        now: float,
        *,
        id: str | None = None,
        execution_timeout: float | None = None,
        stream: bool = False,
        idempotent: bool | None = None,
        extra: Mapping[str, JSON] | None = None,
        refusal: Mapping[str, JSON] | None = None,
        pin: str | None = None,
        ended: Callable[[EngineJob, float], None] | None = None,
        kept: float | None = None,
        life: float | None = None,
    ) -> EngineJob:
        """Put a job into the queue. The same id with the same content is the same job.

        Args:
            kept: Seconds that its result is kept; ``None``: as the engine's settings say.
            life: Seconds after which it is gone, wherever it is.
            ended: Called with the job and the time when it is at its end (a webhook).
            pin: The one worker that may run it.
            refusal: Why no worker will take it now; the job then ends at once with this error.

        Raises:
            Refused: ``conflict`` (the id is another job's), ``expired`` (it was, and its result is forgotten),
                ``queue_full``.
        """
        core = self._core
        terms = deployment.terms
        timeout = terms.execution_timeout if execution_timeout is None else execution_timeout
        may_repeat = terms.idempotent if idempotent is None else idempotent
        digest = digest_of(input, execution_timeout, stream, idempotent, dict(extra or {}))
        job_id = core.new_id("job") if id is None else id
        if (known := deployment.jobs.get(job_id)) is not None:
            if known.digest != digest:
                raise EngineRefused("conflict", f"job {job_id!r} exists with another content")
            return known
        if job_id in deployment.expired_jobs:
            raise EngineRefused("expired", f"job {job_id!r} ended, and its result is not kept any more")
        if len(deployment.queue) >= core.settings.most_queued:
            raise EngineRefused("queue_full", f"{len(deployment.queue)} jobs wait already")
        job = EngineJob(
            id=job_id,
            deployment_id=deployment.id,
            input=input,
            digest=digest,
            execution_timeout=timeout,
            stream=stream,
            idempotent=may_repeat,
            submitted_at=now,
            queued_at=now,
            cold_mark=deployment.cold(now),
            pin=pin,
            extra=dict(extra or {}),
            ended=ended,
            kept=core.settings.result_ttl if kept is None else kept,
        )
        deployment.jobs[job_id] = job
        deployment.pins = deployment.pins or pin is not None
        if life is not None:
            core.at(now + life, lambda then: self._expire(deployment, job, then))
        if refusal is not None:
            self.finish(deployment, job, JobStatus.FAILED, now, error=refusal)
        else:
            deployment.queue.append(job_id)
            self._persist(job)
        core.touch(deployment.id)
        return job

    def get(self, deployment: EngineDeployment, job_id: str) -> EngineJob:
        """The job.

        Raises:
            Refused: ``expired`` (its result is forgotten), ``not_found``.
        """
        found = deployment.jobs.get(job_id)
        if found is not None:
            return found
        if job_id in deployment.expired_jobs:
            raise EngineRefused("expired", f"job {job_id!r} ended, and its result is not kept any more")
        raise EngineRefused("not_found", f"there is no job {job_id!r}")

    def cancel(self, deployment: EngineDeployment, job_id: str, now: float) -> EngineJob:
        """End a job that is not at its end. One that is stays as it is."""
        job = self.get(deployment, job_id)
        if not job.status.is_terminal:
            self.finish(deployment, job, JobStatus.CANCELLED, now, error={"type": "Cancelled", "message": "cancelled"})
        return job

    # What workers do.

    def dispatch(self, deployment: EngineDeployment, now: float) -> None:
        """Give waiting jobs to free workers, in the order they came."""
        if deployment.terms.dispatch != "push":
            return
        self._drop_pinned(deployment, now)
        while deployment.queue:
            found = self._next(deployment, now)
            if found is None:
                return
            worker, position = found
            job = self._assign(deployment, worker, now, position)
            self._core.effects.append(
                Push(
                    worker_id=worker.id,
                    job_id=job.id,
                    input=job.input,
                    execution_timeout=job.execution_timeout,
                    stream=job.stream,
                    extra=job.extra,
                )
            )

    def take(self, deployment: EngineDeployment, worker: EngineWorker, limit: int, now: float) -> list[EngineJob]:
        """Jobs for a worker that came to take some (``dispatch="pull"``)."""
        taken: list[EngineJob] = []
        while deployment.queue and len(taken) < limit and worker.free(now) > 0:
            taken.append(self._assign(deployment, worker, now))
        if taken:
            self._core.touch(deployment.id)
        return taken

    def chunk(self, deployment: EngineDeployment, event: Chunk, now: float) -> None:
        """One more value of a job's stream. What comes after its end is dropped."""
        job = deployment.jobs.get(event.job_id)
        if job is None or job.status is not JobStatus.RUNNING or job.worker_id != event.worker_id:
            return
        job.chunks.append(event.value)

    def done(self, deployment: EngineDeployment, worker: EngineWorker, event: JobDone, now: float) -> None:
        """A worker answered, or lost the job."""
        ours = worker.jobs.get(event.job_id, 0.0) is None
        self._release(deployment, worker, event.job_id, now)
        job = deployment.jobs.get(event.job_id)
        if event.busy:
            self._busy(worker, now)
        elif not event.lost:
            worker.busy_since = None
        if event.lost:
            # Its exit is likely on its way: nothing more is given to it meanwhile.
            worker.pause_until = max(worker.pause_until, now + 1.0)
            self._core.at(worker.pause_until, lambda _: self._core.touch(deployment.id))
        if job is None or not ours or job.status is not JobStatus.RUNNING or job.worker_id != worker.id:
            return
        job.execution_s = event.execution_s
        if event.busy:
            self._requeue(deployment, job, now)
            job.tries -= 1
        elif event.lost:
            self.lose(deployment, job, now, why="the worker's connection broke")
        elif event.error is not None and event.error.get("type") == "WorkerStopped":
            self.lose(deployment, job, now, why="the worker was stopped")
        elif event.error is not None:
            self.finish(deployment, job, JobStatus.FAILED, now, error=event.error)
        else:
            self.finish(deployment, job, JobStatus.DONE, now, output=event.output)
            self._keep(deployment, job, event.size, now)

    def lose_all(self, deployment: EngineDeployment, worker: EngineWorker, now: float, *, why: str) -> None:
        """The worker is gone: what it ran runs again where it may, else it is lost."""
        held = list(worker.jobs)
        worker.jobs.clear()
        # Reversed, so that the first of them is first in the queue again.
        for job_id in reversed(held):
            job = deployment.jobs.get(job_id)
            if job is not None and job.status is JobStatus.RUNNING and job.worker_id == worker.id:
                self.lose(deployment, job, now, why=why)

    def lose(self, deployment: EngineDeployment, job: EngineJob, now: float, *, why: str) -> None:
        """A running job's worker is gone. A stream of which some was read is not begun again."""
        again = job.idempotent and not job.chunks and job.tries < self._core.settings.most_tries
        if again and not deployment.deleting:
            self._requeue(deployment, job, now)
            return
        error = {"type": "WorkerLost", "message": f"{why} while it ran this job"}
        self.finish(deployment, job, JobStatus.FAILED, now, error=error, lost=True)

    def fail_queued(self, deployment: EngineDeployment, error: Mapping[str, JSON], now: float) -> None:
        """No worker will come: what waits ends now."""
        while deployment.queue:
            job = deployment.jobs[deployment.queue[0]]
            self.finish(deployment, job, JobStatus.FAILED, now, error=error)

    def cancel_all(self, deployment: EngineDeployment, now: float, *, why: str) -> None:
        """The deployment goes away: everything ends."""
        for job_id in [*deployment.queue, *sorted(deployment.running)]:
            job = deployment.jobs[job_id]
            self.finish(deployment, job, JobStatus.CANCELLED, now, error={"type": "Cancelled", "message": why})

    def finish(
        self,
        deployment: EngineDeployment,
        job: EngineJob,
        status: JobStatus,
        now: float,
        *,
        output: JSON = None,
        error: Mapping[str, JSON] | None = None,
        lost: bool = False,
    ) -> None:
        """The one place where a job ends."""
        if job.status.is_terminal:
            return
        if job.status is JobStatus.QUEUED:
            self._count_wait(deployment, job, now)
            if job.id in deployment.queue:
                deployment.queue.remove(job.id)
        deployment.running.discard(job.id)
        job.status, job.output, job.lost, job.finished_at = status, output, lost, now
        job.error = None if error is None else dict(error)
        if job.execution_s is None and job.started_at is not None and status is not JobStatus.CANCELLED:
            job.execution_s = now - job.started_at
        worker = deployment.workers.get(job.worker_id or "")
        if worker is not None and worker.jobs.get(job.id, 0.0) is None:
            self._take_back(deployment, worker, job, now)
        job.input = None
        self._persist(job)
        self._core.at(now + job.kept, lambda _: self._forget(deployment, job))
        self._core.touch(deployment.id)
        if job.ended is not None:
            job.ended(job, now)

    # Records.

    def restore(self, deployment: EngineDeployment, id: str, record: Mapping[str, JSON], now: float) -> None:
        """A job of the journal. One that was not at its end is FAILED now: nobody knows how far it came."""
        job = job_from(record, id, deployment, self._core)
        if not job.status.is_terminal:
            job.status, job.lost, job.error, job.finished_at = JobStatus.FAILED, True, dict(RESTARTED), now
            self._persist(job)
        deployment.jobs[id] = job
        kept_from = now if job.finished_at is None else job.finished_at
        self._core.at(kept_from + self._core.settings.result_ttl, lambda _: self._forget(deployment, job))

    # Inside.

    def _next(self, deployment: EngineDeployment, now: float) -> tuple[EngineWorker, int] | None:
        """A free worker, and the place in the queue of what it runs next. Pinned jobs hold nobody else up."""
        workers = deployment.workers
        anyone = pick(list(workers.values()), now, spread=deployment.terms.spread)
        if anyone is None:
            return None
        for position, job_id in enumerate(deployment.queue):
            pin = deployment.jobs[job_id].pin
            if pin is None:
                return anyone, position
            if (worker := workers.get(pin)) is not None and worker.free(now) > 0:
                return worker, position
        return None

    def _drop_pinned(self, deployment: EngineDeployment, now: float) -> None:
        """Jobs whose one worker is gone end with it."""
        if not deployment.pins:
            return
        queued = (deployment.jobs[job_id] for job_id in deployment.queue)
        lost = [job for job in queued if job.pin is not None and job.pin not in deployment.workers]
        for job in lost:
            error = {"type": "WorkerLost", "message": "its worker ended before it could run"}
            self.finish(deployment, job, JobStatus.FAILED, now, error=error, lost=True)

    def _assign(self, deployment: EngineDeployment, worker: EngineWorker, now: float, position: int = 0) -> EngineJob:
        job = deployment.jobs[deployment.queue[position]]
        del deployment.queue[position]
        self._count_wait(deployment, job, now)
        job.status, job.worker_id, job.started_at = JobStatus.RUNNING, worker.id, now
        job.execution_s = None
        job.tries += 1
        job.runs += 1
        deployment.running.add(job.id)
        worker.jobs[job.id] = None
        mark_busy(self._core, worker, now)
        run = job.runs
        limit = now + job.execution_timeout + self._core.settings.timeout_slack
        self._core.at(limit, lambda then: self._overdue(deployment, job, run, then))
        return job

    def _overdue(self, deployment: EngineDeployment, job: EngineJob, run: int, now: float) -> None:
        if job.status is not JobStatus.RUNNING or job.runs != run:
            return
        message = f"timed out after {job.execution_timeout:g} s"
        self.finish(deployment, job, JobStatus.FAILED, now, error={"type": "ExecutionTimeout", "message": message})

    def _take_back(self, deployment: EngineDeployment, worker: EngineWorker, job: EngineJob, now: float) -> None:
        """Its job ended without the worker's word: it has to let go, or is replaced."""
        core = self._core
        by = now + core.settings.let_go
        worker.jobs[job.id] = by
        if deployment.terms.dispatch == "push":
            core.effects.append(CancelPush(worker_id=worker.id, job_id=job.id))
        else:
            worker.cancels.append(job.id)

        def check(_: float) -> None:
            if not worker.gone and worker.jobs.get(job.id) is not None:
                worker.condemned = "hung: it does not let go of a job that was ended"
                core.touch(deployment.id)

        core.at(by, check)

    def _busy(self, worker: EngineWorker, now: float) -> None:
        core = self._core
        worker.pause_until = now + core.settings.busy_pause
        core.at(worker.pause_until, lambda _: core.touch(worker.deployment_id))
        if worker.busy_since is None:
            worker.busy_since = now
        elif now - worker.busy_since >= 2 * core.settings.let_go and not worker.jobs:
            worker.condemned = "hung: it says busy, and has nothing to do"
            core.touch(worker.deployment_id)

    def _requeue(self, deployment: EngineDeployment, job: EngineJob, now: float) -> None:
        deployment.running.discard(job.id)
        job.status, job.worker_id, job.started_at = JobStatus.QUEUED, None, None
        job.queued_at, job.cold_mark = now, deployment.cold(now)
        deployment.queue.appendleft(job.id)
        self._core.touch(deployment.id)

    def _count_wait(self, deployment: EngineDeployment, job: EngineJob, now: float) -> None:
        job.waited += now - job.queued_at
        job.cold += deployment.cold(now) - job.cold_mark
        job.queued_at, job.cold_mark = now, deployment.cold(now)

    def _release(self, deployment: EngineDeployment, worker: EngineWorker, job_id: str, now: float) -> None:
        if job_id in worker.jobs:
            del worker.jobs[job_id]
            mark_idle(self._core, worker, now)
            self._core.touch(deployment.id)

    def _expire(self, deployment: EngineDeployment, job: EngineJob, now: float) -> None:
        if deployment.jobs.get(job.id) is job:
            self.finish(deployment, job, JobStatus.CANCELLED, now, error={"type": "Expired", "message": "expired"})
            self._forget(deployment, job)

    def _keep(self, deployment: EngineDeployment, job: EngineJob, size: int, now: float) -> None:
        """Where finished jobs have too much to say, the oldest make room; not those that are just being asked for."""
        self._kept[job] = deployment, size
        self._kept_bytes += size
        while self._kept_bytes > self._core.settings.most_kept:
            oldest = next(iter(self._kept))
            if oldest.finished_at is None or oldest.finished_at > now - _KEPT_LEAST:
                return
            self._forget(self._kept[oldest][0], oldest)

    def _forget(self, deployment: EngineDeployment, job: EngineJob) -> None:
        self._kept_bytes -= self._kept.pop(job, (deployment, 0))[1]
        job.output, job.chunks = None, []  # the timers of its time still know it
        if deployment.jobs.get(job.id) is job:
            del deployment.jobs[job.id]
            deployment.expired_jobs[job.id] = None
            if len(deployment.expired_jobs) > _MOST_REMEMBERED:
                del deployment.expired_jobs[next(iter(deployment.expired_jobs))]
            self._core.effects.append(Persist(kind="job_gone", id=record_id(job)))

    def _persist(self, job: EngineJob) -> None:
        core = self._core
        core.effects.append(Persist(kind="job", id=record_id(job), record=job_record(job, core.wall)))
