"""The reference platform in conformance: what every driver must do, and what it must do when the platform fails."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from unigpu import _registry
from unigpu._io.clock import InstantClock, use_clock
from unigpu.cloud.contract import Reply
from unigpu.cloud.virtual import Behavior, VirtualCloud
from unigpu.models import Interface, Kind
from unigpu.testing._conformance import APP
from unigpu.testing._transport import CloudTransport
from unigpu.testing._wire_conformance import SECRETS, WireConformance
from unigpu.testing.reference import ReferenceDriver, ReferenceFace


class InMemory:
    """A `WireBench`: the platform with simulated workers, on a clock that jumps."""

    provider = "reference"
    list_operation = "reference.endpoint.list"
    status_names: Sequence[str] = ("status",)

    def __init__(self, path: Path, clock: InstantClock) -> None:
        self.path = path
        self.cloud = VirtualCloud(clock=clock)
        face = ReferenceFace(self.cloud.engine, key=SECRETS["key"], page=2)
        self.cloud.mount(face)
        self.transport = CloudTransport(self.cloud, face)
        self.transport.change = self._change
        self.state_dir = path / "state"
        self.change_json: Callable[[str, Any], Any] | None = None
        (path / "unigpu.toml").write_text("")
        file = path / "app.py"
        file.write_text(APP)
        spec = importlib.util.spec_from_file_location("conformance_app", file)
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

    def _options(self, state: str, key: str) -> Mapping[str, Any]:
        return {
            "provider": "reference",
            "api_key": key,
            "state_dir": self.path / state,
            "config": self.path / "unigpu.toml",
            "transport": self.transport,
        }

    def fields(self, handler: str) -> Mapping[str, Any]:
        behavior = Behavior(run=self._run[handler], duration=_seconds, cold_start=0.05)  # few looks: each is a case
        self.cloud.simulation._behavior_of = lambda _: behavior  # one bench deploys one handler at a time
        return {"handler": f"app:{handler}", "image": "ghcr.io/me/app:1", "gpu": "RTX 4090"}

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        return {**self.fields("echo"), "interface": interface, "kind": kind}

    def lose(self, operation: str, when: str, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, when="before" if when == "before" else "after", times=times)

    def refuse(self, operation: str, status: int, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, times=times, reply=status)

    def heal(self) -> None:
        self.cloud.engine.faults.clear()
        self.cloud.clock.advance(180.0)

    def left(self) -> Sequence[str]:
        rows = self.cloud.engine.deployments.list(self.cloud.clock.now())
        endpoints = [row for row in rows if row.platform == "reference.endpoint"]
        templates = [row for row in rows if row.platform == "reference.template"]
        names = [str(row.terms.launch.env.get("UNIGPU_NAME")) for row in endpoints]
        return names or [f"template {row.terms.launch.env.get('UNIGPU_NAME')}" for row in templates]

    def _change(self, operation: str, reply: Reply) -> Reply:
        if self.change_json is None or reply.status >= 300:
            return reply
        return Reply.json(self.change_json(operation, json.loads(reply.body)))


class _NoTime:
    @staticmethod
    def sleep(seconds: float) -> None:
        """Nothing to wait for."""


def _seconds(input: Any) -> float:
    return float(input.get("s", 0.1)) if isinstance(input, dict) else 0.1


class TestReference(WireConformance):
    """Everything, on virtual time."""

    @pytest.fixture
    def wire(self, tmp_path: Path) -> Iterator[InMemory]:
        clock = InstantClock()
        with use_clock(clock), _registry.using("reference", ReferenceDriver):
            yield InMemory(tmp_path, clock)

    @pytest.fixture
    def bench(self, wire: InMemory) -> InMemory:
        return wire
