"""An expired worker on a platform that replaces the dead: why it drains and stays, and who ends the bill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_listed import FIELDS, ListedWorld

from unigpu import _registry
from unigpu._io.clock import InstantClock
from unigpu.emulator.simulation.virtual_cloud import Behavior
from unigpu.testing.reference import ReferenceDriver

TTL = 60.0
COLD_START = 30.0
HOUR = 3600.0


@pytest.fixture
def world(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListedWorld]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    with _registry.using("reference", ReferenceDriver):
        made = ListedWorld(tmp_path, instant, backoff=1.0, backoff_most=5.0, stable_after=0.0)
        made.cloud.simulation._behavior_of = lambda _: Behavior(cold_start=COLD_START)
        yield made


def bill(world: ListedWorld) -> Any:
    (row,) = [
        row
        for row in world.cloud.engine.meter.report(world.clock.now())["deployments"].values()
        if row["workers_started"]
    ]
    return row


def ready(world: ListedWorld, endpoint: str) -> list[str]:
    return [worker.id for worker in world.cloud.engine.workers(endpoint) if worker.state.is_ready]


def an_hour_after_the_end(world: ListedWorld, *, exits: bool) -> Any:
    """One warm worker with a ttl, and no client that runs. *exits*: an expired worker ends its process."""
    with world.client() as client:
        endpoint = client.deploy(progress="off", **{**FIELDS, "workers": (1, 1), "ttl": TTL}).id
    world.clock.advance(TTL)
    before = bill(world)["billed_s"]
    until = world.clock.now() + HOUR
    while world.clock.now() < until:
        for worker in ready(world, endpoint) if exits else ():
            world.cloud.crash(worker, reason="its ttl has passed")
        world.clock.advance(1.0)
    row = bill(world)
    return row["billed_s"] - before, row["workers_started"]


def test_a_worker_that_exits_when_it_expires_is_a_paid_crash_loop(world: ListedWorld) -> None:
    billed, started = an_hour_after_the_end(world, exits=True)
    assert started > 50  # each is started, loads the model, sees that it has expired, and exits
    assert billed > 0.8 * HOUR  # and each of them is paid for: exiting saves next to nothing


def test_one_that_stays_costs_as_much_without_the_churn_until_a_client_ends_it(world: ListedWorld) -> None:
    billed, started = an_hour_after_the_end(world, exits=False)
    assert started == 1
    assert billed == pytest.approx(HOUR, rel=0.01)
    with world.client() as client:
        client.deployments(provider="reference")  # the next control call of the namespace
    assert world.live() == []
    ended = bill(world)["billed_s"]
    world.clock.advance(HOUR)
    assert bill(world)["billed_s"] == ended


def test_an_end_by_the_client_is_said_when_it_is_deployed(world: ListedWorld) -> None:
    with world.client() as client:
        one = client.deploy(progress="off", **{**FIELDS, "ttl": TTL})
        assert one.ttl_enforced_by == "client"
        told = [str(note) for note in one.adaptations if note.field == "ttl"]
        assert told
        assert "nobody ends it while no client runs" in told[0]
