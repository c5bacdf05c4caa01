"""What RunPod's own worker program calls, below ``/v2/{endpoint}/``: it comes and takes jobs, and tells what they gave.

Source: https://github.com/runpod/runpod-python at 1.12.0, runpod/serverless/modules (rp_job, rp_http, rp_scale,
rp_ping). Its key has no ``Bearer``. Its POST bodies are JSON under a form's content type.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, Answer, Chunk, Hold, HttpCall, JobDone, Reply, WorkerLog, WorkerReady
from unigpu.emulator.engine import EngineDeployment, EngineJob, EngineRefused, EngineWorker
from unigpu.models.deployment import WorkerState
from unigpu.models.job import JobStatus

from .jobs import Refusal
from .state import ENDPOINT, Route, RunPodAccount

_HOLD: Final = 20.0
"""How long a worker that asks for work is held. RunPod's own time is not documented; the worker gives up after 90 s."""
_NOTHING: Final = Reply(status=204)


def _take(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    return _taken(account, call, ids, now, 1, lambda jobs: _job_json(jobs[0]))


def _take_batch(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    text = call.query.get("batch_size", "1")
    size = max(1, min(int(text), 100)) if text.isdigit() else 1
    return _taken(account, call, ids, now, size, lambda jobs: [_job_json(job) for job in jobs])


def _taken(
    account: RunPodAccount,
    call: HttpCall,
    ids: tuple[str, ...],
    now: float,
    size: int,
    shown: Callable[[list[EngineJob]], JSON],
) -> Answer:
    one, worker = _worker(account, call, ids, now)
    engine = account.engine
    if worker.state in (WorkerState.PLACING, WorkerState.STARTING):
        engine.event(WorkerReady(worker_id=worker.id), now)
    if call.query.get("job_in_progress") == "0":
        # It runs nothing, so it has let go of every job that was ended under its hands.
        for job_id in [job_id for job_id, until in worker.jobs.items() if until is not None]:
            _let_go(account, worker, job_id, now)
    # It asks for as many as it has room for, beside those that it runs.
    worker.concurrency = worker.running + size

    def answer(then: float) -> Reply | None:
        if not worker.alive:
            return _NOTHING
        jobs = engine.take(one.id, worker.id, then, limit=size)
        if jobs:
            return Reply.json(shown(jobs))
        return _NOTHING if then >= now + _HOLD else None

    return answer(now) or Hold(until=now + _HOLD, poll=answer)


def _stop(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    """Which of its jobs a worker should stop. It tells nothing of one that it stopped."""
    _, worker = _worker(account, call, ids, now)

    def answer(then: float) -> Reply | None:
        if found := account.engine.cancels(worker.id):
            return Reply.json({"jobsToStop": list(found)})
        return _NOTHING if then >= now + _HOLD or not worker.alive else None

    return answer(now) or Hold(until=now + _HOLD, poll=answer)


def _done(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    one, worker = _worker(account, call, ids, now)
    said = _said(call)
    job = one.jobs.get(ids[2])
    if said.get("status") == "IN_PROGRESS":
        if job is not None and job.status is JobStatus.RUNNING and job.worker_id == worker.id:
            job.output = said.get("output")  # progress: it is told as output until there is one
        return Reply.json({"status": "ok"})
    seconds = None if job is None or job.started_at is None else now - job.started_at
    error = said.get("error")
    event = JobDone(
        worker_id=worker.id,
        job_id=ids[2],
        output=said.get("output"),
        error=None if error is None else {"type": "WorkerError", "raw": _text(error)},
        execution_s=seconds,
    )
    # What was yielded is in the chunks; the worker's own list of it is the output where it sends one.
    if job is not None and job.chunks and event.output == []:
        event = JobDone(worker_id=worker.id, job_id=ids[2], output=None, execution_s=seconds)
    account.engine.event(event, now)
    if said.get("stopPod"):
        account.engine.end_worker(one.id, worker.id, now)
    return Reply.json({"status": "ok"})


def _chunk(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    _, worker = _worker(account, call, ids, now)
    account.engine.event(Chunk(worker_id=worker.id, job_id=ids[2], value=_said(call).get("output")), now)
    return Reply.json({"status": "ok"})


def _ping(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    """It lives, and runs these jobs. A worker that fails its own checks says so once before it exits."""
    _, worker = _worker(account, call, ids, now)
    held = [id for id in call.query.get("job_id", "").split(",") if id]
    for job_id in [id for id, until in worker.jobs.items() if until is not None and id not in held]:
        _let_go(account, worker, job_id, now)
    if call.query.get("status") == "unhealthy":
        why = f"unhealthy: {call.query.get('check', '')}: {call.query.get('reason', '')}"
        account.engine.event(WorkerLog(worker_id=worker.id, text=why, stream="system"), now)
    return Reply.json({"status": "ok"})


def _let_go(account: RunPodAccount, worker: EngineWorker, job_id: str, now: float) -> None:
    error = {"type": "Cancelled", "message": "cancelled"}
    account.engine.event(JobDone(worker_id=worker.id, job_id=job_id, error=error), now)


def _worker(
    account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float
) -> tuple[EngineDeployment, EngineWorker]:
    given = call.headers.get("authorization", "").removeprefix("Bearer ")
    if not hmac.compare_digest(given.encode(), account.worker_key(ids[0]).encode()):
        raise Refusal(401, "unauthorized")
    try:
        one = account.engine.deployments.get(ids[0], now)
        worker = account.engine.worker(ids[0], ids[1])
    except EngineRefused:
        raise Refusal(404, "worker not found") from None
    if one.platform != ENDPOINT:
        raise Refusal(404, "endpoint not found")
    return one, worker


def _job_json(job: EngineJob) -> dict[str, JSON]:
    return {**job.extra, "id": job.id, "input": job.input}


def _said(call: HttpCall) -> dict[str, Any]:
    try:
        found: object = json.loads(call.body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is no object")
    return cast("dict[str, Any]", found)


def _text(error: object) -> str:
    return error if isinstance(error, str) else json.dumps(error)


_ID: Final = "/([A-Za-z0-9_-]+)"
ROUTES: Final = (
    Route("GET", f"{_ID}/job-take{_ID}", "worker.take", _take),
    Route("GET", f"{_ID}/job-take-batch{_ID}", "worker.take", _take_batch),
    Route("GET", f"{_ID}/job-stop{_ID}", "worker.stop", _stop),
    Route("POST", f"{_ID}/job-done{_ID}{_ID}", "worker.done", _done),
    Route("POST", f"{_ID}/job-stream{_ID}{_ID}", "worker.chunk", _chunk),
    Route("GET", f"{_ID}/ping{_ID}", "worker.ping", _ping),
)
