"""What a deployment costs by the hour."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.elasticity.price import free, rate_of
from unigpu.models import DeploymentSpec


def spec(workers: tuple[int, int]) -> DeploymentSpec:
    return DeploymentSpec(name="a", workers=workers)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 100))
def test_idle_is_the_least_and_at_most_is_all(least: int, extra: int, price: float) -> None:
    rate = rate_of(spec((least, max(1, least + extra))), price, "list price")
    assert rate.idle_per_hour == pytest.approx(least * price, abs=1e-6)
    assert rate.max_per_hour == pytest.approx(max(1, least + extra) * price, abs=1e-6)
    assert rate.source == "list price"


def test_an_unknown_price_is_unknown_but_no_worker_costs_nothing() -> None:
    rate = rate_of(spec((0, 3)), None, None)
    assert (rate.idle_per_hour, rate.max_per_hour, rate.storage_per_month) == (0.0, None, None)
    assert rate_of(spec((1, 3)), None, None).idle_per_hour is None


def test_an_idle_worker_may_be_cheaper_and_storage_is_told() -> None:
    rate = rate_of(spec((1, 2)), 2.0, "offer", idle_price_per_hour=0.1, storage_per_month=7.0)
    assert (rate.idle_per_hour, rate.max_per_hour, rate.storage_per_month) == (0.1, 4.0, 7.0)
    assert str(rate) == "idle $0.10/h, at most $4.00/h, storage $7.00/month"


def test_this_machine_costs_nothing() -> None:
    rate = free(spec((1, 3)))
    assert (rate.idle_per_hour, rate.max_per_hour, rate.storage_per_month, rate.source) == (
        0.0,
        0.0,
        0.0,
        "this machine",
    )
