"""What the flags say of money and of lost work, held both ways on a platform in memory: part of `WireConformance`.

The emulator's meter counts what a worker is billed for. The emulated API follows the platform's manual, the facts
follow the same manual, and here they meet. What only a live account can tell (whose machines, preemption, an SLA) is
held nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from unigpu.elasticity.capabilities import Capabilities
from unigpu.errors import UniGPUError
from unigpu.models import Interface, Kind

from .bench import SHAPES, WireBench, capabilities, caught
from .flavors import NAMES, Flavour, Name

_START = 40.0


class DeclaredMoney:
    """Billing by phase, and how often a handler runs: as the flags say."""

    flavours: ClassVar[Sequence[Name]] = NAMES

    @pytest.mark.parametrize("of", SHAPES, ids=["-".join(shape) for shape in SHAPES])
    def test_the_meter_bills_what_the_flags_say(self, wire: WireBench, of: tuple[Interface, Kind]) -> None:
        caps = capabilities(wire.provider, *of)
        if caps is None or not caps.bills.value:
            return
        interface, kind = of

        async def workflow(client: Any) -> None:
            wire.cold_start = _START
            one = await client.deploy(name="billed", wait="worker", progress="off", **wire.shape(interface, kind))
            started, before = wire.seconds(), wire.billed()
            assert started["loading"] >= _START
            wrong = _wrong(caps, "bills_loading", before["loading"], started["loading"])
            if kind == "pod" or caps.scale_to_zero.value != "automatic":
                wire.heal()
                idle = wire.seconds()["idle"] - started["idle"]
                assert idle > 0
                wrong += _wrong(caps, "bills_idle", wire.billed()["idle"] - before["idle"], idle)
            if caps.stop.value:
                await client.stop(one)
            wire.heal()
            if caps.stop.value or caps.scale_to_zero.value == "automatic":
                wire.heal()
                stopped = wire.billed()
                wire.heal()
                wrong += _wrong(caps, "bills_stopped", sum(wire.billed().values()) - sum(stopped.values()), 180.0)
            assert not wrong, wrong
            await client.teardown(one)
            gone = wire.billed()
            wire.heal()
            assert wire.billed() == gone, "it bills on after teardown"

        Flavour(self.flavours[0]).run(workflow, **wire.options())

    def test_a_call_whose_worker_dies_runs_again_exactly_where_the_flag_says_so(self, wire: WireBench) -> None:
        caps = capabilities(wire.provider, "function", "serverless")
        assert caps is not None

        async def workflow(client: Any) -> None:
            one = await client.deploy(name="lost", wait="worker", progress="off", **wire.fields("echo"))
            before = wire.runs
            wire.crashes = 1
            if caps.delivery.value == "at_least_once":
                assert (await client.invoke(one, {"n": 1})).output == {"got": {"n": 1}}
                assert wire.runs - before == 2
            elif caps.delivery.value == "at_most_once":
                error = await caught(UniGPUError, lambda: client.invoke(one, {"n": 1}))
                assert error.maybe_executed is not False, "the worker had it"
                assert wire.runs - before == 1
            await client.teardown(one)

        Flavour(self.flavours[0]).run(workflow, **wire.options())


def _wrong(caps: Capabilities, flag: str, billed: float, passed: float) -> list[str]:
    """What was billed that the flag does not say, or was not and it does. What nobody says may be either."""
    said: Mapping[str, bool] = {"full": True, "storage": False, "nothing": False}
    value = str(caps.fact(flag).value)
    if value not in said or billed == (passed if said[value] else 0.0):
        return []
    return [f"{flag} = {value}, but {billed:g} of {passed:g} worker seconds were billed"]
