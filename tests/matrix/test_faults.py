"""Every kind of fault at every call of a life, sync and async; then pairs of faults within one deploy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matrix_faults import FEW, KINDS
from matrix_life import Tally, long_life, only_deploy, put_right, run, whole_life
from matrix_platforms import Platform
from matrix_world import FULL, Crash, Killer, Script, World, tenth

Make = Callable[..., World]
Record = Callable[[str, Any], None]
pytestmark = [pytest.mark.full] if FULL else []
SHARDS = range(4)
PAIR_SHARDS = SHARDS if FULL else range(1)  # each has to find all pairs first, which takes longer than a tenth of them
WAYS = ("again", "elsewhere", "gc")
LAGS = (0.0, 4.0)


def calls_of(make: Make, workflow: Any, *, most: int = 2, **settings: Any) -> list[tuple[str, int]]:
    """The calls of an undisturbed run: of each operation the first *most*."""
    script = Script()
    assert not isinstance(run(make(**settings), workflow, script=script), BaseException)
    return [(operation, at) for operation, at in script.calls if at < most]


@pytest.mark.parametrize("shard", SHARDS)
@pytest.mark.parametrize("flavour", ["sync", "asyncio"])
def test_one_fault_anywhere_in_a_life(
    make: Make, platform: Platform, flavour: str, shard: int, record_property: Record
) -> None:
    cases = [
        (operation, at, kind)
        for operation, at in calls_of(make, whole_life)
        for kind in KINDS
        if kind.fits(platform, operation)
    ]
    tally = Tally()
    for n, (operation, at, kind) in list(enumerate(tenth(cases, whole=1.0 if flavour == "sync" else platform.share)))[
        shard :: len(SHARDS)
    ]:
        world = make(list_lag=LAGS[n // 4 % 2], page=(50, 1)[n // 8 % 2])
        script = Script((operation, at, kind))
        way = WAYS[n % 3]
        life = (whole_life, long_life)[n // 16 % 2]
        ended = run(world, life, flavour=flavour, script=script)
        told = f"{kind.name} at {operation} {at}, {way}, {flavour}, lag {world.cloud.engine.settings.list_lag}"
        tally.case(kind.name, told, ended, lambda world=world, way=way, ended=ended: put_right(world, way, ended))
    tally.finish(record_property, f"one fault, {flavour}", platform)


@pytest.mark.parametrize("shard", PAIR_SHARDS)
def test_two_faults_within_one_deploy(make: Make, platform: Platform, shard: int, record_property: Record) -> None:
    """Ordered pairs: the second strikes any call that a deploy makes after the first, repetitions and looks too."""
    tally = Tally()
    cases = tenth(pairs_of(make, platform), most=platform.pairs, share=0.08)
    for n, (lag, first, one, gap, two) in list(enumerate(cases))[shard :: len(PAIR_SHARDS)]:
        world, way = make(list_lag=lag), WAYS[n % 3]
        script = Pair(platform, first, one, gap, two)
        ended = run(world, only_deploy, script=script)
        assert len(script.struck) == 2, "a pair is two faults"
        told = f"{one.name} at {first[0]} {first[1]}, then {two.name} {gap} later ({' '.join(script.struck)}), {way}"
        tally.case(f"{one.name} + …", told, ended, lambda world=world, way=way: put_right(world, way))
    tally.finish(record_property, "two faults in one deploy", platform)


def pairs_of(make: Make, platform: Platform) -> list[tuple[float, tuple[str, int], Any, int, Any]]:
    """Every ordered pair; for one half of the first faults lists are prompt, for the other late, as a chessboard."""
    found = list[tuple[float, tuple[str, int], Any, int, Any]]()
    for row, first in enumerate(calls_of(make, only_deploy)):
        for column, one in enumerate(kind for kind in FEW if kind.fits(platform, first[0])):
            lag, script = LAGS[(row + column) % 2], Script((*first, one))
            run(make(list_lag=lag), only_deploy, script=script)
            after = script.calls[script.calls.index(first) + 1 :]
            found += [
                (lag, first, one, gap, two)
                for gap, (operation, _) in enumerate(after, 1)
                for two in FEW
                if two.fits(platform, operation)
            ]
    return found


@pytest.mark.parametrize("shard", SHARDS)
def test_a_fault_and_then_a_crash_within_one_deploy(
    make: Make, platform: Platform, shard: int, record_property: Record
) -> None:
    """The process dies while it deals with the fault."""
    tally = Tally()
    plans = [(*first, one) for first in calls_of(make, only_deploy) for one in FEW if one.fits(platform, first[0])]
    cases = [(plan, at) for plan in plans for at in range(2, 60, 3)]
    for n, (plan, at) in list(enumerate(tenth(cases, most=1200, whole=platform.share)))[shard :: len(SHARDS)]:
        world, way = make(list_lag=LAGS[n // 4 % 2]), WAYS[n % 3]
        killer = Killer(at)
        ended = run(world, only_deploy, script=Script(plan), hook=killer)
        told = f"{plan[2].name} at {plan[0]} {plan[1]}, killed at {killer.points[-1]} ({at}), {way}"
        group = "a fault, then a crash" if isinstance(ended, Crash) else "a fault, ended before the crash"
        tally.case(group, told, ended, lambda world=world, way=way: put_right(world, way))
    tally.finish(record_property, "a fault, then a crash", platform)


class Pair(Script):
    """The second fault strikes the call that comes *gap* after the first one, whatever it is by then."""

    def __init__(self, platform: Platform, first: tuple[str, int], one: Any, gap: int, two: Any) -> None:
        super().__init__((*first, one))
        self.platform, self.gap, self.two = platform, gap, two

    def next(self, operation: str) -> Any:
        before = len(self.struck)
        kind = super().next(operation)
        if before == 1:
            self.gap -= 1
            if self.gap == 0 and self.two.fits(self.platform, operation):
                self.struck.append(f"{self.two.name} at {operation}")
                return self.two
        return kind
