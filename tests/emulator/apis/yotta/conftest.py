"""An account of the emulator on virtual time, and the emulator as a server with real worker processes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

for _name in ("account", "served"):
    if f"yotta_{_name}" not in sys.modules:
        _spec = importlib.util.spec_from_file_location(f"yotta_{_name}", Path(__file__).with_name(f"{_name}.py"))
        assert _spec is not None
        assert _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[f"yotta_{_name}"] = _module
        _spec.loader.exec_module(_module)


@pytest.fixture
def account() -> Callable[..., Any]:
    """Makes an account; quirks by their names."""
    return sys.modules["yotta_account"].Account  # type: ignore[no-any-return]  # a class of a module loaded by path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Any]:
    made = sys.modules["yotta_served"].Served(tmp_path)
    yield made
    made.close()


@pytest.fixture
def hook() -> Iterator[Any]:
    made = sys.modules["yotta_served"].Hook()
    yield made
    made.close()
