"""The serverless engine's half of the Vast emulator (``run.vast.ai``): routes, worker lists, logs, and reports.

Sources: https://docs.vast.ai/api-reference/serverless/route.md; vastai 1.9.1, ``serverless/client/client.py`` (what a
client sends and reads) and ``serverless/server/lib/metrics.py`` (what a worker reports).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, HttpCall, Reply, WorkerReady, worker_number
from unigpu.emulator.engine import Engine, EngineDeployment, EngineWorker
from unigpu.models.deployment import WorkerState

from .scaling import COST, group_of, settle, template_of
from .signing import public_key, sign_route
from .state import (
    ENDPOINT,
    WORKERGROUP,
    Report,
    VastAccount,
    body_of,
    number,
    number_of,
    whole,
)

PORT: Final = 33526
ASK_S: Final = 15.0
"""How long a caller who got no worker counts as waiting: the official client comes back within 5 seconds."""
_ERROR_SHOWN_S: Final = 60.0
_PLACEHOLDER_PERF: Final = 90.1
_STATUS: Final[Mapping[WorkerState, str]] = {
    WorkerState.PLACING: "creating",
    WorkerState.STARTING: "loading",
    WorkerState.IDLE: "idle",
    WorkerState.BUSY: "idle",
    WorkerState.DRAINING: "stopping",
    WorkerState.STOPPED: "stopped",
    WorkerState.FAILED: "error",
}


class Serverless:
    """Routing and reporting of one account."""

    def __init__(self, account: VastAccount) -> None:
        self._account = account
        self._engine = account.engine

    def answer(self, operation: str, call: HttpCall, now: float) -> Reply | None:
        """The answer of one of these routes; ``None``: it is none of them."""
        match operation:
            case "route":
                return self._route(body_of(call), now)
            case "worker.list" | "workergroup.workers":
                return self._workers(operation, body_of(call), now)
            case "logs" | "workergroup.logs":
                return self._logs(operation, body_of(call), now)
            case "workers.update":
                return self._update(body_of(call), now)
            case "pubkey":
                return text(public_key(), "text/plain")
            case "worker.status":
                return self._status(body_of(call), now)
            case "requests.delete":
                return self._done(body_of(call), now)
            case _:
                return None

    def endpoint_key_owner(self, key: str, now: float) -> EngineDeployment | None:
        """The endpoint whose own key this is."""
        for one in self._account.all(ENDPOINT, now):
            if hmac.compare_digest(str(one.terms.data["api_key"]).encode(), key.encode()):
                return one
        return None

    # -- routes

    def _route(self, body: Mapping[str, Any], now: float) -> Reply:
        quirks = self._account.quirks
        endpoint = self._named(body, now)
        if endpoint is None:
            message = (
                f"authenticate_endpoint_apikey: endpoint {body.get('endpoint') or body.get('endpoint_id')} not found"
            )
            status = 200 if quirks.route_errors_as_200 else 400
            return Reply.json({"error": message, "error_msg": message}, status=status)
        name = endpoint.terms.data["name"]
        given = whole(body, "request_idx", 0)
        index = given or self._account.new_request()
        cost = number(body, "cost", COST)
        worker = None if endpoint.stopped else self._pick(endpoint, cost, str(index), now)
        request_id = f"{self._account.text(32)}-{self._account.text(16)}"
        if worker is not None:
            url = self.url_of(worker)
            self._release(endpoint, str(index), now)
            keep = number(body, "replay_timeout", 60.0)
            self._engine.claim(endpoint.id, worker.id, str(index), now, keep=keep)
            return Reply.json(
                {
                    "endpoint": name,
                    "url": url,
                    "cost": cost,
                    "reqnum": index,
                    "request_idx": index,
                    "signature": sign_route(url),
                    "__request_id": request_id,
                }
            )
        if not endpoint.stopped:
            self._engine.ask(endpoint.id, str(index), now, keep=ASK_S)
        answer: dict[str, JSON] = {
            "endpoint": name,
            "status": self._breakdown(endpoint),
            "request_idx": index,
            "__request_id": request_id,
        }
        if not given and quirks.early_without_idx:
            del answer["request_idx"]
        return Reply.json(answer)

    def _pick(self, endpoint: EngineDeployment, cost: float, key: str, now: float) -> EngineWorker | None:
        """The worker that would be done with its work first, unless that is too far off."""
        most = float(endpoint.terms.data["max_queue_time"])
        ready = [worker for worker in endpoint.ready() if not worker.condemned]
        found = min(ready, key=lambda worker: (self.queue_time(endpoint, worker, cost), worker.id), default=None)
        if found is None or self.queue_time(endpoint, found, cost) > most:
            return None
        return found

    def queue_time(self, endpoint: EngineDeployment, worker: EngineWorker, cost: float = COST) -> float:
        """Seconds of work that a worker has before it."""
        pinned = sum(1 for id in endpoint.queue if endpoint.jobs[id].pin == worker.id)
        return (worker.load + pinned) * cost / self.perf(endpoint, worker)

    def perf(self, endpoint: EngineDeployment, worker: EngineWorker) -> float:
        report = self._account.reports.get(worker.id)
        measured = 0.0 if report is None else report.perf
        return measured or self._account.quirks.perf * endpoint.terms.concurrency

    def url_of(self, worker: EngineWorker) -> str:
        report = self._account.reports.get(worker.id)
        if report is not None and report.url is not None:
            return report.url
        return f"https://{self._account.address(worker.id)}:{PORT}"

    def _release(self, endpoint: EngineDeployment, key: str, now: float) -> None:
        """A request that is routed again is no longer where it was sent before."""
        for worker in endpoint.workers.values():
            self._engine.unclaim(worker.id, key, now)

    def _named(self, body: Mapping[str, Any], now: float) -> EngineDeployment | None:
        id, name = body.get("endpoint_id"), body.get("endpoint")
        for one in self._account.all(ENDPOINT, now):
            if (id is not None and number_of(one) == id) or (name is not None and one.terms.data["name"] == name):
                return one
        return None

    def _breakdown(self, endpoint: EngineDeployment) -> str:
        if endpoint.stopped:
            return f"endpoint {endpoint.terms.data['name']} is stopped"
        count: dict[str, int] = {}
        for _, status in self._shown(endpoint):
            count[status] = count.get(status, 0) + 1
        return "no workers" if not count else "workers: " + ", ".join(f"{n} {status}" for status, n in count.items())

    # -- lists and logs

    def _workers(self, operation: str, body: Mapping[str, Any], now: float) -> Reply:
        endpoint = self._subject(operation == "workergroup.workers", body, now)
        if endpoint is None:
            return self._told(f"authenticate_endpoint_apikey: invalid api_key or endpoint {body.get('id')} not found")
        measured = operation == "worker.list"
        rows = [self._worker_json(endpoint, worker, status, now, measured) for worker, status in self._shown(endpoint)]
        return Reply.json(rows if self._account.quirks.bare_list else {"workers": rows})

    def _worker_json(
        self, endpoint: EngineDeployment, worker: EngineWorker, status: str, now: float, measured: bool
    ) -> dict[str, JSON]:
        report = self._account.reports.get(worker.id) or Report()
        perf = self.perf(endpoint, worker) if worker.ready_at is not None else 0.0
        wall = self._engine.wall
        row: dict[str, JSON] = {
            "id": worker_number(worker.id),
            "status": status,
            "cur_load": report.cur_load or worker.load * COST,
            "new_load": report.new_load,
            "cur_load_rolling_avg": report.cur_load or worker.load * COST,
            "cur_perf": report.cur_perf,
            "perf": perf or _PLACEHOLDER_PERF,
            "dlperf": _PLACEHOLDER_PERF,
            "reliability": 0.99,
            "reqs_working": worker.load,
            "disk_usage": report.disk_usage,
            "loaded_at": 0.0
            if worker.ready_at is None
            else wall(worker.ready_at),  # the official client wants a number
            "started_at": wall(worker.created_at if worker.started_at is None else worker.started_at),
            "gpu_name": self._gpu(endpoint),
        }
        if measured:
            row["measured_perf"] = perf or _PLACEHOLDER_PERF
        return row

    def _gpu(self, endpoint: EngineDeployment) -> str:
        wanted: object = None
        group = group_of(self._account, number_of(endpoint), endpoint.created_at)
        if group is not None:
            tests = cast("Mapping[str, Mapping[str, JSON]]", group.terms.data["search_query"]).get("gpu_name", {})
            wanted = tests.get("eq") or (tests.get("in") or [None])[0]
        return str(wanted or "RTX 4090")

    def _shown(self, endpoint: EngineDeployment) -> Sequence[tuple[EngineWorker, str]]:
        return [(worker, self.status(endpoint, worker)) for worker in present(self._engine, endpoint)]

    def status(self, endpoint: EngineDeployment, worker: EngineWorker) -> str:
        """A worker's status, in the platform's word."""
        if worker.state is WorkerState.DRAINING:
            if worker.failed_start or worker.condemned:
                return "error"
            gone = endpoint.deleting or worker.dismissed or not endpoint.keep
            return "destroying" if gone else "stopping"
        if worker.state is WorkerState.STARTING and worker.again:
            return "starting"
        return _STATUS.get(worker.state, "unavail")

    def _logs(self, operation: str, body: Mapping[str, Any], now: float) -> Reply:
        endpoint = self._subject(operation == "workergroup.logs", body, now)
        if endpoint is None:
            return self._told(f"authenticate_endpoint_apikey: invalid api_key or endpoint {body.get('id')} not found")
        tail = whole(body, "tail", 10_000)
        lines: list[tuple[float, str]] = [(endpoint.created_at, f"endpoint {endpoint.terms.data['name']} created")]
        for worker in self._engine.workers(endpoint.id):
            id = worker_number(worker.id)
            lines.append((worker.created_at, f"recruiting worker {id}"))
            if worker.ready_at is not None:
                lines.append((worker.ready_at, f"worker {id} is loaded, perf {self.perf(endpoint, worker):g}"))
            if worker.ended_at is not None:
                lines.append((worker.ended_at, f"worker {id} left: {worker.reason or 'not needed'}"))
        told = [f"{self._engine.wall(at):.3f} {line}" for at, line in sorted(lines)][-tail:]
        return Reply.json({"info0": "\n".join(told), "info1": "", "trace": "", "debug": ""})

    def _subject(self, of_group: bool, body: Mapping[str, Any], now: float) -> EngineDeployment | None:
        if not of_group:
            return self._named({"endpoint_id": body.get("id"), "endpoint": body.get("endpoint")}, now)
        for group in self._account.all(WORKERGROUP, now):
            if number_of(group) == body.get("id"):
                return self._named({"endpoint_id": group.terms.data["endpoint_id"]}, now)
        return None

    def _told(self, message: str) -> Reply:
        if self._account.quirks.errors_as_200:
            return Reply.json(message)
        return Reply.json({"error_msg": message}, status=400)

    def _update(self, body: Mapping[str, Any], now: float) -> Reply:
        """A rolling update: workers of another template are drained and replaced when the engine looks."""
        endpoint = self._subject(True, {"id": body.get("workergroup_id")}, now)
        if endpoint is None:
            return Reply.json({"error_msg": f"workergroup {body.get('workergroup_id')} not found"})
        if body.get("cancel_update"):
            return Reply.json({"success": True, "cancelled": True})
        old = sum(1 for worker in endpoint.workers.values() if worker.alive)
        group = self._account.find(WORKERGROUP, whole(body, "workergroup_id", 0), now)
        if (template := template_of(self._account, group.terms.data, now)) is not None:
            self._engine.deployments.patch(group.id, now, data={"template": dict(template.terms.data)})
        settle(self._account, endpoint, now)
        return Reply.json({"success": True, "workers_to_update": old})

    # -- what workers tell

    def _status(self, body: Mapping[str, Any], now: float) -> Reply:
        found = self._reporter(body.get("id"), body.get("mtoken"), now)
        if found is None:
            return Reply.json({"error": "unknown worker"}, status=401)
        endpoint, worker = found
        report = self._account.reports.setdefault(worker.id, Report())
        measured = report.perf
        report.perf = number(body, "max_perf", 0.0)
        report.cur_load, report.new_load = number(body, "cur_load", 0.0), number(body, "new_load", 0.0)
        report.cur_perf, report.disk_usage = number(body, "cur_perf", 0.0), number(body, "disk_usage", 0.0)
        report.url = str(body.get("url") or "") or None
        problem = body.get("error_msg")
        if isinstance(problem, str) and problem:
            self._engine.fail_worker(endpoint.id, worker.id, problem[:500], now)
            return Reply.json({"success": True})
        self._follow(endpoint, worker, report, body.get("working_request_idxs"), now)
        if report.perf > 0 and number(body, "loadtime", 0.0) > 0:
            self._engine.event(WorkerReady(worker_id=worker.id, address=report.url), now)
            if report.perf != measured:
                settle(self._account, endpoint, now)
        return Reply.json({"success": True})

    def _follow(
        self, endpoint: EngineDeployment, worker: EngineWorker, report: Report, working: object, now: float
    ) -> None:
        """What the worker says that it runs is what keeps it from being idle."""
        known = {str(index) for index in cast("list[object]", working)} if isinstance(working, list) else set[str]()
        for key in known - report.confirmed:
            self._engine.claim(endpoint.id, worker.id, key, now, keep=None)
        for key in report.confirmed - known:
            self._engine.unclaim(worker.id, key, now)
        report.confirmed = known

    def _done(self, body: Mapping[str, Any], now: float) -> Reply:
        found = self._reporter(body.get("worker_id"), body.get("mtoken"), now)
        if found is None:
            return Reply.json({"error": "unknown worker"}, status=401)
        _, worker = found
        report = self._account.reports.setdefault(worker.id, Report())
        requests: object = body.get("requests")
        for each in cast("list[Mapping[str, JSON]]", requests) if isinstance(requests, list) else []:
            key = str(each.get("request_idx"))
            report.confirmed.discard(key)
            self._engine.unclaim(worker.id, key, now)
        return Reply.json({"success": True})

    def _reporter(self, id: object, token: object, now: float) -> tuple[EngineDeployment, EngineWorker] | None:
        """The worker that reports, if the token is the one that its workergroup was given."""
        found = self._account.worker(id, now) if isinstance(id, int) else None
        if found is None or found[1].gone:
            return None
        expected = found[0].terms.launch.per_worker.get("MASTER_TOKEN", "")
        if not isinstance(token, str) or not hmac.compare_digest(expected.encode(), token.encode()):
            return None
        return found


def present(engine: Engine, endpoint: EngineDeployment) -> list[EngineWorker]:
    """The workers whose machines are there: those that live, are kept stopped, or failed lately."""
    return [
        worker
        for worker in engine.workers(endpoint.id)
        if not worker.gone
        or worker.id in endpoint.shelf
        or (worker.state is WorkerState.FAILED and engine.now - (worker.ended_at or 0.0) <= _ERROR_SHOWN_S)
    ]


def text(value: str, kind: str) -> Reply:
    return Reply(headers=(("content-type", kind),), body=value.encode())
