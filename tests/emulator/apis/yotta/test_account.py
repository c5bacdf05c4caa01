"""Pods, registry logins, volumes, VMs, the old task calls, and what holds for every route of the emulator."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi import OpenAPI
from yotta_account import FILE, GPU, wanted

from unigpu.emulator.contract import HttpCall
from unigpu.emulator.simulation.virtual_cloud import Behavior

POD = {
    "name": "box",
    "image": "registry.test/box:1",
    "regions": ["eu-2", "us-east-3"],
    "gpuType": GPU,
    "gpuCount": 1,
    "containerVolumeInGb": 50,
    "environmentVars": [{"key": "A", "value": "1"}],
    "expose": [{"port": 22, "protocol": "SSH"}, {"port": 8080, "protocol": "http"}],
    "initializationCommand": "serve",
}


# -- every route


@pytest.mark.parametrize("key", [None, ""])
def test_a_call_without_a_key_is_401_with_the_envelope(key: str | None, account: Any) -> None:
    reply = account().send("GET", "/v2/serverless", key=key)
    assert reply.status == 401
    assert set(json.loads(reply.body)) == {"message", "code", "data"}


def test_a_served_face_takes_one_key_only(account: Any) -> None:
    yotta = account()
    yotta.face._token = "right"
    assert yotta.send("GET", "/v2/serverless", key="right").status == 200
    assert yotta.send("GET", "/v2/serverless", key="wrong").status == 401


def test_a_bearer_token_is_not_the_control_planes_scheme(account: Any) -> None:
    assert account().send("GET", "/v2/serverless", key=None, authorization="Bearer key").status == 401


def test_a_route_that_is_not_there_is_501_and_named(account: Any) -> None:
    for path in ("/v2/metrics/cpu/pods/1", "/v2/reserves", "/openapi/v1/pods/list"):
        reply = account().send("GET", path)
        assert reply.status == 501
        assert path in reply.body.decode()


def test_every_operation_of_the_official_file_has_a_route(account: Any) -> None:
    yotta, file = account(), OpenAPI.load(FILE)
    for path, item in file.document["paths"].items():
        for method in item:
            where = (
                path.replace("{id}", "1").replace("{taskId}", "t").replace("{workerId}", "2").replace("{count}", "3")
            )
            assert yotta.face.operation(HttpCall(method=method.upper(), path=where)), f"{method} {path}"


def test_errors_come_under_200_or_with_the_statuses_of_the_official_file(account: Any) -> None:
    for form, missing, wrong in (("ok", 200, 200), ("http", 404, 400)):
        yotta = account(error_status=form)
        assert yotta.send("GET", "/v2/serverless/12345").status == missing
        assert yotta.send("POST", "/v2/serverless", {"name": "x"}).status == wrong
        assert yotta.send("POST", "/v2/serverless", b"{").status == wrong
        assert yotta.send("POST", "/v2/serverless", b"[]").status == wrong


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v2/serverless/1", 24001),
        ("/v2/pods/1", 13000),
        ("/v2/container-registry-auths/1", 10007),
        ("/v2/volumes/1", 10007),
        ("/v2/vms/1", 11000),
        ("/v2/serverless/x", 24001),
        ("/v2/vms/x", 11000),
    ],
)
def test_what_is_not_there_has_a_code_of_its_own(path: str, code: int, account: Any) -> None:
    assert account().outcome("GET", path)[0] == code
    assert account().outcome("DELETE", path)[0] == code


def test_the_codes_that_the_documents_disagree_on_can_be_the_others(account: Any) -> None:
    yotta = account(endpoint_missing=14000, pod_missing=12000)
    assert yotta.outcome("GET", "/v2/serverless/1")[0] == 14000
    assert yotta.outcome("GET", "/v2/pods/1")[0] == 12000


@pytest.mark.parametrize("reads", ["environmentVars", "envVars", "both"])
@pytest.mark.parametrize("shows", ["environmentVars", "envVars"])
def test_the_environment_is_read_under_the_name_that_is_set(reads: str, shows: str, account: Any) -> None:
    yotta = account(env_key=reads, shows_env=shows)
    pairs = {name: [{"key": "FROM", "value": name}] for name in ("environmentVars", "envVars")}
    shown = yotta.call("POST", "/v2/serverless", wanted(**pairs))[shows]
    assert shown == pairs["environmentVars" if reads == "both" else reads]
    only_other = "envVars" if reads == "environmentVars" else "environmentVars"
    shown = yotta.call("POST", "/v2/serverless", wanted(**{only_other: pairs[only_other]}))[shows]
    assert shown == (pairs[only_other] if reads == "both" else [])


def test_an_endpoint_shows_no_environment_by_default(account: Any) -> None:
    shown = account().call("POST", "/v2/serverless", wanted(environmentVars=[{"key": "SECRET", "value": "s3"}]))
    assert "s3" not in json.dumps(shown)


def test_ids_and_times_come_in_each_form_that_a_document_has(account: Any) -> None:
    plain = account().call("POST", "/v2/serverless", wanted())
    other = account(numeric_ids=True, iso_times=False, shows_prices=False).call("POST", "/v2/serverless", wanted())
    assert (type(plain["id"]), type(plain["createdAt"]), "perHourPrice" in plain) == (str, str, True)
    assert (type(other["id"]), type(other["createdAt"]), "perHourPrice" in other) == (int, int, False)
    whole = account(price_of="endpoint").call("POST", "/v2/serverless", wanted(workers=3))
    assert whole["perHourPrice"] == pytest.approx(1.2)


# -- pods


def test_a_pod_lives_pauses_and_ends(account: Any) -> None:
    yotta = account(Behavior(cold_start=60, stop=5))
    made = yotta.call("POST", "/v2/pods", POD)
    id = made["id"]
    assert (type(id), made["status"], made["region"]) == (int, "INITIALIZING", "eu-2")
    assert [one["healthy"] for one in made["expose"]] == [False, False]
    yotta.cloud.advance(60)
    shown = yotta.call("GET", f"/v2/pods/{id}")
    assert (shown["status"], shown["singleCardPrice"], shown["gpuDisplayName"]) == ("RUNNING", 0.4, "RTX 4090")
    url = shown["expose"][1]["ingressUrl"]
    assert yotta.send("GET", f"{url}/x", key=None).status == 200, "a pod's port is open to everybody"
    yotta.call("POST", f"/v2/pods/{id}/pause", {})
    assert yotta.call("GET", f"/v2/pods/{id}")["status"] == "STOPPING"
    yotta.cloud.advance(5)
    assert yotta.call("GET", f"/v2/pods/{id}")["status"] == "STOPPED"
    assert yotta.send("GET", f"{url}/x", key=None).status == 503
    assert yotta.outcome("POST", f"/v2/pods/{id}/pause", {})[0] == 12001
    yotta.call("POST", f"/v2/pods/{id}/resume", {})
    assert yotta.outcome("POST", f"/v2/pods/{id}/resume", {})[0] == 12001
    yotta.cloud.advance(60)
    assert [row["id"] for row in yotta.call("GET", "/v2/pods", statusList="RUNNING", regionList="eu-2,sg")] == [id]
    assert yotta.call("GET", "/v2/pods", regionList="sg") == []
    yotta.call("DELETE", f"/v2/pods/{id}")
    yotta.cloud.advance(5)
    assert yotta.call("GET", "/v2/pods") == []
    assert yotta.call("GET", "/v2/serverless") == []


def test_a_pod_that_is_paused_or_made_can_be_told_in_the_other_form(account: Any) -> None:
    yotta = account(paused_state="PAUSED", pod_create="id")
    reply = json.loads(yotta.cloud.call(_post("/v2/pods", POD)).body)
    id = reply["data"]
    assert isinstance(id, int)
    yotta.call("POST", f"/v2/pods/{id}/pause", {})
    yotta.cloud.advance(5)
    assert yotta.call("GET", f"/v2/pods/{id}")["status"] == "PAUSED"


@pytest.mark.parametrize(
    "change", [{"gpuType": "X"}, {"gpuCount": 3}, {"image": ""}, {"expose": [{"port": 0}]}, {"gpuCount": None}]
)
def test_what_a_pod_cannot_be_is_refused(change: dict[str, Any], account: Any) -> None:
    assert account().outcome("POST", "/v2/pods", {**POD, **change})[0] == 10001


def test_a_pod_without_a_free_gpu_is_refused(account: Any) -> None:
    assert account(stock={GPU: {"eu-2": False}}).outcome("POST", "/v2/pods", POD)[0] == 20001


def _post(path: str, body: Any) -> HttpCall:
    host = "api.yottalabs.ai"
    return HttpCall(method="POST", path=path, headers={"x-api-key": "k"}, host=host, body=json.dumps(body).encode())


# -- the account


def test_a_registry_login_is_kept_without_its_secret_and_guarded_while_it_is_used(account: Any) -> None:
    yotta = account()
    made = yotta.call(
        "POST", "/v2/container-registry-auths", {"name": "hub", "username": "me", "password": "s3", "type": "GCR"}
    )
    path = f"/v2/container-registry-auths/{made['id']}"
    assert yotta.call("GET", path) == made
    assert yotta.call("GET", "/v2/container-registry-auths") == [made]
    assert "s3" not in json.dumps(made)
    assert yotta.call("PATCH", path, {"name": "hub2"})["name"] == "hub2"
    id = yotta.deploy(containerRegistryAuthId=made["id"])
    assert yotta.outcome("DELETE", path)[0] == 25002
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(5)
    yotta.call("DELETE", f"/v2/serverless/{id}")
    assert yotta.call("DELETE", path) is True
    assert yotta.outcome("GET", path)[0] == 10007


def test_a_registry_login_needs_no_type_but_the_rest(account: Any) -> None:
    whole = {"name": "hub", "username": "me", "password": "s3"}
    assert account().call("POST", "/v2/container-registry-auths", whole)["name"] == "hub"
    for key in whole:
        part = {name: value for name, value in whole.items() if name != key}
        assert account().outcome("POST", "/v2/container-registry-auths", part)[0] == 10001


def test_volumes_come_as_the_reference_and_as_the_clients_file_show_them(account: Any) -> None:
    body = {"name": "data", "storageType": "CEPH", "region": "us-east-3", "sizeInGb": 100}
    yotta = account()
    made = yotta.call("POST", "/v2/volumes", body)
    assert (type(made["id"]), made["type"], made["sizeInGb"], made["cost"]) == (str, "CEPH", 0, "0")
    old = account(volume_form="client")
    made = old.call("POST", "/v2/volumes", body)
    assert (type(made["id"]), made["storageType"], made["sizeInGb"], made["cost"]) == (int, "CEPH", 100, 0)
    path = f"/v2/volumes/{made['id']}"
    assert old.call("POST", f"{path}/name", {"name": "more"})["name"] == "more"
    old.call("POST", f"{path}/resize", {"sizeInGb": 200})
    assert old.call("GET", path)["sizeInGb"] == 200
    page = old.call("GET", "/v2/volumes", storageType="CEPH")
    assert (page["total"], page["items"][0]["name"]) == (1, "more")
    assert old.call("GET", "/v2/volumes", storageType="S3")["items"] == []
    assert old.outcome("GET", "/v2/volumes")[0] == 10001
    assert old.call("DELETE", path) is True
    assert old.outcome("GET", path)[0] == 10007


def test_vms_are_rented_by_their_type_and_run_after_a_while(account: Any) -> None:
    yotta = account()
    rows = {row["gpuType"]: row["regions"] for row in yotta.call("GET", "/v2/vms/types")}
    assert all("price" not in json.dumps(regions).lower() for regions in rows.values())
    place = rows[GPU][0]
    made = yotta.call(
        "POST", "/v2/vms", {"vmTypeId": place["vmTypeId"], "region": place["region"], "name": "vm", "isSpot": 1}
    )
    assert (made["status"], made["isSpot"], made["gpuDisplayName"]) == ("initializing", 1, "RTX 4090")
    yotta.cloud.advance(30)
    path = f"/v2/vms/{made['id']}"
    assert yotta.call("GET", path)["status"] == "running"
    assert yotta.call("PATCH", path, {"name": "vm2"})["name"] == "vm2"
    assert [row["name"] for row in yotta.call("GET", "/v2/vms", status="running")["items"]] == ["vm2"]
    assert yotta.call("GET", "/v2/vms", status="stopped")["items"] == []
    assert yotta.call("DELETE", path) is True
    assert yotta.outcome("GET", path)[0] == 11000
    assert yotta.outcome("POST", "/v2/vms", {"vmTypeId": 1, "region": "eu-2", "name": "vm"})[0] == 10001


# -- the old generation's tasks


def test_the_old_calls_reach_the_same_tasks(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    base, of = "/openapi/v1/skywalker/tasks", {"x_endpoint_id": id}
    body = {
        "userTaskId": "old",
        "workerPort": 8000,
        "processUri": "/run",
        "taskData": {"input": {"n": 1}},
        "header": {"A": "b"},
    }

    def data(method: str, path: str, body: Any = None) -> Any:
        found = json.loads(yotta.send(method, path, body, **of).body)
        return found["data"] if found["code"] == 10000 else found["code"]

    assert data("POST", f"{base}/create", body) == {"userTaskId": "old"}
    assert data("GET", f"{base}/processing/count") == {"processingCount": 1}
    yotta.cloud.advance(2)
    task = data("GET", f"{base}/old")
    assert (task["status"], task["taskData"], task["header"]) == ("SUCCESS", {"input": {"n": 1}}, {"A": "b"})
    assert task["taskResult"]["output"] == {"n": 1}
    assert yotta.task(id, "old")["output"] == task["taskResult"]
    assert [row["userTaskId"] for row in data("GET", f"{base}?status=2&page=1&pageSize=10")["items"]] == ["old"]
    assert data("GET", f"{base}?status=0")["pagination"]["totalCount"] == 0
    assert data("GET", f"{base}/none") == 40402
    assert data("POST", f"{base}/create", {**body, "userTaskId": ""}) == 40001
    assert data("POST", f"{base}/create", {**body, "taskData": {}}) == 40001


def test_pods_are_also_listed_by_the_older_numbers_of_their_states(account: Any) -> None:
    yotta = account()
    id = yotta.call("POST", "/v2/pods", POD)["id"]
    assert [row["id"] for row in yotta.call("GET", "/v2/pods", statusList="0,3")] == [id]
    assert yotta.call("GET", "/v2/pods", statusList="1") == []
