"""Processes that race on one name: they get one deployment, and nothing is left of it."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kill_support import APP, FULL, until

pytestmark = [pytest.mark.kill, pytest.mark.processes]

ROUNDS = 20 if FULL else 2


def race(home: Any, jobs: list[dict[str, Any]]) -> list[Any]:
    """Start a client for each job; all begin at once, when all are there."""
    gate = home.path / "gate"
    with gate.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        racers = [home.start(*job.pop("verbs"), gate=str(gate), **job) for job in jobs]
        for racer in racers:
            until(lambda racer=racer: racer.heard("begun"), "a racer is there")
    for racer in racers:
        racer.wait()
    return racers


@pytest.mark.parametrize("racers", [2, 4])
def test_processes_that_deploy_one_name_at_once_get_one_working_deployment(
    racers: int, homes: Callable[..., Any], counts: Any
) -> None:
    home = homes()
    for number in range(ROUNDS):
        ran = race(home, [{"verbs": ["deploy", "invoke"], "input": {"racer": i}} for i in range(racers)])
        told = f"round {number} of {racers}"
        for i, one in enumerate(ran):
            assert one.heard("output")["got"] == {"racer": i}, (told, one.said())
        attempts = {one.heard("attempt") for one in ran}
        created = [one.heard("change") for one in ran].count("created")
        if len(attempts) != 1 or created != 1:
            counts.double(f"{told}: {len(attempts)} attempts, {created} created")
        with home.client() as client:
            home.look(client, "one", told)
            client.teardown("one")
        home.leaks(told)
    print(f"{ROUNDS} rounds of {racers} racers")
    counts.check(deploys=ROUNDS * racers)


def test_of_processes_with_different_code_for_one_name_exactly_one_wins(homes: Callable[..., Any], counts: Any) -> None:
    home = homes()
    handlers: list[str] = []
    for number in range(2):
        other: Path = home.path / f"project-{number}"
        other.mkdir()
        (other / "app.py").write_text(APP)
        handlers.append(f"{other / 'app.py'}:echo")
    for number in range(ROUNDS):
        jobs = [{"verbs": ["deploy", "invoke"], "deploy": home.spec(handler=one)} for one in handlers]
        ran = race(home, jobs)
        told = f"round {number}"
        ends = sorted(one.heard("error") or one.heard("change") for one in ran)
        assert ends == ["NameConflict", "created"], (told, [one.said() for one in ran])
        with home.client() as client:
            home.look(client, "one", told)
            client.teardown("one")
        home.leaks(told)
    counts.check(deploys=ROUNDS * 2)


def test_a_teardown_that_races_a_deploy_leaves_it_whole_or_gone(homes: Callable[..., Any], counts: Any) -> None:
    """Whoever is last decides; nothing in between stays."""
    home = homes()
    for number in range(ROUNDS):
        told = f"round {number}"
        first = home.start("deploy")
        assert first.wait() == 0, first.said()
        ran = race(home, [{"verbs": ["deploy"], "flavour": "asyncio"}, {"verbs": ["teardown"]}])
        for one in ran:
            assert one.heard("error") in (None, "DeploymentGone", "NotFoundError"), (told, one.said())
        home.recover(told)
    counts.check(deploys=ROUNDS * 3)
