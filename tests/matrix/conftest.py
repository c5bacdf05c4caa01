"""Makes the matrix's parts importable as ``matrix_*`` whatever the import mode, and counts over all its tests."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_ENTRIES = ("entry_reference", "entry_runpod", "entry_vast", "entry_yotta")
for _name in ("entry", *_ENTRIES, "platforms", "world", "faults", "life", "race"):
    _full = f"matrix_{_name}"
    if _full not in sys.modules and Path(__file__).with_name(f"{_name}.py").exists():
        _spec = importlib.util.spec_from_file_location(_full, Path(__file__).with_name(f"{_name}.py"))
        assert _spec is not None
        assert _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_full] = _module
        _spec.loader.exec_module(_module)


@pytest.fixture(autouse=True)
def _fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of simulated deaths need no real syncs: what a process wrote survives its own death."""
    monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of faults are thousands of warnings, which nobody reads."""
    log = logging.getLogger("unigpu")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(before)


@pytest.fixture(params=sys.modules["matrix_platforms"].PLATFORMS, ids=lambda one: one.name)
def platform(request: pytest.FixtureRequest) -> Any:
    """Each platform of the matrix."""
    return request.param


@pytest.fixture
def make(platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes worlds of one platform: ``make(list_lag=4.0)``."""
    with sys.modules["matrix_world"].worlds(platform, tmp_path, monkeypatch) as made:
        yield made
