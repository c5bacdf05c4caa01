"""Jobs: their ids, results, cancelling, streams, and http requests."""

from __future__ import annotations

import json
from typing import Any

from unigpu.emulator.contract import HttpCall, JobDone, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior


def test_the_same_id_and_content_is_the_same_job_and_other_content_a_conflict(cloud: Any) -> None:
    cloud.deploy()
    cloud.submit("j1", {"x": 1})
    cloud.finish("j1")
    assert cloud.submit("j1", {"x": 1})["status"] == "DONE"
    assert cloud.virtual.effects["Push"] == 1
    error = cloud.ask("POST", cloud.url(rest="/jobs"), {"id": "j1", "input": {"x": 2}}, status=409)["error"]
    assert error["type"] == "conflict"


def test_results_are_kept_for_the_stated_time_and_then_known_as_expired(make_cloud: Any) -> None:
    cloud = make_cloud(result_ttl=100.0)
    cloud.deploy()
    cloud.submit("j1")
    job = cloud.finish("j1")
    cloud.advance(99)
    assert cloud.job("j1")["output"] == {}
    assert job["kept_until"] == cloud.job("j1")["finished_at"] + 100
    cloud.advance(2)
    for method, rest in [("GET", "/jobs/j1"), ("GET", "/jobs/j1/stream"), ("POST", "/jobs/j1/cancel")]:
        assert cloud.ask(method, cloud.url(rest=rest), status=404)["error"]["type"] == "expired"
    # Not run again under the same id: its caller would take the second result for the first.
    assert (
        cloud.ask("POST", cloud.url(rest="/jobs"), {"id": "j1", "input": {}}, status=404)["error"]["type"] == "expired"
    )
    assert cloud.ask("GET", cloud.url(rest="/jobs/other"), status=404)["error"]["type"] == "not_found"
    assert ("job", cloud.show()["id"] + "/j1") not in cloud.virtual.journal


def test_where_results_are_too_much_to_keep_the_oldest_go_first(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=10_000.0), most_kept=100)
    cloud.deploy(concurrency=9)
    for n in range(5):
        cloud.submit(f"j{n}")
    cloud.advance(2)
    (worker,) = cloud.workers()

    def answer(n: int, size: int) -> None:
        cloud.engine.event(JobDone(worker_id=worker["id"], job_id=f"j{n}", output="x", size=size), cloud.now)
        cloud.advance(0)

    answer(0, 60)
    answer(1, 60)
    assert [cloud.job(f"j{n}")["output"] for n in (0, 1)] == ["x", "x"], "callers may be about to ask"
    cloud.advance(61)
    answer(2, 30)
    assert cloud.ask("GET", cloud.url(rest="/jobs/j0"), status=404)["error"]["type"] == "expired"
    assert ("job", cloud.show()["id"] + "/j0") not in cloud.virtual.journal
    assert [cloud.job(f"j{n}")["output"] for n in (1, 2)] == ["x", "x"]
    cloud.advance(61)
    answer(3, 500)  # larger than all that may be kept: it is still told
    assert cloud.job("j3")["output"] == "x"
    for n in (1, 2):
        cloud.ask("GET", cloud.url(rest=f"/jobs/j{n}"), status=404)


def test_jobs_run_in_the_order_they_came(make_cloud: Any) -> None:
    order: list[int] = []
    cloud = make_cloud(Behavior(run=lambda x: order.append(x["n"])))
    cloud.deploy()
    for n in range(10):
        cloud.submit(f"j{n}", {"n": n})
    cloud.finish("j9")
    assert order == list(range(10))


def test_a_worker_never_has_more_than_its_concurrency(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=10.0))
    cloud.deploy(concurrency=3, workers={"min": 0, "max": 2})
    for n in range(10):
        cloud.submit(f"j{n}")
    cloud.advance(2)
    assert [worker["jobs_running"] for worker in cloud.workers()] == [3, 3]
    assert cloud.show()["running"] == 6
    assert cloud.show()["queued"] == 4


def test_a_queued_job_is_cancelled_at_once_and_never_runs(make_cloud: Any) -> None:
    ran: list[Any] = []
    cloud = make_cloud(Behavior(run=ran.append, cold_start=5.0))
    cloud.deploy()
    cloud.submit("j1", {"n": 1})
    cancelled = cloud.ask("POST", cloud.url(rest="/jobs/j1/cancel"))
    assert cancelled["status"] == "CANCELLED"
    cloud.advance(60)
    assert ran == []
    assert cloud.ask("POST", cloud.url(rest="/jobs/j1/cancel"))["status"] == "CANCELLED"


def test_a_running_job_is_cancelled_and_its_worker_goes_on(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=lambda x: x["s"]))
    cloud.deploy()
    cloud.submit("long", {"s": 100})
    cloud.advance(2)
    assert cloud.ask("POST", cloud.url(rest="/jobs/long/cancel"))["status"] == "CANCELLED"
    assert cloud.virtual.effects["CancelPush"] == 1
    cloud.submit("next", {"s": 1})
    assert cloud.finish("next")["status"] == "DONE"
    assert cloud.virtual.effects["StartWorker"] == 1


def test_cancelling_what_has_ended_changes_nothing(cloud: Any) -> None:
    cloud.deploy()
    cloud.submit("j1")
    cloud.finish("j1")
    assert cloud.ask("POST", cloud.url(rest="/jobs/j1/cancel"))["status"] == "DONE"


def test_chunks_come_by_a_cursor_and_are_not_drained(make_cloud: Any) -> None:
    def run(x: Any) -> Any:
        yield from range(x["n"])

    cloud = make_cloud(Behavior(run=run, duration=8.0))
    cloud.deploy()
    cloud.submit("j1", {"n": 4}, stream=True)
    seen: list[Any] = []
    after = 0
    pages = 0
    while True:
        page = cloud.ask("GET", cloud.url(rest="/jobs/j1/stream"), query={"after": str(after), "wait": "20"})
        seen += page["chunks"]
        after = page["after"]
        pages += 1
        if page["end"]:
            break
    assert seen == [0, 1, 2, 3]
    assert pages >= 4  # they arrived as they were made
    assert page["status"] == "DONE"
    again = cloud.ask("GET", cloud.url(rest="/jobs/j1/stream"), query={"after": "2"})
    assert (again["chunks"], again["after"], again["end"]) == ([2, 3], 4, True)


def test_a_stream_says_whether_anybody_took_the_job_yet(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=30.0))
    cloud.deploy()
    cloud.submit("j1", stream=True)
    page = cloud.ask("GET", cloud.url(rest="/jobs/j1/stream"), query={"wait": "5"})
    assert (page["chunks"], page["end"], page["started"], page["ready_workers"]) == ([], False, False, 0)
    assert cloud.now >= 5


def test_a_long_poll_answers_when_the_job_ends_or_the_wait_is_over(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=1.0, duration=8.0))
    cloud.deploy()
    cloud.submit("j1")
    began = cloud.now
    assert cloud.job("j1", wait=3)["status"] == "RUNNING"
    assert cloud.now == began + 3
    assert cloud.job("j1", wait=60)["status"] == "DONE"
    assert cloud.now == began + 9


def test_async_handlers_and_generators_run_in_simulated_workers(make_cloud: Any) -> None:
    async def run(x: Any) -> Any:
        return x["n"] * 2

    async def stream(x: Any) -> Any:
        for n in range(x["n"]):
            yield n

    cloud = make_cloud()
    for name, handler in (("one", run), ("many", stream)):
        cloud.virtual.behave(name, Behavior(run=handler))
        cloud.deploy(name)
        cloud.submit("j1", {"n": 3}, name=name)
    assert cloud.finish("j1", "one")["output"] == 6
    assert cloud.finish("j1", "many")["output"] == [0, 1, 2]


def test_a_full_queue_refuses(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=100.0), most_queued=2)
    cloud.deploy()
    cloud.submit("j1")
    cloud.submit("j2")
    error = cloud.ask("POST", cloud.url(rest="/jobs"), {"id": "j3", "input": {}}, status=429)["error"]
    assert error["type"] == "queue_full"


def test_http_requests_wake_a_worker_and_are_held_not_dropped(make_cloud: Any) -> None:
    calls: list[HttpCall] = []

    def serve(call: HttpCall) -> Reply:
        calls.append(call)
        return Reply.json({"hello": call.path}, status=201)

    cloud = make_cloud(Behavior(http=serve, cold_start=20.0, duration=1.0))
    cloud.deploy(interface="http", idle_timeout=30)
    call = HttpCall(
        method="POST",
        path=cloud.url(rest="/http/v1/a b"),
        target=cloud.url(rest="/http/v1/a%20b?x=1&x=2"),
        query={"x": "2"},
        headers={
            "authorization": "Bearer t0ken",
            "x-unigpu-authorization": "Bearer theirs",
            "x-unigpu-wait": "60",
            "x-own": "1",
        },
        body=b"raw",
        host="localhost",
    )
    reply = cloud.virtual.call(call)
    assert (reply.status, json.loads(reply.body)) == (201, {"hello": "/v1/a b"})
    assert cloud.now >= 21
    assert calls[0].target == "/v1/a%20b?x=1&x=2"
    assert calls[0].body == b"raw"
    assert dict(calls[0].headers) == {"authorization": "Bearer theirs", "x-own": "1"}
    assert cloud.show()["running"] == 0
    cloud.advance(29)
    assert cloud.show()["ready_workers"] == 1  # a request is activity
    cloud.advance(2)
    assert cloud.show()["state"] == "COLD"


def test_the_token_of_the_cloud_never_reaches_a_worker(make_cloud: Any) -> None:
    seen: list[HttpCall] = []
    cloud = make_cloud(Behavior(http=lambda call: seen.append(call) or Reply.json({})))
    cloud.deploy(interface="http")
    cloud.ask("GET", cloud.url(rest="/http/"))
    assert "t0ken" not in repr([(dict(call.headers), call.path, call.target, call.body) for call in seen])
    assert seen[0].path == "/"


def test_a_request_without_a_worker_in_time_is_told_so(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=100.0))
    cloud.deploy(interface="http")
    reply = cloud.raw("GET", cloud.url(rest="/http/x"), x_unigpu_wait="5")
    assert (reply.status, dict(reply.headers)["x-unigpu-error"]) == (503, "no_worker")
    assert cloud.now == 5
    assert cloud.show()["queued"] == 0


def test_requests_are_served_in_the_order_they_came(make_cloud: Any) -> None:
    order: list[str] = []
    cloud = make_cloud(Behavior(http=lambda call: order.append(call.path) or Reply.json({}), duration=5.0))
    cloud.deploy(interface="http")
    pending = [cloud.begin("GET", cloud.url(rest=f"/http/{n}")) for n in range(4)]
    for one in reversed(pending):  # asked in another order
        assert one.poll(cloud.now) is None
    for _ in range(6):
        cloud.advance(5)
        for one in reversed(pending):
            one.poll(cloud.now)
    assert order == ["/0", "/1", "/2", "/3"]


def test_a_caller_that_leaves_gives_its_place_and_its_slot_back(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(duration=50.0))
    cloud.deploy(interface="http")
    first, second = (cloud.begin("GET", cloud.url(rest=f"/http/{n}")) for n in range(2))
    cloud.advance(2)
    assert first.poll(cloud.now) is None
    assert cloud.show()["running"] == 1
    assert cloud.show()["queued"] == 1
    second.abandon(cloud.now)
    assert cloud.show()["queued"] == 0
    first.abandon(cloud.now)
    assert cloud.show()["running"] == 0


def test_a_caller_that_leaves_just_as_its_turn_comes_gives_the_slot_back(make_cloud: Any) -> None:
    cloud = make_cloud(Behavior(cold_start=5.0))
    cloud.deploy(interface="http")
    held = cloud.begin("GET", cloud.url(rest="/http/x"))
    cloud.advance(6)
    assert cloud.show()["running"] == 1  # it was given a worker, and did not ask yet
    held.abandon(cloud.now)
    assert cloud.show()["running"] == 0
    cloud.ask("GET", cloud.url(rest="/http/y"))


def test_a_function_deployment_forwards_nothing_into_its_queue(cloud: Any) -> None:
    cloud.deploy(interface="http")
    cloud.ask("POST", cloud.url(rest="/jobs"), {"id": "j1", "input": {}}, status=400)
