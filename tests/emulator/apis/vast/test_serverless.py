"""Routes, workers and their calls, in memory: who is sent where, what wakes and what stops, and how a call ends."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import pytest
from vast_cloud import KEY, Vast

from unigpu.emulator.apis.vast.emulator import Quirks
from unigpu.emulator.contract import Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior


def statuses(vast: Vast, endpoint: int) -> list[str]:
    return sorted(row["status"] for row in vast.workers(endpoint))


def test_a_route_wakes_a_worker_and_keeps_its_index() -> None:
    vast = Vast(Behavior(cold_start=4.0))
    endpoint = vast.deployed()
    assert vast.workers(endpoint) == []
    first = vast.route()
    assert "url" not in first
    assert first["status"]
    again = vast.route(index=first["request_idx"])
    assert again["request_idx"] == first["request_idx"]
    assert statuses(vast, endpoint) == ["loading"]
    vast.advance(5.0)
    ready = vast.route(index=first["request_idx"])
    assert set(ready) == {"endpoint", "url", "cost", "reqnum", "request_idx", "signature", "__request_id"}
    assert ready["url"].startswith("https://203.0.113.")
    assert vast.route()["request_idx"] != first["request_idx"]


def test_quirk_the_first_answer_may_lack_the_index() -> None:
    vast = Vast(quirks=Quirks(early_without_idx=True))
    vast.deployed()
    assert "request_idx" not in vast.route()


def test_a_signature_covers_the_address_and_nothing_else(vast: Vast) -> None:
    vast.deployed()
    route = vast.routed()
    pem = vast.call("GET", "/pubkey/", key=None).body.decode()
    number = int.from_bytes(base64.b64decode("".join(pem.splitlines()[1:-1]))[33:-5])
    text = json.dumps({"url": route["url"]}, indent=4, sort_keys=True).encode()
    opened = pow(int.from_bytes(base64.b64decode(route["signature"])), 65537, number).to_bytes(256)
    assert opened.endswith(hashlib.sha256(text).digest())
    assert vast.invoke(route | {"cost": 1, "reqnum": 99}, {"input": {}}).status == 200
    body = vast.envelope(route | {"url": "https://203.0.113.9:1"}, {"input": {}})
    assert vast.call("POST", f"{route['url']}/invoke", body, key=None).status == 401


def test_a_call_with_a_wrong_signature_is_401_without_a_body(vast: Vast) -> None:
    vast.deployed()
    route = vast.routed()
    reply = vast.invoke(route | {"signature": route["signature"][:-8] + "AAAAAA=="}, {"input": {}})
    assert (reply.status, reply.body) == (401, b"")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", {"error": "invalid JSON"}),
        (b"{}", {"auth_data": "field missing", "payload": "field missing"}),
        (b'{"auth_data": {"cost": 1, "endpoint": "e", "reqnum": 1, "request_idx": 1, "url": "u"}, "payload": {}}',
         {"auth_data": {"signature": "missing parameter"}}),
    ],
)  # fmt: skip
def test_an_envelope_that_lacks_something_is_422(vast: Vast, body: bytes, expected: Any) -> None:
    vast.deployed()
    route = vast.routed()
    reply = vast.call("POST", f"{route['url']}/invoke", body, key=None)
    assert (reply.status, json.loads(reply.body)) == (422, expected)
    assert vast.call("GET", f"{route['url']}/invoke", key=None).status == 405


def test_an_answer_and_a_failure_of_the_handler_are_both_200() -> None:
    def run(input: dict[str, Any]) -> Any:
        if input.get("bad"):
            raise ValueError("no")
        return {"got": input}

    vast = Vast(Behavior(run=run))
    vast.deployed()
    route = vast.routed()
    good = json.loads(vast.invoke(route, {"input": {"a": 1}}).body)
    assert good["output"] == {"got": {"a": 1}}
    bad = vast.invoke(vast.routed(), {"input": {"bad": True}})
    assert (bad.status, json.loads(bad.body)["error"]) == (200, {"type": "ValueError", "message": "no"})


def test_a_stream_is_lines_with_a_last_one() -> None:
    def run(input: dict[str, Any]) -> Any:
        yield from range(input["n"])

    vast = Vast(Behavior(run=run))
    vast.deployed()
    reply = vast.invoke(vast.routed(), {"input": {"n": 3}, "stream": True})
    assert dict(reply.headers)["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in reply.body.splitlines()]
    assert lines[:3] == [{"chunk": 0}, {"chunk": 1}, {"chunk": 2}]
    assert lines[3]["done"] is True


def test_another_path_passes_the_payload_and_the_bare_answer() -> None:
    vast = Vast(Behavior(run=lambda input: {"text": input["prompt"]}))
    vast.deployed()
    reply = vast.invoke(vast.routed(), {"prompt": "hi"}, "/generate")
    assert json.loads(reply.body) == {"text": "hi"}


def test_a_server_of_the_users_gets_the_payload_as_its_body() -> None:
    seen: list[tuple[str, str, Any]] = []

    def http(call: Any) -> Reply:
        seen.append((call.method, call.path, json.loads(call.body)))
        return Reply.json({"ok": True}, status=201)

    vast = Vast(Behavior(http=http))
    endpoint = vast.endpoint()
    template = vast.template(env="-e UNIGPU_INTERFACE=http -p 3000:3000")
    vast.workergroup(endpoint, template["hash_id"])
    reply = vast.invoke(vast.routed(), {"model": "m"}, "/v1/completions")
    assert (reply.status, json.loads(reply.body)) == (201, {"ok": True})
    assert seen == [("POST", "/v1/completions", {"model": "m"})]
    vast.advance(100.0)
    assert vast.workers(endpoint) == []


def test_work_above_the_queue_limit_is_429_without_a_body() -> None:
    vast = Vast(Behavior(duration=1000.0), quirks=Quirks(perf=10.0))  # 10 s a call of 100
    vast.deployed(max_workers=1)
    route = vast.routed()
    pending = [vast.begin("POST", f"{route['url']}/invoke", vast.envelope(route, {"input": {}})) for _ in range(4)]
    assert pending
    reply = vast.invoke(route, {"input": {}})
    assert (reply.status, reply.body) == (429, b"")


def test_leaving_cancels_and_frees_the_worker() -> None:
    vast = Vast(Behavior(duration=1000.0))
    endpoint = vast.deployed(max_workers=1)
    route = vast.routed()
    pending = vast.begin("POST", f"{route['url']}/invoke", vast.envelope(route, {"input": {}}))
    vast.advance(1.0)
    assert pending.poll(vast.virtual.clock.now()) is None
    pending.abandon(vast.virtual.clock.now())
    vast.advance(70.0)
    assert statuses(vast, endpoint) == []


def test_a_worker_that_dies_drops_its_callers_and_is_replaced() -> None:
    vast = Vast(Behavior(duration=5.0, job=lambda input: "crash" if input.get("die") else "answer"))
    endpoint = vast.deployed(max_workers=1)
    route = vast.routed()
    assert vast.dropped("POST", f"{route['url']}/invoke", vast.envelope(route, {"input": {"die": 1}}))
    assert "error" in statuses(vast, endpoint)
    assert vast.dropped("POST", f"{route['url']}/invoke", vast.envelope(route, {"input": {}}))
    later = vast.routed()
    assert later["url"] != route["url"]
    assert vast.invoke(later, {"input": {}}).status == 200


def test_zero_has_two_levels() -> None:
    kept = Vast(Behavior(cold_start=30.0))
    endpoint = kept.deployed(cold_workers=1)
    kept.advance(31.0)
    assert statuses(kept, endpoint) == ["idle"]  # it was rented to be kept
    kept.advance(70.0)
    assert statuses(kept, endpoint) == ["stopped"]
    (row,) = kept.json("GET", "/api/v1/instances/")["instances"]
    assert row["actual_status"] == "stopped"
    before = kept.workers(endpoint)[0]["id"]
    route = kept.route()
    assert [row["status"] for row in kept.workers(endpoint)] == ["starting"]
    kept.advance(31.0)
    assert "url" in kept.route(index=route["request_idx"])
    assert before in [row["id"] for row in kept.workers(endpoint)]

    none = Vast()
    endpoint = none.deployed()
    none.routed()
    none.advance(200.0)
    assert none.workers(endpoint) == []
    assert none.json("GET", "/api/v1/instances/")["instances"] == []


def test_quirk_without_two_levels_what_is_not_needed_is_given_up() -> None:
    vast = Vast(quirks=Quirks(two_level_zero=False))
    endpoint = vast.deployed(cold_workers=2)
    vast.advance(100.0)
    assert vast.workers(endpoint) == []


def test_a_least_load_of_one_is_one_hot_worker() -> None:
    vast = Vast()
    endpoint = vast.deployed(min_load=1)
    vast.advance(500.0)
    assert statuses(vast, endpoint) == ["idle"]


def test_an_endpoint_is_paused_frozen_and_resumed() -> None:
    vast = Vast()
    endpoint = vast.deployed(min_load=1, cold_workers=1)
    vast.advance(5.0)
    vast.json("PUT", f"/api/v0/endptjobs/{endpoint}/", {"endpoint_state": "stopped"})
    vast.advance(5.0)
    assert statuses(vast, endpoint) == ["stopped"]
    assert "stopped" in vast.route()["status"]
    vast.json("PUT", f"/api/v0/endptjobs/{endpoint}/", {"endpoint_state": "active"})
    vast.advance(5.0)
    assert statuses(vast, endpoint) == ["idle"]
    vast.json("PUT", f"/api/v0/endptjobs/{endpoint}/", {"endpoint_state": "suspended", "min_load": 0})
    vast.advance(500.0)
    assert statuses(vast, endpoint) == ["idle"]


def test_no_machine_fits_so_none_is_rented() -> None:
    vast = Vast()
    endpoint = vast.endpoint(min_load=1)
    vast.workergroup(endpoint, vast.template()["hash_id"], search_params="gpu_name=RTX_4090 dph_total<=0.01")
    vast.advance(100.0)
    assert vast.route()["status"] == "no workers"
    assert vast.workers(endpoint) == []


def test_deleting_an_endpoint_takes_its_workergroup_and_its_workers_with_it() -> None:
    vast = Vast(Behavior(stop=1.0))
    endpoint = vast.deployed(min_load=1)
    vast.advance(5.0)
    (worker,) = vast.workers(endpoint)
    deleted = vast.json("DELETE", f"/api/v0/endptjobs/{endpoint}/")
    assert deleted["deleted_workers"] == [worker["id"]]
    assert vast.json("GET", "/api/v0/workergroups/")["results"] == []
    assert [row["id"] for row in vast.json("GET", "/api/v1/instances/")["instances"]] == [worker["id"]]
    vast.advance(5.0)
    assert vast.json("GET", f"/api/v0/instances/{worker['id']}/") == {"instances": None}
    assert vast.call("POST", "/route/", {"endpoint": "demo", "request_idx": 0}).status == 400


def test_the_endpoint_s_own_key_routes_and_does_nothing_else() -> None:
    vast = Vast()
    endpoint = vast.deployed()
    key = vast.json("GET", f"/api/v0/endptjobs/{endpoint}/")["result"]["api_key"]
    assert vast.json("POST", "/route/", {"endpoint": "demo"}, key=key)["request_idx"]
    assert vast.json("POST", "/get_endpoint_workers/", {"id": endpoint}, key=key) is not None
    assert vast.call("GET", "/api/v0/endptjobs/", key=key).status == 401
    assert vast.json("POST", "/route/", {"endpoint": "demo"}, key="other", status=401) == {
        "error": "Authentication failed"
    }


def test_worker_lists_and_logs_tell_errors_with_200() -> None:
    vast = Vast()
    said = vast.json("POST", "/get_endpoint_workers/", {"id": 1})
    assert said == "authenticate_endpoint_apikey: invalid api_key or endpoint 1 not found"
    assert isinstance(vast.json("POST", "/get_endpoint_logs/", {"id": 1}), str)
    plain = Vast(quirks=Quirks(errors_as_200=False, bare_list=False))
    assert plain.call("POST", "/get_endpoint_workers/", {"id": 1}).status == 400
    endpoint = plain.deployed()
    assert plain.json("POST", "/get_endpoint_workers/", {"id": endpoint}) == {"workers": []}


def test_logs_of_an_endpoint_and_of_a_worker() -> None:
    vast = Vast(Behavior(lines=("loading weights", "ready to serve")))
    endpoint = vast.deployed()
    vast.routed()
    logs = vast.json("POST", "/get_endpoint_logs/", {"id": endpoint, "api_key": KEY, "tail": 200})
    assert set(logs) == {"info0", "info1", "trace", "debug"}
    assert "is loaded" in logs["info0"]
    id = vast.workers(endpoint)[0]["id"]
    url = vast.json("PUT", f"/api/v0/instances/request_logs/{id}/", {"tail": "10"})["result_url"]
    assert (
        vast.call("GET", url.removeprefix("https://console.vast.ai"), key=None).body
        == b"loading weights\nready to serve\n"
    )


def test_the_root_certificate_is_served_without_a_key(vast: Vast) -> None:
    reply = vast.call("GET", "/static/jvastai_root.cer", key=None)
    assert reply.body.startswith(b"-----BEGIN CERTIFICATE-----")


def test_quirk_a_route_s_error_may_come_with_200() -> None:
    assert "error_msg" in Vast(quirks=Quirks(route_errors_as_200=True)).json("POST", "/route/", {"endpoint": "none"})
    assert Vast().call("POST", "/route/", {"endpoint": "none"}).status == 400


def test_a_rolling_update_replaces_workers_when_they_are_done() -> None:
    vast = Vast(Behavior(duration=20.0))
    endpoint = vast.endpoint(min_load=1, max_workers=1)
    template = vast.template()
    group = vast.workergroup(endpoint, template["hash_id"])
    route = vast.routed()
    (before,) = vast.workers(endpoint)
    pending = vast.begin("POST", f"{route['url']}/invoke", vast.envelope(route, {"input": {"a": 1}}))
    edited = vast.json("PUT", "/api/v1/template/", {"hash_id": template["hash_id"], "env": "-e A=2"})["template"]
    body = {"endpoint_id": endpoint, "template_hash": edited["hash_id"]}
    vast.json("PUT", f"/api/v0/workergroups/{group}/", body)
    assert vast.json("POST", "/update_workers/", {"workergroup_id": group})["success"] is True
    vast.advance(60.0)
    answer = pending.poll(vast.virtual.clock.now())
    assert isinstance(answer, Reply)
    assert json.loads(answer.body)["output"] == {"a": 1}
    assert before["id"] not in [row["id"] for row in vast.workers(endpoint)]
    assert vast.json("POST", "/update_workers/", {"workergroup_id": group, "cancel_update": True})["cancelled"] is True
    assert "error_msg" in vast.json("POST", "/update_workers/", {"workergroup_id": 1})
