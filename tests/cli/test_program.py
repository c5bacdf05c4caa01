"""The program around the verbs: how it is installed, what it imports, its help, and its usage errors."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from typing import Any

import click
import pytest

from unigpu.cli import main
from unigpu.cli.program import VERBS, program

BLOCKED = """
import sys
sys.modules["click"] = None  # as where it is not installed
"""
BY_MODULE = "import runpy; sys.argv = ['unigpu', *{words!r}]; runpy.run_module('unigpu', run_name='__main__')"
BY_SCRIPT = "from unigpu.cli import main; sys.exit(main({words!r}))"


def python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)


def modules(words: list[str]) -> set[str]:
    """What a process has imported once it has run one command."""
    ran = python(
        "import json, sys\nfrom unigpu.cli import main\n"
        f"code = main({words!r})\nprint()\nprint(json.dumps([code, sorted(sys.modules)]))"
    )
    code, loaded = json.loads(ran.stdout.splitlines()[-1])
    assert code == 0, ran.stderr
    return set(loaded)


def test_the_command_is_installed_with_the_package() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="unigpu")
    assert script.load() is main


def test_the_module_is_the_same_program() -> None:
    ran = [
        subprocess.run([sys.executable, "-m", "unigpu", "--version"], capture_output=True, text=True, check=True),
        python("import sys\n" + BY_SCRIPT.format(words=["--version"])),
    ]
    assert [one.stdout for one in ran] == [f"{importlib.metadata.version('unigpu')}\n"] * 2


@pytest.mark.parametrize("start", [BY_MODULE, BY_SCRIPT])
@pytest.mark.parametrize("words", [["--help"], ["deployments"], []])
def test_without_the_extra_one_line_says_what_to_install(start: str, words: list[str]) -> None:
    ran = python(BLOCKED + start.format(words=words))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == 'unigpu: the command line needs one more package: pip install "unigpu[cli]"\n'


def test_the_local_provider_brings_the_command_and_the_runtime_does_not() -> None:
    needs = [one for one in importlib.metadata.requires("unigpu") or [] if one.startswith("click")]
    assert any("extra == 'local'" in one for one in needs)
    assert all("extra == " in one for one in needs)


def test_help_lists_every_verb_with_its_line(capsys: Any) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out.splitlines()
    for verb, text in VERBS.items():
        assert f"  {verb:13}{text}" in printed


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(capsys: Any, verb: str) -> None:
    assert main([verb, "-h"]) == 0
    assert capsys.readouterr().out.startswith("Usage: ")


def test_without_a_verb_the_help_goes_to_stderr_and_the_exit_code_is_2(capsys: Any) -> None:
    for words in ([], ["config"], ["emulator"]):
        assert main(words) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Commands:" in printed.err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["plna", "x"], "Did you mean 'plan'?"),
        (["plan", "x", "--porvider", "local"], "--provider"),
        (["offers", "--kind", "pdo"], "pod"),
        (["scale", "x", "many"], "'many' is not a valid integer"),
        (["plan"], "Missing argument 'NAME'"),
    ],
)
def test_a_usage_error_ends_with_2_and_names_what_is_near(capsys: Any, words: list[str], near: str) -> None:
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert near in printed.err


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(click.Command, "invoke", interrupted)
    assert main(["deployments"]) == 130


@pytest.mark.processes
def test_a_reader_that_leaves_early_is_no_traceback() -> None:
    command = [sys.executable, "-m", "unigpu", "facts", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ran:
        assert ran.stdout is not None
        assert ran.stderr is not None
        ran.stdout.close()
        assert ran.stderr.read() == ""
    assert ran.returncode == 1


def test_help_imports_no_verb_and_a_verb_no_other() -> None:
    loaded = modules(["--help"])
    assert not {f"unigpu.cli.{verb}" for verb in VERBS} & loaded
    assert not {"httpx", "pydantic", "anyio", "rich", "unigpu._client", "unigpu.models"} & loaded
    loaded = modules(["image", "dockerfile", "--help"])
    assert {f"unigpu.cli.{verb}" for verb in VERBS} & loaded == {"unigpu.cli.image"}
    assert not {"httpx", "pydantic", "unigpu._client"} & loaded


def test_the_package_does_not_import_its_command() -> None:
    ran = python("import sys, unigpu\nprint([m for m in sys.modules if m.startswith('unigpu.cli') or m == 'click'])")
    assert ran.stdout == "[]\n"


def test_each_verb_is_a_module_that_defines_it() -> None:
    context = click.Context(program)
    for verb in VERBS:
        assert isinstance(program.get_command(context, verb), click.Command)
    assert program.get_command(context, "program") is None
