"""Server-sent events, read from bytes as they come (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from unigpu.errors import InvalidResponseError

_MOST = 32 * 1024 * 1024


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
    """Feed it bytes, however they are cut; it gives the events that are whole.

    Raises:
        InvalidResponseError: an event is larger than 32 MiB.
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
            if self._size > _MOST:
                raise InvalidResponseError("a server-sent event is larger than 32 MiB", maybe_executed=True)
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
