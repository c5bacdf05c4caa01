"""Streams: every chunk once and in order, the result after the end, and no job left behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, Fault, HeldDriver, World, options, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import iter_sync, run_sync
from unigpu.driver import DeploymentInfo
from unigpu.errors import (
    DeadlineExceeded,
    JobFailed,
    NoWorkerReady,
    StreamInterrupted,
    TransportError,
    UnsupportedError,
)

FAR = 1e7


def deploy(world: World, **fields: Any) -> DeploymentInfo:
    return run_sync(
        life.deploy(
            world.scope(),
            spec(**{"workers": (0, 1), **fields}),
            if_exists="reuse",
            wait=True,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    ).info


def stream(world: World, info: DeploymentInfo, input: Any, *, scope: Any = None, **more: Any) -> life.StreamRun:
    return life.stream(scope or world.scope(), info, input, options(**more))


TEN = {"chunks": 10, "every": 1.0, "seconds": 10.5}


def test_every_chunk_comes_once_in_order_and_the_result_after_the_end(world: World) -> None:
    run = stream(world, deploy(world), TEN)
    assert run.result is None
    assert list(iter_sync(run)) == list(range(10))
    assert run.result is not None
    assert run.result.job_id == run.job_id
    assert run.result.timing.total == pytest.approx(20.5, abs=3)


def test_nothing_is_sent_before_the_first_chunk_is_asked_for(world: World) -> None:
    info = deploy(world)
    world.cloud.log.clear()
    run = stream(world, info, TEN)
    assert world.cloud.log == []
    run_sync(run.aclose())
    assert world.cloud.log == []


def test_leaving_early_cancels_the_job(world: World) -> None:
    run = stream(world, deploy(world), TEN)
    for chunk in iter_sync(run):
        if chunk == 3:
            break
    run_sync(run.aclose())
    (job,) = world.cloud.jobs.values()
    assert job.status == "CANCELLED"
    assert list(iter_sync(run)) == []


def test_the_stream_of_a_job_that_was_there_leaves_it(world: World) -> None:
    info = deploy(world)
    job = run_sync(life.submit(world.scope(), info, TEN, options()))
    for chunk in iter_sync(life.job_stream(world.scope(), info, job.id, options())):
        assert chunk == 0
        break
    again = life.job_stream(world.scope(), info, job.id, options())
    assert list(iter_sync(again)) == list(range(10))
    assert again.result is not None


@pytest.mark.parametrize("kind", ["lost", "refused", 503])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_connection_loses_and_doubles_no_chunk(world: World, kind: Any, when: str) -> None:
    run = stream(world, deploy(world), TEN)
    for skip in (1, 4, 9):
        world.cloud.faults.append(Fault("fake.chunks", kind, when=when, times=2, skip=skip))
    assert list(iter_sync(run)) == list(range(10))


def test_a_stream_that_stays_broken_gives_what_had_arrived(world: World) -> None:
    run = stream(world, deploy(world), TEN)
    got: list[Any] = []

    def read() -> None:
        for chunk in iter_sync(run):
            got.append(chunk)
            if chunk == 2:
                world.cloud.faults.append(Fault("fake.chunks", "lost", times=10**6))

    with pytest.raises(StreamInterrupted) as caught:
        read()
    assert caught.value.partial == tuple(got) == (0, 1, 2)


def test_a_failing_handler_gives_its_chunks_and_then_its_error(world: World) -> None:
    run = stream(world, deploy(world), {**TEN, "raise": "no such page"})
    got: list[Any] = []
    with pytest.raises(JobFailed, match="no such page"):
        got.extend(iter_sync(run))
    assert got == list(range(10))


def test_both_deadlines_hold(world: World) -> None:
    world.cloud.cold_start = 100
    info = deploy(world)
    with pytest.raises(NoWorkerReady):
        list(iter_sync(stream(world, info, TEN, start_timeout=20)))
    world.cloud.cold_start = 1
    with pytest.raises(DeadlineExceeded) as caught:
        list(iter_sync(stream(world, info, {**TEN, "every": 100.0, "seconds": 1e6}, timeout=50)))
    assert not isinstance(caught.value, NoWorkerReady)
    assert all(job.status == "CANCELLED" for job in world.cloud.jobs.values())


def test_a_reader_who_is_cancelled_takes_the_job_along(world: World) -> None:
    virtual = World(world.state_dir, virtual=True)
    info = deploy(virtual)

    async def main() -> None:
        run = stream(virtual, info, {**TEN, "seconds": 1e6}, scope=virtual.scope(sync=False))
        reader: asyncio.Task[Any] | None = None

        async def read() -> None:
            async for chunk in run:
                if chunk == 4:
                    assert reader is not None
                    reader.cancel()

        reader = asyncio.ensure_future(read())
        with pytest.raises(asyncio.CancelledError):
            await reader

    asyncio.run(main())
    (job,) = virtual.cloud.jobs.values()
    assert job.status == "CANCELLED"


def test_a_call_that_may_not_wake_raises_before_anything_is_sent(world: World) -> None:
    run = stream(world, deploy(world), TEN, wake=False)
    with pytest.raises(NoWorkerReady):
        list(iter_sync(run))
    assert world.cloud.jobs == {}


class Lines(HeldDriver):
    """A platform without jobs whose replies stream."""

    breaks_after: int | None = None
    closed = 0

    async def stream(self, io: Any, info: DeploymentInfo, call_: Any) -> AsyncIterator[Any]:
        try:
            for n in range(5):
                if n == self.breaks_after:
                    raise TransportError("reset by peer")
                await io.sleep(1.0)
                yield n
        finally:
            self.closed += 1


def test_a_streamed_reply_without_jobs_collects_its_result(world: World) -> None:
    driver = Lines()
    run = stream(world, deploy(world), {}, scope=world.scope(driver=driver))
    assert list(iter_sync(run)) == [0, 1, 2, 3, 4]
    assert run.result is not None
    assert run.result.output == [0, 1, 2, 3, 4]
    assert run.job_id is None


def test_leaving_a_streamed_reply_closes_its_connection(world: World) -> None:
    driver = Lines()
    run = stream(world, deploy(world), {}, scope=world.scope(driver=driver))
    for _ in iter_sync(run):
        break
    assert driver.closed == 1


def test_a_streamed_reply_that_breaks_gives_what_had_arrived(world: World) -> None:
    driver = Lines()
    driver.breaks_after = 2
    run = stream(world, deploy(world), {}, scope=world.scope(driver=driver))
    with pytest.raises(StreamInterrupted) as caught:
        list(iter_sync(run))
    assert caught.value.partial == (0, 1)


def test_a_platform_that_does_not_stream_says_so(world: World) -> None:
    run = stream(world, deploy(world), {}, scope=world.scope(driver=HeldDriver()))
    with pytest.raises(UnsupportedError) as caught:
        list(iter_sync(run))
    assert caught.value.capability == "streaming"


def test_the_fake_streams_by_cursor() -> None:
    from unigpu.driver import Streams, StreamsJobs

    assert isinstance(FakeDriver(), StreamsJobs)
    assert isinstance(Lines(), Streams)
    assert not isinstance(Lines(), StreamsJobs)
