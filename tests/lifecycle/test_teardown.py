"""Teardown ends every part, verifies it, and says what is left where it cannot."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_fakes import BASE, Fault, World, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu._lifecycle.intents import key_of
from unigpu.driver import DeploymentInfo, provider_name
from unigpu.errors import AuthenticationError, TeardownIncomplete, UniGPUError

FAR = 1e7
THREE = ("template", "endpoint", "group")


@pytest.fixture
def three(tmp_path: Path) -> World:
    world = World(tmp_path / "state", kinds=THREE)
    world.cloud.cold_start = 1.0
    return world


def deploy(world: World, **fields: Any) -> life.Deployed:
    return run_sync(
        life.deploy(
            world.scope(),
            spec(workers=(1, 2), **fields),
            if_exists="reuse",
            wait=True,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    )


def teardown(world: World, info: DeploymentInfo, *, deadline: float = FAR, **more: Any) -> None:
    run_sync(life.teardown(world.scope(), info, deadline=deadline, **more))


def watch_deletes(world: World) -> list[str]:
    deleted: list[str] = []
    real: Callable[..., Any] = world.cloud.on_delete
    world.cloud.on_delete = lambda url, body: (deleted.append(url.strip("/").split("/")[0]), real(url, body))[1]  # type: ignore[method-assign]  # watches
    return deleted


def test_parts_end_in_the_reverse_order_of_their_creation_and_the_intent_goes(three: World) -> None:
    info = deploy(three).info
    deleted = watch_deletes(three)
    teardown(three, info)
    assert deleted == ["group", "endpoint", "template"]
    assert (three.rows, three.intents()) == ([], [])


def test_ending_twice_is_success(three: World) -> None:
    info = deploy(three).info
    teardown(three, info)
    teardown(three, info)


@pytest.mark.parametrize("gone", [("group",), ("endpoint",), ("template",), ("endpoint", "group")])
def test_one_that_is_half_gone_ends_all_the_same(three: World, gone: tuple[str, ...]) -> None:
    info = deploy(three).info
    for kind in gone:
        del three.cloud.rows[kind, info.provider_name]
    teardown(three, info)
    assert (three.rows, three.intents()) == ([], [])


def test_a_name_is_enough(three: World) -> None:
    deploy(three)
    name = provider_name("default", "summarize")
    teardown(three, DeploymentInfo(provider="fake", name="summarize", provider_name=name, id=name))
    assert (three.rows, three.intents()) == ([], [])


def test_what_only_the_intents_know_can_be_ended_by_name(three: World) -> None:
    info = deploy(three).info
    del three.cloud.rows["group", info.provider_name]  # the part that lists show
    assert run_sync(life.resolve(three.scope(), "summarize", deadline=FAR)) is None
    known = life.known(three.scope(), "summarize")
    assert known is not None
    assert life.known(three.scope(), "other") is None
    assert life.known(three.scope(namespace="other"), "summarize") is None
    teardown(three, known)
    assert (three.rows, three.intents()) == ([], [])


def test_a_slow_end_is_waited_for(three: World) -> None:
    info = deploy(three).info
    three.cloud.delete_takes = 40.0
    before = three.clock.now()
    teardown(three, info)
    assert three.clock.now() >= before + 3 * 40
    assert three.rows == []


@pytest.mark.parametrize("kind", ["lost", "refused", 503, 429])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("operation", ["fake.delete", "fake.get"])
def test_a_fault_now_and_then_is_no_news(three: World, kind: Any, when: str, operation: str) -> None:
    info = deploy(three).info
    skip = 3 if operation == "fake.get" else 0  # the first look decides what there is
    three.cloud.faults.append(Fault(operation, kind, when=when, times=2, skip=skip))
    teardown(three, info)
    assert (three.rows, three.intents()) == ([], [])


def test_one_that_is_busy_is_asked_again(three: World) -> None:
    info = deploy(three).info
    three.cloud.faults.append(Fault("fake.delete", 409, times=3))
    teardown(three, info)
    assert three.rows == []


def test_at_the_deadline_what_is_still_there_is_named_and_the_intent_stays(three: World) -> None:
    info = deploy(three).info
    three.cloud.delete_takes = 1e6
    with pytest.raises(TeardownIncomplete) as caught:
        teardown(three, info, deadline=three.clock.now() + 100)
    assert {kind for kind, _ in caught.value.remaining} == set(THREE)
    assert len(caught.value.may_bill) == 3
    assert caught.value.retryable
    assert three.intents()


def test_a_part_that_cannot_be_ended_does_not_keep_the_others(three: World) -> None:
    info = deploy(three).info
    three.cloud.faults.append(Fault("fake.delete", 400, times=1, skip=1))
    with pytest.raises(TeardownIncomplete) as caught:
        teardown(three, info)
    assert caught.value.remaining == (("endpoint", info.provider_name),)
    assert [key[0] for key in three.rows] == ["endpoint"]
    teardown(three, info)
    assert three.rows == []


def test_a_revoked_key_says_what_is_left_running(three: World) -> None:
    info = deploy(three).info
    three.cloud.faults.append(Fault("fake.delete", 401, times=99))
    with pytest.raises(AuthenticationError) as caught:
        teardown(three, info)
    assert len(caught.value.may_bill) == 3


def test_a_handle_never_ends_another_create_of_its_name(three: World, caplog: pytest.LogCaptureFixture) -> None:
    old = deploy(three).info
    teardown(three, old)
    deploy(three)
    with caplog.at_level(logging.WARNING, logger="unigpu"):
        teardown(three, old)
    assert len(three.rows) == 3
    assert "was left" in caplog.text


def test_ending_does_not_wait_for_a_deploy_that_waits_and_that_one_learns_it(world: World) -> None:
    world.cloud.cold_start = 1e5
    name = provider_name("default", "summarize")
    ended: list[float] = []

    def on_look(progress: Any) -> None:
        if progress.elapsed > 5 and not ended:
            ended.append(world.clock.now())
            teardown(world, DeploymentInfo(provider="fake", name="summarize", provider_name=name, id=name))
            ended.append(world.clock.now())

    scope = life.Scope(**{**world.scope().__dict__, "progress": on_look})
    with pytest.raises(UniGPUError, match="does not exist any more"):
        run_sync(
            life.deploy(
                scope,
                spec(workers=1),
                if_exists="reuse",
                wait=True,
                deadline=FAR,
                on_failure="teardown",
                settle=False,
            )
        )
    assert ended[1] - ended[0] < 5
    assert (world.rows, world.intents()) == ([], [])


def test_volumes_are_kept_unless_asked_for(tmp_path: Path) -> None:
    world = World(tmp_path, kinds=("volume", "endpoint"))
    info = deploy(world).info
    teardown(world, info)
    assert [key[0] for key in world.rows] == ["volume"]
    teardown(world, info, volumes=True)
    assert world.rows == []


def test_intents_of_another_base_or_provider_are_left_alone(three: World) -> None:
    info = deploy(three).info
    elsewhere = life.Scope(**{**three.scope().__dict__, "base": BASE + "/other"})
    assert life.known(elsewhere, "summarize") is None
    run_sync(life.teardown(elsewhere, info, deadline=FAR))
    assert len(three.intents()) == 1
    assert key_of("fake", BASE, info.provider_name) != key_of("fake", BASE + "/other", info.provider_name)


# -- names ----------------------------------------------------------------------------------------------------------


def test_a_name_is_resolved_by_one_list_call(world: World) -> None:
    info = deploy(world).info
    deploy(world, name="other")
    world.cloud.log.clear()
    found = run_sync(life.resolve(world.scope(), "summarize", deadline=FAR))
    assert found is not None
    assert found.id == info.id
    assert world.cloud.log == ["fake.list"]
    assert run_sync(life.resolve(world.scope(), "absent", deadline=FAR)) is None
    assert run_sync(life.resolve(world.scope(namespace="x"), "summarize", deadline=FAR)) is None


def test_the_list_shows_this_namespace_by_name(world: World) -> None:
    for name in ("b", "a"):
        deploy(world, name=name)
    assert [d.name for d in run_sync(life.listing(world.scope(), deadline=FAR))] == ["a", "b"]
    assert run_sync(life.listing(world.scope(namespace="x"), deadline=FAR)) == []


def test_a_list_that_cannot_be_read_is_an_error_and_never_empty(world: World) -> None:
    world.cloud.faults.append(Fault("fake.list", 503))
    with pytest.raises(UniGPUError):
        run_sync(life.listing(world.scope(), deadline=FAR))
