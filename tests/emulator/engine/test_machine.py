"""Random calls, events and time against the engine, by a driver that is late, doubles events, and loses workers."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import (
    Answer,
    CancelPush,
    Chunk,
    Effect,
    Forward,
    ForwardDone,
    Hold,
    HttpCall,
    JobDone,
    Persist,
    Push,
    Reply,
    StartWorker,
    StopWorker,
    WorkerExited,
    WorkerLog,
    WorkerReady,
    WorkerStarted,
)
from unigpu.emulator.engine import Engine, EngineSettings
from unigpu.models.identity import provider_name

FULL = os.environ.get("UNIGPU_FULL") == "1"

pytestmark = [pytest.mark.full] if FULL else []

NAMES = ("fn", "web")
JOBS = [f"j{n}" for n in range(6)]
RARE = st.integers(0, 2)
TERMINAL = {"DONE", "FAILED", "CANCELLED"}


def body_of(name: str, least: int, more: int, concurrency: int, idempotent: bool, handler: str) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": "default",
        "attempt": "a",
        "spec_hash": "1:h",
        "interface": "function" if name == "fn" else "http",
        "kind": "serverless",
        "workers": {"min": least, "max": least + more},
        "idle_timeout": 5,
        "execution_timeout": 20,
        "concurrency": concurrency,
        "idempotent": idempotent,
        "launch": {"handler": handler},
    }


@dataclass
class Real:
    """A worker as the driver knows it."""

    deployment: str
    started: float
    ready: bool = False
    stopping: bool = False
    jobs: set[str] = field(default_factory=set)
    leases: set[str] = field(default_factory=set)


class EngineMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.engine = self.fresh()
        self.real: dict[str, Real] = {}
        self.seen: set[str] = set()
        self.holds: list[Hold] = []
        self.ended: Counter[tuple[str, int]] = Counter()
        self.journal: dict[tuple[str, str], Persist] = {}
        self.fail_next_put = False
        self.billed = 0.0
        self.generation: Counter[str] = Counter()

    def fresh(self) -> Engine:
        limits = EngineSettings(
            start_limit=30, result_ttl=50, backoff=0.5, backoff_broken=4, backoff_most=20, drain_limit=8, hold=15
        )
        engine = Engine(now=self.now, wall=lambda now: now + 1000, settings=limits)
        engine.mount(LocalEmulator(engine))
        return engine

    # The driver.

    def turn(self) -> None:
        for effect in self.engine.tick(self.now):
            self.carry_out(effect)
        due = self.engine.next_due()
        if due is not None and due <= self.now:  # a record that failed to be written changed something
            for effect in self.engine.tick(self.now):
                self.carry_out(effect)
            due = self.engine.next_due()
        assert due is None or due > self.now, "next_due does not progress"
        still: list[Hold] = []
        for hold in self.holds:
            found = hold.poll(self.now)
            if found is None:
                assert self.now < hold.until, "a hold was not answered at its time"
                still.append(hold)
            elif isinstance(found, Forward):
                self.forwarded(found)
        self.holds = still

    def forwarded(self, forward: Forward) -> None:
        worker = self.real.get(forward.worker_id)
        if worker is None:  # it ended in the same moment: the driver answers 502
            self.engine.event(ForwardDone(worker_id=forward.worker_id, lease=forward.lease), self.now)
            return
        assert worker.ready
        worker.leases.add(forward.lease)
        self.check_slots(forward.worker_id)

    def check_slots(self, worker_id: str) -> None:
        worker = self.real[worker_id]
        known = {w.id: w for w in self.engine.workers(worker.deployment)}
        if worker_id in known:
            assert len(worker.jobs) + len(worker.leases) <= known[worker_id].concurrency, "above its concurrency"

    def carry_out(self, effect: Effect) -> None:
        match effect:
            case StartWorker():
                assert effect.worker_id not in self.seen, "a worker id came twice"
                self.seen.add(effect.worker_id)
                self.real[effect.worker_id] = Real(effect.deployment_id, self.now)
                alive = sum(1 for one in self.real.values() if one.deployment == effect.deployment_id)
                try:
                    most = self.engine.deployments.get(effect.deployment_id, self.now).terms.max_workers
                except Exception:  # its creation was undone in this very turn
                    return
                assert self.fail_next_put or alive <= most, "above the most workers"
            case StopWorker():
                worker = self.real.get(effect.worker_id)
                if worker is not None:
                    assert not worker.stopping, "stopped twice"
                    worker.stopping = True
            case Push():
                worker = self.real[effect.worker_id]
                assert worker.ready, "a job for a worker that is not ready"
                assert not worker.stopping, "a job for a worker that is ending"
                assert effect.job_id not in worker.jobs
                worker.jobs.add(effect.job_id)
                self.check_slots(effect.worker_id)
            case CancelPush():
                assert effect.worker_id in self.seen
            case Persist():
                self.persist(effect)

    def persist(self, record: Persist) -> None:
        if record.kind in ("deployment", "deployment_gone") and self.fail_next_put:
            self.engine.undo_persist(record, self.now)
            return
        kind = record.kind.removesuffix("_gone")
        if record.kind == "job" and record.record["status"] in TERMINAL:
            key = (record.id, self.generation[str(record.record["deployment"])])
            self.ended[key] += 1
            assert self.ended[key] == 1, "a job ended twice"
        if record.kind == "job_gone":  # forgotten: after a restart the id is free again
            for key in [key for key in self.ended if key[0] == record.id]:
                del self.ended[key]
        if record.kind == "deployment" and (kind, record.id) not in self.journal:
            self.generation[record.id] += 1
        self.journal.pop((kind, record.id), None)
        if kind == record.kind:
            json.dumps(record.record)
            self.journal[kind, record.id] = record

    def call(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
        path, _, query = path.partition("?")
        answer = self.engine.handle(
            HttpCall(
                method=method,
                path=path,
                query=dict(pair.split("=") for pair in query.split("&") if pair),
                headers=headers or {},
                body=b"" if body is None else json.dumps(body).encode(),
                host="127.0.0.1",
            ),
            self.now,
        )
        if isinstance(answer, Hold):
            assert answer.until >= self.now
            self.holds.append(answer)
        self.turn()
        if isinstance(answer, Forward):
            self.forwarded(answer)
        if isinstance(answer, Reply):
            assert answer.status in (200, 201, 202, 404, 409, 412, 429, 503), (method, path, answer)
        return answer

    def url(self, name: str, rest: str = "") -> str:
        return f"/v1/deployments/{provider_name('default', name)}{rest}"

    # Calls.

    @initialize(more=st.integers(1, 3), concurrency=st.integers(1, 2), idempotent=st.booleans())
    def both_are_deployed(self, **fields: Any) -> None:
        for name in NAMES:
            self.call("PUT", self.url(name), body_of(name, 0, handler="a:f", **fields), {"if-none-match": "*"})

    @rule(ids=st.lists(st.sampled_from(JOBS), min_size=1, max_size=4, unique=True), requests=st.integers(0, 2))
    def work_comes_and_workers_with_it(self, ids: list[str], requests: int) -> None:
        for id in ids:
            self.submit(id, 0, False)
        for _ in range(requests):
            self.request()
        for id in self.workers():
            self.is_ready(id)

    @rule(
        name=st.sampled_from(NAMES),
        least=st.integers(0, 2),
        more=st.integers(0, 3),
        concurrency=st.integers(1, 2),
        idempotent=st.booleans(),
        handler=st.sampled_from(["a:f", "b:f"]),
        replace=st.booleans(),
    )
    def put(self, name: str, replace: bool, **fields: Any) -> None:
        headers = {"if-match": "a"} if replace else {"if-none-match": "*"}
        self.call("PUT", self.url(name), body_of(name, **fields), headers)

    @rule(
        name=st.sampled_from(NAMES), rare=RARE, what=st.sampled_from(["delete", "full-put", "full-delete", "restart"])
    )
    def something_rare(self, name: str, rare: int, what: str) -> None:
        if rare:
            return
        match what:
            case "delete":
                self.delete(name)
            case "full-put":
                self.put_on_a_full_disk(name, True)
            case "full-delete":
                self.delete_on_a_full_disk(name)
            case _:
                self.supervisor_restarts()

    def put_on_a_full_disk(self, name: str, replace: bool) -> None:
        self.fail_next_put = True
        headers = {"if-match": "a"} if replace else {"if-none-match": "*"}
        before = self.engine.deployments.list(self.now)
        kept = {one.id: one.terms for one in before if not one.deleting}
        self.call("PUT", self.url(name), body_of(name, 1, 1, 1, False, "c:f"), headers)
        self.fail_next_put = False
        after = {one.id: one.terms for one in self.engine.deployments.list(self.now) if not one.deleting}
        assert after == kept, "a record that was not written changed something"

    def delete_on_a_full_disk(self, name: str) -> None:
        self.fail_next_put = True
        before = set(self.engine.deployment_ids())
        self.call("DELETE", self.url(name))
        self.fail_next_put = False
        assert set(self.engine.deployment_ids()) == before

    @rule(name=st.sampled_from(NAMES), least=st.integers(0, 2), more=st.integers(0, 3))
    def patch(self, name: str, least: int, more: int) -> None:
        self.call("PATCH", self.url(name), {"workers": {"min": least, "max": least + more}, "idle_timeout": more})

    @rule(name=st.sampled_from(NAMES), verb=st.sampled_from(["wake", "start", "wake", "stop"]))
    def pause(self, name: str, verb: str) -> None:
        self.call("POST", self.url(name, f"/{verb}"))

    def delete(self, name: str) -> None:
        self.call("DELETE", self.url(name))

    @rule(id=st.sampled_from(JOBS), value=st.integers(0, 1), stream=st.booleans())
    def submit(self, id: str, value: int, stream: bool) -> None:
        self.call("POST", self.url("fn", "/jobs"), {"id": id, "input": {"v": value}, "stream": stream})

    @rule(id=st.sampled_from(JOBS), what=st.sampled_from(["?wait=10", "/stream?after=1&wait=5", "/cancel"]))
    def job(self, id: str, what: str) -> None:
        self.call("POST" if what == "/cancel" else "GET", self.url("fn", f"/jobs/{id}{what}"))

    @rule()
    def request(self) -> None:
        self.call("POST", self.url("web", "/http/v1/x"), {"a": 1}, {"x-unigpu-wait": "7"})

    @precondition(lambda self: self.holds)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        hold = data.draw(st.sampled_from(self.holds))
        self.holds.remove(hold)
        if hold.abandoned is not None:
            hold.abandoned(self.now)
        self.turn()

    # Events.

    def workers(self) -> list[str]:
        return sorted(self.real)

    @precondition(lambda self: self.real)
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        self.is_ready(data.draw(st.sampled_from(self.workers())))

    def is_ready(self, id: str) -> None:
        self.real[id].ready = True
        self.engine.event(WorkerStarted(worker_id=id, pid=1), self.now)
        self.engine.event(WorkerLog(worker_id=id, text="hello"), self.now)
        self.engine.event(WorkerReady(worker_id=id), self.now)
        self.turn()

    @precondition(lambda self: self.real)
    @rule(data=st.data(), code=st.sampled_from([0, 1, None]), twice=st.booleans())
    def exit(self, data: st.DataObject, code: int | None, twice: bool) -> None:
        id = data.draw(st.sampled_from(self.workers()))
        del self.real[id]
        for _ in range(1 + twice):
            self.engine.event(WorkerExited(worker_id=id, code=code), self.now)
        self.turn()

    @precondition(lambda self: self.seen)
    @rule(data=st.data(), job=st.sampled_from(JOBS))
    def news_of_a_worker_that_is_gone(self, data: st.DataObject, job: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.seen)))
        if id in self.real:
            return
        for event in (
            WorkerStarted(worker_id=id),
            WorkerReady(worker_id=id),
            WorkerLog(worker_id=id, text="late"),
            Chunk(worker_id=id, job_id=job, value=1),
            JobDone(worker_id=id, job_id=job, output=1),
            ForwardDone(worker_id=id, lease="lease-1"),
            WorkerExited(worker_id=id, code=0),
        ):
            self.engine.event(event, self.now)
        self.turn()

    @precondition(lambda self: any(worker.jobs for worker in self.real.values()))
    @rule(data=st.data(), how=st.sampled_from(["ok", "ok", "error", "lost", "busy", "twice", "chunk"]))
    def job_done(self, data: st.DataObject, how: str) -> None:
        id = data.draw(st.sampled_from([id for id in self.workers() if self.real[id].jobs]))
        job = data.draw(st.sampled_from(sorted(self.real[id].jobs)))
        if how == "chunk":
            self.engine.event(Chunk(worker_id=id, job_id=job, value=1), self.now)
            self.turn()
            return
        self.real[id].jobs.discard(job)
        error = {"type": "ValueError", "message": "no"} if how == "error" else None
        event = JobDone(worker_id=id, job_id=job, output=1, error=error, lost=how == "lost", busy=how == "busy")
        for _ in range(2 if how == "twice" else 1):
            self.engine.event(event, self.now)
        self.turn()

    @precondition(lambda self: any(worker.leases for worker in self.real.values()))
    @rule(data=st.data(), status=st.sampled_from([200, None]))
    def forward_done(self, data: st.DataObject, status: int | None) -> None:
        id = data.draw(st.sampled_from([id for id in self.workers() if self.real[id].leases]))
        lease = data.draw(st.sampled_from(sorted(self.real[id].leases)))
        self.real[id].leases.discard(lease)
        self.engine.event(ForwardDone(worker_id=id, lease=lease, status=status), self.now)
        self.turn()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 1.0, 3.0, 6.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        target = self.now + seconds
        while True:
            dues = [hold.until for hold in self.holds]
            if (due := self.engine.next_due()) is not None:
                dues.append(due)
            # A driver kills what it was told to stop, within the grace: here after a second.
            dues += [self.now + 1.0 for worker in self.real.values() if worker.stopping]
            following = min(dues, default=None)
            if following is None or following > target:
                break
            self.now = max(self.now, following)
            for id in [id for id in self.workers() if self.real[id].stopping]:
                del self.real[id]
                self.engine.event(WorkerExited(worker_id=id, code=-15), self.now)
            self.turn()
        self.now = target
        self.turn()

    def supervisor_restarts(self) -> None:
        records = [record for _, record in sorted(self.journal.items())]
        unfinished = {
            (r.record["deployment"], r.id) for r in records if r.kind == "job" and r.record["status"] not in TERMINAL
        }
        self.engine = self.fresh()
        self.real.clear()
        self.holds.clear()
        self.billed = 0.0
        self.engine.restore(records, self.now)
        for deployment in self.engine.deployments.list(self.now):
            assert not deployment.workers
            for id, job in deployment.jobs.items():
                assert job.status.is_terminal
                if (deployment.id, f"{deployment.id}/{id}") in unfinished:
                    assert job.error is not None
                    assert job.error["message"] == "supervisor restarted"
        self.seen = {f"old-{id}" for id in self.seen}
        self.turn()

    # What always holds.

    @invariant()
    def everything_is_counted_once(self) -> None:
        for deployment in self.engine.deployments.list(self.now):
            queued = [id for id, job in deployment.jobs.items() if job.status.value == "QUEUED"]
            running = {id for id, job in deployment.jobs.items() if job.status.value == "RUNNING"}
            assert sorted(deployment.queue) == sorted(queued)
            assert deployment.running == running
            for id in running:
                worker = deployment.workers[deployment.jobs[id].worker_id or ""]
                assert id in worker.jobs
            shown = [worker.id for worker in deployment.everyone()]
            assert len(shown) == len(set(shown)), "a worker is shown twice"
            assert all(worker.running == 0 for worker in deployment.ended)
            for worker in deployment.workers.values():
                assert worker.running <= worker.concurrency
                assert (worker.idle_since is not None) <= (worker.running == 0)
            for job in deployment.jobs.values():
                assert job.waited >= job.cold - 1e-9
                assert job.cold >= -1e-9
                assert (job.finished_at is not None) == job.status.is_terminal

    @invariant()
    def the_bill_grows_only_while_workers_run(self) -> None:
        report = self.engine.meter.report(self.now)
        assert report["billed_s"] >= self.billed - 1e-6
        self.billed = report["billed_s"]
        running = sum(row["workers_running"] for row in report["deployments"].values())
        started = sum(
            1
            for one in self.engine.deployments.list(self.now)
            for worker in one.workers.values()
            if worker.started_at is not None
        )
        assert running == started
        if not running:
            assert self.engine.meter.report(self.now + 1000)["billed_s"] == report["billed_s"]

    @invariant()
    def what_is_shown_is_json(self) -> None:
        for name in NAMES:
            for rest in ("", "/workers"):
                answer = self.engine.handle(
                    HttpCall(method="GET", path=self.url(name, rest), host="127.0.0.1"), self.now
                )
                assert isinstance(answer, Reply)
                shown = json.loads(answer.body)
                if rest == "" and answer.status == 200:
                    assert shown["state"] in {"COLD", "STARTING", "READY", "DEGRADED", "STOPPED", "DELETING", "FAILED"}

    def teardown(self) -> None:
        """Left alone without work, everything comes to its least, and after a delete to nothing."""
        for name in NAMES:
            self.call("DELETE", self.url(name))
        for _ in range(30):
            self.time_passes(30.0)
        assert not self.real
        assert not self.holds
        assert not self.engine.deployments.list(self.now)


TestEngine = EngineMachine.TestCase
TestEngine.settings = settings(
    max_examples=2000 if FULL else 60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
