"""One call: submitted once, two deadlines, nothing lost with a connection, and what became of it."""

from __future__ import annotations

from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, Fault, HeldDriver, World, options, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.driver import CallClass, DeploymentInfo, Result
from unigpu.errors import (
    DeadlineExceeded,
    DeploymentGone,
    JobCancelled,
    JobExpired,
    JobFailed,
    NoWorkerReady,
    ResultUnknown,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
    WorkerLost,
)

FAR = 1e7


def deploy(world: World, *, scope: Any = None, **fields: Any) -> DeploymentInfo:
    deployed = run_sync(
        life.deploy(
            scope or world.scope(),
            spec(**{"workers": (0, 1), **fields}),
            if_exists="reuse",
            wait=True,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    )
    return deployed.info


def invoke(world: World, info: DeploymentInfo, input: Any = None, *, scope: Any = None, **more: Any) -> Result:
    return run_sync(life.invoke(scope or world.scope(), info, input or {"a": 1}, options(**more)))


def the_job(world: World) -> Any:
    (job,) = world.cloud.jobs.values()
    return job


class Vague(FakeDriver):
    """Its submit takes no id of ours."""

    submit_call = CallClass.USER_DECIDES


# -- the result -----------------------------------------------------------------------------------------------------


def test_a_call_wakes_a_cold_deployment_and_returns_what_the_handler_returned(world: World) -> None:
    info = deploy(world)
    result = invoke(world, info, {"a": 1, "seconds": 3})
    assert result.output == {"echo": {"a": 1, "seconds": 3}}
    assert result.job_id == the_job(world).id
    assert result.worker_id == "w0"
    assert result.timing.total == pytest.approx(13, abs=2)  # ten of them cold
    assert result.timing.cold_start is None  # the platform does not tell, and nobody guesses


def test_a_given_job_id_is_used(world: World) -> None:
    info = deploy(world)
    result = run_sync(life.invoke(world.scope(), info, {}, options(), job_id="mine"))
    assert result.job_id == "mine"


def test_a_handlers_error_is_data(world: World) -> None:
    info = deploy(world)
    with pytest.raises(JobFailed) as caught:
        invoke(world, info, {"raise": "no such page"})
    assert (caught.value.error_type, caught.value.error_message) == ("ValueError", "no such page")
    assert not isinstance(caught.value, WorkerLost)


def test_a_lost_worker_is_told_and_only_an_idempotent_call_runs_again(world: World) -> None:
    info = deploy(world)
    world.cloud.lose_worker = 1
    with pytest.raises(WorkerLost):
        invoke(world, info)
    assert len(world.cloud.jobs) == 1
    world.cloud.lose_worker = 2
    assert invoke(world, info, idempotent=True).output
    assert len(world.cloud.jobs) == 4
    world.cloud.lose_worker = 99
    with pytest.raises(WorkerLost):
        invoke(world, info, idempotent=True)
    assert len(world.cloud.jobs) == 7


def test_a_job_that_somebody_cancels_is_said_to_be_cancelled(world: World) -> None:
    info = deploy(world)
    job = run_sync(life.submit(world.scope(), info, {"seconds": 1000}, options()))
    cancelled = run_sync(life.job_cancel(world.scope(), info, job.id, deadline=FAR))
    assert cancelled.status == "CANCELLED"
    with pytest.raises(JobCancelled):
        run_sync(life.job_result(world.scope(), info, job.id, options()))


def test_a_job_that_is_not_known_any_more_has_expired(world: World) -> None:
    info = deploy(world)
    for call in (
        life.job_status(world.scope(), info, "nope", deadline=FAR),
        life.job_result(world.scope(), info, "nope", options()),
    ):
        with pytest.raises(JobExpired):
            run_sync(call)  # type: ignore[arg-type]  # either coroutine


def test_a_submitted_job_outlives_the_call(world: World) -> None:
    info = deploy(world)
    job = run_sync(life.submit(world.scope(), info, {"seconds": 3}, options()))
    assert run_sync(life.job_status(world.scope(), info, job.id, deadline=FAR)).status == "QUEUED"
    assert run_sync(life.job_result(world.scope(), info, job.id, options())).output


# -- two deadlines --------------------------------------------------------------------------------------------------


def test_no_worker_in_time_says_state_cost_and_when_to_try_again_and_cancels_the_job(world: World) -> None:
    world.cloud.cold_start = 1000
    info = deploy(world)
    before = world.clock.now()
    with pytest.raises(NoWorkerReady) as caught:
        invoke(world, info, start_timeout=20)
    error = caught.value
    assert world.clock.now() - before == pytest.approx(20, abs=1.5)
    assert (error.state, error.maybe_executed, error.retryable) == ("STARTING", False, True)
    assert error.retry_after == pytest.approx(10, abs=1.5)  # the facts say 30 s at most
    assert error.may_bill
    assert the_job(world).status == "CANCELLED"
    assert error.job_id == the_job(world).id


def test_keep_leaves_the_job_queued_and_its_result_can_be_fetched_later(world: World) -> None:
    world.cloud.cold_start = 50
    info = deploy(world)
    with pytest.raises(NoWorkerReady) as caught:
        invoke(world, info, start_timeout=20, on_timeout="keep")
    assert the_job(world).status == "QUEUED"
    assert caught.value.job_id == the_job(world).id
    assert "left in the queue" in str(caught.value)
    assert run_sync(life.job_result(world.scope(), info, the_job(world).id, options())).output


def test_waiting_behind_other_calls_counts_against_the_whole_only(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    assert invoke(world, info, {"queue": 80}, start_timeout=20, timeout=200).output
    with pytest.raises(DeadlineExceeded) as caught:
        invoke(world, info, {"queue": 500}, start_timeout=20, timeout=60)
    assert not isinstance(caught.value, NoWorkerReady)


def test_start_timeout_counts_only_while_no_worker_is_ready(world: World) -> None:
    world.cloud.cold_start = 15
    info = deploy(world)
    assert invoke(world, info, {"seconds": 90}, start_timeout=20).output


def test_a_worker_that_is_lost_in_between_adds_only_its_own_cold_start(world: World) -> None:
    world.cloud.cold_start = 15
    info = deploy(world)
    began, lost = world.clock.now(), [0]

    def lose(now: float) -> None:
        if now > began + 40 and not lost[0]:
            lost[0] += 1
            (row,) = world.cloud.rows.values()
            row.started = [now]

    world.clock.on_jump(lose)
    assert invoke(world, info, {"queue": 60}, start_timeout=40, timeout=300).output  # 15 s and 15 s without a worker
    assert lost == [1]


@pytest.mark.parametrize("tells", [True, False])
def test_a_job_that_runs_has_a_worker_whatever_the_count_says(world: World, tells: bool) -> None:
    info = deploy(world, workers=(1, 1))
    world.cloud.tells_ready = tells
    world.cloud.ready = lambda row: 0  # type: ignore[method-assign]  # a platform that counts idle workers only
    assert invoke(world, info, {"seconds": 80}, start_timeout=20).output


@pytest.mark.parametrize("tells", [True, False])
def test_readiness_is_read_from_the_deployment_where_jobs_do_not_tell(world: World, tells: bool) -> None:
    world.cloud.tells_ready = tells
    world.cloud.cold_start = 15
    info = deploy(world)
    assert invoke(world, info, {"queue": 60}, start_timeout=30, timeout=300).output
    world.cloud.rows.clear()
    world.cloud.cold_start = 1000
    info = deploy(world, name="other")
    with pytest.raises(NoWorkerReady):
        invoke(world, info, start_timeout=30)


def test_the_whole_ends_a_call_that_runs_too_long(world: World) -> None:
    info = deploy(world)
    before = world.clock.now()
    with pytest.raises(DeadlineExceeded) as caught:
        invoke(world, info, {"seconds": 1000}, timeout=30)
    assert world.clock.now() - before == pytest.approx(30, abs=1)
    assert not isinstance(caught.value, NoWorkerReady)
    assert isinstance(caught.value, TimeoutError)
    assert the_job(world).status == "CANCELLED"


def test_timeout_may_count_from_the_first_ready_worker(world: World) -> None:
    world.cloud.cold_start = 100
    info = deploy(world)
    long = {"start_timeout": 200, "timeout": 20}
    with pytest.raises(DeadlineExceeded):
        invoke(world, info, {"seconds": 10}, **long)
    world.cloud.rows.clear()
    info = deploy(world, name="other")
    assert invoke(world, info, {"seconds": 10}, timeout_from="ready", **long).output
    with pytest.raises(DeadlineExceeded):
        invoke(world, info, {"seconds": 40}, timeout_from="ready", **long)


def test_a_job_that_was_done_when_it_should_be_cancelled_is_no_loss(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    real: Any = world.cloud.on_cancel

    def late(url: str, body: Any) -> Any:
        world.clock.advance(100)
        return real(url, body)

    world.cloud.on_cancel = late  # type: ignore[method-assign]  # it ends while we cancel
    assert invoke(world, info, {"seconds": 60}, timeout=30).output


def test_where_it_cannot_be_cancelled_the_error_says_that_it_runs_on(world: World) -> None:
    info = deploy(world)
    world.cloud.cancels = False
    with pytest.raises(DeadlineExceeded) as caught:
        invoke(world, info, {"seconds": 1000}, timeout=30)
    assert caught.value.maybe_executed is True
    assert any("job" in text for text in caught.value.may_bill)
    assert "may still run" in str(caught.value)


def test_workers_that_cannot_start_end_the_wait_before_its_time(world: World) -> None:
    info = deploy(world)
    world.cloud.start_failure = "crash_loop: exit code 1"
    before = world.clock.now()
    with pytest.raises(WorkerFailed) as caught:
        invoke(world, info, start_timeout=10_000)
    assert world.clock.now() < before + 100
    assert caught.value.logs
    assert the_job(world).status == "CANCELLED"


# -- waking ---------------------------------------------------------------------------------------------------------


def test_a_call_that_may_not_wake_raises_before_anything_is_sent(world: World) -> None:
    info = deploy(world)
    with pytest.raises(NoWorkerReady) as caught:
        invoke(world, info, wake=False)
    assert (caught.value.state, caught.value.retry_after) == ("COLD", 30.0)
    assert "wake" in str(caught.value)
    assert world.cloud.jobs == {}
    run_sync(life.wait_ready(world.scope(), info, wake=True, need_worker=True, deadline=FAR))
    assert invoke(world, info, wake=False).output


def test_a_stopped_deployment_is_started_by_a_waiting_call(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    job = run_sync(life.submit(world.scope(), info, {"seconds": 5}, options()))
    row = world.cloud.rows["deployment", info.provider_name]
    row.stopped, row.started = True, []
    assert run_sync(life.job_result(world.scope(), info, job.id, options())).output
    row.stopped, row.started = True, []
    job = run_sync(life.submit(world.scope(driver=NoConflict(world)), info, {"seconds": 5}, options()))
    with pytest.raises(NoWorkerReady) as caught:
        run_sync(life.job_result(world.scope(), info, job.id, options(wake=False)))
    assert caught.value.state == "STOPPED"


class NoConflict(FakeDriver):
    """A platform that queues for a stopped deployment."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def submit(self, io: Any, info: DeploymentInfo, call_: Any) -> Any:
        row = self.world.cloud.rows["deployment", info.provider_name]
        row.stopped = False
        job = await super().submit(io, info, call_)
        row.stopped, row.started = True, []
        return job


def test_the_clients_single_flight_is_used_for_starting(world: World) -> None:
    info = deploy(world, workers=(1, 1))
    row = world.cloud.rows["deployment", info.provider_name]
    row.stopped, row.started = True, []
    asked: list[str] = []

    async def start(stopped: DeploymentInfo, deadline: float) -> None:
        asked.append(stopped.provider_name)
        row.stopped = False
        world.cloud.fill(row)

    run_sync(life.wait_ready(world.scope(start=start), info, wake=True, need_worker=True, deadline=FAR))
    assert asked == [info.provider_name]


# -- lost connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["lost", 503])
@pytest.mark.parametrize("times", [1, 2])
def test_a_lost_answer_of_a_submit_runs_the_job_once(world: World, when: str, kind: Any, times: int) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.submit", kind, when=when, times=times))
    assert invoke(world, info).output
    assert the_job(world).runs == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_where_the_platform_gives_the_id_a_lost_submit_is_unknown_and_never_repeated(world: World, when: str) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.submit", "lost", when=when))
    with pytest.raises(ResultUnknown) as caught:
        invoke(world, info, scope=world.scope(driver=Vague()))
    assert caught.value.maybe_executed is True
    assert len(world.cloud.jobs) == (when == "after")
    world.cloud.faults.append(Fault("fake.submit", "lost", when=when))
    assert invoke(world, info, scope=world.scope(driver=Vague()), idempotent=True).output


def test_a_submit_that_never_left_is_the_error_itself(world: World) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.submit", "refused"))
    with pytest.raises(TransportError) as caught:
        invoke(world, info)
    assert caught.value.maybe_executed is False
    assert world.cloud.jobs == {}


@pytest.mark.parametrize("kind", ["lost", "refused", 503])
def test_a_connection_lost_while_waiting_loses_nothing(world: World, kind: Any) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.status", kind, times=4))
    assert invoke(world, info, {"seconds": 5}).output
    assert the_job(world).runs == 1


def test_a_platform_that_stays_away_leaves_an_unknown_result_with_the_jobs_id(world: World) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.status", "lost", times=10**6))
    with pytest.raises(ResultUnknown) as caught:
        invoke(world, info, {"seconds": 5})
    assert caught.value.job_id == the_job(world).id
    world.cloud.faults.clear()
    assert run_sync(life.job_result(world.scope(), info, the_job(world).id, options())).output


def test_a_platform_that_stays_away_beyond_the_deadline_is_a_deadline(world: World) -> None:
    info = deploy(world)
    world.cloud.faults.append(Fault("fake.status", "lost", times=10**6))
    with pytest.raises(UniGPUError) as caught:
        invoke(world, info, {"seconds": 5}, timeout=0.12)
    assert isinstance(caught.value, DeadlineExceeded)


def test_a_deployment_that_is_gone_is_said_to_be_gone(world: World) -> None:
    info = deploy(world)
    world.cloud.rows.clear()
    with pytest.raises(DeploymentGone):
        invoke(world, info)


# -- platforms without jobs -----------------------------------------------------------------------------------------


def held(world: World, driver: HeldDriver, **more: Any) -> Result:
    info = deploy(world, scope=world.scope(driver=driver), workers=(1, 1))
    return invoke(world, info, scope=world.scope(driver=driver), **more)


def test_a_held_call_gets_both_deadlines_and_its_total(world: World) -> None:
    driver = HeldDriver()
    now = world.clock.now() + 10  # the deploy's cold start
    result = held(world, driver, start_timeout=7, timeout=50)
    (call,) = driver.calls
    assert result.timing.total == pytest.approx(1.0)
    assert call.start_deadline == pytest.approx(now + 7, abs=2)
    assert call.deadline == pytest.approx(now + 50, abs=2)


def test_keep_without_jobs_is_refused_before_sending(world: World) -> None:
    driver = HeldDriver()
    with pytest.raises(UnsupportedError) as caught:
        held(world, driver, on_timeout="keep")
    assert caught.value.capability == "submit"
    assert driver.calls == []


def test_a_held_call_whose_answer_is_lost_is_unknown_and_not_repeated(world: World) -> None:
    driver = HeldDriver()
    driver.replies = [TransportError("reset")]
    with pytest.raises(ResultUnknown):
        held(world, driver)
    assert len(driver.calls) == 1


def test_a_held_call_that_never_left_is_the_error_itself(world: World) -> None:
    driver = HeldDriver()
    driver.replies = [TransportError("refused", never_sent=True)]
    with pytest.raises(TransportError, match="refused"):
        held(world, driver)


def test_a_held_call_whose_worker_is_lost_runs_again_only_when_idempotent(world: World) -> None:
    driver = HeldDriver()
    driver.replies = [WorkerLost("gone")]
    with pytest.raises(WorkerLost):
        held(world, driver)
    driver.replies = [WorkerLost("gone")]
    assert held(world, driver, idempotent=True).output
    assert len({call.job_id for call in driver.calls}) == 3


def test_jobs_where_there_are_none_are_refused(world: World) -> None:
    driver = HeldDriver()
    info = deploy(world, scope=world.scope(driver=driver))
    with pytest.raises(UnsupportedError):
        run_sync(life.submit(world.scope(driver=driver), info, {}, options()))
