"""The recipe of the portable example: what a Dockerfile's RUN line becomes on this machine."""

from __future__ import annotations

import importlib.util
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe() -> Any:
    spec = importlib.util.spec_from_file_location("portable_recipe", ROOT / "examples" / "portable" / "recipe.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("folder", ["unigpu", "unigpu[worker]==1", "with space", "it's $HOME", "plain"])
def test_a_line_runs_as_it_stands_whatever_the_folder_is_called(
    recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    root = tmp_path / folder
    monkeypatch.setattr(recipe, "ROOT", root)
    image = recipe.Image(root / "app", root / "env" / "bin", root / "pyworker", [])
    program = image.pyworker / "bin" / "say"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@" > said\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    image.app.mkdir()
    line = '/opt/pyworker/bin/say "unigpu[worker]==0.1.0" unigpu==0.1.0 "runpod==1.12.0" /opt/pyworker'
    recipe._carry_out("RUN", line, image)
    said = (image.app / "said").read_text().splitlines()
    assert said == [str(program), f"{root}[worker]", str(root), "runpod==1.12.0", str(image.pyworker)]
