"""Calls that a platform only tells the way: who asks again waits, who was told keeps a worker from being idle."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest

from unigpu.elasticity._scaling.policy import View, Wish
from unigpu.emulator.contract import Launch
from unigpu.emulator.engine import DeploymentTerms, EngineRefused
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models.deployment import WorkerState

LAUNCH = Launch(argv=("serve",))


@dataclasses.dataclass(frozen=True)
class Keeping:
    """One worker for each call, and *keep* in all."""

    name: ClassVar[str] = "keeping"
    keep: int = 0

    def wanted(self, view: View) -> Wish:
        calls = view.queued + view.running
        missing = max(0, self.keep - view.stopped - len(view.workers))
        return Wish(workers=max(calls, len(view.workers) + missing if missing else 0), keep=max(self.keep, calls))


def cloud(**terms: object) -> VirtualCloud:
    cloud = VirtualCloud(behavior=Behavior(cold_start=2.0, duration=3.0))
    values: dict[str, object] = {"launch": LAUNCH, "idle_timeout": 10.0, "max_workers": 3} | terms
    cloud.engine.deployments.create("d", "test", DeploymentTerms(**values), cloud.clock.now())  # type: ignore[arg-type]  # any terms
    cloud.step(cloud.clock.now())
    return cloud


def ids(cloud: VirtualCloud, *states: WorkerState) -> list[str]:
    return [one.id for one in cloud.engine.workers("d") if one.state in states]


def test_an_ask_brings_a_worker_and_is_forgotten_when_nobody_comes_back() -> None:
    one = cloud()
    one.engine.ask("d", "caller", one.clock.now(), keep=5.0)
    one.advance(3.0)
    assert len(ids(one, WorkerState.IDLE)) == 1
    one.advance(30.0)
    assert ids(one, WorkerState.IDLE, WorkerState.BUSY) == []
    assert not one.engine.has_work()


def test_a_claimed_worker_is_not_idle_and_does_not_leave() -> None:
    one = cloud()
    one.engine.ask("d", "caller", one.clock.now(), keep=5.0)
    one.advance(3.0)
    (worker,) = ids(one, WorkerState.IDLE)
    assert one.engine.claim("d", worker, "caller", one.clock.now(), keep=None)
    one.advance(100.0)
    assert ids(one, WorkerState.BUSY) == [worker]
    one.engine.unclaim(worker, "caller", one.clock.now())
    one.advance(11.0)
    assert ids(one, WorkerState.BUSY, WorkerState.IDLE) == []


def test_a_claim_ends_by_itself_when_its_time_is_over() -> None:
    one = cloud(min_workers=1)
    one.advance(3.0)
    (worker,) = ids(one, WorkerState.IDLE)
    assert one.engine.claim("d", worker, "caller", one.clock.now(), keep=4.0)
    one.advance(5.0)
    assert ids(one, WorkerState.IDLE) == [worker]


def test_a_pinned_job_waits_for_its_worker_and_ends_with_it() -> None:
    one = cloud(min_workers=2)
    one.advance(3.0)
    first, second = ids(one, WorkerState.IDLE)
    now = one.clock.now()
    jobs = [one.engine.submit("d", {"n": n}, now, pin=first) for n in range(2)]
    other = one.engine.submit("d", {"n": 9}, now)
    one.advance(0.5)
    assert (jobs[0].worker_id, jobs[1].worker_id, other.worker_id) == (first, None, second)
    one.crash(first)
    one.advance(0.5)
    assert [job.lost for job in jobs] == [True, True]
    one.advance(5.0)
    assert other.status.name == "DONE"


def test_workers_are_kept_stopped_and_started_again_under_their_ids() -> None:
    one = cloud(rule=Keeping(keep=2))
    one.advance(3.0)
    kept = set(ids(one, WorkerState.IDLE))
    assert len(kept) == 2
    one.advance(20.0)
    assert set(ids(one, WorkerState.STOPPED)) == kept
    one.engine.ask("d", "caller", one.clock.now(), keep=5.0)
    one.advance(3.0)
    (again,) = ids(one, WorkerState.IDLE)
    assert again in kept
    one.advance(30.0)
    assert set(ids(one, WorkerState.STOPPED)) == kept


def test_a_worker_ended_by_name_is_not_kept() -> None:
    one = cloud(rule=Keeping(keep=1))
    one.advance(20.0)
    (kept,) = ids(one, WorkerState.STOPPED)
    one.engine.end_worker("d", kept, one.clock.now())
    one.advance(30.0)
    assert kept not in ids(one, WorkerState.STOPPED, WorkerState.IDLE)
    with pytest.raises(EngineRefused):
        one.engine.end_worker("d", kept, one.clock.now())


def test_a_deleted_deployment_keeps_nothing() -> None:
    one = cloud(rule=Keeping(keep=2))
    one.advance(20.0)
    one.engine.deployments.delete("d", one.clock.now())
    one.advance(5.0)
    assert one.engine.deployment_ids() == []
