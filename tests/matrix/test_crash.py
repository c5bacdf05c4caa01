"""A process that dies at any call, sleep or write leaves nothing that the next one does not put right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matrix_life import Tally, put_right, run, whole_life
from matrix_platforms import Platform
from matrix_world import FULL, Crash, Killer, World, tenth

WAYS = ("again", "elsewhere", "gc")

pytestmark = [pytest.mark.full] if FULL else []


@pytest.mark.parametrize("lag", [0.0, 4.0], ids=["prompt lists", "late lists"])
@pytest.mark.parametrize("way", WAYS)
def test_a_crash_at_any_point_of_a_life(
    make: Callable[..., World], platform: Platform, way: str, lag: float, record_property: Callable[[str, Any], None]
) -> None:
    killer = Killer(None)
    assert run(make(list_lag=lag), whole_life, hook=killer) == "done"
    assert len(killer.points) > 60
    tally = Tally()
    for at in tenth(list(range(len(killer.points))), share=0.25):
        world = make(list_lag=lag)
        ended = run(world, whole_life, hook=Killer(at))
        assert isinstance(ended, Crash)
        tally.case("crash", f"killed at {killer.points[at]} ({at})", ended, lambda world=world: put_right(world, way))
    tally.finish(record_property, f"crash, {way}, lag {lag:g} s", platform)


@pytest.mark.parametrize("way", WAYS)
def test_a_crash_while_a_crash_is_put_right(
    make: Callable[..., World], platform: Platform, way: str, record_property: Callable[[str, Any], None]
) -> None:
    """The next process, on this machine or another, dies too."""
    cases = [(at, then, where) for at in range(2, 24, 2) for then in range(2, 60, 4) for where in "ab"]
    tally = Tally()
    for at, then, where in tenth(cases, most=300, whole=platform.share):
        world = make(list_lag=4.0 if at % 4 else 0.0)
        assert isinstance(run(world, whole_life, hook=Killer(at)), Crash)
        ended = run(world, whole_life, hook=Killer(then), where=where)
        told = f"killed at {at}, then on {where} at {then}"
        tally.case("two crashes", told, ended, lambda world=world: put_right(world, way))
    tally.finish(record_property, f"two crashes, {way}", platform)
