from __future__ import annotations

import os
import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu._io.resilience.breaker import IN_A_ROW, JITTER, OPEN_SECONDS, PROBE_SECONDS, WINDOW, Breaker, BreakerPermit
from unigpu._io.resilience.retry_budget import CAPACITY, THROTTLE_COST, TRANSIENT_COST, RetryTokens


def half() -> float:
    return 0.5


def fail(breaker: Breaker, now: float = 0.0, key: str = "x control") -> Any:
    entry = breaker.enter(key, now)
    assert isinstance(entry, BreakerPermit)
    return breaker.record(entry, False, now, half)


def succeed(breaker: Breaker, now: float = 0.0, key: str = "x control") -> Any:
    entry = breaker.enter(key, now)
    assert isinstance(entry, BreakerPermit)
    return breaker.record(entry, True, now, half)


def opened() -> Breaker:
    breaker = Breaker()
    assert [fail(breaker) for _ in range(IN_A_ROW)] == [None] * (IN_A_ROW - 1) + ["opened"]
    return breaker


# The breaker


def test_five_failures_in_a_row_open_it_and_an_answer_between_starts_the_count_again() -> None:
    breaker = Breaker()
    changes = [fail(breaker) for _ in range(IN_A_ROW - 1)] + [succeed(breaker)]
    changes += [fail(breaker) for _ in range(IN_A_ROW)]
    assert changes == [None] * (2 * IN_A_ROW - 1) + ["opened"]
    assert breaker.state("x control", 0.0) == "open"


def test_half_of_the_last_twenty_open_it() -> None:
    breaker = Breaker()
    changes = [fail(breaker) if turn % 2 else succeed(breaker) for turn in range(WINDOW)]
    assert changes == [None] * (WINDOW - 1) + ["opened"]
    spared = Breaker()
    for turn in range(200):  # two of five fail, for ever
        assert (fail(spared) if turn % 5 in (1, 3) else succeed(spared)) is None


def test_while_it_is_open_nothing_goes_out_and_it_says_for_how_long() -> None:
    breaker = opened()
    assert breaker.enter("x control", 0.0) == OPEN_SECONDS
    assert breaker.enter("x control", 20.0) == OPEN_SECONDS - 20.0
    assert breaker.refuses("x control", 29.9)
    assert isinstance(breaker.enter("x jobs", 0.0), BreakerPermit)  # another plane


def test_exactly_one_probe_goes_out_and_decides() -> None:
    breaker = opened()
    probe = breaker.enter("x control", 30.0)
    assert isinstance(probe, BreakerPermit)
    assert probe.probe
    assert [type(breaker.enter("x control", 30.0 + n)) for n in range(20)] == [float] * 20
    assert breaker.state("x control", 30.0) == "half_open"
    assert breaker.record(probe, False, 31.0, half) == "opened"
    assert breaker.enter("x control", 31.0) == OPEN_SECONDS
    again = breaker.enter("x control", 61.0)
    assert isinstance(again, BreakerPermit)
    assert breaker.record(again, True, 61.5, half) == "closed"
    assert breaker.state("x control", 61.5) == "closed"
    assert fail(breaker, 62.0) is None  # it starts from nothing


def test_a_probe_that_told_nothing_frees_its_place() -> None:
    breaker = opened()
    probe = breaker.enter("x control", 30.0)
    assert isinstance(probe, BreakerPermit)
    breaker.leave(probe)
    assert isinstance(breaker.enter("x control", 30.0), BreakerPermit)


def test_a_probe_of_which_nothing_is_heard_is_given_up() -> None:
    breaker = opened()
    assert isinstance(breaker.enter("x control", 30.0), BreakerPermit)
    assert isinstance(breaker.enter("x control", 30.0 + PROBE_SECONDS - 1), float)
    assert isinstance(breaker.enter("x control", 30.0 + PROBE_SECONDS), BreakerPermit)


def test_calls_from_before_it_opened_neither_close_nor_keep_it() -> None:
    breaker = Breaker()
    late = [breaker.enter("x control", 0.0) for _ in range(50)]
    for _ in range(IN_A_ROW):
        fail(breaker)
    for number, entry in enumerate(late):
        assert isinstance(entry, BreakerPermit)
        assert breaker.record(entry, bool(number % 2), 1.0, half) is None
    assert breaker.enter("x control", 1.0) == OPEN_SECONDS - 1.0


def test_cleaning_up_is_never_refused_and_its_answer_closes_it() -> None:
    breaker = opened()
    lost = breaker.enter("x control", 1.0, anyway=True)
    assert isinstance(lost, BreakerPermit)
    assert breaker.record(lost, False, 1.0, half) is None
    assert breaker.enter("x control", 1.0) == OPEN_SECONDS - 1.0  # not longer because of it
    entry = breaker.enter("x control", 2.0, anyway=True)
    assert isinstance(entry, BreakerPermit)
    assert breaker.record(entry, True, 2.0, half) == "closed"


@given(st.lists(st.tuples(st.sampled_from(["ok", "fail", "leave"]), st.floats(0.0, 50.0)), max_size=200), st.integers())
def test_whatever_happens_at_most_one_probe_goes_out_in_each_pause(steps: list[tuple[str, float]], seed: int) -> None:
    breaker, now, dice = Breaker(), 0.0, random.Random(seed)
    since: float | None = None
    for step, pause in steps:
        now += pause
        entry = breaker.enter("k", now)
        if isinstance(entry, float):
            assert 0 < entry <= OPEN_SECONDS * (1 + JITTER)
            continue
        if entry.probe:
            assert since is not None
            assert now - since >= OPEN_SECONDS * (1 - JITTER)
        if step == "leave":
            breaker.leave(entry)
            continue
        change = breaker.record(entry, step == "ok", now, dice.random)
        since = now if change == "opened" else since
        assert not (entry.probe and change is None)


def test_one_probe_also_among_threads() -> None:
    breaker = opened()
    gate, got, lock = threading.Barrier(16), list[Any](), threading.Lock()

    def knock() -> None:
        gate.wait(30)
        entry = breaker.enter("x control", 40.0)
        with lock:
            got.append(entry)

    threads = [threading.Thread(target=knock) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(entry, BreakerPermit) for entry in got) == 1


def test_planes_are_forgotten_before_they_fill_the_memory() -> None:
    breaker, tokens = Breaker(), RetryTokens()
    for number in range(3_000):
        breaker.enter(f"vast worker {number}", 0.0)
        tokens.take(f"vast worker {number}", 1, 0.0)
    assert len(breaker._planes) == len(tokens._purses) == 1_000


# Tokens


def test_tokens_run_out_come_back_with_success_and_slowly_with_time() -> None:
    tokens = RetryTokens()
    taken = [tokens.take("k", TRANSIENT_COST, 0.0) for _ in range(11)]
    assert taken == [True] * 10 + [False]
    assert tokens.left("other", 0.0) == CAPACITY
    tokens.credit("k", TRANSIENT_COST, 0.0)
    assert tokens.take("k", TRANSIENT_COST, 0.0)
    assert not tokens.take("k", THROTTLE_COST, 0.0)
    assert tokens.take("k", THROTTLE_COST, 51.0)
    tokens.credit("k", 1e9, 51.0)
    assert tokens.left("k", 51.0) == CAPACITY


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 40), st.floats(-5, 60)), max_size=100))
def test_tokens_stay_between_nothing_and_full_even_if_clocks_jump(steps: list[tuple[bool, float, float]]) -> None:
    tokens, now = RetryTokens(), 100.0
    for take, amount, pause in steps:
        now += pause
        if take:
            before = tokens.left("k", now)
            assert tokens.take("k", amount, now) == (amount <= before)
        else:
            tokens.credit("k", amount, now)
        assert 0 <= tokens.left("k", now) <= CAPACITY


def test_no_token_is_lost_or_doubled_among_threads() -> None:
    tokens, lock, won = RetryTokens(refill=0.0), threading.Lock(), list[int]()

    def work() -> None:
        mine = sum(tokens.take("k", 1, 0.0) for _ in range(50))
        with lock:
            won.append(mine)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(won) == CAPACITY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_of_a_fork_goes_on_though_a_thread_of_the_parent_held_every_lock() -> None:
    breaker, tokens = opened(), RetryTokens()
    assert isinstance(breaker.enter("x control", 30.0), BreakerPermit)  # the parent's probe is out
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with breaker._lock, tokens._lock:
            held.set()
            over.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    pid = os.fork()
    if pid == 0:
        try:
            ours = breaker.enter("x control", 30.0)  # the parent's probe is not ours to wait for
            fine = isinstance(ours, BreakerPermit) and ours.probe and tokens.take("k", 1, 0.0)
            os._exit(0 if fine else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(pid, 0)
    over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 0
