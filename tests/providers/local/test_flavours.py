"""The same driver under asyncio and trio: it waits by `Io.sleep` alone, and whoever is cancelled leaves nothing."""

from __future__ import annotations

import asyncio
import os
import random
import uuid
from pathlib import Path
from typing import Any

import anyio
import pytest

from unigpu._io.http.client import AsyncHttpIo, HttpConfig
from unigpu._io.resilience.retry import RetryingIo
from unigpu.driver import DriverConfig, Invocation, JobStatus
from unigpu.models import DeploymentSpec
from unigpu.providers.local import LocalDriver

pytestmark = pytest.mark.processes
SPEC = DeploymentSpec(name="hello", handler="app.py:echo")


def invocation(io: Any, n: int) -> Invocation:
    return Invocation(
        input={"n": n}, job_id=uuid.uuid4().hex, deadline=io.now() + 30, start_deadline=io.now() + 30,
        execution_timeout=30,
    )  # fmt: skip


async def life(world: Any, calls: int) -> list[Any]:
    """Deploy, call many times at once, tear down."""
    http = AsyncHttpIo(HttpConfig())
    io = RetryingIo(http)
    driver = LocalDriver(DriverConfig(state_dir=str(world.state)))
    (part,) = driver.resources(SPEC, world.identity(SPEC))
    outputs: list[Any] = [None] * calls
    try:
        found = await part.create_cold(io, {}, deadline=io.now() + 30)
        assert found.info is not None
        info = found.info

        async def one(n: int) -> None:
            job = await driver.submit(io, info, invocation(io, n))
            while not job.status.is_terminal:
                job = await driver.status(io, info, job.id, wait=10, deadline=io.now() + 30)
            assert job.status is JobStatus.DONE
            outputs[n] = job.output["got"]

        async with anyio.create_task_group() as group:
            for n in range(calls):
                group.start_soon(one, n)
        await part.delete(io, info.id, deadline=io.now() + 30)
        while await part.read(io, info.id, deadline=io.now() + 30) is not None:
            await io.sleep(0.01)
    finally:
        await http.aclose()
    return outputs


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_whole_life_under_a_loop(backend: str, world: Any) -> None:
    assert anyio.run(life, world, 20, backend=backend) == [{"n": n} for n in range(20)]
    assert not world.lives()


def test_a_caller_cancelled_while_the_supervisor_starts_leaves_no_zombie_and_is_no_obstacle(world: Any) -> None:
    rng = random.Random(7)
    before = set(_children())  # another test of this process may still have one

    async def main() -> None:
        for _ in range(6):
            work = asyncio.create_task(life(world, 0))
            await asyncio.sleep(rng.random() * 0.4)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            assert set(_children()) <= before

    asyncio.run(main())
    kept = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    assert not any(path.startswith(str(world.home)) for path in kept)
    for info in world.do(world.driver.deployments(world.io, deadline=world.by())):
        world.teardown(info)
    info = world.deploy()
    assert world.call(info, {"a": 1}).output["got"] == {"a": 1}
    world.teardown(info)


def _children() -> list[str]:
    return Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
