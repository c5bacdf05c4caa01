"""Loads the helpers by their path: with importlib import mode there is no package to import them from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_NAME = "kill_support"
if _NAME not in sys.modules:
    _spec = importlib.util.spec_from_file_location(_NAME, Path(__file__).with_name("kill_support.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules[_NAME] = _module
    _spec.loader.exec_module(_module)

from kill_support import counts, dice, home, homes, nursery  # noqa: E402 - the file above must be loaded first

__all__ = ["counts", "dice", "home", "homes", "nursery"]
