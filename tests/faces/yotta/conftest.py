"""An account of the emulator on virtual time. Each reply is held to the official client's OpenAPI file, where it is."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

if "yotta_account" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("yotta_account", Path(__file__).with_name("account.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["yotta_account"] = _module
    _spec.loader.exec_module(_module)


@pytest.fixture
def account() -> Callable[..., Any]:
    """Makes an account; quirks by their names."""
    return sys.modules["yotta_account"].Account  # type: ignore[no-any-return]  # a class of a module loaded by path
