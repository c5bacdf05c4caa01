"""Flavours, and a fake cloud that every client of a test reaches as the provider ``fake``."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from unigpu import _registry
from unigpu._io.clock import InstantClock, use_clock


def _load(name: str, file: Path) -> ModuleType:
    """Import a helper by its path: with importlib import mode there is no package to import it from."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


HERE = Path(__file__).parent
fakes = _load("client_fakes", HERE / "fake_driver.py")
_load("client_listed", HERE / "listed_world.py")
flavours = _load("flavours", HERE.parent / "support" / "flavours.py")


@pytest.fixture(params=flavours.NAMES)
def flavour(request: pytest.FixtureRequest) -> Any:
    return flavours.Flavour(request.param)


@pytest.fixture
def cloud() -> Iterator[Any]:
    """A fake cloud; clients reach it as ``Client("fake")``."""
    made = fakes.FakeCloud()
    with _registry.using("fake", fakes.driver_for(made)):
        yield made


@pytest.fixture
def instant() -> Iterator[InstantClock]:
    """Time passes at once wherever somebody waits."""
    clock = InstantClock()
    with use_clock(clock):
        yield clock
