"""A reply of the user's own server on its way: bytes, or server-sent events, in both flavors."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Self

from unigpu._io.bridge import run_sync
from unigpu._io.lines import EventParser, ServerSentEvent
from unigpu._lifecycle import OpenReply
from unigpu.driver import Headers

from ..handle_state import Unpicklable


class _Events:
    """The events of a reply, one by one."""

    def __init__(self, reply: OpenReply) -> None:
        self._reply = reply
        self._parser = EventParser()
        self._ready: deque[ServerSentEvent] = deque()

    async def next(self) -> ServerSentEvent | None:
        while not self._ready:
            chunk = await self._reply.next()
            if chunk is None:
                return None
            self._ready.extend(self._parser.feed(chunk))
        return self._ready.popleft()


class _EventIterator:
    """Server-sent events: by hand, because an unfinished asynchronous generator would be left to the collector."""

    def __init__(self, events: _Events) -> None:
        self._events = events

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ServerSentEvent:
        event = await self._events.next()
        if event is None:
            raise StopAsyncIteration
        return event


def _dropped(reply: OpenReply, stream: object) -> None:
    if not reply.closed:
        warnings.warn(
            f"an {type(stream).__name__} was dropped before its end, and held a worker; use `with`",
            ResourceWarning,
            stacklevel=3,
            source=stream,
        )


class HTTPStream(Unpicklable, Iterator[bytes]):
    """A reply of the user's own server, as its bytes come: an iterator and a context manager.

    Leaving the ``with`` block closes the connection, and the server sees that.
    """

    def __init__(self, reply: OpenReply) -> None:
        self._reply = reply

    @property
    def status(self) -> int:
        """The HTTP status, whatever it is."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """Looked up without regard to case."""
        return self._reply.headers

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self._reply.status < 300

    def read(self) -> bytes:
        """What is left of the body, whole.

        Raises:
            StreamInterrupted: it broke off.
        """
        return run_sync(self._reply.read())

    def events(self) -> Iterator[ServerSentEvent]:
        """The body as server-sent events.

        Raises:
            StreamInterrupted: it broke off.
        """
        events = _Events(self._reply)
        while (event := run_sync(events.next())) is not None:
            yield event

    def close(self) -> None:
        """Leave it: the connection closes."""
        run_sync(self._reply.aclose())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        chunk = run_sync(self._reply.next())
        if chunk is None:
            raise StopIteration
        return chunk

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        _dropped(self._reply, self)

    def __repr__(self) -> str:
        return f"<HTTPStream {self.status}{', closed' if self._reply.closed else ''}>"


class AsyncHTTPStream(Unpicklable, AsyncIterator[bytes]):
    """A reply of the user's own server, as its bytes come: an iterator and a context manager.

    Leaving the ``async with`` block closes the connection, and the server sees that.
    """

    def __init__(self, reply: OpenReply) -> None:
        self._reply = reply

    @property
    def status(self) -> int:
        """The HTTP status, whatever it is."""
        return self._reply.status

    @property
    def headers(self) -> Headers:
        """Looked up without regard to case."""
        return self._reply.headers

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self._reply.status < 300

    async def read(self) -> bytes:
        """What is left of the body, whole.

        Raises:
            StreamInterrupted: it broke off.
        """
        return await self._reply.read()

    def events(self) -> AsyncIterator[ServerSentEvent]:
        """The body as server-sent events.

        Raises:
            StreamInterrupted: it broke off.
        """
        return _EventIterator(_Events(self._reply))

    async def aclose(self) -> None:
        """Leave it: the connection closes."""
        await self._reply.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._reply.next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        _dropped(self._reply, self)

    def __repr__(self) -> str:
        return f"<AsyncHTTPStream {self.status}{', closed' if self._reply.closed else ''}>"
