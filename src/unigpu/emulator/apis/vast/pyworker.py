"""The second hop, in memory: a simulated worker's PyWorker. Callers reach real workers without this emulator.

As the real one (vastai 1.9.1, ``serverless/server/lib/backend.py`` and ``data_types.py``): POST alone (405), 422 for an
envelope that lacks something, 401 without a body for a wrong signature, 429 without a body when the work before it is
over the queue limit, the model server's answer passed through, and a closed connection as the cancel. Behind it stands
the portable worker of ours (``POST /invoke``), or for ``interface="http"`` the user's server: at the same path, or by
``/unigpu/http``, where our set-up of PyWorker makes a request of what it is handed (`unigpu.worker.pyworker`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, cast
from urllib.parse import parse_qsl, unquote

from unigpu.emulator.contract import JSON, Answer, Dropped, Forward, Hold, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment, EngineJob, EngineRefused, EngineWorker
from unigpu.models.job import JobStatus

from .serverless import Serverless
from .signing import is_signed
from .state import VastAccount

_AUTH: Final = ("cost", "endpoint", "reqnum", "request_idx", "signature", "url")
_MAX_QUEUE_S: Final = 30.0
_FOR_EVER_S: Final = 86_400.0
_TUNNEL: Final = "/unigpu/http"
_MARKS: Final = (("x-unigpu-http", "1"),)
_LOST: Final = Dropped(how="drop")


class Hop:
    """Calls of workers of one account."""

    def __init__(self, account: VastAccount, serverless: Serverless) -> None:
        self._account = account
        self._engine = account.engine
        self._serverless = serverless

    def answer(self, key: str, call: HttpCall, now: float) -> Answer:
        """What the worker at this address answers; a machine that is gone answers nothing."""
        found = self._worker(key, now)
        if found is None:
            return _LOST
        endpoint, worker = found
        if call.path.startswith("/session/"):
            return Reply.json({"error": f"sessions are not served here: {call.path}"}, status=501)
        if call.method != "POST":
            return Reply(status=405, headers=(("allow", "POST"),), body=b"405: Method Not Allowed")
        try:
            data: object = json.loads(call.body)
        except (ValueError, RecursionError):
            return Reply.json({"error": "invalid JSON"}, status=422)
        wrong = _wrong(data)
        if wrong:
            return Reply.json(wrong, status=422)
        body = cast("Mapping[str, Any]", data)
        auth, payload = cast("Mapping[str, JSON]", body["auth_data"]), cast("Mapping[str, JSON]", body["payload"])
        if body.get("session_id") is not None:
            return Reply.json({"error": "invalid session"}, status=410)
        if not is_signed(auth["url"], auth["signature"]):
            return Reply(status=401)
        mine = str(auth["request_idx"])
        self._engine.unclaim(worker.id, mine, now)
        if self._serverless.queue_time(endpoint, worker) > _MAX_QUEUE_S:
            return Reply(status=429)
        if endpoint.terms.interface == "http":
            return self._forward(endpoint, worker, mine, call, payload, now)
        return self._run(endpoint, worker, call, payload, now)

    def _worker(self, key: str, now: float) -> tuple[EngineDeployment, EngineWorker] | None:
        for id in self._engine.deployment_ids():
            endpoint = self._engine.deployments.get(id, now)
            worker = endpoint.workers.get(key)
            if worker is not None and worker.ready_at is not None and not worker.stopping:
                return endpoint, worker
        return None

    def _forward(
        self,
        endpoint: EngineDeployment,
        worker: EngineWorker,
        key: str,
        call: HttpCall,
        payload: Mapping[str, JSON],
        now: float,
    ) -> Forward:
        """The payload alone, posted to the same path of the server behind; or the request that it describes."""
        self._engine.claim(endpoint.id, worker.id, key, now, keep=None)
        if call.path == _TUNNEL:
            return Forward(worker_id=worker.id, lease=key, call=_unpacked(call, payload), marks=_MARKS)
        inner = Reply.json(payload).body
        headers = {"content-type": "application/json", "content-length": str(len(inner))}
        sent = replace(call, body=inner, headers=headers, query={}, target=call.path)
        return Forward(worker_id=worker.id, lease=key, call=sent)

    def _run(
        self, endpoint: EngineDeployment, worker: EngineWorker, call: HttpCall, payload: Mapping[str, JSON], now: float
    ) -> Answer:
        inner = payload.get("input")
        ours = call.path == "/invoke"
        if ours and not isinstance(inner, Mapping):
            error = {"type": "bad_request", "message": 'The body must be {"input": {...}}.'}
            return Reply.json({"error": error}, status=400)
        raw = not ours and not (isinstance(inner, Mapping) and len(payload) == 1)
        stream = payload.get("stream") is True and not raw
        seconds = payload.get("timeout")
        limit = endpoint.terms.execution_timeout
        try:
            job = self._engine.submit(
                endpoint.id,
                dict(payload) if raw else inner,
                now,
                execution_timeout=min(limit, float(seconds)) if isinstance(seconds, int | float) and seconds else limit,
                stream=stream,
                pin=worker.id,
            )
        except EngineRefused:
            return _LOST

        def poll(_: float) -> Reply | Dropped | None:
            return _answer(job, raw=raw, stream=stream) if job.status.is_terminal else None

        def abandoned(then: float) -> None:
            if not job.status.is_terminal:
                self._engine.jobs.cancel(endpoint, job.id, then)

        return Hold(until=now + _FOR_EVER_S, poll=poll, abandoned=abandoned)


def _unpacked(call: HttpCall, payload: Mapping[str, JSON]) -> HttpCall:
    target = str(payload.get("target") or "/")
    path, _, query = target.partition("?")
    body = base64.b64decode(str(payload.get("content") or ""))
    headers = {str(name).lower(): str(value) for name, value in payload.get("headers") or ()}
    return replace(
        call,
        method=str(payload.get("method") or "GET"),
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={**headers, "content-length": str(len(body))},
        body=body,
        target=target,
    )


def _answer(job: EngineJob, *, raw: bool, stream: bool) -> Reply | Dropped:
    if job.lost or job.status is JobStatus.CANCELLED:
        return _LOST
    timing: dict[str, JSON] = {} if job.execution_s is None else {"execution_s": job.execution_s}
    if stream:
        lines = [{"chunk": chunk} for chunk in job.chunks]
        single = job.error is None and not job.chunks and job.output is not None  # a generator may yield nothing
        if single:
            lines = [{"chunk": job.output}]
        last = {"error": _error(job), **timing} if job.error is not None else {"done": True, **timing}
        if single:
            last["single"] = True
        body = b"".join(json.dumps(line).encode() + b"\n" for line in [*lines, last])
        return Reply(headers=(("content-type", "application/x-ndjson"),), body=body)
    if job.error is not None:
        return Reply.json({"error": _error(job), **timing}, status=500 if raw else 200)
    return Reply.json(job.output if raw else {"output": job.output, **timing})


def _error(job: EngineJob) -> dict[str, JSON]:
    error = job.error or {}
    return {"type": error.get("type"), "message": error.get("message")}


def _wrong(data: object) -> dict[str, JSON]:
    """What an envelope lacks, in the words of the real one."""
    if not isinstance(data, Mapping):
        return {"auth_data": "field missing", "payload": "field missing"}
    body = cast("Mapping[str, Any]", data)
    found: dict[str, JSON] = {}
    if not isinstance(body.get("auth_data"), Mapping):
        found["auth_data"] = "field missing"
    elif missing := {name: "missing parameter" for name in _AUTH if name not in body["auth_data"]}:
        found["auth_data"] = missing
    if "payload" not in body:
        found["payload"] = "field missing"
    elif not isinstance(body["payload"], Mapping):
        found["payload"] = {"data": "payload must be a dictionary"}
    return found
