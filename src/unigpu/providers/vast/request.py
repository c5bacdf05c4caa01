"""The verb `request`: to a server behind PyWorker, over the two hops, and to the port of an instance.

unigpu's PyWorker takes any request in one JSON object and makes it inside the container; any other passes a POST with
a JSON object on to the server, at its own paths, and no header.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any, Final, cast

from unigpu.driver import CallClass, DeploymentInfo, Headers, HTTPCall, Io, Request, Response, StreamResponse
from unigpu.errors import InvalidResponseError, NoWorkerReady, TransportError, UnsupportedError

from .api import VastAPI
from .calls import again, body_of, whole
from .options import TUNNEL
from .routing import Route
from .wire import PROVIDER

MARK: Final = "x-unigpu-http"


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
            said = await whole(reply)
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
    async with contextlib.AsyncExitStack() as stack:
        try:
            reply = await stack.enter_async_context(io.stream(asked))
        except TransportError as exc:
            if exc.never_sent and exc.retryable and io.now() < call.deadline:
                raise _no_answer(info, exc.message) from exc
            raise
        yield reply


@dataclass(frozen=True, slots=True)
class BufferedReply:
    """A reply that was read already, as a stream."""

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


def _packed(call: HTTPCall) -> dict[str, Any]:
    """A request for unigpu's PyWorker, which makes it inside the container (``unigpu/worker/pyworker.py``)."""
    content = base64.b64encode(call.content or b"").decode()
    return {"method": call.method, "target": call.target, "headers": list(map(list, call.headers)), "content": content}


def _is_pyworkers(reply: Response) -> bool:
    """Whether PyWorker says that it cannot read the envelope: else a 422 is the server's own."""
    body = body_of(reply)
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
