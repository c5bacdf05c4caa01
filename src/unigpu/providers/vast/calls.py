"""`invoke` and `stream` over the two hops: what a worker's answers mean.

PyWorker passes the model server's answer on as it is, and says little by itself: 401 where the signature is wrong, 422
for an envelope that it cannot read, 429 without a body above its queue, 404 and 405 for a path that it does not have,
500 without a body where the model server gave no answer (vastai 1.9.1, ``serverless/server/lib/backend.py``; observed).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from unigpu.driver import (
    INVOKE,
    NDJSON,
    DeploymentInfo,
    Invocation,
    Io,
    Response,
    Result,
    buffered,
    check,
    is_own,
    job_error,
    json_object,
    mapping,
    payload,
    words_of,
)
from unigpu.errors import ConfigurationError, InvalidRequestError, StreamInterrupted, TransportError

from .api import VastAPI
from .routing import CALL, Route
from .wire import PROVIDER

_STREAMS: Final = (("accept", NDJSON),)


async def invoke(api: VastAPI, io: Io, info: DeploymentInfo, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    route = Route(api, io, info, call.start_deadline, call.deadline)
    path, body = _path_of(info), payload(call, own=is_own(info))
    while True:
        url, signed = await route.next()
        sent = io.now()
        try:
            reply = await io.send(route.request(url, path, signed, body))
        except TransportError as exc:
            await route.unreached(url, exc, idempotent=call.idempotent)
            continue
        if not await again(route, reply, idempotent=call.idempotent):
            return route.worker.result(reply, total=io.now() - sent)


async def stream(api: VastAPI, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
    """As `unigpu.driver.Streams.stream`. Leaving closes the connection, which ends the call on the worker."""
    route = Route(api, io, info, call.start_deadline, call.deadline)
    path, body = _path_of(info), payload(call, own=is_own(info), stream=True)
    said: Response | None = None
    while said is None or await again(route, said, idempotent=call.idempotent):
        async with AsyncExitStack() as stack:
            reply = await route.open(stack, path, body, idempotent=call.idempotent, headers=_STREAMS)
            if reply.status < 300:
                try:
                    async with aclosing(route.worker.chunks(reply)) as chunks:
                        async for chunk in chunks:
                            yield chunk
                except StreamInterrupted:
                    raise
                except TransportError as exc:
                    late = route.is_late(exc)
                    raise (route.late(ran=True) if late else route.worker.interrupted(exc.message)) from exc
                return
            said = await buffered(reply, CALL)


def _path_of(info: DeploymentInfo) -> str:
    """The path at which PyWorker takes a call."""
    if info.route is None and not is_own(info):
        raise ConfigurationError(
            f"{info.name}: its image is not unigpu's, so say where calls go.",
            provider=PROVIDER,
            deployment=info.name,
            hint='provider_options={"vast": {"route": "/generate"}}: a path that the image\'s PyWorker has.',
        )
    return info.route or INVOKE


async def again(route: Route, reply: Response, *, idempotent: bool) -> bool:
    """Whether another worker must be asked; it waited for its turn then.

    Raises:
        UniGPUError: what the answer means, where it is an error.
    """
    if reply.status < 300:
        return False
    words = words_of(reply)
    if reply.status in (429, 503):
        await route.refused(words or f"HTTP {reply.status}")
        return True
    if reply.status == 401 and not reply.content:
        await route.not_signed(reply)
        return True
    if reply.status in (400, 401, 403, 404, 405, 410, 413, 422):
        raise _wrong_call(route, reply, words)
    if reply.status in (500, 502, 504) and not reply.content:
        raise route.worker.lost(f"HTTP {reply.status} without a word")
    error = mapping(json_object(reply.content).get("error"))
    if "type" in error:
        raise route.worker.failed(job_error(error))
    if idempotent:
        raise route.worker.lost(f"HTTP {reply.status}{': ' + words if words else ''}")
    check(reply, PROVIDER, deployment=route.info.name, maybe_executed=True)
    raise AssertionError("unreachable: a status from 300 on is an error")


def _wrong_call(route: Route, reply: Response, words: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"a worker of {route.info.name} does not take the call: HTTP {reply.status}{': ' + words if words else ''}",
        status=reply.status,
        provider=PROVIDER,
        operation=reply.operation,
        deployment=route.info.name,
        maybe_executed=False,
        hint='The path is the one that the image\'s PyWorker has: provider_options={"vast": {"route": "/..."}}.'
        if reply.status in (404, 405)
        else None,
    )
