"""The driver over the emulator on loopback, with real worker processes: sockets, headers, addresses and all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unigpu
from unigpu import errors
from unigpu.driver import State

APP = """
def summarize(input):
    if input.get("fail"):
        raise ValueError("no such page")
    return {"got": input}
"""
SERVER = """
import http.server, os

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (self.path + " " + str(self.headers.get("authorization"))).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

port = int(os.environ.get("PORT") or os.environ["UNIGPU_PORT"])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
FIELDS: dict[str, Any] = {"image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "workers": 1, "ttl": "1h", "progress": "off"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[unigpu.Client]:
    """A client of an emulator of its own; the workers' code is in its working directory."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "server.py").write_text(SERVER)
    line = [sys.executable, "-m", "unigpu", "emulator", "serve", "yotta"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    child = subprocess.Popen(line, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        told = json.loads(child.stdout.readline())
        options = {"yotta": {"base_url": told["base_urls"]["yotta"]}}
        with unigpu.Client(
            "yotta", api_key=told["key"], driver_options=options, state_dir=tmp_path / "state"
        ) as client:
            yield client
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(30)
        if child.stdout is not None:
            child.stdout.close()


@pytest.mark.processes
def test_queue_and_gateway_with_real_workers(served: unigpu.Client) -> None:
    queue = served.deploy(name="queue", handler="app:summarize", wait="worker", **FIELDS)
    assert queue.invoke({"n": 1}, timeout=60).output == {"got": {"n": 1}}
    with pytest.raises(errors.JobFailed, match="no such page") as caught:
        queue.invoke({"fail": True}, timeout=60)
    assert caught.value.error_type == "ValueError"
    assert queue.stop().state is State.STOPPED
    assert queue.invoke({"n": 2}, timeout=60).output == {"got": {"n": 2}}  # it is started, and the call held

    mode = {"yotta": {"service_mode": "ALB"}}
    gate = served.deploy(name="gate", handler="app:summarize", wait="worker", provider_options=mode, **FIELDS)
    assert gate.invoke({"n": 3}, timeout=60).output == {"got": {"n": 3}}

    server = served.deploy(
        name="server", interface="http", command=[sys.executable, "server.py"], wait="worker", **FIELDS
    )
    reply = server.request("GET", "/v1/models?limit=3", timeout=60)
    assert reply.status == 200
    assert reply.text == "/v1/models?limit=3 None"  # the account's key ends at the gateway
    for one in (queue, gate, server):
        one.teardown()
    assert list(served.deployments(provider="yotta")) == []
