"""Every example runs, alone, as a user would start it; and stays an example: short, and one idea a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODEL_PYTHON = ROOT / ".venvs" / "example-model" / "bin" / "python"

KILLED_AT_THE_FOURTH_LINE = """
import builtins, itertools, os, runpy, signal, sys
count, shown = itertools.count(1), builtins.print

def print_and_die(*words, **how):
    shown(*words, **how)
    if next(count) == 4:
        os.kill(os.getpid(), signal.SIGKILL)

builtins.print = print_and_die
sys.path[0] = sys.argv[1]
runpy.run_path(sys.argv[1] + "/main.py", run_name="__main__")
"""


def run(name: str, here: Path, python: str = sys.executable) -> list[str]:
    ran = subprocess.run(
        [python, str(EXAMPLES / name / "main.py")], cwd=here, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, f"{ran.stdout}\n{ran.stderr}"
    return ran.stdout.splitlines()


def test_every_file_is_under_forty_lines() -> None:
    """But the quickstart, which is a tour of everything."""
    files = [path for path in EXAMPLES.rglob("*.py") if path.parent.name not in ("quickstart", "portable")]
    long = {str(path): n for path in files if (n := len(path.read_text("utf-8").splitlines())) >= 40}
    assert files
    assert not long


def test_every_example_is_on_the_page_of_examples() -> None:
    page = (ROOT / "docs" / "examples.md").read_text("utf-8")
    for path in EXAMPLES.glob("*/*.py"):
        assert f"/examples/{path.parent.name})" in page


def test_the_page_says_how_long_the_suite_of_the_web_application_is() -> None:
    lines = len((EXAMPLES / "web" / "test_main.py").read_text("utf-8").splitlines())
    assert f"one file of {lines} lines" in (ROOT / "docs" / "examples.md").read_text("utf-8")


@pytest.mark.processes
def test_a_script_leaves_nothing_behind_though_it_fails_in_the_middle(tmp_path: Path) -> None:
    *_, failed, left = run("cleanup", tmp_path)
    assert failed == "failed: something goes wrong in the middle"
    assert left == "left: 0 deployments, 0 things that cost money"


@pytest.mark.processes
def test_an_http_service_answers_piece_by_piece(tmp_path: Path) -> None:
    first, *found = run("http_service", tmp_path)
    assert first.startswith("200 text/event-stream")
    assert len(found) >= 5
    assert all("patent" in line for line in found)


@pytest.mark.processes
def test_a_batch_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    script = [sys.executable, "-c", KILLED_AT_THE_FOURTH_LINE, str(EXAMPLES / "batch")]
    killed = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = [line.split()[0] for line in killed.stdout.splitlines()]
    second = [line.split()[0] for line in run("batch", tmp_path)]
    assert len(first) == 4
    pages = {str(path.relative_to(ROOT)) for path in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]}
    assert {*first, *second} == pages
    again = set(first) & set(second)
    assert len(again) <= 1, "at most the one that was on its way when it was killed comes again"
    assert not list(tmp_path.glob("*.jsonl"))


@pytest.mark.processes
def test_the_web_application_passes_its_own_tests(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-c", os.devnull]
    ran = subprocess.run(
        [*line, "--rootdir", ".", "."], cwd=EXAMPLES / "web", capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


@pytest.mark.processes
@pytest.mark.skipif(not MODEL_PYTHON.exists(), reason="the model has an environment of its own: make example-model")
def test_a_real_model_tells_texts_apart(tmp_path: Path) -> None:
    first, *rest = run("model", tmp_path, str(MODEL_PYTHON))
    assert "cold start" in first
    labels = [line.split()[1] for line in rest]
    assert labels == ["markdown", "makefile", "toml", "shell", "json", "python"]
