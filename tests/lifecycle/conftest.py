"""Makes the fakes importable as ``lifecycle_*`` whatever the import mode."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

for _name, _file in (
    ("lifecycle_cloud", "fake_cloud.py"),
    ("lifecycle_driver", "fake_driver.py"),
    ("lifecycle_fakes", "fakes.py"),
):
    if _name not in sys.modules:
        _spec = importlib.util.spec_from_file_location(_name, Path(__file__).with_name(_file))
        assert _spec is not None
        assert _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)


@pytest.fixture
def world(tmp_path: Path):  # type: ignore[no-untyped-def]  # the module is loaded above
    return sys.modules["lifecycle_fakes"].World(tmp_path / "state")


@pytest.fixture(autouse=True)
def _fast_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of simulated deaths need no real syncs; the tests of the files themselves keep them."""
    if "real_disk" not in request.fixturenames:
        monkeypatch.setattr("os.fsync", lambda fd: None)


@pytest.fixture
def real_disk() -> None:
    """Keeps `os.fsync` real."""
