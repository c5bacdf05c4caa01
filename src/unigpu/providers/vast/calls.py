"""`invoke` and `stream` over the two hops: what a worker's answers mean.

PyWorker passes the model server's answer on as it is, and says little by itself: 401 where the signature is wrong, 422
for an envelope that it cannot read, 429 without a body above its queue, 404 and 405 for a path that it does not have,
500 without a body where the model server gave no answer (vastai 1.9.1, ``serverless/server/lib/backend.py``; observed).
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final

from unigpu.driver import (
    DeploymentInfo,
    Invocation,
    Io,
    Response,
    Result,
    StreamResponse,
    Timing,
    check,
    mapping,
    shaped,
)
from unigpu.errors import (
    ConfigurationError,
    InvalidRequestError,
    InvalidResponseError,
    JobFailed,
    StreamInterrupted,
    TransportError,
)

from .api import VastAPI
from .routing import CALL, Route
from .wire import PROVIDER, OutputWire

INVOKE: Final = "/invoke"
_STREAMS: Final = (("accept", "application/x-ndjson"),)
_LONGEST_LINE: Final = 32 * 1024 * 1024
_GATEWAY: Final = frozenset({502, 504})


def is_own(info: DeploymentInfo) -> bool:
    """Whether unigpu's worker answers behind PyWorker."""
    return info.worker_protocol != "foreign"


async def invoke(api: VastAPI, io: Io, info: DeploymentInfo, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    route = Route(api, io, info, call.start_deadline, call.deadline)
    path, payload = _payload(info, call, stream=False)
    while True:
        url, signed = await route.next()
        sent = io.now()
        try:
            reply = await io.send(route.request(url, path, signed, payload))
        except TransportError as exc:
            await route.unreached(url, exc, idempotent=call.idempotent)
            continue
        if not await again(route, reply, idempotent=call.idempotent):
            return _result(route, reply, sent, own=is_own(info))


async def stream(api: VastAPI, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
    """As `unigpu.driver.Streams.stream`. Leaving closes the connection, which ends the call on the worker."""
    route = Route(api, io, info, call.start_deadline, call.deadline)
    path, payload = _payload(info, call, stream=True)
    said: Response | None = None
    while said is None or await again(route, said, idempotent=call.idempotent):
        async with AsyncExitStack() as stack:
            reply = await route.open(stack, path, payload, idempotent=call.idempotent, headers=_STREAMS)
            if reply.status < 300:
                async with aclosing(_chunks(route, reply, own=is_own(info))) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            said = await whole(reply)


# -- what is sent -----------------------------------------------------------------------------------------------------


def _payload(info: DeploymentInfo, call: Invocation, *, stream: bool) -> tuple[str, Mapping[str, Any]]:
    """PyWorker takes a path and a JSON object. A header does not pass it, so streaming is asked for in the body."""
    if is_own(info):
        return info.route or INVOKE, {"input": call.input, **({"stream": True} if stream else {})}
    if info.route is None:
        raise ConfigurationError(
            f"{info.name}: its image is not unigpu's, so say where calls go.",
            provider=PROVIDER,
            deployment=info.name,
            hint='provider_options={"vast": {"route": "/generate"}}: a path that the image\'s PyWorker has.',
        )
    return info.route, {**call.input, "stream": True} if stream else call.input


# -- what comes back --------------------------------------------------------------------------------------------------


async def again(route: Route, reply: Response, *, idempotent: bool) -> bool:
    """Whether another worker must be asked; it waited for its turn then.

    Raises:
        UniGPUError: what the answer means, where it is an error.
    """
    if reply.status < 300:
        return False
    words = _words(reply)
    if reply.status == 429 or reply.status == 503:
        await route.refused(words or f"HTTP {reply.status}")
        return True
    if reply.status == 401 and not reply.content:
        await route.not_signed(reply)
        return True
    if reply.status in (400, 401, 403, 404, 405, 410, 413, 422):
        raise _wrong_call(route, reply, words)
    if reply.status in (*_GATEWAY, 500) and not reply.content:
        raise route.lost(f"HTTP {reply.status} without a word", operation=reply.operation)
    error = _error_of(reply)
    if error is not None:
        raise _failed(route, error)
    if idempotent:
        raise route.lost(f"HTTP {reply.status}{': ' + words if words else ''}", operation=reply.operation)
    check(reply, PROVIDER, deployment=route.info.name, maybe_executed=True)
    raise AssertionError("unreachable: a status from 300 on is an error")


def _result(route: Route, reply: Response, sent: float, *, own: bool) -> Result:
    if not own:
        took = route.io.now() - sent
        return Result(output=reply.json(), timing=Timing(total=took, source="client"))
    wire = shaped(OutputWire, reply.json(), reply.operation)
    if wire.error is not None:
        raise _failed(route, wire.error)
    return Result(output=wire.output, timing=Timing(execution=wire.execution_s, source="execution: worker"))


async def _chunks(route: Route, reply: StreamResponse, *, own: bool) -> AsyncGenerator[Any]:
    """Values of a stream: unigpu's lines with an end, or a model server's events (SSE, lines of JSON).

    Raises:
        StreamInterrupted: unigpu's worker always says the end; without it the stream broke.
        JobFailed: the handler failed.
    """
    ended = False
    try:
        async with aclosing(_lines(reply)) as lines:
            async for text in lines:
                data = text.removeprefix("data:").strip()
                if not data or text.startswith(":"):
                    continue
                try:
                    value: object = json.loads(data)
                except (ValueError, RecursionError):
                    if own:
                        raise _interrupted(route, "a line is no JSON") from None
                    continue  # "[DONE]", "event: …": what frames the events is no value
                if not own:
                    yield value
                    continue
                line = mapping(value)
                if "chunk" in line:
                    yield line["chunk"]
                elif "error" in line:
                    raise _failed(route, mapping(line["error"]))
                elif line.get("done") is True:
                    ended = True
                    break
                else:
                    raise _interrupted(route, "a line has no chunk")
    except TransportError as exc:
        if isinstance(exc, StreamInterrupted):
            raise
        if route.is_late(exc):
            raise route.late(ran=True) from exc
        raise _interrupted(route, exc.message) from exc
    if own and not ended:
        raise _interrupted(route, "it ended without its last line")


async def _lines(reply: StreamResponse) -> AsyncGenerator[str]:
    rest = bytearray()  # grows in place: a long line comes in thousands of pieces
    pieces = reply.chunks()
    try:
        async for piece in pieces:
            first, *others = piece.split(b"\n")
            rest += first
            for one in others:
                yield rest.decode("utf-8", "replace").rstrip("\r")
                rest = bytearray(one)
            if len(rest) > _LONGEST_LINE:
                raise InvalidResponseError("a line of the stream is too long", provider=PROVIDER, maybe_executed=True)
    finally:
        closing = getattr(pieces, "aclose", None)
        if closing is not None:
            await closing()
    if rest.strip():
        yield rest.decode("utf-8", "replace")


async def whole(reply: StreamResponse) -> Response:
    return Response(status=reply.status, headers=reply.headers, content=await reply.read(), operation=CALL)


def _failed(route: Route, error: Mapping[str, Any]) -> JobFailed:
    kind, message = str(error.get("type") or "Error"), str(error.get("message") or "no reason given")
    trace = error.get("traceback")
    return JobFailed(
        f"the call of {route.info.name} failed: {kind}: {message}",
        error_type=kind,
        error_message=message,
        traceback=trace if isinstance(trace, str) else None,
        provider=PROVIDER,
        deployment=route.info.name,
        maybe_executed=True,
    )


def _interrupted(route: Route, why: str) -> StreamInterrupted:
    return StreamInterrupted(
        f"the stream of {route.info.name} broke off: {why}",
        provider=PROVIDER,
        operation=CALL,
        deployment=route.info.name,
        maybe_executed=True,
    )


def _error_of(reply: Response) -> Mapping[str, Any] | None:
    """``{"error": {"type", "message"}}``: the form of unigpu's worker."""
    body = body_of(reply)
    error = mapping(body.get("error"))
    return error if "type" in error else None


def _words(reply: Response) -> str:
    body = body_of(reply)
    error: Any = body.get("error") or body.get("detail") or body.get("message") or body.get("msg")
    if mapping(error):
        error = mapping(error).get("message")
    if isinstance(error, str):
        return error[:300]
    return reply.content[:300].decode("utf-8", "replace").strip()


def body_of(reply: Response) -> Mapping[str, Any]:
    try:
        found: object = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return mapping(found)


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
