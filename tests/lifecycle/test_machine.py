"""Any sequence of deploys, changes, calls, faults and deaths leaves one deployment or none, and ends clean."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from lifecycle_fakes import Crash, Fault, Killer, World, options, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.errors import NameConflict, UniGPUError

FAR = 1e9
SPECS: list[dict[str, Any]] = [
    {"workers": (0, 1)},
    {"workers": (1, 2)},
    {"workers": (1, 2), "env": {"A": "1"}},
    {"workers": (0, 1), "disk": 10},
    {"workers": (0, 3), "idle_timeout": 5, "ttl": 600},
]
OPERATIONS = ["create", "get", "patch", "delete", "update", "workers", "list", "submit", "status", "wake"]


class Lifecycle(RuleBasedStateMachine):
    """Two machines (state directories) share one account; each operation may be killed, or lose answers."""

    @initialize(parts=st.integers(1, 3))
    def begin(self, parts: int) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="unigpu-machine-"))
        self.world = World(None, kinds=("template", "endpoint", "group")[-parts:])
        self.world.cloud.cold_start = 2.0
        self.attempts: set[str] = set()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.cloud.faults.clear()
        self.world.cloud.start_failure = None
        for where in ("a", "b"):
            scope = self.scope(where)
            run_sync(
                life.deploy(
                    scope,
                    spec(**SPECS[0]),
                    if_exists="replace",
                    wait=True,
                    deadline=FAR,
                    on_failure="teardown",
                    settle=False,
                )
            )
            info = run_sync(life.resolve(scope, "summarize", deadline=FAR))
            assert info is not None
            run_sync(life.teardown(scope, info, deadline=FAR))
            assert self.world.rows == []
            assert self.world.intents(self.base / where) == []
        shutil.rmtree(self.base)

    def scope(self, where: str, die: int | None = None) -> life.Scope:
        return self.world.scope(state_dir=self.base / where, hook=None if die is None else Killer(die))

    def run(self, coro: Any) -> Any:
        """Only a result, an error of ours, or the death that the rule asked for."""
        try:
            return run_sync(coro)
        except (UniGPUError, Crash) as exc:
            return exc

    where = st.sampled_from(["a", "b"])
    die = st.none() | st.integers(0, 60)

    @rule(
        where=where,
        die=die,
        wanted=st.sampled_from(SPECS),
        if_exists=st.sampled_from(["reuse", "replace", "error"]),
        keep=st.booleans(),
        wait=st.sampled_from([True, False, "worker"]),
        seconds=st.sampled_from([1e6, 3.0]),
    )
    def deploy(
        self, where: str, die: int | None, wanted: Any, if_exists: Any, keep: bool, wait: Any, seconds: float
    ) -> None:
        had_faults = any(f.times for f in self.world.cloud.faults) or self.world.cloud.start_failure
        before = dict(self.world.cloud.rows)
        got = self.run(
            life.deploy(
                self.scope(where, die),
                spec(**wanted),
                if_exists=if_exists,
                wait=wait,
                deadline=self.world.clock.now() + seconds,
                on_failure="keep" if keep else "teardown",
                settle=False,
            )
        )
        if isinstance(got, life.Deployed):
            assert len(self.world.rows) == len(self.world.cloud.kinds)
            main = self.world.cloud.rows[self.world.cloud.main, got.info.provider_name]
            assert got.info.attempt == main.attempt
            if got.change == "created":
                assert main.attempt not in self.attempts
            self.attempts.add(main.attempt)
            if wait is True and not had_faults:
                assert got.info.state in ("READY", "COLD")
        elif isinstance(got, NameConflict):
            assert self.world.cloud.rows == before or die is not None

    @rule(where=where, die=die, workers=st.sampled_from([(0, 1), (2, 4)]))
    def scale(self, where: str, die: int | None, workers: tuple[int, int]) -> None:
        info = self.run(life.resolve(self.scope(where), "summarize", deadline=FAR))
        if info is None or isinstance(info, BaseException):
            return
        got = self.run(life.scale(self.scope(where, die), info, workers=workers, deadline=FAR))
        assert isinstance(got, BaseException) or got.workers == workers

    @rule(where=where, die=die, value=st.sampled_from(["1", "2"]), in_place=st.booleans())
    def update(self, where: str, die: int | None, value: str, in_place: bool) -> None:
        info = self.run(life.resolve(self.scope(where), "summarize", deadline=FAR))
        if info is None or isinstance(info, BaseException):
            return
        change = {"env": {"A": value}} if in_place else {"disk": int(value)}
        self.run(
            life.update(
                self.scope(where, die), info, spec(**change), changed=frozenset(change), wait=True, deadline=FAR
            )
        )

    @rule(where=where, die=die)
    def end(self, where: str, die: int | None) -> None:
        info = self.run(life.resolve(self.scope(where), "summarize", deadline=FAR))
        if isinstance(info, BaseException):
            return
        info = info or life.known(self.scope(where), "summarize")
        if info is not None and self.run(life.teardown(self.scope(where, die), info, deadline=FAR)) is None:
            assert self.world.rows == []

    @rule(where=where, die=die, seconds=st.sampled_from([0.0, 3.0, 1e5]))
    def call(self, where: str, die: int | None, seconds: float) -> None:
        info = self.run(life.resolve(self.scope(where), "summarize", deadline=FAR))
        if info is None or isinstance(info, BaseException):
            return
        self.world.cloud.jobs.clear()  # those whose caller was killed run on
        self.run(life.invoke(self.scope(where, die), info, {"seconds": seconds}, options(timeout=100)))
        if die is None and not any(f.times for f in self.world.cloud.faults):
            assert all(job.status in ("DONE", "FAILED", "CANCELLED") for job in self.world.cloud.jobs.values())

    @rule(
        operation=st.sampled_from(OPERATIONS),
        kind=st.sampled_from(["lost", "refused", 400, 401, 409, 429, 503]),
        when=st.sampled_from(["before", "after"]),
        times=st.sampled_from([1, 2, 6]),
        skip=st.integers(0, 3),
    )
    def fault(self, operation: str, kind: Any, when: str, times: int, skip: int) -> None:
        self.world.cloud.faults.append(Fault(f"fake.{operation}", kind, when=when, times=times, skip=skip))

    @rule()
    def heal(self) -> None:
        self.world.cloud.faults.clear()
        self.world.cloud.start_failure = None

    @rule()
    def workers_fail(self) -> None:
        self.world.cloud.start_failure = "crash_loop: exit code 1"

    @rule(seconds=st.sampled_from([1, 700]))
    def time_passes(self, seconds: float) -> None:
        self.world.clock.advance(seconds)

    @rule()
    def somebody_stops_it(self) -> None:
        for row in self.world.cloud.rows.values():
            row.stopped, row.started = True, []

    @invariant()
    def never_two_of_one_name(self) -> None:
        if hasattr(self, "world"):
            names = [kind for kind, _ in self.world.rows]
            assert len(names) == len(set(names))


Lifecycle.TestCase.settings = settings(max_examples=40, stateful_step_count=25)
TestLifecycle = Lifecycle.TestCase
