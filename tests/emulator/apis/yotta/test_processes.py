"""The emulator over real worker processes: the portable worker and a user's own server, behind queue and gateway."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from yotta_served import alive

import unigpu
from unigpu import errors

pytestmark = pytest.mark.processes

WORKER = "python -m unigpu.worker app:"
OWN = shlex.join([sys.executable, "own_server.py"])


def test_a_queue_endpoint_from_deploy_to_teardown(served: Any) -> None:
    id = served.deploy(WORKER + "echo", workers=2)
    served.becomes(id, "RUNNING", workers=2)
    for n in range(6):
        served.submit(id, f"t{n}", {"input": {"n": n}})
    done = [served.ended(id, f"t{n}") for n in range(6)]
    assert [one["output"]["output"]["n"] for one in done] == list(range(6))
    assert all(one["output"]["execution_s"] >= 0 for one in done)
    pids = {one["output"]["output"]["pid"] for one in done}
    served.submit(id, "bare", {"n": 7}, path="/run")
    assert served.ended(id, "bare")["output"]["n"] == 7
    served.call("POST", f"/v2/serverless/{id}/stop")
    served.becomes(id, "STOPPED", workers=0)
    assert not any(alive(pid) for pid in pids)
    served.call("POST", f"/v2/serverless/{id}/start")
    served.becomes(id, "RUNNING", workers=2)
    served.submit(id, "again", {"input": {}})
    assert served.ended(id, "again")["output"]["output"]["pid"] not in pids
    served.call("POST", f"/v2/serverless/{id}/stop")
    served.becomes(id, "STOPPED")
    served.call("DELETE", f"/v2/serverless/{id}")
    assert served.call("GET", "/v2/serverless") == []


def test_a_killed_worker_loses_its_task_and_is_replaced(served: Any, tmp_path: Path) -> None:
    id = served.deploy(WORKER + "slow")
    served.becomes(id, "RUNNING")
    started, gate = tmp_path / "started", tmp_path / "go"
    ask = {"input": {"started": str(started), "go": str(gate)}}
    served.submit(id, "lost", ask)
    served.submit(id, "waits", ask)
    pid = int(served.until(lambda: started.exists() and started.read_text(), "the task to begin"))
    os.kill(pid, signal.SIGKILL)
    gate.touch()
    lost, waited = served.ended(id, "lost"), served.ended(id, "waits")
    assert lost["status"] == "FAILED"
    assert "WorkerLost" in lost["error"]
    assert waited["output"]["output"]["pid"] != pid
    assert served.becomes(id, "RUNNING", workers=1)["totalWorkers"] == 1
    states = [one["status"] for one in served.call("GET", f"/v2/serverless/{id}/workers")]
    assert sorted(states) == ["FAILED", "RUNNING"]


def test_a_worker_that_loads_is_not_running_and_gets_no_task(served: Any, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    id = served.deploy(WORKER + "Gated", env={"GATE": str(gate)})
    worker = served.until(lambda: served.call("GET", f"/v2/serverless/{id}/workers"), "a worker")[0]["id"]
    logs = f"/v2/serverless/{id}/workers/{worker}/logs?keyword=loading"
    served.until(lambda: served.call("GET", logs)["logs"], "it loads")
    assert served.get(id)["status"] == "INITIALIZING"
    body = {"taskId": "t", "input": {"input": {}}, "workerPort": served.port, "processUri": "/invoke"}
    assert served.http.post(f"{served.base}/v2/serverless/{id}/tasks", json=body).json()["code"] == 24000
    gate.touch()
    served.becomes(id, "RUNNING")
    served.submit(id, "t", {"input": {}})
    assert served.ended(id, "t")["status"] == "SUCCESS"


def test_workers_that_cannot_load_fail_the_endpoint_and_their_logs_say_why(served: Any) -> None:
    id = served.deploy(WORKER + "Broken")
    served.becomes(id, "FAILED")
    workers = served.call("GET", f"/v2/serverless/{id}/workers")
    assert {one["status"] for one in workers} == {"FAILED"}
    lines = served.call("GET", f"/v2/serverless/{id}/workers/{workers[0]['id']}/logs")["logs"]
    assert any("no weights here" in line["log"] for line in lines)


def test_failures_of_a_handler_and_of_a_server_and_their_webhook(served: Any, hook: Any) -> None:
    id = served.deploy(WORKER + "fail")
    served.becomes(id, "RUNNING")
    told = {"webhook": hook.url, "webhookAuthKey": "s3"}
    served.submit(id, "ours", {"input": {"what": "luck"}})
    served.submit(id, "bare", {"what": "luck"}, path="/run", **told)
    ours, bare = served.ended(id, "ours"), served.ended(id, "bare")
    assert (ours["status"], ours["output"]["error"]) == ("SUCCESS", {"type": "ValueError", "message": "no luck"})
    assert bare["status"] == "FAILED"
    assert "no luck" in bare["error"]
    assert hook.news.wait(60)
    headers, body = hook.got[0]
    assert headers["x-api-key"] == "s3"
    assert (body["user_task_id"], body["success"], body["retry_count"]) == ("bare", False, 1)
    assert served.key not in repr(hook.got)


def test_a_servers_own_path_headers_and_status_go_through_the_queue(served: Any) -> None:
    id = served.deploy(OWN)
    served.becomes(id, "RUNNING")
    served.submit(id, "good", {"model": "m"}, path="/v1/chat/completions", headers={"X-Trace": "7"})
    served.submit(id, "bad", {"fail": True}, path="v1/x")
    assert served.ended(id, "good")["output"] == {"got": {"model": "m"}, "path": "/v1/chat/completions", "trace": "7"}
    assert served.ended(id, "bad")["status"] == "FAILED"


def test_a_gateway_streams_keeps_the_key_and_follows_the_workers(served: Any) -> None:
    id = served.deploy(OWN, mode="ALB")
    domain = served.becomes(id, "RUNNING")["domain"]
    url, bearer = f"http://{domain}", {"authorization": f"Bearer {served.key}"}
    seen = served.http.get(f"{url}/v1/models?a=1", headers=bearer).json()
    assert seen["path"] == "/v1/models?a=1"
    assert served.key not in repr(seen["headers"])
    assert "authorization" not in seen["headers"]
    assert served.http.get(f"{url}/parts", headers=bearer).text == "one two three"
    assert served.http.get(f"{url}/x", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert served.http.get(f"{url}/die", headers=bearer).status_code == 502

    def answered() -> int | None:
        reply = served.http.get(f"{url}/x", headers=bearer)
        return int(reply.json()["pid"]) if reply.status_code == 200 else None

    assert served.until(answered, "the next worker") != seen["pid"]
    served.call("POST", f"/v2/serverless/{id}/stop")
    served.becomes(id, "STOPPED")
    assert served.http.get(f"{url}/x", headers=bearer).status_code == 503


@pytest.fixture
def client(served: Any, tmp_path: Path) -> Iterator[unigpu.Client]:
    (tmp_path / "none.toml").write_text("")
    with unigpu.Client(
        "yotta",
        api_key=served.key,
        driver_options={"yotta": {"base_url": served.base}},
        state_dir=tmp_path / "state",
        config=tmp_path / "none.toml",
    ) as made:
        yield made


COMMON: dict[str, Any] = {"image": "registry.test/app:1", "gpu": "RTX 4090", "workers": 1, "ttl": None}


def test_unigpu_itself_in_queue_mode(served: Any, client: unigpu.Client) -> None:
    with client.deploy(name="echo", handler="app:echo", **COMMON) as app:
        first = app.invoke({"n": 1}).output
        assert first["n"] == 1
        os.kill(first["pid"], signal.SIGKILL)
        served.until(lambda: not alive(first["pid"]), "the end of the worker")
        assert app.invoke({"n": 2}, idempotent=True).output["pid"] != first["pid"]
        app.stop()
        third = app.invoke({"n": 3}).output  # wakes it, and is held meanwhile
        assert third["n"] == 3
    assert not alive(third["pid"])
    with client.deploy(name="fail", handler="app:fail", **COMMON) as app, pytest.raises(errors.JobFailed):
        app.invoke({"what": "x"})
    assert served.call("GET", "/v2/serverless") == []


def test_unigpu_itself_behind_the_gateway(served: Any, client: unigpu.Client) -> None:
    alb = {"yotta": {"service_mode": "ALB"}}
    with client.deploy(name="echo", handler="app:echo", provider_options=alb, **COMMON) as app:
        first = app.invoke({"n": 1}).output
        assert first["n"] == 1
        os.kill(first["pid"], signal.SIGKILL)
        served.until(lambda: not alive(first["pid"]), "the end of the worker")
        assert app.invoke({"n": 2}, idempotent=True).output["pid"] != first["pid"]
    command = [sys.executable, "own_server.py"]
    with client.deploy(name="web", interface="http", command=command, port=served.port, **COMMON) as app:
        assert app.request("GET", "/v1/models").json()["path"] == "/v1/models"
        with app.request("GET", "/parts", stream=True) as parts:
            assert b"".join(parts) == b"one two three"
    assert served.call("GET", "/v2/serverless") == []


def test_unigpus_pod(served: Any, client: unigpu.Client) -> None:
    command = [sys.executable, "own_server.py"]
    with client.deploy(
        name="box", kind="pod", interface="http", command=command, port=served.port, auth="none", **COMMON
    ) as app:
        assert app.request("GET", "/x").json()["path"] == "/x"
        app.stop()
        app.start()
        assert app.request("GET", "/y").json()["path"] == "/y"
    assert served.call("GET", "/v2/pods") == []
