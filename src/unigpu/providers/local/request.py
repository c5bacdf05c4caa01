"""A request to the user's own server, by way of the supervisor, which holds it while a worker starts.

Unlike the other calls of the protocol it runs the user's code, so it is sent again only where it certainly did not.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, cast

from unigpu.driver import CallClass, DeploymentInfo, HTTPCall, Io, Request, Response, StreamResponse
from unigpu.errors import NoWorkerReady, TransportError, UniGPUError, WorkerFailed, WorkerLost

from . import launch
from .api import SupervisorAPI, authorization, gone, ok
from .wire import ErrorWire, refusal

OPERATION: Final = "local.http"
HOLD: Final = 3600.0
"""Seconds for which the supervisor holds a request at most."""
_OURS: Final = "x-unigpu-error"
_PAUSE: Final = 0.02


@contextlib.asynccontextmanager
async def request(api: SupervisorAPI, io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`."""
    while True:
        link = await api.link(io, start=False, deadline=call.deadline)
        if link is None:
            raise gone(info.name)
        opening = io.stream(_request(api, info, call, link))
        try:
            reply = await opening.__aenter__()
        except TransportError as exc:
            if not exc.never_sent or io.now() >= call.deadline or api.is_still(link):
                raise
            await io.sleep(_PAUSE)
            continue
        try:
            if _OURS not in reply.headers:
                yield reply
                return
            said = Response(status=reply.status, headers=reply.headers, content=await reply.read(), operation=OPERATION)
        finally:
            await opening.__aexit__(None, None, None)
        leaving = reply.headers[_OURS] == "closing" and api.fixed is None
        if not leaving or io.now() >= call.deadline:
            raise _error(said, info, link)
        await io.sleep(_PAUSE)


def _request(api: SupervisorAPI, info: DeploymentInfo, call: HTTPCall, link: launch.Link) -> Request:
    headers: list[tuple[str, str]] = []
    for name, value in call.headers:
        headers.append(("x-unigpu-authorization" if name.lower() == "authorization" else name, value))
    headers.append(("x-unigpu-wait", f"{min(call.hold, HOLD):.3f}"))
    if call.wake:
        headers.append(("x-unigpu-wake", "1"))
    return Request(
        method=call.method,
        url=f"{link.base}/v1/deployments/{info.provider_name}/http{call.target}",
        operation=OPERATION,
        headers=(*headers, *authorization(link)),
        content=call.content,
        role="jobs",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        read_timeout=None if call.read_timeout is None else call.hold + call.read_timeout,
        deployment=info.name,
        reroutes=api.fixed is None,
        foreign=True,
    )


def _error(said: Response, info: DeploymentInfo, link: launch.Link) -> UniGPUError:
    """What the supervisor's own answer means."""
    error: ErrorWire = refusal(said).error
    kind = said.headers[_OURS]
    common: dict[str, Any] = {"provider": "local", "operation": OPERATION, "deployment": info.name}
    if kind in ("no_worker", "stopped"):
        return NoWorkerReady(error.message or "no worker was ready", state=None, maybe_executed=False, **common)
    if kind == "WorkerFailed":
        more = cast("Mapping[str, Any]", said.json()["error"])
        return WorkerFailed(
            error.message,
            reason=str(more.get("reason") or "unknown"),
            logs=tuple(str(one) for one in more.get("logs") or ()),
            maybe_executed=False,
            **common,
        )
    if kind == "gone":
        return gone(info.name)
    if said.status == 502:  # `bad_gateway`, or `worker_lost`: it had the request, and gave no answer
        return WorkerLost(f"{info.name}: {error.message}", maybe_executed=True, **common)
    try:
        ok((said, link), deployment=info.name)
    except UniGPUError as exc:
        return exc
    raise AssertionError("an error of the supervisor has an error's status")
