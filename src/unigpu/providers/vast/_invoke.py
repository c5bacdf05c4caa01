"""`invoke`, `stream` and `request` over the two hops: what a worker's answers mean.

PyWorker passes the model server's answer on as it is, and says little by itself: 401 where the signature is wrong, 422
for an envelope that it cannot read, 429 without a body above its queue, 404 and 405 for a path that it does not have,
500 without a body where the model server gave no answer (vastai 1.9.1, ``serverless/server/lib/backend.py``; observed).
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    Headers,
    HTTPCall,
    Invocation,
    Io,
    Request,
    Response,
    Result,
    StreamResponse,
    Timing,
    check,
)
from unigpu.errors import (
    ConfigurationError,
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    StreamInterrupted,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerLost,
)

from ._calls import Way, envelope, is_late, to_worker, wrong_call
from ._line import Line
from ._options import TUNNEL
from ._wire import PROVIDER, OutputWire, mapping, shaped

INVOKE: Final = "/invoke"
MARK: Final = "x-unigpu-http"
NDJSON: Final = "application/x-ndjson"
_LONGEST_LINE: Final = 32 * 1024 * 1024
_GATEWAY: Final = frozenset({502, 504})


def is_own(info: DeploymentInfo) -> bool:
    """Whether unigpu's worker answers behind PyWorker."""
    return info.worker_protocol != "foreign"


async def invoke(line: Line, io: Io, info: DeploymentInfo, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    way = Way(line, io, info, call.start_deadline, call.deadline)
    path, payload = _payload(info, call, stream=False)
    while True:
        url, route = await way.next()
        request = to_worker(way, url, path, envelope(route, payload, way.secrets))
        sent = io.now()
        try:
            reply = await io.send(request)
        except TransportError as exc:
            if exc.never_sent and not is_late(way, exc):
                await way.unreached(url, exc)
                continue
            raise _broken(way, exc, call.idempotent) from exc
        if await _again(way, reply, idempotent=call.idempotent):
            continue
        return _result(way, reply, sent, own=is_own(info))


async def stream(line: Line, io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
    """As `unigpu.driver.Streams.stream`. Leaving closes the connection, which ends the call on the worker."""
    way = Way(line, io, info, call.start_deadline, call.deadline)
    path, payload = _payload(info, call, stream=True)
    while True:
        url, route = await way.next()
        request = to_worker(way, url, path, envelope(route, payload, way.secrets), headers=(("accept", NDJSON),))
        opening = io.stream(request)
        try:
            reply = await opening.__aenter__()
        except TransportError as exc:
            if exc.never_sent and not is_late(way, exc):
                await way.unreached(url, exc)
                continue
            raise _broken(way, exc, call.idempotent) from exc
        try:
            if reply.status >= 300:
                said = await _whole(reply, request)
                if await _again(way, said, idempotent=call.idempotent):
                    continue
                raise AssertionError("unreachable: an answer of that status is an error, or asks for another worker")
            async with aclosing(_chunks(way, reply, own=is_own(info))) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        finally:
            await opening.__aexit__(None, None, None)


@contextlib.asynccontextmanager
async def request(line: Line, io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`, for an endpoint. Any request, where unigpu's PyWorker is in the image; any
    other takes POST with a JSON object, at its own paths, and passes no header on."""
    tunnelled = info.route == TUNNEL
    path, payload = (TUNNEL, _packed(call)) if tunnelled else (call.target, _posted(info, call))
    way = Way(line, io, info, min(call.deadline, io.now() + call.hold), call.deadline)
    while True:
        url, route = await way.next()
        asked = to_worker(way, url, path, envelope(route, payload, way.secrets))
        opening = io.stream(asked)
        try:
            reply = await opening.__aenter__()
        except TransportError as exc:
            if exc.never_sent and not is_late(way, exc):
                await way.unreached(url, exc)
                continue
            raise _broken(way, exc, call.idempotent) from exc
        try:
            if MARK in reply.headers if tunnelled else reply.status not in (401, 422, 429) and reply.status < 500:
                yield reply
                return
            said = await _whole(reply, asked)
        finally:
            await opening.__aexit__(None, None, None)
        if said.content and not tunnelled and not _is_pyworkers(said):
            yield Whole(said)  # the server's own answer
            return
        if not await _again(way, said, idempotent=call.idempotent):
            raise InvalidResponseError(
                f"{info.name}: not unigpu's PyWorker answers there (HTTP {said.status})",
                provider=PROVIDER,
                operation=said.operation,
                deployment=info.name,
                maybe_executed=True,
                hint='The image must be made as `python -m unigpu image dockerfile --command "..."` prints it.',
            )


@contextlib.asynccontextmanager
async def pod_request(io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """A request to an instance's own port: plain http to a public address, with the caller's headers and no others.

    Raises:
        NoWorkerReady: nobody listens there (yet).
    """
    if info.url is None:
        raise _no_answer(info, "it has no public address yet")
    asked = Request(
        method=call.method,
        url=f"{info.url}{call.target}",
        operation="vast.http",
        headers=call.headers,
        content=call.content,
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        read_timeout=call.read_timeout,
        deployment=info.name,
        reroutes=True,
        foreign=True,
    )
    opening = io.stream(asked)
    try:
        reply = await opening.__aenter__()
    except TransportError as exc:
        if exc.never_sent and exc.retryable and io.now() < call.deadline:
            raise _no_answer(info, exc.message) from exc
        raise
    try:
        yield reply
    finally:
        await opening.__aexit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Whole:
    """A reply that was read already, as one that is on its way."""

    response: Response

    @property
    def status(self) -> int:
        return self.response.status

    @property
    def headers(self) -> Headers:
        return self.response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.response.content:
            yield self.response.content

    async def read(self) -> bytes:
        return self.response.content


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


def _packed(call: HTTPCall) -> dict[str, Any]:
    """A request for unigpu's PyWorker, which makes it inside the container (``unigpu/worker/pyworker.py``)."""
    content = base64.b64encode(call.content or b"").decode()
    return {"method": call.method, "target": call.target, "headers": list(map(list, call.headers)), "content": content}


def _is_pyworkers(reply: Response) -> bool:
    """Whether PyWorker says that it cannot read the envelope: else a 422 is the server's own."""
    body = _body(reply)
    return reply.status == 422 and (body == {"error": "invalid JSON"} or "auth_data" in body or "payload" in body)


def _posted(info: DeploymentInfo, call: HTTPCall) -> dict[str, Any]:
    path = call.target.partition("?")[0]
    if call.method.upper() != "POST" or call.target != path:
        raise _not_passed(info, f"{call.method.upper()} {path}" + ("?…" if call.target != path else ""))
    try:
        body: object = json.loads(call.content or b"")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _not_passed(info, f"a body to {path} that is no JSON object")
    return cast("dict[str, Any]", body)


def _not_passed(info: DeploymentInfo, what: str) -> UnsupportedError:
    return UnsupportedError(
        f"Vast's PyWorker passes {what} of {info.name} on to no server: it takes POST with a JSON object, no query.",
        capability="request",
        provider=PROVIDER,
        deployment=info.name,
        hint="With command= in the spec, and an image as `python -m unigpu image dockerfile --command` prints it, it "
        'takes any request; so does kind="pod".',
    )


# -- what comes back --------------------------------------------------------------------------------------------------


async def _again(way: Way, reply: Response, *, idempotent: bool) -> bool:
    """Whether another worker must be asked; it waited for its turn then.

    Raises:
        UniGPUError: what the answer means, where it is an error.
    """
    if reply.status < 300:
        return False
    words = _words(reply)
    if reply.status == 429 or reply.status == 503:
        await way.refused(words or f"HTTP {reply.status}")
        return True
    if reply.status == 401 and not reply.content:
        await way.not_signed(reply)
        return True
    if reply.status in (400, 401, 403, 404, 405, 410, 413, 422):
        raise wrong_call(way, reply, words)
    if reply.status in (*_GATEWAY, 500) and not reply.content:
        raise _lost(way, f"HTTP {reply.status} without a word", operation=reply.operation)
    error = _error_of(reply)
    if error is not None:
        raise _failed(way, error)
    if idempotent:
        raise _lost(way, f"HTTP {reply.status}{': ' + words if words else ''}", operation=reply.operation)
    check(reply, PROVIDER, deployment=way.info.name, maybe_executed=True)
    raise AssertionError("unreachable: a status from 300 on is an error")


def _result(way: Way, reply: Response, sent: float, *, own: bool) -> Result:
    if not own:
        took = way.io.now() - sent
        return Result(output=reply.json(), timing=Timing(total=took, source="client"))
    wire = shaped(OutputWire, reply.json(), reply.operation)
    if wire.error is not None:
        raise _failed(way, wire.error)
    return Result(output=wire.output, timing=Timing(execution=wire.execution_s, source="execution: worker"))


async def _chunks(way: Way, reply: StreamResponse, *, own: bool) -> AsyncGenerator[Any]:
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
                        raise _interrupted(way, "a line is no JSON") from None
                    continue  # "[DONE]", "event: …": what frames the events is no value
                if not own:
                    yield value
                    continue
                line = mapping(value)
                if "chunk" in line:
                    yield line["chunk"]
                elif "error" in line:
                    raise _failed(way, mapping(line["error"]))
                elif line.get("done") is True:
                    ended = True
                    break
                else:
                    raise _interrupted(way, "a line has no chunk")
    except TransportError as exc:
        if isinstance(exc, StreamInterrupted):
            raise
        if is_late(way, exc):
            raise way.late(ran=True) from exc
        raise _interrupted(way, exc.message) from exc
    if own and not ended:
        raise _interrupted(way, "it ended without its last line")


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


async def _whole(reply: StreamResponse, asked: Request) -> Response:
    return Response(
        status=reply.status, headers=reply.headers, content=await reply.read(), operation=asked.operation
    )  # fmt: skip


def _broken(way: Way, exc: TransportError, idempotent: bool) -> UniGPUError:
    """After a worker had it, or at the deadline."""
    if is_late(way, exc):
        return way.late(ran=not exc.never_sent)
    if idempotent:
        return _lost(way, exc.message, operation=exc.operation)  # which is asked again
    return exc


def _lost(way: Way, why: str, *, operation: str | None) -> WorkerLost:
    return WorkerLost(
        f"a worker of {way.info.name} gave no answer: {why}",
        provider=PROVIDER,
        operation=operation,
        deployment=way.info.name,
        maybe_executed=True,
    )


def _no_answer(info: DeploymentInfo, why: str) -> NoWorkerReady:
    return NoWorkerReady(
        f"the instance {info.name} does not answer on port {info.port}: {why}",
        state=None,
        reason=why,
        provider=PROVIDER,
        operation="vast.http",
        deployment=info.name,
        maybe_executed=False,
    )


def _failed(way: Way, error: Mapping[str, Any]) -> JobFailed:
    kind, message = str(error.get("type") or "Error"), str(error.get("message") or "no reason given")
    trace = error.get("traceback")
    return JobFailed(
        f"the call of {way.info.name} failed: {kind}: {message}",
        error_type=kind,
        error_message=message,
        traceback=trace if isinstance(trace, str) else None,
        provider=PROVIDER,
        deployment=way.info.name,
        maybe_executed=True,
    )


def _interrupted(way: Way, why: str) -> StreamInterrupted:
    return StreamInterrupted(
        f"the stream of {way.info.name} broke off: {why}",
        provider=PROVIDER,
        operation="vast.job.call",
        deployment=way.info.name,
        maybe_executed=True,
    )


def _error_of(reply: Response) -> Mapping[str, Any] | None:
    """``{"error": {"type", "message"}}``: the form of unigpu's worker."""
    body = _body(reply)
    error = mapping(body.get("error"))
    return error if "type" in error else None


def _words(reply: Response) -> str:
    body = _body(reply)
    error: Any = body.get("error") or body.get("detail") or body.get("message") or body.get("msg")
    if mapping(error):
        error = mapping(error).get("message")
    if isinstance(error, str):
        return error[:300]
    return reply.content[:300].decode("utf-8", "replace").strip()


def _body(reply: Response) -> Mapping[str, Any]:
    try:
        found: object = json.loads(reply.content)
    except (ValueError, RecursionError):
        return {}
    return mapping(found)
