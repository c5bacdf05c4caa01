"""What RunPod's worker program says to its platform, by hand: it takes jobs, reports, streams, is told to stop."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unigpu.emulator.apis.runpod.emulator import Quirks, RunPodEmulator
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior, Pending, VirtualCloud

KEY = "rpa_key"


class Worker:
    """One worker, as its container sees the platform."""

    def __init__(self, world: World, endpoint: str, id: str) -> None:
        self.world, self.endpoint, self.id = world, endpoint, id
        self.key = world.face.account.worker_key(endpoint)

    def call(self, method: str, operation: str, rest: str = "", body: Any = None, **query: Any) -> HttpCall:
        path = f"/v2/{self.endpoint}/{operation}/{self.id}{rest}"
        given = {"gpu": "none", **{name: str(value) for name, value in query.items()}}
        content = b"" if body is None else json.dumps(body).encode()
        # Its key has no Bearer, and its JSON says that it is a form.
        headers = {"authorization": self.key, "content-type": "application/x-www-form-urlencoded"}
        return HttpCall(method=method, path=path, query=given, headers=headers, body=content, host="api.runpod.ai")

    def take(self, *, batch: int = 1, busy: bool = False) -> Any:
        operation = "job-take" if batch == 1 else "job-take-batch"
        more = {} if batch == 1 else {"batch_size": batch}
        return self.world.answer(self.call("GET", operation, job_in_progress=int(busy), **more))

    def done(self, job: str, **body: Any) -> None:
        assert self.world.answer(self.call("POST", "job-done", f"/{job}", body, isStream="false")) == {"status": "ok"}

    def chunk(self, job: str, value: Any) -> None:
        body = {"output": value}
        assert self.world.answer(self.call("POST", "job-stream", f"/{job}", body, isStream="true")) == {"status": "ok"}

    def stop_signals(self) -> Any:
        return self.world.answer(self.call("GET", "job-stop"))

    def ping(self, *jobs: str, **more: Any) -> Any:
        return self.world.answer(self.call("GET", "ping", job_id=",".join(jobs), runpod_version="1.12.0", **more))


class World:
    """An emulator whose workers come for their jobs. The simulation starts them; they never report ready."""

    def __init__(self, **quirks: Any) -> None:
        self.cloud = VirtualCloud(behavior=Behavior(start="hang"))
        self.face = RunPodEmulator(self.cloud.engine, key=KEY, processes=True, quirks=Quirks(rate_limits=(), **quirks))
        self.cloud.mount(self.face)

    def answer(self, call: HttpCall) -> Any:
        reply = self.cloud.call(call)
        assert isinstance(reply, Reply), reply
        if reply.status == 204:
            return None
        return json.loads(reply.body) if reply.status == 200 else reply.status

    def begin(self, call: HttpCall) -> Pending:
        return self.cloud.begin(call)

    def user(self, method: str, path: str, body: Any = None, *, host: str = "api.runpod.ai") -> Any:
        content = b"" if body is None else json.dumps(body).encode()
        headers = {"authorization": f"Bearer {KEY}"}
        reply = self.cloud.call(HttpCall(method=method, path=path, headers=headers, body=content, host=host))
        assert isinstance(reply, Reply)
        return json.loads(reply.body) if reply.body else None

    def endpoint(self, **changes: Any) -> str:
        body = {
            "name": "app",
            "type": "QUEUE",
            "image": "i",
            "gpu": {"pools": ["ADA_24"], "count": 1},
            "workers": {"min": 0, "max": 1, "idleTimeout": 5},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "cmd": ["python", "worker.py"],
            **changes,
        }
        return str(self.user("POST", "/v2/serverless", body, host="api.runpod.io")["id"])

    def run(self, endpoint: str, **input: Any) -> str:
        return str(self.user("POST", f"/v2/{endpoint}/run", {"input": input})["id"])

    def status(self, endpoint: str, job: str) -> Any:
        return self.user("GET", f"/v2/{endpoint}/status/{job}")

    def worker(self, endpoint: str) -> Worker:
        (found,) = self.cloud.engine.workers(endpoint)
        return Worker(self, endpoint, found.id)


@pytest.fixture
def world() -> World:
    return World()


def test_what_a_worker_is_started_with_is_what_runpods_program_reads(world: World) -> None:
    id = world.endpoint(env={"MODEL": "m"})
    launch = world.cloud.engine.deployments.get(id, 0.0).terms.launch
    assert (launch.argv, launch.env, launch.reports) == (("python", "worker.py"), {"MODEL": "m"}, True)
    own = dict(launch.per_worker)
    assert own["RUNPOD_POD_ID"] == "{worker}"
    assert own["RUNPOD_WEBHOOK_GET_JOB"].endswith(f"/v2/{id}/job-take/$ID?gpu=none")
    assert KEY not in str(own)


def test_a_worker_is_ready_when_it_asks_for_work_and_a_job_goes_through_it(world: World) -> None:
    id = world.endpoint()
    job = world.run(id, a=1)
    world.cloud.advance(30)
    assert world.user("GET", f"/v2/{id}/health")["workers"]["initializing"] == 1
    worker = world.worker(id)
    assert worker.take() == {"id": job, "input": {"a": 1}}
    assert world.status(id, job)["status"] == "IN_PROGRESS"
    world.cloud.advance(2)
    worker.done(job, output={"b": 2})
    done = world.status(id, job)
    assert (done["status"], done["output"], done["workerId"], done["executionTime"]) == (
        "COMPLETED",
        {"b": 2},
        worker.id,
        2000,
    )


def test_a_worker_that_asks_is_held_until_there_is_a_job(world: World) -> None:
    id = world.endpoint(workers={"min": 1, "max": 1, "idleTimeout": 5})
    world.cloud.advance(1)
    worker = world.worker(id)
    began = world.cloud.clock.now()
    assert worker.take() is None
    assert 5 <= world.cloud.clock.now() - began < 90  # the program gives up after 90 s
    pending = world.begin(worker.call("GET", "job-take", job_in_progress=0))
    assert pending.poll(world.cloud.clock.now()) is None
    job = world.run(id, a=1)
    reply = pending.poll(world.cloud.clock.now())
    assert isinstance(reply, Reply)
    assert json.loads(reply.body)["id"] == job


def test_a_worker_takes_as_many_as_it_asks_for(world: World) -> None:
    id = world.endpoint()
    jobs = [world.run(id, n=n) for n in range(5)]
    world.cloud.advance(1)
    worker = world.worker(id)
    assert [one["id"] for one in worker.take(batch=3)] == jobs[:3]
    assert [one["id"] for one in worker.take(batch=2, busy=True)] == jobs[3:]


def test_progress_is_shown_as_output_until_there_is_one(world: World) -> None:
    id = world.endpoint()
    job = world.run(id, a=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    worker.done(job, status="IN_PROGRESS", output={"at": 1})
    assert (world.status(id, job)["status"], world.status(id, job)["output"]) == ("IN_PROGRESS", {"at": 1})
    worker.done(job, output="end")
    assert world.status(id, job)["output"] == "end"
    worker.done(job, status="IN_PROGRESS", output={"at": 2})  # too late to change anything
    assert world.status(id, job)["output"] == "end"


def test_chunks_are_streamed_and_the_aggregate_is_the_output(world: World) -> None:
    id = world.endpoint()
    for sent, told in (([], [1, 2]), ([1, 2], [1, 2])):
        job = world.run(id, a=1)
        world.cloud.advance(1)
        worker = world.worker(id)
        worker.take()
        worker.chunk(job, 1)
        assert world.user("GET", f"/v2/{id}/stream/{job}") == {"status": "IN_PROGRESS", "stream": [{"output": 1}]}
        worker.chunk(job, 2)
        worker.done(job, output=sent)
        assert world.user("GET", f"/v2/{id}/stream/{job}") == {"status": "COMPLETED", "stream": [{"output": 2}]}
        assert world.status(id, job)["output"] == told


def test_a_failure_is_told_as_the_worker_wrote_it(world: World) -> None:
    id = world.endpoint()
    text = json.dumps({"error_type": "<class 'ValueError'>", "error_message": "no"})
    job = world.run(id, a=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    worker.done(job, error=text)
    assert (world.status(id, job)["status"], world.status(id, job)["error"]) == ("FAILED", text)


def test_a_cancelled_job_is_named_to_its_worker_which_goes_on_with_the_next(world: World) -> None:
    id = world.endpoint()
    first, second = world.run(id, n=1), world.run(id, n=2)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    assert worker.stop_signals() is None  # held, and nothing came
    world.user("POST", f"/v2/{id}/cancel/{first}")
    assert worker.stop_signals() == {"jobsToStop": [first]}
    # It says nothing of a job that it stopped; but it asks for work, and has none.
    assert worker.take()["id"] == second
    worker.done(first, output="too late")
    assert world.status(id, first)["status"] == "CANCELLED"
    world.cloud.advance(60)
    assert [one.id for one in world.cloud.engine.workers(id) if not one.gone] == [worker.id]


def test_a_heartbeat_without_the_job_says_that_it_was_let_go(world: World) -> None:
    id = world.endpoint()
    job = world.run(id, n=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    worker.ping(job)
    world.user("POST", f"/v2/{id}/cancel/{job}")
    worker.ping()
    assert world.cloud.engine.worker(id, worker.id).running == 0


def test_a_worker_that_must_go_gets_no_more_jobs_and_is_not_held(world: World) -> None:
    id = world.endpoint()
    job = world.run(id, n=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    worker.done(job, output=1)
    pending = world.begin(worker.call("GET", "job-take", job_in_progress=0))
    world.cloud.advance(5.5)  # its idle timeout
    reply = pending.poll(world.cloud.clock.now())
    assert isinstance(reply, Reply)
    assert reply.status == 204
    world.cloud.advance(30)
    assert world.user("GET", f"/v2/{id}/health")["workers"]["idle"] == 0


def test_a_worker_that_asks_to_be_refreshed_is_replaced(world: World) -> None:
    id = world.endpoint(workers={"min": 1, "max": 1, "idleTimeout": 5})
    job = world.run(id, n=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.take()
    worker.done(job, output=1, stopPod=True)
    world.cloud.advance(10)
    assert world.status(id, job)["status"] == "COMPLETED"
    alive = [one.id for one in world.cloud.engine.workers(id) if one.alive]
    assert len(alive) == 1
    assert alive != [worker.id]


def test_only_the_workers_own_key_opens_these_routes_and_it_opens_no_other(world: World) -> None:
    id, other = world.endpoint(), world.endpoint(name="other")
    world.run(id, n=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    own = worker.key
    for key in ("", KEY, world.face.account.worker_key(other)):
        worker.key = key
        assert worker.take() == 401
    worker.key = own
    call = HttpCall(method="GET", path=f"/v2/{id}/health", headers={"authorization": own}, host="api.runpod.ai")
    reply = world.cloud.call(call)
    assert isinstance(reply, Reply)
    assert reply.status == 401
    worker.id = "nobody"
    assert worker.take() == 404


def test_an_unhealthy_worker_says_why_in_its_log(world: World) -> None:
    id = world.endpoint()
    world.run(id, n=1)
    world.cloud.advance(1)
    worker = world.worker(id)
    worker.ping(status="unhealthy", check="gpu", reason="no card")
    assert "no card" in world.cloud.engine.logs(id, worker.id)[-1].text
