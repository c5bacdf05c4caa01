"""One request to an http deployment: held while a worker starts, by the two deadlines, and open until it is left.

The user's server answers with what it likes, and every answer is data. Only where no answer came, or the platform says
by itself that there is none, is it an error of ours.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final

from unigpu.driver import DeploymentInfo, Headers, HTTPCall, Requests, StreamResponse
from unigpu.errors import (
    NoWorkerReady,
    StreamInterrupted,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
    WorkerLost,
)

from ..consistency.lost_answer import may_have_acted
from ..diagnose import classify, next_step
from ..scope import CallOptions, Scope
from .job_wait import is_unknown
from .jobs import LOST_TRIES, must_be_awake
from .worker_wait import WorkerWait

_LEAST_HOLD: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What a caller asks of the user's server; see `unigpu.driver.HTTPCall`."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    content: bytes | None = field(default=None, repr=False)
    read_timeout: float | None = None


class OpenReply:
    """A server's reply whose body is still on its way. Close it: an open one holds a worker."""

    def __init__(
        self,
        scope: Scope,
        info: DeploymentInfo,
        opening: AbstractAsyncContextManager[StreamResponse],
        reply: StreamResponse,
    ) -> None:
        self._scope, self._info, self._opening = scope, info, opening
        self._reply = reply
        self._chunks = reply.chunks()
        self._taken = 0
        self.closed = False

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> Headers:
        return self._reply.headers

    async def next(self) -> bytes | None:
        """The next bytes, as they come; ``None``: the body has ended, and the connection is given back.

        Raises:
            StreamInterrupted: it broke off.
        """
        if self.closed:
            return None
        try:
            chunk = await self._chunks.__anext__()
        except StopAsyncIteration:
            await self.aclose()
            return None
        except TransportError as exc:
            await self.aclose()
            raise self._broken(exc) from exc
        except BaseException:
            await self.aclose()
            raise
        self._taken += len(chunk)
        return chunk

    async def read(self) -> bytes:
        """What is left of the body, whole; then it is closed.

        Raises:
            StreamInterrupted: it broke off.
            InvalidResponseError: it is larger than a whole reply may be.
        """
        if self.closed:
            return b""
        try:
            return await self._reply.read()
        except TransportError as exc:
            raise self._broken(exc) from exc
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Leave it, wherever it is: the connection closes, and the worker sees that."""
        if not self.closed:
            self.closed = True
            try:
                closing = getattr(self._chunks, "aclose", None)
                if closing is not None:
                    await closing()
            finally:
                await self._opening.__aexit__(None, None, None)

    def _broken(self, exc: UniGPUError) -> StreamInterrupted:
        return StreamInterrupted(
            f"the reply of {self._info.name or self._info.provider_name} broke off after {self._taken} bytes "
            f"({exc.message})",
            provider=self._scope.provider,
            deployment=self._info.name,
            operation=exc.operation,
            stop_reason=exc.stop_reason,
            maybe_executed=True,
        )


async def request(scope: Scope, info: DeploymentInfo, asking: Asking, options: CallOptions) -> OpenReply:
    """Send it, and return when status and headers are there.

    Raises:
        NoWorkerReady: no worker was ready for ``start_timeout`` seconds.
        DeadlineExceeded: the whole took longer than ``timeout``.
        WorkerFailed: workers of the deployment cannot start.
        WorkerLost, ResultUnknown: it was sent, and no answer came.
        DeploymentGone: it does not exist any more.
    """
    driver, io = scope.driver, scope.io
    if not isinstance(driver, Requests):
        raise UnsupportedError(
            f"{driver.name} passes no requests on", provider=driver.name, deployment=info.name, capability="request"
        )
    began = io.now()
    if not options.wake:
        await must_be_awake(scope, info, deadline=began + options.whole)
    worker_wait = WorkerWait(scope, info, options, began=began)
    turns = LOST_TRIES if options.idempotent else 1
    while True:
        asked = io.now()
        call = HTTPCall(
            method=asking.method,
            target=asking.target,
            headers=asking.headers,
            content=asking.content,
            deadline=worker_wait.deadline,
            hold=min(driver.request_hold, max(_LEAST_HOLD, worker_wait.left)),
            wake=options.wake,
            idempotent=options.idempotent,
            read_timeout=asking.read_timeout,
        )
        opening = driver.request(io, info, call)
        try:
            reply = await opening.__aenter__()
        except NoWorkerReady:
            # No worker got it. While one is ready, it only waits behind other requests, and goes on waiting.
            info = await worker_wait.refused(asked)
        except WorkerLost:
            turns -= 1
            if turns < 1 or io.now() >= worker_wait.deadline:
                raise
            pause = driver.state_pace.delay(io.now() - began, io.random())
            if io.now() - asked < pause:
                await io.sleep(min(pause, worker_wait.left))
        except WorkerFailed as exc:
            raise _cannot_start(scope, info, exc) from None
        except TransportError as exc:
            if not may_have_acted(exc):
                raise
            if io.now() >= worker_wait.deadline:
                raise worker_wait.late() from exc
            raise is_unknown(scope, info, None, exc) from exc
        else:
            return OpenReply(scope, info, opening, reply)


def _cannot_start(scope: Scope, info: DeploymentInfo, exc: WorkerFailed) -> WorkerFailed:
    """The driver's word, with what we know of it to try next."""
    reason = classify(exc.reason, exc.message)
    return WorkerFailed(
        f"no worker of {info.name or info.provider_name} on {scope.provider} can start: {exc.message.rstrip('.')}.",
        provider=scope.provider,
        deployment=info.name,
        reason=reason,
        logs=exc.logs,
        next_step=next_step(reason, info),
        retryable=True,
        maybe_executed=False,
    )
