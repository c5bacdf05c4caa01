from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu._io.clock import InstantClock, use_clock

if "yotta_script" not in sys.modules:
    _spec = importlib.util.spec_from_file_location("yotta_script", Path(__file__).with_name("script.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["yotta_script"] = _module
    _spec.loader.exec_module(_module)


@pytest.fixture
def clock() -> Iterator[InstantClock]:
    made = InstantClock()
    with use_clock(made):
        yield made


@pytest.fixture
def script(clock: InstantClock) -> Callable[..., Any]:
    """Makes a `Scripted` control plane on a clock that jumps."""
    return sys.modules["yotta_script"].Scripted  # type: ignore[no-any-return]  # a class of a module loaded by path
