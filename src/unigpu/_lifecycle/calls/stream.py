"""One streamed call: chunks as they come, the result after the end, and a job that does not outlive its reader."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping
from typing import Any

from unigpu._io.poll import JOB_PACE, poll
from unigpu.driver import (
    ChunkPage,
    DeploymentInfo,
    Invocation,
    JobStatus,
    Result,
    Streams,
    StreamsJobs,
    Timing,
)
from unigpu.errors import (
    DeadlineExceeded,
    DeploymentGone,
    InvalidResponseError,
    JobExpired,
    NoWorkerReady,
    ProviderUnavailableError,
    RateLimitError,
    StreamInterrupted,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
)

from ..scope import CallOptions, Scope
from .job_wait import JobWait
from .jobs import invocation, must_be_awake, result_of
from .worker_wait import WorkerWait

_NO_NEWS = (TransportError, RateLimitError, ProviderUnavailableError, InvalidResponseError)


class StreamRun:
    """An asynchronous iterator over the chunks of one call. Nothing is sent before the first one is asked for.

    Attributes:
        result: What the call came to, once the chunks have ended; before that ``None``.
    """

    def __init__(
        self,
        scope: Scope,
        info: DeploymentInfo,
        input: Mapping[str, Any] | None,
        options: CallOptions,
        *,
        job_id: str | None = None,
    ) -> None:
        """*input* ``None``: read the chunks of the job *job_id*, which leaving early does not cancel."""
        self._scope = scope
        self._info = info
        self._input = input
        self._options = options
        self._given_id = job_id
        self._chunks: AsyncIterator[Any] | None = None
        self._wait: JobWait | None = None
        self._ended = False
        self._seen: list[Any] = []
        self.result: Result | None = None

    @property
    def job_id(self) -> str | None:
        """The job's id, once it is submitted and where the platform has jobs."""
        return self._given_id if self._wait is None else self._wait.job_id

    def __aiter__(self) -> StreamRun:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        if self._chunks is None:
            self._chunks = self._open()
        try:
            return await self._chunks.__anext__()
        except StopAsyncIteration:
            self._ended = True
            if self.result is None:  # that is not the end of the chunks
                raise self._broken("the loop that read it has ended") from None
            raise
        except UniGPUError:
            self._ended = True  # what raised has decided about the job
            raise
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Leave early: the job is cancelled where the platform can, the connection closed where it cannot."""
        if self._ended:
            return
        self._ended = True
        if self._wait is not None and self._input is not None:
            await self._wait.abandon()
        closing = getattr(self._chunks, "aclose", None)
        if closing is not None:
            await closing()

    def _open(self) -> AsyncIterator[Any]:
        driver = self._scope.driver
        if isinstance(driver, StreamsJobs) and driver.has_jobs(self._info):
            return self._by_cursor(driver)
        if isinstance(driver, Streams) and self._input is not None:
            return self._by_connection(driver, self._input)
        raise UnsupportedError(
            f"{driver.name} does not stream",
            provider=driver.name,
            deployment=self._info.name,
            capability="streaming",
            hint="Use invoke().",
        )

    async def _by_cursor(self, driver: StreamsJobs) -> AsyncIterator[Any]:
        scope, io = self._scope, self._scope.io
        began = io.now()
        wait = self._wait = JobWait(scope, self._info, self._options, began=began)
        if self._input is None:
            wait.job_id = self._given_id
        else:
            if not self._options.wake:
                await must_be_awake(scope, self._info, deadline=began + self._options.whole)
            await wait.send(self._call(self._input, began))
        after, end = 0, False
        while not end:
            page = await self._page(driver, wait, after)
            after, end = page.after, page.end
            for chunk in page.chunks:
                self._seen.append(chunk)
                yield chunk
        job = await wait.until_done(wait.job_id or "")
        total = io.now() - began if self._input is not None else None
        self.result = result_of(job, total=total, provider=scope.provider, deployment=self._info.name)

    async def _page(self, driver: StreamsJobs, wait: JobWait, after: int) -> ChunkPage:
        """The next page with something in it. A cursor makes reading one again harmless."""
        io, worker_wait, job_id = self._scope.io, wait.worker_wait, wait.job_id or ""

        async def tick() -> ChunkPage | None:
            try:
                page = await driver.chunks(
                    io,
                    self._info,
                    job_id,
                    after=after,
                    wait=worker_wait.hold(wait.driver.long_poll),
                    deadline=worker_wait.deadline,
                )
            except _NO_NEWS:
                worker_wait.check()
                raise
            if page.chunks or page.end:
                return page
            await worker_wait.observe(started=bool(page.started) or after > 0, ready_workers=page.ready_workers)
            return None

        try:
            return await poll(
                io,
                tick,
                deadline=math.inf,
                pace=JOB_PACE,
                hint=lambda: min(JOB_PACE.delay(io.now() - wait.began, io.random()), worker_wait.left),
                held=wait.driver.long_poll > 0,
                what=f"a chunk of job {job_id}",
                provider=self._scope.provider,
                deployment=self._info.name,
            )
        except (DeadlineExceeded, WorkerFailed) as exc:
            job = await wait.give_up(exc)  # raises, unless the job was done: then its last chunks are there
            if job.status is not JobStatus.DONE:
                raise
            return ChunkPage(after=after, end=True)
        except JobExpired:
            raise
        except DeploymentGone as exc:
            exc.maybe_executed = True  # the job was in its queue
            raise
        except _NO_NEWS as exc:
            raise self._broken(exc.message, exc.operation) from exc

    async def _by_connection(self, driver: Streams, input: Mapping[str, Any]) -> AsyncIterator[Any]:
        scope, io = self._scope, self._scope.io
        began = io.now()
        if not self._options.wake:
            await must_be_awake(scope, self._info, deadline=began + self._options.whole)
        worker_wait = WorkerWait(scope, self._info, self._options, began=began)
        while True:
            asked = io.now()
            call = self._call(input, began)
            chunks = driver.stream(io, self._info, call)
            try:
                async for chunk in chunks:
                    self._seen.append(chunk)
                    yield chunk
                break
            except NoWorkerReady:
                if self._seen or io.now() >= call.start_deadline:
                    raise
                await worker_wait.observe(started=False, ready_workers=None)  # starts one that is stopped
            except TransportError as exc:
                if isinstance(exc, StreamInterrupted):
                    exc.partial = exc.partial or tuple(self._seen)  # what a driver yielded, it does not keep
                    raise
                if not self._seen:
                    raise
                raise self._broken(exc.message, exc.operation) from exc
            finally:
                closing = getattr(chunks, "aclose", None)
                if closing is not None:
                    await closing()
            pause = scope.driver.state_pace.delay(io.now() - began, io.random())
            if io.now() - asked < pause:
                await io.sleep(min(pause, worker_wait.left))
        self.result = Result(output=list(self._seen), timing=Timing(total=io.now() - began, source="client"))

    def _call(self, input: Mapping[str, Any], began: float) -> Invocation:
        return invocation(self._scope.io.now(), input, self._options, self._given_id, began=began)

    def _broken(self, why: str, operation: str | None = None) -> StreamInterrupted:
        return StreamInterrupted(
            f"the stream of {self._info.name or self._info.provider_name} broke after {len(self._seen)} chunks ({why})",
            partial=tuple(self._seen),
            provider=self._scope.provider,
            deployment=self._info.name,
            operation=operation,
        )


def stream(scope: Scope, info: DeploymentInfo, input: Mapping[str, Any], options: CallOptions) -> StreamRun:
    """A streamed call; nothing is sent before its first chunk is asked for."""
    return StreamRun(scope, info, input, options)


def job_stream(scope: Scope, info: DeploymentInfo, job_id: str, options: CallOptions) -> StreamRun:
    """The chunks of a job that is there already. Leaving early leaves the job."""
    return StreamRun(scope, info, None, options, job_id=job_id)
