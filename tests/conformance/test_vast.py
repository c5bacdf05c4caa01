"""Vast in conformance: what every driver must do, and what it must do when the platform fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from unigpu.emulator.apis.vast.emulator import VastEmulator
from unigpu.models import Interface, Kind
from unigpu.testing import FaceBench, WireConformance

FIELDS: Mapping[str, Any] = {
    "image": "ghcr.io/me/app:1",
    "gpu": "RTX 4090",
    "max_price": 1.0,
    "accept": ["secrets_on_shared_hosts"],  # the host can read them, and the spec must say that this is fine
}


class Bench(FaceBench):
    """Vast in memory. A pod's port is open to the internet and it never ends by itself, so both must be said."""

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        said: Mapping[str, Any] = {"ttl": None, "auth": "none"} if kind == "pod" else {}
        return {**super().shape(interface, kind), **said}


class TestVast(WireConformance):
    """Everything, on virtual time."""

    @pytest.fixture
    def wire(self) -> Iterator[FaceBench]:
        bench = Bench(
            "vast",
            lambda engine, key: VastEmulator(engine, token=key),
            list_operation="vast.endpoint.list",
            fields=FIELDS,
            status_names=("status", "endpoint_state"),
        )
        with bench:
            yield bench

    @pytest.fixture
    def bench(self, wire: FaceBench) -> FaceBench:
        return wire
