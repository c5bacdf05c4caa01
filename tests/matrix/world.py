"""A world of one account on a platform, and as many clients of it as a test wants; any of them may die.

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
import shutil
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import anyio.lowlevel
from matrix_platforms import NAME, Platform

from unigpu import AsyncClient, Client
from unigpu._client.transports import transports_of
from unigpu._io.clock import InstantClock, VirtualClock, use_clock
from unigpu._io.contract import Request, Response, StreamResponse
from unigpu._io.resilience.protection import Protection
from unigpu._io.shield import shield_async, shield_sync
from unigpu._lifecycle import IntentStore
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.errors import TransportTimeout
from unigpu.models import provider_name

FULL = os.environ.get("UNIGPU_FULL") == "1"
Hook = Callable[[str], None]
OTHER, FOREIGN = "other", "somebodys-server"
_STRANGERS: dict[str, list[list[tuple[Request, list[str]]]]] = {}
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

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[StreamResponse]:
        yield Whole(await self.send(request))

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


class Whole:
    """A reply that came as a whole, read as a stream."""

    def __init__(self, reply: Response) -> None:
        self.reply, self.status, self.headers = reply, reply.status, reply.headers

    async def chunks(self) -> AsyncGenerator[bytes]:
        yield self.reply.content

    async def read(self) -> bytes:
        return self.reply.content


class World:
    """See the module.

    Args:
        path: Where the machines' state directories are, ``a``, ``b`` …
        settings: The engine's: list lag.
    """

    of: ClassVar[weakref.WeakKeyDictionary[Any, World]] = weakref.WeakKeyDictionary()
    """Where a client is, by its context."""

    def __init__(
        self, platform: Platform, path: Path, *, seed: int = 0, virtual: bool = False, page: int = 50, **settings: Any
    ) -> None:
        self.platform = platform
        self.fields = dict(platform.fields)
        self.path = path
        self.clock: Any = (VirtualClock if virtual else InstantClock)(1000.0, epoch=1.8e9)
        self.cloud = VirtualCloud(
            clock=self.clock,
            seed=seed,
            behavior=Behavior(cold_start=2.0, duration=0.1),
            settings=EngineSettings(**settings),
        )
        self.face = platform.emulator(self.cloud.engine, platform.key[1], seed, page)
        self.cloud.mount(self.face)
        self.pending: list[tuple[float, int, Callable[[], object]]] = []
        self.order = itertools.count()
        self.clock.attach(self._act_late, lambda: self.pending[0][0] if self.pending else None)
        self.deleted: list[str] = []
        self.orphan_seconds = 0.0
        self.config = path / "unigpu.toml"
        if not self.config.exists():
            path.mkdir(parents=True, exist_ok=True)
            self.config.write_text("")
        self.foreign = self._strangers()

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

    def wired(self, cls: Any, where: str, io: Any, hook: Hook | None = None, *, namespace: str | None = None) -> Any:
        client = cls(
            self.platform.provider,
            state_dir=self.path / where,
            config=self.config,
            namespace=namespace,
            driver_options={self.platform.provider: dict(self.platform.options)},
        )

        async def close() -> None:
            """There is nothing to close."""

        context = client._context
        World.of[context] = self
        context.gate._flags = _FLAGS
        context.transports = transports_of(io, io, close, Protection.usual(), context.session.emit)
        context.io = context.transports.usual
        context._store = IntentStore(self.path / where, hook=hook)
        return client

    # -- the platform

    def act(self, request: Request) -> Response:
        if self.platform.is_delete(request.operation):
            self.deleted.append(self.platform.deleted(request))
        found = self.cloud.handle(request)
        if isinstance(found, Response):
            return found
        patience = request.deadline
        if request.read_timeout is not None:
            patience = min(patience, self.clock.now() + request.read_timeout)
        answer = self.clock.hold(found.poll, min(found.until, patience))
        if answer is None:
            if found.abandoned is not None:
                found.abandoned(self.clock.now())
            raise TransportTimeout("no answer in time", operation=request.operation)
        assert isinstance(answer, Response)
        return answer

    def later(self, seconds: float, act: Callable[[], object]) -> None:
        heapq.heappush(self.pending, (self.clock.now() + seconds, next(self.order), act))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def _act_late(self, now: float) -> None:
        while self.pending and self.pending[0][0] <= now:
            with contextlib.suppress(TransportTimeout):  # nobody waits for its answer any more
                heapq.heappop(self.pending)[2]()

    def live(self, kind: str | None = None, name: str = NAME) -> list[str]:
        """The ids of what really exists of a deployment, whatever lists show; default: of what is called."""
        kind = kind or self.platform.main
        return self.platform.existing(self, self.platform, kind, provider_name("default", name))

    def all_live(self, name: str = NAME) -> list[str]:
        return [id for kind in self.platform.kinds for id in self.live(kind, name)]

    def doubled(self, name: str = NAME) -> list[str]:
        """What exists more than once, in words."""
        return [f"doubled: {ids}" for kind in self.platform.kinds if len(ids := self.live(kind, name)) > 1]

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
        """Seconds billed of each resource of our name that ever was, by its id."""
        wanted, rows = provider_name("default", NAME), self.cloud.engine.meter.report(self.clock.now())["deployments"]
        return {id: row["billed_s"] for id, row in rows.items() if row["name"] == wanted}

    def _strangers(self) -> list[str]:
        """What others have on the account: never to be touched.

        A deployment of our name in another team's namespace, and the same under a name that is not ours at all.
        """
        if self.platform.name not in _STRANGERS:
            _STRANGERS[self.platform.name] = self._another_teams_creates()
        before = set(self.cloud.engine.deployment_ids())
        for creates, name in zip(_STRANGERS[self.platform.name], (provider_name("team-b", NAME), FOREIGN), strict=True):
            ids: dict[str, str] = {}
            for request, answer in creates:
                text = json.dumps(request.json).replace(provider_name("team-b", OTHER), name)
                for old, new in ids.items():
                    text = text.replace(old, new)
                reply = self.act(replace(request, json=json.loads(text), deadline=self.clock.now() + 60))
                assert reply.status < 300, reply
                ids.update(zip(answer, _words(reply.content), strict=False))
        self.cloud.step(self.clock.now())
        return sorted(set(self.cloud.engine.deployment_ids()) - before)

    def _another_teams_creates(self) -> list[list[tuple[Request, list[str]]]]:
        """The creates of two deploys in another namespace, each with the words of its answer; on a world of its own."""
        world = World.__new__(World)
        world.platform, world.fields, world.clock, world.path = self.platform, self.fields, self.clock, self.path
        world.config, world.deleted = self.config, []
        world.cloud = VirtualCloud(clock=self.clock, behavior=Behavior(cold_start=2.0, duration=0.1))
        world.cloud.mount(self.platform.emulator(world.cloud.engine, self.platform.key[1], 99, 50))
        made = list[list[tuple[Request, list[str]]]]()
        for name in (NAME, OTHER):
            io = Recording(world)
            client = world.wired(Client, "elsewhere", io, namespace="team-b")
            client.deploy(**{**self.fields, "name": name, "progress": "off", "timeout": 600})
            made.append([(request, _words(reply.content)) for request, reply in io.created])
        world.cloud.detach()
        shutil.rmtree(self.path / "elsewhere")
        return made

    def untouched(self) -> bool:
        """Whether everything of others is still there, and nobody tried to delete it."""
        there = set(self.cloud.engine.deployment_ids())
        return set(self.foreign) <= there and not set(self.foreign) & set(self.deleted)


class Recording(MatrixIo):
    """Keeps what was created, with its answer."""

    def __init__(self, world: World) -> None:
        super().__init__(world, sync=True, hook=None, script=None)
        self.created: list[tuple[Request, Response]] = []

    async def send(self, request: Request) -> Response:
        reply = await super().send(request)
        if self.world.platform.is_create(request.operation):
            self.created.append((request, reply))
        return reply


def _words(content: bytes) -> list[str]:
    """The texts and numbers of a reply, in their order: what one create answered stands where another's did."""
    out: list[str] = []

    def walk(value: Any) -> None:
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            walk(inner)
        if isinstance(value, str | int) and len(str(value)) > 3:
            out.append(str(value))

    walk(json.loads(content or b"null"))
    return out


@contextlib.contextmanager
def worlds(platform: Platform, path: Path, monkeypatch: Any) -> Iterator[Callable[..., World]]:
    """Makes worlds, each in a directory and on a clock of its own."""
    numbers = itertools.count()
    monkeypatch.setenv(*platform.key)
    with platform.entered(), contextlib.ExitStack() as stack:

        def make(**options: Any) -> World:
            stack.close()  # the clock of the one before
            world = World(platform, path / str(next(numbers)), **options)
            stack.enter_context(use_clock(world.clock))
            return world

        yield make


def tenth(
    cases: list[Any], *, most: int | None = None, share: float = 0.1, seed: int = 1, whole: float = 1.0
) -> list[Any]:
    """All cases with ``UNIGPU_FULL=1`` (*most* of them, seeded, and of these *whole*); else a seeded tenth."""
    wanted = len(cases) if most is None else min(most, len(cases))
    wanted = max(1, round(wanted * whole * (1.0 if FULL else share)))
    return cases if wanted >= len(cases) else random.Random(seed).sample(cases, wanted)


__all__ = [
    "FULL",
    "NAME",
    "Crash",
    "Killer",
    "MatrixIo",
    "Script",
    "World",
    "tenth",
    "worlds",
]
