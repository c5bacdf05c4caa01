"""What pods cost, and what becomes of them: stopped, without a free GPU, expired, gone with their host."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from matrix_faults import Kind, answered
from matrix_life import call, clean, fields, must, run
from matrix_platforms import NAME, PLATFORMS, Platform
from matrix_world import Script, World

from unigpu.errors import DeploymentGone, NoCapacityError, NotFoundError, NoWorkerReady
from unigpu.models import State

PODS = [one for one in PLATFORMS if one.kinds[-1] in ("pod", "instance")]
NO_GPU = {
    "runpod": ("runpod.pod.start", 400, {"status": 400, "title": "no", "detail": "There are no instances available."}),
    "yotta": ("yotta.pod.resume", 200, {"code": 12001, "message": "no available resource for the requested GPU"}),
}
"""How a platform says that the GPU of a stopped pod is gone; Vast keeps the wish instead."""
pytestmark = pytest.mark.skipif(not PODS, reason="none of the platforms of this run has pods")


@pytest.fixture(params=PODS, ids=lambda one: one.name)
def platform(request: pytest.FixtureRequest) -> Platform:
    found: Platform = request.param
    return found


@pytest.fixture
def world(make: Callable[..., World]) -> World:
    """With our pod on machine *a*."""
    world = make()
    must(world, lambda c: c.deploy(progress="off", **fields(c)), "a")
    return world


def item(world: World, where: str = "a") -> Any:
    """Our pod in the inventory."""
    ids = world.live()
    (found,) = [
        one for one in must(world, lambda c: c.inventory(provider=world.platform.provider), where) if one.id in ids
    ]
    return found


def test_a_stopped_pod_is_listed_with_what_it_still_costs_and_not_at_its_full_rate(world: World) -> None:
    running = item(world)
    assert running.per_hour > 0
    assert running.owner == "ours"
    must(world, lambda c: c.stop(NAME), "a")
    stopped = item(world)
    assert not stopped.per_hour
    assert stopped.per_month or "volume" in stopped.note or "storage" in stopped.note
    must(world, lambda c: c.start(NAME), "a")
    assert item(world).per_hour == running.per_hour


def test_gc_shows_a_stopped_pod_of_another_machine_and_leaves_it(world: World) -> None:
    (row,) = must(world, clean, "b")
    assert row.per_hour > 0
    must(world, lambda c: c.stop(NAME), "a")
    (row,) = must(world, clean, "b")
    assert (row.reason, row.deleted, row.per_hour) == ("unclaimed", False, None)
    assert "stopped, and still costs" in row.why
    assert list(must(world, clean, "a")) == []
    assert len(world.live()) == 1


def test_a_pod_that_expires_while_it_is_stopped_is_ended(make: Callable[..., World]) -> None:
    world = make()
    must(world, lambda c: c.deploy(progress="off", **fields(c, ttl=600)), "a")
    must(world, lambda c: c.stop(NAME), "a")
    world.advance(700.0)
    (row,) = must(world, clean, "a")
    assert (row.reason, row.deleted) == ("expired", True)
    assert world.live() == []
    assert world.untouched()


def test_a_pod_that_was_stopped_by_others_is_started_by_the_next_call_if_it_may(world: World) -> None:
    must(world, lambda c: c.stop(NAME), "b")

    async def may_not(client: Any) -> Any:
        if world.platform.provider == "vast":
            return await client.request(NAME, "GET", "/", wake=False)
        found = await client.get(NAME, interface="function")
        return await client.invoke(found, {"n": 1}, wake=False)

    refused = run(world, may_not)
    assert isinstance(refused, NoWorkerReady)
    assert refused.state == "STOPPED"
    assert item(world).per_hour in (0.0, None)
    assert must(world, lambda c: call(c, NAME, {"n": 2}), "a") == {"n": 2}


def test_a_start_without_a_free_gpu_says_what_the_stopped_pod_costs_and_what_to_do(world: World) -> None:
    if world.platform.provider not in NO_GPU:
        pytest.skip("it keeps the wish")
    must(world, lambda c: c.stop(NAME), "a")
    operation, status, body = NO_GPU[world.platform.provider]
    no_gpu = Kind("no GPU", "never", answered(status, json.dumps(body).encode()))
    for act in (
        lambda c: c.start(NAME),
        lambda c: call(c, NAME, {"n": 1}),
        lambda c: c.deploy(progress="off", **fields(c)),
    ):
        told = run(world, act, script=Script((operation, 0, no_gpu)))
        assert isinstance(told, NoCapacityError), told
        assert "volume" in told.may_bill[0]
        assert "deploy it again" in str(told)
    assert len(world.live()) == 1
    assert must(world, lambda c: c.start(NAME), "a").state is State.READY


def test_a_pod_whose_host_is_gone_is_gone_for_every_verb_and_can_be_made_anew(world: World) -> None:
    ended: dict[str, BaseException | None] = {}

    async def verbs(client: Any) -> None:
        one = await client.get(NAME)
        world.platform.removed(world, world.live()[0])
        world.advance(5.0)
        for verb in ("stop", "start", "wait_ready", "workers", "explain", "teardown"):
            try:
                await getattr(client, verb)(one)
            except Exception as exc:
                ended[verb] = exc
            else:
                ended[verb] = None

    run(world, verbs)
    assert ended.pop("teardown") is None
    assert {verb: type(exc) for verb, exc in ended.items()} == dict.fromkeys(ended, DeploymentGone)
    assert isinstance(run(world, lambda c: call(c, NAME, {"n": 1})), NotFoundError)
    assert must(world, lambda c: c.deploy(progress="off", **fields(c)), "a").change == "created"
    assert len(world.live()) == 1
