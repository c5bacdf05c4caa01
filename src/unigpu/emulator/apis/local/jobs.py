"""The local protocol's routes of jobs, http requests, workers and logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from unigpu.emulator.contract import JSON, Answer, Hold, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineDeployment, EngineJob, EngineRefused
from unigpu.models.job import JobStatus

from .wire import BadRequest, job_arguments, job_json, log_json, number, parse_object, worker_json

MOST_WAIT: Final = 60.0
MOST_HOLD: Final = 3600.0
_MOST_PAGE: Final = 1000
# Headers that end here: the token of this hop, and what was said to us.
_OURS: Final = frozenset({"authorization", "x-unigpu-authorization", "x-unigpu-wait", "x-unigpu-wake"})


class JobRoutes:
    """What a deployment is used by."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def answer(self, operation: str, pname: str, rest: str, call: HttpCall, now: float) -> Answer:
        engine = self._engine
        deployment = engine.deployments.get(pname, now)
        match operation:
            case "http":
                return self._http(pname, rest, call, now)
            case "worker.list":
                return Reply.json({"workers": [worker_json(engine, one, now) for one in engine.workers(pname)]})
            case "worker.logs":
                return self._logs(pname, rest, call, now)
            case "job.submit":
                if deployment.terms.interface != "function":
                    raise BadRequest("this deployment has the http interface: it takes requests, not jobs")
                job = engine.submit(pname, now=now, **job_arguments(parse_object(call.body)))
                return Reply.json(job_json(engine, deployment, job, now), status=202)
            case "job.cancel":
                job = engine.jobs.cancel(deployment, rest, now)
                return Reply.json(job_json(engine, deployment, job, now))
            case "job.get":
                job = engine.jobs.get(deployment, rest)
                return _held(
                    now + _wait(call),
                    now,
                    ready=lambda: job.status.is_terminal,
                    answer=lambda then: Reply.json(job_json(engine, deployment, job, then)),
                )
            case _:
                return self._stream(deployment, engine.jobs.get(deployment, rest), call, now)

    def _stream(self, deployment: EngineDeployment, job: EngineJob, call: HttpCall, now: float) -> Answer:
        after = int(number(call.query.get("after"), "after", 0, 1e9))

        def answer(_: float) -> Reply:
            page = job.chunks[after : after + _MOST_PAGE]
            reached = after + len(page)
            return Reply.json(
                {
                    "chunks": page,
                    "after": reached,
                    "end": job.status.is_terminal and reached >= len(job.chunks),
                    "status": job.status.value,
                    "ready_workers": len(deployment.ready()),
                    "started": job.status is not JobStatus.QUEUED,
                }
            )

        return _held(
            now + _wait(call), now, ready=lambda: len(job.chunks) > after or job.status.is_terminal, answer=answer
        )

    def _logs(self, pname: str, worker_id: str, call: HttpCall, now: float) -> Answer:
        engine = self._engine
        after = int(number(call.query.get("after"), "after", 0, 1e9))
        worker = engine.worker(pname, worker_id)

        def answer(_: float) -> Reply:
            lines = [log_json(line) for line in worker.log if line.n > after][:_MOST_PAGE]
            return Reply.json({"lines": lines, "after": lines[-1]["n"] if lines else after})

        return _held(now + _wait(call), now, ready=lambda: worker.logged > after or worker.gone, answer=answer)

    def _http(self, pname: str, path: str, call: HttpCall, now: float) -> Answer:
        hold = number(call.headers.get("x-unigpu-wait"), "x-unigpu-wait", self._engine.settings.hold, MOST_HOLD)
        wake = call.headers.get("x-unigpu-wake") == "1"
        headers = {name: value for name, value in call.headers.items() if name not in _OURS}
        if "x-unigpu-authorization" in call.headers:
            headers["authorization"] = call.headers["x-unigpu-authorization"]
        cut = len(call.path) - len(path) if call.path.endswith(path) else len(call.path)
        target = call.target[cut:] if call.target else ""
        if call.target and not target.startswith("/"):
            target = "/" + target
        inner = replace(call, path=path, headers=headers, target=target)
        try:
            return self._engine.lease(pname, inner, now, wait=hold, no_worker=_no_worker, wake=wake)
        except EngineRefused as exc:
            kind = "gone" if exc.kind == "not_found" else exc.kind
            return _no_worker(None, {"type": kind, "message": exc.message})


def _no_worker(_: EngineDeployment | None, error: Mapping[str, JSON]) -> Reply:
    kind = str(error["type"])
    status = {"stopped": 409, "gone": 404}.get(kind, 503)
    return Reply.json({"error": dict(error)}, status=status, headers=(("x-unigpu-error", kind),))


def _wait(call: HttpCall) -> float:
    return number(call.query.get("wait"), "wait", 0.0, MOST_WAIT)


def _held(until: float, now: float, *, ready: Callable[[], bool], answer: Callable[[float], Reply]) -> Answer:
    """The answer as soon as *ready* says so, and at *until* in any case."""
    if ready() or now >= until:
        return answer(now)
    return Hold(until=until, poll=lambda then: answer(then) if ready() or then >= until else None)
