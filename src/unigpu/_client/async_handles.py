"""The handles of an `AsyncClient`: a deployment, a job and a stream, each with its verbs bound."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from unigpu.models import Explanation, JobStatus, LogLine, Result, SpecFields, Worker

from .arguments import OnUnsupported
from .calls import Calls, StreamSource
from .handle_state import DeploymentView, JobView, Submitted, Unpicklable
from .http_verbs import AsyncBoundHTTPVerbs
from .known import Seen
from .map.results import AsyncResults
from .progress import ProgressMode
from .verbs import Verbs

if TYPE_CHECKING:
    from .async_client import AsyncClient


class AsyncDeployment(AsyncBoundHTTPVerbs, DeploymentView):
    """A deployment, as one client sees it.

    Leaving an ``async with`` block tears it down if the deploy that returned it created it; a reused one is left.
    """

    def __init__(self, client: AsyncClient, verbs: Verbs, seen: Seen) -> None:
        super().__init__(verbs.context.session, seen)
        self._client = client
        self._verbs = verbs

    def _handle(self) -> AsyncDeployment:
        return self

    async def invoke(
        self,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        on_timeout: Literal["cancel", "keep"] = "cancel",
        idempotent: bool | None = None,
        wake: bool = True,
    ) -> Result:
        """As ``client.invoke``."""
        return await self._client.invoke(
            self,
            input,
            start_timeout=start_timeout,
            timeout=timeout,
            on_timeout=on_timeout,
            idempotent=idempotent,
            wake=wake,
        )

    async def scale(
        self, workers: int | tuple[int, int], *, on_unsupported: OnUnsupported = "raise"
    ) -> AsyncDeployment:
        """As ``client.scale``."""
        return await self._client.scale(self, workers, on_unsupported=on_unsupported)

    async def teardown(self, *, timeout: float = 600, missing_ok: bool = True, volumes: bool = False) -> None:
        """As ``client.teardown``."""
        await self._client.teardown(self, timeout=timeout, missing_ok=missing_ok, volumes=volumes)

    async def submit(
        self,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncJob:
        """As ``client.submit``."""
        return await self._client.submit(self, input, start_timeout=start_timeout, timeout=timeout, wake=wake)

    def stream(
        self,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> AsyncStream:
        """As ``client.stream``."""
        return self._client.stream(self, input, start_timeout=start_timeout, timeout=timeout, wake=wake)

    def map(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        concurrency: int | None = None,
        order: Literal["input", "done"] = "input",
        on_error: Literal["raise", "return"] = "raise",
        start_timeout: float | None = None,
        timeout: float | None = None,
        idempotent: bool | None = None,
        key: Callable[[Any], str] | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: ProgressMode = "auto",
    ) -> AsyncResults:
        """As ``client.map``."""
        return self._client.map(
            self,
            inputs,
            concurrency=concurrency,
            order=order,
            on_error=on_error,
            start_timeout=start_timeout,
            timeout=timeout,
            idempotent=idempotent,
            key=key,
            checkpoint=checkpoint,
            progress=progress,
        )

    async def update(
        self,
        *,
        wait: bool | Literal["worker"] = True,
        timeout: float = 1800,
        on_unsupported: OnUnsupported = "raise",
        progress: ProgressMode = "auto",
        **changes: Unpack[SpecFields],
    ) -> AsyncDeployment:
        """As ``client.update``."""
        return await self._client.update(
            self, wait=wait, timeout=timeout, on_unsupported=on_unsupported, progress=progress, **changes
        )

    async def wait_ready(
        self, *, wake: bool = False, timeout: float = 1800, progress: ProgressMode = "auto"
    ) -> AsyncDeployment:
        """As ``client.wait_ready``."""
        return await self._client.wait_ready(self, wake=wake, timeout=timeout, progress=progress)

    async def wake(self) -> AsyncDeployment:
        """As ``client.wake``."""
        return await self._client.wake(self)

    async def stop(self, *, timeout: float = 600) -> AsyncDeployment:
        """As ``client.stop``."""
        return await self._client.stop(self, timeout=timeout)

    async def start(self, *, wait: bool = True, timeout: float = 1800) -> AsyncDeployment:
        """As ``client.start``."""
        return await self._client.start(self, wait=wait, timeout=timeout)

    async def explain(self) -> Explanation:
        """As ``client.explain``."""
        return await self._client.explain(self)

    async def workers(self) -> tuple[Worker, ...]:
        """As ``client.workers``."""
        return await self._client.workers(self)

    def logs(self, *, worker: str | None = None, follow: bool = False, tail: int = 200) -> AsyncIterator[LogLine]:
        """As ``client.logs``."""
        return self._client.logs(self, worker=worker, follow=follow, tail=tail)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._verbs.leave(self._seen, error)


class AsyncJob(JobView):
    """A call that is in a queue or runs; it outlives this object, and this process."""

    def __init__(self, calls: Calls, submitted: Submitted) -> None:
        super().__init__(submitted)
        self._calls = calls

    async def status(self) -> JobStatus:
        """Where it is now.

        Raises:
            JobExpired: the platform does not know it any more.
        """
        self._saw(await self._calls.status(self._submitted))
        return self.info.status

    async def result(self, *, timeout: float | None = None) -> Result:
        """Wait for its end, at most *timeout* seconds (default: those that ``submit`` got). The job itself runs on.

        Raises:
            JobFailed, WorkerLost, JobCancelled, JobExpired: what became of it.
            NoWorkerReady, DeadlineExceeded: it has not ended yet.
        """
        return await self._calls.result(self._submitted, timeout)

    async def cancel(self) -> JobStatus:
        """Cancel it; says where it is then. One that has ended stays as it ended.

        Raises:
            UnsupportedError: the platform cannot.
        """
        self._saw(await self._calls.cancel(self._submitted))
        return self.info.status

    def stream(self) -> AsyncStream:
        """Its chunks from the first one. Leaving them early leaves the job."""
        return AsyncStream(self._calls.follow(self._submitted))


class AsyncStream(Unpicklable, AsyncIterator[Any]):
    """The chunks of one call, as they come: an iterator and a context manager.

    Leaving the ``async with`` block early cancels the job where the platform can.
    """

    def __init__(self, source: StreamSource) -> None:
        self._source = source

    @property
    def result(self) -> Result:
        """The whole result, once the chunks have ended."""
        return self._source.result

    async def aclose(self) -> None:
        """Leave it: a job that still runs is cancelled where the platform can."""
        await self._source.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._source.next()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._source.is_open:
            warnings.warn(
                "an AsyncStream was dropped before its end: its job may run on; use `async with`",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
