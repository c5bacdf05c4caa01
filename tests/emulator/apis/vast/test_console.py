"""Templates, endpoints, workergroups: made, found, read, changed, deleted; what is refused, and how."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vast_cloud import KEY, Vast

from unigpu.emulator.apis.vast.emulator import Quirks
from unigpu.emulator.contract import HttpCall, Reply


def test_an_endpoint_is_made_found_read_changed_and_deleted(vast: Vast) -> None:
    id = vast.endpoint("demo", max_workers=3, inactivity_timeout=-1)
    (row,) = vast.json("GET", "/api/v0/endptjobs/")["results"]
    assert (row["id"], row["endpoint_name"], row["endpoint_state"]) == (id, "demo", "active")
    assert (row["max_workers"], row["cold_workers"], row["inactivity_timeout"]) == (3, 0, -1)
    vast.json("PUT", f"/api/v0/endptjobs/{id}/", {"max_workers": 5, "min_load": None, "client_id": "me"})
    read = vast.json("GET", f"/api/v0/endptjobs/{id}/")["result"]
    assert (read["max_workers"], read["min_load"], read["inactivity_timeout"]) == (5, 0, -1)
    deleted = vast.json("DELETE", f"/api/v0/endptjobs/{id}/")
    assert deleted["success"] is True
    assert vast.json("GET", "/api/v0/endptjobs/")["results"] == []
    vast.json("GET", f"/api/v0/endptjobs/{id}/", status=404)


def test_what_is_left_out_rents_up_to_twenty_machines(vast: Vast) -> None:
    id = vast.json("POST", "/api/v0/endptjobs/", {"endpoint_name": "careless"})["result"]
    read = vast.json("GET", f"/api/v0/endptjobs/{id}/")["result"]
    assert (read["max_workers"], read["cold_workers"], read["min_load"]) == (20, 5, 10.0)


@pytest.mark.parametrize("path", ["workergroups", "autojobs"])
def test_a_workergroup_has_two_names(vast: Vast, path: str) -> None:
    endpoint, template = vast.endpoint(), vast.template()
    body = {
        "endpoint_id": endpoint,
        "template_hash": template["hash_id"],
        "search_params": "gpu_name=RTX_4090 gpu_ram>=23 dph_total<=0.5 num_gpus=1 geolocation in [US,CA] verified=true",
        "gpu_ram": 24,
    }
    id = vast.json("POST", f"/api/v0/{path}/", body)["id"]
    (row,) = vast.json("GET", "/api/v0/workergroups/")["results"]
    assert (row["id"], row["endpoint_id"], row["endpoint_name"]) == (id, endpoint, "demo")
    assert (row["template_id"], row["template_hash"]) == (template["id"], template["hash_id"])
    assert row["search_query"] == {
        "gpu_name": {"eq": "RTX 4090"},
        "gpu_ram": {"gte": 23000.0},  # gigabytes in a text, megabytes as the engine keeps it
        "dph_total": {"lte": 0.5},
        "num_gpus": {"eq": 1.0},
        "geolocation": {"in": ["US", "CA"]},
        "verified": {"eq": True},
    }
    vast.json("PUT", f"/api/v0/{path}/{id}/", {"endpoint_id": endpoint, "search_params": {"dph_total": {"lte": 0.4}}})
    (row,) = vast.json("GET", f"/api/v0/{path}/")["results"]
    assert row["search_query"] == {"dph_total": {"lte": 0.4}}
    vast.json("DELETE", f"/api/v0/{path}/{id}/")
    assert vast.json("GET", f"/api/v0/{path}/")["results"] == []
    gone = vast.json("DELETE", f"/api/v0/{path}/{id}/", status=404)
    assert gone["error"] == "no_such_workergroup"


def test_a_workergroup_needs_an_endpoint_and_a_template(vast: Vast) -> None:
    endpoint, template = vast.endpoint(), vast.template()["hash_id"]
    for body in ({"template_hash": template}, {"endpoint_id": 1, "template_hash": template}):
        refused = vast.json("POST", "/api/v0/workergroups/", body, status=400)
        assert refused["msg"] == "Please assign your workergroup to a valid endpoint identifier"
    vast.json("POST", "/api/v0/workergroups/", {"endpoint_id": endpoint, "template_hash": "none"}, status=400)
    vast.json(
        "POST",
        "/api/v0/workergroups/",
        {"endpoint_id": endpoint, "template_hash": template, "search_params": "(("},
        status=400,
    )
    id = vast.workergroup(endpoint, template)
    vast.json("PUT", f"/api/v0/workergroups/{id}/", {"template_hash": template}, status=400)


def test_an_unknown_endpoint_name_makes_an_endpoint_by_itself(vast: Vast) -> None:
    template = vast.template()["hash_id"]
    vast.json(
        "POST", "/api/v0/autojobs/", {"endpoint_name": "surprise", "template_hash": template, "search_params": ""}
    )
    (row,) = vast.json("GET", "/api/v0/endptjobs/")["results"]
    assert row["endpoint_name"] == "surprise"
    assert row["max_workers"] == 20


def test_templates_are_addressed_by_their_content(vast: Vast) -> None:
    first = vast.template()
    again = vast.json(
        "POST",
        "/api/v0/template/",
        {
            "name": "demo",
            "image": "registry.test/app:1",
            "env": "-e UNIGPU_NAME=demo -p 3000:3000",
            "runtype": "args",
            "args_str": "serve",
        },
    )
    assert again["success"] is False
    assert (again["template"]["id"], again["template"]["hash_id"]) == (first["id"], first["hash_id"])
    found = vast.json("GET", "/api/v0/template/", select_filters=json.dumps({"hash_id": {"eq": first["hash_id"]}}))
    assert [row["id"] for row in found["templates"]] == [first["id"]]
    edited = vast.json(
        "PUT", "/api/v1/template/", {"hash_id": first["hash_id"], "id": first["id"], "image": "registry.test/app:2"}
    )
    assert edited["template"]["id"] == first["id"]
    assert edited["template"]["hash_id"] != first["hash_id"]
    vast.json("DELETE", "/api/v0/template/", {"template_id": first["id"]})
    vast.json("DELETE", "/api/v0/template/", {"template_id": first["id"]}, status=404)
    assert vast.json("GET", "/api/v0/template/")["templates"] == []


@pytest.mark.parametrize(
    ("method", "path", "status", "msg"),
    [
        ("PUT", "/api/v0/endptjobs/5/", 400, "Endpointgroup not found for user"),
        ("DELETE", "/api/v0/endptjobs/5/", 404, "Routegroup not found for user"),
        ("PUT", "/api/v0/workergroups/5/", 400, "Workergroup not found for user"),
        ("DELETE", "/api/v0/workergroups/5/", 404, "Invalid autojob ID"),
        ("DELETE", "/api/v0/instances/5/", 404, "instance 5 not found"),
        ("DELETE", "/api/v0/endptjobs/x/", 400, "'x' is no id"),
    ],
)
def test_what_is_not_there_is_told_in_the_platform_s_own_way(
    vast: Vast, method: str, path: str, status: int, msg: str
) -> None:
    assert vast.json(method, path, {}, status=status)["msg"] == msg


@pytest.mark.parametrize(
    "body",
    [
        {"endpoint_name": ""},
        {"endpoint_name": "a(b)"},
        {"endpoint_name": "a", "target_util": 1.5},
        {"endpoint_name": "a", "max_workers": 1, "cold_workers": 2},
        {"endpoint_name": "a", "target_queue_time": 40, "max_queue_time": 30},
        {"endpoint_name": "a", "min_load": "much"},
        {"endpoint_name": "a", "endpoint_state": "asleep"},
    ],
)
def test_an_endpoint_that_cannot_be_is_refused_and_not_made(vast: Vast, body: Any) -> None:
    assert vast.json("POST", "/api/v0/endptjobs/", body, status=400)["error"] == "invalid_args"
    assert vast.json("GET", "/api/v0/endptjobs/")["results"] == []


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff"])
def test_a_body_that_is_no_object_is_a_400(vast: Vast, body: bytes) -> None:
    vast.json("POST", "/api/v0/endptjobs/", body, status=400)


def test_a_wrong_key_changes_nothing(vast: Vast) -> None:
    refused = vast.json("POST", "/api/v0/endptjobs/", {"endpoint_name": "a"}, status=401, key="wrong")
    assert refused == {"success": False, "error": "auth_error", "msg": "Invalid user key"}
    vast.json("GET", "/api/v0/endptjobs/", status=401, key=None)
    assert vast.json("GET", "/api/v0/endptjobs/")["results"] == []
    assert vast.json("GET", "/api/v0/users/current/")["id"] == 7


def test_the_key_may_come_in_the_query_as_old_clients_send_it(vast: Vast) -> None:
    call = HttpCall(method="GET", path="/api/v0/users/current", query={"api_key": KEY}, host="console.vast.ai")
    reply = vast.virtual.call(call)
    assert isinstance(reply, Reply)
    assert reply.status == 200


def test_quirk_two_endpoints_of_one_name() -> None:
    newest, older = Vast(), Vast(quirks=Quirks(duplicate_names=True))
    newest.endpoint("demo")
    assert newest.json("POST", "/api/v0/endptjobs/", {"endpoint_name": "demo"}, status=400)["error"] == "invalid_args"
    assert older.endpoint("demo") != older.endpoint("demo")


def test_quirks_of_lists_and_deletes() -> None:
    vast = Vast(quirks=Quirks(empty_list_400=True, gone_endpoint=400, known_template_fails=False))
    assert vast.json("GET", "/api/v0/endptjobs/", status=400)["msg"] == "no endpoints for user"
    assert vast.json("DELETE", "/api/v0/endptjobs/5/", status=400)["msg"] == "Routegroup not found for user"
    vast.template()
    assert vast.template()["id"] == vast.template()["id"]


def test_quirk_rate_limits_by_call_with_and_without_retry_after() -> None:
    vast = Vast(quirks=Quirks(limits=True))
    vast.json("GET", "/api/v0/endptjobs/")
    reply = vast.call("GET", "/api/v0/endptjobs/")
    assert reply.status == 429
    assert json.loads(reply.body) == {"detail": "API requests too frequent endpoint threshold=3.0"}
    assert "retry-after" not in dict(reply.headers)
    vast.advance(3.1)
    vast.json("GET", "/api/v0/endptjobs/")
    told = Vast(quirks=Quirks(limits=True, retry_after=True))
    told.json("GET", "/api/v0/endptjobs/")
    assert dict(told.call("GET", "/api/v0/endptjobs/").headers)["retry-after"] == "3"


def test_quirk_a_day_s_searches_are_counted() -> None:
    vast = Vast(quirks=Quirks(searches_a_day=2))
    for _ in range(2):
        vast.json("POST", "/api/v0/bundles/", {})
    reply = vast.call("POST", "/api/v0/bundles/", {})
    assert (reply.status, json.loads(reply.body)["error"]) == (429, "search_quota_exceeded")
    reset = int(dict(reply.headers)["x-ratelimit-reset"])
    vast.advance(reset - vast.engine.wall(vast.engine.now) + 1)
    vast.json("POST", "/api/v0/bundles/", {})


def test_quirk_an_endpoint_without_a_workergroup_is_deleted() -> None:
    vast = Vast(quirks=Quirks(auto_delete_s=1000.0))
    kept, lost = vast.endpoint("kept"), vast.endpoint("lost")
    vast.workergroup(kept, vast.template()["hash_id"])
    rows = {row["endpoint_name"]: row for row in vast.json("GET", "/api/v0/endptjobs/")["results"]}
    assert (rows["kept"]["auto_delete_in_seconds"], rows["lost"]["auto_delete_in_seconds"]) == (None, 1000.0)
    assert rows["lost"]["auto_delete_due_24h"] is True
    vast.advance(2000.0)
    assert [row["id"] for row in vast.json("GET", "/api/v0/endptjobs/")["results"]] == [kept]
    vast.json("GET", f"/api/v0/endptjobs/{lost}/", status=404)


def test_workers_keep_their_template_until_the_group_is_told() -> None:
    vast = Vast()
    endpoint = vast.endpoint(min_load=1)
    template = vast.template()
    group = vast.workergroup(endpoint, template["hash_id"])
    vast.advance(5.0)
    (before,) = vast.workers(endpoint)
    edited = vast.json("PUT", "/api/v1/template/", {"hash_id": template["hash_id"], "env": "-e A=2"})["template"]
    vast.json("PUT", f"/api/v0/endptjobs/{endpoint}/", {"max_workers": 3})
    vast.advance(5.0)
    assert [row["id"] for row in vast.workers(endpoint)] == [before["id"]]
    body = {"endpoint_id": endpoint, "template_hash": edited["hash_id"]}
    vast.json("PUT", f"/api/v0/workergroups/{group}/", body)
    vast.json("DELETE", "/api/v0/template/", {"template_id": template["id"]})
    vast.advance(10.0)
    assert before["id"] not in [row["id"] for row in vast.workers(endpoint)]
    assert [row["status"] for row in vast.workers(endpoint)] == ["idle"]


def test_lists_learn_late_and_reads_at_once() -> None:
    vast = Vast(list_lag=5.0)
    id = vast.endpoint()
    assert vast.json("GET", "/api/v0/endptjobs/")["results"] == []
    assert vast.json("GET", f"/api/v0/endptjobs/{id}/")["result"]["id"] == id
    vast.advance(6.0)
    assert len(vast.json("GET", "/api/v0/endptjobs/")["results"]) == 1
    vast.json("DELETE", f"/api/v0/endptjobs/{id}/")
    vast.json("GET", f"/api/v0/endptjobs/{id}/", status=404)


def test_a_route_that_the_face_lacks_is_501(vast: Vast) -> None:
    for method, path in (("GET", "/api/v0/secrets/"), ("PUT", "/api/v0/deployments/"), ("GET", "/nothing")):
        assert vast.call(method, path).status == 501
