"""An endpoint's workers, its releases, and the lines that workers write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from unigpu.emulator.contract import JSON, Answer, Hold, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment, EngineRefused, EngineWorker
from unigpu.models.deployment import WorkerState

from .state import ENDPOINT, Route, RunPodAccount, RunPodProblem, int_of
from .translate import card_of

_STATUS: Final[Mapping[WorkerState, str]] = {
    WorkerState.PLACING: "THROTTLED",
    WorkerState.STARTING: "INITIALIZING",
    WorkerState.IDLE: "IDLE",
    WorkerState.BUSY: "RUNNING",
    WorkerState.DRAINING: "RUNNING",
    WorkerState.FAILED: "UNHEALTHY",
}
_LOG_TAIL: Final = 100
_LOG_WAIT: Final = 20.0


def shown_workers(account: RunPodAccount, one: EngineDeployment) -> list[tuple[EngineWorker, str]]:
    """Workers that RunPod lists, each with its status: those that are there, and failed ones while it tries again."""
    troubled = bool(one.start_failures or one.crashes)
    rows: list[tuple[EngineWorker, str]] = []
    for worker in one.everyone():
        if worker.gone and not (troubled and worker.state is WorkerState.FAILED and worker.version == one.version):
            continue
        rows.append((worker, _STATUS.get(worker.state, "IDLE")))
    failed = [row for row in rows if row[1] == "UNHEALTHY"]
    most = max(0, one.terms.max_workers - (len(rows) - len(failed)))
    kept = failed[len(failed) - most :]
    return [row for row in rows if row[1] != "UNHEALTHY" or row in kept]


def summary(rows: Sequence[tuple[EngineWorker, str]]) -> dict[str, JSON]:
    names = ("running", "idle", "initializing", "throttled", "unhealthy")
    counted = {name: sum(1 for _, status in rows if status == name.upper()) for name in names}
    return {**counted, "total": len(rows)}


def _workers(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    rows = shown_workers(account, found)
    return Reply.json(
        {
            "workers": [_worker_json(account, found, worker, status, now) for worker, status in rows],
            "summary": summary(rows),
            "endpointVersion": found.version,
        }
    )


def _worker_json(
    account: RunPodAccount, one: EngineDeployment, worker: EngineWorker, status: str, now: float
) -> dict[str, JSON]:
    body = one.terms.data["body"]
    card = card_of(account, body)
    centers = body["dataCenterIds"] or ["US-KS-2"]
    return {
        "id": worker.id,
        "status": status,
        "isStale": worker.version != one.version,
        "version": worker.version,
        "gpuCount": body["gpu"]["count"] if card else 0,
        "image": body["image"],
        "uptimeSeconds": None if worker.started_at is None else int(now - worker.started_at),
        "gpuTypeId": card.id if card else None,
        "dataCenterId": centers[0],
        "startedAt": account.when(worker.started_at),
    }


def _releases(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    rows = shown_workers(account, found)
    latest = sum(1 for worker, _ in rows if worker.version == found.version)
    rollout: dict[str, JSON] = {
        "inProgress": latest < len(rows),
        "workersOnLatest": latest,
        "workersTotal": len(rows),
        "percentOnLatest": 100 if not rows else int(100 * latest / len(rows)),
    }
    release: dict[str, JSON] = {
        "id": f"{found.id}-{found.version}",
        "version": found.version,
        "source": "MANUAL",
        "buildId": None,
        "createdByUserId": None,
        "workerCount": latest,
        "createdAt": account.when(found.created_at),
        "diff": [],
    }
    page = {"nextCursor": None, "hasNextPage": False}
    body = {"endpointVersion": found.version, "rollout": rollout, "releases": [release], "pagination": page}
    return Reply.json(body)


def _logs(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    account.find(ENDPOINT, ids[0], now, "endpoint not found")
    try:
        worker = account.engine.worker(ids[0], ids[1])
    except EngineRefused:
        raise RunPodProblem(404, "worker not found") from None
    return log_stream(account, worker, call, now)


def log_stream(account: RunPodAccount, worker: EngineWorker, call: HttpCall, now: float) -> Answer:
    """Server-sent events. RunPod's stream never ends; ours ends with what there is, and waits where there is nothing
    new: a client that follows comes again with ``Last-Event-ID``, as after any cut.
    """
    source = call.query.get("source")
    if source not in (None, "container", "system"):
        raise RunPodProblem(422, "request validation failed", "$.source: value must be container or system")
    tail = int_of(call.query.get("tail", str(_LOG_TAIL)), "tail", 0, 5000)
    since = call.headers.get("last-event-id") or call.query.get("since")
    after = _instant(since) if since else None

    def answer(then: float) -> Reply | None:
        lines = [one for one in worker.log if source in (None, "system" if one.stream == "system" else "container")]
        lines = [one for one in lines if one.time > after] if after is not None else lines[len(lines) - tail :]
        if not lines and after is not None and then < now + _LOG_WAIT and not worker.gone:
            return None
        frames: list[str] = []
        for one in lines:
            stamp = datetime.fromtimestamp(one.time).astimezone().isoformat(timespec="microseconds")
            name = "system" if one.stream == "system" else "container"
            data = json.dumps({"source": name, "line": one.text, "ts": stamp})
            frames.append(f"id: {stamp}\ndata: {data}\n\n")
        headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        return Reply(headers=headers, body="".join(frames).encode())

    return answer(now) or Hold(until=now + _LOG_WAIT, poll=answer)


def _instant(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise RunPodProblem(422, "request validation failed", "$.since: want RFC 3339") from None


ROUTES: Final = (
    Route("GET", "/serverless/([^/]+)/workers", "worker.list", _workers),
    Route("GET", "/serverless/([^/]+)/releases", "release.list", _releases),
    Route("GET", "/serverless/([^/]+)/workers/([^/]+)/logs", "worker.logs", _logs),
)
