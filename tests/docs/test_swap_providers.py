"""`docs/swap-providers.md`: its own files, on each of the four providers, with nothing but the first line changed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docs_pages
import pytest

from unigpu.testing import unigpu_mock

PAGE = next(page for page in docs_pages.pages() if page.name == "docs/swap-providers.md")
FILES = {block.file: block.text for block in PAGE.blocks if block.file}
CONFIG = next(block.text for block in PAGE.blocks if block.language == "toml")
SHOWN = next(block.text for block in PAGE.blocks if block.language == "text")
CLOUDS = ("runpod", "vast", "yotta")


def project(path: Path, provider: str) -> Path:
    """The page's files in a folder, with the first line changed."""
    for name, text in FILES.items():
        (path / name).write_text(text, "utf-8")
    first, rest = CONFIG.split("\n", 1)
    changed = re.sub(r'^provider = "local"', f'provider = "{provider}"', first)
    assert (changed == first) is (provider == "local")
    config = path / "unigpu.toml"
    config.write_text(f"{changed}\n{rest}", "utf-8")
    return config


def handler(path: Path) -> Callable[[Any], Any]:
    spec = importlib.util.spec_from_file_location("swapped_app", path / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.summarize  # type: ignore[no-any-return]  # the page's own function


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_program_runs_on_a_cloud_with_one_line_changed(
    provider: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = project(tmp_path, provider)
    monkeypatch.chdir(tmp_path)
    out = io.StringIO()
    with unigpu_mock(provider, config=config) as cloud:
        cloud.serve(f"summarize@{provider}", handler(tmp_path), exists=False)
        with contextlib.redirect_stdout(out):
            runpy.run_path(str(tmp_path / "main.py"))
        cloud.assert_nothing_billing(after=600)
        assert cloud.calls()
    assert out.getvalue() == SHOWN


@pytest.mark.processes
def test_the_program_runs_at_home_with_real_processes(tmp_path: Path) -> None:
    project(tmp_path, "local")
    home = tmp_path / "home"
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith("UNIGPU_")},
        "UNIGPU_STATE_DIR": str(home / "state"),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, SHOWN), done.stderr
