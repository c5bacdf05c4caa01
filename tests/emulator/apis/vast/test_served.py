"""The emulator on loopback: real worker processes that report by themselves, and callers that reach them directly."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

PATIENCE = 30.0
PROGRAMS = Path(__file__).parent / "programs"


class Served:
    def __init__(self, base: str, key: str) -> None:
        self.base = base
        self.http = httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE)

    def send(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.http.request(method, f"{self.base}{path}", json=body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def deploy(self, name: str, **env: str) -> int:
        flags = " ".join(f"-e {key}={value}" for key, value in env.items())
        template = {"name": name, "image": "x", "env": f"{flags} -p 3000:3000", "args_str": "python reporter.py"}
        hash_id = self.send("POST", "/api/v0/template/", template)["template"]["hash_id"]
        limits = {"min_load": 0, "cold_workers": 0, "cold_mult": 1, "max_workers": 1, "inactivity_timeout": 60}
        endpoint: int = self.send("POST", "/api/v0/endptjobs/", {"endpoint_name": name, **limits})["result"]
        group = {"endpoint_id": endpoint, "template_hash": hash_id, "search_params": "dph_total<=1"}
        self.send("POST", "/api/v0/workergroups/", group)
        return endpoint

    def until(self, look: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := look()):
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.05)
        return found

    def routed(self, name: str) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def look() -> Any:
            asked.update(self.send("POST", "/route/", {"endpoint": name, "request_idx": asked.get("request_idx", 0)}))
            return "url" in asked

        self.until(look)
        return asked

    def workers(self, endpoint: int) -> list[dict[str, Any]]:
        return self.send("POST", "/get_endpoint_workers/", {"id": endpoint})


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = [sys.executable, "-m", "unigpu", "emulator", "serve", "vast"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROGRAMS) as process:
        assert process.stdout is not None
        try:
            line = json.loads(process.stdout.readline())
            served = Served(line["base_urls"]["vast"], line["key"])
            yield served
            served.http.close()
        finally:
            process.terminate()
            process.wait(PATIENCE)


def test_a_worker_reports_takes_a_call_and_lets_go(served: Served) -> None:
    endpoint = served.deploy("calls")
    route = served.routed("calls")
    assert route["url"].startswith("http://127.0.0.1:")
    (row,) = served.workers(endpoint)
    assert (row["status"], row["measured_perf"]) == ("idle", 80.0)
    body = {"auth_data": route, "session_id": None, "payload": {"input": {"a": 1}}}
    with httpx.Client(timeout=PATIENCE) as plain:  # and no key
        assert plain.post(f"{route['url']}/invoke", json=body).json()["output"] == {"a": 1}
    served.until(lambda: served.workers(endpoint)[0]["reqs_working"] == 0)
    logs = served.send("PUT", f"/api/v0/instances/request_logs/{row['id']}/", {"tail": "10"})["result_url"]
    assert "reporting http://127.0.0.1:" in httpx.get(logs, timeout=PATIENCE).text
    served.send("DELETE", f"/api/v0/endptjobs/{endpoint}/")
    served.until(lambda: served.send("GET", f"/api/v0/instances/{row['id']}/") == {"instances": None})


def test_a_worker_that_reports_an_error_is_ended(served: Served) -> None:
    endpoint = served.deploy("broken", BROKEN="1")
    served.send("POST", "/route/", {"endpoint": "broken"})
    served.until(lambda: [row["status"] for row in served.workers(endpoint)][:1] == ["error"])
    logs = served.send("POST", "/get_endpoint_logs/", {"id": endpoint})
    served.until(lambda: "does not fit" in served.send("POST", "/get_endpoint_logs/", {"id": endpoint})["info0"])
    assert logs
    served.send("DELETE", f"/api/v0/endptjobs/{endpoint}/")


def test_a_signing_request_gets_a_certificate(served: Served) -> None:
    refused = served.http.post(f"{served.base}/api/v0/sign_cert/", params={"instance_id": "1"}, content=b"no request")
    assert refused.status_code == 400
