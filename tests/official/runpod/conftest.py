"""RunPod's emulator on loopback with real workers, and RunPod's own package in an environment of its own beside it."""

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
from plain_path import plain

from unigpu import Client

ROOT = plain(Path(__file__).resolve().parents[3])
PROGRAMS = ROOT / "tests" / "official" / "runpod" / "programs"
PYTHON = ROOT / ".venvs" / "runpod" / "bin" / "python"
WAIT = 60.0


@dataclass(frozen=True)
class Cloud:
    """An emulator that is served. ``worker`` starts RunPod's own worker program with our handlers of `programs`."""

    base: str
    key: str
    http: httpx.Client
    worker: tuple[str, ...] = (str(PYTHON), "-u", str(PROGRAMS / "worker.py"))

    def make(self, name: str, *, workers: tuple[int, int] = (0, 1), idle: int = 60, **more: Any) -> dict[str, Any]:
        """A queue endpoint of RunPod's own worker."""
        body = {
            "name": name,
            "type": "QUEUE",
            "image": "ghcr.io/me/app:1",
            "gpu": {"pools": ["ADA_24"], "count": 1},
            "workers": {"min": workers[0], "max": workers[1], "idleTimeout": idle},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 1},
            "timeout": 600_000,
            "cmd": list(self.worker),
            **more,
        }
        reply = self.http.post(f"{self.base}/v2/serverless", json=body)
        assert reply.status_code == 201, reply.text
        return reply.json()

    def workers(self, endpoint: str) -> dict[str, int]:
        """How many workers do what, by the job service."""
        return self.http.get(f"{self.base}/v2/{endpoint}/health").json()["workers"]

    def alive(self, endpoint: str) -> int:
        return sum(count for name, count in self.workers(endpoint).items() if name != "ready")

    def client(self) -> Client:
        """Ours."""
        options = {
            "control_url": f"{self.base}/v2",
            "jobs_url": f"{self.base}/v2",
            "lb_url": f"{self.base}/lb/{{id}}",
            "proxy_url": f"{self.base}/proxy/{{id}}/{{port}}",
        }
        return Client("runpod", api_key=self.key, driver_options={"runpod": options})


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    if not PYTHON.exists():
        pytest.fail("there is no .venvs/runpod: say make .venvs/runpod/.made")
    serve = [sys.executable, "-m", "unigpu", "emulator", "serve", "runpod"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True, cwd=PROGRAMS) as process:
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            with httpx.Client(headers={"authorization": f"Bearer {line['key']}"}, timeout=WAIT) as http:
                yield Cloud(line["base_urls"]["runpod"], line["key"], http)
        finally:
            process.terminate()
            process.wait(timeout=WAIT)


@pytest.fixture(scope="session")
def official(cloud: Cloud) -> Callable[..., dict[str, Any]]:
    """Run a program on RunPod's package, and read what it printed last."""

    def run(program: str, *args: str) -> dict[str, Any]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "RUNPOD_ENDPOINT_BASE_URL": f"{cloud.base}/v2",
            "RUNPOD_API_BASE_URL": cloud.base,
        }
        ran = subprocess.run(
            [str(PYTHON), str(PROGRAMS / program), *args], env=env, capture_output=True, text=True, timeout=WAIT
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return json.loads(ran.stdout.splitlines()[-1])

    return run


@pytest.fixture
def until() -> Callable[..., Any]:
    """Ask again until the answer is true, a minute at most."""

    def until(ask: Callable[[], Any], *, every: float = 0.1) -> Any:
        end = time.monotonic() + WAIT
        while not (found := ask()):
            assert time.monotonic() < end, "it did not come to be within a minute"
            time.sleep(every)
        return found

    return until
