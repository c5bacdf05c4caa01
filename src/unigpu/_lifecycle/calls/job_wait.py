"""One wait for one job: it is submitted once, looked at by the one polling rule, and not left behind."""

from __future__ import annotations

import functools
import logging
import math
from typing import Final

from unigpu._io.poll import JOB_PACE, poll
from unigpu._io.request_defaults import for_cleanup
from unigpu.driver import CallClass, Cancels, DeploymentInfo, Invocation, JobInfo, JobStatus
from unigpu.errors import (
    DeadlineExceeded,
    DeploymentGone,
    InvalidResponseError,
    NoCapacityError,
    NotFoundError,
    NoWorkerReady,
    ProviderUnavailableError,
    RateLimitError,
    ResultUnknown,
    TransportError,
    TransportTimeout,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
)

from ..consistency.absence import gone
from ..consistency.lost_answer import may_have_acted
from ..scope import CANCEL_SECONDS, CallOptions, Scope
from .worker_wait import WorkerWait

_log = logging.getLogger("unigpu.jobs")

_SUBMIT_TRIES: Final = 3
# What ends a wait while the job may still be in its queue.
_GIVES_UP: Final = (DeadlineExceeded, WorkerFailed, NoCapacityError, UnsupportedError)
_NO_NEWS: Final = (TransportError, RateLimitError, ProviderUnavailableError, InvalidResponseError)


class JobWait:
    """Submit and wait, or wait for a job that is there."""

    def __init__(self, scope: Scope, info: DeploymentInfo, options: CallOptions, *, began: float) -> None:
        self.scope = scope
        self.driver = scope.driver
        self.info = info
        self.options = options
        self.began = began
        self.worker_wait = WorkerWait(scope, info, options, began=began)
        self.job_id: str | None = None
        """The job that exists, or may exist."""

    async def run(self, call: Invocation) -> JobInfo:
        """Submit and wait; a caller who leaves takes the job along."""
        try:
            job = await self.send(call)
            return job if job.status.is_terminal else await self.until_done(job.id)
        except (GeneratorExit, UniGPUError):
            raise  # an error of ours has decided about the job itself
        except BaseException:
            await self.abandon()
            raise

    async def send(self, call: Invocation) -> JobInfo:
        """Submit, once, whatever happens to the answer.

        Raises:
            ResultUnknown: it may be in the queue, and the platform cannot be asked by an id of ours.
            DeadlineExceeded: the whole is over, and no answer came.
            DeploymentGone: the deployment does not exist any more.
        """
        io = self.scope.io
        own_id = self.driver.submit_call is CallClass.IDEMPOTENT
        self.job_id = call.job_id if own_id else None
        turn = 0
        while True:
            asked = io.now()
            try:
                if own_id:
                    return await self._submit(call)
                # Its id comes with the answer: a caller who leaves before that could not cancel it.
                seconds = max(1.0, call.deadline - asked) + 1.0
                return await io.shield(functools.partial(self._submit, call), seconds=seconds)
            except DeploymentGone:
                raise
            except NoWorkerReady:  # refused while nothing runs: it is started, and asked again
                await self.worker_wait.refused(asked)
                continue
            except NotFoundError as exc:
                raise gone(self.scope, self.info) from exc
            except UniGPUError as exc:
                acted = turn > 0 or may_have_acted(exc)
                self.job_id = self.job_id if acted else None
                if isinstance(exc, TransportTimeout) and io.now() >= call.deadline and (own_id or not acted):
                    return await self._was_late(exc, acted=acted)
                if not may_have_acted(exc):
                    raise
                repeat = own_id or self.options.idempotent
                if not repeat or turn + 1 == _SUBMIT_TRIES or io.now() >= call.deadline:
                    raise is_unknown(self.scope, self.info, self.job_id, exc) from exc
            turn += 1
            await io.sleep(JOB_PACE.delay(io.now() - self.began, io.random()))

    async def _was_late(self, exc: TransportTimeout, *, acted: bool) -> JobInfo:
        late = self.worker_wait.late()
        late.maybe_executed = acted
        if acted:
            return await self.give_up(late)
        raise late from exc

    async def _submit(self, call: Invocation) -> JobInfo:
        job = await self.driver.submit(self.scope.io, self.info, call)
        self.job_id = job.id
        return job

    async def until_done(self, job_id: str) -> JobInfo:
        """Wait for the end of a job.

        Raises:
            NoWorkerReady, DeadlineExceeded, WorkerFailed: we stop waiting; ``on_timeout`` decided about the job.
            ResultUnknown: the platform could not be asked for too long.
        """
        self.job_id = job_id
        try:
            return await poll(
                self.scope.io,
                lambda: self._check(job_id),
                deadline=math.inf,  # both deadlines are `WorkerWait`'s
                pace=JOB_PACE,
                hint=self._pause,
                held=self.driver.long_poll > 0,
                what=f"job {job_id}",
                provider=self.scope.provider,
                deployment=self.info.name,
            )
        except _GIVES_UP as exc:
            return await self.give_up(exc)
        except DeploymentGone as exc:
            exc.maybe_executed = True  # the job was in its queue, so this is not "not sent"
            raise
        except _NO_NEWS as exc:
            raise is_unknown(self.scope, self.info, job_id, exc) from exc

    async def _check(self, job_id: str) -> JobInfo | None:
        worker_wait = self.worker_wait
        try:
            job = await self.driver.status(
                self.scope.io,
                self.info,
                job_id,
                wait=worker_wait.hold(self.driver.long_poll),
                deadline=worker_wait.deadline,
            )
        except _NO_NEWS:
            worker_wait.check()
            raise
        if job.status.is_terminal:
            return job
        queued = job.status is JobStatus.QUEUED
        await worker_wait.observe(
            started=job.status is JobStatus.RUNNING, ready_workers=job.ready_workers, queued=queued
        )
        return None

    def _pause(self) -> float:
        io = self.scope.io
        return min(JOB_PACE.delay(io.now() - self.began, io.random()), self.worker_wait.left)

    async def give_up(self, exc: UniGPUError) -> JobInfo:
        """We stop waiting: cancel the job or leave it. One that ended meanwhile is returned after all.

        Raises:
            *exc*, saying what became of the job.
        """
        job_id = self.job_id
        if isinstance(exc, DeadlineExceeded):
            exc.job_id = job_id
        if self.options.on_timeout == "keep":
            exc.hint = f"{exc.hint or ''} Job {job_id} was left in the queue; its result can be fetched later.".strip()
            exc.may_bill = (*exc.may_bill, f"job {job_id}")
            raise exc
        job = await self.abandon()
        if job is not None and job.status is JobStatus.DONE:
            return job
        if job is not None and job.status.is_terminal:
            exc.hint = f"{exc.hint or ''} Job {job_id} was cancelled.".strip()
            raise exc
        exc.maybe_executed = True
        exc.may_bill = (*exc.may_bill, f"job {job_id}")
        exc.hint = f"{exc.hint or ''} Job {job_id} could not be cancelled and may still run.".strip()
        raise exc

    async def abandon(self) -> JobInfo | None:
        """Cancel the job, whatever cancels us; ``None`` where it is not known what became of it."""
        job_id, io, driver = self.job_id, for_cleanup(self.scope.io), self.driver
        if job_id is None or not isinstance(driver, Cancels):
            return None

        async def cancel() -> JobInfo:
            return await driver.cancel(io, self.info, job_id, deadline=io.now() + CANCEL_SECONDS)

        try:
            return await io.shield(cancel, seconds=CANCEL_SECONDS + 1.0)
        except UniGPUError as exc:
            _log.warning("job %s could not be cancelled and may still run: %s", job_id, exc)
            return None


def is_unknown(scope: Scope, info: DeploymentInfo, job_id: str | None, exc: UniGPUError) -> ResultUnknown:
    """The error for a call whose answer is lost."""
    what = "the call" if job_id is None else f"job {job_id}"
    return ResultUnknown(
        f"{what} of {info.name or info.provider_name} on {scope.provider} may have run; its result is not known "
        f"({exc.message})",
        provider=scope.provider,
        operation=exc.operation,
        deployment=info.name,
        job_id=job_id,
        may_bill=(what,),
        hint="Repeat it if the handler is idempotent (idempotent=True lets unigpu do so)."
        + ("" if job_id is None else " Its job may still be asked for."),
    )
