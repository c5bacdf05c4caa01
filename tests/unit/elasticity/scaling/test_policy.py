"""The scaling rules as pure functions: limits, draining, no flapping, and worked numbers."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.elasticity._scaling.policy import (
    RULES,
    Declared,
    QueueDelay,
    RequestsPerWorker,
    Rule,
    View,
    WorkerView,
    desired,
    rule_from,
    rule_record,
)

rules: st.SearchStrategy[Rule] = st.one_of(
    st.builds(RequestsPerWorker, st.none() | st.floats(0.5, 20)),
    st.builds(QueueDelay, st.floats(0.1, 60)),
    st.builds(Declared),
)


@st.composite
def views(draw: st.DrawFn) -> View:
    now = draw(st.floats(0, 1e4))
    least = draw(st.integers(0, 4))
    workers: list[WorkerView] = []
    for n in range(draw(st.integers(0, 8))):
        phase = draw(st.sampled_from(["starting", "ready"]))
        running = draw(st.integers(0, 3)) if phase == "ready" else 0
        idle = now - draw(st.floats(0, 500)) if phase == "ready" and not running else None
        workers.append(WorkerView(id=f"w{n}", phase=phase, running=running, since=float(n), idle_since=idle))
    queued = draw(st.integers(0, 30))
    return View(
        now=now,
        min_workers=least,
        max_workers=least + draw(st.integers(0, 5)),
        concurrency=draw(st.integers(1, 4)),
        idle_timeout=draw(st.none() | st.floats(0, 300)),
        queued=queued,
        oldest_queued_at=now - draw(st.floats(0, 100)) if queued else None,
        running=sum(worker.running for worker in workers),
        wake=draw(st.booleans()),
        workers=tuple(workers),
    )


@given(rules, views())
def test_the_limits_hold_and_only_what_may_leave_leaves(rule: Rule, view: View) -> None:
    decision = desired(rule, view)
    alive = {worker.id: worker for worker in view.workers}
    assert decision.workers <= max(view.max_workers, 0)
    assert decision.workers >= min(view.min_workers, view.max_workers)
    if view.wake and view.max_workers:
        assert decision.workers >= 1
    assert len(set(decision.drain)) == len(decision.drain)
    assert set(decision.drain) <= set(alive)
    # Growing and draining never happen at once, and what drains is what is missing from the goal.
    assert len(alive) - len(decision.drain) <= decision.workers or not decision.drain
    if decision.drain:
        assert decision.workers == len(alive) - len(decision.drain)
    if len(alive) <= view.max_workers:
        for id in decision.drain:
            worker = alive[id]
            assert worker.phase == "ready"
            assert not worker.running
            assert view.idle_timeout is not None
            assert worker.idle_since is not None
            assert view.now - worker.idle_since >= view.idle_timeout - 1e-6
    if decision.next_check is not None and not decision.drain:
        assert decision.next_check > view.now


@given(rules, views())
def test_above_the_most_the_busiest_stay(rule: Rule, view: View) -> None:
    decision = desired(rule, view)
    if len(view.workers) <= view.max_workers:
        return
    assert len(view.workers) - len(decision.drain) == view.max_workers
    kept = [worker for worker in view.workers if worker.id not in decision.drain]
    left = [worker for worker in view.workers if worker.id in decision.drain]
    most_left = max(worker.running for worker in left)
    assert all(worker.running >= most_left for worker in kept)


@given(rules, views())
def test_asking_again_after_doing_it_changes_nothing(rule: Rule, view: View) -> None:
    first = desired(rule, view)
    kept = tuple(worker for worker in view.workers if worker.id not in first.drain)
    new = tuple(
        WorkerView(id=f"new{n}", phase="starting", since=view.now) for n in range(max(0, first.workers - len(kept)))
    )
    running = sum(worker.running for worker in kept)
    again = desired(rule, replace(view, workers=(*kept, *new), running=running))
    assert again.drain == ()
    assert again.workers == first.workers


@given(rules, st.integers(1, 40))
def test_the_busy_are_never_asked_to_leave_for_want_of_load(rule: Rule, count: int) -> None:
    workers = tuple(WorkerView(id=f"w{n}", phase="ready", running=1) for n in range(count))
    view = View(now=100.0, min_workers=0, max_workers=count, idle_timeout=0.0, running=count, workers=workers)
    assert desired(rule, view).drain == ()


@pytest.mark.parametrize(
    ("queued", "running", "target", "wanted"),
    [
        (0, 0, None, 0),
        (1, 0, None, 1),
        (4, 0, None, 2),
        (5, 0, None, 3),
        (3, 2, 5.0, 1),
        (4, 2, 5.0, 2),
        (1, 0, 0.5, 2),
    ],
)
def test_requests_per_worker(queued: int, running: int, target: float | None, wanted: int) -> None:
    view = View(now=0, min_workers=0, max_workers=99, concurrency=2, queued=queued, running=running)
    assert RequestsPerWorker(target).wanted(view).workers == wanted
    assert wanted == math.ceil((queued + running) / (target or 2))


def test_queue_delay_adds_one_worker_at_a_time_and_only_after_the_delay() -> None:
    rule = QueueDelay(4.0)
    view = View(now=10.0, min_workers=0, max_workers=9, queued=50, oldest_queued_at=10.0)
    assert desired(rule, view).workers == 1
    one = (WorkerView(id="w0", phase="starting", since=10.0),)
    assert desired(rule, replace(view, now=20.0, workers=one)).workers == 1  # one is on its way
    ready = (WorkerView(id="w0", phase="ready", running=1),)
    early = desired(rule, replace(view, now=13.9, workers=ready, running=1))
    assert (early.workers, early.next_check) == (1, 14.0)
    assert desired(rule, replace(view, now=14.0, workers=ready, running=1)).workers == 2


def test_an_idle_worker_leaves_at_its_timeout_and_the_check_is_set_for_it() -> None:
    worker = WorkerView(id="w0", phase="ready", idle_since=100.0)
    view = View(now=130.0, min_workers=0, max_workers=1, idle_timeout=60.0, workers=(worker,))
    waiting = desired(RequestsPerWorker(), view)
    assert (waiting.workers, waiting.drain, waiting.next_check) == (1, (), 160.0)
    leaving = desired(RequestsPerWorker(), replace(view, now=160.0))
    assert (leaving.workers, leaving.drain) == (0, ("w0",))
    assert desired(RequestsPerWorker(), replace(view, now=160.0, idle_timeout=None)).drain == ()


@pytest.mark.parametrize(("least", "queued", "left"), [(0, 0, 3), (2, 0, 1), (0, 2, 1), (3, 0, 0), (1, 1, 2)])
def test_of_those_that_may_leave_only_those_above_least_and_load_do(least: int, queued: int, left: int) -> None:
    workers = tuple(WorkerView(id=f"w{n}", phase="ready", idle_since=float(n)) for n in range(3))
    view = View(now=500.0, min_workers=least, max_workers=3, idle_timeout=60.0, queued=queued, workers=workers)
    assert desired(RequestsPerWorker(), view).drain == ("w0", "w1", "w2")[:left]  # the longest idle first


def test_declared_replicas_follow_the_least_whatever_the_load() -> None:
    view = View(now=0, min_workers=3, max_workers=3, queued=500, oldest_queued_at=0.0)
    assert desired(Declared(), view).workers == 3


@given(rules)
def test_a_rule_survives_the_journal(rule: Rule) -> None:
    assert rule_from(rule_record(rule)) == rule


def test_a_rule_of_a_later_release_is_read_as_the_plain_one() -> None:
    assert rule_from({"rule": "moon", "phase": 3}) == RequestsPerWorker()
    assert rule_from({}) == RequestsPerWorker()
    assert {"declared", "queue_delay", "requests"} <= set(RULES)
