"""A deploy that is cancelled at any await, on asyncio and trio, leaves nothing, or an intent that gc settles."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import trio
from matrix_life import Tally, only_deploy, put_right
from matrix_platforms import Platform
from matrix_world import FULL, World, tenth

from unigpu.errors import UniGPUError

pytestmark = [pytest.mark.full] if FULL else []


def on_asyncio(world: World, hook: Any) -> Any:
    async def main() -> Any:
        async with world.client(sync=False, hook=hook) as client:
            task: asyncio.Future[Any] = asyncio.ensure_future(only_deploy(client))
            hook.cancel = task.cancel
            return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError as exc:
        return exc
    except UniGPUError as exc:
        return exc


def on_trio(world: World, hook: Any) -> Any:
    async def main() -> Any:
        async with world.client(sync=False, hook=hook) as client:
            with trio.CancelScope() as scope:
                hook.cancel = scope.cancel
                return await only_deploy(client)
            return asyncio.CancelledError()

    try:
        return trio.run(main)
    except UniGPUError as exc:
        return exc


class Canceller:
    """Cancels at the n-th point, and says how many there were."""

    def __init__(self, at: int) -> None:
        self.at, self.seen, self.cancel = at, 0, lambda: None

    def __call__(self, name: str) -> None:
        self.seen += 1
        if self.seen == self.at + 1:
            self.cancel()


@pytest.mark.parametrize("lag", [0.0, 4.0], ids=["prompt lists", "late lists"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_cancelled_at_any_await(
    make: Callable[..., World], platform: Platform, loop: str, lag: float, record_property: Callable[[str, Any], None]
) -> None:
    go = on_asyncio if loop == "asyncio" else on_trio
    points = Canceller(10**9)
    assert not isinstance(go(make(list_lag=lag), points), BaseException)
    tally = Tally()
    for at in tenth(list(range(points.seen)), share=0.5):
        world = make(list_lag=lag)
        ended = go(world, Canceller(at))

        def check(world: World = world, ended: Any = ended) -> list[str]:
            left = world.all_live() if isinstance(ended, BaseException) else []
            return [f"leaked at once: {left}" for _ in left[:1]] + put_right(world, "gc")

        tally.case("cancelled", f"cancelled at point {at} on {loop}", ended, check)
    assert tally.ends["CancelledError"] > 0.7 * sum(tally.cases.values())
    tally.finish(record_property, f"cancel, {loop}, lag {lag:g} s", platform)
