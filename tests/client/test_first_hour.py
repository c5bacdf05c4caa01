"""Mistakes of the first hour: each is told as what it is, before anything is sent, with what to do."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unigpu
from unigpu import Client, ConfigurationError, UnsupportedError
from unigpu.cli import main
from unigpu.testing import UnigpuMock, unigpu_mock

LONG_KEY = "rpa_ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


@pytest.fixture
def mocked() -> Iterator[UnigpuMock]:
    with unigpu_mock("local") as cloud:
        yield cloud


def test_a_mistyped_provider_is_told_when_the_client_is_made() -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'runpod'"):
        Client("runpd")


def test_a_key_in_the_place_of_the_provider_is_never_shown() -> None:
    with pytest.raises(ConfigurationError, match="api_key=") as caught:
        Client(LONG_KEY)
    assert LONG_KEY not in "".join(traceback.format_exception_only(caught.value))


def test_a_wrong_provider_of_the_environment_or_a_file_names_its_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "unigpu.toml"
    file.write_text('provider = "vst"\n')
    with pytest.raises(ConfigurationError, match=r"unigpu\.toml\): there is no provider 'vst'; did you mean 'vast'"):
        Client(config=file)
    assert main(["config", "explain", "--config", str(file)]) == 2
    assert "did you mean 'vast'" in capsys.readouterr().err
    monkeypatch.setenv("UNIGPU_PROVIDER", "yota")
    with pytest.raises(ConfigurationError, match=r"environment \(UNIGPU_PROVIDER\)\): .* did you mean 'yotta'"):
        Client()


@pytest.mark.parametrize("verb", ["deployments", "inventory", "gc", "offers"])
@pytest.mark.parametrize("given", ["locl", ["locl"], ["local", "locl"]])
def test_a_mistyped_provider_is_no_account_that_could_not_be_read(verb: str, given: Any) -> None:
    with Client("local") as client, pytest.raises(ConfigurationError, match="did you mean 'local'"):
        getattr(client, verb)(provider=given)


def test_a_port_that_cannot_be_is_told_without_a_traceback(capsys: Any) -> None:
    assert main(["emulator", "serve", "local", "--port", "99999"]) == 2
    assert "cannot listen on 127.0.0.1 port 99999" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["gc", "inventory", "offers"])
def test_on_the_command_line_a_mistyped_provider_was_asked_wrongly(command: str, capsys: Any) -> None:
    assert main([command, "--provider", "locl"]) == 2
    told = capsys.readouterr()
    assert "did you mean 'local'" in told.err
    assert told.out == ""


def test_openai_of_a_function_says_so_whether_or_not_the_package_is_there(
    monkeypatch: pytest.MonkeyPatch, mocked: UnigpuMock
) -> None:
    from importlib import metadata

    def none(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    mocked.serve("count", lambda given: given)
    monkeypatch.setattr(metadata, "version", none)
    with Client() as client, pytest.raises(UnsupportedError, match="invoke"):
        client.get("count").openai()


class Counter:
    def __call__(self, input: dict[str, Any]) -> dict[str, Any]:
        return input

    def method(self, input: dict[str, Any]) -> dict[str, Any]:
        return input


def _nested(input: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: input


UNIMPORTABLE: list[tuple[Any, str]] = [
    (_nested({}), "write a function or a class there"),
    (Counter().method, "write a function or a class there"),
    (Counter(), "give its class"),
    (functools.partial(print), "instead of a partial a function"),
    (3, "at the top of a module"),
]


@pytest.mark.parametrize(("handler", "advice"), UNIMPORTABLE)
def test_what_no_worker_could_import_says_what_to_give_instead(handler: Any, advice: str) -> None:
    with Client("local") as client, pytest.raises(ConfigurationError, match=advice):
        client.plan(name="count", handler=handler)


@pytest.mark.parametrize("gpu", [24, True, 1.5, object()])
def test_what_is_no_gpu_says_how_one_is_named(gpu: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'gpu: .*"24GB"'):
        unigpu.DeploymentSpec(name="count", gpu=gpu)


def test_a_checkpoint_that_cannot_be_opened_sent_nothing(tmp_path: Path, mocked: UnigpuMock) -> None:
    mocked.serve("count", lambda given: given)
    with Client() as client, pytest.raises(unigpu.StateError, match=r"Nothing was sent\. Give a file in a folder"):
        client.map("count", [{}], checkpoint=tmp_path / "no" / "such" / "file", progress="off")
    assert not mocked.calls("count", "invoke")


def test_the_error_of_a_map_names_its_input(mocked: UnigpuMock) -> None:
    def picky(given: dict[str, int]) -> int:
        return 1 // given["n"]

    mocked.serve("picky", picky)
    with Client() as client:
        for inputs, kind in ([{"n": 1}, {"n": 0}], unigpu.JobFailed), ([{"n": 1}, "no object"], unigpu.InvalidInput):
            given: Any = inputs
            with pytest.raises(kind) as caught:
                list(client.map("picky", given, key=lambda one: f"key of {one}", progress="off"))
            assert any(f"key of {inputs[1]}" in note for note in caught.value.__notes__)


def test_modules_are_found_below_the_package_and_a_mistyped_name_has_a_nearest() -> None:
    code = "import unigpu; print(unigpu.errors.JobFailed.__name__, unigpu.testing.unigpu_mock.__name__); unigpu.Clint"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["JobFailed", "unigpu_mock"]
    assert "Did you mean: 'Client'" in done.stderr


def test_a_reader_that_leaves_ends_the_command_without_a_traceback() -> None:
    command = [sys.executable, "-m", "unigpu", "config", "schema"]
    gone, mine = os.pipe()
    os.close(gone)
    done = subprocess.run(command, stdout=mine, stderr=subprocess.PIPE, text=True, check=False)
    os.close(mine)
    assert (done.returncode, done.stderr) == (1, "")
