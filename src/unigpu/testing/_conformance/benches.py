"""Two platforms under test, ready made: one in memory (any emulator over the engine), and a live account."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from unigpu import _registry
from unigpu._client.sync_client import Client
from unigpu._io.clock import InstantClock, use_clock
from unigpu.driver import CallDriver
from unigpu.emulator.contract import EmulatedAPI, Reply
from unigpu.emulator.engine import Engine
from unigpu.emulator.engine.billing import PHASES, Phase
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud
from unigpu.emulator.simulation.workers import Behavior, JobMode
from unigpu.errors import UniGPUError
from unigpu.models import Interface, Kind, is_in_namespace

from .. import handlers
from .faults import SECRETS
from .transport import CloudTransport

__all__ = ["FaceBench", "LiveBench"]

_RUN: Final[Mapping[str, Callable[[Any], Any]]] = {
    "echo": handlers.echo,
    "count": handlers.count,
    "fail": handlers.fail,
    "slow": lambda given: {"slept": given["s"]},  # it passes on the cloud's clock
}


class FaceBench:
    """A platform in memory, from its emulator: what `WireConformance` needs. A context manager; each is empty at first.

    Args:
        provider: The driver's name.
        face: Makes the platform's protocol over an engine, given the key that it is to accept.
        fields: Spec fields of any deployment there, but name and handler.
        list_operation: The operation by which deployments are listed, as in ``"reference.endpoint.list"``.
        status_names: The names of fields of replies that hold a status.
        options: What a client is made with beyond provider, key, state and transport; given the key where it does not
            go into ``api_key``.
        driver: The driver's class, where it is no entry point.
    """

    def __init__(
        self,
        provider: str,
        face: Callable[[Engine, str], EmulatedAPI],
        *,
        list_operation: str,
        fields: Mapping[str, Any] | None = None,
        status_names: Sequence[str] = ("status",),
        options: Callable[[str], Mapping[str, Any]] | None = None,
        driver: type[CallDriver] | None = None,
    ) -> None:
        self.provider = provider
        self.list_operation = list_operation
        self.status_names = status_names
        self.change_json: Callable[[str, Any], Any] | None = None
        self.cold_start = 0.05  # few looks: each is a case
        self.crashes = self.runs = 0
        self._fields = fields or {}
        self._options = options or _plain_key
        self._face, self._driver = face, driver

    def __enter__(self) -> FaceBench:
        with ExitStack() as stack:
            folder = tempfile.TemporaryDirectory(prefix="unigpu-bench-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(folder))
            self.state_dir = self._folder / "state"
            self._config = self._folder / "unigpu.toml"
            self._config.touch()
            clock = InstantClock()
            stack.enter_context(use_clock(clock))
            if self._driver is not None:
                stack.enter_context(_registry.using(self.provider, self._driver))
            self.cloud = VirtualCloud(clock=clock)
            made = self._face(self.cloud.engine, SECRETS["key"])
            self.cloud.mount(made)
            self.transport = CloudTransport(self.cloud, made)
            self.transport.change = self._change
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

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
        return self._made_with("elsewhere" if elsewhere else "state", SECRETS["key"])

    def without_permission(self) -> Mapping[str, Any]:
        return self._made_with("state", "a-wrong-key")

    def _made_with(self, state: str, key: str) -> Mapping[str, Any]:
        here = {"state_dir": self._folder / state, "config": self._config, "transport": self.transport}
        return {"provider": self.provider, **here, **self._options(key)}

    def fields(self, handler: str) -> Mapping[str, Any]:
        behavior = Behavior(run=_RUN[handler], duration=_seconds, cold_start=self.cold_start, job=self._taken)

        def behaves(_: str) -> Behavior:  # one bench deploys one handler at a time
            return behavior

        self.cloud.simulation._behavior_of = behaves  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - one house
        return {"handler": f"unigpu.testing.handlers:{handler}", **self._fields}

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        return {**_content(self.fields("echo"), interface), "interface": interface, "kind": kind}

    def lose(self, operation: str, when: str, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, when="before" if when == "before" else "after", times=times)

    def refuse(self, operation: str, status: int, *, times: int | None = 1) -> None:
        self.cloud.engine.faults.add(operation, times=times, reply=status)

    def heal(self) -> None:
        self.cloud.engine.faults.clear()
        self.cloud.clock.advance(180.0)

    def left(self) -> Sequence[str]:
        """What is called, by its logical name; where nothing is, the parts that stand under nothing."""
        rows = self.cloud.engine.deployments.list(self.cloud.clock.now())
        names = [(row, str(row.terms.launch.env.get("UNIGPU_NAME", row.id))) for row in rows]
        called = [name for row, name in names if row.terms.max_workers > 0]
        return called or [f"{row.platform} {name}" for row, name in names]

    def seconds(self) -> Mapping[str, float]:
        return self._phases(lambda _id, _phase, seconds: seconds)

    def billed(self) -> Mapping[str, float]:
        meter = self.cloud.engine.meter
        return self._phases(lambda id, phase, seconds: meter.billed({phase: seconds}, id))

    def _phases(self, of: Callable[[str, Phase, float], float]) -> Mapping[str, float]:
        rows = self.cloud.engine.meter.report(self.cloud.clock.now())["deployments"]
        return {phase: sum(of(id, phase, row[f"{phase}_s"]) for id, row in rows.items()) for phase in PHASES}

    def _taken(self, _: object) -> JobMode:
        self.runs += 1
        self.crashes -= 1
        return "crash" if self.crashes >= 0 else "answer"

    def _change(self, operation: str, reply: Reply) -> Reply:
        if self.change_json is None or reply.status >= 300 or not reply.body:
            return reply
        return Reply.json(self.change_json(operation, json.loads(reply.body)))


class LiveBench:
    """A live account, in a namespace of its own. **What it deploys costs money**; `clean` ends what a test left.

    A context manager. The key comes from where clients find it: a test says ``@pytest.mark.unigpu_real_state``.

    Args:
        fields: Spec fields of a function deployment there, but name and handler: an image with unigpu in it, a GPU, a
            price. The image has the handlers already: ``unigpu.testing.handlers``.
        options: What else a client is made with.
        shapes: Further fields of other interfaces and kinds; default: the same.
    """

    def __init__(
        self,
        provider: str,
        fields: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        shapes: Mapping[tuple[Interface, Kind], Mapping[str, Any]] | None = None,
    ) -> None:
        self.provider = provider
        self._fields, self._more, self._shapes = fields, options or {}, shapes or {}
        self.namespace = f"conformance-{secrets.token_hex(4)}"

    def __enter__(self) -> LiveBench:
        self._folder = tempfile.TemporaryDirectory(prefix="unigpu-bench-", ignore_cleanup_errors=True)
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.clean()
        finally:
            self._folder.cleanup()

    def options(self, *, elsewhere: bool = False) -> Mapping[str, Any]:
        state = Path(self._folder.name) / ("elsewhere" if elsewhere else "state")
        return {"provider": self.provider, "namespace": self.namespace, "state_dir": state, **self._more}

    def without_permission(self) -> Mapping[str, Any] | None:
        if _registry.load(self.provider).env_key is None:
            return None
        return {**self.options(), "api_key": "a-wrong-key"}

    def fields(self, handler: str) -> Mapping[str, Any]:
        return {"handler": f"unigpu.testing.handlers:{handler}", **self._fields}

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        own = self._shapes.get((interface, kind), {})
        return {**_content(self.fields("echo"), interface), **own, "interface": interface, "kind": kind}

    def clean(self) -> None:
        """End everything of this bench's namespace.

        Raises:
            UniGPUError: something could not be ended, and may still cost money.
        """
        failed: list[UniGPUError] = []
        with Client(**self.options()) as client:
            for one in client.deployments(provider=self.provider):
                if is_in_namespace(one.info.provider_name, self.namespace):
                    try:
                        client.teardown(one)
                    except UniGPUError as exc:
                        failed.append(exc)
            with contextlib.suppress(UniGPUError):
                client.gc(provider=self.provider, delete=True)
        if failed:
            raise failed[0]


def _plain_key(key: str) -> Mapping[str, Any]:
    return {"api_key": key}


def _content(fields: Mapping[str, Any], interface: Interface) -> Mapping[str, Any]:
    """A server instead of the handler, for ``http``; in memory the engine's simulated workers answer as it does."""
    if interface == "function":
        return fields
    return {
        **{k: v for k, v in fields.items() if k != "handler"},
        "command": ["python", "-m", "unigpu.testing.handlers"],
    }


def _seconds(input: Any) -> float:
    return float(input.get("s", 0.1)) if isinstance(input, dict) else 0.1  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType] - any JSON
