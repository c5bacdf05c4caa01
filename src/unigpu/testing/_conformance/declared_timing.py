"""Flags that only time shows, held both ways on a platform in memory: part of `WireConformance`.

Time is the bench's: `heal` lets minutes pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from unigpu.driver import WorkerState
from unigpu.errors import JobExpired

from .bench import WireBench, capabilities, caught
from .flavors import NAMES, Flavour, Name

_STEP = 100.0  # `heal` lets more pass than this


async def _alive(client: Any, deployed: Any) -> int:
    """Its workers, but for those that are shown although they have ended."""
    return sum(worker.state is not WorkerState.EXITED for worker in await client.workers(deployed))


class DeclaredOverTime:
    """Scaling to zero, waking, replicas, growing under load, ends and retention: as the flags say, or not at all."""

    flavours: ClassVar[Sequence[Name]] = NAMES

    def test_it_goes_to_zero_by_itself_and_is_woken_exactly_where_the_flags_say_so(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("echo"), "workers": (0, 1)}
            one = await client.deploy(name="zero", wait="worker", progress="off", **fields)
            assert (await client.invoke(one, {"n": 1})).ok
            for _ in range(3):
                wire.heal()
            running = await _alive(client, one)
            assert (running == 0) is (caps.scale_to_zero.value == "automatic")
            assert (await client.invoke(one, {"n": 2}, wake=caps.wakes_on_request.value)).ok
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **wire.options())

    def test_so_many_replicas_are_kept_where_the_flag_says_so(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None
        if not caps.exact_replicas.value:
            return  # refused: `DeclaredConformance` asks

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("echo"), "workers": 2}
            one = await client.deploy(name="replicas", wait="worker", progress="off", **fields)
            for _ in range(3):
                wire.heal()
                assert await _alive(client, one) == 2
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **wire.options())

    def test_calls_that_wait_bring_workers_exactly_where_it_is_autoscaled(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None
        autoscaled = caps.elasticity_model.value == "autoscaled"

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("slow"), "workers": (1, 3), "on_unsupported": "adapt"}  # where it is not: always 1
            one = await client.deploy(name="growing", wait="worker", progress="off", **fields)
            assert await _alive(client, one) == 1
            inputs = [{"s": 40.0}] * 9
            results = [result async for result in client.map(one, inputs, concurrency=9, progress="off")]
            assert all(result.ok for result in results)
            grown = await _alive(client, one)
            assert 1 < grown <= 3 if autoscaled else grown == 1
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **wire.options())

    def test_at_its_ttl_it_ends_without_a_client_exactly_where_the_flag_says_so(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            fields = {**wire.fields("echo"), "ttl": 90}
            await client.deploy(name="ending", wait="worker", progress="off", **fields)
            wire.heal()
            assert (not wire.left()) is (caps.ttl_enforced_by.value == "platform")
            await client.gc(provider=wire.provider, delete=True)
            assert not wire.left()

        Flavour(self.flavours[0]).run(workflow, **wire.options())

    def test_a_result_is_kept_as_long_as_the_flag_says(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None
        kept = caps.result_retention.value
        if not caps.supports("submit") or not isinstance(kept, int | float):
            return

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="kept", wait="worker", progress="off", **wire.fields("echo"))
            early, late = [await client.submit(one, {"n": n}) for n in range(2)]
            wire.heal()
            assert (await early.result()).output == {"got": {"n": 0}}
            for _ in range(math.ceil(kept / _STEP) + 1):
                wire.heal()
            await caught(JobExpired, late.result)
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **wire.options())
