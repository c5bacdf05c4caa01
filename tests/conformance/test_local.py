"""The local provider in conformance: against the engine in memory, and against real processes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from unigpu._io.clock import InstantClock, use_clock
from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.emulator.simulation.workers import JobMode
from unigpu.models import Interface, Kind
from unigpu.testing._conformance.driver import APP, DriverConformance
from unigpu.testing._conformance.faults import SECRETS, WireConformance
from unigpu.testing._conformance.flavors import Name
from unigpu.testing._conformance.transport import CloudTransport

SERVER = (sys.executable, "-m", "unigpu.testing.handlers")


class Project:
    """The handlers as files, and the fields that deploy them."""

    provider = "local"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path / "project" / "app.py"
        self.file.parent.mkdir()
        self.file.write_text(APP)
        (path / "unigpu.toml").write_text("")

    def fields(self, handler: str) -> Mapping[str, Any]:
        return {"handler": f"{self.file}:{handler}"}

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        content = self.fields("echo") if interface == "function" else {"command": list(SERVER)}
        return {**content, "interface": interface, "kind": kind}


class InMemory(Project):
    """A `WireBench`: the engine with simulated workers, on a clock that jumps."""

    list_operation = "local.deployment.list"
    status_names: Sequence[str] = ("state", "status")

    def __init__(self, path: Path, clock: InstantClock) -> None:
        super().__init__(path)
        self.cloud = VirtualCloud(clock=clock)
        face = LocalEmulator(self.cloud.engine, token=SECRETS["key"])
        self.cloud.mount(face)
        self.transport = CloudTransport(self.cloud, face)
        self.transport.change = self._change
        self.state_dir = path / "state"
        self.change_json: Callable[[str, Any], Any] | None = None
        self.cold_start, self.crashes, self.runs = 0.05, 0, 0  # few looks: each is a case
        spec = importlib.util.spec_from_file_location("conformance_app", self.file)
        assert spec is not None
        assert spec.loader is not None
        app = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(app)
        app.time = _NoTime  # it passes on the cloud's clock: `duration` says how much
        self._run = {name: getattr(app, name) for name in ("echo", "count", "fail", "slow")}

    @property
    def calls(self) -> list[str]:
        return self.transport.calls

    @property
    def on_call(self) -> Callable[[str, str], object] | None:
        return self.transport.on_call

    @on_call.setter
    def on_call(self, hook: Callable[[str, str], object] | None) -> None:
        self.transport.on_call = hook

    def options(self, *, elsewhere: bool = False) -> Mapping[str, Any]:
        return self._options("elsewhere" if elsewhere else "state", SECRETS["key"])

    def without_permission(self) -> Mapping[str, Any]:
        return self._options("state", "wrong")

    def _options(self, state: str, token: str) -> Mapping[str, Any]:
        return {
            "provider": "local",
            "driver_options": {"local": {"base_url": "http://127.0.0.1:1", "token": token}},
            "state_dir": self.path / state,
            "config": self.path / "unigpu.toml",
            "transport": self.transport,
        }

    def fields(self, handler: str) -> Mapping[str, Any]:
        behavior = Behavior(run=self._run[handler], duration=_seconds, cold_start=self.cold_start, job=self._taken)
        self.cloud.simulation._behavior_of = lambda _: behavior  # one bench deploys one handler at a time
        return super().fields(handler)

    def lose(self, operation: str, when: str, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, when="before" if when == "before" else "after", times=times)

    def refuse(self, operation: str, status: int, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, times=times, reply=status)

    def heal(self) -> None:
        self.cloud.engine.faults.clear()
        self.cloud.clock.advance(120)  # a client that had stopped sending tries again

    def left(self) -> Sequence[str]:
        rows = self.cloud.engine.deployments.list(self.cloud.clock.now(), platform="local")
        return [str(row.terms.data["name"]) for row in rows]

    def seconds(self) -> Mapping[str, float]:
        return {}

    def billed(self) -> Mapping[str, float]:
        return {}  # it costs nothing

    def _taken(self, _: object) -> JobMode:
        self.runs += 1
        self.crashes -= 1
        return "crash" if self.crashes >= 0 else "answer"

    def _change(self, operation: str, reply: Reply) -> Reply:
        if self.change_json is None or reply.status != 200:
            return reply
        return Reply.json(self.change_json(operation, json.loads(reply.body)))


class _NoTime:
    @staticmethod
    def sleep(seconds: float) -> None:
        """Nothing to wait for."""


def _seconds(input: Any) -> float:
    return float(input.get("s", 0.1)) if isinstance(input, dict) else 0.1


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[InMemory]:
    clock = InstantClock()
    with use_clock(clock):
        yield InMemory(tmp_path, clock)


class TestLocalInMemory(WireConformance):
    """Everything, on virtual time."""

    @pytest.fixture
    def bench(self, wire: InMemory) -> InMemory:
        return wire


class Processes(Project):
    """A `Bench`: a supervisor of its own, with real workers."""

    def options(self, *, elsewhere: bool = False) -> Mapping[str, Any]:
        # "Elsewhere" is another client: the state directory is what this provider's cloud lives in.
        return {"provider": "local", "state_dir": self.path / "state", "config": self.path / "unigpu.toml"}

    def without_permission(self) -> None:
        """Its key is the supervisor's own secret."""


@pytest.mark.processes
class TestLocalProcesses(DriverConformance):
    """The same on real processes, on one flavour: each one's own paths are proved in memory."""

    flavours: ClassVar[Sequence[Name]] = ("trio",)

    @pytest.fixture
    def bench(self) -> Iterator[Processes]:
        path = Path(tempfile.mkdtemp(prefix="unigpu-conformance-"))
        yield Processes(path)
        assert not (path / "state" / "local" / "supervisor.json").exists()
        shutil.rmtree(path)
