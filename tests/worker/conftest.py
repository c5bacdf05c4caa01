"""Two ways to talk to a worker: its ASGI app in this process, and a real process on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker.http_app import App

HANDLERS = Path(__file__).with_name("handlers.py")
PATIENCE = 30.0  # seconds that a wait may take before the test is red; never what a test measures


@pytest.fixture(scope="session")
def handlers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("worker_test_handlers", HANDLERS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


@dataclass
class Exchange:
    """One request to the ASGI app, with the client's side in the test's hands."""

    app: App
    method: str = "POST"
    path: str = "/invoke"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reading: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: the client does not read

    def __post_init__(self) -> None:
        self._gone = asyncio.Event()
        self._sent_body = False
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reply = Reply(0, {}, b"")
        self.ended = False
        self.reading.set()
        self.task = asyncio.create_task(self._run())

    def leave(self) -> None:
        self._gone.set()
        self.reading.set()

    async def _run(self) -> Reply:
        scope = {
            "type": "http",
            "method": self.method,
            "path": self.path,
            "query_string": b"",
            "headers": [(k.lower().encode(), v.encode()) for k, v in self.headers.items()],
        }
        await self.app(scope, self._receive, self._send)
        return self.reply

    async def _receive(self) -> dict[str, Any]:
        if not self._sent_body:
            self._sent_body = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            self.reply.status = message["status"]
            self.reply.headers = {k.decode().lower(): v.decode() for k, v in message["headers"]}
            if not self.started.done():
                self.started.set_result(None)
        else:
            self.reply.body += message.get("body", b"")
            self.ended = not message.get("more_body", False)


class Local:
    """A loaded worker in this process."""

    def __init__(self, worker: WorkerServer) -> None:
        self.worker = worker
        self.app = App(worker)

    def send(self, body: Any = None, *, method: str = "POST", path: str = "/invoke", **headers: str) -> Exchange:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return Exchange(self.app, method, path, raw, named)

    async def post(self, body: Any, path: str = "/invoke", **headers: str) -> Reply:
        return await asyncio.wait_for(self.send(body, path=path, **headers).task, PATIENCE)

    async def invoke(self, value: dict[str, Any], **headers: str) -> Reply:
        return await self.post({"input": value}, **headers)

    async def stream(self, value: dict[str, Any], **headers: str) -> list[Any]:
        reply = await self.post({"input": value}, accept="application/x-ndjson", **headers)
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/x-ndjson"
        return reply.lines()

    async def ping(self) -> int:
        return (await asyncio.wait_for(self.send(b"", method="GET", path="/ping").task, PATIENCE)).status


@contextlib.asynccontextmanager
async def _local(target: Any, *, loaded: bool = True, **settings: Any) -> AsyncIterator[Local]:
    worker = WorkerServer(target, Settings(**settings))
    if loaded:
        worker.start()
        await asyncio.wait_for(worker.loaded.wait(), PATIENCE)
    try:
        yield Local(worker)
    finally:
        worker.close()


@pytest.fixture
def local() -> Callable[..., contextlib.AbstractAsyncContextManager[Local]]:
    return _local


class Process:
    """A real worker on loopback."""

    def __init__(self, target: str, cwd: Path, env: Mapping[str, str]) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("UNIGPU_") and k != "PORT"}
        clean |= {"UNIGPU_HOST": "127.0.0.1", "UNIGPU_PORT": "0", "PYTHONWARNINGS": "error"} | dict(env)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "unigpu.worker", target],
            cwd=cwd,
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._news = threading.Condition()
        self._open = 2
        self._pumps = [
            threading.Thread(target=self._pump, args=(self.popen.stdout, self.out), daemon=True),
            threading.Thread(target=self._pump, args=(self.popen.stderr, self.err), daemon=True),
        ]
        for pump in self._pumps:
            pump.start()

    def _pump(self, pipe: Any, lines: list[str]) -> None:
        with pipe:
            for line in pipe:
                with self._news:
                    lines.append(line.rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._open -= 1  # the process has ended: nobody need wait for a line any more
            self._news.notify_all()

    def wait_for_line(self, pattern: str, lines: list[str] | None = None) -> re.Match[str]:
        where = self.err if lines is None else lines
        found: list[re.Match[str]] = []

        def look() -> bool:
            found.extend(m for line in where if (m := re.search(pattern, line)))
            return bool(found) or self._open == 0

        with self._news:
            self._news.wait_for(look, PATIENCE)
        assert found, f"{pattern} is not in {self.out + self.err}"
        return found[0]

    @property
    def port(self) -> int:
        return int(self.wait_for_line(r"listening on http://127\.0\.0\.1:(\d+)")[1])

    def ready(self) -> Process:
        self.wait_for_line("ready: ")
        return self

    def open(self, value: Any, path: str = "/invoke", **headers: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        connection.request("POST", path, json.dumps({"input": value}), named)
        return connection

    def invoke(self, value: Any, **headers: str) -> tuple[int, Any]:
        with contextlib.closing(self.open(value, **headers)) as connection:
            return self.answer(connection)

    @staticmethod
    def answer(connection: http.client.HTTPConnection) -> tuple[int, Any]:
        reply = connection.getresponse()
        return reply.status, json.loads(reply.read())

    def ping(self) -> int:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request("GET", "/ping")
            return connection.getresponse().status

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def exit(self) -> int:
        code = self.popen.wait(PATIENCE)
        for pump in self._pumps:
            pump.join(PATIENCE)
        return code

    def kill(self) -> None:
        self.popen.kill()
        self.exit()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def _start(target: str, *, cwd: Path = tmp_path, **env: str) -> Process:
        name = f"{HANDLERS}:{target}" if ":" not in target else target
        started.append(Process(name, cwd, env))
        return started[-1]

    yield _start
    for process in started:
        process.kill()


@pytest.fixture
def appears() -> Callable[[Path], None]:
    """Wait until a file is there."""

    def wait(path: Path) -> None:
        until = time.monotonic() + PATIENCE
        while not path.exists():
            assert time.monotonic() < until, f"{path.name} did not appear"
            time.sleep(0.01)

    return wait
