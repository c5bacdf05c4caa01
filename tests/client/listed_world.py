"""An account on the reference platform, which only lists, and clients of it on as many machines as a test wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unigpu import AsyncClient, Client
from unigpu._io.clock import InstantClock
from unigpu.emulator.contract import Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models import provider_name
from unigpu.testing._conformance.transport import CloudTransport
from unigpu.testing.reference import ReferenceEmulator

KEY = "reference-key"
FIELDS: dict[str, Any] = {"name": "summarize", "handler": "app:summarize", "image": "me/app:1", "gpu": "RTX 4090"}


class ListedWorld:
    """Creates take their time and lists are late where a test says so."""

    def __init__(self, path: Path, clock: InstantClock, **settings: Any) -> None:
        self.path, self.clock = path, clock
        self.cloud = VirtualCloud(clock=clock, behavior=Behavior(cold_start=2.0), settings=EngineSettings(**settings))
        self.face = ReferenceEmulator(self.cloud.engine, key=KEY, page=2)
        self.cloud.mount(self.face)
        self.transport = CloudTransport(self.cloud, self.face)
        (path / "unigpu.toml").write_text("")

    @property
    def faults(self) -> Any:
        return self.cloud.engine.faults

    def options(self, machine: str = "a", **more: Any) -> dict[str, Any]:
        return {
            "provider": "reference",
            "api_key": {"reference": KEY},
            "state_dir": self.path / machine,
            "config": self.path / "unigpu.toml",
            "transport": self.transport,
            **more,
        }

    def client(self, machine: str = "a", **more: Any) -> Client:
        return Client(**self.options(machine, **more))

    def async_client(self, machine: str = "a", **more: Any) -> AsyncClient:
        return AsyncClient(**self.options(machine, **more))

    def live(self, kind: str = "endpoint", name: str = "summarize", namespace: str = "default") -> list[str]:
        """What really exists, whatever lists show."""
        wanted, engine = provider_name(namespace, name), self.cloud.engine
        rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
        return sorted(r.id for r in rows if r.platform == f"reference.{kind}" and r.terms.data["name"] == wanted)

    def all(self) -> list[str]:
        return sorted(self.cloud.engine.deployment_ids())

    def intents(self, machine: str = "a") -> list[str]:
        folder = self.path / machine / "intents"
        return sorted(p.name for p in folder.iterdir() if p.suffix == ".json") if folder.is_dir() else []

    def count(self, operation: str) -> int:
        return self.transport.calls.count(f"reference.{operation}")

    def double(self, name: str = "summarize", namespace: str = "default") -> str:
        """Another machine's deployment of the same name, whose list entry came late: made behind everybody's back."""
        engine, now = self.cloud.engine, self.clock.now()
        env = {"UNIGPU_NAME": name, "UNIGPU_NAMESPACE": namespace, "UNIGPU_ATTEMPT": "f" * 32}
        body: dict[str, Any] = {"name": provider_name(namespace, name), "image": "me/app:1", "env": env}
        template = self.face._make_template(body, now)
        body = {**body, "template_id": template.id, "gpus": ["L40S"], "workers": {"min": 0, "max": 1}}
        made = self.face._make_endpoint(body, now)
        self.cloud.step(now)
        assert engine.deployments.get(made.id, now)
        return made.id

    def mangle(self, operation: str, change: Callable[[Reply], Reply]) -> None:
        """Every reply of *operation* arrives changed."""
        self.transport.change = lambda op, reply: change(reply) if op == f"reference.{operation}" else reply
