"""A small HTTP/1.1 client for what the emulator calls: its workers on loopback, and users' webhooks.

Here because `httpx` lives in `_io` alone, and a worker needs little: one request on one connection, a streamed
answer, and a close that the worker sees at once. h11 does the protocol; it comes with uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

_READ: int = 65_536
_CONNECT_S: float = 5.0
_ASKED_S: float = 1.0


class UpstreamError(Exception):
    """The other side could not be reached, broke off, or spoke no HTTP. ``never_sent``: it got no request."""

    def __init__(self, message: str, *, never_sent: bool = False) -> None:
        super().__init__(message)
        self.never_sent = never_sent


@dataclass(frozen=True, slots=True)
class Head:
    """Status and header fields; names are lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]


class Exchange:
    """One request on a connection of its own. `close` ends it at any time; the other side sees the socket close."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT)

    @classmethod
    async def open(
        cls, host: str, port: int, *, tls: ssl.SSLContext | None = None, seconds: float = _CONNECT_S
    ) -> Exchange:
        """Connect within *seconds*.

        Raises:
            UpstreamError: nobody listens there.
        """
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(host, port, ssl=tls)
        except (OSError, TimeoutError) as exc:
            raise UpstreamError(f"no connection to {host}:{port}: {_words(exc)}", never_sent=True) from None
        return cls(reader, writer)

    async def send(
        self,
        method: str,
        target: str,
        headers: Sequence[tuple[str, str]],
        body: bytes = b"",
        *,
        ask_first: bool = False,
    ) -> Head:
        """Send the request whole, and wait for status and headers (1xx are passed over).

        Args:
            ask_first: The body goes only when the other side has asked for it (``Expect: 100-continue``, RFC 9110
                10.1.1), or has been silent for a second: what breaks off before has certainly not run there. A
                process that is being killed still has a socket that connects.
        """
        fields = [(k, v) for k, v in headers if k.lower() not in ("content-length", "transfer-encoding", "connection")]
        fields.append(("connection", "close"))
        if body or method not in ("GET", "HEAD", "OPTIONS", "DELETE"):
            fields.append(("content-length", str(len(body))))
        if ask_first:
            fields.append(("expect", "100-continue"))
        sent = False
        try:
            self._writer.write(self._h11.send(h11.Request(method=method, target=target, headers=fields)) or b"")
            if not ask_first:
                sent = True
                await self._rest(body)
            while True:
                event = await self._event(_ASKED_S if not sent else None)
                if event is None:
                    sent = True
                    await self._rest(body)
                elif isinstance(event, h11.Response):
                    # h11 stores names in lower case.
                    pairs = tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in event.headers)
                    return Head(event.status_code, pairs)
                elif not isinstance(event, h11.InformationalResponse):
                    raise UpstreamError("the connection closed before an answer", never_sent=not sent)
                elif not sent and event.status_code == 100:
                    sent = True
                    await self._rest(body)
        except (h11.ProtocolError, OSError) as exc:
            words = "the connection was closed" if self._reader.at_eof() else _words(exc)  # h11 names its own states
            raise UpstreamError(f"no HTTP answer: {words}", never_sent=not sent) from None

    async def _rest(self, body: bytes) -> None:
        if body:
            self._writer.write(self._h11.send(h11.Data(data=body)) or b"")
        self._writer.write(self._h11.send(h11.EndOfMessage()) or b"")
        # A server may answer before it has read a large body; then reading is what matters.
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def body(self) -> AsyncIterator[bytes]:
        """The answer's body as it arrives.

        Raises:
            UpstreamError: it broke off before its end.
        """
        try:
            while True:
                event = await self._event()
                if isinstance(event, h11.Data):
                    yield bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    return
                else:
                    raise UpstreamError("the answer broke off")
        except (h11.ProtocolError, OSError) as exc:
            raise UpstreamError(f"the answer broke off: {_words(exc)}") from None

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamError: it is longer than *limit* bytes, or broke off.
        """
        parts: list[bytes] = []
        size = 0
        async for part in self.body():
            size += len(part)
            if size > limit:
                raise UpstreamError(f"the answer is longer than {limit} bytes")
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Drop the connection now, whatever is still to be read or written."""
        self._writer.transport.abort()

    async def _event(self, seconds: float | None = None) -> object:
        """The next event; ``None`` where *seconds* pass without one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (event := self._h11.next_event()) is h11.NEED_DATA:
                    self._h11.receive_data(await self._reader.read(_READ))
                return event
        return None


async def call(
    method: str,
    url: str,
    *,
    headers: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    seconds: float,
    limit: int = 1_000_000,
) -> tuple[int, bytes]:
    """One whole call to an absolute URL: the status and the body.

    Raises:
        UpstreamError: no usable answer within *seconds*.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UpstreamError("that is not an http or https URL", never_sent=True)
    tls = ssl.create_default_context() if parts.scheme == "https" else None
    port = parts.port or (443 if tls else 80)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    exchange: Exchange | None = None
    try:
        async with asyncio.timeout(seconds):
            exchange = await Exchange.open(parts.hostname, port, tls=tls, seconds=seconds)
            head = await exchange.send(method, target, [("host", parts.netloc.rpartition("@")[2]), *headers], body)
            return head.status, await exchange.read(limit)
    except TimeoutError:
        raise UpstreamError(f"no answer within {seconds:g} s") from None
    finally:
        if exchange is not None:
            exchange.close()


def _words(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
