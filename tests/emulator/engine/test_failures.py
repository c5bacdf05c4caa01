"""Workers that crash, hang or start slowly: found, explained, and not tried for ever."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unigpu.emulator.contract import HttpCall, JobDone, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior

BROKEN = Behavior(start="crash", cold_start=0.2, lines=("loading", "ModuleNotFoundError: torch"), code=3)


def test_a_crash_loop_is_told_quickly_with_its_last_lines(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN)
    cloud.deploy()
    cloud.submit("j1")
    job = cloud.finish("j1")
    assert job["status"] == "FAILED"
    assert job["error"]["type"] == "WorkerFailed"
    assert job["error"]["reason"] == "crash_loop"
    assert job["error"]["logs"] == ["loading", "ModuleNotFoundError: torch"]
    assert not job["lost"]
    assert job["execution_s"] is None
    shown = cloud.show()
    assert shown["state"] == "FAILED"
    assert shown["failure"]["reason"] == "crash_loop"
    assert "ended before it was ready: exited with code 3" in shown["reason"]
    assert cloud.virtual.effects["StartWorker"] == 3
    before = cloud.now
    second = cloud.submit("j2")
    assert second["status"] == "FAILED"  # at once: no worker is tried before the backoff is over
    assert second["error"]["retry_after"] > 0
    assert cloud.now == before
    assert [worker["state"] for worker in cloud.workers()] == ["FAILED"] * 3


def test_a_later_request_tries_again_and_the_backoff_grows(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN, backoff_broken=10.0)
    cloud.deploy()
    cloud.submit("j1")
    cloud.finish("j1")
    waits = []
    for n in range(4):
        refused = cloud.submit(f"refused{n}")
        waits.append(round(refused["error"]["retry_after"]))
        cloud.advance(refused["error"]["retry_after"])
        cloud.submit(f"tried{n}")
        assert cloud.finish(f"tried{n}")["error"]["reason"] == "crash_loop"
    assert waits == [10, 20, 40, 80]
    assert cloud.virtual.effects["StartWorker"] == 3 + 4
    cloud.virtual.behave("hello", Behavior())
    cloud.advance(400)
    cloud.submit("good")
    assert cloud.finish("good")["status"] == "DONE"
    assert cloud.show()["failure"] is None


def test_nothing_is_started_for_a_broken_deployment_that_nobody_calls(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN)
    cloud.deploy()
    cloud.submit("j1")
    cloud.finish("j1")
    cloud.advance(3000)
    assert cloud.virtual.effects["StartWorker"] == 3


def test_a_least_of_workers_is_tried_again_by_itself_ever_more_rarely(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN, backoff_broken=10.0, backoff_most=300.0)
    cloud.deploy(workers={"min": 1, "max": 1})
    cloud.advance(3600)
    assert 10 <= cloud.virtual.effects["StartWorker"] <= 20
    cloud.virtual.behave("hello", Behavior())
    cloud.advance(301)
    assert cloud.show()["state"] == "READY"


def test_replacing_a_broken_deployment_forgets_its_failures(make_cloud: Any) -> None:

    cloud = make_cloud(BROKEN)
    cloud.deploy()
    cloud.submit("j1")
    cloud.finish("j1")
    cloud.virtual.behave("hello", Behavior())
    cloud.ask("PUT", cloud.url(), cloud.body(launch={"handler": "fixed:handle"}), if_match='"a1"')
    assert cloud.show()["state"] == "COLD"
    cloud.submit("j2")
    assert cloud.finish("j2")["status"] == "DONE"


def test_a_worker_that_hangs_in_start_is_a_failed_probe(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(start="hang", lines=("downloading",)), start_limit=30.0)
    cloud.deploy()
    cloud.submit("j1")
    job = cloud.finish("j1")
    assert job["error"]["reason"] == "probe"
    assert "not ready within 30 s" in job["error"]["message"]
    assert cloud.virtual.effects == cloud.virtual.effects | {"StartWorker": 3, "StopWorker": 3}
    assert cloud.show()["workers_total"] == 0
    assert cloud.now >= 90


def test_a_slow_start_is_waited_for(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=500.0))
    cloud.deploy()
    cloud.submit("j1")
    assert cloud.finish("j1")["cold_start_s"] == pytest.approx(500.0)


def test_the_cause_that_a_driver_tells_is_the_reason(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(start="crash", reason="killed by SIGKILL", cause="out_of_memory"))
    cloud.deploy()
    cloud.submit("j1")
    assert cloud.finish("j1")["error"]["reason"] == "out_of_memory"
    assert "killed by SIGKILL" in cloud.show()["reason"]


def test_a_lost_worker_fails_its_job_as_lost_and_the_next_job_runs(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=10.0))
    cloud.deploy()
    cloud.submit("j1")
    cloud.advance(2)
    running = cloud.job("j1")
    assert running["status"] == "RUNNING"
    cloud.virtual.crash(running["worker_id"])
    job = cloud.job("j1")
    assert (job["status"], job["lost"], job["tries"]) == ("FAILED", True, 1)
    assert "killed by SIGKILL" in job["error"]["message"]
    cloud.submit("j2")
    assert cloud.finish("j2")["status"] == "DONE"
    assert cloud.show()["failure"] is None  # it proved itself again


def test_an_idempotent_job_runs_once_more_and_before_the_others(make_cloud: Any) -> None:
    order: list[str] = []
    cloud = make_cloud(Behavior(run=lambda x: order.append(x["n"]), duration=10.0))
    cloud.deploy(idempotent=True)
    for n in ("first", "second"):
        cloud.submit(n, {"n": n})
    cloud.advance(2)
    cloud.virtual.crash(cloud.job("first")["worker_id"])
    assert cloud.job("first")["status"] == "QUEUED"
    assert cloud.finish("first")["tries"] == 2
    cloud.finish("second")
    assert order == ["first", "second"]


def test_an_idempotent_job_is_tried_at_most_twice(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(job="crash"))
    cloud.deploy()
    cloud.submit("j1", idempotent=True)
    job = cloud.finish("j1")
    assert (job["status"], job["lost"], job["tries"]) == ("FAILED", True, 2)


def test_a_job_over_its_execution_timeout_fails_and_frees_its_worker(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=lambda x: x["s"]))
    cloud.deploy(execution_timeout=5)
    cloud.submit("long", {"s": 100})
    cloud.submit("short", {"s": 1})
    assert cloud.finish("long")["error"]["type"] == "ExecutionTimeout"
    assert cloud.finish("short")["status"] == "DONE"
    assert cloud.virtual.effects["StartWorker"] == 1


def test_a_hung_worker_is_replaced_and_the_queue_goes_on(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(job=lambda x: "hang" if x.get("hang") else "answer"))
    cloud.deploy(execution_timeout=5)
    cloud.submit("bad", {"hang": True})
    cloud.submit("good")
    job = cloud.finish("bad")
    assert job["error"] == {"type": "ExecutionTimeout", "message": "timed out after 5 s"}
    assert cloud.finish("good")["status"] == "DONE"
    states = [(worker["state"], worker["reason"]) for worker in cloud.workers()]
    assert states[0][0] == "FAILED"
    assert "does not let go" in states[0][1]


def test_a_job_can_have_its_own_execution_timeout(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=8.0))
    cloud.deploy(execution_timeout=5)
    cloud.submit("j1", execution_timeout=20)
    assert cloud.finish("j1")["status"] == "DONE"


def test_a_busy_worker_is_asked_again_without_counting_a_try(make_cloud: Any) -> None:
    answers = iter(["busy", "busy", "answer"])
    cloud = make_cloud(Behavior(job=lambda _: next(answers)))
    cloud.deploy()
    cloud.submit("j1")
    job = cloud.finish("j1")
    assert (job["status"], job["tries"]) == ("DONE", 1)


def test_a_worker_that_is_busy_for_ever_is_replaced(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(job="busy"), let_go=5.0)
    cloud.deploy()
    cloud.submit("j1")
    cloud.advance(30)
    assert "busy" in cloud.workers()[0]["reason"]
    assert cloud.virtual.effects["Push"] < 400  # not a hot loop


def test_a_worker_that_lost_a_job_is_left_alone_until_its_end_is_known(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=10.0))
    cloud.deploy(idempotent=True)
    cloud.submit("j1")
    cloud.advance(2)
    worker = cloud.job("j1")["worker_id"]
    cloud.engine.event(JobDone(worker_id=worker, job_id="j1", lost=True), cloud.now)
    cloud.advance(0.5)
    assert cloud.job("j1")["status"] == "QUEUED"
    assert cloud.virtual.effects["Push"] == 1


def test_a_lost_job_does_not_prove_its_worker(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=10.0))
    cloud.deploy()
    for n in range(3):
        cloud.advance(20)
        cloud.submit(f"j{n}")
        cloud.advance(3)
        worker = cloud.job(f"j{n}")["worker_id"]
        cloud.engine.event(JobDone(worker_id=worker, job_id=f"j{n}", lost=True), cloud.now)
        cloud.virtual.crash(worker)
    assert cloud.submit("next")["error"]["reason"] == "crash_loop"


def test_a_stream_of_which_some_was_read_is_not_begun_again(make_cloud: Any) -> None:
    def run(_: Any) -> Any:
        yield from range(4)

    cloud = make_cloud(Behavior(run=run, duration=8.0))
    cloud.deploy(idempotent=True)
    cloud.submit("j1", stream=True)
    cloud.advance(4)
    job = cloud.job("j1")
    cloud.virtual.crash(job["worker_id"])
    assert (cloud.job("j1")["status"], cloud.job("j1")["lost"]) == ("FAILED", True)
    page = cloud.ask("GET", cloud.url(rest="/jobs/j1/stream"))
    assert (page["chunks"], page["end"]) == ([0], True)


def test_a_broken_deployment_is_tried_with_one_worker_however_many_call(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN)
    cloud.deploy(workers={"min": 0, "max": 5})
    cloud.submit("j")
    cloud.finish("j")
    started = cloud.virtual.effects["StartWorker"]
    cloud.advance(400)
    for n in range(5):
        cloud.submit(f"j{n}")
    cloud.advance(1)
    assert cloud.virtual.effects["StartWorker"] == started + 1
    assert [cloud.job(f"j{n}")["status"] for n in range(5)] == ["FAILED"] * 5


def test_a_handlers_own_error_is_data_and_no_failure_of_the_worker(make_cloud: Any) -> None:
    def run(_: Any) -> None:
        raise ValueError("no such text")

    cloud = make_cloud(Behavior(run=run))
    cloud.deploy()
    for n in range(5):
        cloud.submit(f"j{n}")
        job = cloud.finish(f"j{n}")
        assert job["error"] == {"type": "ValueError", "message": "no such text"}
        assert not job["lost"]
    assert cloud.virtual.effects["StartWorker"] == 1
    assert cloud.show()["state"] == "READY"


def test_workers_that_die_in_service_again_and_again_are_a_crash_loop(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(job="crash", cause="out_of_memory"))
    cloud.deploy(workers={"min": 1, "max": 1})
    for n in range(3):
        cloud.advance(20)
        cloud.submit(f"j{n}")
        assert cloud.finish(f"j{n}")["lost"]
    assert cloud.submit("next")["error"]["reason"] == "out_of_memory"


def test_http_requests_are_told_the_same_way(make_cloud: Any) -> None:
    cloud = make_cloud(BROKEN)
    cloud.deploy(interface="http")
    reply = cloud.raw("GET", cloud.url(rest="/http/v1/models"), x_unigpu_wait="100")
    assert isinstance(reply, Reply)
    assert reply.status == 503
    assert dict(reply.headers)["x-unigpu-error"] == "WorkerFailed"
    assert json.loads(reply.body)["error"]["logs"][-1] == "ModuleNotFoundError: torch"


def test_a_request_whose_worker_dies_is_a_502_of_ours(make_cloud: Any) -> None:
    def crash(_: HttpCall) -> Reply:
        raise AssertionError("never reached")

    cloud = make_cloud(Behavior(job="crash", http=crash))
    cloud.deploy(interface="http")
    reply = cloud.raw("GET", cloud.url(rest="/http/x"))
    assert (reply.status, dict(reply.headers)["x-unigpu-error"]) == (502, "worker_lost")
    assert cloud.show()["running"] == 0
