"""Endpoints of the emulator: their states, what they refuse, and workers that are kept at the declared number."""

from __future__ import annotations

from typing import Any

import pytest
from yotta_account import GPU, wanted

from unigpu.emulator.simulation.virtual_cloud import Behavior


def test_an_endpoint_goes_through_the_documented_states(account: Any) -> None:
    yotta = account(Behavior(cold_start=60, stop=5))
    made = yotta.call("POST", "/v2/serverless", wanted(workers=2))
    assert (made["status"], made["totalWorkers"], made["runningWorkers"]) == ("INITIALIZING", 2, 0)
    assert (made["serviceMode"], made["webhook"], made["cost"]) == ("QUEUE", None, 0)
    id = made["id"]
    assert isinstance(id, str)
    assert len(id) == 18
    assert id.isdecimal()
    yotta.cloud.advance(60)
    assert (yotta.get(id)["status"], yotta.get(id)["runningWorkers"]) == ("RUNNING", 2)
    first = {one["id"] for one in yotta.workers(id)}
    assert yotta.call("POST", f"/v2/serverless/{id}/stop", {}) is None
    assert yotta.status(id) == "STOPPING"
    yotta.cloud.advance(5)
    assert (yotta.get(id)["status"], yotta.get(id)["runningWorkers"]) == ("STOPPED", 0)
    yotta.call("POST", f"/v2/serverless/{id}/start", {})
    assert yotta.status(id) == "INITIALIZING"
    yotta.cloud.advance(60)
    assert yotta.status(id) == "RUNNING"
    again = {one["id"] for one in yotta.workers(id, statusList="RUNNING")}
    assert len(again) == 2
    assert not again & first, "a start makes new workers, under new ids"
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(5)
    assert yotta.call("DELETE", f"/v2/serverless/{id}") is True
    assert yotta.outcome("GET", f"/v2/serverless/{id}")[0] == 24001
    assert yotta.call("GET", "/v2/serverless") == []


@pytest.mark.parametrize(
    ("state", "action"),
    [
        ("INITIALIZING", "DELETE"),
        ("INITIALIZING", "start"),
        ("RUNNING", "DELETE"),
        ("RUNNING", "start"),
        ("RUNNING", "PATCH"),
        ("STOPPING", "DELETE"),
        ("STOPPING", "stop"),
        ("STOPPING", "start"),
        ("STOPPED", "stop"),
        ("STOPPED", "scale"),
    ],
)
def test_an_action_in_the_wrong_state_is_24002_under_http_200(state: str, action: str, account: Any) -> None:
    yotta = account(Behavior(cold_start=60, stop=5))
    id = yotta.deploy()
    yotta.cloud.advance(0 if state == "INITIALIZING" else 60)
    if state.startswith("STOP"):
        yotta.call("POST", f"/v2/serverless/{id}/stop", {})
        yotta.cloud.advance(5 if state == "STOPPED" else 0)
    assert yotta.status(id) == state
    path = f"/v2/serverless/{id}"
    method, url, body = {
        "DELETE": ("DELETE", path, None),
        "PATCH": ("PATCH", path, wanted()),
        "scale": ("PUT", f"{path}/workers?count=2", None),
    }.get(action, ("POST", f"{path}/{action}", {}))
    reply = yotta.send(method, url, body)
    assert reply.status == 200
    assert b'"code":24002' in reply.body
    assert b"Elastic action not allowed" in reply.body
    assert yotta.status(id) == state


def test_an_endpoint_that_still_starts_can_be_stopped(account: Any) -> None:
    yotta = account(Behavior(cold_start=60))
    id = yotta.deploy()
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(1)
    assert yotta.status(id) == "STOPPED"


def test_a_worker_that_fell_is_replaced_and_the_endpoint_runs_on(account: Any) -> None:
    yotta = account()
    id = yotta.running(workers=2)
    before = {one["id"] for one in yotta.workers(id)}
    yotta.kill(id)
    assert (yotta.get(id)["status"], yotta.get(id)["runningWorkers"]) == ("RUNNING", 1)
    yotta.cloud.advance(60)
    assert yotta.get(id)["runningWorkers"] == 2
    listed = yotta.workers(id)
    assert len(listed) == 3, "the one that fell stays listed"
    assert sorted(one["status"] for one in listed) == ["FAILED", "RUNNING", "RUNNING"]
    assert len({one["id"] for one in listed} - before) == 1


def test_an_endpoint_without_any_worker_for_a_moment_stays_running_unless_told_otherwise(account: Any) -> None:
    for heals, state in ((True, "RUNNING"), (False, "INITIALIZING")):
        yotta = account(heals_running=heals)
        id = yotta.running()
        yotta.kill(id)
        assert (yotta.get(id)["status"], yotta.get(id)["runningWorkers"]) == (state, 0)
        yotta.cloud.advance(60)
        assert yotta.status(id) == "RUNNING"


def test_an_endpoint_whose_workers_cannot_start_is_failed_and_can_be_ended(account: Any) -> None:
    yotta = account(Behavior(start="crash", cold_start=1))
    id = yotta.deploy()
    for _ in range(100):
        if yotta.status(id) == "FAILED":
            break
        yotta.cloud.advance(1)
    assert yotta.status(id) == "FAILED"
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(5)
    yotta.call("DELETE", f"/v2/serverless/{id}")


def test_scaling_is_absolute_and_in_each_documented_form(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    for count, method, url, body in (
        (3, "PUT", f"/v2/serverless/{id}/workers?count=3", None),
        (2, "PUT", f"/v2/serverless/{id}/workers/2", None),
        (4, "POST", f"/v2/serverless/{id}/workers", {"workers": 4}),
        (1, "PUT", f"/v2/serverless/{id}/workers?count=1", None),
    ):
        assert yotta.call(method, url, body) is None
        yotta.cloud.advance(60)
        assert (yotta.get(id)["totalWorkers"], yotta.get(id)["runningWorkers"]) == (count, count)


def test_zero_workers_is_no_count(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    assert yotta.outcome("PUT", f"/v2/serverless/{id}/workers", count=0)[0] == 10001
    assert yotta.status(id) == "RUNNING"
    stops = account(zero_workers="stop")
    id = stops.running()
    stops.call("PUT", f"/v2/serverless/{id}/workers", count=0)
    stops.cloud.advance(1)
    assert stops.status(id) == "STOPPED"


def test_scaling_down_lets_a_worker_finish_its_task(account: Any) -> None:
    yotta = account(Behavior(duration=100))
    id = yotta.running(workers=2)
    yotta.submit(id, "a")
    yotta.submit(id, "b")
    yotta.call("PUT", f"/v2/serverless/{id}/workers", count=1)
    yotta.cloud.advance(50)
    assert yotta.get(id)["totalWorkers"] == 1
    assert [one["status"] for one in yotta.workers(id)].count("TERMINATING") == 1
    yotta.cloud.advance(60)
    assert [yotta.task(id, one)["status"] for one in "ab"] == ["SUCCESS", "SUCCESS"]
    assert yotta.get(id)["runningWorkers"] == 1


def test_a_stopped_endpoint_is_edited_as_a_whole_and_keeps_image_and_mode(account: Any) -> None:
    yotta = account()
    id = yotta.running()
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(1)
    part = {"name": "chat2", "workers": 2}
    assert yotta.outcome("PATCH", f"/v2/serverless/{id}", part)[0] == 10001
    resources = [{"region": "eu-2", "gpuType": "NVIDIA_H100_80G", "gpuCount": 2}]
    whole = {**part, "resources": resources, "containerVolumeInGb": 40, "image": "other:2", "serviceMode": "ALB"}
    changed = yotta.call("PATCH", f"/v2/serverless/{id}", whole)
    assert (changed["name"], changed["totalWorkers"], changed["resources"]) == ("chat2", 2, resources)
    assert (changed["image"], changed["serviceMode"]) == ("registry.test/chat:1", "QUEUE")
    assert changed["perHourPrice"] == pytest.approx(2 * 1.85)
    yotta.call("POST", f"/v2/serverless/{id}/start", {})
    yotta.cloud.advance(10)
    assert {one["region"] for one in yotta.workers(id, statusList="RUNNING")} == {"eu-2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "1chat"}, "name"),
        ({"name": "a" * 21}, "name"),
        ({"image": None}, "image"),
        ({"workers": 0}, "workers"),
        ({"workers": None}, "workers"),
        ({"containerVolumeInGb": 19}, "containerVolumeInGb"),
        ({"serviceMode": "BATCH"}, "serviceMode"),
        ({"serviceMode": "ALB", "expose": None}, "expose"),
        ({"expose": {"port": 0}}, "port"),
        ({"resources": []}, "resources"),
        (
            {"resources": [{"region": "eu-2", "gpuType": "RTX_4090", "gpuCount": 1}]},
            "gpu type [RTX_4090] not supported",
        ),
        ({"resources": [{"region": "eu-2", "gpuType": GPU, "gpuCount": 3}]}, "power of 2"),
        (
            {"resources": [{"region": "eu-2", "gpuType": GPU, "gpuCount": n} for n in (1, 2)]},
            "the same gpuCount",
        ),
        ({"environmentVars": [{"name": "K", "value": "V"}]}, "key"),
        ({"webhook": "ftp://example.com"}, "webhook"),
    ],
)
def test_what_cannot_be_is_refused_by_code(change: dict[str, Any], words: str, account: Any) -> None:
    yotta = account()
    code, data, message = yotta.outcome("POST", "/v2/serverless", wanted(**change))
    assert (code, data) == (10001, None)
    assert words in message
    assert yotta.call("GET", "/v2/serverless") == []


def test_no_free_gpu_is_a_failed_creation(account: Any) -> None:
    yotta = account(stock={GPU: {"us-east-3": False, "eu-2": True}})
    assert yotta.outcome("POST", "/v2/serverless", wanted())[0] == 20001
    both = [{"region": region, "gpuType": GPU, "gpuCount": 1} for region in ("us-east-3", "eu-2")]
    id = yotta.running(resources=both, workers=4)
    assert {one["region"] for one in yotta.workers(id)} == {"eu-2"}


def test_workers_are_spread_over_the_acceptable_places_and_show_it(account: Any) -> None:
    yotta = account()
    places = [("us-east-3", GPU), ("eu-2", "NVIDIA_RTX_5090_32G")]
    id = yotta.running(resources=[{"region": r, "gpuType": g, "gpuCount": 1} for r, g in places], workers=12)
    assert {(one["region"], one["gpuType"]) for one in yotta.workers(id)} == set(places)


def test_lists_are_filtered_by_state_in_both_spellings(account: Any) -> None:
    yotta = account()
    one, two = yotta.running(), yotta.running()
    yotta.call("POST", f"/v2/serverless/{two}/stop", {})
    yotta.cloud.advance(1)
    assert [row["id"] for row in yotta.call("GET", "/v2/serverless", statusList="RUNNING")] == [one]
    assert len(yotta.call("GET", "/v2/serverless", statusList="RUNNING,STOPPED")) == 2
    assert len(yotta.call("GET", "/v2/serverless?statusList=RUNNING&statusList=STOPPED")) == 2
    assert yotta.call("GET", "/v2/serverless", statusList="FAILED") == []


def test_a_bill_runs_from_running_and_ends_with_stop(account: Any) -> None:
    for loading, seconds in ((False, 600), (True, 700)):
        yotta = account(Behavior(cold_start=100), bills_loading=loading)
        id = yotta.deploy(workers=2)
        assert yotta.get(id)["perHourPrice"] == pytest.approx(0.4)
        yotta.cloud.advance(700)
        yotta.call("POST", f"/v2/serverless/{id}/stop", {})
        yotta.cloud.advance(5000)
        assert yotta.get(id)["cost"] == pytest.approx(2 * seconds / 3600 * 0.4, abs=1e-5)


def test_disk_above_the_free_part_costs(account: Any) -> None:
    yotta = account()
    assert yotta.get(yotta.deploy(containerVolumeInGb=1256))["perHourPrice"] == pytest.approx(0.4 + 0.05)


def test_two_creates_of_one_name_make_two(account: Any) -> None:
    yotta = account()
    assert yotta.deploy() != yotta.deploy()
    assert len(yotta.call("GET", "/v2/serverless")) == 2


def test_logs_of_a_worker_come_by_pages_in_both_directions(account: Any) -> None:
    yotta = account(Behavior(lines=tuple(f"line {n}" for n in range(25))))
    id = yotta.running()
    path = f"/v2/serverless/{id}/workers/{yotta.workers(id)[0]['id']}/logs"
    for direction in ("Forward", "Backward"):
        got: list[str] = []
        query: dict[str, Any] = {"pageSize": 10, "direction": direction}
        while True:
            page = yotta.call("GET", path, **query)
            got += [line["log"] for line in page["logs"]]
            if not page["hasMore"]:
                break
            query |= {
                "searchAfterTime": page["nextSearchAfterTime"],
                "searchAfterOffset": page["nextSearchAfterOffset"],
            }
        expected = [f"line {n}" for n in range(25)]
        assert got == (expected if direction == "Forward" else expected[::-1])
    assert [line["log"] for line in yotta.call("GET", path, keyword="line 7")["logs"]] == ["line 7"]
    assert yotta.call("GET", path, endTime=1)["logs"] == []


def test_the_routes_that_the_reference_lacks_can_be_missing(account: Any) -> None:
    yotta = account(worker_list=False, worker_logs=False)
    id = yotta.running()
    for path in (f"/v2/serverless/{id}/workers", f"/v2/serverless/{id}/workers/1/logs"):
        assert yotta.send("GET", path).status == 404


def test_an_edit_without_an_environment_keeps_it_and_no_value_is_kept_beside_it(account: Any) -> None:
    yotta = account(shows_env="environmentVars")
    env = [{"key": "TOKEN", "value": "s3cret"}]
    id = yotta.running(environmentVars=env)
    yotta.call("POST", f"/v2/serverless/{id}/stop", {})
    yotta.cloud.advance(1)
    body = {key: value for key, value in wanted().items() if key in ("name", "resources", "containerVolumeInGb")}
    assert yotta.call("PATCH", f"/v2/serverless/{id}", {**body, "workers": 1})["environmentVars"] == env
    other = [{"key": "B", "value": "2"}]
    changed = yotta.call("PATCH", f"/v2/serverless/{id}", {**body, "workers": 1, "envVars": other})
    assert changed["environmentVars"] == other
    assert "s3cret" not in repr(yotta.cloud.engine.deployments.get(id, 0.0).terms.data)


def test_a_start_of_twenty_minutes_is_waited_for(account: Any) -> None:
    yotta = account(Behavior(cold_start=1200))
    id = yotta.deploy()
    yotta.cloud.advance(1199)
    assert yotta.status(id) == "INITIALIZING"
    yotta.cloud.advance(1)
    assert yotta.status(id) == "RUNNING"
    hasty = account(Behavior(cold_start=1200), start_limit=600)
    id = hasty.deploy()
    hasty.cloud.advance(1200)
    assert hasty.status(id) != "RUNNING"
