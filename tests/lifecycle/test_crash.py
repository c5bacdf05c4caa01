"""A process that dies at any call or write leaves nothing that a later deploy and teardown of the name do not end."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from lifecycle_fakes import FULL, Crash, FakeDriver, Killer, World, sample, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu._lifecycle import Scope
from unigpu.errors import NameConflict

pytestmark = [pytest.mark.full] if FULL else []

FAR = 1e7
Step = Callable[[Scope], Awaitable[Any]]


async def deploy(scope: Scope, wanted: Any = None, **more: Any) -> life.Deployed:
    return await life.deploy(
        scope,
        spec(workers=(1, 2)) if wanted is None else wanted,
        **{
            "if_exists": "reuse",
            "wait": True,
            "deadline": FAR,
            "on_failure": "teardown",
            "settle": False,
            **more,
        },
    )


async def end(scope: Scope) -> None:
    """Teardown by name, as a client does: from the list, or from what this machine's intents know."""
    info = await life.resolve(scope, "summarize", deadline=FAR) or life.known(scope, "summarize")
    if info is not None:
        await life.teardown(scope, info, deadline=FAR)


async def fresh(scope: Scope) -> None:
    await deploy(scope)


async def fresh_with_a_lost_answer(scope: Scope) -> None:
    await deploy(scope)


async def reuse(scope: Scope) -> None:
    await deploy(scope, spec(workers=(2, 3)))


async def update(scope: Scope) -> None:
    await deploy(scope, spec(workers=(1, 2), env={"A": "2"}), if_exists="replace")


async def recreate(scope: Scope) -> None:
    await deploy(scope, spec(workers=(1, 2), disk=10), if_exists="replace")


async def update_verb(scope: Scope) -> None:
    info = await life.resolve(scope, "summarize", deadline=FAR)
    assert info is not None
    await life.update(
        scope, info, spec(workers=(1, 2), env={"A": "3"}), changed=frozenset({"env"}), wait=True, deadline=FAR
    )


async def failing(scope: Scope) -> None:
    """A deploy whose worker cannot start, so that its undo can be killed, too."""
    with pytest.raises(life_error):
        await deploy(scope)


life_error = Exception

OPERATIONS: dict[str, tuple[bool, Step]] = {
    "deploy": (False, fresh),
    "deploy, undone": (False, failing),
    "reuse and scale": (True, reuse),
    "replace in place": (True, update),
    "replace anew": (True, recreate),
    "update": (True, update_verb),
    "teardown": (True, end),
}
AFTER: dict[str, Any] = {
    "the same spec": spec(workers=(1, 2)),
    "another spec": spec(workers=(1, 2), disk=20),
    "no deploy": None,
}


def build(tmp: Path, kinds: tuple[str, ...], *, exists: bool, broken: bool) -> World:
    world = World(tmp, kinds=kinds)
    world.cloud.cold_start = 1.0  # few looks: each is a point to die at
    if exists:
        run_sync(deploy(world.scope(), spec(workers=(1, 2), env={"A": "1"})))
    if broken:
        world.cloud.start_failure = "crash_loop: exit code 1"
    return world


def points_of(tmp: Path, kinds: tuple[str, ...], name: str) -> list[str]:
    exists, step = OPERATIONS[name]
    world = build(tmp, kinds, exists=exists, broken=step is failing)
    killer = Killer(None)
    run_sync(step(world.scope(hook=killer)))  # type: ignore[arg-type]  # an async function's coroutine
    return killer.points


@pytest.mark.parametrize("kinds", [("deployment",), ("template", "endpoint", "group")], ids=["one part", "three parts"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_crash_at_any_point_leaves_nothing_after_the_next_deploy_and_teardown(
    tmp_path: Path, name: str, kinds: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    exists, step = OPERATIONS[name]
    points = points_of(tmp_path / "dry", kinds, name)
    assert len(points) > 4
    cases = 0
    committed = len(points) - 1 - points[::-1].index("mid write") if "mid write" in points else len(points)
    for after, at in sample([(after, at) for after in AFTER for at in range(len(points))]):
        wanted, where = AFTER[after], tmp_path / f"{after[:4]}{at}"
        world = build(where, kinds, exists=exists, broken=step is failing)
        with pytest.raises(Crash):
            run_sync(step(world.scope(hook=Killer(at))))  # type: ignore[arg-type]  # as above
        world.cloud.start_failure = None
        made = len(world.cloud.created)

        told = f"killed at {points[at]} ({at}), then {after}"
        scope = world.scope()
        if wanted is not None:
            try:
                deployed = run_sync(deploy(scope, wanted))
            except NameConflict:  # only what was handed to somebody may be in the way
                assert exists or at >= committed, told
                deployed = run_sync(deploy(scope, wanted, if_exists="replace"))
            assert deployed.info.state == "READY", told
            assert len(world.rows) == len(kinds), told
            mine = {row.attempt for row in world.cloud.rows.values()}
            assert deployed.change != "created" or len(world.cloud.created) > made, told
            assert deployed.info.attempt in mine, told
        run_sync(end(scope))
        assert world.rows == [], told
        assert world.intents() == [], told
        cases += 1
    with capsys.disabled():
        print(f" [{cases} crashes]", end="")


@pytest.mark.parametrize("kinds", [("deployment",), ("template", "endpoint")], ids=["one part", "two parts"])
def test_without_a_state_directory_finding_alone_recovers(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    points = points_of(tmp_path / "dry", kinds, "deploy")
    for at in range(len(points)):
        world = World(None, kinds=kinds)
        killer = Killer(at)
        with contextlib.suppress(Crash):
            run_sync(deploy(world.scope(hook=killer, stateless=True)))
        scope = world.scope(stateless=True)
        deployed = run_sync(deploy(scope))
        assert deployed.info.state == "READY"
        run_sync(life.teardown(scope, deployed.info, deadline=FAR))
        assert world.rows == []


@pytest.mark.parametrize("kinds", [("deployment",), ("template", "endpoint")], ids=["one part", "two parts"])
def test_two_crashes_in_a_row_leave_nothing_either(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    first = points_of(tmp_path / "dry", kinds, "deploy")
    for at in range(0, len(first), 2):
        for then in range(0, 14, 3):
            world = World(tmp_path / f"{at}-{then}", kinds=kinds)
            with pytest.raises(Crash):
                run_sync(deploy(world.scope(hook=Killer(at))))
            with contextlib.suppress(Crash, NameConflict):
                run_sync(deploy(world.scope(hook=Killer(then)), spec(workers=(1, 2), disk=30)))
            run_sync(end(world.scope()))
            assert (world.rows, world.intents()) == ([], []), (first[at], then)


def test_a_deploy_that_goes_on_keeps_what_another_machine_made(tmp_path: Path) -> None:
    world = World(tmp_path)
    run_sync(deploy(world.scope(state_dir=tmp_path / "b")))
    (theirs,) = world.cloud.rows.values()
    driver = FakeDriver()
    with pytest.raises(NameConflict) as caught:
        run_sync(deploy(world.scope(state_dir=tmp_path / "a", driver=driver), spec(disk=10)))
    assert caught.value.fields == ("disk",)
    assert list(world.cloud.rows.values()) == [theirs]
