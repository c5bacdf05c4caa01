"""Pods, volumes, registries, templates, secrets, the catalogue, limits, and what is refused everywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unigpu.emulator.contract import HttpCall, Reply

POD: dict[str, Any] = {
    "name": "box",
    "image": "org/server:1",
    "gpu": {"id": "NVIDIA GeForce RTX 4090", "count": 1},
    "ports": ["8000/http", "22/tcp"],
}


def test_a_pod_is_placed_started_running_and_called_by_anyone(bench: Any) -> None:
    bench.behave("box", cold_start=20)
    made = bench.call("POST", "/v2/pods", POD)
    path = f"/v2/pods/{made['id']}"
    assert (made.status, made["status"], made["actions"]) == (201, "PROVISIONING", ["stop", "terminate"])
    host = f"{made['id']}-8000.proxy.runpod.net"
    assert bench.call("GET", path)["status"] == "STARTING"
    assert bench.call("GET", "/", host=host, key=None).status == 502
    bench.cloud.advance(21)
    running = bench.call("GET", path)
    assert (running["status"], running["runtime"]["uptime"]) == ("RUNNING", 1)
    assert running["runtime"]["ports"][0]["private"] == 8000
    assert bench.call("GET", "/v1/x", host=host, key=None)["path"] == "/v1/x"
    assert bench.call("GET", "/", host=f"{made['id']}-22.proxy.runpod.net").status == 404
    assert bench.call("GET", "/", host="nobody-8000.proxy.runpod.net").status == 404


def test_actions_are_legal_by_status_only(bench: Any) -> None:
    made = bench.call("POST", "/v2/pods", POD)
    path = f"/v2/pods/{made['id']}"
    bench.cloud.advance(30)
    stopped = bench.call("POST", f"{path}/action", {"action": "stop"})
    assert (stopped.status, stopped["status"], stopped["runtime"]) == (200, "EXITED", None)
    assert bench.call("POST", f"{path}/action", {"action": "stop"}).status == 409
    bench.cloud.advance(3600)
    assert bench.cloud.engine.meter.report(bench.cloud.clock.now())["deployments"][made["id"]]["workers_running"] == 0
    bench.face.account.scarce.add("NVIDIA GeForce RTX 4090")
    assert bench.call("POST", f"{path}/action", {"action": "start"}).status == 400  # its machine is taken
    bench.face.account.scarce.clear()
    assert bench.call("POST", f"{path}/action", {"action": "start"}).status == 200
    bench.cloud.advance(30)
    assert bench.call("GET", path)["status"] == "RUNNING"
    assert bench.call("POST", f"{path}/action", {"action": "restart"}).status == 200
    assert bench.call("POST", f"{path}/action", {"action": "fly"}, bad=True).status == 422
    assert bench.call("POST", f"{path}/action", {"action": "terminate"}).status == 204
    assert bench.call("GET", path)["detail"] == "pod not found"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"gpu": {"id": "NVIDIA GeForce RTX 4090"}}, 400),  # without a count no machine fits
        ({"gpu": {"id": "No Such Card", "count": 1}}, 400),
        ({"gpu": None}, 400),
        ({"cloud": "ALL"}, 422),
        ({"interruptible": True}, 422),
        ({"mounts": {"network": [{"volumeId": "nothing", "path": "/w"}]}}, 404),
        ({"image": None}, 422),
    ],
)
def test_a_pod_that_cannot_be_is_refused(bench: Any, change: Any, status: int) -> None:
    body = {key: value for key, value in {**POD, **change}.items() if value is not None}
    assert bench.call("POST", "/v2/pods", body, bad=True).status == status
    assert bench.call("GET", "/v2/pods")["pods"] == []


def test_no_capacity_is_a_400_with_its_own_words(bench: Any) -> None:
    bench.face.account.scarce.add("NVIDIA GeForce RTX 4090")
    refused = bench.call("POST", "/v2/pods", POD)
    assert (refused.status, refused["detail"].startswith("There are no longer any instances")) == (400, True)


def test_a_body_above_100_kib_is_refused_before_the_key_is_looked_at(bench: Any) -> None:
    body = {**POD, "env": {"A": "x" * 103_000}}
    assert bench.call("POST", "/v2/pods", body, key=None).status == 413


def test_a_page_of_pods_may_be_empty_although_another_follows(make: Any) -> None:
    bench = make(short_pod_page=True)
    bench.call("POST", "/v2/pods", POD)
    first = bench.call("GET", "/v2/pods").body
    assert (first["pods"], first["pagination"]["hasNextPage"]) == ([], True)
    second = bench.call("GET", "/v2/pods", cursor=first["pagination"]["nextCursor"]).body
    assert (len(second["pods"]), second["pagination"]["hasNextPage"]) == (1, False)


def test_a_network_volume_grows_stays_and_is_held_by_its_pods(bench: Any) -> None:
    made = bench.call("POST", "/v2/network-volumes", {"name": "data", "size": 10, "dataCenter": "EU-RO-1"})
    path = f"/v2/network-volumes/{made['id']}"
    assert made.body == {
        "id": made["id"],
        "name": "data",
        "size": 10,
        "dataCenter": "EU-RO-1",
        "type": "STANDARD",
    }
    assert bench.call("PATCH", path, {"size": 20})["size"] == 20
    assert bench.call("PATCH", path, {"size": 15}).status == 400
    assert bench.call("PATCH", path, {}, bad=True).status == 422
    wrong = bench.call("POST", "/v2/network-volumes", {"name": "d", "size": 10, "dataCenter": "XX-1"})
    assert (wrong.status, "EU-RO-1" in wrong["detail"]) == (400, True)
    pod = bench.call("POST", "/v2/pods", {**POD, "mounts": {"network": [{"volumeId": made["id"], "path": "/w"}]}})
    assert bench.call("DELETE", path).status == 400
    bench.call("DELETE", f"/v2/pods/{pod['id']}")
    assert bench.call("DELETE", path).status == 204
    assert bench.call("GET", "/v2/network-volumes")["networkVolumes"] == []


def test_a_registry_login_is_never_told_back(bench: Any) -> None:
    made = bench.call("POST", "/v2/registries", {"name": "hub", "username": "me", "password": "hunter2"})
    assert set(made.body) == {"id", "name"}
    assert "hunter2" not in json.dumps(bench.call("GET", "/v2/registries").body)
    assert bench.endpoint(registry=made["id"])["registry"] == made["id"]
    assert bench.call("DELETE", f"/v2/registries/{made['id']}").status == 204


def test_a_template_is_made_changed_listed_and_deleted(bench: Any) -> None:
    made = bench.call("POST", "/v2/templates", {"name": "t", "image": "i"})
    path = f"/v2/templates/{made['id']}"
    assert (made["startSsh"], made["serverless"], made["category"]) == (True, False, "NVIDIA")
    assert bench.call("PATCH", path, {"image": "j"})["image"] == "j"
    assert [one["id"] for one in bench.call("GET", "/v2/templates")["templates"]] == [made["id"]]
    assert bench.call("POST", "/v2/templates", {"name": "t", "image": "i"}).status == 400
    assert bench.call("DELETE", path).status == 204
    assert bench.call("GET", path).status == 404


def test_a_secret_reaches_workers_that_start_and_nobody_else(bench: Any) -> None:
    made = bench.call("POST", "/v2/account/secrets", {"name": "TOKEN", "value": "hunter-1"})
    path = f"/v2/account/secrets/{made['id']}"
    assert made.status == 201
    assert "hunter-1" not in json.dumps(made.body)
    assert bench.call("POST", "/v2/account/secrets", {"name": "token", "value": "hunter-2"}).status == 409
    assert len(bench.call("GET", "/v2/account/secrets", name="token")["secrets"]) == 1
    for name in ("RUNPOD_X", "1a", ""):
        assert bench.call("POST", "/v2/account/secrets", {"name": name, "value": "v"}).status == 422
    endpoint = bench.endpoint(env={"TOKEN": "{{ RUNPOD_SECRET_TOKEN }}", "PLAIN": "p"})
    assert endpoint["env"]["TOKEN"] == "{{ RUNPOD_SECRET_TOKEN }}"

    def environment() -> Any:
        found = bench.cloud.engine.deployments.get(endpoint["id"], bench.cloud.clock.now())
        return dict(found.terms.launch.env)

    assert environment() == {"TOKEN": "hunter-1", "PLAIN": "p"}
    assert bench.call("PATCH", path, {"value": "hunter-2"})["valueLastUpdatedAt"] is not None
    assert environment()["TOKEN"] == "hunter-2"
    assert bench.call("PATCH", path, {}).status == 422
    assert "hunter-2" not in json.dumps([dict(one.record) for one in bench.cloud.journal.values()])
    assert bench.call("DELETE", path).status == 204
    bench.cloud.advance(1)
    assert environment()["TOKEN"] == "{{ RUNPOD_SECRET_TOKEN }}"


def test_the_catalogue_tells_stock_only_where_it_is_asked_for_which_product(bench: Any) -> None:
    plain = bench.call("GET", "/v2/catalog/gpus")["gpus"]
    card = next(one for one in plain if one["id"] == "NVIDIA GeForce RTX 4090")
    assert (card["pool"], card["memory"]) == ("ADA_24", 24)
    assert "availability" not in card
    query = {"include": "AVAILABILITY", "product": "SERVERLESS"}
    bench.face.account.scarce.add("ADA_24")
    shown = {one["id"]: one for one in bench.call("GET", "/v2/catalog/gpus", **query)["gpus"]}
    assert shown[card["id"]]["availability"] == "NONE"
    assert "dataCenters" not in shown[card["id"]]
    assert shown["NVIDIA L4"]["availability"] == "HIGH"
    narrow = bench.call("GET", "/v2/catalog/gpus", **query, countryCodes="FR,DE")["gpus"]
    assert {center["id"] for one in narrow for center in one["dataCenters"]} == {"EU-FR-1"}
    assert bench.call("GET", "/v2/catalog/gpus/NVIDIA GeForce RTX 4090")["pool"] == "ADA_24"
    assert bench.call("GET", "/v2/catalog/gpus/nothing").status == 404
    for wrong, status in (
        ({"include": "AVAILABILITY"}, 400),
        ({"product": "POD"}, 400),
        ({**query, "countryCodes": "France"}, 422),
        ({**query, "cudaVersions": "12.8", "minCudaVersion": "12.1"}, 400),
    ):
        assert bench.call("GET", "/v2/catalog/gpus", bad=True, **wrong).status == status
    assert bench.call("GET", "/v2/catalog/cpus")["cpus"]
    assert bench.call("GET", "/v2/catalog/cpus/cpu5c")["vcpu"]["min"] == 2
    centers = bench.call("GET", "/v2/catalog/datacenters", regions="EUROPE", include="GPU_AVAILABILITY")["dataCenters"]
    assert {one["region"] for one in centers} == {"EUROPE"}
    assert bench.call("GET", "/v2/catalog/datacenters/EU-RO-1")["name"] == "EU Romania 1"


def test_limits_of_the_control_plane_are_announced_and_then_kept(make: Any) -> None:
    bench = make(rate_limits=(("minute", 3, 60), ("hour", 3000, 3600)))
    first = bench.call("GET", "/v2/serverless")
    assert first.headers["ratelimit-policy"] == '"minute";q=3;w=60, "hour";q=3000;w=3600'
    assert '"minute";r=2;t=' in first.headers["ratelimit"]
    for _ in range(2):
        assert bench.call("GET", "/v2/serverless").status == 200
    over = bench.call("GET", "/v2/serverless")
    assert over.body == {
        "title": "Too Many Requests",
        "status": 429,
        "detail": "rate limit exceeded for the minute window",
    }
    bench.cloud.advance(float(over.headers["retry-after"]))
    assert bench.call("GET", "/v2/serverless").status == 200


def test_an_account_without_money_creates_nothing_unless_it_pays_later(make: Any) -> None:
    poor = make(balance=0.0)
    assert poor.call("POST", "/v2/pods", POD).status == 402
    assert poor.call("GET", "/v2/billing/balance").body == {"balanceAmount": 0.0, "billingMode": "PREPAID"}
    assert make(balance=-5.0, billing="POSTPAID").call("POST", "/v2/pods", POD).status == 201


def test_limits_of_the_account_count_what_is_there(bench: Any) -> None:
    bench.endpoint()
    limits = bench.call("GET", "/v2/account/limits").body
    assert limits["serverlessWorkers"] == {"limit": 60, "current": 3}


def test_a_wrong_method_is_405_an_unknown_route_501_and_the_old_api_410(bench: Any) -> None:
    wrong = bench.call("PUT", "/v2/serverless")
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST, GET")
    unknown = bench.call("GET", "/v2/clusters")
    assert (unknown.status, "/v2/clusters" in json.dumps(unknown.body)) == (501, True)
    assert bench.call("GET", "/v1/pods", host="rest.runpod.io", key=None).status == 410


def test_two_runs_of_a_seed_give_the_same_ids(make: Any) -> None:
    assert make().endpoint()["id"] == make().endpoint()["id"]


def test_any_key_will_do_under_a_mock() -> None:
    from unigpu.emulator.apis.runpod.emulator import RunPodEmulator
    from unigpu.emulator.simulation.virtual_cloud import VirtualCloud

    cloud = VirtualCloud()
    cloud.mount(RunPodEmulator(cloud.engine))
    for key, status in (("Bearer anything", 200), ("Bearer ", 401)):
        call = HttpCall(method="GET", path="/v2/pods", host="api.runpod.io", headers={"authorization": key})
        reply = cloud.call(call)
        assert isinstance(reply, Reply)
        assert reply.status == status
