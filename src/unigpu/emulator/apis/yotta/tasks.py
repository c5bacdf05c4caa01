"""Tasks of QUEUE endpoints: the queue pushes each to a worker's port as one POST, and calls a webhook with the outcome.

``POST http://<worker>:{workerPort}{processUri}`` with ``input`` as the whole body and the task's ``headers``; a 2xx
answer's body is ``output``, and what else comes is FAILED. There is no state before PROCESSING, no cancel and no retry.
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless/queue-based-elastic-execution; the v2 form:
https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless).
"""

from __future__ import annotations

import json
import re
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, Callback
from unigpu.emulator.engine import Engine, EngineDeployment, EngineJob, EngineRefused
from unigpu.models.job import JobStatus

from . import wire
from .quirks import Quirks
from .wire import YottaProblem

_TASK_ID: Final = re.compile(r"[A-Za-z0-9_]*")
_URI: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@/-]*")
_WEBHOOK: Final = re.compile(r"https?://[^/\s]+\S*")
_MOST_TASKS: Final = 1000
_RATES: Final = {"create": (40, 200), "read": (60, 400)}
"""Calls a second: of one endpoint, and of all."""


@dataclass(slots=True)
class Delivery:
    """The result's webhook."""

    number: int
    status: str = "INIT"
    attempts: int = 0
    at: float | None = None
    next_at: float | None = None


@dataclass(slots=True)
class _Rate:
    """How many calls an endpoint got within the last second."""

    times: deque[float] = field(default_factory=deque[float])

    def take(self, now: float, most: int) -> None:
        while self.times and self.times[0] <= now - 1.0:
            self.times.popleft()
        if len(self.times) >= most:
            raise YottaProblem(wire.RATE, "QPS limit exceeded")
        self.times.append(now)


class Tasks:
    """The tasks of the endpoints.

    Args:
        new_id: Makes a number that nothing else has.
        status: The state of an endpoint.
    """

    def __init__(
        self,
        engine: Engine,
        quirks: Quirks,
        new_id: Callable[[], int],
        status: Callable[[EngineDeployment, float], str],
    ) -> None:
        self._engine = engine
        self._quirks = quirks
        self._new_id = new_id
        self._status = status
        self._rates: dict[tuple[str, str], _Rate] = {}
        self._deliveries: dict[tuple[str, str], Delivery] = {}

    def limit(self, one: EngineDeployment, what: str, now: float) -> None:
        """Count a call against the limits of the queue.

        Raises:
            Problem: it is one too many.
        """
        if self._quirks.rate_limits:
            kind = "create" if what == "job.submit" else "read"
            mine, all_ours = _RATES[kind]
            self._rates.setdefault((one.id, kind), _Rate()).take(now, mine)
            self._rates.setdefault(("", kind), _Rate()).take(now, all_ours)

    def submit(self, one: EngineDeployment, body: Mapping[str, Any], now: float) -> str:
        """The task's id. One that is known already is the same task, whatever else the call says."""
        if one.terms.data["mode"] != "QUEUE":
            raise YottaProblem(wire.BAD_REQUEST, "tasks are for endpoints of serviceMode QUEUE")
        id, extra = self._checked(one, body)
        if id in one.jobs or id in one.expired_jobs:
            return id
        status = self._status(one, now)
        if status in ("STOPPING", "STOPPED") or (status != "RUNNING" and self._quirks.accepts_tasks == "running"):
            raise YottaProblem(wire.UNAVAILABLE, "serverless unavailable")
        if self._quirks.rate_limits and len(one.queue) + len(one.running) >= _MOST_TASKS:
            raise YottaProblem(wire.RATE, f"an endpoint may have {_MOST_TASKS} tasks")
        self._deliveries[one.id, id] = Delivery(number=self._new_id())

        def ended(job: EngineJob, then: float) -> None:
            self._deliver(one, job, then)

        job = self._engine.submit(one.id, body["input"], now, id=id, extra=extra, ended=ended)
        expose = one.terms.data["expose"]
        if self._quirks.other_ports_refuse and expose is not None and extra["port"] != expose["port"]:
            error = {"type": "ConnectionRefused", "message": f"connect to port {extra['port']}: connection refused"}
            self._engine.jobs.finish(one, job, JobStatus.FAILED, now, error=error)
        return id

    def get(self, one: EngineDeployment, id: str) -> EngineJob:
        try:
            return self._engine.jobs.get(one, id)
        except EngineRefused:
            raise YottaProblem(wire.TASK_MISSING, "task does not exist") from None

    def all(self, one: EngineDeployment, status: str | None) -> list[EngineJob]:
        """The newest first."""
        rows = sorted(one.jobs.values(), key=lambda job: (job.submitted_at, job.id), reverse=True)
        return [job for job in rows if status is None or self.status(one, job) == status]

    def count(self, one: EngineDeployment) -> int:
        return len(one.queue) + len(one.running)

    def status(self, one: EngineDeployment, job: EngineJob) -> str:
        if job.status is JobStatus.DONE:
            delivered = self.delivery(one, job).status == "SUCCESS"
            return "DELIVERED" if delivered and self._quirks.delivered == "after_webhook" else "SUCCESS"
        if job.status.is_terminal:
            return "FAILED"
        at_worker = job.status is JobStatus.RUNNING and self._quirks.delivered == "at_worker"
        return "DELIVERED" if at_worker else "PROCESSING"

    def delivery(self, one: EngineDeployment, job: EngineJob) -> Delivery:
        return self._deliveries.setdefault((one.id, job.id), Delivery(number=self._new_id()))

    def shown(self, one: EngineDeployment, job: EngineJob, *, whole: bool = True) -> dict[str, JSON]:
        """The task; *whole*: with what went in and came out."""
        engine, extra, delivery = self._engine, job.extra, self.delivery(one, job)
        last = job.finished_at or job.started_at or job.submitted_at
        shown: dict[str, JSON] = {
            "taskId": job.id,
            "endpointId": int(one.id),
            "endpointName": one.terms.data["name"],
            "status": self.status(one, job),
            "workerUrl": worker_url(job),
            "webhook": extra["webhook"],
            "deliveryStatus": delivery.status,
            "deliveryAttempts": delivery.attempts,
            "error": error_of(job),
            "createdAt": wire.millis(engine.wall(job.submitted_at)),
            "updatedAt": wire.millis(engine.wall(max(last, delivery.at or last))),
            "deliveredAt": None if delivery.at is None else wire.millis(engine.wall(delivery.at)),
        }
        if whole:
            shown |= {"input": extra["input"], "output": job.output, "headers": extra["headers"]}
        return shown

    def forget(self, endpoint: str) -> None:
        """An endpoint is gone."""
        self._rates = {key: rate for key, rate in self._rates.items() if key[0] != endpoint}
        self._deliveries = {key: one for key, one in self._deliveries.items() if key[0] != endpoint}

    # -- inside

    def _checked(self, one: EngineDeployment, body: Mapping[str, Any]) -> tuple[str, dict[str, JSON]]:
        given: object = body.get("input")
        if given is None or given in ("", [], {}):
            raise YottaProblem(wire.TASK_FIELD, "input is required")
        uri = str(body.get("processUri") or "")
        uri = uri if uri.startswith("/") else f"/{uri}"
        if not body.get("processUri") or len(uri) > 255 or not _URI.fullmatch(uri):
            raise YottaProblem(wire.TASK_FIELD, "processUri must be a path of at most 255 characters, without spaces")
        try:
            port = wire.whole(body.get("workerPort"), "workerPort", low=1, high=65535)
        except YottaProblem as exc:
            raise YottaProblem(wire.TASK_FIELD, exc.message) from None
        id = body.get("taskId") or str(uuid.uuid5(uuid.NAMESPACE_URL, str(self._new_id())))
        if body.get("taskId") and not (len(str(id)) <= 255 and _TASK_ID.fullmatch(str(id))):
            raise YottaProblem(wire.TASK_FIELD, "taskId can only contain letters, numbers, and underscores")
        webhook, secret = body.get("webhook"), body.get("webhookAuthKey")
        if webhook and not (len(str(webhook)) <= 512 and _WEBHOOK.fullmatch(str(webhook))):
            raise YottaProblem(wire.TASK_FIELD, "webhook must be a valid URL")
        headers: object = body.get("headers") or {}
        if not isinstance(headers, Mapping) or any(
            not isinstance(value, str) for value in cast("Mapping[str, object]", headers).values()
        ):
            raise YottaProblem(wire.TASK_FIELD, "headers must be texts by name")
        return str(id), {
            "path": uri,
            "port": port,
            "headers": dict(cast("Mapping[str, str]", headers)),
            "webhook": webhook or None,
            "secret": secret or None,
            "input": given,
        }

    def _deliver(self, one: EngineDeployment, job: EngineJob, now: float) -> None:
        """Call the task's webhook, and again later for as long as it fails."""
        url = job.extra["webhook"]
        if url is None or one.deleting:
            return
        delivery, waits = self.delivery(one, job), self._quirks.callback_waits
        headers = [("content-type", "application/json")]
        if job.extra["secret"] is not None:
            headers.append(("x-api-key", str(job.extra["secret"])))

        def told(tries: int, status: int | None, then: float) -> None:
            delivery.attempts = tries
            if status is not None and 200 <= status < 300:
                delivery.status, delivery.at, delivery.next_at = "SUCCESS", then, None
            elif tries > len(waits):
                delivery.status, delivery.next_at = "MAX_RETRIES_EXCEEDED", None
            else:
                delivery.status, delivery.next_at = "FAILED", then + waits[tries - 1]

        def body(tries: int) -> bytes:
            return json.dumps(self._notice(one, job, delivery.number, tries, now)).encode()

        callback = Callback(callback_id="", url=str(url), headers=tuple(headers))
        self._engine.callbacks.add(callback, waits=waits, told=told, body=body)

    def _notice(self, one: EngineDeployment, job: EngineJob, number: int, tries: int, now: float) -> dict[str, JSON]:
        done = job.status is JobStatus.DONE
        word = "Success" if done else "Failed"
        return {
            "task_id": number,
            "user_task_id": job.id,
            "endpoint_id": one.id,
            "status": word.upper() if self._quirks.callback_upper else word,
            "success": done,
            "timestamp": wire.spaced(self._engine.wall(now)),
            "retry_count": tries,
            "result": job.output if done else None,
            "failed_reason": error_of(job),
        }


def error_of(job: EngineJob) -> str | None:
    """Why it failed, in words; a worker's refusal is the status and what it said."""
    if job.error is None:
        return None
    kind, message = str(job.error.get("type", "")), str(job.error.get("message", ""))
    return f"worker answered HTTP {kind[4:]}: {message}" if kind.startswith("HTTP") else f"{kind}: {message}"


def worker_url(job: EngineJob) -> str | None:
    """What was called. Workers have no public address."""
    return None if job.worker_id is None else f"http://{job.worker_id}:{job.extra['port']}{job.extra['path']}"
