"""The job plane: ``https://api.runpod.ai/v2/{endpoint}/…``.

Source: https://docs.runpod.io/serverless/endpoints/operation-reference and .../send-requests. What its errors look like
is not documented: bodies and texts here are ours, unverified.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, Answer, Callback, Hold, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment, EngineJob, EngineRefused
from unigpu.models.job import JobStatus

from .state import ENDPOINT, Route, RunPodAccount, RunPodProblem
from .workers import shown_workers

_STATUS: Final[Mapping[JobStatus, str]] = {
    JobStatus.QUEUED: "IN_QUEUE",
    JobStatus.RUNNING: "IN_PROGRESS",
    JobStatus.DONE: "COMPLETED",
    JobStatus.FAILED: "FAILED",
    JobStatus.CANCELLED: "CANCELLED",
}
_WEEK_MS: Final = 604_800_000
_DAY_MS: Final = 86_400_000
_WEBHOOK_AGAIN: Final = (5.0, 15.0)
_RATE_WINDOW: Final = 10.0
RETRIED: Final = "job timed out after 1 retries"


class Refusal(Exception):
    """An answer of the job plane that is no success."""

    def __init__(self, status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers

    def reply(self) -> Reply:
        return Reply.json({"error": self.text}, status=self.status, headers=self.headers)


def _run(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    one = _queue(account, ids[0], "run", now)
    job = _submit(account, one, call, now, sync=False)
    return Reply.json({"id": job.id, "status": _STATUS[JobStatus.QUEUED]})


def _run_sync(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    one = _queue(account, ids[0], "runsync", now)
    wait = _wait(call, account.quirks.sync_wait)
    job = _submit(account, one, call, now, sync=True)
    until = now + wait

    def answer(then: float) -> Reply | None:
        if job.status.is_terminal:
            return Reply.json(job_json(account, job, then))
        return Reply.json({"id": job.id, "status": _STATUS[job.status]}) if then >= until else None

    return answer(now) or Hold(until=until, poll=answer)


def _status(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    one = _queue(account, ids[0], "status", now)
    return Reply.json(job_json(account, _job(account, one, ids[1]), now))


def _stream(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    """What was yielded since the last look. It is gone with the reply, whether that arrives or not."""
    one = _queue(account, ids[0], "status", now)
    job = _job(account, one, ids[1])
    until = now + _wait(call, account.quirks.stream_wait)

    def answer(then: float) -> Reply | None:
        seen = account.drained.get(job.id, 0)
        if len(job.chunks) <= seen and not job.status.is_terminal and then < until:
            return None
        account.drain(job.id, len(job.chunks))
        chunks: list[JSON] = [{"output": chunk} for chunk in job.chunks[seen:]]
        return Reply.json({"status": status_of(job), "stream": chunks})

    return answer(now) or Hold(until=until, poll=answer)


def _cancel(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    one = _queue(account, ids[0], "cancel", now)
    _job(account, one, ids[1])
    job = account.engine.jobs.cancel(one, ids[1], now)
    return Reply.json({"id": job.id, "status": status_of(job)})


def _purge(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    one = _queue(account, ids[0], "purge", now)
    queued = list(one.queue)
    for job_id in queued:
        account.engine.jobs.cancel(one, job_id, now)
    return Reply.json({"removed": len(queued), "status": "completed"})


def _health(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    """The six counts that are seen; the page shows two. Counts of jobs are of those that are still kept."""
    one = _endpoint(account, ids[0], now)
    rows = shown_workers(account, one)
    jobs = list(one.jobs.values())
    names = ("idle", "initializing", "running", "throttled", "unhealthy")
    workers: dict[str, JSON] = {name: sum(1 for _, status in rows if status == name.upper()) for name in names}
    ready = sum(1 for worker, _ in rows if worker.state.is_ready)
    return Reply.json(
        {
            "jobs": {
                "completed": sum(1 for job in jobs if job.status is JobStatus.DONE),
                "failed": sum(1 for job in jobs if job.status is JobStatus.FAILED),
                "inProgress": len(one.running),
                "inQueue": len(one.queue),
                "retried": sum(1 for job in jobs if job.tries > 1),
            },
            "workers": {**workers, "ready": ready},
        }
    )


def _openai(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    """The route of workers that serve OpenAI's API from a queue: RunPod's vLLM worker.

    A job gets ``openai_route`` and ``openai_input``; what it yields is the answer, events of a stream as texts. Source:
    https://github.com/runpod-workers/worker-vllm, src/utils.py (JobInput). The whole is answered at once here.
    """
    one = _queue(account, ids[0], "openai", now)
    try:
        body: Any = json.loads(call.body) if call.body else {}
    except ValueError:
        raise Refusal(400, "the body is not JSON") from None
    job = _put(account, one, {"openai_route": f"/{ids[1]}", "openai_input": body}, now, sync=True)
    until = now + job.execution_timeout + account.quirks.sync_wait

    def answer(then: float) -> Reply | None:
        if not job.status.is_terminal:
            return Refusal(408, "timed out waiting for the job").reply() if then >= until else None
        if job.status is not JobStatus.DONE:
            return Reply.json({"error": {"message": _error_text(job), "type": "server_error", "code": 500}}, status=500)
        said = job.chunks or [job.output]
        if all(isinstance(one, str) for one in said):
            return Reply(headers=(("content-type", "text/event-stream"),), body="".join(map(str, said)).encode())
        last = said[-1]
        return Reply.json(last[0] if isinstance(last, list) and len(cast("Sequence[JSON]", last)) == 1 else last)

    return answer(now) or Hold(until=until, poll=answer)


# What they share.


def _endpoint(account: RunPodAccount, id: str, now: float) -> EngineDeployment:
    try:
        return account.find(ENDPOINT, id, now)
    except RunPodProblem:
        raise Refusal(404, f"endpoint {id} not found") from None


def _queue(account: RunPodAccount, id: str, operation: str, now: float) -> EngineDeployment:
    one = _endpoint(account, id, now)
    if one.terms.data["body"]["type"] != "QUEUE":
        raise Refusal(400, "not allowed for QB API")  # the text is documented, its status is not
    most = account.quirks.job_rates.get(operation)
    if most is not None:
        key = (id, operation, int(now / _RATE_WINDOW))
        if key not in account.counts:
            kept = [old for old in account.counts if old[:2] == key[:2]]
            for old in kept:
                del account.counts[old]
        account.counts[key] = account.counts.get(key, 0) + 1
        # RunPod lets more through the more workers run; how many a worker allows is not told.
        if account.counts[key] > most:
            left = _RATE_WINDOW - now % _RATE_WINDOW
            raise Refusal(429, "rate limit exceeded", (("retry-after", str(max(1, round(left)))),))
    return one


def _job(account: RunPodAccount, one: EngineDeployment, id: str) -> EngineJob:
    try:
        return account.engine.jobs.get(one, id)
    except EngineRefused:
        raise Refusal(404, "job not found") from None


def _submit(account: RunPodAccount, one: EngineDeployment, call: HttpCall, now: float, *, sync: bool) -> EngineJob:
    quirks = account.quirks
    if len(call.body) > (quirks.most_runsync_bytes if sync else quirks.most_run_bytes):
        raise Refusal(413, "the request body is too large")
    try:
        body: Any = json.loads(call.body)
    except (ValueError, RecursionError):
        raise Refusal(400, "the body is not JSON") from None
    if not isinstance(body, dict) or "input" not in body:
        raise Refusal(400, "input is required")
    request = cast("dict[str, Any]", body)
    if not isinstance(request.get("policy") or {}, dict):
        raise Refusal(400, "policy: an object is needed")
    policy = cast("Mapping[str, Any]", request.get("policy") or {})
    return _put(
        account,
        one,
        request["input"],
        now,
        sync=sync,
        timeout=_milliseconds(policy, "executionTimeout", 5_000),
        life=_milliseconds(policy, "ttl", 10_000),
        webhook=request.get("webhook"),
        extra={key: request[key] for key in ("policy", "s3Config", "webhook") if key in request},
    )


def _put(
    account: RunPodAccount,
    one: EngineDeployment,
    input: JSON,
    now: float,
    *,
    sync: bool,
    timeout: float | None = None,
    life: float | None = None,
    webhook: object = None,
    extra: Mapping[str, JSON] | None = None,
) -> EngineJob:
    account.last_request[one.id] = now
    quirks = account.quirks
    lost = quirks.empty_input_fails and not (isinstance(input, dict) and input)
    ended = partial(_call_back, account, input, webhook) if isinstance(webhook, str) and webhook else None
    try:
        return account.engine.jobs.submit(
            one,
            input,
            now,
            id=f"{'sync-' if sync else ''}{account.new_uuid()}-u1",
            execution_timeout=timeout,
            stream=True,  # whether it is one, only the handler knows
            extra=extra,
            kept=quirks.runsync_kept if sync else quirks.run_kept,
            life=_DAY_MS / 1000 if life is None else life,
            ended=ended,
            # Its worker drops it, and so does the second one: it is told here at once.
            refusal={"type": "Lost", "raw": RETRIED} if lost else None,
        )
    except EngineRefused as exc:
        raise Refusal(429, exc.message) from None


def _milliseconds(policy: Mapping[str, Any], name: str, low: int) -> float | None:
    value = policy.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= _WEEK_MS:
        raise Refusal(400, f"policy.{name}: {low} to {_WEEK_MS} milliseconds are needed")
    return value / 1000


def _wait(call: HttpCall, default: float) -> float:
    text = call.query.get("wait")
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise Refusal(400, "wait: milliseconds are needed") from None
    return min(max(value, 1000.0), 300_000.0) / 1000


def _call_back(account: RunPodAccount, input: JSON, url: object, job: EngineJob, now: float) -> None:
    body = {**job_json(account, job, now), "input": input, "webhook": url}
    headers = (("content-type", "application/json"), ("user-agent", "Go-http-client/2.0"))
    account.engine.callbacks.add(
        Callback(callback_id="", url=str(url), headers=headers, body=Reply.json(body).body), waits=_WEBHOOK_AGAIN
    )


# What is told.


def status_of(job: EngineJob) -> str:
    timed_out = job.error is not None and job.error.get("type") == "ExecutionTimeout"
    return "TIMED_OUT" if timed_out else _STATUS[job.status]


def job_json(account: RunPodAccount, job: EngineJob, now: float) -> dict[str, JSON]:
    row: dict[str, JSON] = {"id": job.id, "status": status_of(job)}
    if job.started_at is not None:
        # A second try counts from anew.
        row["delayTime"] = round(
            1000 * max(0.0, job.started_at - (job.queued_at if job.tries > 1 else job.submitted_at))
        )
    if job.worker_id is not None:
        row["workerId"] = job.worker_id
    if job.tries > 1:
        row["retries"] = job.tries - 1
    if job.status.is_terminal and job.execution_s is not None:
        row["executionTime"] = round(1000 * job.execution_s)
    if job.status is JobStatus.DONE:
        row["output"] = list(job.chunks) if job.output is None and job.chunks else job.output
    elif job.output is not None:
        row["output"] = job.output  # progress, and what a failed one left of it
    if job.status is JobStatus.FAILED:
        row["error"] = _error_text(job)
    return row


def _error_text(job: EngineJob) -> str:
    """The error as RunPod's worker writes it: JSON in a text (runpod 1.12.0, serverless/modules/rp_job.py)."""
    error = job.error or {}
    if "raw" in error:
        return str(error["raw"])
    if job.lost:
        return RETRIED
    if error.get("type") == "ExecutionTimeout":
        return "job timed out"
    kind, message = error.get("type", "Exception"), error.get("message", "")
    return json.dumps(
        {
            "error_type": f"<class '{kind}'>",
            "error_message": message,
            "error_traceback": f"Traceback (most recent call last):\n{kind}: {message}\n",
            "hostname": f"{job.worker_id or 'unknown'}-host",
            "worker_id": job.worker_id or "unknown",
            "runpod_version": "1.12.0",
        }
    )


_ID: Final = "/([A-Za-z0-9_-]+)"
ROUTES: Final = (
    Route("POST", f"{_ID}/run", "job.submit", _run),
    Route("POST", f"{_ID}/runsync", "job.submit", _run_sync),
    Route("GET", f"{_ID}/status{_ID}", "job.get", _status),
    Route("POST", f"{_ID}/status{_ID}", "job.get", _status),
    Route("GET", f"{_ID}/stream{_ID}", "job.stream", _stream),
    Route("POST", f"{_ID}/stream{_ID}", "job.stream", _stream),
    Route("POST", f"{_ID}/cancel{_ID}", "job.cancel", _cancel),
    Route("POST", f"{_ID}/purge-queue", "job.purge", _purge),
    Route("GET", f"{_ID}/health", "endpoint.health.get", _health),
    Route("POST", f"{_ID}/openai/(.+)", "openai.http", _openai),
    Route("GET", f"{_ID}/openai/(.+)", "openai.http", _openai),
)
