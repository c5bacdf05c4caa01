"""The supervisor itself, in this process: when it can be found, when it ends, and what it does about leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from unigpu.emulator import supervisor as module
from unigpu.emulator.journal import Journal
from unigpu.emulator.processes.orphans import _marked as marked
from unigpu.emulator.processes.orphans import process_tag, reap
from unigpu.emulator.processes.process_group import boot_id, start_time
from unigpu.emulator.supervisor import Supervisor
from unigpu.models import provider_name

pytestmark = pytest.mark.processes
PNAME = provider_name("default", "hello")


def body(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "hello", "namespace": "default", "attempt": "a1", "spec_hash": "1:0", "interface": "function",
        "kind": "serverless", "workers": {"min": 0, "max": 1}, "idle_timeout": 60, "scaling": None,
        "execution_timeout": 60, "concurrency": 1, "idempotent": False, "expires_at": None, "origin": None,
        "constants": {}, "spec": {},
        "launch": {"argv": [sys.executable, "-c", "import time; time.sleep(1000)"], "handler": None, "env": {},
                   "cwd": str(folder), "python": sys.executable, "port": None},
        **changes,
    }  # fmt: skip


class Client:
    def __init__(self, state: Path) -> None:
        self.info = json.loads((state / "supervisor.json").read_text())
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.info['port']}",
            headers={"authorization": f"Bearer {self.info['token']}"}, trust_env=False, timeout=30,
        )  # fmt: skip
        self.url = f"/v1/deployments/{PNAME}"

    async def put(self, folder: Path, **changes: Any) -> None:
        made = await self.http.put(self.url, json=body(folder, **changes), headers={"if-none-match": "*"})
        assert made.status_code == 201, made.text


def supervise(state: Path, use: Callable[[Client], Any] | None = None, **how: Any) -> None:
    """Run one to its end beside *use*."""
    state.mkdir(exist_ok=True, mode=0o700)

    async def main() -> None:
        up = asyncio.Event()
        running = asyncio.create_task(Supervisor(state, **how).run(up.set))
        waiting = asyncio.create_task(up.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if running.done():
            running.result()
        client = Client(state)
        try:
            if use is not None:
                await use(client)
            async with asyncio.timeout(30):
                await running
        finally:
            await client.http.aclose()

    asyncio.run(main())
    assert not (state / "supervisor.json").exists(), "supervisor.json"


def test_it_can_be_found_once_it_listens_and_by_its_owner_only(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        path = tmp_path / "s" / "supervisor.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert client.info["protocol"] == 1
        assert (client.info["pid"], client.info["started"]) == (os.getpid(), start_time(os.getpid()))
        assert client.info["boot_id"] == boot_id()
        assert (await client.http.get("/v1/health")).json() == {"protocol": 1, "pid": os.getpid()}
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(tmp_path / "s", use)


def test_the_delete_that_leaves_nothing_says_so_and_everything_after_it_gets_503(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        await client.put(tmp_path)
        other = body(tmp_path, name="other")
        url = f"/v1/deployments/{provider_name('default', 'other')}"
        await client.http.put(url, json=other, headers={"if-none-match": "*"})
        assert (await client.http.delete(url)).json() == {"deleted": True, "last": False}
        assert (await client.http.delete(client.url)).json() == {"deleted": True, "last": True}
        for method, path in (("PUT", client.url), ("GET", "/v1/deployments"), ("DELETE", client.url)):
            with contextlib.suppress(httpx.TransportError):  # gone already: as good
                late = await client.http.request(method, path)
                assert (late.status_code, late.json()["error"]["type"]) == (503, "closing")

    supervise(tmp_path / "s", use)
    assert not (tmp_path / "s" / "journal").exists()


def test_a_delete_of_nothing_that_leaves_nothing_ends_it_too(tmp_path: Path) -> None:
    async def use(client: Client) -> None:
        assert (await client.http.delete(client.url)).json() == {"deleted": False, "last": True}

    supervise(tmp_path / "s", use)


def test_a_deaf_worker_does_not_hold_up_the_end(tmp_path: Path) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True)\n"
        "time.sleep(1000)\n"
    )
    pids: list[int] = []

    async def use(client: Client) -> None:
        launch = {**body(tmp_path)["launch"], "argv": [sys.executable, "-c", code]}
        await client.put(tmp_path, workers={"min": 1, "max": 1}, launch=launch)
        async with asyncio.timeout(30):
            while not pids:
                (worker,) = (await client.http.get(client.url + "/workers")).json()["workers"]
                lines = (await client.http.get(f"{client.url}/workers/{worker['id']}/logs")).json()["lines"]
                pids.extend(worker["pid"] for line in lines if line["text"] == "deaf")
        await client.http.delete(client.url)

    supervise(tmp_path / "s", use)
    assert start_time(pids[0]) is None


def test_a_ttl_is_kept_although_the_clock_was_set_or_the_machine_slept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept = [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + slept[0], monotonic=time.monotonic)
    monkeypatch.setattr(module, "time", clock)

    async def use(client: Client) -> None:
        await client.put(tmp_path, expires_at=time.time() + 8 * 3600)
        slept[0] = 9 * 3600.0
        async with asyncio.timeout(30):
            while (await client.http.get("/v1/deployments")).json()["deployments"]:
                await asyncio.sleep(0.05)
        await client.put(tmp_path, expires_at=time.time() + slept[0] + 0.5)  # by the clock of now
        async with asyncio.timeout(30):
            while (await client.http.get("/v1/deployments")).json()["deployments"]:
                await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(tmp_path / "s", use)


def test_a_file_by_which_it_is_found_that_somebody_removed_is_written_again(tmp_path: Path) -> None:
    file = tmp_path / "s" / "supervisor.json"

    async def use(client: Client) -> None:
        file.unlink()
        async with asyncio.timeout(30):
            while not file.exists():
                await asyncio.sleep(0.02)
        assert json.loads(file.read_text()) == client.info
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(tmp_path / "s", use)


def test_it_ends_where_its_directory_was_removed_and_leaves_a_successors_files_alone(tmp_path: Path) -> None:
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    (state / "lock").touch()
    theirs = {"supervisor.json": '{"pid": 1}', "journal": "theirs\n", "lock": ""}

    async def use(client: Client) -> None:
        await client.put(tmp_path, workers={"min": 1, "max": 1})
        shutil.rmtree(state)
        state.mkdir(mode=0o700)
        for name, text in theirs.items():
            (state / name).write_text(text)

    with pytest.raises(AssertionError, match=r"supervisor\.json"):  # what it looks at last is another's now
        supervise(state, use)
    assert {path.name: path.read_text() for path in state.iterdir()} == theirs
    tag = process_tag(state)
    assert not [pid for pid in marked(tag) if pid != os.getpid()]


def test_it_ends_when_nothing_was_ever_deployed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_EMPTY_S", 0.1)
    monkeypatch.setattr(module, "_CHECK_S", 0.05)
    supervise(tmp_path / "s")
    assert not (tmp_path / "s" / "journal").exists()


def test_on_sigterm_it_ends_its_workers_and_keeps_its_deployments(tmp_path: Path) -> None:
    pids: list[int] = []

    async def use(client: Client) -> None:
        await client.put(tmp_path, workers={"min": 1, "max": 1})
        async with asyncio.timeout(30):
            while not pids:
                workers = (await client.http.get(client.url + "/workers")).json()["workers"]
                pids.extend(w["pid"] for w in workers if w["pid"])
        os.kill(os.getpid(), signal.SIGTERM)

    supervise(tmp_path / "s", use)
    assert start_time(pids[0]) is None

    async def again(client: Client) -> None:
        told = (await client.http.get(client.url)).json()
        assert (told["attempt"], told["workers"]) == ("a1", {"min": 1, "max": 1})
        await client.http.delete(client.url)

    supervise(tmp_path / "s", again)


def test_a_state_directory_that_cannot_be_written_ends_it_before_it_can_be_found(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "journal").mkdir()
    with pytest.raises(OSError, match="directory"):
        supervise(tmp_path / "s")
    assert not (tmp_path / "s" / "supervisor.json").exists()


def sleeper(**env: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "1000"], start_new_session=True, env={**os.environ, **env})


def test_what_a_crash_left_is_killed_and_nothing_else(tmp_path: Path) -> None:
    tag = process_tag(tmp_path)
    recorded, reused, other_boot, marked, stranger = (
        sleeper(), sleeper(), sleeper(), sleeper(UNIGPU_LOCAL=tag), sleeper(UNIGPU_LOCAL="another-tag"),
    )  # fmt: skip
    try:
        journal = Journal.open(tmp_path / "journal")
        here, began = boot_id(), start_time
        journal.note("worker", "w1", {"pid": recorded.pid, "started": began(recorded.pid), "boot": here})
        journal.note("worker", "w2", {"pid": reused.pid, "started": 1, "boot": here})  # the number is another's now
        journal.note("worker", "w3", {"pid": other_boot.pid, "started": began(other_boot.pid), "boot": "before"})
        journal.note("worker", "w4", {"pid": 1, "started": began(1), "boot": here})
        journal.note("worker", "w5", {"pid": None})
        assert asyncio.run(reap(journal, tag)) == 2
        assert recorded.wait(timeout=30) == -signal.SIGKILL
        assert marked.wait(timeout=30) == -signal.SIGKILL
        assert [p.poll() for p in (reused, other_boot, stranger)] == [None] * 3
        assert journal.notes("worker") == {}
        assert asyncio.run(reap(journal, tag)) == 0
        journal.close()
    finally:
        for process in (recorded, reused, other_boot, marked, stranger):
            process.kill()
            process.wait()


def test_a_process_is_told_from_the_next_one_of_its_number_also_without_proc(monkeypatch: Any, tmp_path: Path) -> None:
    from unigpu.emulator.processes import process_group

    monkeypatch.setattr(process_group, "_PROC", tmp_path / "nowhere")
    if process_group._ask("ps", "-o", "lstart=", "-p", str(os.getpid())) is None:
        pytest.skip("this machine has no ps")
    mine = start_time(os.getpid())
    assert isinstance(mine, str)
    assert start_time(os.getpid()) == mine
    other = sleeper()
    other.kill()
    other.wait()
    assert start_time(other.pid) is None
