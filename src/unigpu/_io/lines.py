"""Lines and server-sent events, read from bytes as they arrive."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from unigpu.errors import InvalidResponseError

__all__ = ["LONGEST_LINE", "EventParser", "LineReader", "ServerSentEvent", "lines_of"]

LONGEST_LINE = 32 * 1024 * 1024
"""Bytes of a line, or characters of an event. A worker's whole output has 32 MB at most, so a longer line is an error
and must not fill the memory."""


class LineReader:
    """Feed it bytes, however they are cut; it gives the lines that are whole, without their ``\\n`` or ``\\r\\n``.

    Raises:
        InvalidResponseError: a line is longer than `LONGEST_LINE`.
    """

    def __init__(self) -> None:
        self._rest = bytearray()  # grows in place: a long line arrives in thousands of pieces

    def feed(self, piece: bytes) -> list[bytes]:
        """The lines that *piece* ends."""
        first, *others = piece.split(b"\n")
        self._rest += first
        found: list[bytes] = []
        for part in others:
            found.append(self._take())
            self._rest += part
        self._check()
        return found

    def end(self) -> list[bytes]:
        """The last line, where the stream ended without a line end."""
        return [last] if (last := self._take()) else []

    def _take(self) -> bytes:
        self._check()
        line = bytes(self._rest.removesuffix(b"\r"))
        self._rest.clear()
        return line

    def _check(self) -> None:
        if len(self._rest) > LONGEST_LINE:
            raise InvalidResponseError(
                f"a line of the reply is longer than {LONGEST_LINE:,} bytes", maybe_executed=True
            )


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
    """The lines of a reply's chunks, the last one also without a line end. Leaving closes *chunks*.

    Raises:
        InvalidResponseError: as `LineReader`.
    """
    reader = LineReader()
    try:
        async for piece in chunks:
            for line in reader.feed(piece):
                yield line
        for line in reader.end():
            yield line
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a stream.

    Attributes:
        event: Its type; ``"message"`` where the server names none.
        data: Its lines, joined by line breaks.
        id: The last id that the server gave.
        retry: Milliseconds that the server asks to wait before connecting again, where it does.
    """

    data: str = ""
    event: str = "message"
    id: str = ""
    retry: int | None = None


class EventParser:
    """Feed it bytes, however they are cut; it gives the events that are whole (WHATWG HTML, section 9.2.6).

    Raises:
        InvalidResponseError: an event is longer than `LONGEST_LINE`.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")(errors="replace").decode
        self._line: list[str] = []
        self._size = 0
        self._after_cr = False
        self._data: list[str] = []
        self._event = self._id = ""
        self._retry: int | None = None

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that *chunk* ends."""
        found: list[ServerSentEvent] = []
        text = self._decode(chunk)
        if self._after_cr and text:
            text, self._after_cr = text.removeprefix("\n"), False
        self._after_cr = self._after_cr or text.endswith("\r")
        parts = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for last, part in enumerate(parts, 1 - len(parts)):
            self._line.append(part)
            self._size += len(part)
            if self._size > LONGEST_LINE:
                raise InvalidResponseError(
                    f"a server-sent event is longer than {LONGEST_LINE:,} characters", maybe_executed=True
                )
            if last < 0:
                line, self._line = "".join(self._line), []
                event = self._take(line)
                if event is not None:
                    found.append(event)
        return found

    def _take(self, line: str) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self._retry = int(value[:9])
        return None

    def _dispatch(self) -> ServerSentEvent | None:
        data, self._data, self._size = self._data, [], 0
        event, self._event = self._event, ""
        if not data:
            return None  # comments and bare fields make no event
        retry, self._retry = self._retry, None
        return ServerSentEvent(data="\n".join(data), event=event or "message", id=self._id, retry=retry)
