"""Waits, wakes, stops and scales of a deployment that exists."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, Fault, HeldDriver, World, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu._lifecycle.diagnose import classify
from unigpu._lifecycle.ready import phase_of
from unigpu.driver import DeploymentInfo, Worker, WorkerState
from unigpu.errors import (
    DeadlineExceeded,
    DeploymentGone,
    NoWorkerReady,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
)

FAR = 1e7


def deploy(world: World, **fields: Any) -> DeploymentInfo:
    deployed = run_sync(
        life.deploy(
            world.scope(),
            spec(**fields),
            if_exists="reuse",
            wait=False,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    )
    return deployed.info


def wait(world: World, info: DeploymentInfo, *, deadline: float = FAR, scope: Any = None, **more: Any) -> Any:
    rest = {"wake": False, "need_worker": False, **more}
    return run_sync(life.wait_ready(scope or world.scope(), info, deadline=deadline, **rest))


def test_cold_is_ready_enough_where_the_least_is_none(world: World) -> None:
    info = deploy(world, workers=(0, 2))
    assert wait(world, info).state == "COLD"


def test_waking_starts_one_worker_and_waits_for_it(world: World) -> None:
    info = deploy(world, workers=(0, 2))
    ready = wait(world, info, wake=True, need_worker=True)
    assert (ready.state, ready.ready_workers) == ("READY", 1)
    assert world.cloud.log.count("fake.wake") == 1


def test_one_that_should_have_a_worker_and_stays_cold_is_woken(world: World) -> None:
    info = deploy(world, workers=(1, 2))
    (row,) = world.cloud.rows.values()
    row.started = []  # its machine was restarted
    assert wait(world, info).state == "READY"
    assert world.cloud.log.count("fake.wake") == 1


def test_one_that_may_be_cold_is_not_woken_by_who_only_waits(world: World) -> None:
    info = deploy(world, workers=(0, 2))
    with pytest.raises(DeadlineExceeded):
        wait(world, info, need_worker=True, deadline=world.clock.now() + 60)
    assert "fake.wake" not in world.cloud.log


def test_wake_returns_at_once_and_pays_for_one_start(world: World) -> None:
    info = deploy(world, workers=(0, 2))
    before = world.clock.now()
    for _ in range(3):
        woken = run_sync(life.wake(world.scope(), info, deadline=FAR))
    assert woken.state == "STARTING"
    assert world.clock.now() == before
    assert world.cloud.log.count("fake.wake") == 1


def test_a_platform_that_only_wakes_by_a_call_says_so(world: World) -> None:
    info = deploy(world, workers=(0, 2))

    class Sleepy(FakeDriver):
        wake = None  # type: ignore[assignment]  # not offered here

    with pytest.raises(UnsupportedError) as caught:
        run_sync(life.wake(world.scope(driver=Sleepy()), info, deadline=FAR))
    assert caught.value.capability == "wake"


def test_waiting_for_a_stopped_one_raises_at_once_and_says_how_to_start_it(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    run_sync(life.stop(world.scope(), info, deadline=FAR))
    before = world.clock.now()
    with pytest.raises(NoWorkerReady) as caught:
        wait(world, info)
    assert caught.value.state == "STOPPED"
    assert "start" in str(caught.value)
    assert world.clock.now() == before
    assert wait(world, info, wake=True, need_worker=True).state == "READY"


def test_stop_and_start_are_success_where_it_is_already_so(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    for _ in range(2):
        assert run_sync(life.stop(world.scope(), info, deadline=FAR)).state == "STOPPED"
    for _ in range(2):
        assert run_sync(life.start(world.scope(), info, wait=True, deadline=FAR)).state == "READY"
    run_sync(life.stop(world.scope(), info, deadline=FAR))
    assert run_sync(life.start(world.scope(), info, wait=False, deadline=FAR)).state == "STARTING"


def test_a_stop_that_takes_too_long_says_what_may_still_bill(world: World) -> None:
    info = deploy(world, workers=(1, 1))

    class Deaf(FakeDriver):
        async def stop(self, io: Any, info: DeploymentInfo, *, deadline: float) -> None:
            """Taken, and nothing comes of it."""

    with pytest.raises(DeadlineExceeded, match="was not stopped within 60 s") as caught:
        run_sync(life.stop(world.scope(driver=Deaf()), info, deadline=world.clock.now() + 60))
    assert caught.value.may_bill
    assert "teardown()" in str(caught.value)


def test_stop_where_the_platform_cannot_pause_is_refused(world: World) -> None:
    info = deploy(world, workers=(1, 1))

    class NoPause(FakeDriver):
        stop = start = None  # type: ignore[assignment]  # not offered here

    with pytest.raises(UnsupportedError):
        run_sync(life.stop(world.scope(driver=NoPause()), info, deadline=FAR))


def test_the_deadline_keeps_it_and_says_what_it_may_cost(world: World) -> None:
    world.cloud.cold_start = 500
    info = deploy(world, workers=(1, 2))
    with pytest.raises(DeadlineExceeded) as caught:
        wait(world, info, deadline=world.clock.now() + 60)
    assert caught.value.may_bill
    assert "STARTING" in str(caught.value)
    assert len(world.rows) == 1


def test_one_that_is_gone_is_said_to_be_gone(world: World) -> None:
    info = deploy(world, workers=(1, 2))
    world.cloud.rows.clear()
    for verb in (life.wake, life.stop):
        with pytest.raises(DeploymentGone):
            run_sync(verb(world.scope(), info, deadline=FAR))
    with pytest.raises(DeploymentGone):
        wait(world, info)
    with pytest.raises(DeploymentGone):
        run_sync(life.scale(world.scope(), info, workers=(1, 2), deadline=FAR))


@pytest.mark.parametrize("kind", ["lost", "refused", 503])
def test_a_few_failed_looks_are_no_news_and_many_raise(world: World, kind: Any) -> None:
    info = deploy(world, workers=(1, 2))
    world.cloud.faults.append(Fault("fake.get", kind, times=4))
    assert wait(world, info).state == "READY"
    world.cloud.faults.append(Fault("fake.get", kind, times=99))
    with pytest.raises(UniGPUError) as caught:
        wait(world, info)
    assert not isinstance(caught.value, DeadlineExceeded)


def test_progress_tells_phase_time_expectation_and_money(world: World) -> None:
    info = deploy(world, workers=(1, 2))
    wait(world, info)
    assert [p.phase for p in world.progress][-1] == "ready"
    starting = [p for p in world.progress if p.phase == "starting"]
    assert starting
    assert starting[-1].elapsed > starting[0].elapsed
    assert starting[-1].expected == (5.0, 30.0)
    assert starting[-1].rate == 1.0
    assert starting[-1].spent == pytest.approx(starting[-1].elapsed / 3600)


def test_failures_from_before_the_wait_are_no_news_of_it(world: World) -> None:
    info = deploy(world, workers=(1, 2))
    world.cloud.start_failure, world.cloud.fails_after = "exit code 1", 10**6
    world.clock.advance(100)  # ten failed starts long ago

    def heal(progress: Any) -> None:
        world.cloud.start_failure = None

    scope = life.Scope(**{**world.scope().__dict__, "progress": heal})
    assert wait(world, info, scope=scope).state == "READY"


@pytest.mark.parametrize(
    ("worker", "phase"),
    [
        (None, "placing"),
        (Worker(id="w", state=WorkerState.PLACING), "placing"),
        (Worker(id="w", state=WorkerState.STARTING), "starting"),
        (Worker(id="w", state=WorkerState.STARTING, raw_state="pulling image"), "pulling"),
        (Worker(id="w", state=WorkerState.STARTING, raw_state="loading"), "loading"),
        (Worker(id="w", state=WorkerState.BUSY), "ready"),
    ],
)
def test_phases_are_read_from_workers(worker: Worker | None, phase: str) -> None:
    info = DeploymentInfo(provider="fake", provider_name="x", id="x")
    assert phase_of(info, [] if worker is None else [worker]) == phase


def test_reasons_of_ours_win_over_words() -> None:
    assert classify("probe: it crashed with exit code 1") == "probe"
    assert classify(None, "crash_loop: pull") == "crash_loop"
    assert classify(None) == "unknown"


# -- scale ----------------------------------------------------------------------------------------------------------


def test_scale_sets_absolute_limits_and_reads_back(world: World) -> None:
    info = deploy(world, workers=(0, 1))
    scaled = run_sync(life.scale(world.scope(), info, workers=(2, 5), idle_timeout=7, deadline=FAR))
    assert (scaled.workers, scaled.idle_timeout) == ((2, 5), 7)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_of_a_scale_is_settled_by_reading(world: World, when: str) -> None:
    info = deploy(world, workers=(0, 1))
    world.cloud.faults.append(Fault("fake.patch", "lost", when=when))
    try:
        scaled = run_sync(life.scale(world.scope(), info, workers=(2, 5), deadline=FAR))
    except TransportError:
        assert when == "before"
    else:
        assert (when, scaled.workers) == ("after", (2, 5))


def test_a_busy_deployment_is_scaled_as_soon_as_it_is_not(world: World) -> None:
    info = deploy(world, workers=(0, 1))
    world.cloud.faults.append(Fault("fake.patch", 409, times=3))
    assert run_sync(life.scale(world.scope(), info, workers=(2, 5), deadline=FAR)).workers == (2, 5)
    world.cloud.faults.append(Fault("fake.patch", 409, times=10**6))
    with pytest.raises(DeadlineExceeded):
        run_sync(life.scale(world.scope(), info, workers=(2, 6), deadline=world.clock.now() + 30))


def test_a_worker_that_cannot_start_is_found_by_wait_ready_too(world: World, tmp_path: Path) -> None:
    info = deploy(world, workers=(1, 2))
    world.cloud.start_failure = "out_of_memory: killed"
    with pytest.raises(WorkerFailed) as caught:
        wait(world, info)
    assert caught.value.reason == "out_of_memory"
    assert len(world.rows) == 1  # a wait undoes nothing


def test_the_held_driver_has_no_jobs(world: World) -> None:
    from unigpu.driver import Cancels

    assert not HeldDriver().has_jobs(deploy(world))
    assert not isinstance(HeldDriver(), Cancels)
