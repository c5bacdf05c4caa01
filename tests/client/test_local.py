"""The clients with the local provider: real supervisors and worker processes on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu import Client, JobFailed, JobStatus, NotFoundError, State, UnsupportedError

pytestmark = pytest.mark.processes

APP = """
import os, time

def work(input):
    if "fail" in input:
        raise ValueError(input["fail"])
    time.sleep(input.get("sleep", 0))
    return {"got": input, "pid": os.getpid()}

def count(input):
    for i in range(input["n"]):
        yield {"i": i}
"""


def _processes(folder: Path) -> list[str]:
    return subprocess.run(["pgrep", "-f", str(folder)], capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture
def app_file(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    yield str(folder / "app.py")
    with Client("local") as client:
        for one in client.deployments(provider="local"):
            one.teardown()
    until = time.monotonic() + 20  # one that has ended may still be writing what coverage measured
    while left := _processes(tmp_path):
        assert time.monotonic() < until, f"no process of a test is left: {left}"
        time.sleep(0.05)


def test_the_main_job_runs_on_real_processes(flavour: Any, app_file: str) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(
            name="work", handler=f"{app_file}:work", workers=(0, 1), idle_timeout=60, progress="off"
        )
        assert (app.change, app.state) == ("created", State.COLD)
        first = await app.invoke({"a": 1})
        assert first.output["got"] == {"a": 1}
        assert first.timing.cold_start is not None
        assert first.timing.execution is not None
        await app.scale(workers=(0, 2))
        found = [r async for r in app.map(({"i": i, "sleep": 0.1} for i in range(8)), progress="off")]
        assert [r.output["got"]["i"] for r in found] == list(range(8))
        assert {r.worker_id for r in found} <= {w.id for w in await app.workers()}
        with pytest.raises(JobFailed, match="ValueError: no such thing"):
            await app.invoke({"fail": "no such thing"})
        job = await app.submit({"sleep": 2})
        assert await job.cancel() in (JobStatus.CANCELLED, JobStatus.RUNNING)
        assert [line async for line in app.logs()] != []
        assert (await app.stop()).state is State.STOPPED
        assert (await app.start()).state is State.COLD
        await app.teardown()
        assert [d.name for d in await client.deployments()] == []
        with pytest.raises(NotFoundError):
            await client.get("work")

    flavour.run(work, "local")


def test_a_generator_streams_and_edited_code_is_never_yesterdays(flavour: Any, app_file: str) -> None:
    async def work(client: Any) -> None:
        spec: dict[str, Any] = {"name": "count", "handler": f"{app_file}:count", "progress": "off"}
        async with await client.deploy(**spec) as app:
            async with app.stream({"n": 3}) as stream:
                assert [chunk async for chunk in stream] == [{"i": 0}, {"i": 1}, {"i": 2}]
                assert stream.result.output == [{"i": 0}, {"i": 1}, {"i": 2}]
            Path(app_file).write_text(APP.replace('{"i": i}', '{"edited": i}'))
            again = await client.deploy(**spec)
            assert again.change == "updated"
            assert (await again.invoke({"n": 1})).output == [{"edited": 0}]
            assert (await client.deploy(**spec)).change == "reused"
            assert (await client.update("count", env={"A": "1"})).change == "updated"
        assert len(await client.deployments()) == 0

    flavour.run(work, "local")


def test_another_process_calls_it_by_name(app_file: str) -> None:
    code = "import json, unigpu; print(json.dumps(unigpu.Client('local').invoke('work', {'b': 2}).output))"
    with Client("local") as client, client.deploy(name="work", handler=f"{app_file}:work", progress="off") as app:
        mine = app.invoke({"b": 1}).output["pid"]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"got": {"b": 2}, "pid": mine}


def test_what_local_cannot_do_is_refused_with_the_fact_before_anything_starts(tmp_path: Path) -> None:
    with Client("local") as client:
        with pytest.raises(UnsupportedError, match="processes, not containers") as caught:
            client.deploy(name="x", image="ghcr.io/me/x:1")
        assert caught.value.source is not None
        assert not (tmp_path / "state" / "local").exists()


def test_placement_is_ignored_and_listed_with_the_reason(app_file: str) -> None:
    with (
        Client("local") as client,
        client.deploy(
            name="work",
            handler=f"{app_file}:work",
            gpu="L40S",
            image="me/x:1",
            max_price=1,
            regions="EU",
            progress="off",
        ) as app,
    ):
        assert {"gpu", "image"} <= {a.field for a in app.adaptations}
        assert {"max_price", "regions"}.isdisjoint({a.field for a in app.adaptations})
        assert (app.rate.idle_per_hour, app.rate.max_per_hour) == (0.0, 0.0)


def test_a_child_of_a_fork_uses_the_same_client(app_file: str) -> None:
    code = f"""
import os, sys, warnings
from unigpu import Client
with Client("local") as client:
    app = client.deploy(name="work", handler={app_file + ":work"!r}, progress="off")
    before = app.invoke({{"n": 0}}).output["pid"]
    pid = os.fork()
    if pid == 0:
        ok = app.invoke({{"n": 1}}).output["pid"] == before and len(list(app.map([{{"n": i}} for i in range(4)]))) == 4
        os._exit(0 if ok else 1)
    _, status = os.waitpid(pid, 0)
    assert status == 0
    assert app.invoke({{"n": 2}}).output["pid"] == before
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_ctrl_c_in_a_with_block_ends_what_was_created(app_file: str) -> None:
    code = f"""
from unigpu import Client
with Client("local") as client, client.deploy(name="work", handler={app_file + ":work"!r}, progress="off") as app:
    app.invoke({{}})
    print("go", flush=True)
    app.invoke({{"sleep": 100}})
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert child.stdout is not None
    if child.stdout.readline() != "go\n":
        pytest.fail(f"the child did not come so far: {child.communicate(timeout=60)[1]}")
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    with Client("local") as client:
        assert len(client.deployments(provider="local")) == 0
