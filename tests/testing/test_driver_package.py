"""The driver of ``docs/write-a-driver.md``, made of nothing but the page: built, installed as a plugin, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "write-a-driver.md"
BLOCK = re.compile(r'^```(?:python|toml) title="([\w/.]+)"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
IN_THE_PACKAGE = {"__init__.py", "driver.py", "api.py", "wire.py", "translate.py", "facts.toml"}
USE = """
import unigpu
client = unigpu.Client("reference", api_key="k")
print(type(client._context.session.driver("reference")).__module__, client.capabilities("reference").cancel.value)
"""


def run(*command: str, cwd: Path, path: Path) -> str:
    env = {**os.environ, "PYTHONPATH": str(path), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", *command] if command[0] != "-c" else [sys.executable, *command],
        cwd=cwd, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The files of the page, where they belong."""
    folder = tmp_path / "source"
    parts: dict[str, list[str]] = {}
    for name, text in BLOCK.findall(PAGE.read_text("utf-8")):
        parts.setdefault(name, []).append(text)
    assert set(parts) >= IN_THE_PACKAGE
    for name, texts in parts.items():
        file = folder / ("unigpu_reference" if name in IN_THE_PACKAGE else ".") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n\n".join(texts), "utf-8")
    return folder


def test_the_pages_driver_is_built_installed_and_proved(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    run("pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target), str(source),
        cwd=tmp_path, path=target)  # fmt: skip
    used = run("-c", USE, cwd=tmp_path, path=target)
    assert used.split() == ["unigpu_reference.driver", "running"]
    only = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:xdist", "-k", "asyncio or method"]
    proved = run("pytest", *only, str(source / "tests" / "test_conformance.py"), cwd=tmp_path, path=target)
    assert re.search(r"\b1[5-9] passed", proved), proved
    real = run("pytest", *only, "--collect-only", str(source / "tests" / "test_account.py"), cwd=tmp_path, path=target)
    assert "test_a_deployment_lives_from_nothing_to_nothing" in real
