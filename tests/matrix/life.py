"""The life that is disturbed, how a world is put right afterwards, and the count of it all."""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from matrix_platforms import NAME, Platform
from matrix_world import Crash, World

from unigpu._io.bridge import run_sync
from unigpu.errors import NotFoundError, UniGPUError
from unigpu.testing._conformance.flavors import Plain

Workflow = Callable[[Any], Awaitable[Any]]
ENDS = (UniGPUError, Crash)
"""All that a disturbed life may end in, beside a result."""
SWEEPS = 200.0
"""Seconds after which every look that a deploy owes is due."""


async def whole_life(client: Any) -> str:
    """Every verb once."""
    one = await client.deploy(wait="worker", progress="off", timeout=600, **fields(client))
    assert await call(client, one, {"n": 1}, timeout=300) == {"n": 1}
    await world_of(client).platform.changed(client, one)
    await client.teardown(one, timeout=300)
    return "done"


async def long_life(client: Any) -> str:
    """The same, ended only after every look that its deploy owes was due, and paid by a call."""
    one = await client.deploy(wait="worker", progress="off", timeout=600, **fields(client))
    await call(client, one, {"n": 1}, timeout=300)
    await _io(client).sleep(SWEEPS)
    await world_of(client).platform.changed(client, one)
    await client.teardown(one, timeout=300)
    return "done"


def _io(client: Any) -> Any:
    """The way out of a client, below its retries."""
    return getattr(client, "_thing", client)._context.io


def world_of(client: Any) -> World:
    """Where a client is."""
    return World.of[getattr(client, "_thing", client)._context]


async def call(client: Any, one: Any, value: dict[str, Any], *, timeout: float | None = None) -> Any:
    """Call it as this platform is called; what came back."""
    return await world_of(client).platform.call(client, one, value, timeout)


def fields(client: Any, **more: Any) -> dict[str, Any]:
    """What is deployed where this client is."""
    return {**world_of(client).fields, **more}


async def only_deploy(client: Any) -> Any:
    return await client.deploy(progress="off", timeout=600, **fields(client))


async def clean(client: Any) -> Any:
    """gc, told to delete."""
    return await client.gc(provider=world_of(client).platform.provider, delete=True)


def run(world: World, workflow: Workflow, *, flavour: str = "sync", where: str = "a", **how: Any) -> Any:
    """What *workflow* ends in on a new client: its result, or the error or death that it may end in."""
    try:
        if flavour == "sync":
            client = world.client(where, **how)
            return run_sync(_plain(workflow, client))

        async def main() -> Any:
            async with world.client(where, sync=False, **how) as client:
                return await workflow(client)

        return asyncio.run(main()) if flavour == "asyncio" else trio.run(main)
    except ENDS as exc:
        return exc


async def _plain(workflow: Workflow, client: Any) -> Any:
    return await workflow(Plain(client))


def put_right(world: World, way: str, ended: Any = None) -> list[str]:
    """After whatever happened: a new client, the last look paid, and gc. Returns what is wrong then.

    Args:
        way: ``"again"``: the same machine deploys again; ``"elsewhere"``: another one does, and the first one comes
            back for its gc; ``"gc"``: nobody deploys again, only gc and an end by name.
        ended: How the life ended: one that came to its end leaves nothing for an end by name.
    """
    wrong = list[str]()
    here = "b" if way == "elsewhere" else "a"
    if way != "gc":
        given_up = here == "b" and "failed" in world.intent_states("a")
        deployed = must(world, again, here)
        pay_all(world)
        if given_up and deployed.change != "created" and deployed.id not in world.live():
            # What one machine had given up, and told so, another one reused: gc of the first keeps its word.
            deployed = must(world, again, here)
            pay_all(world)
        wrong += world.doubled()
        if world.live() != [deployed.id] and must(world, lambda c: c.get(NAME), here).id not in world.live():
            wrong.append(f"lost: {deployed.id} is not {world.live()}")
        output = must(world, lambda c: call(c, NAME, {"n": 2}), here)
        if output != {"n": 2}:
            wrong.append(f"an answer of another: {output}")
    else:
        pay_all(world)
        if ended == "done" and world.all_live():
            wrong.append(f"leaked after its end: {world.all_live()}")
        wrong += world.doubled()
    with contextlib.suppress(NotFoundError):
        must(world, lambda c: c.teardown(NAME, timeout=1200), here)
    pay_all(world)
    if world.all_live():
        wrong.append(f"leaked: {world.all_live()}")
    for where in world.machines():
        if world.intents(where):
            wrong.append(f"intents left on {where}: {world.intents(where)}")
    if not world.untouched():
        wrong.append("what belongs to others was touched")
    return wrong


async def again(client: Any) -> Any:
    """The same deploy, with every look paid before it returns."""
    return await client.deploy(progress="off", settle=True, timeout=3600, **fields(client))


def pay_all(world: World) -> None:
    """Every look is due by now; each machine that ever deployed pays its own, by gc."""
    world.advance(SWEEPS)
    for where in world.machines():
        must(world, clean, where)


def must(world: World, act: Callable[[Any], Awaitable[Any]], where: str) -> Any:
    """On a platform without any fault, what is asked happens."""

    async def workflow(client: Any) -> Any:
        return await act(client)

    return run_sync(_plain(workflow, world.client(where)))


class Tally:
    """Counts, and the cases that went wrong; printed at the end."""

    def __init__(self) -> None:
        self.cases: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.leaked = self.doubled = self.other = 0
        self.wrong: list[str] = []

    def case(self, group: str, told: str, ended: Any, check: Callable[[], list[str]]) -> None:
        """One case: how it ended, and what is wrong after it was put right."""
        self.cases[group] += 1
        self.ends[type(ended).__name__ if isinstance(ended, BaseException) else "a result"] += 1
        try:
            wrong = check()
        except Exception as exc:
            where = traceback.extract_tb(exc.__traceback__)[-1]
            at = f"{where.filename.rpartition('/')[2]}:{where.lineno}"
            wrong = [f"putting it right failed: {type(exc).__name__}: {exc} ({at})"]
        self.leaked += any("leaked" in one for one in wrong)
        self.doubled += any("doubled" in one for one in wrong)
        self.other += bool(wrong) and not any("leaked" in one or "doubled" in one for one in wrong)
        self.wrong += [f"{told} -> {self.ended(ended)}: {one}" for one in wrong]

    @staticmethod
    def ended(ended: Any) -> str:
        return type(ended).__name__ if isinstance(ended, BaseException) else "a result"

    def __str__(self) -> str:
        total = sum(self.cases.values())
        return f"{total} cases, {self.leaked} leaked, {self.doubled} doubled, {self.other} wrong otherwise"

    def finish(self, record: Callable[[str, Any], None], name: str, platform: Platform) -> None:
        """Hand the counts to the table at the end of the run, and fail with the first cases that went wrong."""
        record(
            "unigpu matrix",
            (f"{platform.name}: {name}", dict(self.cases), dict(self.ends), self.leaked, self.doubled, self.other),
        )
        assert not self.wrong, f"{self}\n" + "\n".join(self.wrong[:25])
