"""The verb `request`: to a server behind PyWorker, over the two hops, and to the port of an instance.

unigpu's PyWorker takes any request in one JSON object and makes it inside the container; any other passes a POST with
a JSON object on to the server, at its own paths, and no header.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any, cast

from unigpu.driver import (
    MARK,
    BufferedReply,
    DeploymentInfo,
    HTTPCall,
    Io,
    Response,
    StreamResponse,
    buffered,
    json_object,
)
from unigpu.errors import InvalidResponseError, NoWorkerReady, TransportError, UnsupportedError

from .api import VastAPI
from .calls import again
from .options import TUNNEL
from .routing import CALL, Route
from .wire import PROVIDER


@contextlib.asynccontextmanager
async def request(api: VastAPI, io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`, for an endpoint. Any request, where unigpu's PyWorker is in the image; any
    other takes POST with a JSON object, at its own paths, and passes no header on."""
    tunnelled = info.route == TUNNEL
    path, payload = (TUNNEL, _packed(call)) if tunnelled else (call.target, _posted(info, call))
    route = Route(api, io, info, min(call.deadline, io.now() + call.hold), call.deadline)
    while True:
        async with contextlib.AsyncExitStack() as stack:
            reply = await route.open(stack, path, payload, idempotent=call.idempotent)
            if MARK in reply.headers if tunnelled else reply.status not in (401, 422, 429) and reply.status < 500:
                yield reply
                return
            said = await buffered(reply, CALL)
        if said.content and not tunnelled and not _is_pyworkers(said):
            yield BufferedReply(said)  # the server's own answer
            return
        if not await again(route, said, idempotent=call.idempotent):
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
        NoWorkerReady: its port does not answer (yet).
    """
    if info.url is None:
        raise _no_answer(info, "it has no public address yet")
    asked = call.request(f"{info.url}{call.target}", info=info, operation="vast.http", reroutes=True)
    async with contextlib.AsyncExitStack() as stack:
        try:
            reply = await stack.enter_async_context(io.stream(asked))
        except TransportError as exc:
            if exc.never_sent and exc.retryable and io.now() < call.deadline:
                raise _no_answer(info, exc.message) from exc
            raise
        yield reply


def _packed(call: HTTPCall) -> dict[str, Any]:
    """A request for unigpu's PyWorker, which makes it inside the container (``unigpu/worker/pyworker.py``)."""
    content = base64.b64encode(call.content or b"").decode()
    return {"method": call.method, "target": call.target, "headers": list(map(list, call.headers)), "content": content}


def _is_pyworkers(reply: Response) -> bool:
    """Whether PyWorker says that it cannot read the envelope: else a 422 is the server's own."""
    body = json_object(reply.content)
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
