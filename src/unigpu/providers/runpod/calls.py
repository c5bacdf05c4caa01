"""Calls of an endpoint: jobs, as RunPod takes and shows them, and their chunks, by ``GET /stream/{job}``.

https://docs.runpod.io/serverless/endpoints/operation-reference. A stream is held while there is nothing new, and
drained by reading. RunPod forgets what it has sent, so a reply that is lost on the way is never passed over: the rest
is then taken from the job's whole output, once it has ended.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.driver import (
    CallClass,
    ChunkPage,
    DeploymentInfo,
    Invocation,
    Io,
    JobError,
    JobInfo,
    JobStatus,
    Pace,
    Timing,
    json_object,
    mapping,
    parse,
    payload,
    poll,
)
from unigpu.errors import (
    InvalidResponseError,
    NotFoundError,
    ProviderUnavailableError,
    TransportError,
    UniGPUError,
)

from .api import RunPodAPI
from .bodies import DEFAULT_TTL, LONGEST_RUN, run_milliseconds
from .wire import PROVIDER, JobWire, StreamWire

HELD: Final = 10.0
"""Seconds for which RunPod holds a request by itself."""
LEAST: Final = 1.0
"""The shortest hold in seconds that RunPod takes."""
_REST_PACE: Final = Pace(floor=0.5, cap=5.0)
_CLASS: Final = re.compile(r"^<class '(?:[\w.]+\.)?(\w+)'>$")
_STATUS: Final[Mapping[str, JobStatus]] = {
    "IN_QUEUE": JobStatus.QUEUED,
    "IN_PROGRESS": JobStatus.RUNNING,
    "RUNNING": JobStatus.RUNNING,  # in the manual only
    "COMPLETED": JobStatus.DONE,
    "FAILED": JobStatus.FAILED,
    "CANCELLED": JobStatus.CANCELLED,
    "TIMED_OUT": JobStatus.FAILED,
}


def held_for(call: Invocation, now: float) -> float:
    """Seconds for which ``/runsync`` may hold a submit: only one that may run twice, and whose caller waits anyway;
    0: ``/run``."""
    hold = min(call.hold, call.deadline - now - LEAST)
    return hold if call.idempotent and hold >= LEAST else 0.0


def wait_of(hold: float) -> tuple[tuple[str, str], ...]:
    """The query that asks RunPod to hold a request for so many seconds."""
    return (("wait", str(int(hold * 1000))),) if hold else ()


def job_body(call: Invocation) -> dict[str, Any]:
    """``policy.executionTimeout`` always; a ttl only where a run could outlast the day that a job lives otherwise: the
    ttl counts from submit, and a job vanishes at it even while it runs."""
    policy: dict[str, Any] = {"executionTimeout": run_milliseconds(call.execution_timeout)}
    longest = call.execution_timeout + DEFAULT_TTL
    if call.execution_timeout > DEFAULT_TTL / 2:
        policy["ttl"] = round(min(LONGEST_RUN, longest) * 1000)
    return {**payload(call), "policy": policy}


WAKE: Final = "__unigpu_wake__"
"""The one key of a job's input that unigpu's worker answers by itself."""
_WAKE_TTL: Final = 3600.0


def wake_body() -> dict[str, Any]:
    """A job that is over as soon as a worker is there, and forgotten in an hour where none comes."""
    policy = {"executionTimeout": run_milliseconds(0), "ttl": round(_WAKE_TTL * 1000)}
    return {"input": {WAKE: True}, "policy": policy}


def job_of(wire: JobWire) -> JobInfo:
    """A job. What it shows as output before its end is progress, never taken for the result.

    ``delayTime`` is not used: it is queue and cold start together, and starts anew when a job is dispatched again.
    """
    status = _STATUS.get(wire.status, JobStatus.UNKNOWN)
    error = None
    if status is JobStatus.FAILED:
        error = error_of(wire.error)
        if wire.status == "TIMED_OUT":
            error = JobError(type="ExecutionTimeout", message=error.message or "it ran longer than its timeout")
    return JobInfo(
        id=wire.id,
        status=status,
        raw_status=wire.status,
        output=wire.output if status is JobStatus.DONE else None,
        error=error,
        worker_id=wire.workerId,
        timing=Timing(
            execution=None if wire.executionTime is None else wire.executionTime / 1000,
            source=None if wire.executionTime is None else "execution: platform",
        ),
    )


def not_known(info: DeploymentInfo, error: NotFoundError) -> InvalidResponseError:
    """The job service does not know an endpoint that exists."""
    return InvalidResponseError(
        f"RunPod's job service does not know {info.name or info.id}, which exists",
        provider=PROVIDER,
        operation=error.operation,
        deployment=info.name,
        maybe_executed=False,
        retryable=True,
        hint="An endpoint that was just made may take a moment; try again.",
    )


def error_of(said: object) -> JobError:
    """A worker's error: RunPod's package sends a JSON text, older ones and the platform plain words."""
    fields = json_object(said) if isinstance(said, str) else mapping(said)
    kind = _text(fields, "error_type", "type")
    message = _text(fields, "error_message", "message", "error")
    if kind is not None or message is not None:
        found = _CLASS.match(kind or "")
        return JobError(
            type=found.group(1) if found else kind or "Error",
            message=message or "",
            traceback=_text(fields, "error_traceback", "traceback"),
        )
    return JobError(message=said if isinstance(said, str) else "" if said is None else json.dumps(said)[:2000])


def rest_of(job: JobInfo, after: int) -> tuple[Any, ...] | None:
    """The chunks from *after* on, out of the whole output of a job that ended; ``None``: it has none that could be it.

    unigpu's worker returns the list of all chunks at the end; a job that failed has no more to give.
    """
    if job.status is not JobStatus.DONE:
        return ()
    output: object = job.output
    if not isinstance(output, list):
        return None
    whole = tuple(cast("Sequence[Any]", output))
    return whole[after:] if len(whole) >= max(after, 1) else None


def page_of(wire: StreamWire, after: int) -> ChunkPage:
    """Chunks, drained: nothing more will come once the job has ended *and* a reply was empty."""
    status = _STATUS.get(wire.status or "", JobStatus.UNKNOWN)
    chunks = tuple(one.get("output") for one in wire.stream)
    return ChunkPage(
        chunks=chunks,
        after=after + len(chunks),
        end=status.is_terminal and not chunks,
        started=status is not JobStatus.QUEUED and status is not JobStatus.UNKNOWN,
    )


def _text(fields: Mapping[str, object], *names: str) -> str | None:
    return next((value for name in names if isinstance(value := fields.get(name), str)), None)


# -- the chunks of a job -----------------------------------------------------------------------------------------------


async def chunks(
    api: RunPodAPI,
    io: Io,
    info: DeploymentInfo,
    job_id: str,
    *,
    after: int,
    wait: float,
    deadline: float,
) -> ChunkPage:
    """As `unigpu.driver.StreamsJobs.chunks`.

    Raises:
        InvalidResponseError: a reply was lost, and the worker keeps no whole output.
    """
    hold = max(LEAST, min(wait, HELD, deadline - io.now() - LEAST))
    try:
        reply = await api.job(
            io,
            "GET",
            info,
            "/stream",
            "job.stream",
            job_id=job_id,
            params=wait_of(hold),
            call=CallClass.USER_DECIDES,
            limit_key="runpod.status",
            read_timeout=hold + api.read_timeout,
            deadline=deadline,
        )
        return page_of(parse(StreamWire, reply), after)
    except (TransportError, ProviderUnavailableError, InvalidResponseError) as exc:
        if exc.maybe_executed is False or (isinstance(exc, TransportError) and exc.never_sent):
            raise
        return await _rest(api, io, info, job_id, after=after, lost=exc, deadline=deadline)


async def _rest(
    api: RunPodAPI,
    io: Io,
    info: DeploymentInfo,
    job_id: str,
    *,
    after: int,
    lost: UniGPUError,
    deadline: float,
) -> ChunkPage:
    """Every chunk from *after* on, when the job has ended."""

    async def tick() -> JobInfo | None:
        reply = await api.job(
            io, "GET", info, "/status", "job.get", job_id=job_id, limit_key="runpod.status", deadline=deadline
        )
        job = job_of(parse(JobWire, reply))
        return job if job.status.is_terminal else None

    what = f"the end of job {job_id}"
    job = await poll(io, tick, deadline=deadline, pace=_REST_PACE, what=what, provider=PROVIDER, deployment=info.name)
    rest = rest_of(job, after)
    if rest is None:
        raise InvalidResponseError(
            f"a part of the stream of job {job_id} was lost on the way ({lost.message})",
            provider=PROVIDER,
            operation="runpod.job.stream",
            deployment=info.name,
            maybe_executed=True,
            hint="RunPod sends each chunk once, and this worker returns no whole.",
        ) from lost
    return ChunkPage(chunks=rest, after=after + len(rest), end=True)
