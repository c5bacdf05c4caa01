"""Client-side rates: a token bucket for each ``Request.limit_key`` that a driver's table names.

Waiting here is cheaper than a 429 there. The buckets belong to a `Limiter`, one per client, so that every `Io` of that
client (threads, the loop, `map`'s own) shares them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from unigpu.errors import TransportTimeout

from .contract import Io, Request, Response, StreamResponse

T = TypeVar("T")

__all__ = ["Limit", "LimitedIo", "Limiter"]


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
    """The buckets of one client, for any number of threads. Unknown keys have no limit."""

    def __init__(self, limits: Mapping[str, Limit]) -> None:
        self._limits = dict(limits)
        self._buckets: dict[str, _Bucket] = {}
        self._lock = threading.Lock()

    def take(self, key: str | None, now: float, patience: float) -> float | None:
        """As `_Bucket.take`."""
        if key is None or (limit := self._limits.get(key)) is None:
            return 0.0
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = self._buckets[key] = _Bucket(limit, now)
            return bucket.take(now, patience)


class LimitedIo:
    """An `Io` that waits for its turn.

    Raises:
        TransportTimeout: the turn would come after the deadline; nothing was sent.
    """

    def __init__(self, io: Io, limits: Limiter | Mapping[str, Limit]) -> None:
        self._io = io
        self._limiter = limits if isinstance(limits, Limiter) else Limiter(limits)

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        await self._turn(request)
        return await self._io.send(request)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """As `Io.stream`."""
        await self._turn(request)
        async with self._io.stream(request) as reply:
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
