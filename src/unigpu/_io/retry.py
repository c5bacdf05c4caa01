"""Whether to send again. The only file that knows tenacity.

What is known of the failed call (its outcome class) and what repeating it may do (its call class) decide:

==================  ==========  =========  ============
outcome             IDEMPOTENT  RECONCILE  USER_DECIDES
==================  ==========  =========  ============
NEVER_SENT          again       again      again
REJECTED, 429       again       again      again
REJECTED, other     no          no         no
AMBIGUOUS           again       no         no
==================  ==========  =========  ============

The first try is bare: tenacity is built, for this call alone, after the first failure (a controller shared between
tasks mixes up their states). `RetryingIo` is where a breaker and retry tokens will be asked: `RetryPolicy.admits`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState

from unigpu.errors import TransportError

from .contract import CallClass, Headers, Io, Outcome, Request, Response, StreamResponse
from .status import TRANSIENT, outcome, request_id, retry_after

T = TypeVar("T")

__all__ = ["RetryPolicy", "RetryingIo"]

_log = logging.getLogger("unigpu.retry")

_THROTTLED: Final = 429


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, and how far apart. Seconds.

    Attributes:
        attempts: Sendings at most, the first included.
        base, cap: After a fault: ``random × min(cap, base × 2ⁿ)``.
        throttle_base, throttle_cap: After a 429: the same, but never below half of it.
        hint_cap: A provider that asks for a longer wait is not waited for: the caller can plan better than we sleep.
    """

    attempts: int = 4
    base: float = 0.25
    cap: float = 8.0
    throttle_base: float = 1.0
    throttle_cap: float = 20.0
    hint_cap: float = 60.0

    def wait(self, number: int, *, throttled: bool, hint: float | None, random: float) -> float:
        """Seconds after failed sending *number* (from 1). The provider's *hint* is a floor."""
        if throttled:
            plain = min(self.throttle_cap, self.throttle_base * 2.0 ** (number - 1)) * (0.5 + 0.5 * random)
        else:
            plain = min(self.cap, self.base * 2.0 ** (number - 1)) * random
        return max(plain, hint or 0.0)

    def admits(self, request: Request, known: Outcome, status: int | None) -> bool:
        """Whether a call that ended so may be sent again at all (the table above)."""
        if known is Outcome.NEVER_SENT:
            return True
        if known is Outcome.REJECTED:
            return status == _THROTTLED
        if known is Outcome.AMBIGUOUS:
            return request.call is CallClass.IDEMPOTENT and (status is None or status in TRANSIENT)
        return False


class _Reply(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...


class _Try:
    """How one sending ended, and the class that it belongs to."""

    __slots__ = ("drop", "error", "hint", "known", "reply", "status")

    def __init__(
        self,
        reply: _Reply | None = None,
        error: TransportError | None = None,
        drop: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.reply, self.error, self.drop = reply, error, drop
        self.status = reply.status if reply is not None else None
        if error is not None:
            self.known = outcome(error)
        else:
            self.known = outcome(Response(status=self.status or 0, headers=Headers()))
        self.hint = retry_after(reply.headers) if reply is not None and reply.status >= 400 else None


class RetryingIo:
    """An `Io` that sends again where that is safe and of use.

    `send` gives up with the last `Response` (its ``attempts`` and ``stop_reason`` set) or the last `TransportError`
    (likewise). `stream` sends again only until the reply begins.
    """

    def __init__(self, io: Io, policy: RetryPolicy | None = None) -> None:
        self._io = io
        self._policy = policy or RetryPolicy()

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""

        async def once() -> tuple[Response | None, _Try]:
            try:
                reply = await self._io.send(request)
            except TransportError as exc:
                return None, _Try(error=exc)
            return reply, _Try(reply)

        reply, end, attempts, reason = await self._until_done(request, once)
        if end.error is not None:
            raise _marked(end.error, attempts, reason)
        assert reply is not None
        return reply if attempts == 1 and reason is None else replace(reply, attempts=attempts, stop_reason=reason)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """As `Io.stream`."""

        async def once() -> tuple[tuple[AbstractAsyncContextManager[StreamResponse], StreamResponse] | None, _Try]:
            opening = self._io.stream(request)
            try:
                reply = await opening.__aenter__()
            except TransportError as exc:
                return None, _Try(error=exc)
            return (opening, reply), _Try(reply, drop=lambda: opening.__aexit__(None, None, None))

        opened, end, attempts, reason = await self._until_done(request, once)
        if end.error is not None:
            raise _marked(end.error, attempts, reason)
        assert opened is not None
        opening, reply = opened
        async with _Entered(opening):
            yield reply

    async def sleep(self, seconds: float) -> None:
        await self._io.sleep(seconds)

    def now(self) -> float:
        return self._io.now()

    def wall(self) -> float:
        return self._io.wall()

    def random(self) -> float:
        return self._io.random()

    async def shield(self, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        return await self._io.shield(work, seconds=seconds)

    async def _until_done(
        self, request: Request, once: Callable[[], Awaitable[tuple[T, _Try]]]
    ) -> tuple[T, _Try, int, str | None]:
        """The last result, how it ended, how often it was sent, and why not again (``None``: no need)."""
        first = await once()
        end = first[1]
        if end.known is Outcome.DONE:
            return *first, 1, None
        if not self._worth(request, end):
            return *first, 1, _class_reason(request, end)
        last, sent = first, 0
        reasons: list[str] = []

        async def attempt() -> None:
            nonlocal last, sent
            sent += 1
            if sent > 1:  # the first was sent above: tenacity only learns how it ended
                last = await once()

        async def before_sleep(state: RetryCallState) -> None:
            await self._before_sleep(request, last[1], sent, state.upcoming_sleep)

        await AsyncRetrying(
            sleep=self._io.sleep,
            retry=lambda _: self._worth(request, last[1]),
            wait=lambda _: self._wait(last[1], sent),
            stop=lambda state: self._stops(request, last[1], sent, state.upcoming_sleep, reasons),
            before_sleep=before_sleep,
            retry_error_callback=lambda _: None,
        )(attempt)
        value, end = last
        if reasons:
            self._log_end(request, end, sent, reasons[-1])
            return value, end, sent, reasons[-1]
        return value, end, sent, None if end.known is Outcome.DONE else _class_reason(request, end)

    def _worth(self, request: Request, end: _Try) -> bool:
        if end.error is not None and not end.error.retryable:
            return False
        return self._policy.admits(request, end.known, end.status)

    def _wait(self, end: _Try, number: int) -> float:
        return self._policy.wait(number, throttled=end.status == _THROTTLED, hint=end.hint, random=self._io.random())

    def _stops(self, request: Request, end: _Try, sent: int, sleep: float, reasons: list[str]) -> bool:
        if sent >= self._policy.attempts:
            reasons.append("attempts")
        elif end.hint is not None and end.hint > self._policy.hint_cap:
            reasons.append("retry_after")
        elif self._io.now() + sleep >= request.deadline:
            reasons.append("deadline")
        return bool(reasons)

    async def _before_sleep(self, request: Request, end: _Try, sent: int, sleep: float) -> None:
        if end.drop is not None:
            await end.drop()  # the reply that is not wanted; only now, because the last one is handed to the caller
        _log.info(
            "%s: %s, trying again in %.2f s",
            request.operation,
            end.known.value if end.status is None else f"HTTP {end.status}",
            sleep,
            extra={"unigpu": {**self._fields(request, end, sent), "sleep_s": sleep}},
        )

    def _log_end(self, request: Request, end: _Try, sent: int, reason: str) -> None:
        fields = {**self._fields(request, end, sent), "stop_reason": reason}
        _log.warning("%s: gave up after %d (%s)", request.operation, sent, reason, extra={"unigpu": fields})

    def _fields(self, request: Request, end: _Try, attempt: int) -> dict[str, object]:
        return {
            "operation": request.operation,
            "call": request.call.value,
            "attempt": attempt,
            "max_attempts": self._policy.attempts,
            "outcome": end.known.value,
            "status": end.status,
            "error": type(end.error).__name__ if end.error is not None else None,
            "retry_after_s": end.hint,
            "deadline_left_s": request.deadline - self._io.now(),
            "request_id": request_id(end.reply.headers) if end.reply is not None else None,
        }


class _Entered(contextlib.AbstractAsyncContextManager[None]):
    """The rest of a context manager that was entered by hand."""

    def __init__(self, opening: AbstractAsyncContextManager[StreamResponse]) -> None:
        self._opening = opening

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._opening.__aexit__(*exc)  # type: ignore[arg-type]  # passed on as it came


def _class_reason(request: Request, end: _Try) -> str | None:
    """``class``: it was not sent again because that could do it twice."""
    if end.error is not None and not end.error.retryable:
        return end.error.stop_reason
    if end.known is Outcome.AMBIGUOUS and request.call is not CallClass.IDEMPOTENT:
        return "class"
    return None


def _marked(error: TransportError, attempts: int, reason: str | None) -> TransportError:
    error.attempts = attempts
    error.stop_reason = reason or error.stop_reason
    return error
