"""What can be had on Vast now, at what a machine costs in all, for both kinds."""

from __future__ import annotations

import pytest

from unigpu import Client
from unigpu.errors import ConfigurationError
from unigpu.testing import unigpu_mock


@pytest.mark.parametrize("kind", ["serverless", "pod"])
def test_offers_are_machines_with_their_price_and_place(kind: str) -> None:
    with unigpu_mock("vast"), Client("vast") as client:
        found = client.offers(provider="vast", gpu="RTX 4090", kind=kind)
        assert found
        assert not found.unreadable
        for one in found:
            assert (one.gpu, one.count, one.kind) == ("RTX 4090", 1, kind)
            assert one.price_per_hour is not None
            assert one.region is not None
            # Traffic is billed besides, and each host has its own price for it.
            assert {"inet_down_cost", "inet_up_cost", "storage_cost"} <= set(one.details)
        prices = [one.price_per_hour or 0.0 for one in found]
        assert prices == sorted(prices)
        assert not client.offers(provider="vast", gpu="RTX 4090", kind=kind, max_price=min(prices) / 2)


@pytest.mark.parametrize(("provider", "missing"), [("vast", "max_price"), ("vast", "gpu"), ("runpod", "gpu")])
def test_what_must_be_said_is_asked_for_with_three_current_offers(provider: str, missing: str) -> None:
    fields = {"name": "a", "handler": "app:f", "image": "x/y:1", "gpu": "RTX 4090", "max_price": 1.0}
    del fields[missing]
    with unigpu_mock(provider), Client(provider) as client:
        with pytest.raises(ConfigurationError, match=f"^{missing}:") as caught:
            client.deploy(progress="off", **fields)
        assert caught.value.hint is not None
        assert "Offered now: 1 x " in caught.value.hint
        if missing == "gpu":
            assert caught.value.hint.count("/h") == 3
        (plan,) = client.plan(provider=provider, **fields)
        assert "Offered now: 1 x " in str(plan.reason)
