"""An emulator in memory as an httpx transport, for `Client` and `AsyncClient` alike: no socket, any clock.

Everything above the connections is the real thing: drivers, retries, deadlines, JSON. A request that the cloud holds
lets the cloud's clock jump until there is an answer, or until the caller's read timeout is over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

import anyio.lowlevel
import httpx

from unigpu.emulator.contract import Dropped, EmulatedAPI, HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud

OnCall = Callable[[str, str], object]
"""Called with ``"before"`` or ``"after"`` and the operation; what it raises, the caller gets."""
Change = Callable[[str, Reply], Reply]
"""Gets the operation and a reply, and gives the reply that arrives."""


class CloudTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The way to one emulator of a `VirtualCloud`.

    Attributes:
        calls: Every operation that arrived, in order.
        on_call, change: See their types; ``None``: nothing.
    """

    def __init__(self, cloud: VirtualCloud, api: EmulatedAPI) -> None:
        self._cloud = cloud
        self._api = api
        self.calls: list[str] = []
        self.on_call: OnCall | None = None
        self.change: Change | None = None

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.BaseTransport.handle_request`."""
        request.read()
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """As `httpx.AsyncBaseTransport.handle_async_request`."""
        await request.aread()
        await anyio.lowlevel.checkpoint()  # a real request can be cancelled before it is sent
        response = self._answer(request)
        await anyio.lowlevel.checkpoint()  # and before its answer is there
        return response

    def _answer(self, request: httpx.Request) -> httpx.Response:
        call = _http_call(request)
        operation = self._api.operation(call) or f"{call.method} {call.path}"
        self.calls.append(operation)
        self._tell("before", operation)
        timeouts = cast("dict[str, float | None]", request.extensions.get("timeout", {}))
        patience = timeouts.get("read")
        reply = self._cloud.call(call, patience=3600.0 if patience is None else patience)
        self._tell("after", operation)
        if isinstance(reply, Dropped):
            if reply.how == "timeout":
                raise httpx.ReadTimeout("no answer", request=request)
            raise httpx.RemoteProtocolError("closed without a reply", request=request)
        if self.change is not None:
            reply = self.change(operation, reply)
        return httpx.Response(reply.status, headers=list(reply.headers), content=reply.body, request=request)

    def _tell(self, when: str, operation: str) -> None:
        if self.on_call is not None:
            self.on_call(when, operation)


def _http_call(request: httpx.Request) -> HttpCall:
    url = request.url
    query: Any = parse_qsl(url.query.decode("ascii"), keep_blank_values=True)
    return HttpCall(
        method=request.method,
        path=unquote(url.path) or "/",
        query=dict(query),
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.content,
        host=url.host,
        scheme=url.scheme,
        target=url.raw_path.decode("ascii"),
    )
