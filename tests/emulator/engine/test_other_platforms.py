"""What platforms unlike local need of the engine: workers that take jobs, leases, webhooks; and the clocks."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from unigpu._io.clock import InstantClock, VirtualClock
from unigpu._io.contract import CallClass, Request, Response
from unigpu._io.in_memory import MemoryIo
from unigpu.elasticity._scaling.policy import Declared
from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import (
    Callback,
    CallbackDone,
    CancelPush,
    JobDone,
    Launch,
    Push,
    StartWorker,
    WorkerExited,
    WorkerReady,
)
from unigpu.emulator.engine import DeploymentTerms, Engine
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.errors import TransportError, TransportTimeout


def pulling(**terms: Any) -> tuple[Engine, str]:
    """A deployment whose workers come and take jobs, with one ready worker."""
    engine = Engine(now=0.0)
    given = DeploymentTerms(launch=Launch(), dispatch="pull", min_workers=1, **terms)
    engine.deployments.create("ep", "runpod", given, 0.0)
    (start,) = [effect for effect in engine.tick(0.0) if isinstance(effect, StartWorker)]
    engine.event(WorkerReady(worker_id=start.worker_id), 1.0)
    engine.tick(1.0)
    return engine, start.worker_id


def test_workers_that_pull_get_jobs_when_they_ask_and_none_is_pushed() -> None:
    engine, worker = pulling(concurrency=2)
    jobs = [engine.submit("ep", {"n": n}, 2.0) for n in range(3)]
    assert not [effect for effect in engine.tick(2.0) if isinstance(effect, Push)]
    taken = engine.take("ep", worker, 3.0, limit=5)
    assert [job.id for job in taken] == [job.id for job in jobs[:2]]  # its concurrency is 2
    assert engine.take("ep", worker, 3.0) == []
    assert engine.take("ep", "nobody", 3.0) == []
    engine.event(JobDone(worker_id=worker, job_id=taken[0].id, output="x"), 4.0)
    assert engine.take("ep", worker, 4.0, limit=5) == [jobs[2]]
    assert jobs[0].status.value == "DONE"


def test_a_worker_that_pulls_is_told_once_what_to_stop() -> None:
    engine, worker = pulling()
    job = engine.submit("ep", {}, 2.0)
    engine.take("ep", worker, 2.0)
    engine.jobs.cancel(engine.deployments.get("ep", 3.0), job.id, 3.0)
    assert not [effect for effect in engine.tick(3.0) if isinstance(effect, CancelPush)]
    assert engine.cancels(worker) == [job.id]
    assert engine.cancels(worker) == []
    assert engine.cancels("nobody") == []


def test_declared_replicas_are_healed() -> None:
    engine = Engine(now=0.0)
    engine.deployments.create(
        "ep", "yotta", DeploymentTerms(launch=Launch(), min_workers=2, max_workers=2, rule=Declared()), 0.0
    )
    started = [effect.worker_id for effect in engine.tick(0.0) if isinstance(effect, StartWorker)]
    for id in started:
        engine.event(WorkerReady(worker_id=id), 1.0)
    engine.tick(1.0)
    engine.event(WorkerExited(worker_id=started[0], reason="host lost", cause="host_lost"), 50.0)
    again = [effect for effect in [*engine.tick(50.0), *engine.tick(60.0)] if isinstance(effect, StartWorker)]
    assert len(again) == 1


def test_a_webhook_is_called_again_until_it_answers_or_the_tries_are_used_up() -> None:
    engine = Engine(now=0.0)
    told: list[tuple[int, int | None, float]] = []
    hook = Callback(callback_id="", url="https://me.example/hook", body=b"{}")
    id = engine.callbacks.add(hook, waits=(60.0, 300.0), told=lambda *what: told.append(what))
    now = 0.0
    for status in (None, 500, 404):
        (effect,) = engine.tick(now)
        assert isinstance(effect, Callback)
        assert effect.callback_id == id
        engine.event(CallbackDone(callback_id=id, status=status), now)
        now = engine.next_due() or now
    assert told == [(1, None, 0.0), (2, 500, 60.0), (3, 404, 360.0)]
    assert engine.next_due() is None
    id = engine.callbacks.add(hook, waits=(1.0,))
    engine.tick(400.0)
    engine.event(CallbackDone(callback_id=id, status=204), 400.0)
    assert engine.next_due() is None


def request(method: str, path: str, now: float, json: Any = None, **headers: str) -> Request:
    return Request(
        method=method,
        url=f"http://127.0.0.1{path}",
        operation="local.test",
        headers=tuple((k.replace("_", "-"), v) for k, v in headers.items()),
        role="control",
        call=CallClass.IDEMPOTENT,
        deadline=now + 600,
        **({} if json is None else {"json": json}),
    )


def cloud_on(clock: Any, behavior: Behavior) -> VirtualCloud:
    cloud = VirtualCloud(clock=clock, behavior=behavior)
    cloud.mount(LocalEmulator(cloud.engine))
    return cloud


async def calls(io: MemoryIo, url: str, body: dict[str, Any], count: int) -> list[Response]:
    await io.send(request("PUT", url, io.now(), body, if_none_match="*"))
    found: list[Response] = []
    for n in range(count):
        await io.send(request("POST", f"{url}/jobs", io.now(), {"id": f"j{n}", "input": {"n": n}}))
    for n in range(count):
        found.append(await io.send(request("GET", f"{url}/jobs/j{n}?wait=60", io.now())))  # noqa: PERF401
    return found


@pytest.mark.parametrize("clock", [InstantClock, VirtualClock])
def test_it_answers_a_synchronous_client_through_memory(make_cloud: Any, clock: Any) -> None:
    moved = clock(epoch=5e8)
    cloud = cloud_on(moved, Behavior(cold_start=20.0, duration=2.0))
    io = MemoryIo(cloud.handle, moved, sync=True)
    work = calls(io, make_cloud().url(), make_cloud().body(), 3)
    with pytest.raises(StopIteration) as done:
        work.send(None)
    assert [reply.json()["output"] for reply in done.value.value] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert moved.now() == pytest.approx(26.0)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_answers_many_tasks_on_one_virtual_clock(make_cloud: Any, backend: str) -> None:
    async def main() -> tuple[list[str], float]:
        clock = VirtualClock(epoch=5e8)
        cloud = cloud_on(clock, Behavior(cold_start=20.0, duration=10.0))
        io = MemoryIo(cloud.handle, clock)
        url, body = make_cloud().url(), make_cloud().body(workers={"min": 0, "max": 4})
        await io.send(request("PUT", url, io.now(), body, if_none_match="*"))
        states: list[str] = []

        async def one(n: int) -> None:
            await io.send(request("POST", f"{url}/jobs", io.now(), {"id": f"j{n}", "input": {}}))
            reply = await io.send(request("GET", f"{url}/jobs/j{n}?wait=60", io.now()))
            states.append(reply.json()["status"])

        async with anyio.create_task_group() as tasks:
            for n in range(8):
                tasks.start_soon(one, n)
        return states, io.now()

    states, end = anyio.run(main, backend=backend)
    assert states == ["DONE"] * 8
    assert end == pytest.approx(40.0)  # side by side: one cold start, and two rounds on four workers


def test_injected_faults_arrive_as_a_transport_would_tell_them(make_cloud: Any) -> None:
    clock = InstantClock()
    cloud = cloud_on(clock, Behavior())
    io = MemoryIo(cloud.handle, clock, sync=True)
    url, body = make_cloud().url(), make_cloud().body()

    def send(message: Request) -> Any:
        with pytest.raises(StopIteration) as done:
            io.send(message).send(None)
        return done.value.value

    for when, reply, raised in [("before", "drop", TransportError), ("after", "timeout", TransportTimeout)]:
        cloud.engine.faults.add("local.deployment.put", when=when, reply=reply)
        with pytest.raises(raised) as caught:
            io.send(request("PUT", url, io.now(), body, if_none_match="*")).send(None)
        assert caught.value.maybe_executed
    assert send(request("GET", url, io.now())).json()["attempt"] == "a1"
    assert send(request("PUT", url, io.now(), body, if_none_match="*")).status == 412
