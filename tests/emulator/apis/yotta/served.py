"""The emulator as ``python -m unigpu emulator serve yotta`` runs it, with real worker processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

PATIENCE = 60.0

APP = """
import os
import time


def echo(input):
    return {"pid": os.getpid(), **input}


def fail(input):
    raise ValueError(f"no {input['what']}")


def slow(input):
    open(input["started"], "w").write(str(os.getpid()))
    while not os.path.exists(input["go"]):
        time.sleep(0.01)
    return {"pid": os.getpid()}


def count(input):
    for n in range(input["n"]):
        yield n


class Gated:
    def __init__(self):
        print("loading", os.environ["GATE"], flush=True)
        while not os.path.exists(os.environ["GATE"]):
            time.sleep(0.01)

    def __call__(self, input):
        return {"pid": os.getpid()}


class Broken:
    def __init__(self):
        raise RuntimeError("no weights here")

    def __call__(self, input):
        return None
"""

# A user's own server: any path, bare bodies, a failure as 500, and an answer that comes in parts.
SERVER = """
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/parts":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for part in (b"one ", b"two ", b"three"):
                self.wfile.write(b"%x\\r\\n%s\\r\\n" % (len(part), part))
                self.wfile.flush()
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        if self.path == "/die":
            os._exit(9)
        headers = {k.lower(): v for k, v in self.headers.items()}
        self.answer(200, {"path": self.path, "pid": os.getpid(), "headers": headers})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        told = {"got": body, "path": self.path, "trace": self.headers.get("X-Trace")}
        self.answer(500 if body.get("fail") else 200, told)

    def answer(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


class Served:
    """A server process, and a plain caller of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "app.py").write_text(APP)
        (folder / "own_server.py").write_text(SERVER)
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("UNIGPU_", "YOTTA_"))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "unigpu", "emulator", "serve", "yotta", "--port", "0"],
            cwd=folder,
            env=clean,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        line = json.loads(self._process.stdout.readline())
        self.base: str = line["base_urls"]["yotta"]
        self.key: str = line["key"]
        self.port = free_port()
        self.http = httpx.Client(headers={"x-api-key": self.key}, timeout=PATIENCE, trust_env=False)

    def close(self) -> None:
        self.http.close()
        self._process.terminate()
        self._process.wait(PATIENCE)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def call(self, method: str, path: str, body: Any = None) -> Any:
        found = self.http.request(method, self.base + path, json=body).json()
        assert found["code"] == 10000, found
        return found["data"]

    def deploy(
        self, command: str, *, mode: str = "QUEUE", env: Mapping[str, str] | None = None, workers: int = 1
    ) -> str:
        body = {
            "name": "chat",
            "image": "registry.test/chat:1",
            "resources": [{"region": "us-east-3", "gpuType": "NVIDIA_RTX_4090_24G", "gpuCount": 1}],
            "workers": workers,
            "containerVolumeInGb": 20,
            "serviceMode": mode,
            "expose": {"port": self.port, "protocol": "http"},
            "initializationCommand": command,
            "environmentVars": [{"key": k, "value": v} for k, v in {"UNIGPU_PUSHED": "1", **(env or {})}.items()],
        }
        return str(self.call("POST", "/v2/serverless", body)["id"])

    def get(self, id: str) -> Any:
        return self.call("GET", f"/v2/serverless/{id}")

    def becomes(self, id: str, state: str, *, workers: int | None = None) -> Any:
        """The endpoint, once it is in that state (and has so many workers)."""

        def look() -> Any:
            found = self.get(id)
            return found if found["status"] == state and workers in (None, found["runningWorkers"]) else None

        return self.until(look, f"{state} with {workers} workers")

    def submit(self, id: str, task: str, input: Any, *, path: str = "/invoke", **more: Any) -> None:
        body = {"taskId": task, "input": input, "workerPort": self.port, "processUri": path, **more}
        self.call("POST", f"/v2/serverless/{id}/tasks", body)

    def ended(self, id: str, task: str) -> Any:
        def look() -> Any:
            found = self.call("GET", f"/v2/serverless/{id}/tasks/{task}")
            return found if found["status"] in ("SUCCESS", "FAILED") else None

        return self.until(look, f"the end of {task}")

    def until(self, look: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = look()
            if found:
                return found
            time.sleep(0.05)  # between looks, well below the limit of reads
        raise AssertionError(f"not within {PATIENCE:g} s: {what}")


class Hook:
    """A user's webhook on loopback."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], Any]] = []
        self.news = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()
                hook.news.set()

            def log_message(self, *args: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)


def free_port() -> int:
    """Of its own for each server process: tests run side by side on one machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
