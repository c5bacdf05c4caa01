"""The RunPod driver in conformance, against RunPod's emulator: everything on virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from unigpu.emulator.apis.runpod.emulator import RunPodEmulator
from unigpu.models import Interface, Kind
from unigpu.testing import FaceBench, WireConformance


class Bench(FaceBench):
    """RunPod in memory. A pod's port is open to the internet and it never ends by itself, so both must be said."""

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        said: Mapping[str, Any] = {"ttl": None, "auth": "none"} if kind == "pod" else {}
        return {**super().shape(interface, kind), **said}


class TestRunPod(WireConformance):
    @pytest.fixture
    def wire(self) -> Iterator[FaceBench]:
        bench = Bench(
            "runpod",
            lambda engine, key: RunPodEmulator(engine, key=key, page=2),
            list_operation="runpod.endpoint.list",
            fields={"image": "ghcr.io/me/app:1", "gpu": "RTX 4090"},
        )
        with bench:
            yield bench

    @pytest.fixture
    def bench(self, wire: FaceBench) -> FaceBench:
        return wire
