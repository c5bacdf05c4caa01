"""The printed Dockerfile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import unigpu
from unigpu.errors import ConfigurationError
from unigpu.worker.dockerfile import dockerfile


def test_the_last_line_runs_the_worker_without_a_shell_so_that_sigterm_reaches_it() -> None:
    last = dockerfile("app:summarize").splitlines()[-1]
    assert json.loads(last.removeprefix("CMD ")) == ["python", "-m", "unigpu.worker", "app:summarize"]


def test_the_vendors_packages_never_share_an_environment() -> None:
    for line in dockerfile("app:summarize").splitlines():
        assert not ("vastai" in line and "runpod==" in line)
        if "vastai" in line and "install" in line:
            assert "/opt/pyworker/bin/pip" in line


def test_only_what_the_chosen_platforms_need_is_installed() -> None:
    text = dockerfile("app.py:summarize", python="3.12", providers=["yotta"])
    assert "FROM python:3.12-slim" in text
    assert "vastai" not in text
    assert "runpod" not in text
    assert "unigpu[worker]" in text


@pytest.mark.parametrize(
    "target",
    ["app", "app:", ":f", "/abs/app.py:f", "../app.py:f", 'app:f"]', "app:f\nRUN evil", "-c:f", "a b:f", "app:1"],
)
def test_a_target_that_an_image_cannot_hold_is_refused(target: str) -> None:
    with pytest.raises(ConfigurationError, match="relative to the folder"):
        dockerfile(target)


@pytest.mark.parametrize("python", ["3.10", "2.7", "3", "latest", "3.11 AS x", "3.12\nRUN evil"])
def test_a_python_that_is_too_old_or_not_a_version_is_refused(python: str) -> None:
    with pytest.raises(ConfigurationError, match=r"3\.11"):
        dockerfile("app:f", python=python)


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="modal"):
        dockerfile("app:f", providers=["modal"])


def test_a_server_s_image_runs_its_command_and_can_be_put_behind_pyworker_on_vast() -> None:
    text = dockerfile(command=["python", "server.py"])
    assert json.loads(text.splitlines()[-1].removeprefix("CMD ")) == ["python", "server.py"]
    assert "/opt/pyworker/bin/pip install --no-deps unigpu" in text
    assert "runpod" not in text.replace("RunPod", "")
    assert "unigpu" not in dockerfile(command=["serve"], providers=["runpod"])
    for both in ({}, {"target": "app:f", "command": ["serve"]}):
        with pytest.raises(ConfigurationError, match="one of them"):
            dockerfile(**both)  # type: ignore[arg-type] - wrong on purpose


def test_pyworker_s_program_is_found_without_any_package_of_ours() -> None:
    """The image has unigpu there without what it depends on, and the interpreter looks nowhere else."""
    source = str(Path(unigpu.__file__).parents[1])
    program = "import runpy, sys; sys.path.insert(0, sys.argv[1]); runpy.run_module('unigpu.worker.pyworker')"
    subprocess.run([sys.executable, "-I", "-S", "-c", program, source], check=True)
