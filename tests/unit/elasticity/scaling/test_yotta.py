"""Yotta's rule: the declared number of workers, kept whatever happens. It is `Declared`, without an idle timeout.

"If you set 2 workers, YottaLabs ensures 2 are always running", and a new count applies at once
(https://docs.yottalabs.ai/products/serverless, https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless).
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.elasticity._scaling.policy import Declared, View, WorkerView, desired, rule_from, rule_record


@st.composite
def workers(draw: st.DrawFn) -> tuple[WorkerView, ...]:
    rows: list[WorkerView] = []
    for number in range(draw(st.integers(0, 12))):
        ready = draw(st.booleans())
        running = draw(st.integers(0, 3)) if ready else 0
        idle = draw(st.floats(0, 1000)) if ready and not running else None
        phase: Any = "ready" if ready else "starting"
        rows.append(WorkerView(id=f"w{number}", phase=phase, running=running, since=float(number), idle_since=idle))
    return tuple(rows)


@st.composite
def views(draw: st.DrawFn) -> View:
    declared = draw(st.integers(1, 10))
    return View(
        now=draw(st.floats(1000, 1e6)),
        min_workers=declared,
        max_workers=declared,
        idle_timeout=None,
        queued=draw(st.integers(0, 1000)),
        oldest_queued_at=draw(st.floats(0, 1000)),
        running=draw(st.integers(0, 30)),
        workers=draw(workers()),
    )


@given(views())
def test_there_are_as_many_as_declared_whatever_the_load(view: View) -> None:
    decision = desired(Declared(), view)
    assert decision.workers == view.min_workers
    assert len(view.workers) - len(decision.drain) <= view.max_workers


@given(views())
def test_only_those_above_the_count_leave_and_they_drain(view: View) -> None:
    decision = desired(Declared(), view)
    above = max(0, len(view.workers) - view.max_workers)
    assert len(decision.drain) == above
    assert set(decision.drain) <= {worker.id for worker in view.workers}


@given(views())
def test_the_ones_that_leave_are_the_cheapest_to_lose(view: View) -> None:
    gone = set(desired(Declared(), view).drain)
    stays = [worker for worker in view.workers if worker.id not in gone]
    for worker in view.workers:
        if worker.id in gone and worker.running:
            assert all(other.running >= worker.running for other in stays)


@given(views(), st.integers(0, 1000), st.floats(0, 1e6))
def test_it_does_not_flap(view: View, queued: int, later: float) -> None:
    """With the count there, neither time nor load moves anything."""
    there = tuple(WorkerView(id=f"w{n}", phase="ready", idle_since=0.0) for n in range(view.min_workers))
    quiet = View(
        now=view.now + later,
        min_workers=view.min_workers,
        max_workers=view.max_workers,
        idle_timeout=None,
        queued=queued,
        oldest_queued_at=0.0,
        workers=there,
    )
    decision = desired(Declared(), quiet)
    assert (decision.workers, decision.drain, decision.next_check) == (view.min_workers, (), None)


@pytest.mark.parametrize(("declared", "there", "leave"), [(2, 2, 0), (2, 1, 0), (2, 0, 0), (1, 3, 2), (4, 1, 0)])
def test_the_documented_numbers(declared: int, there: int, leave: int) -> None:
    rows = tuple(WorkerView(id=f"w{n}", phase="ready", since=float(n), idle_since=float(n)) for n in range(there))
    view = View(now=10.0, min_workers=declared, max_workers=declared, idle_timeout=None, workers=rows)
    decision = desired(Declared(), view)
    assert (decision.workers, len(decision.drain)) == (declared, leave)


def test_a_journal_keeps_it() -> None:
    assert rule_from(rule_record(Declared())) == Declared()
