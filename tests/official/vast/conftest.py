"""Vast's emulator on loopback with real workers, and Vast's own package in an environment of its own beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from plain_path import plain

from unigpu import Client

ROOT = plain(Path(__file__).resolve().parents[3])
PROGRAMS = ROOT / "tests" / "official" / "vast" / "programs"
PYTHON = ROOT / ".venvs" / "vast" / "bin" / "python"
WAIT = 60.0


@dataclass(frozen=True)
class Cloud:
    """An emulator that is served."""

    base: str
    key: str
    http: httpx.Client = field(repr=False)
    tls: bool = False
    pyworker: Path = PYTHON

    def run(self, program: str, *args: str) -> Any:
        """A program of `PROGRAMS` in Vast's environment; what it printed, as JSON."""
        done = _run([str(PYTHON), str(PROGRAMS / program), self.base, self.key, *args])
        return json.loads(done.stdout.splitlines()[-1])

    def cli(self, *args: str) -> str:
        """Vast's command line."""
        return _run([str(PYTHON.with_name("vastai")), *args, "--url", self.base, "--api-key", self.key]).stdout

    def client(self) -> Client:
        """Ours."""
        options: dict[str, Any] = {"console_url": self.base, "engine_url": self.base, "http_workers": not self.tls}
        if self.tls:
            options["worker_ca"] = self.http.get(f"{self.base}/static/jvastai_root.cer").text
        return Client("vast", api_key=self.key, driver_options={"vast": options})

    def deploy(self, client: Client, name: str, **more: Any) -> Any:
        """A deployment of ours whose workers run Vast's program."""
        return client.deploy(
            name=name,
            handler="app:work",
            image="registry.test/app:1",
            gpu="RTX 4090",
            max_price=1.0,
            idle_timeout=120,
            provider_options={"vast": {"tls": self.tls}},
            **{"workers": (0, 1), "timeout": WAIT, **more},
        )

    def endpoint(self, name: str) -> dict[str, Any]:
        """What the platform has of a deployment of ours: the endpoint whose template says that name."""
        for group in self.http.get(f"{self.base}/api/v0/workergroups/").json()["results"]:
            for template in self.http.get(f"{self.base}/api/v0/template/").json()["templates"]:
                if template["id"] == group["template_id"] and f"UNIGPU_NAME={name} " in template["env"] + " ":
                    return self.http.get(f"{self.base}/api/v0/endptjobs/{group['endpoint_id']}/").json()["result"]
        raise AssertionError(f"no endpoint of {name}")

    def route(self, name: str) -> dict[str, Any]:
        """A route to a worker that is ready."""
        endpoint = self.endpoint(name)
        reply = self.http.post(f"{self.base}/route/", json={"endpoint": endpoint["endpoint_name"], "cost": 100})
        found = reply.json()
        assert "url" in found, found
        return found


def _run(argv: Sequence[str]) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("VAST", "PYTHON"))}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@contextmanager
def serving(argv: Sequence[str], *, tls: bool = False) -> Iterator[Cloud]:
    if not PYTHON.exists():
        pytest.fail("there is no .venvs/vast: say make .venvs/vast/.made")
    env = {**os.environ, "UNIGPU_PYWORKER_PYTHON": str(PYTHON)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=PROGRAMS, env=env) as process:
        try:
            assert process.stdout is not None
            line = json.loads(process.stdout.readline())
            with httpx.Client(headers={"authorization": f"Bearer {line['key']}"}, timeout=WAIT) as http:
                yield Cloud(line["base_urls"]["vast"], line["key"], http, tls)
        finally:
            process.terminate()
            process.wait(timeout=WAIT)


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[Cloud]]:
    """Serves an emulator by another command, run in the programs' folder."""
    return serving


@pytest.fixture(scope="session")
def cloud() -> Iterator[Cloud]:
    with serving([sys.executable, "-m", "unigpu", "emulator", "serve", "vast"]) as served:
        yield served
