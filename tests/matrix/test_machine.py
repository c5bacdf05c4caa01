"""Any order of deploys, calls, ends, deaths, faults and a user in the console: one deployment or none, and all paid.

At rest what lives is whole, and of one name only once; nothing of others is ever deleted; and gc that only shows
deletes nothing. What a second one may cost until the looks are paid is measured in the race.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from matrix_faults import KINDS
from matrix_life import SWEEPS, call, clean, fields, must, run, whole_life
from matrix_platforms import NAME, Platform
from matrix_race import RacingIo, slow_lag, together
from matrix_world import FULL, Killer, Script, World, worlds

from unigpu import AsyncClient
from unigpu.errors import UniGPUError

pytestmark = [pytest.mark.full] if FULL else []
MACHINES = st.sampled_from(["a", "b"])
DIES = st.none() | st.integers(0, 60)
FAULT = st.none() | st.tuples(st.integers(0, 1_000), st.integers(0, 2), st.sampled_from(KINDS))
"""Which of the platform's operations (by number), the how manieth call of it, and what goes wrong."""


class Account(RuleBasedStateMachine):
    """Two machines on one account."""

    platform: Platform
    operations: tuple[str, ...]
    monkeypatch: pytest.MonkeyPatch

    @initialize(lag=st.sampled_from([0.0, 3.0, "slow"]), number=st.integers(0, 1000))
    def begin(self, lag: Any, number: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="unigpu-matrix-"))
        self.stack = contextlib.ExitStack()
        make = self.stack.enter_context(worlds(self.platform, self.base, self.monkeypatch))
        self.world: World = make(seed=number, list_lag=slow_lag if lag == "slow" else lag)
        self.lag = self.world.cloud.engine.settings.list_lag

    def teardown(self) -> None:
        """At rest: everybody's looks are paid; then a deploy and an end, and nothing is left."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.advance(SWEEPS)
        for where in "ab":
            must(world, clean, where)
        world.advance(SWEEPS)
        for where in "ab":
            must(world, clean, where)
        assert not world.doubled(), "(b) two of one name"
        if not world.live():
            assert not world.all_live(), "(a) a part without a whole"
        must(
            world, lambda c: c.deploy(progress="off", if_exists="replace", settle=True, timeout=3600, **fields(c)), "b"
        )
        must(world, lambda c: call(c, NAME, {"last": 1}), "a")
        must(world, lambda c: c.teardown(NAME, timeout=1200), "a")
        world.advance(SWEEPS)
        for where in "ab":
            must(world, clean, where)
        assert world.all_live() == [], "leaked"
        self.stack.close()
        shutil.rmtree(self.base)

    def go(self, where: str, workflow: Any, die: int | None = None, fault: Any = None) -> Any:
        script = None
        if fault is not None:
            operation = self.operations[fault[0] % len(self.operations)]
            if fault[2].fits(self.platform, operation):
                script = Script((operation, fault[1], fault[2]))
        return run(self.world, workflow, where=where, hook=None if die is None else Killer(die), script=script)

    @rule(
        where=MACHINES,
        die=DIES,
        fault=FAULT,
        spec=st.integers(0, 3),
        if_exists=st.sampled_from(["reuse", "replace"]),
        wait=st.sampled_from([True, False, "worker"]),
        settle=st.booleans(),
        keep=st.booleans(),
    )
    def deploy(
        self, where: str, die: Any, fault: Any, spec: int, if_exists: Any, wait: Any, settle: bool, keep: bool
    ) -> None:
        more = {"if_exists": if_exists, "wait": wait, "settle": settle, "on_failure": "keep" if keep else "teardown"}
        workflow = lambda c: c.deploy(progress="off", timeout=900, **fields(c, **self.platform.specs[spec]), **more)  # noqa: E731 - one use
        self.go(where, workflow, die, fault)

    @rule(where=MACHINES, die=DIES, fault=FAULT)
    def invoke(self, where: str, die: Any, fault: Any) -> None:
        got = self.go(where, lambda c: call(c, NAME, {"n": 1}, timeout=200), die, fault)
        assert isinstance(got, BaseException) or got == {"n": 1}

    @rule(where=MACHINES, die=DIES, fault=FAULT, which=st.integers(0, 1))
    def change(self, where: str, die: Any, fault: Any, which: int) -> None:
        self.go(where, lambda c: self.platform.changes[which](c, NAME), die, fault)

    @rule(where=MACHINES, die=DIES, fault=FAULT)
    def end(self, where: str, die: Any, fault: Any) -> None:
        self.go(where, lambda c: c.teardown(NAME, timeout=600), die, fault)

    @rule(where=MACHINES, die=DIES, fault=FAULT)
    def sweep(self, where: str, die: Any, fault: Any) -> None:
        self.go(where, clean, die, fault)

    @rule(where=MACHINES)
    def gc_only_shows(self, where: str) -> None:
        before = self.world.all_live()
        self.go(where, lambda c: c.gc(provider=self.platform.provider))
        assert set(before) <= set(self.world.all_live()) | self.expired(before), "gc(delete=False) deleted something"

    def expired(self, ids: list[str]) -> set[str]:
        engine = self.world.cloud.engine
        return {id for id in ids if id not in engine.deployment_ids()}

    @rule(at=st.integers(0, 5))
    def a_user_deletes_in_the_console(self, at: int) -> None:
        world = self.world
        live = world.live()
        if live:
            self.platform.removed(world, live[at % len(live)])
            world.cloud.step(world.clock.now())

    @rule(number=st.integers(0, 10_000))
    def two_race(self, number: int) -> None:
        world, rolls = self.world, random.Random(number)
        runs = []
        for where in "ab":
            client = world.wired(AsyncClient, where, RacingIo(world, rolls))
            runs.append((rolls.uniform(0, 3), client.deploy(progress="off", timeout=900, **fields(client))))
        for ended in together(world, runs):
            assert ended is None or isinstance(ended, UniGPUError) or ended.name == NAME

    @rule(seconds=st.sampled_from([1.0, 20.0, 700.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @invariant()
    def nothing_of_others_is_touched(self) -> None:
        if hasattr(self, "world"):
            assert self.world.untouched(), "(c) what belongs to others was touched"


@pytest.mark.parametrize("shard", range(4))
def test_any_order_of_things(
    make: Callable[..., World], platform: Platform, monkeypatch: pytest.MonkeyPatch, shard: int
) -> None:
    """Each shard has a seed of its own, so a red one can be repeated."""
    script = Script()
    assert run(make(), whole_life, script=script) == "done"
    operations = tuple(sorted(script.seen))
    about = {"monkeypatch": monkeypatch, "platform": platform, "operations": operations}
    machine = type(f"Account{shard}", (Account,), about)
    examples, steps = (round(100 * platform.share), 30) if FULL else (round(8 * platform.share) or 1, 20)
    run_state_machine_as_test(
        seed(shard)(machine),
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=False, database=None, deadline=None
        ),
    )
