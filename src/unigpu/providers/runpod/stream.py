"""The chunks of a job, by ``GET /stream/{job}``: held while there is nothing new, and drained by reading.

https://docs.runpod.io/serverless/endpoints/operation-reference. RunPod forgets what it has sent, so a reply that is
lost on the way is never passed over: the rest is then taken from the job's whole output, once it has ended.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from unigpu.driver import CallClass, ChunkPage, DeploymentInfo, Io, JobInfo, Pace, poll
from unigpu.errors import InvalidResponseError, ProviderUnavailableError, TransportError, UniGPUError

from .api import Line
from .calls import page_of, rest_of
from .wire import PROVIDER, StreamWire, parse

HELD: Final = 10.0
"""Seconds for which RunPod holds a request by itself."""
LEAST: Final = 1.0
"""Seconds that it may be asked to hold one at least."""
_OPERATION: Final = "job.stream"
_REST_PACE: Final = Pace(floor=0.5, cap=5.0)


async def chunks(
    line: Line,
    io: Io,
    info: DeploymentInfo,
    job_id: str,
    *,
    after: int,
    wait: float,
    status: Callable[[], Awaitable[JobInfo]],
    deadline: float,
) -> ChunkPage:
    """As `unigpu.driver.StreamsJobs.chunks`.

    Raises:
        InvalidResponseError: a reply was lost, and the worker keeps no whole output.
    """
    hold = max(LEAST, min(wait, HELD, deadline - io.now() - LEAST))
    try:
        reply = await line.job(
            io,
            "GET",
            info,
            "/stream",
            _OPERATION,
            job_id=job_id,
            params=(("wait", str(int(hold * 1000))),),
            call=CallClass.USER_DECIDES,
            limit_key="runpod.status",
            wait=hold,
            deadline=deadline,
        )
        return page_of(parse(StreamWire, reply), after)
    except (TransportError, ProviderUnavailableError, InvalidResponseError) as exc:
        if exc.maybe_executed is False or (isinstance(exc, TransportError) and exc.never_sent):
            raise
        return await _rest(io, info, job_id, after=after, lost=exc, status=status, deadline=deadline)


async def _rest(
    io: Io,
    info: DeploymentInfo,
    job_id: str,
    *,
    after: int,
    lost: UniGPUError,
    status: Callable[[], Awaitable[JobInfo]],
    deadline: float,
) -> ChunkPage:
    """Every chunk from *after* on, when the job has ended."""

    async def tick() -> JobInfo | None:
        job = await status()
        return job if job.status.is_terminal else None

    what = f"the end of job {job_id}"
    job = await poll(io, tick, deadline=deadline, pace=_REST_PACE, what=what, provider=PROVIDER, deployment=info.name)
    rest = rest_of(job, after)
    if rest is None:
        raise InvalidResponseError(
            f"a part of the stream of job {job_id} was lost on the way ({lost.message})",
            provider=PROVIDER,
            operation=f"runpod.{_OPERATION}",
            deployment=info.name,
            maybe_executed=True,
            hint="RunPod sends each chunk once, and this worker returns no whole.",
        ) from lost
    return ChunkPage(chunks=rest, after=after + len(rest), end=True)
