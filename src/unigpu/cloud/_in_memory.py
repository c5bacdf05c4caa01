"""Requests of ours as calls of a face, and back: what stands between `MemoryIo` and an engine."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from unigpu._io.contract import UNSET, Headers, Request, Response
from unigpu.errors import TransportError

from .contract import Dropped, HttpCall, Reply


def http_call(request: Request) -> HttpCall:
    """A request as a face sees it."""
    parts = urlsplit(request.url)
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), *request.params]
    headers = dict(Headers(request.headers))
    body = request.content or b""
    if request.json is not UNSET:
        body = Reply.json(request.json).body
        headers.setdefault("content-type", "application/json")
    query = urlencode(pairs)
    return HttpCall(
        method=request.method,
        path=unquote(parts.path) or "/",
        query=dict(pairs),
        headers=headers,
        body=body,
        host=parts.hostname or "",
        scheme=parts.scheme,
        target=(parts.path or "/") + (f"?{query}" if query else ""),
    )


def response(answer: Reply | Dropped, request: Request) -> Response | None:
    """The reply that arrives; ``None``: none ever does.

    Raises:
        TransportError: the connection was closed without one.
    """
    if isinstance(answer, Reply):
        return Response(
            status=answer.status, headers=Headers(answer.headers), content=answer.body, operation=request.operation
        )
    if answer.how == "timeout":
        return None
    raise TransportError(f"{request.operation}: the connection was closed without a reply", operation=request.operation)
