"""Two clients at once on one clock: each call takes its time, and the earliest that may go on goes on."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import coroutine
from typing import Any

from matrix_world import MatrixIo, World

from unigpu._io.contract import Request, Response
from unigpu.errors import TransportError, TransportTimeout, UniGPUError

CLIENT_TIMEOUT = 8.0
LOST = 0.05


def slow_lag(rolls: random.Random) -> float:
    """Seconds until a list shows what was created: median 2, at most 60."""
    return min(60.0, rolls.lognormvariate(math.log(2.0), 1.2))


def slow_act(rolls: random.Random) -> float:
    """Seconds until a create acts: median 3, at most 90."""
    return min(90.0, rolls.lognormvariate(math.log(3.0), 1.2))


@coroutine
def _until(time: float) -> Iterator[float]:
    yield time


class RacingIo(MatrixIo):
    """Creates act late, and a client that has waited for 8 seconds gives up; one answer in twenty is lost."""

    def __init__(self, world: World, rolls: random.Random) -> None:
        super().__init__(world, sync=True, hook=None, script=None)
        self.rolls = rolls
        self.gave_up = 0

    async def send(self, request: Request) -> Response:
        if not request.operation.endswith(".create"):
            await self.sleep(self.rolls.uniform(0.05, 0.3))
            reply = self.world.act(request)
            await self.sleep(self.rolls.uniform(0.05, 0.3))
            return reply
        seconds, lost = slow_act(self.rolls), self.rolls.random()
        if lost < LOST / 2:
            await self.sleep(CLIENT_TIMEOUT)
            self.gave_up += 1
            raise TransportTimeout("no answer, and it never arrived", operation=request.operation)
        if seconds > CLIENT_TIMEOUT:
            self.world.later(seconds, lambda: self.world.act(request))
            await self.sleep(CLIENT_TIMEOUT)
            self.gave_up += 1
            raise TransportTimeout("no answer", operation=request.operation)
        await self.sleep(seconds)
        reply = self.world.act(request)
        if lost < LOST:
            self.gave_up += 1
            raise TransportError("the answer was lost", operation=request.operation)
        return reply

    async def sleep(self, seconds: float) -> None:
        await _until(self.world.clock.now() + max(0.0, seconds))

    async def shield(self, work: Callable[[], Awaitable[Any]], *, seconds: float) -> Any:
        return await work()


def together(world: World, runs: list[tuple[float, Coroutine[Any, Any, Any]]]) -> list[Any]:
    """Run these side by side, each from its own second on; what each ended in."""
    order, ended = itertools.count(), [None] * len(runs)
    start = world.clock.now()
    waiting = [(start + at, next(order), n, coro) for n, (at, coro) in enumerate(runs)]
    heapq.heapify(waiting)
    while waiting:
        time, _, n, coro = heapq.heappop(waiting)
        world.advance(time - world.clock.now())
        try:
            until: Any = coro.send(None)
        except StopIteration as stop:
            ended[n] = stop.value
        except UniGPUError as exc:
            ended[n] = exc  # type: ignore[call-overload]  # a list of anything
        else:
            heapq.heappush(waiting, (until, next(order), n, coro))
    return ended
