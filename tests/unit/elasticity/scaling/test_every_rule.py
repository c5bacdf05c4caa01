"""Every scaling rule that there is, under one set of promises: a new one is added to `MADE`, or this fails.

Never above the most, never below the least, draining before leaving, and no coming and going under a constant load.
Then the numbers that each platform's own pages work out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu.elasticity._scaling.policy import (
    RULES,
    Declared,
    QueueDelay,
    RequestsPerWorker,
    Rule,
    RunPodQueueDelay,
    RunPodRequestCount,
    VastLoad,
    View,
    WorkerView,
    desired,
    rule_from,
    rule_record,
)

MADE: Mapping[str, st.SearchStrategy[Rule]] = {
    "requests": st.builds(RequestsPerWorker, st.none() | st.floats(0.5, 20)),
    "queue_delay": st.builds(QueueDelay, st.floats(0.1, 10)),
    "declared": st.builds(Declared),
    "vast_load": st.builds(
        VastLoad,
        perf=st.floats(1, 1000),
        cost=st.floats(1, 1000),
        min_load=st.sampled_from([0.0, 1.0, 300.0]),
        target_util=st.floats(0.3, 1),
        cold_mult=st.floats(1, 3),
        cold_workers=st.integers(0, 4),
    ),
    "runpod_queue_delay": st.builds(RunPodQueueDelay, seconds=st.floats(0.5, 10)),
    "runpod_request_count": st.builds(RunPodRequestCount, count=st.integers(1, 20)),
}
ANY: st.SearchStrategy[Rule] = st.one_of(*MADE.values())


def test_every_rule_is_here() -> None:
    assert set(MADE) == set(RULES)


@dataclass
class Worker:
    id: str
    ready_at: float
    running: int = 0
    idle_since: float | None = None


@dataclass
class Plant:
    """Workers that start, take calls, and leave only when they have none: the engine in twenty lines.

    The load is constant: *calls* are there at all times, and the next comes when one is done.
    """

    rule: Rule
    calls: int
    view: View
    start: float
    now: float = 0.0
    workers: list[Worker] = field(default_factory=list[Worker])
    stopped: int = 0
    came: list[float] = field(default_factory=list[float])
    left: list[float] = field(default_factory=list[float])
    waiting_since: float = 0.0

    def seen(self) -> View:
        shown = tuple(
            WorkerView(
                id=one.id,
                phase="ready" if one.ready_at <= self.now else "starting",
                running=one.running,
                since=one.ready_at if one.ready_at <= self.now else one.ready_at - self.start,
                idle_since=one.idle_since,
            )
            for one in self.workers
        )
        running = sum(one.running for one in self.workers)
        queued = self.calls - running
        return replace(
            self.view,
            now=self.now,
            queued=queued,
            oldest_queued_at=self.waiting_since if queued else None,
            running=running,
            stopped=self.stopped,
            workers=shown,
        )

    def step(self) -> None:
        self.now += 1.0
        left = self.calls - sum(one.running for one in self.workers)
        for one in self.workers:
            if one.ready_at > self.now:
                continue
            taken = min(left, self.view.concurrency - one.running)
            one.running, left = one.running + taken, left - taken
            one.idle_since = None if one.running else self.now if one.idle_since is None else one.idle_since
        decision = desired(self.rule, self.seen())
        least, most = self.view.min_workers, self.view.max_workers
        assert least <= decision.workers <= most
        assert decision.keep <= most
        going = {one.id: one for one in self.workers if one.id in decision.drain}
        assert len(going) == len(decision.drain)
        assert not any(one.running for one in going.values()), "a worker with calls was asked to leave"
        self.workers = [one for one in self.workers if one.id not in going]
        self.left += [self.now] * len(going)
        self.stopped = max(0, min(self.stopped + len(going), decision.keep - len(self.workers)))
        for _ in range(decision.workers - len(self.workers)):
            self.stopped = max(0, self.stopped - 1)
            self.came.append(self.now)
            self.workers.append(Worker(id=f"w{len(self.came)}", ready_at=self.now + self.start))
        assert least <= len(self.workers) <= most


@settings(max_examples=60)
@given(ANY, st.integers(0, 9), st.integers(0, 2), st.integers(0, 4), st.integers(1, 3), st.floats(0, 5))
def test_a_constant_load_settles_and_then_nobody_comes_or_goes(
    rule: Rule, calls: int, least: int, more: int, concurrency: int, start: float
) -> None:
    view = View(now=0.0, min_workers=least, max_workers=least + more, concurrency=concurrency, idle_timeout=30.0)
    plant = Plant(rule, calls, view, start)
    for _ in range(
        200
    ):  # six workers, one after the other, each after a delay of 10 s and a start of 5 s; then idle ones
        plant.step()
    settled = len(plant.workers)
    before = len(plant.came), len(plant.left)
    for _ in range(100):
        plant.step()
    assert (len(plant.came), len(plant.left)) == before
    assert len(plant.workers) == settled


@settings(max_examples=60)
@given(ANY, st.integers(1, 3))
def test_without_calls_only_the_least_stay(rule: Rule, least: int) -> None:
    """Vast keeps what its least load asks for beside it."""
    plant = Plant(rule, 8, View(now=0.0, min_workers=least, max_workers=6, idle_timeout=30.0), 5.0)
    for _ in range(120):
        plant.step()
    plant.calls = 0
    for one in plant.workers:
        one.running = 0
    for _ in range(60):
        plant.step()
    asked = max(least, min(6, rule.wanted(replace(plant.seen(), workers=(), stopped=99)).workers))
    assert len(plant.workers) == asked


@given(ANY)
def test_a_journal_keeps_every_rule(rule: Rule) -> None:
    assert rule_from(rule_record(rule)) == rule


# -- the platforms' own numbers


@pytest.mark.parametrize(("waiting", "working", "workers"), [(0, 0, 0), (1, 0, 1), (5, 3, 2), (6, 3, 3), (16, 0, 4)])
def test_runpod_count_of_four(waiting: int, working: int, workers: int) -> None:
    """``Math.ceil((requestsInQueue + requestsInProgress) / 4)``
    (https://docs.runpod.io/serverless/endpoints/endpoint-configurations)."""
    view = View(now=0, min_workers=0, max_workers=99, queued=waiting, oldest_queued_at=0.0, running=working)
    assert RunPodRequestCount().wanted(view).workers == workers


def test_runpod_count_of_one_gives_six_jobs_six_workers_and_a_most_of_three_holds_them_to_three() -> None:
    """The burst of https://github.com/runpod/runpod-plugins-official (golden-paths/13-autoscaling-tuning)."""
    view = View(now=0, min_workers=0, max_workers=99, queued=6, oldest_queued_at=0.0)
    assert desired(RunPodRequestCount(count=1), view).workers == 6
    assert desired(RunPodRequestCount(count=1), replace(view, max_workers=3)).workers == 3


def test_vast_plans_twice_the_capacity_at_a_multiple_of_two() -> None:
    """A target of 100 a second and ``cold_mult`` 2.0 is capacity for 200
    (https://docs.vast.ai/serverless/serverless-parameters)."""
    view = View(now=0, min_workers=0, max_workers=99)
    assert VastLoad(perf=100.0, min_load=100.0, cold_mult=2.0).wanted(view).keep == 2


@pytest.mark.parametrize(("perf", "seconds"), [(100.0, 1.0), (200.0, 0.5)])
def test_vast_works_a_call_of_100_off_in_a_second_at_100_and_in_half_at_200(perf: float, seconds: float) -> None:
    """https://docs.vast.ai/guides/serverless/serverless-parameters (minimum load): one worker is enough exactly for
    what it gets done within the time that calls may wait."""
    view = View(now=0, min_workers=0, max_workers=99)
    rule = VastLoad(perf=perf, cost=100.0, cold_mult=0.0, target_queue_time=10.0)
    most = int(10.0 / seconds)
    assert rule.wanted(replace(view, queued=most)).workers == 1
    assert rule.wanted(replace(view, queued=most + 1)).workers == 2


def test_yotta_keeps_two_workers_of_two_whatever_comes_and_replaces_the_dead() -> None:
    """ "If you set the target to 2 Workers, 2 Workers are always running"
    (https://github.com/yottalabsai/docs/blob/main/tutorials/elastic-deployment/guide-to-elastic-deployment.md)."""
    both = tuple(WorkerView(id=f"w{n}", phase="ready", idle_since=0.0) for n in range(2))
    view = View(now=1e6, min_workers=2, max_workers=2, idle_timeout=None, workers=both)
    for queued in (0, 1, 1000):
        seen = replace(view, queued=queued, oldest_queued_at=0.0 if queued else None)
        assert (desired(Declared(), seen).workers, desired(Declared(), seen).drain) == (2, ())
    assert desired(Declared(), replace(view, workers=both[:1])).workers == 2
