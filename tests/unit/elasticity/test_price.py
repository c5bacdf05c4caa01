"""What a worker and a deployment cost by the hour, and how amounts are shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.driver.prices import worker_hour, workers_hour
from unigpu.models import Rate
from unigpu.models.deployment import usd
from unigpu.providers.runpod.gpus import serverless_price
from unigpu.providers.runpod.wire import GpuTypeWire
from unigpu.providers.yotta import translate as yotta
from unigpu.providers.yotta.options import Options
from unigpu.providers.yotta.wire import EndpointWire

CENTS = st.integers(1, 5000)
COUNT = st.integers(1, 16)
USD = st.floats(0, 100)


@given(CENTS, COUNT)
def test_a_price_in_cents_meets_a_cap_of_the_same_cents(cents: int, gpus: int) -> None:
    """Three GPUs at $0.10 are $0.30, and not 0.30000000000000004: nobody is refused, or torn down, for that."""
    cap = cents * gpus / 100
    assert cap - 0.01 < worker_hour(cents / 100, gpus) <= cap


@given(st.integers(1, 500_000))
def test_a_price_by_the_second_meets_a_cap_of_the_same_price_by_the_hour(millionths: int) -> None:
    told = {"id": 1, "name": "a", "status": "RUNNING", "perSecondPrice": millionths / 1e6, "totalWorkers": 1}
    price = yotta.worker_price(EndpointWire.model_validate(told), Options())
    assert price == millionths * 3600 / 1e6


@given(USD, USD, COUNT, st.floats(0, 10))
def test_a_dearer_gpu_one_gpu_more_and_a_disk_never_make_a_worker_cheaper(
    one: float, other: float, gpus: int, disk: float
) -> None:
    low, high = sorted((one, other))
    assert worker_hour(low, gpus) <= worker_hour(high, gpus)
    assert worker_hour(low, gpus) <= worker_hour(low, gpus + 1)
    assert worker_hour(low, gpus) <= worker_hour(low, gpus, more=disk)


@given(CENTS, COUNT, st.integers(0, 2000))
def test_runpods_price_of_a_worker_is_all_its_gpus_and_its_disk(cents: int, gpus: int, disk: int) -> None:
    wire = {"id": "NVIDIA L4", "name": "L4", "pool": "AMPERE_24", "memory": 24, "price": {"serverless": cents / 100}}
    one = GpuTypeWire.model_validate(wire)
    price = serverless_price(one, gpus, disk)
    assert price == pytest.approx(cents * gpus / 100 + disk * 0.1 / 730, abs=1e-3)


@given(USD, st.integers(0, 50), st.integers(0, 50))
def test_more_workers_never_cost_less_and_none_costs_nothing(price: float, least: int, extra: int) -> None:
    idle, most = workers_hour(least, price), workers_hour(least + extra, price)
    assert idle is not None
    assert most is not None
    assert idle <= most
    assert most == pytest.approx((least + extra) * price, abs=1e-6)
    assert workers_hour(0, price) == 0.0


def test_an_unknown_price_is_unknown_but_no_worker_costs_nothing() -> None:
    assert (workers_hour(0, None), workers_hour(1, None)) == (0.0, None)


@given(st.floats(1e-6, 1000))
def test_what_costs_something_is_never_shown_as_nothing(amount: float) -> None:
    """$0.004 an hour is $3 a month: it is no $0.00."""
    told = float(str(Rate(idle_per_hour=amount)).split("$")[1].split("/")[0])
    assert told > 0
    assert told == pytest.approx(amount, rel=0.05, abs=0.005)


def test_amounts_are_shown_in_cents_and_small_ones_as_far_as_it_takes() -> None:
    shown = [usd(amount) for amount in (0.0, 3.348, 0.01, 0.0042, 0.00005, None)]
    assert shown == ["$0.00", "$3.35", "$0.01", "$0.0042", "$0.00005", "unknown"]
    rate = Rate(idle_per_hour=0.1, max_per_hour=4.0, storage_per_month=7.0)
    assert str(rate) == "idle $0.10/h, at most $4.00/h, storage $7.00/month"
