"""The worker's HTTP contract, as an ASGI app.

* ``GET /ping``: 204 loading, 200 ready, 503 draining or expired.
* ``POST /invoke`` with ``{"input": {...}}``: always 200 once the handler runs, with ``{"output", "execution_s"}`` or
  ``{"error": {"type", "message"}}``: a handler's failure must not look like a gateway's. The type is then the name of
  an exception: the handler's own, or ``OutputNotJSON``, ``ExecutionTimeout``, ``WorkerStopped``.
* Refusals, before anything runs, have types in lower case: 429 ``busy``; 503 ``loading``, ``draining``, ``expired``,
  with ``Retry-After``; 400 ``bad_request``; 401 ``unauthorized``; 404 ``not_found``; 405 ``method_not_allowed``.
* ``Accept: application/x-ndjson``: a line a chunk, and a last line ``{"done": true}`` or ``{"error"}``; the
  last line says ``"single": true`` where the handler returned one value instead of yielding some.
* ``POST`` to any other path: the same when the body is exactly ``{"input": {...}}``; otherwise the body is the input
  and the reply is the bare output. A bare reply cannot hold an error apart from an output, so there a failure is
  500 with ``{"error"}`` (platforms that push raw bodies take any 2xx for success).
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unigpu.worker._call import Call, Chunk, Done, Failed
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import parse_seconds
from unigpu.worker._strict_json import BadJSON, decode

NDJSON = "application/x-ndjson"
_REFUSALS = {"busy": 429, "loading": 503, "draining": 503, "expired": 503}
_RETRY_AFTER = {"busy": "1", "loading": "2", "draining": "1"}
_PING = {"loading": 204, "ready": 200, "draining": 503, "expired": 503}


@dataclass(frozen=True, slots=True)
class _CallRequest:
    value: dict[str, Any]
    raw: bool


class _BadRequest(Exception):
    pass


def app(worker: WorkerServer) -> App:
    """The ASGI app over ``worker``."""
    return App(worker)


class App:
    """ASGI 3; it has no lifespan: whoever serves it starts and drains the worker."""

    def __init__(self, worker: WorkerServer) -> None:
        self._worker = worker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the worker speaks HTTP only, not {scope['type']}")
        request = Request(scope, receive)
        if request.scope["path"] == "/ping" and request.method in ("GET", "HEAD"):
            await self._reply(_PING[self._worker.state], None)(scope, receive, send)
            return
        refused = self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return
        try:
            ask = await _read(request)
            timeout = _timeout(request)
        except _BadRequest as error:
            await self._reply(400, _error("bad_request", str(error)))(scope, receive, send)
            return
        except ClientDisconnect:
            return
        # Asked after the body is here: reading it may have taken a while.
        while self._waits(refusal := self._worker.refusal()):
            if not await self._turn(receive):
                return
        if refusal is not None:
            await self._refusal(refusal)(scope, receive, send)
            return
        stream = NDJSON in request.headers.get("accept", "").lower()
        job = request.headers.get("x-unigpu-job", "-")[:128]
        call = self._worker.call(ask.value, job=job, timeout=timeout, stream=stream)
        watch = asyncio.get_running_loop().create_task(_stop_when_gone(call, receive))
        try:
            if stream:
                await self._stream(call, send)
            else:
                await self._answer(call, ask, scope, receive, send)
        finally:
            watch.cancel()
            call.stop(_GONE)

    def _refuse(self, request: Request) -> Response | None:
        token = self._worker.settings.token
        if token is not None:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return self._reply(401, _error("unauthorized", "Send the deployment's token as a bearer token."))
        path = request.scope["path"]
        if request.method != "POST" or path == "/ping":
            if path in ("/invoke", "/", "/ping"):
                reply = self._reply(405, _error("method_not_allowed", f"{path} does not take {request.method}."))
                reply.headers["allow"] = "GET, HEAD" if path == "/ping" else "POST"
                return reply
            return self._reply(404, _error("not_found", "This worker has GET /ping and POST /invoke."))
        refusal = self._worker.refusal()
        return None if refusal is None or self._waits(refusal) else self._refusal(refusal)

    async def _turn(self, receive: Receive) -> bool:
        """Wait until another call may run; whether the caller is still there."""
        turn = self._worker.turn()  # at once: a slot that is freed before would go unnoticed
        gone = asyncio.get_running_loop().create_task(_gone(receive))
        stays = False
        try:
            await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
            stays = not gone.done()
            return stays
        finally:
            gone.cancel()
            if not turn.cancel() and not stays:
                self._worker.pass_turn()

    def _waits(self, refusal: Failed | None) -> bool:
        # Where a platform pushes calls, a refusal would be the call's failure, so it waits for its turn.
        return refusal is not None and refusal.type == "busy" and self._worker.settings.pushed

    def _refusal(self, refusal: Failed) -> Response:
        reply = self._reply(_REFUSALS[refusal.type], _error(refusal.type, refusal.message))
        if (after := _RETRY_AFTER.get(refusal.type)) is not None:
            reply.headers["retry-after"] = after
        return reply

    def _reply(self, status: int, body: Mapping[str, Any] | bytes | None) -> Response:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"cache-control": "no-store", **self._closing()}
        return Response(content, status, headers, "application/json" if content else None)

    def _closing(self) -> dict[str, str]:
        # A worker that leaves must not be found again through a kept connection.
        return {"connection": "close"} if self._worker.state == "draining" else {}

    async def _answer(self, call: Call, ask: _CallRequest, scope: Scope, receive: Receive, send: Send) -> None:
        outcome = await call.next()
        if isinstance(outcome, Failed):
            if outcome is _GONE:
                return
            status = 500 if ask.raw else 200
            await self._reply(status, {"error": _failed(outcome), **_timing(outcome)})(scope, receive, send)
            return
        if not isinstance(outcome, Done) or outcome.output is None:
            raise RuntimeError("a collected call gives one output")
        body = outcome.output
        if not ask.raw:
            body = b'{"output":%b,"execution_s":%b}' % (body, str(outcome.execution_s).encode())
        await self._reply(200, body)(scope, receive, send)

    async def _stream(self, call: Call, send: Send) -> None:
        headers = {"content-type": NDJSON, "cache-control": "no-store", "x-accel-buffering": "no", **self._closing()}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        last = False
        while not last:
            event = await call.next()
            last = not isinstance(event, Chunk)
            await send({"type": "http.response.body", "body": _line(event), "more_body": not last})


_GONE = Failed("Cancelled", "The caller closed the connection.")


def _line(event: Chunk | Done | Failed) -> bytes:
    if isinstance(event, Chunk):
        return b'{"chunk":%b}\n' % event.json
    if isinstance(event, Done):
        single = {"single": True} if event.single else {}
        return json.dumps({"done": True, **single, **_timing(event)}).encode() + b"\n"
    return json.dumps({"error": _failed(event), **_timing(event)}).encode() + b"\n"


def _error(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"type": kind, "message": message}}


def _failed(outcome: Failed) -> dict[str, str]:
    body = {"type": outcome.type, "message": outcome.message}
    if outcome.traceback is not None:
        body["traceback"] = outcome.traceback
    return body


def _timing(outcome: Done | Failed) -> dict[str, float]:
    return {} if outcome.execution_s is None else {"execution_s": outcome.execution_s}


async def _read(request: Request) -> _CallRequest:
    try:
        body = decode(await request.body())
    except BadJSON as error:
        raise _BadRequest(f"The body is not JSON: {error}.") from None
    if isinstance(body, dict):
        value = cast("dict[str, Any]", body)
        inner = value.get("input")
        if isinstance(inner, dict) and len(value) == 1:
            return _CallRequest(cast("dict[str, Any]", inner), raw=False)
        if request.scope["path"] != "/invoke":
            return _CallRequest(value, raw=True)
    raise _BadRequest('The body must be {"input": {...}}, a JSON object with one object in it.')


def _timeout(request: Request) -> float | None:
    text = request.headers.get("x-unigpu-timeout")
    if text is None:
        return None
    value = parse_seconds(text)
    if not value:
        raise _BadRequest("X-Unigpu-Timeout must be a number of seconds above 0.")
    return value


async def _stop_when_gone(call: Call, receive: Receive) -> None:
    await _gone(receive)
    call.stop(_GONE)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
