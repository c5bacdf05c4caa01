"""RunPod's rules: within the limits, draining before removing, no flapping on constant load, the documented numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.elasticity._scaling.policy import (
    RULES,
    Rule,
    RunPodQueueDelay,
    RunPodRequestCount,
    View,
    WorkerView,
    desired,
    rule_from,
    rule_record,
)


def view(**values: Any) -> View:
    return View(**{"now": 100.0, "min_workers": 0, "max_workers": 20, **values})


def ready(count: int, *, busy: int = 0, since: float = 0.0, idle_since: float = 90.0) -> tuple[WorkerView, ...]:
    return tuple(
        WorkerView(
            id=f"w{n}",
            phase="ready",
            running=int(n < busy),
            since=since,
            idle_since=None if n < busy else idle_since,
        )
        for n in range(count)
    )


RULE: st.SearchStrategy[Rule] = st.one_of(
    st.builds(RunPodQueueDelay, seconds=st.floats(0.5, 60.0)), st.builds(RunPodRequestCount, count=st.integers(1, 50))
)


@st.composite
def views(draw: st.DrawFn) -> View:
    most = draw(st.integers(0, 20))
    workers = ready(draw(st.integers(0, 12)), busy=draw(st.integers(0, 12)))
    starting = tuple(WorkerView(id=f"s{n}", phase="starting") for n in range(draw(st.integers(0, 6))))
    queued = draw(st.integers(0, 200))
    return view(
        min_workers=draw(st.integers(0, most)),
        max_workers=most,
        idle_timeout=draw(st.floats(0.0, 600.0)),
        queued=queued,
        oldest_queued_at=draw(st.floats(0.0, 100.0)) if queued else None,
        running=sum(one.running for one in workers),
        wake=draw(st.booleans()),
        workers=(*workers, *starting),
    )


@given(RULE, views())
def test_never_above_the_most_nor_below_the_least(rule: Rule, seen: View) -> None:
    decision = desired(rule, seen)
    assert seen.min_workers <= decision.workers <= seen.max_workers


@given(RULE, views())
def test_only_idle_workers_leave_unless_there_are_more_than_the_most(rule: Rule, seen: View) -> None:
    decision = desired(rule, seen)
    known = {worker.id: worker for worker in seen.workers}
    assert set(decision.drain) <= set(known)
    if len(seen.workers) <= seen.max_workers:
        assert all(known[id].phase == "ready" and not known[id].running for id in decision.drain)


@given(RULE, views())
def test_a_look_back_is_always_in_the_future(rule: Rule, seen: View) -> None:
    next_check = desired(rule, seen).next_check
    assert next_check is None or next_check > seen.now


@given(RULE, st.integers(0, 20), st.floats(0.0, 1000.0))
def test_a_constant_load_asks_for_a_constant_number(rule: Rule, busy: int, later: float) -> None:
    """Every worker has its call, and nothing waits: whenever one looks, the same number is wanted."""
    seen = [view(now=now, running=busy, workers=ready(busy, busy=busy)) for now in (100.0, 100.0 + later)]
    wanted = [desired(rule, one).workers for one in seen]
    assert wanted[0] == wanted[1] <= max(busy, 1)


@given(RULE)
def test_what_waits_on_a_deployment_without_workers_gets_one_at_once(rule: Rule) -> None:
    assert desired(rule, view(queued=1, oldest_queued_at=100.0)).workers == 1


@pytest.mark.parametrize(("queued", "running"), [(0, 0), (1, 0), (4, 0), (5, 0), (3, 2), (10, 7), (40, 0)])
def test_the_documented_formula_of_the_request_count(queued: int, running: int) -> None:
    """``Math.ceil((requestsInQueue + requestsInProgress) / 4)``, of the page of endpoint settings."""
    seen = view(queued=queued, oldest_queued_at=99.0 if queued else None, running=running)
    assert RunPodRequestCount().wanted(seen).workers == math.ceil((queued + running) / 4)


def test_a_request_count_of_one_gives_every_request_a_worker() -> None:
    assert RunPodRequestCount(count=1).wanted(view(queued=3, oldest_queued_at=100.0, running=2)).workers == 5


def test_the_documented_delay_is_four_seconds_and_a_worker_comes_when_it_is_over() -> None:
    rule = RunPodQueueDelay()
    early = view(now=103.9, queued=1, oldest_queued_at=100.0, running=1, workers=ready(1, busy=1))
    assert rule.wanted(early).workers == 1
    assert rule.wanted(early).next_check == 104.0
    late = view(now=104.0, queued=1, oldest_queued_at=100.0, running=1, workers=ready(1, busy=1))
    assert rule.wanted(late).workers == 2


def test_the_next_worker_comes_a_delay_after_the_last_one() -> None:
    rule = RunPodQueueDelay(seconds=4.0)
    workers = (*ready(1, busy=1), WorkerView(id="s", phase="starting", since=104.0))
    seen = view(now=105.0, queued=3, oldest_queued_at=100.0, running=1, workers=workers)
    assert rule.wanted(seen).workers == 2
    assert rule.wanted(seen).next_check == 108.0


def test_a_worker_leaves_after_the_idle_timeout_and_not_before() -> None:
    idle = ready(1, idle_since=95.0)
    assert desired(RunPodQueueDelay(), view(now=99.9, idle_timeout=5.0, workers=idle)).drain == ()
    assert desired(RunPodQueueDelay(), view(now=100.0, idle_timeout=5.0, workers=idle)).drain == ("w0",)


@given(RULE)
def test_a_journal_keeps_the_rule(rule: Rule) -> None:
    assert rule.name in RULES
    assert rule_from(rule_record(rule)) == rule
