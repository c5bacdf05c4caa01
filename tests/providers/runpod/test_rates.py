"""What a client does at RunPod's own rates: it waits for its turn, as long as the caller gave it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from unigpu import AsyncClient
from unigpu.emulator.apis.runpod import quirks
from unigpu.testing import unigpu_mock

FIELDS: dict[str, Any] = {"handler": "app:f", "image": "me/app:1", "gpu": "RTX 4090"}


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mock's RunPod takes 12 requests a minute: the OpenAPI file's 60, for a fifth of the work."""
    monkeypatch.setattr(quirks, "WIDE", (("minute", 12, 60),))


def test_eight_deploys_at_once_wait_for_their_turn_as_long_as_their_timeout_allows() -> None:
    async def deploy_all() -> set[str | None]:
        async with AsyncClient("runpod") as client:
            names = [f"app{number}" for number in range(8)]
            apps = [client.deploy(name=name, progress="off", timeout=1800, **FIELDS) for name in names]
            return {app.change for app in await asyncio.gather(*apps)}

    with unigpu_mock("runpod", clock="virtual") as cloud:
        began = cloud.clock.now()
        assert asyncio.run(deploy_all()) == {"created"}
        assert 240 < cloud.clock.now() - began < 1800
