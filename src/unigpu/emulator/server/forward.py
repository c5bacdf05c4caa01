"""A request handed to a worker's own port, and its answer streamed back as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode

from ..contract import HttpCall, Reply
from ..http_client import Exchange, Head, UpstreamError

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Of one connection, not of the message (RFC 9110, section 7.6.1); a proxy makes its own.
_HOP: Final = frozenset(
    {"connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length"}
)


class NoAnswer(UpstreamError):
    """The worker gave nothing of an answer, so that the caller has nothing yet, either."""


def http_call(scope: MutableMapping[str, Any], body: bytes) -> HttpCall:
    """The call of an ASGI scope. A field sent twice is joined, as RFC 9110 allows (cookies by ``; ``)."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        glue = "; " if name == "cookie" else ", "
        headers[name] = f"{headers[name]}{glue}{value}" if name in headers else value
    query_string: str = scope["query_string"].decode("latin-1")
    raw_path: bytes = scope.get("raw_path") or quote(scope["path"]).encode()
    path = raw_path.decode("latin-1").partition("?")[0]
    return HttpCall(
        method=scope["method"],
        path=scope["path"],
        query=dict(parse_qsl(query_string, keep_blank_values=True)),
        headers=headers,
        body=body,
        host=_without_port(headers.get("host", "")),
        scheme=scope.get("scheme", "http"),
        target=path + (f"?{query_string}" if query_string else ""),
    )


async def forward(call: HttpCall, address: tuple[str, int] | None, gone: asyncio.Task[None], send: Send) -> int | None:
    """Send *call* to the worker at *address* and stream the answer; the caller's leaving closes the worker's side.

    Returns:
        The worker's status; ``None`` where the caller left first.

    Raises:
        NoAnswer: the worker is gone, or gave no answer.
        UpstreamError: its answer broke off; a part of it is out.
    """
    work = asyncio.create_task(_forward(call, address, send))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


async def _forward(call: HttpCall, address: tuple[str, int] | None, send: Send) -> int:
    exchange: Exchange | None = None
    try:
        if address is None:
            raise UpstreamError("the worker is gone", never_sent=True)
        exchange = await Exchange.open(*address)
        head = await exchange.send(call.method, _target(call), _to_worker(call, address), call.body)
    except UpstreamError as exc:
        if exchange is not None:
            exchange.close()
        raise NoAnswer(str(exc), never_sent=exc.never_sent) from None
    try:
        await send({"type": "http.response.start", "status": head.status, "headers": _to_caller(head)})
        async for part in exchange.body():
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    finally:
        exchange.close()
    return head.status


def bad_gateway(exc: UpstreamError) -> Reply:
    """The answer of ours where a worker gave none; the header tells it from the server's own answers."""
    error = {"type": "bad_gateway", "message": f"the worker gave no answer: {exc}"}
    return Reply.json({"error": error}, status=502, headers=(("x-unigpu-error", "bad_gateway"),))


def _target(call: HttpCall) -> str:
    if call.target:
        return call.target
    return quote(call.path or "/", safe="/:@!$&'()*+,;=~-._") + (f"?{urlencode(call.query)}" if call.query else "")


def _to_worker(call: HttpCall, address: tuple[str, int]) -> list[tuple[str, str]]:
    own = _HOP | {"host", "expect"}
    kept = [(name, value) for name, value in call.headers.items() if name not in own]
    return [("host", f"{address[0]}:{address[1]}"), *kept]


def _to_caller(head: Head) -> list[tuple[bytes, bytes]]:
    # The length is the worker's word about the bytes that follow, so that one goes through.
    # x-unigpu-error is how our own errors are told from the server's, so a server cannot say it.
    hop = (_HOP - {"content-length"}) | {"x-unigpu-error"}
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in head.headers if name not in hop]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
