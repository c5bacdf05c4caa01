"""The command line: what is printed, and the exit codes that a script goes by."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_listed import FIELDS, KEY, ListedWorld

from unigpu import _registry
from unigpu._client import sync_client
from unigpu._io.clock import InstantClock
from unigpu.cli import main
from unigpu.testing.reference import ReferenceDriver


@pytest.fixture
def world(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ListedWorld]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setenv("REFERENCE_API_KEY", KEY)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("UNIGPU_CONFIG", str(tmp_path / "unigpu.toml"))
    monkeypatch.chdir(tmp_path)
    with _registry.using("reference", ReferenceDriver):
        made = ListedWorld(tmp_path, instant)
        plain = sync_client.http_config
        monkeypatch.setattr(
            sync_client, "http_config", lambda given=None, **more: plain(given or made.transport, **more)
        )
        yield made


def failed(world: ListedWorld) -> None:
    """A deploy of this machine, in the state directory that the command line uses, whose undo fails."""
    from unigpu import Client, PartialDeployError

    world.faults.add("reference.endpoint.patch", reply=400)
    world.faults.add("reference.endpoint.delete", times=None, reply=400)
    with Client("reference") as client, pytest.raises(PartialDeployError):
        client.deploy(progress="off", **FIELDS)
    world.faults.clear()


def test_gc_shows_first_and_deletes_when_told(world: ListedWorld, capsys: Any) -> None:
    failed(world)
    assert main(["gc", "--provider", "reference"]) == 0
    told = capsys.readouterr().out
    assert "failed" in told
    assert "add --delete" in told
    assert len(world.all()) == 2
    assert main(["gc", "--provider", "reference", "--delete"]) == 0
    assert "deleted" in capsys.readouterr().out
    assert world.all() == []
    assert main(["gc", "--provider", "reference"]) == 0
    assert "nothing was left behind" in capsys.readouterr().out


def test_gc_as_json(world: ListedWorld, capsys: Any) -> None:
    failed(world)
    capsys.readouterr()
    assert main(["gc", "--provider", "reference", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["reason"] for row in rows} == {"failed"}


def test_gc_that_cannot_read_or_delete_says_so_by_its_exit_code(world: ListedWorld, capsys: Any) -> None:
    failed(world)
    world.faults.add("reference.endpoint.list", times=None, reply=500)
    assert main(["gc", "--provider", "reference", "--delete"]) == 1
    assert "could not be read" in capsys.readouterr().err
    assert len(world.all()) == 2
    world.faults.clear()
    world.clock.advance(60.0)
    world.faults.add("reference.endpoint.delete", times=None, reply=400)
    assert main(["gc", "--provider", "reference", "--delete"]) == 1


def test_the_inventory_is_printed_with_its_total(world: ListedWorld, capsys: Any) -> None:
    with world.client() as client:
        client.deploy(progress="off", **FIELDS)
    assert main(["inventory", "--provider", "reference"]) == 0
    told = capsys.readouterr().out
    assert "summarize" in told
    assert "in all: $0.00/h" in told
    assert main(["inventory", "--provider", "reference", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"][0]["owner"] == "ours"


DECLARED = """
provider = "reference"
[deployments.summarize]
handler = "app:summarize"
image = "me/app:1"
gpu = "RTX 4090"
"""


def test_a_declared_deployment_from_its_plan_to_its_end(world: ListedWorld, capsys: Any) -> None:
    (world.path / "unigpu.toml").write_text(DECLARED)
    assert main(["deployments"]) == 0
    assert "nothing is deployed" in capsys.readouterr().out
    assert main(["plan", "summarize"]) == 0
    assert world.all() == []
    assert main(["deploy", "summarize"]) == 0
    assert "summarize@reference: created, COLD" in capsys.readouterr().out
    assert main(["deploy", "summarize", "--worker"]) == 0
    assert "reused, READY" in capsys.readouterr().out
    assert main(["deployments"]) == 0
    assert "summarize@reference: READY, 0–1 workers" in capsys.readouterr().out
    assert main(["invoke", "summarize", '{"n": 1}']) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"n": 1}
    assert "total" in told.err
    assert main(["scale", "summarize", "0", "3"]) == 0
    assert main(["deployments", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["deployments"][0]["workers"] == [0, 3]
    assert main(["teardown", "summarize@reference"]) == 0
    assert "is gone" in capsys.readouterr().out
    assert world.all() == []
    assert main(["teardown", "other"]) == 1
    assert "there is no deployment 'other'" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["nope", "[1]", "3"])
def test_an_input_that_is_no_json_object_is_asked_wrongly(world: ListedWorld, capsys: Any, given: str) -> None:
    assert main(["invoke", "summarize", given]) == 2
    assert "JSON" in capsys.readouterr().err


def test_a_call_of_what_is_not_there_fails(world: ListedWorld, capsys: Any) -> None:
    (world.path / "unigpu.toml").write_text(DECLARED)
    assert main(["invoke", "summarize", "{}"]) == 1
    assert main(["logs", "summarize"]) == 1
    assert main(["scale", "summarize", "1"]) == 1
    assert main(["deploy", "sumarize"]) == 2
    assert "did you mean 'summarize'" in capsys.readouterr().err
