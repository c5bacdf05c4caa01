"""For tests of applications (`unigpu_mock`, `isolated`) and of drivers (`DriverConformance`).

Needs the extra: ``pip install "unigpu[testing]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._conformance.bench import Bench as Bench
    from ._conformance.bench import WireBench as WireBench
    from ._conformance.benches import FaceBench as FaceBench
    from ._conformance.benches import LiveBench as LiveBench
    from ._conformance.driver import DriverConformance as DriverConformance
    from ._conformance.faults import WireConformance as WireConformance
    from ._isolation import isolated as isolated
    from ._mock.answers import Call as Call
    from ._mock.mock import UnigpuMock as UnigpuMock
    from ._mock.mock import unigpu_mock as unigpu_mock
    from ._mock.platforms import MockPlatform as MockPlatform
    from ._mock.provider import MockedProvider as MockedProvider

_WHERE = {
    "Bench": "_conformance.bench",
    "Call": "_mock.answers",
    "DriverConformance": "_conformance.driver",
    "FaceBench": "_conformance.benches",
    "LiveBench": "_conformance.benches",
    "MockPlatform": "_mock.platforms",
    "MockedProvider": "_mock.provider",
    "UnigpuMock": "_mock.mock",
    "WireBench": "_conformance.bench",
    "WireConformance": "_conformance.faults",
    "isolated": "_isolation",
    "unigpu_mock": "_mock.mock",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll] - found by __getattr__, so that one costs nothing of another
    "Bench",
    "Call",
    "DriverConformance",
    "FaceBench",
    "LiveBench",
    "MockPlatform",
    "MockedProvider",
    "UnigpuMock",
    "WireBench",
    "WireConformance",
    "isolated",
    "unigpu_mock",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'unigpu.testing' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(f".{_WHERE[name]}", __name__), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "unigpu":
            raise
        from unigpu.errors import ConfigurationError

        raise ConfigurationError(
            f"{name} needs the package {exc.name}.", hint='Say: pip install "unigpu[testing]".'
        ) from None
