"""Ways to the cloud in memory: `Io`s that crash, interrupt, yield or lose answers where told; and a world of them."""

from __future__ import annotations

import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import coroutine
from typing import Any

import anyio.lowlevel
from lifecycle_cloud import BASE, FakeCloud, Fault, Job, Row
from lifecycle_driver import FakeDriver, FakeResource, HeldDriver

from unigpu._io.clock import InstantClock, VirtualClock
from unigpu._io.contract import Request, Response, StreamResponse
from unigpu._io.shield import shield_async, shield_sync
from unigpu._lifecycle import CallOptions, IntentStore, Scope
from unigpu.driver import (
    DeploymentSpec,
)
from unigpu.models import Event, Progress

__all__ = [
    "BASE",
    "Crash",
    "FakeCloud",
    "FakeDriver",
    "FakeIo",
    "FakeResource",
    "Fault",
    "HeldDriver",
    "Job",
    "Killer",
    "Row",
    "SteppedIo",
    "World",
    "options",
    "sample",
    "spec",
]


class Crash(BaseException):
    """The process is killed here: nothing after it has any effect."""


class FakeIo:
    """*hook* is called before and after every call, with ``"before create"`` and the like."""

    def __init__(
        self, cloud: FakeCloud, *, sync: bool = True, hook: Callable[[str], None] | None = None, rolls: float = 0.5
    ) -> None:
        self.cloud, self.sync, self.hook, self.rolls = cloud, sync, hook, rolls
        self.shields = 0

    def point(self, name: str) -> None:
        if self.hook is not None:
            self.hook(name)

    async def turn(self) -> None:
        if not self.sync:
            await anyio.lowlevel.checkpoint()

    async def send(self, request: Request) -> Response:
        name = request.operation.removeprefix("fake.")
        self.point(f"before {name}")
        await self.turn()
        reply = self.cloud.handle(request)
        await self.turn()
        self.point(f"after {name}")
        return reply

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        raise AssertionError("not used")

    async def sleep(self, seconds: float) -> None:
        self.point("sleep")
        if self.sync:
            self.cloud.clock.sleep(seconds)
        else:
            await self.cloud.clock.asleep(seconds)

    def now(self) -> float:
        return float(self.cloud.clock.now())

    def wall(self) -> float:
        return float(self.cloud.clock.wall())

    def random(self) -> float:
        return self.rolls

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        self.shields += 1
        return await (shield_sync if self.sync else shield_async)(work, seconds=seconds)


@coroutine
def _yield(what: str) -> Iterator[str]:
    yield what


class SteppedIo(FakeIo):
    """Yields before and after every call, so that a test decides whose turn it is."""

    async def send(self, request: Request) -> Response:
        name = request.operation.removeprefix("fake.")
        await _yield(f"before {name}")
        reply = self.cloud.handle(request)
        await _yield(f"after {name}")
        return reply

    async def sleep(self, seconds: float) -> None:
        await _yield("sleep")
        self.cloud.clock.sleep(seconds)

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        return await work()


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


class World:
    """One cloud, and as many clients (scopes) of it as a test wants."""

    def __init__(
        self, state_dir: Path | None, *, kinds: Sequence[str] = ("deployment",), virtual: bool = False
    ) -> None:
        self.clock = VirtualClock(1000.0, epoch=1.8e9) if virtual else InstantClock(1000.0, epoch=1.8e9)
        self.cloud = FakeCloud(self.clock, kinds=kinds)
        self.state_dir = state_dir
        self.events: list[Event] = []
        self.progress: list[Progress] = []

    def scope(
        self,
        *,
        sync: bool = True,
        hook: Callable[[str], None] | None = None,
        io: FakeIo | None = None,
        state_dir: Path | None = None,
        driver: FakeDriver | None = None,
        namespace: str = "default",
        stateless: bool = False,
        **more: Any,
    ) -> Scope:
        driver = driver or FakeDriver()
        driver.kinds = self.cloud.kinds
        where = state_dir or self.state_dir
        return Scope(
            io=io or FakeIo(self.cloud, sync=sync, hook=hook),
            driver=driver,
            namespace=namespace,
            store=None if stateless or where is None else IntentStore(where, hook=hook),
            base=BASE,
            emit=self.events.append,
            progress=self.progress.append,
            expected=(5.0, 30.0),
            **more,
        )

    def intents(self, state_dir: Path | None = None) -> list[str]:
        """Every intent and lock that is left; what a killed write left is swept by the next deploy."""
        where = (state_dir or self.state_dir or Path("/nonexistent")) / "intents"
        return sorted(p.name for p in where.iterdir() if ".tmp-" not in p.name) if where.is_dir() else []

    @property
    def rows(self) -> list[tuple[str, str]]:
        return [key for key in list(self.cloud.rows) if self.cloud.row(*key)]


def spec(**fields: Any) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"name": "summarize", "handler": "app:summarize", **fields})


def options(**fields: Any) -> CallOptions:
    return CallOptions(**{"start_timeout": 60.0, "timeout": None, "execution_timeout": 100.0, **fields})


FULL = os.environ.get("UNIGPU_FULL") == "1"


def sample(cases: Sequence[Any], *, least: int = 60) -> list[Any]:
    """All of a matrix with ``UNIGPU_FULL=1``; else a seeded tenth, but not below *least*."""
    if FULL or len(cases) <= least:
        return list(cases)
    return random.Random(len(cases)).sample(list(cases), max(least, len(cases) // 10))
