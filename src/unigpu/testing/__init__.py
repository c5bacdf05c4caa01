"""For tests of applications (`unigpu_mock`, `isolated`) and of drivers (`DriverConformance`).

Needs the extra: ``pip install "unigpu[testing]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._answers import Call as Call
    from ._bench import Bench as Bench
    from ._bench import WireBench as WireBench
    from ._benches import FaceBench as FaceBench
    from ._benches import LiveBench as LiveBench
    from ._conformance import DriverConformance as DriverConformance
    from ._isolation import isolated as isolated
    from ._mock import UnigpuMock as UnigpuMock
    from ._mock import unigpu_mock as unigpu_mock
    from ._platforms import MockPlatform as MockPlatform
    from ._provider import MockedProvider as MockedProvider
    from ._wire_conformance import WireConformance as WireConformance

_WHERE = {
    "Bench": "_bench",
    "Call": "_answers",
    "DriverConformance": "_conformance",
    "FaceBench": "_benches",
    "LiveBench": "_benches",
    "MockPlatform": "_platforms",
    "MockedProvider": "_provider",
    "UnigpuMock": "_mock",
    "WireBench": "_bench",
    "WireConformance": "_wire_conformance",
    "isolated": "_isolation",
    "unigpu_mock": "_mock",
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
