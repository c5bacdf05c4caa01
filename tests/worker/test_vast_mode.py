"""Vast's mode, without Vast's package: where it is at home, what a payload may hold, and PyWorker's life beside it."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unigpu.worker import _vast, pyworker
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker._start import find_mode

PATIENCE = 30.0

# Stands for the interpreter of PyWorker's environment: notes what it was started with, reads the marks as PyWorker
# does, and ends when its input does.
FAKE = f"""#!/bin/sh
'''exec' "{sys.executable}" -I "$0" "$@" # a line of #! would end at a space in the path
'''
import json, os, sys, threading, time
folder = os.environ["NOTES"]
with open(folder + "/env.tmp", "w") as file:
    json.dump({{"argv": sys.argv[1:], "env": dict(os.environ)}}, file)
os.rename(folder + "/env.tmp", folder + "/env.json")
def marks():
    log = open(os.environ["UNIGPU_PYWORKER_LOG"])
    while True:
        line = log.readline()
        if line:
            with open(folder + "/mark.tmp", "w") as file:
                file.write(line)
            os.rename(folder + "/mark.tmp", folder + "/mark")
        time.sleep(0.02)
threading.Thread(target=marks, daemon=True).start()
if os.environ.get("DIES"):
    sys.exit(7)
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sys.stdin.read()
open(folder + "/ended", "w").close()
"""


@pytest.fixture
def fake(tmp_path: Path) -> dict[str, str]:
    python = tmp_path / "python"
    python.write_text(FAKE)
    python.chmod(0o755)
    return {
        "UNIGPU_VAST": "serverless",
        "UNIGPU_PYWORKER_PYTHON": str(python),
        "NOTES": str(tmp_path),
        "MASTER_TOKEN": "engine-token",
        "CONTAINER_ID": "4242",
    }


@pytest.mark.parametrize(
    ("environ", "home"),
    [
        ({"MASTER_TOKEN": "t", "CONTAINER_ID": "1"}, True),
        ({"CONTAINER_ID": "1", "PUBLIC_IPADDR": "1.2.3.4"}, False),  # an instance: its port is its own
        ({"UNIGPU_VAST": "serverless"}, True),
        ({"UNIGPU_VAST": "instance", "MASTER_TOKEN": "t", "CONTAINER_ID": "1"}, False),
        ({}, False),
    ],
)
def test_it_is_at_home_where_the_engine_gave_a_token(environ: dict[str, str], home: bool) -> None:
    assert _vast.here(environ) is home
    assert (find_mode(environ).__name__ == "unigpu.worker._vast") is home  # type: ignore[attr-defined]  # a module


def test_a_missing_environment_is_told_with_the_lines_that_make_it(start: Callable[..., Any], tmp_path: Path) -> None:
    process = start("echo", UNIGPU_VAST="serverless", UNIGPU_PYWORKER_PYTHON=str(tmp_path / "nowhere"))
    assert process.exit() == 2
    said = "\n".join(process.err)
    assert "nowhere" in said
    assert "python -m venv /opt/pyworker" in said
    assert "pip install vastai==1.9.1" in said


def test_pyworker_runs_beside_with_what_it_needs(
    start: Callable[..., Any], appears: Callable[[Path], None], fake: dict[str, str], tmp_path: Path
) -> None:
    process = start("echo", UNIGPU_CONCURRENCY="3", PYTHONPATH="/somewhere", **fake).ready()
    appears(tmp_path / "mark")
    assert (tmp_path / "mark").read_text().startswith(pyworker.READY)
    told = json.loads((tmp_path / "env.json").read_text())
    assert told["argv"] == ["-I", str(Path(pyworker.__file__))] or told["argv"][-1].endswith("pyworker.py")
    env = told["env"]
    assert env["UNIGPU_PORT"] == str(process.port)
    assert (env["UNIGPU_CONCURRENCY"], env["PYWORKER_HEALTH"]) == ("3", _vast.HEALTH)
    assert (env["MASTER_TOKEN"], env["CONTAINER_ID"]) == ("engine-token", "4242")
    assert "PYTHONPATH" not in env  # the app's packages are not PyWorker's
    assert process.invoke({"a": 1})[1]["output"] == {"a": 1}
    process.signal(signal.SIGTERM)
    assert process.exit() == 0
    assert (tmp_path / "ended").exists()


def test_a_call_ends_before_pyworker_does(
    start: Callable[..., Any], appears: Callable[[Path], None], fake: dict[str, str], tmp_path: Path
) -> None:
    process = start("wait_for_file", **fake).ready()
    gate = tmp_path / "gate"
    connection = process.open({"started": str(tmp_path / "started"), "go": str(gate)})
    appears(tmp_path / "started")
    appears(tmp_path / "mark")
    process.signal(signal.SIGTERM)
    process.wait_for_line("draining")
    assert not (tmp_path / "ended").exists()
    gate.touch()
    with contextlib.closing(connection):
        assert process.answer(connection)[1]["output"] == "went"
    assert process.exit() == 0
    assert (tmp_path / "ended").exists()


def test_a_killed_worker_leaves_no_pyworker(
    start: Callable[..., Any], appears: Callable[[Path], None], fake: dict[str, str], tmp_path: Path
) -> None:
    process = start("echo", **fake).ready()
    appears(tmp_path / "env.json")
    process.kill()
    appears(tmp_path / "ended")


def test_a_pyworker_that_ends_ends_the_worker(start: Callable[..., Any], fake: dict[str, str]) -> None:
    process = start("echo", DIES="1", **fake)
    assert process.exit() == 4
    assert "PyWorker ended with code 7" in process.err[-1]


def test_a_handler_that_cannot_be_loaded_is_told_to_the_platform(
    start: Callable[..., Any], appears: Callable[[Path], None], fake: dict[str, str], tmp_path: Path
) -> None:
    process = start("Broken", **fake)
    appears(tmp_path / "mark")
    assert (tmp_path / "mark").read_text().startswith(pyworker.FAILED)
    process.signal(signal.SIGTERM)  # it would give PyWorker some seconds to tell it
    assert process.exit() == 3


# -- payloads


class Here:
    """The app of this mode over a loaded worker, in this process."""

    def __init__(self, worker: WorkerServer) -> None:
        self.worker = worker
        self.app = _vast.App(worker)

    def send(self, payload: Any, *, path: str = "/invoke", method: str = "POST") -> Sent:
        return Sent(self.app, method, path, payload if isinstance(payload, bytes) else json.dumps(payload).encode())


class Sent:
    """One request; `leave` closes the caller's side."""

    def __init__(self, app: _vast.App, method: str, path: str, body: bytes) -> None:
        self._gone = asyncio.Event()
        self._body: bytes | None = body
        self.status = 0
        self.headers: dict[str, str] = {}
        self.content = b""
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    async def done(self) -> Sent:
        await asyncio.wait_for(self.task, PATIENCE)
        return self

    def leave(self) -> None:
        self._gone.set()

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            self.content += message.get("body", b"")


async def loaded(target: Any, **settings: Any) -> Here:
    worker = WorkerServer(target, Settings(**settings))
    worker.start()
    await asyncio.wait_for(worker.loaded.wait(), PATIENCE)
    return Here(worker)


def run(work: Callable[[], Any]) -> None:
    asyncio.run(work())


def test_a_payload_says_what_headers_say_elsewhere(handlers: types.ModuleType, tmp_path: Path) -> None:
    async def work() -> None:
        here = await loaded(handlers.count)
        plain = await here.send({"input": {"n": 2}}).done()
        assert json.loads(plain.content)["output"] == [0, 1]
        stream = await here.send({"input": {"n": 2}, "stream": True}).done()
        assert stream.headers["content-type"] == "application/x-ndjson"
        assert [json.loads(line).get("chunk") for line in stream.content.splitlines()] == [0, 1, None]
        slow = await loaded(handlers.wait_forever)
        files = {"started": str(tmp_path / "started"), "cancelled": str(tmp_path / "cancelled")}
        late = await slow.send({"input": files, "timeout": 0.05, "job": "j-1"}).done()
        assert json.loads(late.content)["error"]["type"] == "ExecutionTimeout"
        here.worker.close()
        slow.worker.close()

    run(work)


@pytest.mark.parametrize(
    "payload", [{}, {"input": 1}, {"input": {}, "more": 1}, [], b"{", {"input": {}, "timeout": "soon"}, None]
)
def test_a_payload_that_cannot_be_read_is_a_400_or_runs_without_what_is_wrong(
    handlers: types.ModuleType, payload: Any
) -> None:
    async def work() -> None:
        here = await loaded(handlers.echo)
        sent = await here.send(payload).done()
        assert sent.status == (200 if isinstance(payload, dict) and "timeout" in payload else 400)
        here.worker.close()

    run(work)


def test_a_token_of_the_deployment_is_not_asked_of_pyworker(handlers: types.ModuleType) -> None:
    async def work() -> None:
        here = await loaded(handlers.echo, token="secret-token")
        assert (await here.send({"input": {"a": 1}}).done()).status == 200
        here.worker.close()

    run(work)


def test_calls_above_the_concurrency_wait_in_order_and_none_is_refused(
    handlers: types.ModuleType, tmp_path: Path
) -> None:
    def call(n: int) -> dict[str, str]:
        return {"started": str(tmp_path / f"started-{n}"), "go": str(tmp_path / f"go-{n}")}

    async def begins(n: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while not (tmp_path / f"started-{n}").exists():
                await asyncio.sleep(0.01)

    async def work() -> None:
        here = await loaded(handlers.wait_for_file)
        sent = [here.send({"input": call(n)}) for n in range(4)]
        await begins(0)
        sent[2].leave()  # while it waits
        await sent[2].done()
        (tmp_path / "go-0").touch()
        await begins(1)
        assert not (tmp_path / "started-3").exists()
        (tmp_path / "go-1").touch()
        await begins(3)
        (tmp_path / "go-3").touch()
        assert [(await each.done()).status for each in sent] == [200, 200, 0, 200]
        assert not (tmp_path / "started-2").exists()
        here.worker.close()

    run(work)


def test_a_worker_that_drains_or_is_over_its_time_stays_well(handlers: types.ModuleType) -> None:
    """An error here would have the platform replace it, and the replacement paid for."""

    async def work() -> None:
        here = await loaded(handlers.echo, expires=1.0)
        assert here.worker.state == "expired"
        assert (await here.send(b"", method="GET", path=_vast.HEALTH).done()).status == 200
        assert (await here.send({"input": {}}).done()).status == 503
        here.worker.close()
        stuck = await loaded(handlers.echo)
        stuck.worker.over.set()
        assert (await stuck.send(b"", method="GET", path=_vast.HEALTH).done()).status == 503
        stuck.worker.close()

    run(work)


# -- PyWorker's configuration


class Kept(types.SimpleNamespace):
    """What was asked for, by name."""


@pytest.fixture
def vastai(monkeypatch: pytest.MonkeyPatch) -> None:
    stub = types.ModuleType("vastai")
    for name in ("WorkerConfig", "HandlerConfig", "BenchmarkConfig", "LogActionConfig"):
        setattr(stub, name, Kept)
    monkeypatch.setitem(sys.modules, "vastai", stub)


@pytest.mark.usefixtures("vastai")
def test_one_handler_and_one_benchmark_that_measures_a_nominal_second() -> None:
    found = pyworker.config({"UNIGPU_PORT": "9", "UNIGPU_PYWORKER_LOG": "/log", "UNIGPU_CONCURRENCY": "2"})
    invoke, benchmark = found.handlers
    assert (invoke.route, invoke.benchmark_config, invoke.allow_parallel_requests) == ("/invoke", None, True)
    assert invoke.workload_calculator({}) == 100.0
    assert benchmark.benchmark_config.concurrency == 2
    assert benchmark.workload_calculator({}) / pyworker._NOMINAL_S == 100.0
    assert asyncio.run(benchmark.remote_function()) == "done"
    assert (found.model_server_port, found.log_action_config.on_load) == (9, [pyworker.READY])


@pytest.mark.usefixtures("vastai")
def test_a_sample_measures_the_real_work() -> None:
    env = {"UNIGPU_PYWORKER_LOG": "/log", "PYWORKER_BENCHMARK": '{"input": {"n": 1}}'}
    (invoke,) = pyworker.config(env).handlers
    assert invoke.benchmark_config.dataset == [{"input": {"n": 1}}]


@pytest.mark.usefixtures("vastai")
def test_a_server_of_the_user_s_is_reached_on_the_paths_it_names() -> None:
    env = {
        "UNIGPU_INTERFACE": "http",
        "PYWORKER_ROUTES": "/v1/completions, /generate",
        "UNIGPU_ROUTE": "/generate",
        "PYWORKER_HEALTH": "/health",
        "UNIGPU_PYWORKER_LOG": "/log",
    }
    found = pyworker.config(env)
    ours = ["/unigpu/http", "/unigpu/benchmark"]
    assert [handler.route for handler in found.handlers] == [ours[0], "/v1/completions", "/generate", ours[1]]
    assert found.model_healthcheck_url == "/health"
    env = {"UNIGPU_INTERFACE": "http", "UNIGPU_PYWORKER_LOG": "/log", "UNIGPU_ROUTE": "/unigpu/http"}
    for sample in ("", '{"a": 1}'):  # which no path is there for: a worker without a benchmark is never ready
        found = pyworker.config({**env, "PYWORKER_BENCHMARK": sample})
        assert [handler.route for handler in found.handlers] == ours
        assert found.handlers[-1].benchmark_config is not None


def test_pyworker_s_file_needs_the_standard_library_alone() -> None:
    source = Path(pyworker.__file__).read_text()
    names = {line.split()[1].partition(".")[0] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert names <= set(sys.stdlib_module_names) | {"__future__"}
    assert os.path.basename(pyworker.__file__) == "pyworker.py"
    assert http.client
