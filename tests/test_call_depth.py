"""A call reaches the connection by a short way, and its input is encoded once; `scripts/call_depth.py` counts."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unigpu
from unigpu.testing import unigpu_mock

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


@pytest.mark.parametrize("provider", sorted(depth.OPERATIONS))
def test_a_deploy_passes_few_frames_and_files_to_the_create(provider: str) -> None:
    (deploy,) = [row for row in depth.measure(provider) if row.verb == "deploy"]
    assert deploy.frames <= 16
    assert deploy.files <= 12


@pytest.mark.parametrize("provider", ["local", "runpod"])
@pytest.mark.parametrize("verb", ["submit", "stream", "map"])
def test_every_other_call_encodes_its_input_once_too(provider: str, verb: str) -> None:
    with unigpu_mock(provider) as mock, unigpu.Client(provider) as client:
        mock.serve(f"depth@{provider}", _chunks, workers=(1, 1), gpu="RTX 4090")
        app = client.get("depth")
        with depth.watched() as seen:
            given = {"text": depth.MARK}
            calls = {
                "submit": lambda: client.submit(app, given).result(),
                "stream": lambda: list(client.stream(app, given)),
                "map": lambda: list(client.map(app, [given], progress="off")),
            }
            assert calls[verb]()
        assert seen.encodings == 1


def _chunks(value: dict[str, str]) -> Iterator[int]:
    yield from (1, 2)
