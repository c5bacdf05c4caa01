"""Vast's PyWorker, unmodified, under the emulator: benchmark, both clients, signatures, busy, disconnect, TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from plain_path import plain

from unigpu.errors import JobFailed
from unigpu.worker import pyworker

WAIT = 60.0


@pytest.fixture(scope="module")
def running(cloud: Any) -> Iterator[Any]:
    """A deployment of ours with a worker that is ready; one call at a time, and few may wait."""
    with cloud.client() as client:
        app = cloud.deploy(client, "pair", env={"PYWORKER_MAX_QUEUE_TIME": "2"}, wait="worker")
        yield client, app  # the server ends its workers, and is ended: a teardown at Vast's rates takes half a minute


def appears(path: Path) -> None:
    until = time.monotonic() + WAIT
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


def opened(route: dict[str, Any], payload: Any, **changes: Any) -> http.client.HTTPConnection:
    parts = urlsplit(route["url"])
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT)
    body = {"auth_data": route | changes, "session_id": None, "payload": payload}
    connection.request("POST", "/invoke", json.dumps(body), {"content-type": "application/json"})
    return connection


def test_it_measures_itself_and_is_ready(cloud: Any, running: Any) -> None:
    endpoint = cloud.endpoint("pair")
    (row,) = cloud.http.post(f"{cloud.base}/get_endpoint_workers/", json={"id": endpoint["id"]}).json()
    assert row["status"] == "idle"
    # At most a nominal second a call on whatever machine; a busy one measures less. What it measures: test_vast_mode.
    assert 0 < row["measured_perf"] < 110


def test_both_clients_get_the_same_answers(cloud: Any, running: Any) -> None:
    _, app = running
    name = cloud.endpoint("pair")["endpoint_name"]
    calls = [[{"input": {"a": 1}}, False], [{"input": {"fail": "no"}}, False]]
    theirs = cloud.run("serverless.py", name, json.dumps(calls))
    ours = app.invoke({"a": 1}, timeout=WAIT)
    assert theirs["answers"][0][1]["output"] == ours.output == [{"echo": {"a": 1}}]
    with pytest.raises(JobFailed, match="no") as failed:
        app.invoke({"fail": "no"}, timeout=WAIT)
    error = theirs["answers"][1][1]["error"]
    assert (error["type"], error["message"]) == ("ValueError", "no")
    assert "no" in str(failed.value)
    assert theirs["workers"] == [["idle", True]]


def test_both_clients_read_the_same_stream(cloud: Any, running: Any) -> None:
    _, app = running
    with app.stream({"count": 3}, timeout=WAIT) as values:
        assert list(values) == [0, 1, 2]
    name = cloud.endpoint("pair")["endpoint_name"]
    theirs = cloud.run("serverless.py", name, json.dumps([[{"input": {"count": 3}, "stream": True}, True]]))
    lines = theirs["answers"][0][1]
    assert [line["chunk"] for line in lines if "chunk" in line] == [0, 1, 2]
    assert lines[-1]["done"] is True


def test_a_wrong_signature_is_401_and_a_broken_envelope_422(cloud: Any, running: Any) -> None:
    route = cloud.route("pair")
    for changes, status in (({"signature": "AAAA"}, 401), ({"url": "http://127.0.0.1:9"}, 401)):
        with contextlib.closing(opened(route, {"input": {}}, **changes)) as connection:
            reply = connection.getresponse()
            assert (reply.status, reply.read()) == (status, b"")
    with contextlib.closing(opened({"url": route["url"]}, {"input": {}})) as connection:
        reply = connection.getresponse()
        assert reply.status == 422
        assert "missing parameter" in reply.read().decode()
    with contextlib.closing(opened(route, {"input": {"ok": 1}}, cost=5, reqnum=1)) as connection:
        assert connection.getresponse().status == 200  # what is not signed may be anything (1.9.1)


def test_what_comes_above_the_queue_limit_is_429_and_what_leaves_is_cancelled(
    cloud: Any, running: Any, tmp_path: Path
) -> None:
    route = cloud.route("pair")
    first = {"input": {"began": str(tmp_path / "first"), "go": str(tmp_path / "go")}}
    with contextlib.ExitStack() as stack:
        busy = stack.enter_context(contextlib.closing(opened(route, first)))
        appears(tmp_path / "first")
        others = [opened(route | {"reqnum": n}, {"input": {"n": n}}, request_idx=n) for n in range(90_000, 90_003)]
        statuses: list[int] = []
        last = others.pop()
        with contextlib.closing(last):
            reply = last.getresponse()
            statuses.append(reply.status)
            assert reply.read() == b""
        assert statuses == [429]
        for each in others:
            each.close()  # they wait, and leave: nothing of them is run
        (tmp_path / "go").touch()
        reply = busy.getresponse()
        assert json.loads(reply.read())["output"] == [{"echo": first["input"]}]
    _, app = running
    assert app.invoke({"after": 1}, timeout=WAIT).output == [{"echo": {"after": 1}}]


def test_leaving_ends_the_handler_s_call(cloud: Any, running: Any, tmp_path: Path) -> None:
    route = cloud.route("pair")
    connection = opened(route, {"input": {"began": str(tmp_path / "began"), "go": str(tmp_path / "never")}})
    appears(tmp_path / "began")
    connection.close()
    appears(tmp_path / "began.ended")
    endpoint = cloud.endpoint("pair")["id"]
    until = time.monotonic() + WAIT
    while cloud.http.post(f"{cloud.base}/get_endpoint_workers/", json={"id": endpoint}).json()[0]["reqs_working"]:
        assert time.monotonic() < until, "the platform was not told that the call is over"
        time.sleep(0.1)
    _, app = running
    assert app.invoke({"free": 1}, timeout=WAIT).output == [{"echo": {"free": 1}}]


def test_a_server_of_the_user_s_answers_on_the_paths_that_it_names(cloud: Any) -> None:
    program = plain(Path(pyworker.__file__).parent) / Path(pyworker.__file__).name
    with cloud.client() as client:
        app = client.deploy(
            name="server",
            interface="http",
            command=[str(cloud.pyworker), "-I", str(program), "python", "server.py"],
            image="registry.test/server:1",
            gpu="RTX 4090",
            max_price=1.0,
            port=8791,
            env={"PYWORKER_ROUTES": "/v1/echo,/v1/events", "PYWORKER_HEALTH": "/health"},
            # The command has what the driver puts before it: PyWorker is elsewhere on this machine.
            provider_options={"vast": {"tls": False, "pyworker": "image", "route": "/unigpu/http"}},
            wait="worker",
            timeout=WAIT,
        )
        reply = app.request("POST", "/v1/echo", json={"a": 1})
        assert (reply.status, reply.json()) == (200, {"path": "/v1/echo", "got": {"a": 1}})
        assert app.request("POST", "/v1/echo", json={"status": 418}).status == 418
        with app.request("POST", "/v1/events", json={"events": 3}, stream=True) as stream:
            assert b"".join(stream) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
        told = app.request("PUT", "/any?x=1&y=%2F", content=b"\x00\xff" * 70_000, headers={"x-mine": "me"})
        assert (told.status, told.headers["x-server"]) == (201, "PUT")
        assert told.json() == {"path": "/any?x=1&y=%2F", "bytes": 140_000, "mine": "me"}
        assert app.request("GET", "/health").status == 200
        assert app.request("HEAD", "/health").status == 200
        squeezed = app.request("PUT", "/gzip", content=b"x")
        assert squeezed.json()["bytes"] == 1
        name = cloud.endpoint("server")["endpoint_name"]
        theirs = cloud.run("serverless.py", name, json.dumps([[{"a": 2}, False]]), "/v1/echo")
        assert theirs["answers"][0][1] == {"path": "/v1/echo", "got": {"a": 2}}


def test_workers_serve_tls_with_a_certificate_that_the_platform_signs(serve: Any, tmp_path: Path) -> None:
    """In a mount namespace of its own: PyWorker reads /etc/instance.crt, and nothing else."""
    unshare, openssl = shutil.which("unshare"), shutil.which("openssl")
    if os.geteuid() != 0 or unshare is None or openssl is None:
        pytest.skip("needs root, unshare and openssl")
    if subprocess.run([unshare, "-m", "true"], check=False, capture_output=True).returncode:
        pytest.skip("needs a mount namespace")
    private = tmp_path / "etc"
    shutil.copytree("/etc", private, symlinks=True, ignore_dangling_symlinks=True)
    script = f'mount --bind "{private}" /etc && exec "{sys.executable}" tls_cloud.py'
    with serve([unshare, "-m", "sh", "-c", script], tls=True) as cloud, cloud.client() as client:
        app = cloud.deploy(client, "secure", wait="worker")  # the server ends its workers, and is ended
        assert app.invoke({"s": 1}, timeout=WAIT).output == [{"echo": {"s": 1}}]
        name = cloud.endpoint("secure")["endpoint_name"]
        theirs = cloud.run("serverless.py", name, json.dumps([[{"input": {"s": 1}}, False]]))
        assert theirs["answers"][0][1]["output"] == [{"echo": {"s": 1}}]
        assert theirs["url"].startswith("https://127.0.0.1:")
    assert not Path("/etc/instance.crt").exists()
