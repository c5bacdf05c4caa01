"""An httpx transport that the user hands in, as a `Wire`. httpx is imported here, when the first one comes."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio

from unigpu.errors import ConfigurationError

from .prepare import Prepared
from .transport import SendTiming

if TYPE_CHECKING:
    import httpx

UserTransport: TypeAlias = "httpx.BaseTransport | httpx.AsyncBaseTransport"


class _UserReply:
    """A reply of a transport that was handed in. Such a transport knows no total deadline, so it is held here."""

    def __init__(self, reply: httpx.Response, timing: SendTiming, *, is_async: bool) -> None:
        self.status = reply.status_code
        self.headers = [(name.lower(), value) for name, value in reply.headers.multi_items()]
        self._stream: Any = reply.stream
        self._items: Any = None
        self._timing, self._is_async = timing, is_async and hasattr(self._stream, "__aiter__")

    async def next(self) -> bytes | None:
        if self._items is None:
            self._items = aiter(self._stream) if self._is_async else iter(self._stream)
        if not self._is_async:
            if time.monotonic() >= self._timing.until:
                raise TimeoutError
            return next(self._items, None)
        try:
            with _within(self._timing):
                piece: bytes = await anext(self._items)
        except StopAsyncIteration:
            return None
        return piece

    async def close(self) -> None:
        stream, self._stream = self._stream, None
        if self._is_async and stream is not None:
            with anyio.CancelScope(shield=True):
                for part in (self._items, stream):
                    if hasattr(part, "aclose"):
                        await part.aclose()
        elif stream is not None and hasattr(stream, "close"):
            stream.close()


def _within(timing: SendTiming) -> contextlib.AbstractContextManager[object]:
    return anyio.fail_after(max(0.0, timing.until - time.monotonic()))


def _user_request(prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> httpx.Request:
    import httpx  # here: it takes longer to import than all of ours, and only these transports need it

    return httpx.Request(
        prepared.method,
        prepared.url,
        headers=prepared.headers,
        content=prepared.content,
        extensions={"timeout": timing.extension(), **extensions},
    )


class SyncUserTransport:
    def __init__(self, transport: UserTransport) -> None:
        import httpx  # see _user_request

        if not isinstance(transport, httpx.BaseTransport):
            raise ConfigurationError("transport=: Client needs an httpx.BaseTransport")
        self._transport = transport

    async def open(self, prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> _UserReply:
        return _UserReply(
            self._transport.handle_request(_user_request(prepared, timing, extensions)), timing, is_async=False
        )

    async def close(self) -> None:
        self._transport.close()


class AsyncUserTransport:
    def __init__(self, transport: UserTransport) -> None:
        import httpx  # see _user_request

        if not isinstance(transport, httpx.AsyncBaseTransport):
            raise ConfigurationError("transport=: AsyncClient needs an httpx.AsyncBaseTransport")
        self._transport = transport

    async def open(self, prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> _UserReply:
        request = _user_request(prepared, timing, extensions)
        with _within(timing):
            reply = await self._transport.handle_async_request(request)
        return _UserReply(reply, timing, is_async=True)

    async def close(self) -> None:
        await self._transport.aclose()
