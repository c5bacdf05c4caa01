"""Yotta's emulator on loopback with real workers, and Yotta's own clients in an environment of their own beside it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = Path(__file__).parent / "programs"
PYTHON = ROOT / ".venvs" / "yotta" / "bin" / "python"
WAIT = 60.0

if "yotta_served" not in sys.modules:
    _spec = importlib.util.spec_from_file_location(
        "yotta_served", ROOT / "tests" / "emulator" / "apis" / "yotta" / "served.py"
    )
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["yotta_served"] = _module
    _spec.loader.exec_module(_module)


class Official:
    """What Yotta's programs do with the emulator."""

    def __init__(self, served: Any) -> None:
        self.served = served
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        self._env = {name: os.environ[name] for name in kept if name in os.environ}

    def program(self, name: str, *args: str) -> Any:
        """What a program of `PROGRAMS` printed, as JSON."""
        command = [str(PYTHON), str(PROGRAMS / name), self.served.base, self.served.key, *args]
        done = self._run(command, self._env)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def cli(self, *args: str) -> subprocess.CompletedProcess[str]:
        """The command ``yotta``."""
        env = {**self._env, "YOTTA_API_KEY": self.served.key, "YOTTA_BASE_URL": self.served.base}
        return self._run([str(PYTHON.with_name("yotta")), *args], env)

    def said(self, *args: str) -> Any:
        """The data of a command's answer."""
        done = self.cli(*args)
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["code"] == 10000, found
        return found["data"]

    @staticmethod
    def _run(command: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=WAIT, check=False)


@pytest.fixture
def official(tmp_path: Path) -> Iterator[Official]:
    made = sys.modules["yotta_served"].Served(tmp_path)
    yield Official(made)
    made.close()


@pytest.fixture
def hook() -> Iterator[Any]:
    made = sys.modules["yotta_served"].Hook()
    yield made
    made.close()
