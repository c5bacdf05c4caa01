"""The job service: queue, states, waits, streams, cancel, purge, retention, limits, webhooks, load balancers."""

from __future__ import annotations

import json
from typing import Any

import pytest


def boom(input: Any) -> Any:
    raise ValueError("no such thing")


def count(input: Any) -> Any:
    for n in range(input["n"]):
        yield {"n": n}


def test_a_job_goes_from_the_queue_to_its_end_and_tells_how_long_each_took(bench: Any) -> None:
    bench.behave("app", cold_start=5, duration=2)
    id = bench.endpoint()["id"]
    sent = bench.job("POST", f"{id}/run", {"input": {"a": 1}})
    assert sent["status"] == "IN_QUEUE"
    job = sent["id"]
    assert job.endswith("-u1")
    assert bench.status(id, job) == {"id": job, "status": "IN_QUEUE"}
    bench.cloud.advance(6)
    running = bench.status(id, job)
    assert (running["status"], running["delayTime"]) == ("IN_PROGRESS", 5000)
    assert "output" not in running
    bench.cloud.advance(2)
    done = bench.status(id, job)
    assert done == {**running, "status": "COMPLETED", "executionTime": 2000, "output": {"a": 1}}


def test_runsync_waits_and_then_says_how_far_it_came(bench: Any) -> None:
    bench.behave("app", cold_start=5, duration=2)
    id = bench.endpoint()["id"]
    began = bench.cloud.clock.now()
    early = bench.job("POST", f"{id}/runsync", {"input": {"a": 1}}, wait=1000)
    assert (early["status"], bench.cloud.clock.now() - began) == ("IN_QUEUE", 1.0)
    assert early["id"].startswith("sync-")
    assert bench.job("POST", f"{id}/runsync", {"input": {"a": 2}})["output"] == {"a": 2}
    bench.cloud.advance(30)
    assert bench.status(id, early["id"])["status"] == "COMPLETED"
    bench.cloud.advance(60)
    assert bench.job("GET", f"{id}/status/{early['id']}").status == 404


def test_results_are_kept_for_half_an_hour_and_then_are_gone(bench: Any) -> None:
    id = bench.endpoint()["id"]
    job = bench.run(id, a=1)
    bench.cloud.advance(1800)
    assert bench.status(id, job)["status"] == "COMPLETED"
    bench.cloud.advance(10)
    assert bench.job("GET", f"{id}/status/{job}").status == 404


def test_a_job_over_its_ttl_is_gone_even_while_it_runs(bench: Any) -> None:
    bench.behave("app", duration=100)
    id = bench.endpoint()["id"]
    sent = bench.job("POST", f"{id}/run", {"input": {"a": 1}, "policy": {"ttl": 10_000}})
    bench.cloud.advance(9)
    assert bench.status(id, sent["id"])["status"] == "IN_PROGRESS"
    bench.cloud.advance(2)
    assert bench.job("GET", f"{id}/status/{sent['id']}").status == 404


def test_a_job_over_its_execution_timeout_has_timed_out(bench: Any) -> None:
    bench.behave("app", duration=100)
    id = bench.endpoint()["id"]
    sent = bench.job("POST", f"{id}/run", {"input": {"a": 1}, "policy": {"executionTimeout": 5_000}})
    bench.cloud.advance(20)
    assert bench.status(id, sent["id"])["status"] == "TIMED_OUT"


def test_a_failure_is_a_text_with_json_in_it_and_has_no_output(bench: Any) -> None:
    bench.behave("app", run=boom)
    id = bench.endpoint()["id"]
    failed = bench.job("POST", f"{id}/runsync", {"input": {"a": 1}}).body
    assert failed["status"] == "FAILED"
    assert "output" not in failed
    error = json.loads(failed["error"])
    assert (error["error_type"], error["error_message"]) == ("<class 'ValueError'>", "no such thing")


@pytest.mark.parametrize("empty", [{}, None, [], ""])
def test_a_job_without_input_fails_as_if_its_worker_had_died_twice(bench: Any, empty: Any) -> None:
    id = bench.endpoint()["id"]
    job = bench.job("POST", f"{id}/run", {"input": empty})["id"]
    assert (bench.status(id, job)["status"], bench.status(id, job)["error"]) == (
        "FAILED",
        "job timed out after 1 retries",
    )


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"imput": {}}', b'{"input": {"a": 1}, "policy": {"ttl": 5}}'])
def test_a_body_that_is_none_is_refused(bench: Any, body: bytes) -> None:
    id = bench.endpoint()["id"]
    assert bench.job("POST", f"{id}/run", body).status == 400


def test_a_job_whose_worker_dies_is_run_once_more_and_says_so(bench: Any) -> None:
    bench.behave("app", duration=10)
    id = bench.endpoint()["id"]
    job = bench.run(id, a=1)
    bench.cloud.advance(5)
    bench.cloud.crash(bench.status(id, job)["workerId"])
    bench.cloud.advance(30)
    done = bench.status(id, job)
    assert (done["status"], done["retries"]) == ("COMPLETED", 1)
    job = bench.run(id, a=1)
    for _ in range(2):
        bench.cloud.advance(5)
        bench.cloud.crash(bench.status(id, job)["workerId"])
        bench.cloud.advance(1)
    assert bench.status(id, job)["error"] == "job timed out after 1 retries"


def test_a_stream_is_drained_by_who_reads_it_and_ends_with_nothing_left(bench: Any) -> None:
    bench.behave("app", run=count, duration=8)
    id = bench.endpoint()["id"]
    job = bench.run(id, n=3)
    seen: list[Any] = []
    replies: list[Any] = []
    while not replies or replies[-1]["status"] != "COMPLETED" or replies[-1]["stream"]:
        replies.append(bench.job("GET", f"{id}/stream/{job}").body)
        seen += [one["output"] for one in replies[-1]["stream"]]
    assert seen == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert len(replies) >= 4  # each came as it was yielded
    assert bench.job("GET", f"{id}/stream/{job}").body == {"status": "COMPLETED", "stream": []}
    assert bench.status(id, job)["output"] == seen


def test_a_stream_without_news_is_held_for_as_long_as_asked(bench: Any) -> None:
    bench.behave("app", cold_start=60)
    id = bench.endpoint()["id"]
    job = bench.run(id, n=1)
    for wait, seconds in ((None, 10.0), (2000, 2.0)):
        began = bench.cloud.clock.now()
        query = {} if wait is None else {"wait": wait}
        assert bench.job("GET", f"{id}/stream/{job}", **query).body == {"status": "IN_QUEUE", "stream": []}
        assert bench.cloud.clock.now() - began == seconds


def test_cancel_and_purge_end_what_they_name(bench: Any) -> None:
    bench.behave("app", duration=50)
    id = bench.endpoint(workers={"min": 0, "max": 1, "idleTimeout": 5})["id"]
    running = bench.run(id, a=0)
    bench.cloud.advance(5)
    queued = [bench.run(id, a=n) for n in range(3)]
    assert bench.job("POST", f"{id}/cancel/{queued[0]}").body == {"id": queued[0], "status": "CANCELLED"}
    assert bench.job("POST", f"{id}/purge-queue").body == {"removed": 2, "status": "completed"}
    assert bench.status(id, running)["status"] == "IN_PROGRESS"
    assert bench.job("POST", f"{id}/cancel/{running}")["status"] == "CANCELLED"
    assert bench.status(id, running)["status"] == "CANCELLED"
    assert bench.job("POST", f"{id}/cancel/nothing").status == 404


def test_health_has_the_six_counts_that_are_seen(bench: Any) -> None:
    bench.behave("app", cold_start=5, duration=10)
    id = bench.endpoint()["id"]
    zero = dict.fromkeys(("idle", "initializing", "ready", "running", "throttled", "unhealthy"), 0)
    assert bench.job("GET", f"{id}/health")["workers"] == zero
    bench.run(id, a=1)
    assert bench.job("GET", f"{id}/health").body == {
        "jobs": {"completed": 0, "failed": 0, "inProgress": 0, "inQueue": 1, "retried": 0},
        "workers": {**zero, "initializing": 1},
    }
    bench.cloud.advance(6)
    assert bench.job("GET", f"{id}/health")["workers"] == {**zero, "running": 1, "ready": 1}
    bench.cloud.advance(11)
    assert bench.job("GET", f"{id}/health")["jobs"]["completed"] == 1


def test_jobs_of_a_paused_endpoint_wait(bench: Any) -> None:
    id = bench.endpoint(workers={"min": 0, "max": 0, "idleTimeout": 5})["id"]
    job = bench.run(id, a=1)
    bench.cloud.advance(3600)
    assert bench.status(id, job)["status"] == "IN_QUEUE"
    bench.call("PATCH", f"/v2/serverless/{id}", {"workers": {"max": 1}})
    bench.cloud.advance(10)
    assert bench.status(id, job)["status"] == "COMPLETED"


def test_a_webhook_gets_the_whole_state_with_its_input(bench: Any) -> None:
    id = bench.endpoint()["id"]
    hook = "https://me.test/hook?secret=1"
    job = bench.job("POST", f"{id}/run", {"input": {"a": 1}, "webhook": hook})["id"]
    bench.cloud.advance(10)
    (call,) = bench.cloud.callbacks
    assert call.url == hook
    assert json.loads(call.body) == {**bench.status(id, job), "input": {"a": 1}, "webhook": hook}


def test_too_many_requests_in_ten_seconds_are_refused_with_a_time_to_come_again(make: Any) -> None:
    bench = make(job_rates={"run": 3})
    id = bench.endpoint()["id"]
    replies = [bench.job("POST", f"{id}/run", {"input": {"a": 1}}) for _ in range(5)]
    assert [one.status for one in replies] == [200, 200, 200, 429, 429]
    bench.cloud.advance(float(replies[-1].headers["retry-after"]))
    assert bench.job("POST", f"{id}/run", {"input": {"a": 1}}).status == 200


def test_a_payload_above_the_limit_is_refused(make: Any) -> None:
    bench = make(most_run_bytes=1000, most_runsync_bytes=2000)
    id = bench.endpoint()["id"]
    body = {"input": {"text": "x" * 1500}}
    assert bench.job("POST", f"{id}/run", body).status == 413
    assert bench.job("POST", f"{id}/runsync", body).status == 200


def test_keys_go_with_and_without_bearer_to_jobs_and_only_with_it_elsewhere(bench: Any) -> None:
    id = bench.endpoint()["id"]
    assert bench.job("GET", f"{id}/health", key="rpa_key").status == 200
    for key in (None, "Bearer ", "Bearer wrong", "wrong"):
        assert bench.job("GET", f"{id}/health", key=key).status == 401
        assert bench.call("GET", "/v2/serverless", key=key).status == 401
    assert bench.call("GET", "/v2/serverless", key="rpa_key")["detail"] == "missing bearer token"


def test_one_that_serves_openai_from_its_queue_is_reached_by_that_route(bench: Any) -> None:
    def vllm(input: Any) -> Any:
        assert input["openai_route"] == "/v1/chat/completions"
        if input["openai_input"].get("stream"):
            yield 'data: {"n": 1}\n\n'
            yield "data: [DONE]\n\n"
        else:
            yield {"choices": [input["openai_input"]["model"]]}

    bench.behave("app", run=vllm)
    id = bench.endpoint()["id"]
    path = f"{id}/openai/v1/chat/completions"
    assert bench.job("POST", path, {"model": "m"}).body == {"choices": ["m"]}
    events = bench.job("POST", path, {"model": "m", "stream": True})
    assert events.headers["content-type"] == "text/event-stream"
    assert events.body == b'data: {"n": 1}\n\ndata: [DONE]\n\n'


# -- load balancers


def balancer(bench: Any, **changes: Any) -> str:
    scaling = {"type": "REQUEST_COUNT", "requestCount": 1}
    made = bench.endpoint(type="LOAD_BALANCER", scaling=scaling, ports=["5000/http"], **changes)
    assert made["requestUrls"] == {
        "base": f"https://{made['id']}.api.runpod.ai",
        "health": f"https://{made['id']}.api.runpod.ai/ping",
    }
    return str(made["id"])


def test_a_request_to_a_load_balancer_wakes_a_worker_and_gets_its_answer(bench: Any) -> None:
    bench.behave("app", cold_start=30)
    id = balancer(bench)
    reply = bench.call("POST", "/v1/things", {"a": 1}, host=f"{id}.api.runpod.ai")
    assert reply.body == {"method": "POST", "path": "/v1/things", "body": '{"a": 1}'}
    assert bench.job("POST", f"{id}/run", {"input": {"a": 1}}).body == {"error": "not allowed for QB API"}
    assert bench.job("GET", f"{id}/health").status == 200


def test_the_key_of_the_account_ends_at_the_edge(bench: Any) -> None:
    from unigpu.emulator.contract import HttpCall, Reply

    seen: list[HttpCall] = []

    def answer(call: HttpCall) -> Reply:
        seen.append(call)
        return Reply.json({})

    bench.behave("app", http=answer)
    id = balancer(bench)
    bench.call("GET", "/v1", host=f"{id}.api.runpod.ai", headers={"x-own": "1"})
    assert "authorization" not in seen[0].headers
    assert seen[0].headers["x-own"] == "1"
    assert bench.call("GET", "/v1", host=f"{id}.api.runpod.ai", key=None).body == {
        "title": "Unauthorized",
        "status": 401,
        "detail": "missing bearer token",
    }


def test_a_load_balancer_without_a_worker_says_so_after_two_minutes_or_at_once(bench: Any) -> None:
    bench.behave("app", start="hang")
    id = balancer(bench)
    began = bench.cloud.clock.now()
    late = bench.call("GET", "/v1", host=f"{id}.api.runpod.ai")
    assert (late.status, late.body) == (400, {"error": "timed out waiting for worker"})
    assert bench.cloud.clock.now() - began == 120
    bench.call("PATCH", f"/v2/serverless/{id}", {"workers": {"max": 0}})
    assert bench.call("GET", "/v1", host=f"{id}.api.runpod.ai").body == {"error": "no workers available"}


def test_a_job_that_only_wakes_does_not_reach_a_simulated_handler_either(bench: Any) -> None:
    bench.behave("app", run=boom)
    id = bench.endpoint()["id"]
    woken = bench.job("POST", f"{id}/runsync", {"input": {"__unigpu_wake__": True}}).body
    assert (woken["status"], woken["output"]) == ("COMPLETED", {"woken": True})
