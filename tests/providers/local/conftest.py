"""The local driver against real supervisors in a state directory of the test's own; nothing may be left of them."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from unigpu._io.bridge import run_sync
from unigpu._io.http.client import HttpConfig, SyncHttpIo
from unigpu._io.resilience.retry import RetryingIo
from unigpu._lifecycle.identity import identity_of, spec_hash
from unigpu.driver import DeploymentInfo, DriverConfig, Identity, Invocation, JobInfo, State, Worker
from unigpu.models import DeploymentSpec
from unigpu.providers.local import LocalDriver

T = TypeVar("T")
PATIENCE = 30.0

APP = """
import asyncio, os, sys, time
def echo(input):
    print("said", input, flush=True)
    return {"got": input, "pid": os.getpid()}
def env(input):
    return dict(os.environ)
def count(input):
    for i in range(input["n"]):
        yield {"i": i}
        time.sleep(input.get("pause", 0))
def slow(input):
    open("began-" + str(input.get("n", "")), "w").close()
    time.sleep(input["s"])
    return os.getpid()
def gate(input):
    open("began-" + str(input["n"]), "w").close()
    while not os.path.exists("go"):
        time.sleep(0.01)
    return os.getpid()
async def forever(input):
    open("began", "w").close()
    try:
        await asyncio.sleep(1000)
    finally:
        open("ended", "w").close()
def die(input):
    print("about to die", flush=True)
    os.kill(os.getpid(), 9)
class Broken:
    def __init__(self):
        print("loading the weights", flush=True)
        raise RuntimeError("no weights here")
    def __call__(self, input):
        return 1
class SlowLoad:
    def __init__(self):
        time.sleep(0.5)
    def __call__(self, input):
        return "loaded"
"""


class World:
    """One client's view of the local provider, synchronous."""

    def __init__(self, project: Path, state: Path, **options: Any) -> None:
        self.project = project
        self.state = state
        self.http = SyncHttpIo(HttpConfig())
        self.io = RetryingIo(self.http)
        self.driver = LocalDriver(DriverConfig(state_dir=str(state), options=options))

    @property
    def home(self) -> Path:
        return self.state / "local"

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return run_sync(work)

    def by(self, seconds: float = PATIENCE) -> float:
        return self.io.now() + seconds

    def identity(self, spec: DeploymentSpec, **changes: Any) -> Identity:
        made = identity_of(
            spec,
            provider="local",
            namespace="default",
            spec_hash=spec_hash(spec, self.driver.content(spec), provider="local"),
            attempt=changes.pop("attempt", uuid.uuid4().hex),
            expires_at=changes.pop("expires_at", None),
        )
        return dataclasses.replace(made, **changes)

    def deploy(self, name: str = "hello", handler: str | None = "app.py:echo", **fields: Any) -> DeploymentInfo:
        spec = DeploymentSpec(name=name, **({"handler": handler} if handler else {}), **fields)
        (resource,) = self.driver.resources(spec, self.identity(spec))
        found = self.do(resource.create_cold(self.io, {}, deadline=self.by()))
        assert found.info is not None
        assert found.info.state is State.COLD
        self.do(self.driver.warm(self.io, found.info, spec, deadline=self.by()))
        return found.info

    def submit(self, info: DeploymentInfo, input: Any, *, job_id: str | None = None, **more: Any) -> JobInfo:
        call = Invocation(
            input=input,
            job_id=job_id or uuid.uuid4().hex,
            deadline=self.by(),
            start_deadline=self.by(),
            execution_timeout=more.pop("execution_timeout", 30),
            **more,
        )
        return self.do(self.driver.submit(self.io, info, call))

    def result(self, info: DeploymentInfo, job_id: str) -> JobInfo:
        end = time.monotonic() + PATIENCE
        while True:
            job = self.do(self.driver.status(self.io, info, job_id, wait=10, deadline=self.by()))
            if job.status.is_terminal:
                return job
            assert time.monotonic() < end, job

    def call(self, info: DeploymentInfo, input: Any, **more: Any) -> JobInfo:
        return self.result(info, self.submit(info, input, **more).id)

    def read(self, info: DeploymentInfo) -> DeploymentInfo | None:
        return self.do(self.driver.read(self.io, info, deadline=self.by()))

    def workers(self, info: DeploymentInfo) -> list[Worker]:
        return list(self.do(self.driver.workers(self.io, info, deadline=self.by())))

    def ready(self, info: DeploymentInfo) -> list[Worker]:
        return [w for w in self.workers(info) if w.state.is_ready]

    def teardown(self, info: DeploymentInfo) -> None:
        (part,) = self.driver.parts(info)
        self.do(part.delete(self.io, part_id := info.ids["deployment"], deadline=self.by()))
        self.until(lambda: self.do(part.read(self.io, part_id, deadline=self.by())) is None, "deleted")

    def until(self, check: Callable[[], Any], what: str) -> Any:
        end = time.monotonic() + PATIENCE
        while not (found := check()):
            assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
            time.sleep(0.01)
        return found

    # -- the processes behind it -------------------------------------------------------------------------------------

    def supervisor(self) -> dict[str, Any]:
        return json.loads((self.home / "supervisor.json").read_text())

    def lives(self) -> bool:
        """Whether the lock is held: by a supervisor, or by something that should not have it."""
        try:
            fd = os.open(self.home / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def kill_supervisor(self) -> int:
        pid = self.supervisor()["pid"]
        os.kill(pid, signal.SIGKILL)
        self.until(lambda: not self.lives(), "the killed supervisor's lock is free")
        return pid

    def processes(self) -> set[int]:
        """Workers of this state directory, by the mark in their environment, and its supervisors, by their command."""
        tag = hashlib.sha256(f"{os.getuid()}:{self.home.resolve()}".encode()).hexdigest()[:16]
        found: set[int] = set()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if not entry.name.isdigit() or (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    continue
                marked = f"UNIGPU_LOCAL={tag}".encode() in (entry / "environ").read_bytes().split(b"\0")
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if marked or (b"unigpu.emulator.supervisor" in words and str(self.home).encode() in words):
                    found.add(int(entry.name))
        return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def worlds(project: Path, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """Makes views of one state directory; afterwards no process of it may be left, whatever the test did."""
    made: list[World] = []

    def make(**options: Any) -> World:
        made.append(World(project, tmp_path / "state", **options))
        return made[-1]

    yield make
    if not made:
        return
    world = made[0]
    clean = not world.lives()
    if not clean:
        with contextlib.suppress(OSError, ValueError):
            os.kill(world.supervisor()["pid"], signal.SIGTERM)
        with contextlib.suppress(AssertionError):
            world.until(lambda: not world.lives(), "ended by SIGTERM")
    with contextlib.suppress(AssertionError):
        world.until(lambda: not world.processes(), "all gone")
    left = world.processes()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for one in made:
        one.http.close()
    assert left == set(), "processes were left"


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds()
