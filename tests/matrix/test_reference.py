"""The reference platform in conformance: what every driver must do, and what it must do when the platform fails."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unigpu.testing import FaceBench, WireConformance
from unigpu.testing.reference import ReferenceDriver, ReferenceEmulator


class TestReference(WireConformance):
    """Everything, on virtual time."""

    @pytest.fixture
    def wire(self) -> Iterator[FaceBench]:
        bench = FaceBench(
            "reference",
            lambda engine, key: ReferenceEmulator(engine, key=key, page=2),
            list_operation="reference.endpoint.list",
            fields={"image": "ghcr.io/me/app:1", "gpu": "RTX 4090"},
            driver=ReferenceDriver,
        )
        with bench:
            yield bench

    @pytest.fixture
    def bench(self, wire: FaceBench) -> FaceBench:
        return wire
