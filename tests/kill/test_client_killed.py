"""``kill -9`` of the client, at each step of deploy and teardown and at random times: nothing lost, nothing doubled."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from kill_support import FULL, tenth, until

pytestmark = [pytest.mark.kill, pytest.mark.processes]

RANDOM_KILLS = 20 if FULL else 3
OPERATIONS = {"deploy": ["deploy"], "teardown": ["deploy", "teardown"]}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_client_killed_at_any_step_leaves_nothing_after_the_next_deploy_and_teardown(
    operation: str, homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    verbs = OPERATIONS[operation]
    dry = homes()
    process = dry.start(*verbs, counted=operation)
    assert process.wait() == 0, process.said()
    points: list[str] = process.heard("steps")
    assert len(points) >= 10
    dry.recover("nobody was killed")
    killed = 0
    for at in tenth(list(range(len(points))), dice):
        home = homes()
        process = home.start(*verbs, counted=operation, at=at)
        status = process.wait()
        assert status in (-9, 0), process.said()  # 0: this run had fewer polls, and was over before
        killed += status == -9
        home.recover(f"{operation}, killed {points[at]} ({at})")
    assert killed >= (len(points) * 0.8 if FULL else 1)
    print(f"{operation}: {len(points)} steps, {killed} killed: {points}")
    counts.check(deploys=2 * killed)


def test_a_client_killed_at_a_random_time_leaves_nothing_after_the_next_deploy_and_teardown(
    homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    verbs = ["deploy", "invoke", "scale", "teardown"]
    dry = homes()
    began = time.monotonic()
    assert dry.start(*verbs).wait() == 0
    whole = time.monotonic() - began
    dry.leaks("nobody was killed")
    killed = 0
    for number in range(RANDOM_KILLS):
        home = homes()
        after = dice.uniform(0, whole)
        process = home.start(*verbs)
        time.sleep(after)  # the time of the kill, not a wait for anything
        process.kill()
        killed += process.wait() == -9
        home.recover(f"kill {number} after {after:.3f} s of {whole:.3f}")
    print(f"{killed} of {RANDOM_KILLS} killed before they were done")
    counts.check(deploys=2 * RANDOM_KILLS)


def test_what_a_killed_client_had_deployed_as_ephemeral_is_gone_after_its_ttl(
    homes: Callable[..., Any], counts: Any, dice: random.Random
) -> None:
    """Nobody comes back to it: the supervisor ends it, and then itself."""
    points = ["?"] * 24  # that many in any run; where the matrix is not run whole, they need not be counted first
    if FULL:
        dry = homes()
        spec = dry.spec(ephemeral=True, ttl=600)
        process = dry.start("deploy", "teardown", deploy=spec, counted="deploy")
        assert process.wait() == 0, process.said()
        points = process.heard("steps")
    cases = []
    for at in tenth(list(range(len(points))), dice):
        home = homes()
        # Long enough to deploy in on a busy machine; where it was not, it must be gone all the same.
        process = home.start("deploy", deploy=home.spec(ephemeral=True, ttl=3), counted="deploy", at=at)
        process.wait()
        cases.append(home)
    for home in cases:  # side by side: each supervisor ends ten seconds after it has nothing
        until(lambda home=home: "worker" not in home.processes().values(), "its worker ended")
        if FULL:
            until(lambda home=home: not home.processes() and not home.is_locked(), "the supervisor ended")
        else:
            with home.client() as client:
                until(lambda client=client: not list(client.deployments()), "nothing is deployed")
        home.recover("after the ttl", name="another")
    counts.check(deploys=len(cases))
