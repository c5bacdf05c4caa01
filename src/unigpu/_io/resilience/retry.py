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

``docs/reliability.md`` has the whole table. What is allowed must also be worth it: attempts, the provider's hint, the
deadline, the breaker and the retry tokens are asked in that order, the one that costs something last.

The first try is bare: tenacity is built, for this call alone, after the first failure (a controller shared between
tasks mixes up their states).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from tenacity import AsyncRetrying, RetryCallState

from unigpu.errors import CircuitOpen, InvalidResponseError, TransportError

from ..contract import CallClass, Io, Outcome, Request, Response, StreamResponse
from ..middleware import Middleware
from ..status import TRANSIENT
from .breaker import BreakerPermit
from .failure_domain import plane_of, provider_of
from .protection import Protection
from .retry_budget import FIRST_SUCCESS, THROTTLE_COST, TRANSIENT_COST
from .send_outcome import SendOutcome, evidence
from .telemetry import Records, Tell

T = TypeVar("T")

__all__ = ["RetryPolicy", "RetryingIo"]

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


class RetryingIo(Middleware):
    """An `Io` that sends again where that is safe and of use.

    `send` gives up with the last `Response` (its ``attempts`` and ``stop_reason`` set) or the last `TransportError`
    (likewise). `stream` sends again only until the reply begins.

    Args:
        protection: The client's tokens and breaker; default: none, every repetition that the table allows is made.
        tell: Gets the events.

    Raises:
        CircuitOpen: the breaker is open; nothing was sent.
    """

    def __init__(
        self,
        io: Io,
        policy: RetryPolicy | None = None,
        *,
        protection: Protection | None = None,
        tell: Tell | None = None,
    ) -> None:
        super().__init__(io)
        self._policy = policy or RetryPolicy()
        self._protection = protection or Protection()
        self._records = Records(self._protection, self._policy.attempts, tell)

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        first: _Sending[Response] = self._first(request)
        with first:  # here, not in a function: the first try of every call passes no more frames than this one
            self._replied(first, await self._io.send(request))

        async def again(sending: _Sending[Response]) -> None:
            with sending:
                self._replied(sending, await self._io.send(request))

        last, attempts, reason = await self._until_done(first, again)
        if last.end.error is not None:
            raise _marked(last.end.error, attempts, reason)
        reply = last.value
        return reply if attempts == 1 and reason is None else replace(reply, attempts=attempts, stop_reason=reason)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """As `Io.stream`."""

        async def once(sending: _Sending[tuple[AbstractAsyncContextManager[StreamResponse], StreamResponse]]) -> None:
            with sending:
                opening = self._io.stream(request)
                reply = await opening.__aenter__()
                drop = lambda: opening.__aexit__(None, None, None)  # noqa: E731 - read here and nowhere else
                end = SendOutcome(reply, drop=drop, wall=self._io.wall(), foreign=request.foreign)
                sending.value, sending.end = (opening, reply), end

        first: _Sending[tuple[AbstractAsyncContextManager[StreamResponse], StreamResponse]] = self._first(request)
        await once(first)
        last, attempts, reason = await self._until_done(first, once)
        if last.end.error is not None:
            raise _marked(last.end.error, attempts, reason)
        opening, reply = last.value
        async with _Entered(opening):
            yield reply

    def _replied(self, sending: _Sending[Response], reply: Response) -> None:
        request = sending.request
        meant = reply if request.status_of is None else replace(reply, status=request.status_of(reply))
        sending.value, sending.end = reply, SendOutcome(meant, wall=self._io.wall(), foreign=request.foreign)

    async def _until_done(
        self, last: _Sending[T], once: Callable[[_Sending[T]], Awaitable[None]]
    ) -> tuple[_Sending[T], int, str | None]:
        """The last sending, how often it was sent, and why not again (``None``: no need)."""
        request, key = last.request, last.key
        if not self._worth(request, last.end):
            return last, 1, self._ended(request, key, last.end, 1, 0.0)
        sent, paid, reasons = 0, 0.0, list[str]()

        async def attempt() -> None:
            nonlocal last, sent
            if sent > 0:  # the first was sent before: tenacity only learns how it ended
                entry = self._enter(request, key)
                if not isinstance(entry, BreakerPermit | None):
                    reasons.append("breaker")  # it opened while this call slept
                    return
                sending = _Sending[T](self, request, key, entry, sent + 1)
                await once(sending)
                last = sending
            sent += 1

        def stop(state: RetryCallState) -> bool:
            nonlocal paid
            reason = self._stops(request, key, last.end, sent, state.upcoming_sleep) if not reasons else None
            reasons.extend([reason] if reason else [])
            paid = 0.0 if reasons else self._cost(request, last.end)
            return bool(reasons)

        async def before_sleep(state: RetryCallState) -> None:
            end, sleep = last.end, state.upcoming_sleep
            if end.drop is not None:
                await end.drop()  # the reply that is not wanted; only now, because the last one is handed to the caller
            self._records.retry(request, key, end, sent, sleep, self._io.now())

        await AsyncRetrying(
            sleep=self._io.sleep,
            retry=lambda _: bool(reasons) or self._worth(request, last.end),
            wait=lambda _: self._wait(last.end, sent),
            stop=stop,
            before_sleep=before_sleep,
            retry_error_callback=lambda _: None,
        )(attempt)
        if reasons:
            self._records.gave_up(request, key, last.end, sent, reasons[-1], self._io.now())
            return last, sent, reasons[-1]
        return last, sent, self._ended(request, key, last.end, sent, paid)

    # -- one sending, under the breaker's eyes

    def _first(self, request: Request) -> _Sending[Any]:
        """The first sending of a call.

        Raises:
            CircuitOpen: the breaker does not let it out.
        """
        key = plane_of(request)
        entry = self._enter(request, key)
        if not isinstance(entry, BreakerPermit | None):
            self._records.refused(request, key, entry, self._io.now())
            raise _refused(request, key, entry)
        return _Sending(self, request, key, entry, 1)

    def _enter(self, request: Request, key: str) -> BreakerPermit | float | None:
        """Leave to send (``None``: there is no breaker), or the seconds until one may be had."""
        breaker = self._protection.breaker
        return None if breaker is None else breaker.enter(key, self._io.now(), anyway=request.cleanup)

    def note(self, sending: _Sending[Any], end: SendOutcome | None, error: BaseException | None) -> None:
        """Record a sending that has ended, and let the breaker judge it. *end* ``None``: *error* broke it off."""
        request, seconds = sending.request, self._io.now() - sending.began
        self._records.sent(request, end, error, sending.number, seconds)
        breaker = self._protection.breaker
        if breaker is None or sending.entry is None:
            return
        broken = False if isinstance(error, InvalidResponseError) else None
        answered = broken if end is None else evidence(request, end, seconds)
        if answered is None:
            breaker.leave(sending.entry)
            return
        now = self._io.now()
        change = breaker.record(sending.entry, answered, now, self._io.random)
        if change is not None:
            self._records.breaker(request, sending.key, change, end, sending.number, now)

    # -- again?

    def _worth(self, request: Request, end: SendOutcome) -> bool:
        """Whether the table allows it, and time has not run out already."""
        if end.error is not None and (not end.error.retryable or end.error.stop_reason == "deadline"):
            return False
        if request.reroutes and request.role == "worker" and end.known is Outcome.NEVER_SENT:
            return False  # a dead worker is not dialled again: its driver has others to ask
        return self._policy.admits(request, end.known, end.status)

    def _wait(self, end: SendOutcome, number: int) -> float:
        return self._policy.wait(number, throttled=end.status == _THROTTLED, hint=end.hint, random=self._io.random())

    def _cost(self, request: Request, end: SendOutcome) -> float:
        if request.cleanup or (request.reroutes and end.known is Outcome.NEVER_SENT):
            return 0.0
        return THROTTLE_COST if end.status == _THROTTLED else TRANSIENT_COST

    def _stops(self, request: Request, key: str, end: SendOutcome, sent: int, sleep: float) -> str | None:
        now, protection = self._io.now(), self._protection
        if sent >= self._policy.attempts:
            return "attempts"
        if end.hint is not None and end.hint > self._policy.hint_cap:
            return "retry_after"
        if now + sleep >= request.deadline:
            return "deadline"
        if protection.breaker is not None and not request.cleanup and protection.breaker.refuses(key, now + sleep):
            return "breaker"
        cost = self._cost(request, end)
        if protection.tokens is not None and cost > 0 and not protection.tokens.take(key, cost, now):
            return "tokens"
        return None

    def _ended(self, request: Request, key: str, end: SendOutcome, sent: int, paid: float) -> str | None:
        """The end of a call that is not worth repeating: why, where that is not plain from its outcome."""
        if end.known is Outcome.DONE:
            if self._protection.tokens is not None:
                self._protection.tokens.credit(key, FIRST_SUCCESS if sent == 1 else paid, self._io.now())
            return None
        reason = None if end.error is None else end.error.stop_reason
        if reason is None and end.known is Outcome.AMBIGUOUS and request.call is not CallClass.IDEMPOTENT:
            reason = "class"  # it was not sent again because that could do it twice
        if reason is not None:
            self._records.gave_up(request, key, end, sent, reason, self._io.now())
        return reason


class _Sending(Generic[T]):
    """One sending: a block around it, which notes how it ended and lets no `TransportError` out.

    Attributes:
        entry: The breaker's leave.
        value: What came, unless `end` has an error.
    """

    value: T
    end: SendOutcome

    def __init__(self, io: RetryingIo, request: Request, key: str, entry: BreakerPermit | None, number: int) -> None:
        self.request, self.key, self.entry, self.number = request, key, entry, number
        self.began = io.now()
        self._io = io

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, TransportError):
            self.end = SendOutcome(error=error)
        known = error is None or isinstance(error, TransportError)
        self._io.note(self, self.end if known else None, error)
        return known


class _Entered(contextlib.AbstractAsyncContextManager[None]):
    """The rest of a context manager that was entered by hand."""

    def __init__(self, opening: AbstractAsyncContextManager[StreamResponse]) -> None:
        self._opening = opening

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._opening.__aexit__(*exc)  # type: ignore[arg-type]  # passed on as it came


def _marked(error: TransportError, attempts: int, reason: str | None) -> TransportError:
    error.attempts = attempts
    error.stop_reason = reason or error.stop_reason
    return error


def _refused(request: Request, key: str, seconds: float) -> CircuitOpen:
    return CircuitOpen(
        f"{request.operation}: not sent, because the last calls to {key} all failed; it is tried again in "
        f"{seconds:.0f} s",
        retry_after=seconds,
        provider=provider_of(request),
        operation=request.operation,
        deployment=request.deployment,
        attempts=0,
        stop_reason="breaker",
    )
