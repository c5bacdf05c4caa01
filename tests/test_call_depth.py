"""A call reaches the connection by a short way, and its input is encoded once; `scripts/call_depth.py` counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "call_depth.py"
spec = importlib.util.spec_from_file_location("call_depth", SCRIPT)
assert spec is not None
assert spec.loader is not None
depth = sys.modules["call_depth"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(depth)


@pytest.mark.parametrize("provider", sorted(depth.OPERATIONS))
def test_an_invoke_passes_few_frames_and_files_and_encodes_its_input_once(provider: str) -> None:
    (invoke,) = [row for row in depth.measure(provider) if row.verb == "invoke"]
    assert invoke.frames <= 15
    assert invoke.files <= 12
    assert invoke.encodings == 1
