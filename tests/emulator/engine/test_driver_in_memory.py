"""The local driver against its emulator, in memory: both speak one protocol, on virtual time, in every flavour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock, VirtualClock
from unigpu._io.in_memory import MemoryIo
from unigpu.driver import DriverConfig, Identity, Invocation
from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models import DeploymentSpec
from unigpu.providers.local import LocalDriver


async def hour(cloud: VirtualCloud, io: MemoryIo, handler: Path) -> dict[str, Any]:
    """Deploy, call, stream, scale, wait for the idle timeout, and tear down."""
    options = {"base_url": "http://127.0.0.1:1", "token": "t0ken"}
    driver = LocalDriver(DriverConfig(options=options))
    spec = DeploymentSpec(name="hello", handler=f"{handler}:handle", workers=(0, 2), idle_timeout=60)
    identity = Identity(name="hello", namespace="default", attempt="a1", spec_hash="1:0123456789abcdef")
    (resource,) = driver.resources(spec, identity)
    found = await resource.create_cold(io, {}, deadline=io.now() + 60)
    info = found.info
    assert info is not None
    await driver.warm(io, info, spec, deadline=io.now() + 60)
    seen: dict[str, Any] = {"created": str(info.state)}

    def call(id: str) -> Invocation:
        return Invocation(
            input={"n": 4}, job_id=id, deadline=io.now() + 600, start_deadline=io.now() + 600, execution_timeout=60
        )

    await driver.submit(io, info, call("j1"))
    job = await driver.status(io, info, "j1", wait=20, deadline=io.now() + 60)
    while not job.status.is_terminal:
        job = await driver.status(io, info, "j1", wait=20, deadline=io.now() + 60)
    seen["output"], seen["timing"] = job.output, (job.timing.queue, job.timing.cold_start, job.timing.execution)
    page = await driver.chunks(io, info, "j1", after=0, wait=1, deadline=io.now() + 60)
    assert page.end
    await driver.scale(io, info, workers=(2, 2), deadline=io.now() + 60)
    await io.sleep(40)
    workers = await driver.workers(io, info, deadline=io.now() + 60)
    seen["ready"] = sum(worker.state.is_ready for worker in workers)
    await driver.scale(io, info, workers=(0, 2), deadline=io.now() + 60)
    await io.sleep(3600)
    now = await driver.read(io, info, deadline=io.now() + 60)
    seen["later"] = str(now.state) if now is not None else None
    seen["listed"] = [one.name for one in await driver.deployments(io, deadline=io.now() + 60)]
    await resource.delete(io, info.id, deadline=io.now() + 60)
    seen["gone"] = await driver.read(io, info, deadline=io.now() + 60) is None
    return seen


@pytest.mark.parametrize("flavour", ["sync", "asyncio", "trio"])
def test_the_local_driver_spends_an_hour_in_memory(flavour: str, tmp_path: Path) -> None:
    handler = tmp_path / "app.py"
    handler.write_text("def handle(input):\n    return input\n")
    clock = InstantClock(epoch=1e9) if flavour == "sync" else VirtualClock(epoch=1e9)
    cloud = VirtualCloud(clock=clock, behavior=Behavior(run=lambda x: x["n"] * 2, cold_start=30.0, duration=2.0))
    cloud.mount(LocalEmulator(cloud.engine, token="t0ken"))
    io = MemoryIo(cloud.handle, clock, sync=flavour == "sync")
    if flavour == "sync":
        seen = run_sync(hour(cloud, io, handler))
    else:
        seen = anyio.run(hour, cloud, io, handler, backend=flavour)
    assert seen == {
        "created": "COLD",
        "output": 8,
        "timing": (pytest.approx(0.0), pytest.approx(30.0), pytest.approx(2.0)),
        "ready": 2,
        "later": "COLD",
        "listed": ["hello"],
        "gone": True,
    }
    assert clock.now() >= 3600
