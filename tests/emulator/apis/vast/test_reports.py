"""What workers tell the platform: ready, busy, done, broken; and that only they may tell it."""

from __future__ import annotations

from typing import Any

from vast_cloud import Vast

from unigpu.emulator.contract import Launch, StartWorker
from unigpu.emulator.simulation.virtual_cloud import Behavior


def started(vast: Vast) -> tuple[int, str]:
    """A worker that hangs while starting, as its platform sees it: its number and its token."""
    endpoint = vast.deployed(max_workers=1)
    vast.route()
    (row,) = vast.workers(endpoint)
    token = vast.engine.deployments.get(f"vast.endpoint-{endpoint}", vast.virtual.clock.now())
    return row["id"], token.terms.launch.per_worker["MASTER_TOKEN"]


def report(id: int, token: str, **changes: Any) -> dict[str, Any]:
    body = {
        "id": id, "mtoken": token, "version": "0.2", "loadtime": 12.5, "cur_load": 0.0, "rej_load": 0.0,
        "new_load": 0.0,
        "error_msg": "", "max_perf": 50.0, "cur_perf": 0.0, "cur_capacity": 0, "max_capacity": 0,
        "num_requests_working": 0, "num_requests_recieved": 0, "additional_disk_usage": 0.0, "disk_usage": 20.0,
        "working_request_idxs": [], "url": "http://127.0.0.1:13000",
    }  # fmt: skip
    return body | changes


def test_a_worker_is_ready_when_it_says_so_and_is_where_it_says() -> None:
    vast = Vast(Behavior(start="hang"))
    id, token = started(vast)
    vast.json("POST", "/worker_status/", report(id, token, loadtime=0.0, max_perf=0.0), key=None)
    assert "url" not in vast.route()
    vast.json("POST", "/worker_status/", report(id, token), key=None)
    assert vast.route()["url"] == "http://127.0.0.1:13000"
    (row,) = vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"})
    assert (row["status"], row["measured_perf"], row["disk_usage"]) == ("idle", 50.0, 20.0)


def test_a_report_without_the_worker_s_token_changes_nothing() -> None:
    vast = Vast(Behavior(start="hang"))
    id, token = started(vast)
    for body in (report(id, "wrong"), report(id, ""), report(id + 1, token)):
        vast.json("POST", "/worker_status/", body, key=None, status=401)
    vast.json("POST", "/delete_requests/", {"worker_id": id, "mtoken": "wrong", "requests": []}, key=None, status=401)
    assert "url" not in vast.route()


def test_what_a_worker_runs_keeps_it_and_its_end_lets_it_go() -> None:
    vast = Vast(Behavior(start="hang"))
    id, token = started(vast)
    vast.json("POST", "/worker_status/", report(id, token), key=None)
    index = vast.route()["request_idx"]
    vast.json("POST", "/worker_status/", report(id, token, working_request_idxs=[index]), key=None)
    vast.advance(1000.0)
    rows = vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"})
    assert [row["status"] for row in rows] == ["idle"]
    done = {"request_idx": index, "success": True, "status": "Success"}
    vast.json("POST", "/delete_requests/", {"worker_id": id, "mtoken": token, "requests": [done]}, key=None)
    vast.advance(100.0)
    assert vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"}) == []


def test_a_route_that_nobody_follows_is_forgotten() -> None:
    vast = Vast(Behavior(start="hang"))
    id, token = started(vast)
    vast.json("POST", "/worker_status/", report(id, token), key=None)
    vast.route(replay_timeout=60.0)
    vast.advance(59.0)
    assert len(vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"})) == 1
    vast.advance(70.0)
    assert vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"}) == []


def test_a_worker_that_reports_an_error_is_an_error_and_is_replaced() -> None:
    vast = Vast(Behavior(start=lambda n: "hang" if n == 0 else "ready"))
    id, token = started(vast)
    vast.json("POST", "/worker_status/", report(id, token, error_msg="unigpu: failed", max_perf=0.0), key=None)
    vast.advance(0.1)
    rows = vast.json("POST", "/get_endpoint_workers/", {"endpoint": "demo"})
    assert (rows[0]["id"], rows[0]["status"]) == (id, "error")
    assert vast.routed()["url"]


def test_a_worker_s_process_is_told_who_it_is_where_and_by_which_token() -> None:
    vast = Vast()
    vast.deployed()
    launch = vast.engine.deployments.get(vast.engine.deployment_ids()[0], 0.0).terms.launch
    assert isinstance(launch, Launch)
    assert StartWorker
    names = set(launch.per_worker)
    assert {
        "CONTAINER_ID",
        "PUBLIC_IPADDR",
        "WORKER_PORT",
        "VAST_TCP_PORT_{port}",
        "REPORT_ADDR",
        "MASTER_TOKEN",
    } <= names
    assert launch.argv == ("serve",)
    assert launch.env == {"UNIGPU_NAME": "demo"}
    assert launch.reports
