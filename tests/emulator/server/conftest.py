"""Real worker processes on loopback, and a way to wait for what they do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from unigpu.emulator.contract import CancelPush, Event, Launch, Push, StartWorker, StopWorker
from unigpu.emulator.processes.backend import ProcessBackend, ProcessSettings

E = TypeVar("E", bound=Event)
PATIENCE = 30.0


class Rig:
    """A backend, and every event it told."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.events: list[Event] = []
        self.notes: dict[str, Mapping[str, Any] | None] = {}
        self.note_error: OSError | None = None
        self._news = asyncio.Event()
        self.backend = ProcessBackend(self._on_event, settings=ProcessSettings(**settings), note=self._note)

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    def _note(self, worker_id: str, record: Mapping[str, Any] | None) -> None:
        if self.note_error is not None:
            raise self.note_error
        self.notes[worker_id] = record

    async def first(self, kind: type[E], fits: Callable[[E], bool] = lambda _: True) -> E:
        """The first event of that kind, once it is there."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for event in self.events:
                    if isinstance(event, kind) and fits(event):
                        return event
                self._news.clear()
                await self._news.wait()

    def all(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def write(self, name: str, code: str) -> Path:
        path = self.folder / name
        path.write_text(code)
        return path

    def start(self, worker_id: str = "w1", **launch: Any) -> None:
        launch.setdefault("cwd", str(self.folder))
        launch.setdefault("python", sys.executable)
        self.backend.carry_out(StartWorker(worker_id=worker_id, deployment_id="d", launch=Launch(**launch)))

    def script(self, code: str, worker_id: str = "w1", **launch: Any) -> None:
        self.start(worker_id, argv=(sys.executable, "-c", code), **launch)

    def push(
        self, job_id: str, input: Any, worker_id: str = "w1", *, stream: bool = False, timeout: float = 30
    ) -> None:
        self.backend.carry_out(
            Push(worker_id=worker_id, job_id=job_id, input=input, execution_timeout=timeout, stream=stream)
        )

    def cancel(self, job_id: str, worker_id: str = "w1") -> None:
        self.backend.carry_out(CancelPush(worker_id=worker_id, job_id=job_id))

    def stop(self, worker_id: str = "w1", grace: float = 10) -> None:
        self.backend.carry_out(StopWorker(worker_id=worker_id, grace=grace))


Scenario = Callable[[Rig], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Rig]:
    """Run a scenario over a backend of its own; no process may be left, and no descriptor."""

    def runner(scenario: Scenario, **settings: Any) -> Rig:
        others = set(children_of(os.getpid()))  # another suite in this process may keep some
        before = set(os.listdir("/proc/self/fd"))

        async def main() -> Rig:
            rig = Rig(tmp_path, **settings)
            try:
                await scenario(rig)
            finally:
                async with asyncio.timeout(PATIENCE):
                    await rig.backend.close(grace=0.0)
            return rig

        rig = asyncio.run(main())
        assert set(children_of(os.getpid())) <= others
        assert set(os.listdir("/proc/self/fd")) - before == set()
        return rig

    return runner


def children_of(pid: int) -> list[int]:
    """Processes whose parent is *pid*, zombies included."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until(check: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not check():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.01)


@contextlib.asynccontextmanager
async def patience() -> AsyncIterator[None]:
    async with asyncio.timeout(PATIENCE):
        yield


@pytest.fixture
def tools() -> Any:
    """Helpers, handed out as a fixture: test modules are not importable from one another."""

    class Tools:
        alive = staticmethod(alive)
        children_of = staticmethod(children_of)
        wait_until = staticmethod(wait_until)
        patience = staticmethod(patience)

    return Tools
