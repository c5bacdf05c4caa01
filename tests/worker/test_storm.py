"""Many callers, of whom many leave in the middle: no slot, thread or generator is lost."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.soak

SEEDS = 30 if os.environ.get("UNIGPU_FULL") == "1" else 3
SLOTS = 4
CALLERS = 150


class Ledger:
    """How many handlers are inside at once, and how many generators are open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1


def _sync(ledger: Ledger) -> Any:
    def handler(input: dict[str, Any]) -> int:
        with ledger:
            time.sleep(input["s"])
            if input["fails"]:
                raise ValueError("no")
            return int(input["i"])

    return handler


def _async(ledger: Ledger) -> Any:
    async def handler(input: dict[str, Any]) -> int:
        with ledger:
            await asyncio.sleep(input["s"])
            if input["fails"]:
                raise ValueError("no")
            return int(input["i"])

    return handler


def _generator(ledger: Ledger) -> Any:
    def handler(input: dict[str, Any]) -> Iterator[int]:
        with ledger:
            for _ in range(20):
                time.sleep(input["s"] / 20)
                yield input["i"]
            if input["fails"]:
                raise ValueError("no")

    return handler


def _async_generator(ledger: Ledger) -> Any:
    async def handler(input: dict[str, Any]) -> AsyncIterator[int]:
        with ledger:
            for _ in range(20):
                await asyncio.sleep(input["s"] / 20)
                yield input["i"]
            if input["fails"]:
                raise ValueError("no")

    return handler


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.parametrize("make", [_sync, _async, _generator, _async_generator])
def test_no_slot_is_lost_and_no_answer_goes_astray(make: Any, seed: int, local: Any) -> None:
    dice = random.Random(seed)
    before = set(threading.enumerate())  # another test may have left a stuck handler
    ledger = Ledger()

    async def caller(worker: Any, i: int) -> None:
        await asyncio.sleep(dice.random() * 0.5)
        value = {"i": i, "s": dice.random() * 0.02, "fails": dice.random() < 0.2}
        headers = {}
        if streamed := dice.random() < 0.5:
            headers["accept"] = "application/x-ndjson"
        if dice.random() < 0.2:
            headers["x_unigpu_timeout"] = "0.005"
        exchange = worker.send({"input": value}, **headers)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.random() * 0.03)
            exchange.leave()
            await exchange.task
            return
        reply = await exchange.task
        assert reply.status in (200, 429)
        if reply.status == 429:
            return
        *chunks, last = reply.lines()
        if "error" in last:
            assert last["error"]["type"] in ("ValueError", "ExecutionTimeout")
        elif not streamed:
            assert last["output"] in (i, [i] * 20)
        else:
            assert last["done"] is True
        assert all(chunk == {"chunk": i} for chunk in chunks)

    threads: set[threading.Thread] = set()

    async def go() -> None:
        nonlocal threads
        async with local(make(ledger), concurrency=SLOTS) as worker:
            await asyncio.wait_for(asyncio.gather(*(caller(worker, i) for i in range(CALLERS))), 60)
            await asyncio.wait_for(worker.worker.drain(30), 60)
            assert worker.worker.running == 0
            assert ledger.inside == 0
            assert 0 < ledger.most <= SLOTS
            threads = set(threading.enumerate()) - before
            assert len(threads) <= SLOTS

    asyncio.run(go())
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
