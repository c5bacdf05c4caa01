"""A request to the user's own server: behind a load balancer, on a queue worker's OpenAI route, or on a pod.

RunPod's edge asks for the account's key in the ``Authorization`` header, so that header is its own. A pod's proxy asks
for nothing: there the header is the caller's. The edge's own answer, when no worker took the
request, differs from a server's by its words, and lacks the header that names the worker:
https://docs.runpod.io/serverless/load-balancing/build-a-worker, .../load-balancing/overview.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final
from urllib.parse import quote

from unigpu.driver import (
    BufferedReply,
    DeploymentInfo,
    HTTPCall,
    Io,
    Request,
    Response,
    State,
    StreamResponse,
    bearer,
    buffered,
    gone,
    json_object,
    words_of,
)
from unigpu.errors import ConfigurationError, NoWorkerReady, TransportError, UniGPUError, WorkerLost

from .api import RunPodAPI
from .wire import PROVIDER

OPERATION: Final = "runpod.http"
HOLD: Final = 120.0
"""Seconds for which the edge waits for a worker: https://docs.runpod.io/serverless/load-balancing/overview."""
_WORKER: Final = "x-runpod-worker-id"
_NO_WORKER: Final = ("no workers available", "no worker available", "timed out waiting for worker")
_START_S: Final = 2.0
_GATEWAY: Final = frozenset({502, 503, 504, 524})


@contextlib.asynccontextmanager
async def request(api: RunPodAPI, io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`."""
    asked = _pod_request(info, call) if info.kind == "pod" else _edge_request(api, info, call)
    async with io.stream(asked) as reply:
        if reply.status < 400 or _WORKER in reply.headers:
            yield reply
            return
        said = await buffered(reply, OPERATION)
    error = _pod_error(said, info, idempotent=call.idempotent) if info.kind == "pod" else _edge_error(api, said, info)
    if error is not None:
        raise error
    yield BufferedReply(said)


async def start_worker(api: RunPodAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """Make the edge start a worker, without waiting for it."""
    call = HTTPCall(method="GET", target="/ping", deadline=min(deadline, io.now() + _START_S), hold=0.0)
    with contextlib.suppress(TransportError):  # it holds the request while a worker starts: that was the purpose
        async with io.stream(_edge_request(api, info, call)) as reply:
            if reply.status in (401, 403, 404):
                error = _edge_error(api, await buffered(reply, OPERATION), info)
                if error is not None and not isinstance(error, NoWorkerReady):
                    raise error


def _edge_request(api: RunPodAPI, info: DeploymentInfo, call: HTTPCall) -> Request:
    """With the account's key, to RunPod's edge.

    Raises:
        ConfigurationError: the caller gives an Authorization header, which the edge takes for its own.
    """
    if any(name.lower() == "authorization" for name, _ in call.headers):
        raise ConfigurationError(
            f"request: RunPod's edge takes the Authorization header of a request to {info.name} for the account's key.",
            provider=PROVIDER,
            deployment=info.name,
            hint="Send your own token in a header of another name.",
        )
    queue = info.details.get("type") == "QUEUE"
    base = f"{api.jobs}/{quote(info.id, safe='')}/openai" if queue else str(info.url)
    headers = (*call.headers, *bearer(api.key))
    return call.request(
        f"{base}{call.target}", info=info, operation=OPERATION, headers=headers, role="jobs", held=call.hold
    )


def _pod_request(info: DeploymentInfo, call: HTTPCall) -> Request:
    """To the pod's public proxy, with nothing of the account."""
    return call.request(f"{info.url}{call.target}", info=info, operation=OPERATION, held=call.hold)


def _edge_error(api: RunPodAPI, said: Response, info: DeploymentInfo) -> UniGPUError | None:
    """What the edge says by itself; ``None``: it is the server's own answer.

    Which of its errors carry no worker's header is documented for "no worker" only; the rest is unverified.
    """
    words = words_of(said).lower()
    if any(text in words for text in _NO_WORKER):
        return NoWorkerReady(
            f"RunPod has no worker of {info.name} for it: {words}", state=None, **_common(info, ran=False)
        )
    problem = _problem(said)
    if said.status in (401, 403) and problem:
        return api.error_of(said, deployment=info.name)
    if said.status == 404 and problem:
        return gone(info, operation=OPERATION)
    if said.status in _GATEWAY and not words:
        return _lost(said, info)
    return None


def _pod_error(said: Response, info: DeploymentInfo, *, idempotent: bool) -> UniGPUError | None:
    """What the proxy says by itself: nothing listens on that port (yet), or it took longer than 100 s.

    Where a server listened when last seen, a 502 may be a server that died with the request in hand: one that must not
    run twice is not sent again.
    """
    if said.status == 524 or (said.status == 502 and info.state is State.READY and not idempotent):
        return _lost(said, info)
    if said.status == 502:
        text = f"the pod {info.name} does not answer on port {info.port} (yet)"
        return NoWorkerReady(text, state=None, **_common(info, ran=False))
    return None


def _lost(said: Response, info: DeploymentInfo) -> WorkerLost:
    late = " within 100 s" if said.status == 524 else ""
    text = f"{info.name}: its worker gave no answer{late} (HTTP {said.status} of RunPod's proxy)"
    return WorkerLost(text, **_common(info, ran=True))


def _common(info: DeploymentInfo, *, ran: bool) -> dict[str, Any]:
    return {"provider": PROVIDER, "operation": OPERATION, "deployment": info.name, "maybe_executed": ran}


def _problem(said: Response) -> bool:
    """Whether it is RunPod's form of an error: ``{"status": 401, "title": …}``."""
    body = json_object(said.content)
    return body.get("status") == said.status and "title" in body
