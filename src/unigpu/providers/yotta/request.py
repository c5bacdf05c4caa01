"""The verb `request`: to the user's own server, through the gateway of an ALB endpoint or at a pod's own address."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Final

from unigpu.driver import HTTPCall, StreamResponse
from unigpu.errors import TransportError, UnsupportedError

from .api import PROVIDER
from .gateway import Gateway

_OPERATION: Final = "yotta.gateway.request"


@contextlib.asynccontextmanager
async def request(gateway: Gateway, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`."""
    gateway.must_be_reachable("request()")
    where = await gateway.address()
    taken = {name for name, _ in where.headers}
    if any(name in taken for name, _ in call.headers):
        raise UnsupportedError(
            "an Authorization header of your own is not possible: Yotta's gateway takes it for the account's key.",
            provider=PROVIDER,
            deployment=gateway.info.name,
            capability="request",
            hint="Use another header, as in X-Api-Key.",
        )
    url, headers = f"{where.origin}{call.target}", (*call.headers, *where.headers)
    opening = gateway.io.stream(call.request(url, info=gateway.info, operation=_OPERATION, headers=headers))
    try:
        reply = await opening.__aenter__()
    except TransportError as exc:
        if exc.never_sent:
            await gateway.must_run()
        raise
    try:
        await gateway.judge(reply.status, idempotent=call.idempotent)
        yield reply
    finally:
        await opening.__aexit__(None, None, None)
