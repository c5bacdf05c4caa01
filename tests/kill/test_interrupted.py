"""Ctrl-C and cancellation of a deploy on real processes: what it made is undone, and the process ends."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from kill_support import FULL, tenth, until

pytestmark = [pytest.mark.kill, pytest.mark.processes]

FLAVOURS = ["sync", "asyncio", "trio"]
RANDOM_PRESSES = 5 if FULL else 1


def undone(home: Any, told: str) -> None:
    """Nothing of the deploy is left, before anybody comes back to it."""
    with home.client() as client:
        rows = [one.name for one in client.deployments()]
    if rows:
        home.counts.leak(f"{told}: {rows} still deployed")
    until(lambda: "worker" not in home.processes().values(), f"{told}: its worker ended")
    if home.intents():
        home.counts.leak(f"{told}: {home.intents()}")


def steps_of(homes: Callable[..., Any], flavour: str) -> list[str]:
    """The steps of a deploy by their names; where the matrix is not run whole, they are only counted, and fewer."""
    if not FULL:
        return ["?"] * 20
    home = homes()
    process = home.start("deploy", "teardown", counted="deploy", flavour=flavour)
    assert process.wait() == 0, process.said()
    home.leaks("nobody pressed anything")
    points: list[str] = process.heard("steps")
    assert len(points) > 20
    return points


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ctrl_c_at_any_step_of_a_deploy_undoes_it_and_ends_the_process(
    flavour: str, homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    points = steps_of(homes, flavour)
    pressed = 0
    for at in tenth(list(range(len(points))), dice, most=1):
        home = homes()
        told = f"{flavour}: Ctrl-C {points[at]} ({at})"
        process = home.start("deploy", counted="deploy", flavour=flavour, at=at, act="interrupt")
        status = process.wait()
        assert status in (0, 130), process.said()  # 0: it was over before
        if status == 130:
            pressed += 1
            assert process.heard("error") == "KeyboardInterrupt"
            undone(home, told)
        home.recover(told)
    print(f"{flavour}: {len(points)} steps, {pressed} pressed")
    assert pressed
    counts.check(deploys=2 * pressed)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_ctrl_c_from_outside_at_a_random_time_leaves_the_deployment_whole_or_undone(
    flavour: str, homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    for number in range(RANDOM_PRESSES):
        home = homes()
        after = dice.uniform(0, 0.6)
        told = f"{flavour}: press {number} after {after:.3f} s"
        process = home.start("deploy", flavour=flavour)
        until(lambda process=process: process.heard("begun"), "its client is made")
        time.sleep(after)  # the time of the press, not a wait for anything
        process.kill(signal.SIGINT)
        status = process.wait()
        assert status in (0, 130, -signal.SIGINT), process.said()
        if process.heard("change") is None:
            assert status != 0
            undone(home, told)
        home.recover(told)
    counts.check(deploys=2 * RANDOM_PRESSES)


@pytest.mark.parametrize("flavour", ["asyncio", "trio"])
def test_a_deploy_that_is_cancelled_at_any_step_is_undone(
    flavour: str, homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    points = steps_of(homes, flavour)
    cancelled = 0
    for at in tenth(list(range(len(points))), dice, most=1):
        home = homes()
        told = f"{flavour}: cancelled {points[at]} ({at})"
        process = home.start("deploy", counted="deploy", flavour=flavour, at=at, act="cancel")
        status = process.wait()
        if status:
            cancelled += 1
            assert process.heard("error") == "CancelledError", process.said()
            undone(home, told)
        home.recover(told)
    print(f"{flavour}: {len(points)} steps, {cancelled} cancelled")
    assert cancelled
    counts.check(deploys=2 * cancelled)
