"""An `Io` over a function: a cloud in memory, without sockets, on whichever clock.

The function takes a `Request` and gives a `Response`; or something to await (not for threads); or a `Held`, which is
asked again as time passes; or a `MemoryStream`. It may raise what a real `Io` raises.
"""

from __future__ import annotations

import contextlib
import inspect
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import anyio.lowlevel

from unigpu.errors import TransportTimeout

from .clock import Clock, get_clock
from .contract import Headers, Request, Response, StreamResponse
from .shield import shield_async, shield_sync

T = TypeVar("T")

__all__ = ["Answer", "Handle", "Held", "MemoryIo", "MemoryStream"]

_ASK: float = 0.02  # seconds between two questions to a held request, where the clock cannot be attached to


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Not yet: ask *poll* again as time passes, and at *until*, when it must answer.

    Attributes:
        until: On the clock's `now`.
        poll: Gets the time, gives the answer or ``None``.
        abandoned: Called with the time when the caller left, or its time was over, before an answer.
    """

    until: float
    poll: Callable[[float], Response | MemoryStream | None]
    abandoned: Callable[[float], object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStream:
    """A reply whose chunks come one by one. *body* must not suspend where a synchronous `Io` reads it."""

    status: int = 200
    headers: Headers = field(default_factory=Headers)
    body: AsyncIterator[bytes]


Answer = Response | MemoryStream | Held
Handle = Callable[[Request], Answer | Awaitable[Answer]]


@runtime_checkable
class _Holds(Protocol):
    """A clock that a test moves: it asks after each jump."""

    def hold(self, poll: Callable[[float], Any], until: float) -> Any: ...
    async def ahold(self, poll: Callable[[float], Any], until: float) -> Any: ...


class MemoryIo:
    """`Io` over *handle*.

    Args:
        handle: See the module.
        clock: Default: the process-wide one, looked up at each call.
        sync: For `run_sync`: nothing suspends.
        random: Jitter, in [0, 1).
    """

    def __init__(
        self,
        handle: Handle,
        clock: Clock | None = None,
        *,
        sync: bool = False,
        random: Callable[[], float] = random.random,
    ) -> None:
        self._handle, self._fixed, self._sync, self._random = handle, clock, sync, random

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        answer = await self._answer(request)
        if isinstance(answer, Response):
            return answer
        body = b"".join([chunk async for chunk in answer.body])
        return Response(status=answer.status, headers=answer.headers, content=body, operation=request.operation)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        """As `Io.stream`."""
        answer = await self._answer(request)
        if isinstance(answer, Response):
            answer = MemoryStream(status=answer.status, headers=answer.headers, body=_one(answer.content))
        try:
            yield _Reply(answer)
        finally:
            aclose = getattr(answer.body, "aclose", None)
            if aclose is not None:
                await aclose()

    async def sleep(self, seconds: float) -> None:
        if self._sync:
            self._clock.sleep(seconds)
        else:
            await self._clock.asleep(seconds)

    def now(self) -> float:
        return self._clock.now()

    def wall(self) -> float:
        return self._clock.wall()

    def random(self) -> float:
        return self._random()

    async def shield(self, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
        return await (shield_sync if self._sync else shield_async)(work, seconds=seconds)

    @property
    def _clock(self) -> Clock:
        return self._fixed if self._fixed is not None else get_clock()

    async def _answer(self, request: Request) -> Response | MemoryStream:
        if self._clock.now() >= request.deadline:
            raise _late(request, never_sent=True)
        answer = self._handle(request)
        if inspect.isawaitable(answer):
            answer = await answer
        if not self._sync:
            await anyio.lowlevel.checkpoint()  # a real reply lets others run, too
        touch = getattr(self._clock, "touch", None)
        if touch is not None:
            touch()  # the virtual clock does not jump while calls are answered
        return await self._held(request, answer) if isinstance(answer, Held) else answer

    async def _held(self, request: Request, held: Held) -> Response | MemoryStream:
        clock = self._clock
        patience = request.deadline
        if request.read_timeout is not None:
            patience = min(patience, clock.now() + request.read_timeout)
        until = min(held.until, patience)
        answer: Response | MemoryStream | None = None
        try:
            if not isinstance(clock, _Holds):
                while (answer := held.poll(clock.now())) is None and clock.now() < until:
                    await self.sleep(min(_ASK, until - clock.now()))
            elif self._sync:
                answer = clock.hold(held.poll, until)
            else:
                answer = await clock.ahold(held.poll, until)
        finally:
            if answer is None and held.abandoned is not None:
                held.abandoned(clock.now())
        if answer is None:
            raise _late(request, never_sent=False)
        return answer


class _Reply:
    def __init__(self, answer: MemoryStream) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        return self._answer.status

    @property
    def headers(self) -> Headers:
        return self._answer.headers

    def chunks(self) -> AsyncIterator[bytes]:
        return self._answer.body

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self._answer.body])


async def _one(content: bytes) -> AsyncGenerator[bytes]:
    if content:
        yield content


def _late(request: Request, *, never_sent: bool) -> TransportTimeout:
    return TransportTimeout(
        f"{request.operation}: no answer in time",
        never_sent=never_sent,
        operation=request.operation,
        stop_reason="deadline",
    )
