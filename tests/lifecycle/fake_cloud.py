"""An atomic cloud in memory: parts, workers that take time to start, jobs, and faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unigpu._io.contract import UNSET, Headers, Request, Response
from unigpu.driver import (
    State,
)
from unigpu.errors import (
    TransportError,
)

BASE = "http://fake.test"


@dataclass
class Row:
    kind: str
    name: str
    attempt: str
    spec_hash: str
    created_at: float
    body: dict[str, Any]
    limits: tuple[int, int] = (0, 0)
    idle_timeout: float = 60.0
    scaling: Any = None
    stopped: bool = False
    deleting_until: float | None = None
    started: list[float] = field(default_factory=list)  # when each worker began to start


@dataclass
class Job:
    id: str
    row: Row
    input: dict[str, Any]
    submitted: float
    began: float | None = None
    ended: float | None = None
    status: str = "QUEUED"
    runs: int = 0
    lost: bool = False


@dataclass
class Fault:
    """``lost``: no answer arrives; ``refused``: it never leaves; or an HTTP status. Before or after the cloud acts."""

    operation: str
    kind: str | int
    when: str = "before"
    times: int = 1
    skip: int = 0


class FakeCloud:
    def __init__(self, clock: Any, *, kinds: Sequence[str] = ("deployment",), cold_start: float = 10.0) -> None:
        self.clock = clock
        self.kinds = tuple(kinds)
        self.cold_start = cold_start
        self.rows: dict[tuple[str, str], Row] = {}
        self.jobs: dict[str, Job] = {}
        self.faults: list[Fault] = []
        self.log: list[str] = []
        self.bodies: list[Any] = []
        self.created: list[tuple[str, str]] = []  # every create that acted, with its attempt
        self.start_failure: str | None = None  # every worker fails to start, in these words
        self.fails_after = 3
        self.tells_ready = True
        self.delete_takes = 0.0
        self.cancels = True
        self.lose_worker: int = 0  # so many jobs lose their worker

    @property
    def main(self) -> str:
        return self.kinds[-1]

    def handle(self, request: Request) -> Response:
        self.log.append(request.operation)
        fault = self._fault(request.operation)
        if fault is not None and fault.when == "before":
            return self._fail(fault, request)
        body = None if request.json is UNSET else request.json
        self.bodies.append(body)
        operation = request.operation.removeprefix("fake.")
        status, reply = getattr(self, "on_" + operation.replace(".", "_"))(request.url.removeprefix(BASE), body)
        if fault is not None:
            return self._fail(fault, request)
        import json

        return Response(
            status=status, headers=Headers(), content=json.dumps(reply).encode(), operation=request.operation
        )

    def _fault(self, operation: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation != operation or fault.times <= 0:
                continue
            if fault.skip > 0:
                fault.skip -= 1
                return None
            fault.times -= 1
            return fault
        return None

    def _fail(self, fault: Fault, request: Request) -> Response:
        if fault.kind == "lost":
            raise TransportError(f"{request.operation}: no answer", operation=request.operation)
        if fault.kind == "refused":
            raise TransportError(f"{request.operation}: refused", never_sent=True, operation=request.operation)
        return Response(status=int(fault.kind), headers=Headers(), content=b"{}", operation=request.operation)

    # resources

    def on_create(self, url: str, body: Any) -> tuple[int, Any]:
        key = (body["kind"], body["name"])
        row = self.row(*key)
        if row is not None and row.attempt != body["attempt"]:
            return 412, self.show(row)
        if row is None:
            row = Row(
                kind=body["kind"],
                name=body["name"],
                attempt=body["attempt"],
                spec_hash=body["spec_hash"],
                created_at=self.clock.wall(),
                body=dict(body),
                idle_timeout=body["idle_timeout"],
            )
            self.rows[key] = row
            self.created.append((row.kind, row.attempt))
        return 200, self.show(row)

    def on_get(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        return (404, {}) if row is None else (200, self.show(row))

    def on_list(self, url: str, body: Any) -> tuple[int, Any]:
        return 200, [self.show(row) for key in list(self.rows) if (row := self.row(*key)) and row.kind == self.main]

    def on_delete(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 200, {"deleted": False}
        if self.delete_takes:
            row.deleting_until = row.deleting_until or self.clock.now() + self.delete_takes
        else:
            del self.rows[row.kind, row.name]
        return 200, {"deleted": True}

    def on_patch(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if body.get("workers") is not None:
            row.limits = tuple(body["workers"])
        if body.get("idle_timeout") is not None:
            row.idle_timeout = body["idle_timeout"]
        if body.get("scaling") is not None:
            row.scaling = body["scaling"]
        self.fill(row)
        return 200, self.show(row)

    def on_update(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if body["attempt"] != row.attempt:
            return 412, {}
        row.spec_hash, row.body = body["spec_hash"], {**row.body, **body}
        return 200, self.show(row)

    def on_wake(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if not row.started and row.limits[1] > 0:
            row.started.append(self.clock.now())
        return 200, {}

    def on_stop(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        row.stopped, row.started = True, []
        return 200, {}

    def on_start(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        row.stopped = False
        self.fill(row)
        return 200, {}

    def on_workers(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, []
        now, out = self.clock.now(), []
        for n, at in enumerate(row.started):
            if self.start_failure is not None:
                tries = int((now - at) // self.cold_start)
                out += [{"id": f"w{n}-{i}", "state": "FAILED", "reason": self.start_failure} for i in range(tries)]
                out.append({"id": f"w{n}-{tries}", "state": "STARTING", "reason": None})
            else:
                out.append({"id": f"w{n}", "state": "IDLE" if now >= at + self.cold_start else "STARTING"})
        return 200, out

    # jobs

    def on_submit(self, url: str, body: Any) -> tuple[int, Any]:
        row = self.row(*url.strip("/").split("/"))
        if row is None:
            return 404, {}
        if row.stopped:
            return 409, {}
        job = self.jobs.get(body["id"])
        if job is None:
            job = self.jobs[body["id"]] = Job(id=body["id"], row=row, input=body["input"], submitted=self.clock.now())
            if not row.started and row.limits[1] > 0:
                row.started.append(self.clock.now())
        return 200, self.show_job(job)

    def on_status(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        return (404, {}) if job is None else (200, self.show_job(job))

    def on_cancel(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        if job is None:
            return 404, {}
        self.step(job)
        if job.ended is None and self.cancels:
            job.status, job.ended = "CANCELLED", self.clock.now()
        return 200, self.show_job(job)

    def on_chunks(self, url: str, body: Any) -> tuple[int, Any]:
        job = self.jobs.get(url.strip("/"))
        if job is None:
            return 404, {}
        self.step(job)
        every = float(job.input.get("every", 1.0))
        total = int(job.input.get("chunks", 0))
        there = 0 if job.began is None else min(total, int((self.clock.now() - job.began) // every) + 1)
        after = body["after"]
        return 200, {
            "chunks": list(range(after, there)),
            "after": there,
            "end": job.ended is not None,
            "ready_workers": self.ready(job.row) if self.tells_ready else None,
            "started": job.began is not None,
        }

    # what follows from time

    def row(self, kind: str, name: str) -> Row | None:
        row = self.rows.get((kind, name))
        if row is None:
            return None
        if row.deleting_until is not None and self.clock.now() >= row.deleting_until:
            del self.rows[kind, name]
            return None
        return row

    def fill(self, row: Row) -> None:
        while not row.stopped and len(row.started) < row.limits[0]:
            row.started.append(self.clock.now())
        del row.started[max(row.limits[1], 0) :]

    def ready(self, row: Row) -> int:
        if self.start_failure is not None:
            return 0
        return sum(self.clock.now() >= at + self.cold_start for at in row.started)

    def step(self, job: Job) -> None:
        now, row = self.clock.now(), job.row
        if job.ended is not None or self.start_failure is not None:
            return
        if job.began is None and row.started:
            at = min(row.started) + self.cold_start + float(job.input.get("queue", 0.0))
            if now >= max(at, job.submitted):
                job.began = max(at, job.submitted)
                job.status = "RUNNING"
                job.runs += 1
        if job.began is not None and now >= job.began + float(job.input.get("seconds", 0.0)):
            job.ended = now
            if self.lose_worker:
                self.lose_worker -= 1
                job.status, job.lost = "FAILED", True
            else:
                job.status = "FAILED" if job.input.get("raise") else "DONE"

    def state(self, row: Row) -> State:
        if row.deleting_until is not None:
            return State.DELETING
        if row.stopped:
            return State.STOPPED
        if not row.started:
            return State.COLD
        if self.start_failure is not None:
            failed = int((self.clock.now() - row.started[0]) // self.cold_start)
            return State.FAILED if failed >= self.fails_after else State.STARTING
        return State.READY if self.ready(row) else State.STARTING

    def show(self, row: Row) -> dict[str, Any]:
        return {
            "kind": row.kind,
            "name": row.name,
            "attempt": row.attempt,
            "spec_hash": row.spec_hash,
            "created_at": row.created_at,
            "expires_at": row.body.get("expires_at"),
            "origin": row.body.get("origin"),
            "logical": row.body.get("logical"),
            "namespace": row.body.get("namespace"),
            "state": str(self.state(row)),
            "reason": self.start_failure if self.state(row) is State.FAILED else None,
            "workers": list(row.limits),
            "idle_timeout": row.idle_timeout,
            "scaling": row.scaling,
            "ready_workers": self.ready(row),
        }

    def show_job(self, job: Job) -> dict[str, Any]:
        self.step(job)
        return {
            "id": job.id,
            "status": job.status,
            "output": {"echo": job.input} if job.status == "DONE" else None,
            "error": job.input.get("raise") if job.status == "FAILED" else None,
            "lost": job.lost,
            "ready_workers": self.ready(job.row) if self.tells_ready else None,
        }
