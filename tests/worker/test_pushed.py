"""A worker whose platform pushes calls: an open port means ready, and a refusal would be the call's failure."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.processes
def test_the_port_opens_once_the_handler_is_loaded(start: Any, tmp_path: Path) -> None:
    gate, port = tmp_path / "go", _free_port()
    worker = start("SlowLoader", TEST_GO=str(gate), UNIGPU_PUSHED="1", UNIGPU_PORT=str(port))
    worker.wait_for_line("opens when it is loaded")
    assert _refuses(port)
    gate.touch()
    assert worker.port == port
    assert worker.ping() == 200
    assert worker.invoke({})[1]["output"] == "loaded"
    worker.signal()
    assert worker.exit() == 0


@pytest.mark.processes
def test_a_handler_that_cannot_be_loaded_never_opens_the_port(start: Any) -> None:
    port = _free_port()
    worker = start("nowhere", UNIGPU_PUSHED="1", UNIGPU_PORT=str(port))
    assert worker.exit() == 3
    assert not [line for line in worker.err if "listening" in line]
    assert _refuses(port)


@pytest.mark.processes
def test_a_signal_while_it_loads_ends_it(start: Any, tmp_path: Path) -> None:
    worker = start("SlowLoader", TEST_GO=str(tmp_path / "never"), UNIGPU_PUSHED="1")
    worker.wait_for_line("opens when it is loaded")
    worker.signal()
    assert worker.exit() == 0
    assert not [line for line in worker.err if "listening" in line]


def test_calls_above_the_concurrency_wait_for_their_turn_and_none_is_refused(local: Any) -> None:
    async def go() -> None:
        most = running = 0

        async def handler(input: dict[str, Any]) -> int:
            nonlocal most, running
            running += 1
            most = max(most, running)
            while most < 2:  # the first waits for a second one beside it
                await asyncio.sleep(0.001)
            running -= 1
            return int(input["n"])

        async with local(handler, concurrency=2, pushed=True) as worker:
            sent = [worker.send({"input": {"n": n}}) for n in range(50)]
            replies = [await asyncio.wait_for(one.task, 30) for one in sent]
        assert [reply.json()["output"] for reply in replies] == list(range(50))
        assert most == 2

    asyncio.run(go())


@pytest.mark.parametrize("body", [{"input": {}}, {"raw": 1}])
def test_who_waits_is_told_when_the_worker_stops(body: dict[str, Any], local: Any) -> None:
    async def go() -> None:
        started, gate, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        async def handler(input: dict[str, Any]) -> str:
            loop.call_soon_threadsafe(started.set)
            while not gate.is_set():
                await asyncio.sleep(0.01)
            return "done"

        async with local(handler, pushed=True) as worker:
            first = worker.send({"input": {}})
            await started.wait()
            second = worker.send(body, path="/run")
            await asyncio.sleep(0)
            drain = asyncio.create_task(worker.worker.drain(30))
            reply = await asyncio.wait_for(second.task, 30)
            assert (reply.status, reply.json()["error"]["type"]) == (503, "draining")
            gate.set()
            assert (await first.task).json()["output"] == "done"
            await drain

    asyncio.run(go())


def test_who_leaves_the_line_is_never_run_and_holds_nobody_up(local: Any) -> None:
    async def go() -> None:
        ran: list[int] = []
        gate, started, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

        async def handler(input: dict[str, Any]) -> int:
            ran.append(input["n"])
            loop.call_soon_threadsafe(started.set)
            while not gate.is_set():
                await asyncio.sleep(0.01)
            return int(input["n"])

        async with local(handler, pushed=True) as worker:
            sent = [worker.send({"input": {"n": n}}) for n in range(4)]
            await started.wait()
            for gone in (1, 2):
                sent[gone].leave()
                await asyncio.wait_for(sent[gone].task, 30)
            gate.set()
            assert [(await asyncio.wait_for(sent[n].task, 30)).json()["output"] for n in (0, 3)] == [0, 3]
            assert ran == [0, 3]
            assert (await worker.invoke({"n": 9})).json()["output"] == 9

    asyncio.run(go())


@pytest.mark.processes
def test_the_port_closes_when_the_worker_drains_and_what_runs_ends_well(
    start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    started, gate = tmp_path / "started", tmp_path / "go"
    worker = start("wait_for_file", UNIGPU_PUSHED="1").ready()
    with contextlib.closing(worker.open({"started": str(started), "go": str(gate)})) as running:
        appears(started)
        worker.signal()
        worker.wait_for_line("draining: 1 running")
        assert _refuses(worker.port)
        gate.touch()
        assert worker.answer(running)[1]["output"] == "went"
    assert worker.exit() == 0
