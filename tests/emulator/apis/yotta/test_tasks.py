"""Tasks of the emulator: pushed to workers, ended once, told to webhooks, and limited."""

from __future__ import annotations

import json
from typing import Any

import pytest
from yotta_account import wanted

from unigpu.emulator.contract import Forward, ForwardDone, HttpCall
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior


def double(input: dict[str, Any]) -> dict[str, Any]:
    return {"double": 2 * input["n"]}


def test_a_task_gets_the_workers_answer_as_its_output(account: Any) -> None:
    yotta = account(Behavior(run=double, duration=3))
    id = yotta.running()
    assert yotta.submit(id, "t", {"input": {"n": 4}}, headers={"X-Trace": "7"}) == "t"
    task = yotta.task(id)
    assert (task["status"], task["output"], task["error"], task["deliveredAt"]) == ("PROCESSING", None, None, None)
    assert yotta.call("GET", f"/v2/serverless/{id}/tasks/count") == {"processing": 1}
    yotta.cloud.advance(3)
    task = yotta.task(id)
    assert (task["status"], task["error"]) == ("SUCCESS", None)
    assert task["output"] == {"output": {"double": 8}, "execution_s": 3}
    assert (task["input"], task["headers"]) == ({"input": {"n": 4}}, {"X-Trace": "7"})
    assert (task["endpointId"], task["endpointName"]) == (int(id), "chat")
    assert task["updatedAt"] - task["createdAt"] == 3000
    assert yotta.call("GET", f"/v2/serverless/{id}/tasks/count") == {"processing": 0}


def test_a_bare_body_is_the_input_and_the_bare_output_comes_back(account: Any) -> None:
    yotta = account(Behavior(run=double))
    id = yotta.running()
    yotta.submit(id, "t", {"n": 4}, processUri="run")
    yotta.cloud.advance(1)
    assert yotta.task(id)["output"] == {"double": 8}


def test_a_failure_inside_an_answer_of_200_is_a_success_of_the_queue(account: Any) -> None:
    yotta = account(Behavior(run=double))
    id = yotta.running()
    yotta.submit(id, "ours", {"input": {}})
    yotta.submit(id, "bare", {"x": 1}, processUri="/run")
    yotta.cloud.advance(1)
    ours, bare = yotta.task(id, "ours"), yotta.task(id, "bare")
    assert (ours["status"], ours["output"]["error"]["type"]) == ("SUCCESS", "KeyError")
    assert (bare["status"], bare["output"]) == ("FAILED", None)
    assert "HTTP 500" in bare["error"]
    assert "KeyError" in bare["error"]


def test_the_same_id_is_the_same_task_and_runs_once(account: Any) -> None:
    ran: list[Any] = []
    yotta = account(Behavior(run=ran.append))
    id = yotta.running()
    for n in range(3):
        assert yotta.submit(id, "t", {"input": {"n": n}}) == "t"
        yotta.cloud.advance(1)
    assert ran == [{"n": 0}]


def test_the_same_id_is_the_same_task_also_when_its_result_is_forgotten(account: Any) -> None:
    ran: list[Any] = []
    yotta = account(Behavior(run=ran.append), EngineSettings(result_ttl=100))
    id = yotta.running()
    yotta.submit(id)
    yotta.cloud.advance(200)
    assert yotta.outcome("GET", f"/v2/serverless/{id}/tasks/t")[0] == 24011
    yotta.submit(id)
    yotta.cloud.advance(10)
    assert len(ran) == 1


def test_an_id_is_made_where_none_is_given_and_has_hyphens(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    body = {"input": {"n": 1}, "workerPort": 8000, "processUri": "/run"}
    made = {yotta.call("POST", f"/v2/serverless/{id}/tasks", body)["taskId"] for _ in range(2)}
    assert len(made) == 2
    assert all(len(one) == 36 and "-" in one for one in made)


@pytest.mark.parametrize(
    "change",
    [
        {"input": None},
        {"input": {}},
        {"processUri": None},
        {"processUri": "/a b"},
        {"processUri": "/a?b=1"},
        {"workerPort": 0},
        {"workerPort": None},
        {"taskId": "a-b"},
        {"taskId": "a" * 256},
        {"webhook": "example.com"},
        {"headers": {"n": 1}},
    ],
)
def test_what_a_task_cannot_be_is_40001(change: dict[str, Any], account: Any) -> None:
    yotta = account()
    id = yotta.running()
    body = {"taskId": "t", "input": {"n": 1}, "workerPort": 8000, "processUri": "/run", **change}
    assert yotta.outcome("POST", f"/v2/serverless/{id}/tasks", body)[0] == 40001


@pytest.mark.parametrize("mode", ["ALB", "CUSTOM"])
def test_tasks_are_for_queue_endpoints(mode: str, account: Any) -> None:
    yotta = account()
    id = yotta.running(serviceMode=mode)
    body = {"input": {"n": 1}, "workerPort": 8000, "processUri": "/run"}
    assert yotta.outcome("POST", f"/v2/serverless/{id}/tasks", body)[0] == 10001


def test_tasks_are_refused_while_nothing_runs(account: Any) -> None:
    body = {"taskId": "t", "input": {"n": 1}, "workerPort": 8000, "processUri": "/run"}
    for accepts, code in (("running", 24000), ("started", 10000)):
        yotta = account(Behavior(cold_start=60), accepts_tasks=accepts)
        id = yotta.deploy()
        path = f"/v2/serverless/{id}/tasks"
        assert yotta.outcome("POST", path, body)[0] == code
        yotta.cloud.advance(100)
        assert yotta.outcome("POST", path, body)[0] == 10000
        yotta.cloud.advance(100)
        assert yotta.task(id)["status"] == "SUCCESS"
        yotta.call("POST", f"/v2/serverless/{id}/stop", {})
        assert yotta.outcome("POST", path, {**body, "taskId": "u"})[0] == 24000


def test_a_task_waits_for_a_free_worker_and_is_processing_meanwhile(account: Any) -> None:
    yotta = account(Behavior(duration=10))
    id = yotta.running()
    for n in range(3):
        yotta.submit(id, f"t{n}")
    yotta.cloud.advance(15)
    assert [yotta.task(id, f"t{n}")["status"] for n in range(3)] == ["SUCCESS", "PROCESSING", "PROCESSING"]
    together = account(Behavior(duration=10), task_slots=3)
    id = together.running()
    for n in range(3):
        together.submit(id, f"t{n}")
    together.cloud.advance(10)
    assert [together.task(id, f"t{n}")["status"] for n in range(3)] == ["SUCCESS"] * 3


def test_a_task_whose_worker_died_fails_or_runs_again_as_it_is_set(account: Any) -> None:
    for again, state in ((False, "FAILED"), (True, "SUCCESS")):
        yotta = account(Behavior(duration=10), requeues_lost=again)
        id = yotta.running()
        yotta.submit(id)
        yotta.cloud.advance(5)
        yotta.kill(id)
        yotta.cloud.advance(60)
        assert yotta.task(id)["status"] == state
    assert account().outcome("GET", "/v2/serverless/1/tasks/t")[0] == 24001


def test_a_task_to_another_port_fails(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    yotta.submit(id, workerPort=9000)
    task = yotta.task(id)
    assert task["status"] == "FAILED"
    assert "refused" in task["error"]


def test_delivered_is_what_it_is_set_to_mean(account: Any) -> None:
    yotta = account(Behavior(duration=10), delivered="at_worker")
    id = yotta.running()
    yotta.submit(id, "first")
    yotta.submit(id, "second")
    assert [yotta.task(id, one)["status"] for one in ("first", "second")] == ["DELIVERED", "PROCESSING"]
    yotta = account(delivered="after_webhook")
    id = yotta.running()
    yotta.submit(id, "told", webhook="http://example.com/hook")
    yotta.submit(id, "untold")
    yotta.cloud.advance(5)
    assert [yotta.task(id, one)["status"] for one in ("told", "untold")] == ["DELIVERED", "SUCCESS"]


def test_lists_come_by_pages_newest_first_without_what_is_large(account: Any) -> None:
    yotta = account(rate_limits=False)
    id = yotta.running()
    for n in range(25):
        yotta.submit(id, f"t{n}")
        yotta.cloud.advance(1)
    yotta.submit(id, "bad", workerPort=1)
    page = yotta.call("GET", f"/v2/serverless/{id}/tasks", status="SUCCESS", pageNumber=3, pageSize=10)
    assert (page["page"], page["size"], page["total"], page["pages"]) == (3, 10, 25, 3)
    assert [row["taskId"] for row in page["items"]] == [f"t{n}" for n in range(4, -1, -1)]
    assert all({"input", "output", "headers"}.isdisjoint(row) for row in page["items"])
    assert [r["taskId"] for r in yotta.call("GET", f"/v2/serverless/{id}/tasks", status="FAILED")["items"]] == ["bad"]
    assert len(yotta.call("GET", f"/v2/serverless/{id}/tasks")["items"]) == 10


def test_forty_creates_a_second_are_taken_and_a_thousand_tasks_are_kept(account: Any) -> None:
    yotta = account(Behavior(duration=1e6))
    id = yotta.running()
    body = {"input": {"n": 1}, "workerPort": 8000, "processUri": "/run"}
    path = f"/v2/serverless/{id}/tasks"
    codes = [yotta.outcome("POST", path, {**body, "taskId": f"a{n}"})[0] for n in range(41)]
    assert codes == [10000] * 40 + [429]
    yotta.cloud.advance(1.01)
    assert yotta.outcome("POST", path, {**body, "taskId": "b"})[0] == 10000
    reads = [yotta.outcome("GET", f"{path}/b")[0] for _ in range(61)]
    assert reads == [10000] * 60 + [429]
    many = account(Behavior(duration=1e6), rate_limits=True)
    id = many.running()
    for n in range(1000):
        many.submit(id, f"t{n}")
        many.cloud.advance(0.03)
    assert many.outcome("POST", f"/v2/serverless/{id}/tasks", {**body, "taskId": "x"})[0] == 429
    assert many.submit(id, "t0") == "t0"


# -- webhooks


def test_a_webhook_is_told_with_the_key_that_was_given(account: Any) -> None:
    yotta = account(Behavior(run=double, duration=2))
    got = yotta.notices()
    id = yotta.running()
    yotta.submit(id, "t", {"input": {"n": 1}}, webhook="https://example.com/hook", webhookAuthKey="s3")
    yotta.submit(id, "u", {"n": "x", "y": 0}, webhook="https://example.com/hook", processUri="/run", workerPort=9)
    yotta.cloud.advance(2)
    assert len(got) == 2
    (failed_headers, failed, _), (headers, told, at) = got
    assert headers["x-api-key"] == "s3"
    assert "x-api-key" not in failed_headers
    assert (told["user_task_id"], told["endpoint_id"], told["status"], told["success"]) == ("t", id, "Success", True)
    assert told["result"] == {"output": {"double": 2}, "execution_s": 2}
    assert (told["retry_count"], told["failed_reason"]) == (1, None)
    assert isinstance(told["task_id"], int)
    assert len(told["timestamp"]) == len("2025-11-11 15:52:28.385")
    assert (failed["status"], failed["success"], failed["result"]) == ("Failed", False, None)
    assert failed["failed_reason"]
    task = yotta.task(id, "t")
    assert (task["deliveryStatus"], task["deliveryAttempts"]) == ("SUCCESS", 1)
    assert task["deliveredAt"] == int(yotta.cloud.engine.wall(at) * 1000)


@pytest.mark.parametrize("answer", [500, 302, None])
def test_a_webhook_is_tried_again_after_1_5_and_15_minutes_and_then_given_up(answer: int | None, account: Any) -> None:
    yotta = account(Behavior(duration=2))
    got = yotta.notices([answer] * 9)
    id = yotta.running()
    yotta.submit(id, webhook="https://example.com/hook")
    yotta.cloud.advance(2)
    start = yotta.cloud.clock.now()
    seen = []
    for wait in (0, 60, 300, 900):
        yotta.cloud.advance(wait)
        seen.append((yotta.task(id)["deliveryStatus"], yotta.task(id)["deliveryAttempts"]))
    yotta.cloud.advance(2_000)
    assert [round(at - start) for _, _, at in got] == [0, 60, 360, 1260]
    assert [body["retry_count"] for _, body, _ in got] == [1, 2, 3, 4]
    assert len({body["task_id"] for _, body, _ in got}) == 1
    assert seen == [("FAILED", 1), ("FAILED", 2), ("FAILED", 3), ("MAX_RETRIES_EXCEEDED", 4)]
    assert yotta.task(id)["status"] == "SUCCESS"


def test_a_webhook_that_answers_at_last_is_told_no_more(account: Any) -> None:
    yotta = account()
    got = yotta.notices([500, None, 204])
    id = yotta.running()
    yotta.submit(id, webhook="https://example.com/hook")
    yotta.cloud.advance(2_000)
    assert len(got) == 3
    assert (yotta.task(id)["deliveryStatus"], yotta.task(id)["deliveryAttempts"]) == ("SUCCESS", 3)


# -- the gateway


def alb(yotta: Any, **fields: Any) -> tuple[str, str]:
    id = yotta.running(serviceMode="ALB", **fields)
    return id, yotta.get(id)["domain"]


def test_the_gateway_forwards_any_path_and_keeps_the_key_to_itself(account: Any) -> None:
    yotta = account()
    _, domain = alb(yotta)
    assert domain.endswith(".yottadeos.com")
    assert len(domain.partition(".")[0]) == 12
    reply = yotta.send("GET", f"https://{domain}/v1/models?a=1", key=None, authorization="Bearer key")
    assert reply.status == 200
    assert json.loads(reply.body) == {"method": "GET", "path": "/v1/models", "body": ""}
    sent = HttpCall(
        method="GET",
        path=f"/gateway/{domain.partition('.')[0]}/x",
        headers={"authorization": "Bearer key", "x-own": "1"},
        host="127.0.0.1",
        target=f"/gateway/{domain.partition('.')[0]}/x?a=1",
    )
    answer = yotta.cloud.engine.handle(sent, yotta.cloud.clock.now())
    assert isinstance(answer, Forward)
    assert (answer.call.path, answer.call.target) == ("/x", "/x?a=1")
    assert dict(answer.call.headers) == {"x-own": "1"}


def test_on_this_machine_an_endpoint_is_called_by_a_path(account: Any) -> None:
    yotta = account()
    id, domain = alb(yotta)
    shown = json.loads(yotta.send("GET", f"http://127.0.0.1/v2/serverless/{id}", host="127.0.0.1:8123").body)["data"]
    assert shown["domain"] == f"127.0.0.1:8123/yotta/gateway/{domain.partition('.')[0]}"


@pytest.mark.parametrize("given", [None, "key", "Basic key", "Bearer"])
def test_the_gateway_asks_for_the_accounts_key(given: str | None, account: Any) -> None:
    yotta = account()
    _, domain = alb(yotta)
    headers = {} if given is None else {"authorization": given}
    assert yotta.send("GET", f"https://{domain}/", key=None, **headers).status == 401


def test_the_gateway_neither_wakes_nor_queues(account: Any) -> None:
    yotta = account(Behavior(cold_start=60))
    id = yotta.deploy(serviceMode="ALB")
    url = f"https://{yotta.get(id)['domain']}/"
    assert yotta.send("GET", url, authorization="Bearer key").status == 503
    yotta.cloud.advance(60)
    assert yotta.send("GET", url, authorization="Bearer key").status == 200
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    assert yotta.send("GET", url, authorization="Bearer key").status == 503
    assert yotta.send("GET", "https://abcdefghijkl.yottadeos.com/", authorization="Bearer key").status == 404


def test_a_handler_behind_the_gateway_answers_at_its_own_route(account: Any) -> None:
    yotta = account(Behavior(run=double))
    _, domain = alb(yotta)
    reply = yotta.send("POST", f"https://{domain}/invoke", {"input": {"n": 5}}, authorization="Bearer key")
    assert json.loads(reply.body)["output"] == {"double": 10}


def test_a_queue_endpoint_has_no_domain(account: Any) -> None:
    assert "domain" not in account().call("POST", "/v2/serverless", wanted())


def test_the_gateway_gives_each_worker_its_turn(account: Any) -> None:
    yotta = account()
    _, domain = alb(yotta, workers=3)
    asked = HttpCall(method="GET", path="/", host=domain, headers={"authorization": "Bearer key"}, target="/")
    got: list[str] = []
    for _ in range(6):
        answer = yotta.cloud.engine.handle(asked, yotta.cloud.clock.now())
        assert isinstance(answer, Forward)
        got.append(answer.worker_id)
        done = ForwardDone(worker_id=answer.worker_id, lease=answer.lease, status=200)
        yotta.cloud.engine.event(done, yotta.cloud.clock.now())
        yotta.cloud.advance(1)
    assert got[:3] == got[3:]
    assert len(set(got)) == 3


def test_a_stop_lets_a_short_task_end_and_a_long_one_fail_and_keeps_what_waits(account: Any) -> None:
    yotta = account(Behavior(duration=lambda given: given["s"]))
    id = yotta.running(workers=2)
    for task, seconds in (("short", 10), ("long", 1000), ("waits", 1)):
        yotta.submit(id, task, {"input": {"s": seconds}})
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(60)
    assert yotta.status(id) == "STOPPED"
    assert [yotta.task(id, t)["status"] for t in ("short", "long", "waits")] == ["SUCCESS", "FAILED", "PROCESSING"]
    yotta.call("POST", f"/v2/serverless/{id}/start", {})
    yotta.cloud.advance(60)
    assert yotta.task(id, "waits")["status"] == "SUCCESS"


def test_lists_that_lag_hide_an_endpoint_from_lists_alone(account: Any) -> None:
    yotta = account(settings=EngineSettings(list_lag=100))
    id, domain = alb(yotta)
    assert yotta.call("GET", "/v2/serverless") == []
    assert yotta.get(id)["status"] == "RUNNING"
    assert yotta.send("GET", f"https://{domain}/", authorization="Bearer key").status == 200
    yotta.cloud.advance(100)
    assert [row["id"] for row in yotta.call("GET", "/v2/serverless")] == [id]


def test_all_endpoints_together_have_limits_too(account: Any) -> None:
    yotta = account(Behavior(duration=1e6))
    ids = [yotta.running() for _ in range(6)]
    yotta.cloud.advance(10)
    body = {"input": {"n": 1}, "workerPort": 8000, "processUri": "/run"}
    codes = [yotta.outcome("POST", f"/v2/serverless/{id}/tasks", body)[0] for id in ids for _ in range(35)]
    assert codes.count(10000) == 200
    assert codes[:200] == [10000] * 200
