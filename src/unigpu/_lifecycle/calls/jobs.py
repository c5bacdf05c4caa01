"""One call of a function deployment: submit, wait by the one polling rule, and the two deadlines.

A call is a job wherever the platform has jobs, so that a lost connection loses nothing. ``start_timeout`` runs only
while no worker of the deployment is ready; ``timeout`` is the whole.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from unigpu._io.request_defaults import for_cleanup
from unigpu.driver import Cancels, DeploymentInfo, Invocation, JobInfo, JobStatus, Result, State
from unigpu.errors import (
    JobCancelled,
    JobExpired,
    JobFailed,
    NoWorkerReady,
    TransportError,
    UnsupportedError,
    WorkerLost,
)

from ..consistency.absence import read
from ..consistency.lost_answer import may_have_acted
from ..diagnose import cannot_start
from ..ready import is_stopped
from ..scope import CallOptions, Scope
from .job_wait import JobWait, is_unknown
from .worker_wait import WorkerWait

_log = logging.getLogger("unigpu.jobs")

SUBMIT_HOLD: Final = 5.0
"""Seconds for which a submit may be held by a platform that answers with the job as it ended."""
LOST_TRIES: Final = 3
"""How often an idempotent call runs in all when its worker dies."""


async def invoke(
    scope: Scope, info: DeploymentInfo, input: Mapping[str, Any], options: CallOptions, *, job_id: str | None = None
) -> Result:
    """Call the handler once and wait for its output.

    Raises:
        NoWorkerReady: no worker was ready for ``start_timeout`` seconds.
        DeadlineExceeded: the whole took longer than ``timeout``.
        JobFailed, WorkerLost, JobCancelled, JobExpired: what became of it.
        ResultUnknown: it may have run, and what it returned cannot be known.
        WorkerFailed: workers of the deployment cannot start.
        DeploymentGone: it does not exist any more.
    """
    io = scope.io
    began = io.now()
    if not scope.driver.has_jobs(info):
        return await _held(scope, info, input, options, job_id=job_id, began=began)
    if not options.wake:
        await must_be_awake(scope, info, deadline=began + options.whole)
    lost: WorkerLost | None = None
    for turn in range(LOST_TRIES if options.idempotent else 1):
        call = invocation(io.now(), input, options, job_id if turn == 0 else None, began=began)
        wait = JobWait(scope, info, options, began=began)
        if options.on_timeout == "cancel":  # short: a caller who leaves waits for the id by which the job is cancelled
            call = replace(call, hold=wait.worker_wait.hold(SUBMIT_HOLD))
        try:
            done = await wait.run(call)
            return result_of(done, total=io.now() - began, provider=scope.provider, deployment=info.name)
        except WorkerLost as exc:
            lost = exc
            if io.now() >= wait.worker_wait.deadline:
                break
            _log.info("%s: the worker was lost; running it again, since it is idempotent", info.name)
    if lost is None:
        raise AssertionError("unreachable: a turn returns or raises")
    raise lost


async def submit(
    scope: Scope, info: DeploymentInfo, input: Mapping[str, Any], options: CallOptions, *, job_id: str | None = None
) -> JobInfo:
    """Put a job into the queue and return at once."""
    began = scope.io.now()
    require_jobs(scope, info)
    if not options.wake:
        await must_be_awake(scope, info, deadline=began + options.whole)
    wait = JobWait(scope, info, options, began=began)
    return await wait.send(invocation(began, input, options, job_id, began=began))


async def job_status(scope: Scope, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
    """The job now.

    Raises:
        JobExpired: the platform does not know it any more.
    """
    require_jobs(scope, info)
    return await scope.driver.status(scope.io, info, job_id, deadline=deadline)


async def job_result(scope: Scope, info: DeploymentInfo, job_id: str, options: CallOptions) -> Result:
    """Wait for a job that is there already. A caller who leaves does not end it; a timeout does as ``on_timeout`` says.

    Raises:
        As `invoke`.
    """
    began = scope.io.now()
    require_jobs(scope, info)
    wait = JobWait(scope, info, options, began=began)
    done = await wait.until_done(job_id)
    return result_of(done, total=None, provider=scope.provider, deployment=info.name)


async def job_cancel(scope: Scope, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
    """Cancel a job. One that had ended stays as it ended.

    Raises:
        UnsupportedError: the platform cancels none.
    """
    require_jobs(scope, info)
    return await cancels(scope, info).cancel(for_cleanup(scope.io), info, job_id, deadline=deadline)


def result_of(job: JobInfo, *, total: float | None, provider: str, deployment: str | None) -> Result:
    """What a job that ended came to.

    Raises:
        JobFailed, WorkerLost, WorkerFailed, JobCancelled, JobExpired: unless it is done.
    """
    common: dict[str, Any] = {"job_id": job.id, "provider": provider, "deployment": deployment}
    if job.status is JobStatus.DONE:
        timing = job.timing if total is None else job.timing.model_copy(update={"total": total})
        return Result(output=job.output, timing=timing, worker_id=job.worker_id, job_id=job.id)
    if job.status is JobStatus.CANCELLED:
        raise JobCancelled(f"job {job.id} was cancelled", **common)
    if job.status is JobStatus.EXPIRED:
        raise JobExpired(f"job {job.id} expired on {provider}: its result is not kept any more", **common)
    error = job.error
    details: dict[str, Any] = {
        "error_type": None if error is None else error.type,
        "error_message": None if error is None else error.message,
        "traceback": None if error is None else error.traceback,
        "maybe_executed": True,
    }
    if job.start_failure is not None:
        raise cannot_start(job.start_failure, provider=provider, deployment=deployment)
    said = "no reason given" if error is None else f"{error.type}: {error.message}"
    if job.lost:
        raise WorkerLost(
            f"the worker of job {job.id} died while it ran ({said})",
            hint="It may have run in part; repeat it if the handler is idempotent.",
            **common,
            **details,
        )
    raise JobFailed(f"job {job.id} failed: {said}", **common, **details)


def new_job_id() -> str:
    return uuid.uuid4().hex


async def _held(
    scope: Scope,
    info: DeploymentInfo,
    input: Mapping[str, Any],
    options: CallOptions,
    *,
    job_id: str | None,
    began: float,
) -> Result:
    """A call on a held connection, where the deployment has no jobs."""
    if options.on_timeout == "keep":
        raise UnsupportedError(
            f"{scope.provider} keeps no jobs: a call that is given up is over",
            provider=scope.provider,
            deployment=info.name,
            capability="submit",
            hint='Leave on_timeout at "cancel".',
        )
    if not options.wake:
        await must_be_awake(scope, info, deadline=began + options.whole)
    turns = LOST_TRIES if options.idempotent else 1
    worker_wait = WorkerWait(scope, info, options, began=began)
    while True:
        asked = scope.io.now()
        call = invocation(asked, input, options, job_id, began=began)
        try:
            job = await scope.driver.submit(scope.io, info, call)
        except NoWorkerReady:
            if scope.io.now() >= call.start_deadline:
                raise  # the platform held it that long
            info = await worker_wait.refused(asked)
        except WorkerLost:
            turns, job_id = turns - 1, None
            if turns < 1 or scope.io.now() >= call.deadline:
                raise
            continue
        except TransportError as exc:
            if not may_have_acted(exc):
                raise
            raise is_unknown(scope, info, None, exc) from exc
        else:
            total = scope.io.now() - began
            result = result_of(job, total=total, provider=scope.provider, deployment=info.name)
            return result.model_copy(update={"job_id": None})  # the platform knows no job by it


def require_jobs(scope: Scope, info: DeploymentInfo) -> None:
    """Pass where the deployment has jobs.

    Raises:
        UnsupportedError: `submit` of its driver returns the answer.
    """
    if not scope.driver.has_jobs(info):
        raise UnsupportedError(
            f"{info.name or info.provider_name} on {scope.provider} has no jobs: its calls are held",
            provider=scope.provider,
            deployment=info.name,
            capability="submit",
            hint="Use invoke().",
        )


def cancels(scope: Scope, info: DeploymentInfo) -> Cancels:
    """The driver, where it cancels jobs.

    Raises:
        UnsupportedError: it does not.
    """
    if isinstance(scope.driver, Cancels):
        return scope.driver
    raise UnsupportedError(
        f"{scope.provider} cancels no job: it runs to its end, or to its execution_timeout",
        provider=scope.provider,
        deployment=info.name,
        capability="cancel",
    )


async def must_be_awake(scope: Scope, info: DeploymentInfo, *, deadline: float) -> None:
    """Before a call that may not start a worker.

    Raises:
        NoWorkerReady: it would have to.
    """
    now = await read(scope, info, deadline=deadline)
    if now.state in (State.COLD, State.STOPPED):
        raise is_stopped(scope, now)


def invocation(
    now: float, input: Mapping[str, Any], options: CallOptions, job_id: str | None, *, began: float
) -> Invocation:
    """What a driver gets of a call."""
    start = now + options.start_timeout
    deadline = began + options.whole if options.timeout_from == "call" else start + options.whole
    return Invocation(
        input=input,
        job_id=job_id or new_job_id(),
        deadline=deadline,
        start_deadline=min(start, deadline),
        execution_timeout=options.execution_timeout,
        idempotent=options.idempotent,
        token=options.token,
    )
