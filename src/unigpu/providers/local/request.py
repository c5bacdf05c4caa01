"""A request to the user's own server, through the supervisor, which holds it while a worker starts.

Unlike the other calls of the protocol it runs the user's code, so it is sent again only where it certainly did not.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from unigpu.driver import DeploymentInfo, HTTPCall, Io, Request, Response, StreamResponse, bearer, buffered, gone
from unigpu.errors import NoWorkerReady, TransportError, UniGPUError, WorkerFailed, WorkerLost

from . import launch
from .api import PAUSE, PROVIDER, SupervisorAPI
from .wire import refusal

OPERATION: Final = "local.http"
HOLD: Final = 3600.0
"""Seconds for which the supervisor holds a request at most."""
_OURS: Final = "x-unigpu-error"


@contextlib.asynccontextmanager
async def request(api: SupervisorAPI, io: Io, info: DeploymentInfo, call: HTTPCall) -> AsyncGenerator[StreamResponse]:
    """As `unigpu.driver.Requests.request`."""
    while True:
        link = await api.link(io, start=False, deadline=call.deadline)
        if link is None:
            raise gone(info, operation=OPERATION)
        opening = io.stream(_request(api, info, call, link))
        try:
            reply = await opening.__aenter__()
        except TransportError as exc:
            if not exc.never_sent or io.now() >= call.deadline or api.is_still(link):
                raise
            await io.sleep(PAUSE)
            continue
        try:
            if _OURS not in reply.headers:
                yield reply
                return
            said = await buffered(reply, OPERATION)
        finally:
            await opening.__aexit__(None, None, None)
        leaving = reply.headers[_OURS] == "closing" and api.fixed is None
        if not leaving or io.now() >= call.deadline:
            raise _error(api, said, info, link)
        await io.sleep(PAUSE)


def _request(api: SupervisorAPI, info: DeploymentInfo, call: HTTPCall, link: launch.Link) -> Request:
    headers: list[tuple[str, str]] = []
    for name, value in call.headers:
        headers.append(("x-unigpu-authorization" if name.lower() == "authorization" else name, value))
    headers.append(("x-unigpu-wait", f"{min(call.hold, HOLD):.3f}"))
    if call.wake:
        headers.append(("x-unigpu-wake", "1"))
    return call.request(
        f"{link.base}/v1{api.path_of(info)}/http{call.target}",
        info=info,
        operation=OPERATION,
        headers=(*headers, *bearer(link.token)),
        role="jobs",
        held=call.hold,
        reroutes=api.fixed is None,
    )


def _error(api: SupervisorAPI, said: Response, info: DeploymentInfo, link: launch.Link) -> UniGPUError:
    """What the supervisor's own answer means."""
    error = refusal(said).error
    kind = said.headers[_OURS]
    common: dict[str, Any] = {"provider": PROVIDER, "operation": OPERATION, "deployment": info.name}
    if kind in ("no_worker", "stopped"):
        return NoWorkerReady(error.message or "no worker was ready", state=None, maybe_executed=False, **common)
    if kind == "WorkerFailed":
        reason = error.reason or "unknown"
        return WorkerFailed(error.message, reason=reason, logs=error.logs, maybe_executed=False, **common)
    if kind == "gone":
        return gone(info, operation=OPERATION)
    lost = WorkerLost(f"{info.name}: {error.message}", maybe_executed=True, **common)
    if said.status == 502:  # `bad_gateway`, or `worker_lost`: it had the request, and gave no answer
        return lost
    return api.error_of(said, deployment=info.name, hide=link.secrets) or lost
