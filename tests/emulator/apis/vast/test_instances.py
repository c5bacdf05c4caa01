"""The marketplace and its machines: searched, rented, shown, reached, stopped, started, destroyed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from vast_cloud import Vast

from unigpu.emulator.apis.vast.emulator import Quirks
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior

OFFER = 7_100_000


def rent(vast: Vast, offer: int = OFFER, **changes: Any) -> int:
    body = {
        "client_id": "me", "image": "registry.test/app:1", "disk": 20, "label": "ours", "runtype": "args",
        "args_str": "serve --port 8000", "env": {"TOKEN_NAME": "v", "-p 8000:8000": "1"}, "target_state": "running",
        "cancel_unavail": True,
    }  # fmt: skip
    return vast.json("PUT", f"/api/v0/asks/{offer}/", body | changes)["new_contract"]


def test_offers_are_filtered_ordered_and_priced_with_the_disk(vast: Vast) -> None:
    body = {
        "verified": {"eq": True}, "rentable": {"eq": True}, "gpu_name": {"in": ["RTX 4090"]}, "num_gpus": {"eq": 1},
        "geolocation": {"in": ["US", "CA"]}, "order": [["dph_total", "asc"]], "type": "on-demand", "limit": 5,
    }  # fmt: skip
    small = vast.json("POST", "/api/v0/bundles/", body | {"allocated_storage": 10})["offers"]
    large = vast.json("POST", "/api/v0/bundles/", body | {"allocated_storage": 400})["offers"]
    assert [row["geolocation"].rpartition(" ")[2] for row in small] == ["US", "CA"]
    assert small[0]["dph_total"] < large[0]["dph_total"]
    cheap = vast.json("PUT", "/api/v0/search/asks/", {"select_cols": ["*"], "q": body | {"dph_total": {"lte": 0.4}}})
    assert [row["id"] for row in cheap["offers"]] == [OFFER]
    assert vast.json("POST", "/api/v0/bundles/", {"gpu_name": {"like": "4"}}, status=400)["error"] == "invalid_args"


def test_an_instance_is_rented_shown_and_destroyed(vast: Vast) -> None:
    id = rent(vast)
    vast.advance(0.5)
    row = vast.json("GET", f"/api/v0/instances/{id}/")["instances"]
    assert (row["actual_status"], row["ports"]) == ("loading", None)
    vast.advance(5.0)
    row = vast.json("GET", f"/api/v0/instances/{id}/")["instances"]
    assert (row["actual_status"], row["label"], row["gpu_name"]) == ("running", "ours", "RTX 4090")
    assert row["ports"]["8000/tcp"][0]["HostPort"].isdigit()
    listed = vast.json("GET", "/api/v1/instances/", select_filters=json.dumps({"label": {"eq": "ours"}}))
    assert [one["id"] for one in listed["instances"]] == [id]
    assert vast.json("GET", "/api/v1/instances/", select_filters=json.dumps({"label": {"eq": "x"}}))["instances"] == []
    assert vast.json("DELETE", f"/api/v0/instances/{id}/", {}) == {"success": True}
    vast.advance(10.0)
    assert vast.json("GET", f"/api/v0/instances/{id}/") == {"instances": None}
    assert vast.json("DELETE", f"/api/v0/instances/{id}/", {}, status=404)["error"] == "no_such_instance"


def test_quirk_a_destroyed_instance_is_404() -> None:
    vast = Vast(quirks=Quirks(gone_instance_null=False))
    vast.json("GET", "/api/v0/instances/5/", status=404)


def test_an_offer_is_rented_once(vast: Vast) -> None:
    rent(vast)
    refused = vast.json("PUT", f"/api/v0/asks/{OFFER}/", {"image": "x", "cancel_unavail": True}, status=410)
    assert (refused["error"], refused["ask_id"]) == ("no_such_ask", OFFER)
    vast.json("PUT", "/api/v0/asks/1/", {"image": "x"}, status=404)
    rows = vast.json("POST", "/api/v0/bundles/", {"rentable": {"eq": True}})["offers"]
    assert OFFER not in [row["id"] for row in rows]


def test_a_refusal_that_carries_a_contract_has_rented(vast: Vast) -> None:
    rent(vast)
    told = vast.json("PUT", f"/api/v0/asks/{OFFER}/", {"image": "x", "cancel_unavail": False})
    assert told["success"] is False
    row = vast.json("GET", f"/api/v0/instances/{told['new_contract']}/")["instances"]
    assert row["actual_status"] == "stopped"


def test_a_request_reaches_the_server_on_the_machine() -> None:
    vast = Vast(Behavior(http=lambda call: Reply.json({"path": call.path, "auth": call.headers.get("authorization")})))
    id = rent(vast)
    vast.advance(5.0)
    row = vast.json("GET", f"/api/v0/instances/{id}/")["instances"]
    call = HttpCall(
        method="GET", path="/v1/models", host=row["public_ipaddr"], headers={"authorization": "Bearer users-own"}
    )
    reply = vast.virtual.call(call)
    assert isinstance(reply, Reply)
    assert json.loads(reply.body) == {"path": "/v1/models", "auth": "Bearer users-own"}


def test_a_stopped_instance_keeps_its_disk_and_may_find_its_gpu_gone(vast: Vast) -> None:
    id = rent(vast)
    vast.advance(5.0)
    vast.json("PUT", f"/api/v0/instances/{id}/", {"state": "stopped"})
    vast.advance(5.0)
    assert vast.json("GET", f"/api/v0/instances/{id}/")["instances"]["actual_status"] == "stopped"
    vast.json("PUT", f"/api/v0/instances/{id}/", {"state": "running"})
    vast.advance(5.0)
    assert vast.json("GET", f"/api/v0/instances/{id}/")["instances"]["actual_status"] == "running"
    vast.json("PUT", f"/api/v0/instances/{id}/", {"label": "renamed"})
    assert vast.json("GET", f"/api/v0/instances/{id}/")["instances"]["label"] == "renamed"


def test_a_list_is_paged_by_twenty_five() -> None:
    vast = Vast()
    endpoint = vast.deployed(max_workers=20, cold_workers=20)
    other = vast.endpoint("other", max_workers=20, cold_workers=10)
    vast.workergroup(other, vast.json("GET", "/api/v0/template/")["templates"][0]["hash_id"])
    vast.advance(5.0)
    first = vast.json("GET", "/api/v1/instances/", limit="100")
    assert len(first["instances"]) == 25
    rest = vast.json("GET", "/api/v1/instances/", after_token=first["next_token"])
    assert (len(rest["instances"]), rest["next_token"], rest["total_instances"]) == (5, None, 30)
    assert len(vast.workers(endpoint)) == 20


def test_a_worker_s_instance_can_be_destroyed_by_hand(vast: Vast) -> None:
    endpoint = vast.deployed(min_load=1)
    vast.advance(5.0)
    (worker,) = vast.workers(endpoint)
    vast.json("DELETE", f"/api/v0/instances/{worker['id']}/", {})
    vast.advance(5.0)
    assert worker["id"] not in [row["id"] for row in vast.workers(endpoint)]
    assert len(vast.workers(endpoint)) == 1  # the endpoint rents another


@pytest.mark.parametrize("state", ["crash"])
def test_a_container_that_ends_is_exited_and_says_why(state: Any) -> None:
    vast = Vast(Behavior(start=state, lines=("no such file",)))
    id = rent(vast)
    vast.advance(2.0)
    seen = {vast.json("GET", f"/api/v0/instances/{id}/")["instances"]["actual_status"] for _ in range(1)}
    assert seen <= {"exited", "loading", None}
    url = vast.json("PUT", f"/api/v0/instances/request_logs/{id}/", {"tail": "10"})["result_url"]
    assert b"no such file" in vast.call("GET", url.removeprefix("https://console.vast.ai"), key=None).body


def test_a_worker_that_failed_keeps_its_machine_a_while_and_says_why() -> None:
    vast = Vast(Behavior(start=lambda n: "crash" if n == 0 else "ready", reason="the model does not fit"))
    endpoint = vast.deployed(max_workers=1)
    vast.route()
    vast.advance(1.2)
    failed = next(row for row in vast.workers(endpoint) if row["status"] == "error")
    row = vast.json("GET", f"/api/v0/instances/{failed['id']}/")["instances"]
    assert (row["actual_status"], row["status_msg"]) == ("exited", "the model does not fit")
    assert vast.json("DELETE", f"/api/v0/instances/{failed['id']}/", {}) == {"success": True}
    assert vast.json("GET", f"/api/v0/instances/{failed['id']}/") == {"instances": None}
