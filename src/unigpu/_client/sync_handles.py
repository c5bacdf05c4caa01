"""The handles of a `Client`: a deployment, a job and a stream, each with its verbs bound."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, Unpack

from unigpu._io.bridge import run_sync
from unigpu.models import Explanation, JobStatus, LogLine, Result, SpecFields, Worker

from .arguments import OnUnsupported
from .calls import Calls, StreamSource
from .handle_state import DeploymentView, JobView, Submitted, Unpicklable
from .http_verbs import BoundHTTPVerbs
from .known import Seen
from .map.results import Results
from .progress import ProgressMode
from .verbs import Verbs

if TYPE_CHECKING:
    from .sync_client import Client

_END: Final = object()


class Deployment(BoundHTTPVerbs, DeploymentView):
    """A deployment, as one client sees it. Thread-safe.

    Leaving a ``with`` block tears it down if the deploy that returned it created it; a reused one is left running.
    """

    def __init__(self, client: Client, verbs: Verbs, seen: Seen) -> None:
        super().__init__(verbs.context.session, seen)
        self._client = client
        self._verbs = verbs

    def _handle(self) -> Deployment:
        return self

    def invoke(
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
        return self._client.invoke(
            self,
            input,
            start_timeout=start_timeout,
            timeout=timeout,
            on_timeout=on_timeout,
            idempotent=idempotent,
            wake=wake,
        )

    def scale(self, workers: int | tuple[int, int], *, on_unsupported: OnUnsupported = "raise") -> Deployment:
        """As ``client.scale``."""
        return self._client.scale(self, workers, on_unsupported=on_unsupported)

    def teardown(self, *, timeout: float = 600, missing_ok: bool = True, volumes: bool = False) -> None:
        """As ``client.teardown``."""
        self._client.teardown(self, timeout=timeout, missing_ok=missing_ok, volumes=volumes)

    def submit(
        self,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> Job:
        """As ``client.submit``."""
        return self._client.submit(self, input, start_timeout=start_timeout, timeout=timeout, wake=wake)

    def stream(
        self,
        input: Mapping[str, Any],
        *,
        start_timeout: float | None = None,
        timeout: float | None = None,
        wake: bool = True,
    ) -> Stream:
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
    ) -> Results:
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

    def update(
        self,
        *,
        wait: bool | Literal["worker"] = True,
        timeout: float = 1800,
        on_unsupported: OnUnsupported = "raise",
        progress: ProgressMode = "auto",
        **changes: Unpack[SpecFields],
    ) -> Deployment:
        """As ``client.update``."""
        return self._client.update(
            self, wait=wait, timeout=timeout, on_unsupported=on_unsupported, progress=progress, **changes
        )

    def wait_ready(self, *, wake: bool = False, timeout: float = 1800, progress: ProgressMode = "auto") -> Deployment:
        """As ``client.wait_ready``."""
        return self._client.wait_ready(self, wake=wake, timeout=timeout, progress=progress)

    def wake(self) -> Deployment:
        """As ``client.wake``."""
        return self._client.wake(self)

    def stop(self, *, timeout: float = 600) -> Deployment:
        """As ``client.stop``."""
        return self._client.stop(self, timeout=timeout)

    def start(self, *, wait: bool = True, timeout: float = 1800) -> Deployment:
        """As ``client.start``."""
        return self._client.start(self, wait=wait, timeout=timeout)

    def explain(self) -> Explanation:
        """As ``client.explain``."""
        return self._client.explain(self)

    def workers(self) -> tuple[Worker, ...]:
        """As ``client.workers``."""
        return self._client.workers(self)

    def logs(self, *, worker: str | None = None, follow: bool = False, tail: int = 200) -> Iterator[LogLine]:
        """As ``client.logs``."""
        return self._client.logs(self, worker=worker, follow=follow, tail=tail)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run_sync(self._verbs.leave(self._seen, error))


class Job(JobView):
    """A call that is in a queue or runs; it outlives this object, and this process."""

    def __init__(self, calls: Calls, submitted: Submitted) -> None:
        super().__init__(submitted)
        self._calls = calls

    def status(self) -> JobStatus:
        """Where it is now.

        Raises:
            JobExpired: the platform does not know it any more.
        """
        self._saw(run_sync(self._calls.status(self._submitted)))
        return self.info.status

    def result(self, *, timeout: float | None = None) -> Result:
        """Wait for its end, at most *timeout* seconds (default: those that ``submit`` got). The job itself runs on.

        Raises:
            JobFailed, WorkerLost, JobCancelled, JobExpired: what became of it.
            NoWorkerReady, DeadlineExceeded: it has not ended yet.
        """
        return run_sync(self._calls.result(self._submitted, timeout))

    def cancel(self) -> JobStatus:
        """Cancel it; says where it is then. One that has ended stays as it ended.

        Raises:
            UnsupportedError: the platform cannot.
        """
        self._saw(run_sync(self._calls.cancel(self._submitted)))
        return self.info.status

    def stream(self) -> Stream:
        """Its chunks from the first one. Leaving them early leaves the job."""
        return Stream(self._calls.follow(self._submitted))


class Stream(Unpicklable, Iterator[Any]):
    """The chunks of one call, as they come: an iterator and a context manager.

    Leaving the ``with`` block early cancels the job where the platform can.
    """

    def __init__(self, source: StreamSource) -> None:
        self._source = source

    @property
    def result(self) -> Result:
        """The whole result, once the chunks have ended."""
        return self._source.result

    def close(self) -> None:
        """Leave it: a job that still runs is cancelled where the platform can."""
        run_sync(self._source.close())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        chunk = run_sync(_next(self._source))
        if chunk is _END:
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _next(source: StreamSource) -> Any:
    try:
        return await source.next()
    except StopAsyncIteration:
        return _END
