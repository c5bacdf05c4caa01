"""`cloud serve runpod`: all of RunPod under one base on loopback, with real processes behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

OWN = Path(__file__).parent / "own_server.py"
WAIT = 60.0
pytestmark = pytest.mark.processes


@dataclass
class Served:
    base: str
    key: str
    http: httpx.Client
    pid: int

    def make(self, kind: str, **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"name": kind, "image": "i", "gpu": {"count": 1}, "env": {"MINE": "yes"}, **more}
        if kind == "pods":
            body["gpu"]["id"] = "NVIDIA L4"
        else:
            body["gpu"]["pools"] = ["AMPERE_24"]
            body |= {"workers": {"min": 0, "max": 1}}
            queue = {"type": "QUEUE_DELAY", "queueDelay": 4}
            body["scaling"] = queue if body["type"] == "QUEUE" else {"type": "REQUEST_COUNT", "requestCount": 1}
        reply = self.http.post(f"{self.base}/v2/{kind}", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = [sys.executable, "-m", "unigpu", "emulator", "serve", "runpod"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            headers = {"authorization": f"Bearer {line['key']}"}
            with httpx.Client(headers=headers, timeout=WAIT) as http:
                yield Served(line["base_urls"]["runpod"], line["key"], http, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=WAIT)


def until(ask: Callable[[], Any]) -> Any:
    end = time.monotonic() + WAIT
    while not (found := ask()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def test_a_queue_worker_is_started_for_a_job_and_its_key_is_not_the_accounts(served: Served) -> None:
    made = served.make("serverless", type="QUEUE", cmd=[sys.executable, str(OWN), "queue"])
    urls = made["requestUrls"]
    assert urls["run"] == f"{served.base}/v2/{made['id']}/run"
    done = served.http.post(urls["runSync"], json={"input": {"a": 1}}).json()
    assert (done["status"], done["output"]) == ("COMPLETED", {"got": {"a": 1}, "by": done["workerId"]})
    (worker,) = served.http.get(f"{served.base}/v2/serverless/{made['id']}/workers").json()["workers"]
    pid = next(int(pid) for pid in os.listdir("/proc") if pid.isdigit() and b"own_server.py\0queue" in _line(pid))
    environment = (Path("/proc") / str(pid) / "environ").read_bytes()
    assert served.key.encode() not in environment
    assert worker["id"].encode() in environment
    assert served.http.delete(f"{served.base}/v2/serverless/{made['id']}").status_code == 204
    until(lambda: not (Path("/proc") / str(pid)).exists())


def _line(pid: str) -> bytes:
    try:
        return (Path("/proc") / pid / "cmdline").read_bytes()
    except OSError:
        return b""


def test_a_load_balancer_passes_a_request_on_without_the_key(served: Served) -> None:
    command = [sys.executable, str(OWN), "serve"]
    made = served.make("serverless", type="LOAD_BALANCER", ports=["5000/http"], cmd=command)
    assert made["requestUrls"]["base"] == f"{served.base}/lb/{made['id']}"
    reply = served.http.post(f"{made['requestUrls']['base']}/v1/a%2Fb%20c?q=1", content=b"hello").json()
    assert (reply["path"], reply["body"], reply["key"], reply["mine"]) == ("/v1/a%2Fb%20c?q=1", "hello", None, "yes")
    with httpx.Client() as stranger:
        assert stranger.get(f"{made['requestUrls']['base']}/").status_code == 401
    (worker,) = served.http.get(f"{served.base}/v2/serverless/{made['id']}/workers").json()["workers"]
    logs = f"{served.base}/v2/serverless/{made['id']}/workers/{worker['id']}/logs"
    until(lambda: "served /v1" in served.http.get(logs, params={"tail": 50}).text)


def test_a_pods_port_is_open_to_anyone_and_what_they_send_goes_through(served: Served) -> None:
    made = served.make("pods", ports=["8000/http"], cmd=[sys.executable, str(OWN), "serve"])
    url = f"{served.base}/v2/pods/{made['id']}"
    until(lambda: served.http.get(url).json()["status"] == "RUNNING")
    with httpx.Client(headers={"authorization": "Bearer of-the-server"}) as stranger:
        reply = stranger.post(f"{served.base}/proxy/{made['id']}/8000/x", content=b"hi").json()
    assert (reply["path"], reply["body"], reply["key"]) == ("/x", "hi", "Bearer of-the-server")
    assert reply["pod"] == made["id"]
    assert served.http.post(f"{url}/action", json={"action": "stop"}).json()["status"] == "EXITED"
    until(lambda: served.http.get(f"{served.base}/proxy/{made['id']}/8000/x").status_code == 502)


def test_a_command_that_cannot_be_run_looks_like_a_crash_loop(served: Served) -> None:
    made = served.make("serverless", type="QUEUE", cmd=["/no/such/program"])
    job = served.http.post(made["requestUrls"]["run"], json={"input": {"a": 1}}).json()["id"]
    until(lambda: served.http.get(made["requestUrls"]["health"]).json()["workers"]["unhealthy"])
    assert served.http.get(made["requestUrls"]["status"].replace("{job_id}", job)).json()["status"] == "IN_QUEUE"


def test_a_load_balancer_waits_until_its_worker_says_that_it_is_ready(served: Served) -> None:
    """204 is "initializing": the server listens at once, and takes requests when it has loaded."""
    command = [sys.executable, str(OWN), "slow"]
    env = {"HEALTH_CHECK_PATH": "/health", "MINE": "yes"}
    made = served.make("serverless", type="LOAD_BALANCER", ports=["5000/http"], cmd=command, env=env)
    reply = served.http.post(f"{made['requestUrls']['base']}/v1/first", content=b"").json()
    assert reply["loaded"] is True
