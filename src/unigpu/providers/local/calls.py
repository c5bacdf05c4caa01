"""Jobs: what is sent, and what comes back. Pure."""

from __future__ import annotations

from typing import Any

from unigpu.driver import ChunkPage, Invocation, JobError, JobInfo, JobStatus, StartFailure, Timing, payload

from .wire import JobWire, PageWire


def job_body(call: Invocation, *, stream: bool) -> dict[str, Any]:
    return {
        "id": call.job_id,
        **payload(call),
        "execution_timeout": call.execution_timeout,
        # Chunks are kept beside the output, so that any job can be watched; a server that is not ours has none.
        "stream": stream,
        "idempotent": call.idempotent,
        "wake": True,
    }


def job_of(wire: JobWire) -> JobInfo:
    """The job, as users see it."""
    error = failure = None
    if wire.error is not None:
        # A worker that could not start has a log instead of a traceback.
        trace = wire.error.traceback or "\n".join(wire.error.logs) or None
        error = JobError(type=wire.error.type, message=wire.error.message, traceback=trace)
        if wire.error.type == "WorkerFailed" and wire.error.reason is not None:
            failure = StartFailure(reason=wire.error.reason, message=wire.error.message, logs=wire.error.logs)
    known = wire.status in JobStatus.__members__
    return JobInfo(
        id=wire.id,
        status=JobStatus(wire.status) if known else JobStatus.UNKNOWN,
        raw_status=wire.status,
        output=wire.output,
        error=error,
        start_failure=failure,
        lost=wire.lost,
        worker_id=wire.worker_id,
        timing=Timing(
            queue=wire.queue_s,
            cold_start=wire.cold_start_s,
            execution=wire.execution_s,
            source="queue, cold_start: platform; execution: worker",
        ),
        ready_workers=wire.ready_workers,
        submitted_at=wire.submitted_at,
        result_kept_until=wire.kept_until,
    )


def page_of(wire: PageWire) -> ChunkPage:
    return ChunkPage(
        chunks=wire.chunks,
        after=wire.after,
        end=wire.end,
        ready_workers=wire.ready_workers,
        started=wire.started,
    )
