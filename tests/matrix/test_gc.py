"""gc under faults: it deletes nothing it may not, nothing at all when a list failed, and the next one finishes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from matrix_faults import BY_NAME, KINDS
from matrix_life import SWEEPS, Tally, clean, fields, must, only_deploy, pay_all, run
from matrix_platforms import NAME, Platform
from matrix_world import FULL, Crash, Killer, Script, World, tenth

from unigpu.errors import NotFoundError

pytestmark = [pytest.mark.full] if FULL else []


def messy(make: Callable[..., World], n: int) -> World:
    """What dead deploys left, whole and twice, and half; one that has expired; a healthy one of another machine."""
    world = make(list_lag=(0.0, 4.0)[n % 2])
    creates = world.platform.creates
    twice = Script((creates[-1], 0, BY_NAME["duplicate, first told"]))
    assert isinstance(run(world, only_deploy, hook=DiesAfter(creates[-1]), script=twice), Crash)
    assert world.live()
    if len(creates) > 1:
        assert isinstance(run(world, named("half"), hook=DiesAfter(creates[0])), Crash)
        assert world.all_live("half")
        assert not world.live(name="half")
    assert run(world, named("brief", ttl=60)).name == "brief"
    assert run(world, named("healthy"), where="b").name == "healthy"
    world.advance(SWEEPS)
    return world


class DiesAfter:
    """The process dies as soon as the platform has done this."""

    def __init__(self, operation: str) -> None:
        self.point, self.dead = f"after {operation}", False

    def __call__(self, name: str) -> None:
        self.dead = self.dead or name == self.point
        if self.dead:
            raise Crash(name)


def named(name: str, **more: Any) -> Callable[[Any], Any]:
    return lambda client: client.deploy(progress="off", timeout=600, **fields(client, name=name, **more))


def wrong_after(world: World) -> list[str]:
    """Once gc has run to its end: what is whole is shown and stays, until it is ended by its name."""
    pay_all(world)
    ended = [one for name in ("half", "brief") for one in world.all_live(name)]
    wrong = [f"leaked: {ended}"] if ended else []
    wrong += world.doubled()
    with contextlib.suppress(NotFoundError):
        must(world, lambda client: client.teardown(NAME, timeout=1200), "a")
    pay_all(world)
    if world.all_live():
        wrong.append(f"leaked: {world.all_live()}")
    if any(len(world.live(kind, "healthy")) != 1 for kind in world.platform.kinds):
        wrong.append("another machine's healthy deployment was ended")
    if not world.untouched():
        wrong.append("what belongs to others was touched")
    if len(world.intents("a")) + len(world.intents("b")) != 1:
        wrong.append(f"intents left: {world.intents('a')} {world.intents('b')}")
    return wrong


def test_a_fault_at_any_call_of_gc(
    make: Callable[..., World], platform: Platform, record_property: Callable[[str, Any], None]
) -> None:
    script = Script()
    assert not isinstance(run(messy(make, 0), clean, script=script), BaseException)
    calls = [(operation, at) for operation, at in script.calls if at < 3]
    cases = [(*call, kind) for call in calls for kind in KINDS if kind.fits(platform, call[0])]
    tally = Tally()
    for n, (operation, at, kind) in enumerate(tenth(cases, most=400, whole=platform.share)):
        world = messy(make, n)
        before = list(world.deleted)
        ended = run(world, clean, script=Script((operation, at, kind)))

        def check(
            world: World = world, before: list[str] = before, ended: Any = ended, op: str = operation
        ) -> list[str]:
            wrong = list[str]()
            if platform.is_list(op) and isinstance(ended, BaseException) and world.deleted != before:
                wrong.append("something was deleted although a list failed")
            return wrong + wrong_after(world)

        tally.case(f"gc: {kind.name}", f"{kind.name} at {operation} {at} of gc", ended, check)
    tally.finish(record_property, "a fault in gc", platform)


def test_a_crash_at_any_point_of_gc(
    make: Callable[..., World], platform: Platform, record_property: Callable[[str, Any], None]
) -> None:
    killer = Killer(None)
    assert not isinstance(run(messy(make, 0), clean, hook=killer), BaseException)
    tally = Tally()
    for at in tenth(list(range(len(killer.points))), share=0.3):
        world = messy(make, at)
        ended = run(world, clean, hook=Killer(at))
        tally.case(
            "gc: crash", f"gc killed at {killer.points[at]} ({at})", ended, lambda world=world: wrong_after(world)
        )
    tally.finish(record_property, "a crash in gc", platform)
