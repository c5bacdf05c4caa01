"""Vast's rule: within the limits, draining before removing, no flapping on constant load, the documented numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.elasticity._scaling.policy import RULES, VastLoad, View, WorkerView, desired, rule_from, rule_record


def workers(ready: int, starting: int = 0, *, running: int = 0, idle_since: float = 0.0) -> tuple[WorkerView, ...]:
    """Ready ones share the running calls, from the first."""
    base, rest = divmod(running, ready) if ready else (0, 0)
    rows = [
        WorkerView(
            id=f"r{n}",
            phase="ready",
            running=base + (n < rest),
            since=0.0,
            idle_since=None if base + (n < rest) else idle_since,
        )
        for n in range(ready)
    ]
    return (*rows, *(WorkerView(id=f"s{n}", phase="starting") for n in range(starting)))


def view(**values: Any) -> View:
    return View(**{"now": 0.0, "min_workers": 0, "max_workers": 20, **values})


RULE = st.builds(
    VastLoad,
    perf=st.floats(1.0, 1e4),
    cost=st.floats(1.0, 1e3),
    min_load=st.floats(0.0, 1e4),
    min_cold_load=st.floats(0.0, 1e4),
    target_util=st.floats(0.1, 1.0),
    cold_mult=st.floats(0.0, 5.0),
    cold_workers=st.integers(0, 20),
    target_queue_time=st.floats(0.1, 60.0),
)


@st.composite
def views(draw: st.DrawFn) -> View:
    most = draw(st.integers(0, 20))
    least = draw(st.integers(0, most))
    ready = draw(st.integers(0, 12))
    running = draw(st.integers(0, 60)) if ready else 0
    return view(
        now=draw(st.floats(0.0, 1e5)),
        min_workers=least,
        max_workers=most,
        concurrency=draw(st.integers(1, 8)),
        idle_timeout=draw(st.none() | st.floats(0.0, 600.0)),
        queued=draw(st.integers(0, 200)),
        running=running,
        stopped=draw(st.integers(0, 20)),
        workers=workers(ready, draw(st.integers(0, 6)), running=running),
    )


@given(RULE, views())
def test_never_above_the_most_nor_below_the_least(rule: VastLoad, seen: View) -> None:
    decision = desired(rule, seen)
    assert seen.min_workers <= decision.workers <= seen.max_workers
    assert 0 <= decision.keep <= seen.max_workers


@given(RULE, views())
def test_only_workers_that_are_there_leave_and_busy_ones_only_above_the_most(rule: VastLoad, seen: View) -> None:
    decision = desired(rule, seen)
    known = {worker.id: worker for worker in seen.workers}
    assert set(decision.drain) <= set(known)
    if len(seen.workers) <= seen.max_workers:
        assert all(not known[id].running and known[id].phase == "ready" for id in decision.drain)


@given(RULE, views())
def test_more_waiting_calls_never_ask_for_fewer_workers(rule: VastLoad, seen: View) -> None:
    more = View(**{**{name: getattr(seen, name) for name in View.__dataclass_fields__}, "queued": seen.queued + 5})
    assert rule.wanted(more).workers >= rule.wanted(seen).workers


@given(RULE, st.integers(0, 30), st.integers(1, 4))
def test_constant_load_settles_and_stays(rule: VastLoad, running: int, concurrency: int) -> None:
    """Workers come, get ready and take the same calls; after some rounds nothing changes any more."""
    alive, stopped = 0, 0
    history: list[tuple[int, int]] = []
    for step in range(60):
        taken = min(running, alive * concurrency)
        seen = view(
            now=1000.0 * step,
            concurrency=concurrency,
            idle_timeout=60.0,
            queued=running - taken,
            running=taken,
            stopped=stopped,
            workers=workers(alive, running=taken, idle_since=-1e9),
        )
        decision = desired(rule, seen)
        for _ in decision.drain:
            alive -= 1
            if alive + stopped < decision.keep:
                stopped += 1
        started = max(0, decision.workers - alive)
        stopped -= min(stopped, started)
        alive += started
        while stopped and stopped + alive > max(decision.keep, decision.workers):
            stopped -= 1
        history.append((alive, stopped))
    assert len(set(history[-20:])) == 1, history[-20:]


@pytest.mark.parametrize(
    ("busy", "slots", "wanted"),
    [(9, 10, 1), (10, 10, 2), (18, 10, 2), (19, 10, 3)],
)
def test_a_utilisation_of_nine_tenths_keeps_eleven_percent_spare(busy: int, slots: int, wanted: int) -> None:
    """1 / 0.9 - 1 = 11 % (https://docs.vast.ai/guides/serverless/serverless-parameters.md)."""
    ready = -(-busy // slots)
    seen = view(concurrency=slots, running=busy, workers=workers(ready, running=busy))
    assert VastLoad(perf=100.0 * slots, cold_mult=0.0).wanted(seen).workers == wanted


def test_a_least_load_of_one_is_one_worker_and_of_n_times_perf_is_n() -> None:
    assert VastLoad(min_load=1.0).wanted(view()).workers == 1
    assert VastLoad(min_load=300.0, perf=100.0).wanted(view()).workers == 3
    assert VastLoad().wanted(view()).workers == 0


def test_a_queue_is_worked_off_within_its_time() -> None:
    """30 calls of 100 at 100 a second: one worker needs 30 s, three need the 10 s that are allowed."""
    assert VastLoad(perf=100.0, cost=100.0, target_queue_time=10.0, cold_mult=0.0).wanted(view(queued=30)).workers == 3


def test_the_total_is_a_multiple_of_the_hot_load_and_counts_stopped_ones() -> None:
    rule = VastLoad(min_load=200.0, perf=100.0, cold_mult=2.5)
    assert rule.wanted(view()).keep == 5
    assert rule.wanted(view(stopped=3, workers=workers(2, running=0))).workers == 2
    assert rule.wanted(view(stopped=0, workers=workers(2, running=0))).workers == 5


def test_the_defaults_of_the_command_line_rent_five_machines_at_once() -> None:
    """cold_workers 5 with no load (vastai 1.9.1, cli/commands/endpoints.py): the surprise of the first bill."""
    rule = VastLoad(min_load=0.0, cold_workers=5, cold_mult=2.5)
    assert desired(rule, view()).workers == 5
    idle = view(now=1000.0, workers=workers(5), idle_timeout=60.0)
    assert len(desired(rule, idle).drain) == 5
    assert desired(rule, view(stopped=5)).workers == 0


def test_zero_total_needs_all_three_cold_settings_at_zero() -> None:
    assert VastLoad(cold_workers=0, cold_mult=0.0, min_cold_load=0.0).wanted(view()).keep == 0
    assert VastLoad(min_cold_load=150.0, perf=100.0).wanted(view()).keep == 2


def test_a_record_keeps_the_rule() -> None:
    rule = VastLoad(perf=42.0, cold_workers=3)
    assert rule_from(rule_record(rule)) == rule
    assert RULES["vast_load"] is VastLoad
