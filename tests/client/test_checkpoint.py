"""A `map` with a checkpoint: a crash loses nothing, and nothing runs twice that must not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu import (
    CheckpointMismatch,
    Client,
    ConfigurationError,
    Cost,
    JobFailed,
    Result,
    ResultUnknown,
    StateError,
    Timing,
    _registry,
)
from unigpu._client.map.checkpoint import Checkpoint, digest
from unigpu.driver import CallClass

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello", "progress": "off", "workers": (0, 4)}


def some(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"i": i, **more} for i in range(n)]


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_map_that_ended_early_goes_on_and_nothing_runs_twice(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        first: list[int] = []
        async with app.map(some(20), checkpoint=file, progress="off") as results:
            async for result in results:
                first.append(result.output["i"])
                if len(first) == 8:
                    break
        rest = [r.output["i"] async for r in app.map(some(20), checkpoint=file, progress="off")]
        # The eighth was given and not taken: the consumer may not have dealt with it, so it comes again.
        assert rest == list(range(7, 20))
        ran = [e.call.input["i"] for e in cloud.jobs.values() if not e.cancelled]
        assert sorted(ran) == sorted(set(ran)) == list(range(20))
        assert [r async for r in app.map(some(20), checkpoint=file, progress="off")] == []

    flavour.run(work, "fake")


def test_jobs_that_were_sent_are_asked_for_and_not_sent_again(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        job = await app.submit({"i": 0})
        with Checkpoint(file, deployment="hello@fake in default") as checkpoint:
            checkpoint.entry("0", digest({"i": 0}))
            checkpoint.submitted("0", job.id)
        (found,) = [r async for r in app.map(some(1), checkpoint=file, progress="off")]
        assert (found.job_id, found.output, cloud.count("submit")) == (job.id, {"i": 0}, 1)

    flavour.run(work, "fake")


def test_a_job_whose_fate_cannot_be_known_is_told_once_and_then_runs_again(
    flavour: Any, cloud: Any, tmp_path: Path
) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        for job_id in ("forgotten", None):
            with Checkpoint(file, deployment="hello@fake in default") as checkpoint:
                checkpoint.entry("0", digest({"i": 0}))
                checkpoint.submitted("0", job_id)
            with pytest.raises(ResultUnknown, match="cannot be known"):
                [_ async for _ in app.map(some(1), checkpoint=file, progress="off")]
            assert [r.output async for r in app.map(some(1), checkpoint=file, progress="off")] == [{"i": 0}]
            file.unlink()

    flavour.run(work, "fake")


def test_an_idempotent_handler_is_simply_run_again(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO, idempotent=True)
        with Checkpoint(file, deployment="hello@fake in default") as checkpoint:
            checkpoint.entry("0", digest({"i": 0}))
            checkpoint.submitted("0", None)
        assert [r.output async for r in app.map(some(1), checkpoint=file, progress="off")] == [{"i": 0}]

    flavour.run(work, "fake")


def test_a_failed_input_is_raised_and_runs_again_next_time(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        for _ in range(2):
            cloud.log.clear()
            with pytest.raises(JobFailed):
                [_ async for _ in app.map([{"fail": "x"}], checkpoint=file, progress="off")]
            assert cloud.count("submit") == 1

    flavour.run(work, "fake")


def test_where_the_platform_makes_the_id_it_is_written_before_we_wait(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    class Theirs(_registry.load("fake")):  # type: ignore[misc]  # a driver whose platform makes the ids
        submit_call = CallClass.USER_DECIDES

    async def work(client: Any) -> None:
        file = tmp_path / f"{os.urandom(4).hex()}.jsonl"
        app = await client.deploy(**HELLO)
        [_ async for _ in app.map(some(1), checkpoint=file, progress="off")]
        ids = [line["job"] for line in lines(file) if "submitted" in line]
        assert ids == [None, next(reversed(cloud.jobs))]

    with _registry.using("fake", Theirs):
        flavour.run(work, "fake")


def test_a_file_of_another_deployment_or_with_other_inputs_is_refused(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        other = await client.deploy(**{**HELLO, "name": "other"})
        [_ async for _ in app.map(some(3), checkpoint=file, progress="off")]
        with pytest.raises(CheckpointMismatch, match="belongs to hello@fake"):
            other.map(some(3), checkpoint=file)
        with pytest.raises(CheckpointMismatch, match="'1' is not the one"):
            [_ async for _ in app.map([{"i": 0}, {"i": 7}], checkpoint=file, progress="off")]
        note = tmp_path / "note.txt"
        for text in ("not ours\n", '[{"no": "end of line"}]', "x" * 10_000):
            note.write_text(text)
            with pytest.raises(CheckpointMismatch, match="no checkpoint"):
                app.map(some(1), checkpoint=note)
            assert note.read_text() == text

    flavour.run(work, "fake")


def test_keys_follow_the_inputs_and_must_differ(flavour: Any, cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "progress.jsonl"

    def name(value: Any) -> str:
        return f"doc-{value['i']}"

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        [_ async for _ in app.map(some(3), checkpoint=file, key=name, progress="off")]
        found = [r.key async for r in app.map([{"i": 5}, *some(3)], checkpoint=file, key=name, progress="off")]
        assert found == ["doc-5"]
        with pytest.raises(ConfigurationError, match="two inputs have the key"):
            [_ async for _ in app.map([{"i": 8}, {"i": 8}], checkpoint=file, key=name, progress="off")]

    flavour.run(work, "fake")


def test_two_maps_cannot_use_one_file(cloud: Any, tmp_path: Path) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO)
        first = app.map(some(3), checkpoint=tmp_path / "c", progress="off")
        with pytest.raises(ConfigurationError, match="in use"):
            app.map(some(3), checkpoint=tmp_path / "c")
        first.close()
        list(app.map(some(3), checkpoint=tmp_path / "c", progress="off"))


def test_a_path_that_cannot_be_a_file_is_told(cloud: Any, tmp_path: Path) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO)
        for wrong in (tmp_path, tmp_path / "no" / "such"):
            with pytest.raises(StateError):
                app.map(some(1), checkpoint=wrong)
        no_path: Any
        for no_path in (5, "nul\0", b"bytes"):
            with pytest.raises(ConfigurationError):
                app.map(some(1), checkpoint=no_path)


def test_a_file_whose_first_line_was_cut_off_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "c"
    with Checkpoint(file, deployment="d"):
        whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        with Checkpoint(file, deployment="d"):
            assert file.read_bytes() == whole


def test_what_a_killed_compaction_left_stops_no_resume_and_a_link_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    (tmp_path / "disk").mkdir()
    file = tmp_path / "link"
    file.symlink_to(tmp_path / "disk" / "c")
    with Checkpoint(file, deployment="d") as checkpoint:
        checkpoint.entry("0", digest({}))
        checkpoint.done("0", Result(output="x" * 2_000))
        checkpoint.taken("0")
    for _ in range(2):  # also in a container, where every run has the same process id
        with monkeypatch.context() as dying:
            dying.setattr(Path, "replace", killed)
            dying.setattr(Path, "unlink", killed)
            with pytest.raises(KeyboardInterrupt):
                Checkpoint(file, deployment="d")
    with Checkpoint(file, deployment="d") as checkpoint:
        assert checkpoint.entry("0", digest({})).state == "taken"
    assert file.is_symlink()
    assert file.stat().st_size < 200
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["c"]


def test_a_result_that_comes_again_says_what_it_cost(tmp_path: Path) -> None:
    known = Result(output=1, cost=Cost(amount=0.02, kind="known"), timing=Timing(execution=2.0), job_id="j", key="0")
    for _ in range(2):
        with Checkpoint(tmp_path / "c", deployment="d") as checkpoint:
            if checkpoint.entry("0", digest({})).state == "new":
                checkpoint.done("0", known)
            assert checkpoint.output("0") == known


def test_taken_outputs_leave_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unigpu._client.map.checkpoint._COMPACT_BYTES", 20_000)
    file = tmp_path / "c"
    with Checkpoint(file, deployment="d") as checkpoint:
        largest = 0
        for i in range(100):
            checkpoint.entry(str(i), digest({"i": i}))
            checkpoint.submitted(str(i), f"job-{i}")
            checkpoint.done(str(i), Result(output="x" * 2_000, job_id=f"job-{i}"))
            if i >= 5:
                assert checkpoint.output(str(i - 5)).output == "x" * 2_000
                checkpoint.taken(str(i - 5))
            largest = max(largest, file.stat().st_size)
        assert largest < 70_000
    with Checkpoint(file, deployment="d") as checkpoint:
        assert checkpoint.entry("0", digest({"i": 0})).state == "taken"
        assert checkpoint.output("99").output == "x" * 2_000


facts = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["submitted", "done", "failed", "taken"])), max_size=30)


@settings(max_examples=60)
@given(facts=facts, cut=st.integers(0, 200))
def test_whatever_is_cut_off_the_end_a_resume_knows_a_true_earlier_state(
    tmp_path_factory: pytest.TempPathFactory, facts: list[tuple[int, str]], cut: int
) -> None:
    file = tmp_path_factory.mktemp("c") / "c"
    states: list[dict[str, str]] = [{}]
    with Checkpoint(file, deployment="d") as checkpoint:
        for i, fact in facts:
            key = str(i)
            entry = checkpoint.entry(key, digest({"i": i}))
            if fact == "done":
                checkpoint.done(key, Result(output={"i": i}))
            elif fact == "submitted":
                checkpoint.submitted(key, f"job-{i}")
            else:
                getattr(checkpoint, fact)(key)
            states.append({**states[-1], key: entry.state})
    whole = file.read_bytes()
    head = whole.index(b"\n") + 1
    file.write_bytes(whole[: max(head, len(whole) - cut)])
    with Checkpoint(file, deployment="d") as checkpoint:
        known = {k: e.state for k, e in checkpoint._entries.items()}
        assert known in [{k: v for k, v in state.items() if v != "new"} for state in states]
        for key, state in known.items():
            if state == "done":
                assert checkpoint.output(key).output == {"i": int(key)}


KILLED = """
import importlib.util, os, signal, sys
spec = importlib.util.spec_from_file_location("client_fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec); sys.modules["client_fakes"] = fakes; spec.loader.exec_module(fakes)
from unigpu import Client, _registry
cloud = fakes.FakeCloud()
with _registry.using("fake", fakes.driver_for(cloud)), Client("fake", state_dir=None) as client:
    app = client.deploy(name="hello", handler="app:f", workers=(0, 4), progress="off")
    for n, result in enumerate(app.map([{"i": i} for i in range(50)], checkpoint=sys.argv[2], progress="off")):
        print(result.output["i"], flush=True)
        if n == 20:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_loses_nothing(cloud: Any, tmp_path: Path) -> None:
    file = tmp_path / "c"
    command = [sys.executable, "-c", KILLED, str(Path(__file__).with_name("fake_driver.py")), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == -9
    first = [int(line) for line in done.stdout.split()]
    with Client("fake") as client:
        app = client.deploy(**HELLO, idempotent=True)
        rest = [r.output["i"] for r in app.map(some(50), checkpoint=file, progress="off")]
    assert sorted({*first, *rest}) == list(range(50))
    assert set(first) & set(rest) <= {first[-1]}, "only the one that was given and not taken comes again"
