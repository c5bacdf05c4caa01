"""Load-balancer endpoints: a request goes to a worker that is free, with the path and body that it has.

Source: https://docs.runpod.io/serverless/load-balancing/overview. WebSockets and worker affinity are not served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from unigpu.emulator.contract import JSON, Answer, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment

from .pods import inner
from .state import ENDPOINT, Route, RunPodAccount, RunPodProblem

_OURS: Final = frozenset({"authorization"})
"""Ends at the edge. Whether RunPod passes it on is not documented; a key of the account is no business of a worker."""


def _request(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    body = found.terms.data["body"]
    if body["type"] != "LOAD_BALANCER":
        raise RunPodProblem(400, "not allowed for QB API")
    account.last_request[found.id] = now
    status = account.quirks.no_worker_status
    if body["workers"]["max"] == 0:
        return Reply.json({"error": "no workers available"}, status=status)

    def none(_: EngineDeployment, error: Mapping[str, JSON]) -> Reply:
        late = error.get("type") == "no_worker"
        text = "timed out waiting for worker" if late else "no workers available"
        return Reply.json({"error": text}, status=status)

    request = inner(call, ids[1] or "/", without=_OURS)
    return account.engine.lease(found.id, request, now, wait=account.quirks.lb_wait, no_worker=none)


ROUTES: Final = (Route("*", "/([^/]+)(/.*)?", "http", _request),)
