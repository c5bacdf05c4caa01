"""Client-side rates: waiting here is cheaper than a 429 there.

Two sources: the table of a driver (a token bucket for each ``Request.limit_key`` that it names), and what the provider
says in its replies' headers (a window that is used up is waited for). Both belong to a `Limiter`, one per client, so
that every `Io` of that client (threads, the loop, `map`'s own) shares them.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Final

from unigpu.errors import RateLimitError, TransportTimeout

from ..contract import Headers, Io, Request, Response, StreamResponse
from ..fork_lock import ForkLock
from ..middleware import Middleware
from .failure_domain import keep, latest, plane_of, provider_of
from .rate_limit_headers import closed_for

__all__ = ["PATIENCE", "Limit", "LimitedIo", "Limiter"]

PATIENCE: Final = 60.0
"""Seconds that a used-up window is waited for at most: the caller can plan a longer wait better than we sleep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A rate.

    Attributes:
        rate: Requests a second, in the long run.
        burst: Requests at once, after a pause.
    """

    rate: float
    burst: float = 1.0

    def __post_init__(self) -> None:
        if not (self.rate > 0 and self.burst >= 1):
            raise ValueError("a rate is above 0, and a burst at least 1")

    @classmethod
    def every(cls, seconds: float) -> Limit:
        """At most one request each *seconds*: a minimum interval."""
        return cls(rate=1.0 / seconds)


class _Bucket:
    __slots__ = ("limit", "seen", "tokens")

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit, self.tokens, self.seen = limit, limit.burst, now

    def take(self, now: float, patience: float) -> float | None:
        """Seconds to wait for the token that is now taken; ``None``: longer than *patience*, so none was taken."""
        passed = max(0.0, now - self.seen)
        self.tokens = min(self.limit.burst, self.tokens + passed * self.limit.rate)
        self.seen = max(self.seen, now)
        wait = max(0.0, (1 - self.tokens) / self.limit.rate)
        if wait > 0 and wait >= patience:
            return None
        self.tokens -= 1  # below zero: those who wait have theirs already, in the order in which they came
        return wait


class Limiter:
    """The rates of one client, for any number of threads. Unknown keys have no limit."""

    def __init__(self, limits: Mapping[str, Limit] | None = None) -> None:
        self._limits = dict(limits or {})
        self._buckets: dict[str, _Bucket] = {}
        self._closed_until: dict[str, float] = {}
        self._lock = ForkLock()

    def add(self, limits: Mapping[str, Limit]) -> None:
        """Add a driver's table. A bucket that is in use goes on."""
        self._limits.update(limits)

    def take(self, key: str | None, now: float, patience: float) -> float | None:
        """As `_Bucket.take`."""
        if key is None or (limit := self._limits.get(key)) is None:
            return 0.0
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = _Bucket(limit, now)
            return bucket.take(now, patience)

    def observe(self, window: str, headers: Headers, *, now: float, wall: float) -> None:
        """Learn from a reply's headers whether *window* is used up."""
        seconds = closed_for(headers, wall=wall)
        if seconds <= 0:
            return  # replies overtake each other: an older one does not open what a newer one closed
        with self._lock:
            until = max(latest(self._closed_until, window) or 0.0, now + seconds)
            self._closed_until.pop(window, None)
            keep(self._closed_until, window, until)

    def closed(self, window: str, now: float) -> float:
        """Seconds until *window* opens."""
        with self._lock:
            return max(0.0, self._closed_until.get(window, 0.0) - now)


class LimitedIo(Middleware):
    """An `Io` that waits for its turn.

    Raises:
        TransportTimeout: the turn would come after the deadline; nothing was sent.
        RateLimitError: the provider's window stays closed beyond the deadline or `PATIENCE`; nothing was sent.
    """

    def __init__(self, io: Io, limits: Limiter | Mapping[str, Limit]) -> None:
        super().__init__(io)
        self._limiter = limits if isinstance(limits, Limiter) else Limiter(limits)

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        await self._turn(request)
        reply = await self._io.send(request)
        self._learn(request, reply.headers)
        return reply

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """As `Io.stream`."""
        await self._turn(request)
        async with self._io.stream(request) as reply:
            self._learn(request, reply.headers)
            yield reply

    def _learn(self, request: Request, headers: Headers) -> None:
        if request.foreign:
            return
        self._limiter.observe(_window(request), headers, now=self._io.now(), wall=self._io.wall())

    async def _turn(self, request: Request) -> None:
        now = self._io.now()
        wait = self._limiter.take(request.limit_key, now, request.deadline - now)
        if wait is None:
            raise TransportTimeout(
                f"{request.operation}: the documented rate ({request.limit_key}) leaves no turn before the deadline",
                never_sent=True,
                operation=request.operation,
                stop_reason="deadline",
            )
        if wait > 0:
            await self._io.sleep(wait)
        await self._opening(request)

    async def _opening(self, request: Request) -> None:
        """Wait until the provider's own window is open."""
        window = _window(request)
        while (closed := self._limiter.closed(window, now := self._io.now())) > 0:
            late = now + closed >= request.deadline
            if late or closed > PATIENCE:
                if request.cleanup:
                    return  # what would be left behind bills: let the provider itself say no
                raise RateLimitError(
                    f"{request.operation}: the provider's rate is used up; it opens again in {closed:.0f} s",
                    provider=provider_of(request),
                    operation=request.operation,
                    deployment=request.deployment,
                    retry_after=closed,
                    maybe_executed=False,
                    stop_reason="deadline" if late else "retry_after",
                )
            await self._io.sleep(closed)


def _window(request: Request) -> str:
    """Providers count by plane unless the driver's table says something finer."""
    return request.limit_key or plane_of(request)
