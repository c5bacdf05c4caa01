"""Two deploys of one name at once make one deployment, whichever way their calls interleave."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifecycle_fakes import FULL, SteppedIo, World, sample, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.errors import DeploymentGone, NameConflict, UniGPUError

pytestmark = [pytest.mark.full] if FULL else []

FAR = 1e7


class Runner:
    """A coroutine that a test moves one call at a time."""

    def __init__(self, coro: Coroutine[Any, Any, Any]) -> None:
        self.coro = coro
        self.result: Any = None
        self.error: UniGPUError | None = None
        self.done = False
        self.steps = 0

    def step(self) -> None:
        if self.done:
            return
        self.steps += 1
        assert self.steps < 20_000, "does not end"
        try:
            self.coro.send(None)
        except StopIteration as stop:
            self.result, self.done = stop.value, True
        except UniGPUError as exc:
            self.error, self.done = exc, True

    def finish(self) -> None:
        while not self.done:
            self.step()


def deploy(world: World, wanted: Any, state_dir: Path | None) -> Runner:
    scope = world.scope(io=SteppedIo(world.cloud), state_dir=state_dir, stateless=state_dir is None)
    return Runner(
        life.deploy(scope, wanted, if_exists="reuse", wait=True, deadline=FAR, on_failure="teardown", settle=False)
    )


def make(kinds: tuple[str, ...]) -> World:
    world = World(None, kinds=kinds)
    world.cloud.cold_start = 1.0
    return world


def interleave(one: Runner, two: Runner, turns: list[bool]) -> None:
    for first in turns:
        (one if first else two).step()
    # Whoever waits for the other's lock must not be run alone for ever.
    while not (one.done and two.done):
        for _ in range(3):
            one.step()
        for _ in range(3):
            two.step()


def check_one_deployment(world: World, one: Runner, two: Runner, kinds: tuple[str, ...]) -> None:
    assert one.error is None, one.error
    assert two.error is None, two.error
    assert {key[0] for key in world.rows} == set(kinds)
    assert len(world.cloud.created) == len(kinds)
    main = world.cloud.rows[world.cloud.main, world.rows[0][1]]
    assert one.result.info.attempt == two.result.info.attempt == main.attempt
    # The loser reuses; where it came before the winner's limits were set, it says that it set them.
    assert sorted([one.result.change, two.result.change]) in (["created", "reused"], ["created", "scaled"])
    assert one.result.info.state == two.result.info.state == "READY"


def end(world: World, state_dirs: list[Path | None]) -> None:
    for where in dict.fromkeys(state_dirs):
        scope = world.scope(state_dir=where, stateless=where is None)
        info = run_sync(life.resolve(scope, "summarize", deadline=FAR)) or life.known(scope, "summarize")
        if info is not None:
            run_sync(life.teardown(scope, info, deadline=FAR))
        assert world.rows == []
        assert where is None or world.intents(where) == []


@pytest.mark.parametrize("kinds", [("deployment",), ("template", "endpoint")], ids=["one part", "two parts"])
@pytest.mark.parametrize("machines", ["one machine", "two machines", "stateless"])
def test_every_way_to_cut_two_deploys_once_each_makes_one_deployment(
    tmp_path: Path, machines: str, kinds: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    world = make(kinds)
    alone = deploy(world, spec(workers=(1, 2)), None)
    alone.finish()
    cases = 0
    for i, j in sample([(i, j) for i in range(alone.steps) for j in range(alone.steps)]):
        world = make(kinds)
        dirs: list[Path | None] = [None, None]
        if machines != "stateless":
            dirs = [tmp_path / f"{i}-{j}a", tmp_path / (f"{i}-{j}a" if machines == "one machine" else f"{i}-{j}b")]
        one, two = (deploy(world, spec(workers=(1, 2)), where) for where in dirs)
        interleave(one, two, [True] * i + [False] * j)
        check_one_deployment(world, one, two, kinds)
        end(world, dirs)
        cases += 1
    with capsys.disabled():
        print(f" [{cases} interleavings]", end="")


@given(turns=st.lists(st.booleans(), max_size=60), parts=st.integers(1, 3), together=st.booleans())
@settings(max_examples=60)
def test_any_interleaving_makes_one_deployment(
    tmp_path_factory: pytest.TempPathFactory, turns: list[bool], parts: int, together: bool
) -> None:
    kinds = ("template", "endpoint", "group")[:parts]
    world = make(kinds)
    base = tmp_path_factory.mktemp("race")
    dirs: list[Path | None] = [base / "a", base / ("a" if together else "b")]
    one, two = (deploy(world, spec(workers=(1, 2)), where) for where in dirs)
    interleave(one, two, turns)
    check_one_deployment(world, one, two, kinds)
    end(world, dirs)


@given(turns=st.lists(st.booleans(), max_size=60), together=st.booleans())
@settings(max_examples=60)
def test_two_different_specs_end_in_one_deployment_and_one_conflict(
    tmp_path_factory: pytest.TempPathFactory, turns: list[bool], together: bool
) -> None:
    world = make(("deployment",))
    base = tmp_path_factory.mktemp("race")
    dirs: list[Path | None] = [base / "a", base / ("a" if together else "b")]
    one = deploy(world, spec(workers=(1, 2), disk=10), dirs[0])
    two = deploy(world, spec(workers=(1, 2), disk=20), dirs[1])
    interleave(one, two, turns)
    won, lost = (one, two) if one.error is None else (two, one)
    assert won.error is None
    assert isinstance(lost.error, NameConflict)
    assert lost.error.fields == ("disk",)
    (row,) = world.cloud.rows.values()
    assert row.attempt == won.result.info.attempt
    end(world, dirs)


@given(turns=st.lists(st.booleans(), max_size=60), parts=st.integers(1, 3), together=st.booleans())
@settings(max_examples=60)
def test_a_teardown_during_a_deploy_leaves_nothing_that_the_next_deploy_and_teardown_do_not_end(
    tmp_path_factory: pytest.TempPathFactory, turns: list[bool], parts: int, together: bool
) -> None:
    kinds = ("template", "endpoint", "group")[:parts]
    world = make(kinds)
    base = tmp_path_factory.mktemp("race")
    dirs: list[Path | None] = [base / "a", base / ("a" if together else "b")]
    first = deploy(world, spec(workers=(1, 2)), dirs[0])
    first.finish()
    ending = Runner(
        life.teardown(world.scope(io=SteppedIo(world.cloud), state_dir=dirs[1]), first.result.info, deadline=FAR)
    )
    again = deploy(world, spec(workers=(1, 2)), dirs[0])
    interleave(ending, again, turns)
    assert ending.error is None
    # It may be told that it is gone while it waits; what it returned with exists.
    assert again.error is None or isinstance(again.error, DeploymentGone)
    if again.error is None and parts == 1:
        assert len({key[0] for key in world.rows}) in (0, len(kinds))
    last = deploy(world, spec(workers=(1, 2)), dirs[0])
    last.finish()
    assert last.error is None
    assert len(world.rows) == len(kinds)
    for where in reversed(dirs):
        run_sync(life.teardown(world.scope(state_dir=where), last.result.info, deadline=FAR))
    assert world.rows == []
