"""A world of one account on the reference platform, and as many clients of it as a test wants; any of them may die.

Clients are the real ones, over the real retries, breaker and limits; only the connections are replaced, by a way into
the cloud in memory that fails, dies or is cancelled where a test says so.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import random
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import anyio.lowlevel

from unigpu import AsyncClient, Client, _registry
from unigpu._client._ways import _ways
from unigpu._io.clock import InstantClock, VirtualClock, use_clock
from unigpu._io.contract import Request, Response, StreamResponse
from unigpu._io.protection import Protection
from unigpu._io.shield import shield_async, shield_sync
from unigpu._lifecycle import IntentStore
from unigpu.cloud.engine import EngineSettings
from unigpu.cloud.virtual import Behavior, VirtualCloud
from unigpu.models import provider_name
from unigpu.testing.reference import ReferenceDriver, ReferenceFace

KEY = "reference-key"
NAME = "summarize"
FIELDS: dict[str, Any] = {
    "name": NAME,
    "handler": "app:summarize",
    "image": "ghcr.io/me/app:1",
    "gpu": "RTX 4090",
    "workers": (0, 2),
}
FULL = os.environ.get("UNIGPU_FULL") == "1"
Hook = Callable[[str], None]
_FLAGS: dict[Any, Any] = {}
"""What the facts say, read once for all clients: thousands of them are made."""


class Crash(BaseException):
    """The process is killed here: nothing after it has any effect."""


class Killer:
    """Kills the process at the n-th point of a run; afterwards nothing works any more."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.points: list[str] = []
        self.dead = False

    def __call__(self, name: str) -> None:
        if self.dead:
            raise Crash
        self.points.append(name)
        if self.at is not None and len(self.points) > self.at:
            self.dead = True
            raise Crash(name)


class Script:
    """Which calls fail: the n-th call of an operation (from 0), by a kind of fault."""

    def __init__(self, *plan: tuple[str, int, Any]) -> None:
        self.plan = {(operation, at): kind for operation, at, kind in plan}
        self.seen: dict[str, int] = {}
        self.calls: list[tuple[str, int]] = []
        self.struck: list[str] = []

    def next(self, operation: str) -> Any:
        at = self.seen.get(operation, 0)
        self.seen[operation] = at + 1
        self.calls.append((operation, at))
        kind = self.plan.get((operation, at))
        if kind is not None:
            self.struck.append(kind.name)
        return kind


class MatrixIo:
    """The way into the cloud. *hook* is called before and after every call, and before every sleep."""

    def __init__(self, world: World, *, sync: bool, hook: Hook | None, script: Script | None) -> None:
        self.world, self.sync, self.hook, self.script = world, sync, hook, script
        self.rolls = random.Random(7)

    def point(self, name: str) -> None:
        if self.hook is not None:
            self.hook(name)

    async def turn(self) -> None:
        if not self.sync:
            await anyio.lowlevel.checkpoint()

    async def send(self, request: Request) -> Response:
        self.point(f"before {request.operation}")
        await self.turn()
        kind = None if self.script is None else self.script.next(request.operation)
        act = lambda: self.world.act(request)  # noqa: E731 - handed to the fault
        reply = act() if kind is None else kind.strike(self.world, request, act)
        await self.turn()
        self.point(f"after {request.operation}")
        return reply

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        raise AssertionError("the reference platform streams nothing")

    async def sleep(self, seconds: float) -> None:
        self.point("sleep")
        if self.sync:
            self.world.clock.sleep(seconds)
        else:
            await self.world.clock.asleep(seconds)

    def now(self) -> float:
        return self.world.clock.now()

    def wall(self) -> float:
        return self.world.clock.wall()

    def random(self) -> float:
        return self.rolls.random()

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        return await (shield_sync if self.sync else shield_async)(work, seconds=seconds)


class World:
    """See the module.

    Args:
        path: Where the machines' state directories are, ``a``, ``b`` …
        settings: The engine's: list lag.
    """

    def __init__(self, path: Path, *, seed: int = 0, virtual: bool = False, page: int = 50, **settings: Any) -> None:
        self.path = path
        self.clock: Any = (VirtualClock if virtual else InstantClock)(1000.0, epoch=1.8e9)
        self.cloud = VirtualCloud(
            clock=self.clock,
            seed=seed,
            behavior=Behavior(cold_start=2.0, duration=0.1),
            settings=EngineSettings(**settings),
        )
        self.face = ReferenceFace(self.cloud.engine, key=KEY, seed=seed, page=page)
        self.cloud.mount(self.face)
        self.pending: list[tuple[float, int, Callable[[], object]]] = []
        self.order = itertools.count()
        self.clock.attach(self._act_late, lambda: self.pending[0][0] if self.pending else None)
        self.deleted: list[str] = []
        self.orphan_seconds = 0.0
        self.foreign = self._strangers()
        self.config = path / "unigpu.toml"
        if not self.config.exists():
            path.mkdir(parents=True, exist_ok=True)
            self.config.write_text("")

    # -- clients

    def client(
        self,
        where: str = "a",
        *,
        sync: bool = True,
        hook: Hook | None = None,
        script: Script | None = None,
        io: Any = None,
    ) -> Any:
        """A new client on machine *where*; the plain one, or with *sync* false the asynchronous one."""
        return self.wired(
            Client if sync else AsyncClient, where, io or MatrixIo(self, sync=sync, hook=hook, script=script), hook
        )

    def wired(self, cls: Any, where: str, io: Any, hook: Hook | None = None) -> Any:
        client = cls("reference", state_dir=self.path / where, config=self.config)

        async def close() -> None:
            """There is nothing to close."""

        core = client._core
        core.home._flags = _FLAGS
        core.ways = _ways(io, io, close, Protection.usual(), core.home.emit)
        core.io = core.ways.usual
        core._store = IntentStore(self.path / where, hook=hook)
        return client

    # -- the platform

    def act(self, request: Request) -> Response:
        if request.operation.endswith(".delete"):
            self.deleted.append(request.url.rpartition("/")[2])
        found = self.cloud.handle(request)
        assert isinstance(found, Response)  # the reference platform holds nothing
        return found

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        heapq.heappush(self.pending, (self.clock.now() + seconds, next(self.order), act))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _act_late(self, now: float) -> None:
        while self.pending and self.pending[0][0] <= now:
            heapq.heappop(self.pending)[2]()

    def live(self, kind: str = "endpoint", name: str = NAME) -> list[str]:
        """The ids of what really exists of a deployment, whatever lists show."""
        wanted, engine, now = provider_name("default", name), self.cloud.engine, self.clock.now()
        rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
        return [r.id for r in rows if r.platform == f"reference.{kind}" and r.terms.data["name"] == wanted and now >= 0]

    def all_live(self) -> list[str]:
        return [*self.live("template"), *self.live("endpoint")]

    def intents(self, where: str = "a") -> list[str]:
        folder = self.path / where / "intents"
        return sorted(p.name for p in folder.iterdir() if p.suffix == ".json") if folder.is_dir() else []

    def intent_states(self, where: str) -> set[str]:
        """``pending``, ``committed``, ``failed``: of the intents that a machine keeps."""
        folder = self.path / where / "intents"
        return {json.loads((folder / name).read_text())["state"] for name in self.intents(where)}

    def machines(self) -> list[str]:
        """Those that ever kept something."""
        return sorted(p.name for p in self.path.iterdir() if p.is_dir())

    def billed(self) -> dict[str, float]:
        """Seconds billed of each endpoint of our name that ever was, by its id."""
        wanted, rows = provider_name("default", NAME), self.cloud.engine.meter.report(self.clock.now())["deployments"]
        return {id: row["billed_s"] for id, row in rows.items() if row["name"] == wanted and id.startswith("ep-")}

    def _strangers(self) -> list[str]:
        """What others have on the account: never to be touched."""
        engine, now = self.cloud.engine, self.clock.now()
        out = list[str]()
        rows = [
            ("somebodys-server", {}),
            (provider_name("team-b", NAME), {"UNIGPU_NAME": NAME, "UNIGPU_NAMESPACE": "team-b", "UNIGPU_ATTEMPT": "x"}),
        ]
        for name, env in rows:
            body = {"name": name, "image": "i", "env": env}
            template = self.face._make_template(body, now)
            body = {
                "name": name,
                "template_id": template.id,
                "gpus": ["L40S"],
                "env": env,
                "workers": {"min": 0, "max": 1},
            }
            endpoint = self.face._make_endpoint(body, now)
            out += [template.id, endpoint.id]
        self.cloud.step(now)
        assert set(out) <= set(engine.deployment_ids())
        return out

    def untouched(self) -> bool:
        """Whether everything of others is still there, and nobody tried to delete it."""
        there = set(self.cloud.engine.deployment_ids())
        return set(self.foreign) <= there and not set(self.foreign) & set(self.deleted)


@contextlib.contextmanager
def worlds(path: Path, monkeypatch: Any) -> Iterator[Callable[..., World]]:
    """Makes worlds, each in a directory and on a clock of its own."""
    numbers = itertools.count()
    monkeypatch.setenv("REFERENCE_API_KEY", KEY)
    with _registry.using("reference", ReferenceDriver), contextlib.ExitStack() as stack:

        def make(**options: Any) -> World:
            stack.close()  # the clock of the one before
            world = World(path / str(next(numbers)), **options)
            stack.enter_context(use_clock(world.clock))
            return world

        yield make


def tenth(cases: list[Any], *, most: int | None = None, share: float = 0.1, seed: int = 1) -> list[Any]:
    """All cases with ``UNIGPU_FULL=1`` (*most* of them, seeded); else a seeded tenth."""
    wanted = len(cases) if most is None else min(most, len(cases))
    if not FULL:
        wanted = max(1, round(wanted * share))
    return cases if wanted >= len(cases) else random.Random(seed).sample(cases, wanted)


__all__ = [
    "FIELDS",
    "FULL",
    "KEY",
    "NAME",
    "Crash",
    "Generator",
    "Killer",
    "MatrixIo",
    "Script",
    "World",
    "tenth",
    "worlds",
]
