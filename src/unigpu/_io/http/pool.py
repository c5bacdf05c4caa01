"""Connections, kept and handed on in constant time, for loops and for threads.

For each origin: the idle ones last in first out, those who wait for one first in first out. An acquirer that is
cancelled with a connection in hand passes it on, so no slot is ever lost.

A promise hangs on one line, ``link.conn.handle_…request(…)``, which looks the method up on the class at the time of the
call: a plain ``respx.mock`` replaces exactly that method, also for clients that were built and used before it. So the
method is never stored, and nothing below it is driven.

State belongs to one process and one loop. After a fork, or under another loop, it is replaced; what the parent had open
stays open there.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import anyio
import anyio.lowlevel
import httpcore

from .core_request import core_request, origin_of, text_headers
from .network import AsyncLink, Key, PoolSettings, SyncLink, async_link, sync_link
from .prepare import Prepared
from .transport import SendTiming

__all__ = ["AsyncPool", "SyncPool"]

# What closing a broken connection may raise: it is gone either way.
_CLOSING: Final = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, httpcore.NetworkError)

# What a fork left behind. Closing it here would warn, and could disturb the parent; so it is kept, never used.
_inherited: Final[list[object]] = []


class _AsyncWaiter:
    __slots__ = ("dead", "event", "link")

    def __init__(self) -> None:
        self.event, self.dead = anyio.Event(), False
        self.link: AsyncLink | None = None


class _AsyncOrigin:
    __slots__ = ("closed", "idle", "key", "total", "waiters")

    def __init__(self, key: Key) -> None:
        self.key, self.total, self.closed = key, 0, False
        self.idle: list[AsyncLink] = []
        self.waiters: deque[_AsyncWaiter] = deque()


class _AsyncRaw:
    """A reply that still holds its connection."""

    def __init__(self, raw: httpcore.Response, pool: AsyncPool, origin: _AsyncOrigin, link: AsyncLink) -> None:
        self.status, self.headers = raw.status, text_headers(raw.headers)
        self._stream: Any = raw.stream  # under a mock: the mock's own stream, which may be a plain iterable
        self._items: Any = None
        self._ended = False
        self._held: tuple[AsyncPool, _AsyncOrigin, AsyncLink] | None = (pool, origin, link)

    async def next(self) -> bytes | None:
        if self._items is None:
            self._items = aiter(self._stream) if hasattr(self._stream, "__aiter__") else iter(self._stream)
        if not hasattr(self._items, "__anext__"):
            return next(self._items, None)
        try:
            piece: bytes = await anext(self._items)
        except StopAsyncIteration:
            self._ended = True
            return None
        return piece

    async def close(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        pool, origin, link = held
        try:
            with anyio.CancelScope(shield=True):
                await self._run_dry(link)
                for part in (self._items, self._stream):
                    if hasattr(part, "aclose"):
                        await part.aclose()
        finally:
            await pool.release(origin, link)

    async def _run_dry(self, link: AsyncLink) -> None:
        """End httpcore's generators from the inside, where the body was left half read.

        It keeps one inside another and does not close the inner one, of which trio complains. With the deadline over,
        the next read ends both; what is buffered is at most one read. A mock's stream may never end: leave it alone.
        """
        if self._ended or self._items is None or not type(self._stream).__module__.startswith("httpcore"):
            return
        link.deadline.until = -math.inf
        with contextlib.suppress(StopAsyncIteration, *_CLOSING, httpcore.TimeoutException, httpcore.ProtocolError):
            while True:
                await anext(self._items)


class AsyncPool:
    """Connections for asyncio and trio."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._home: tuple[int, object] | None = None
        self._origins: dict[Key, _AsyncOrigin] = {}

    async def open(self, prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> _AsyncRaw:
        """Send a request, and return when status and headers are there."""
        request = core_request(prepared, {"timeout": timing.extension(), **extensions})
        origin = self._origin(origin_of(request.url))
        while True:
            link = await self._acquire(origin, timing)
            link.deadline.until = timing.until
            try:
                raw = await link.conn.handle_async_request(request)  # looked up now: what respx replaces
            except httpcore.ConnectionNotAvailable:
                await self.release(origin, link)  # the server closed it between two looks; nothing was sent
            except BaseException:
                await self.release(origin, link)
                raise
            else:
                return _AsyncRaw(raw, self, origin, link)

    def _origin(self, key: Key) -> _AsyncOrigin:
        home = (os.getpid(), anyio.lowlevel.current_token())
        if home != self._home:
            if self._home is not None and self._home[0] != home[0]:
                _inherited.append(self._origins)
            self._home, self._origins = home, {}
        found = self._origins.get(key)
        return found if found is not None else self._origins.setdefault(key, _AsyncOrigin(key))

    async def _acquire(self, origin: _AsyncOrigin, timing: SendTiming) -> AsyncLink:
        while origin.idle:
            link = origin.idle.pop()
            if link.available() and not link.expired(timing.max_idle):
                return link
            origin.total -= 1
            await self._close(link)
        if origin.total < self._settings.limit:
            link = async_link(origin.key, self._settings)
            origin.total += 1
            return link
        waiter = _AsyncWaiter()
        origin.waiters.append(waiter)
        try:
            with anyio.fail_after(timing.pool):
                await waiter.event.wait()
        except BaseException as exc:
            waiter.dead = True  # skipped when its turn comes
            if waiter.link is not None:  # it came and we leave: pass it on
                await self.release(origin, waiter.link)
            if isinstance(exc, TimeoutError):
                raise httpcore.PoolTimeout from None
            raise
        assert waiter.link is not None
        return waiter.link

    async def release(self, origin: _AsyncOrigin, link: AsyncLink) -> None:
        """Give *link*, or the right to open another, to the first who waits. Counters change before any await."""
        good = self._settings.expiry is not None and not origin.closed and link.available()
        link.idle_since = time.monotonic()
        heir = next((one for one in _drain(origin.waiters) if not one.dead), None)
        if heir is not None:
            heir.link = link if good else async_link(origin.key, self._settings)
            heir.event.set()
        elif good:
            origin.idle.append(link)
        else:
            origin.total -= 1
        if not good:
            await self._close(link)

    async def _close(self, link: AsyncLink) -> None:
        with anyio.CancelScope(shield=True), contextlib.suppress(*_CLOSING):
            await link.conn.aclose()  # does nothing where it never connected

    async def close(self) -> None:
        """Close what is idle, where it belongs to this process and loop."""
        origins, self._origins = self._origins, {}
        if self._home != (os.getpid(), anyio.lowlevel.current_token()):
            return
        for origin in origins.values():
            origin.closed = True  # what is in use now is closed when it comes back
            while origin.idle:
                origin.total -= 1
                await self._close(origin.idle.pop())


_W = TypeVar("_W")


def _drain(waiters: deque[_W]) -> Iterator[_W]:
    while waiters:
        yield waiters.popleft()


def _close(link: SyncLink) -> None:
    with contextlib.suppress(*_CLOSING):
        link.conn.close()


class _SyncWaiter:
    __slots__ = ("dead", "event", "link")

    def __init__(self) -> None:
        self.event, self.dead = threading.Event(), False
        self.link: SyncLink | None = None


class _SyncOrigin:
    __slots__ = ("closed", "idle", "key", "lock", "total", "waiters")

    def __init__(self, key: Key) -> None:
        self.key, self.total, self.closed, self.lock = key, 0, False, threading.Lock()
        self.idle: list[SyncLink] = []
        self.waiters: deque[_SyncWaiter] = deque()


class _SyncRaw:
    def __init__(self, raw: httpcore.Response, pool: SyncPool, origin: _SyncOrigin, link: SyncLink) -> None:
        self.status, self.headers = raw.status, text_headers(raw.headers)
        self._stream: Any = raw.stream
        self._items: Any = None
        self._held: tuple[SyncPool, _SyncOrigin, SyncLink] | None = (pool, origin, link)

    async def next(self) -> bytes | None:
        if self._items is None:
            self._items = iter(self._stream)
        return next(self._items, None)

    async def close(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        pool, origin, link = held
        try:
            for part in (self._items, self._stream):
                if hasattr(part, "close"):
                    part.close()
        finally:
            pool.release(origin, link)


class _State:
    def __init__(self) -> None:
        self.pid, self.lock = os.getpid(), threading.Lock()
        self.origins: dict[Key, _SyncOrigin] = {}


class SyncPool:
    """Connections for threads. Its coroutines never suspend: they are for `run_sync`."""

    def __init__(self, settings: PoolSettings) -> None:
        self._settings = settings
        self._state = _State()

    async def open(self, prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> _SyncRaw:
        """Send a request, and return when status and headers are there."""
        request = core_request(prepared, {"timeout": timing.extension(), **extensions})
        origin = self._origin(origin_of(request.url))
        while True:
            link = self._acquire(origin, timing)
            try:
                link.deadline.until = timing.until
                raw = link.conn.handle_request(request)  # looked up now: what respx replaces
            except httpcore.ConnectionNotAvailable:
                self.release(origin, link)
            except BaseException:
                self.release(origin, link)
                raise
            else:
                return _SyncRaw(raw, self, origin, link)

    def _origin(self, key: Key) -> _SyncOrigin:
        state = self._state
        if state.pid != os.getpid():  # a new lock too: a thread that held the old one is not in this process
            _inherited.append(state)
            state = self._state = _State()
        with state.lock:
            found = state.origins.get(key)
            return found if found is not None else state.origins.setdefault(key, _SyncOrigin(key))

    def _acquire(self, origin: _SyncOrigin, timing: SendTiming) -> SyncLink:
        waiter = _SyncWaiter()
        while True:
            with origin.lock:
                link = origin.idle.pop() if origin.idle else None
                if link is None:
                    if origin.total < self._settings.limit:
                        new = sync_link(origin.key, self._settings)
                        origin.total += 1
                        return new
                    origin.waiters.append(waiter)
                    break
            if link.available() and not link.expired(timing.max_idle):
                return link
            with origin.lock:
                origin.total -= 1
            _close(link)
        try:
            if not waiter.event.wait(timing.pool):
                raise httpcore.PoolTimeout
        except BaseException:
            with origin.lock:
                waiter.dead = True
                link = waiter.link
            if link is not None:
                self.release(origin, link)
            raise
        assert waiter.link is not None
        return waiter.link

    def release(self, origin: _SyncOrigin, link: SyncLink) -> None:
        """Give *link*, or the right to open another, to the first who waits."""
        usable = self._settings.expiry is not None and link.available()
        link.idle_since = time.monotonic()
        with origin.lock:
            good = usable and not origin.closed
            heir = next((one for one in _drain(origin.waiters) if not one.dead), None)
            if heir is not None:
                heir.link = link if good else sync_link(origin.key, self._settings)
                heir.event.set()
            elif good:
                origin.idle.append(link)
            else:
                origin.total -= 1
        if not good:
            _close(link)

    async def close(self) -> None:
        """Close what is idle, where it belongs to this process."""
        state, self._state = self._state, _State()
        if state.pid != os.getpid():
            _inherited.append(state)
            return
        with state.lock:
            origins = list(state.origins.values())
        for origin in origins:
            with origin.lock:
                origin.closed = True  # what is in use now is closed when it comes back
                idle, origin.idle = origin.idle, []
                origin.total -= len(idle)
            for link in idle:
                _close(link)
