"""Two machines deploy one name at once, where creates act late and lists lag: one is left, and both handles work."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from matrix_life import Tally, call, clean, fields, must, put_right
from matrix_platforms import NAME, Platform
from matrix_race import RacingIo, slow_lag, together
from matrix_world import FULL, World

from unigpu import AsyncClient
from unigpu.errors import UniGPUError

SWEEPS = (16.0, 46.0, 121.0)
"""After these seconds somebody looks: each time what is due is paid."""
MOST_BILLED = 120.0 + 30.0
"""What a second one may cost beyond the settle window: the last look, and the time that ending it takes."""

pytestmark = [pytest.mark.full] if FULL else []


async def deploy_and_look(client: Any, world: World, settle: bool) -> Any:
    deployed = await client.deploy(
        progress="off", settle=settle, timeout=3600, **fields(client, **world.platform.raced)
    )
    began = world.clock.now()
    for at in () if settle else SWEEPS:
        await client._context.io.sleep(began + at - world.clock.now())
        await client.wait_ready(deployed, progress="off")
    return deployed, client


@pytest.mark.parametrize("settle", [False, True], ids=["paid by later calls", "settle=True"])
def test_one_is_left_after_a_race(
    make: Callable[..., World], platform: Platform, settle: bool, record_property: Callable[[str, Any], None]
) -> None:
    tally = Tally()
    for seed in range(round((200 if FULL else 20) * platform.share)):
        rolls = random.Random(seed)
        world = make(seed=seed, list_lag=slow_lag)
        ios = [RacingIo(world, rolls), RacingIo(world, rolls)]
        clients = [world.wired(AsyncClient, where, io) for where, io in zip("ab", ios, strict=True)]
        offsets = [0.0, rolls.uniform(0.0, 4.0)]
        runs = [(at, deploy_and_look(c, world, settle)) for at, c in zip(offsets, clients, strict=True)]
        ended = together(world, runs)

        def check(world: World = world, ended: list[Any] = ended) -> list[str]:
            wrong = list[str]()
            world.advance(200.0)
            for where in "ab":
                must(world, clean, where)
            for id, seconds in world.billed().items():
                if id not in world.live() and seconds > platform.settle + MOST_BILLED:
                    wrong.append(f"{id} was made twice, and billed for {seconds:.0f} s")
            wrong += world.doubled()
            if not world.live() and not all(isinstance(one, UniGPUError) for one in ended):
                wrong.append("lost: nothing is left of what was handed out")
            for one in ended:
                if isinstance(one, UniGPUError):
                    continue
                deployed, client = one
                (result,) = together(world, [(0.0, call(client, deployed, {"n": 3}))])
                if isinstance(result, UniGPUError) or result != {"n": 3}:
                    wrong.append(f"a handle does not work: {result!r}")
            must(world, lambda client: client.teardown(NAME, timeout=1200), "a")
            return wrong + put_right(world, "gc")

        for one in ended:
            assert isinstance(one, tuple | UniGPUError)
        first = next((one for one in ended if isinstance(one, UniGPUError)), "handles")
        lost = sum(io.gave_up for io in ios)
        tally.case(f"{min(lost, 3)} answers lost", f"seed {seed}, settle {settle}", first, check)
    tally.finish(record_property, f"race, settle={settle}", platform)
