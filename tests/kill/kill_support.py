"""Real client processes that get killed, a home of their own for each case, and what is left of them: nothing.

*leaked*: something is left after a later deploy and teardown of that name: a row, a worker, a supervisor, an intent, a
held lock. *doubled*: two deployments of one name, or more workers than asked, seen while one recovers.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu import Client
from unigpu.driver import WorkerState

PATIENCE = 60.0  # the machine may be busy; every wait ends at an event, this is only its end
FULL = os.environ.get("UNIGPU_FULL") == "1"
SEED = int(os.environ.get("UNIGPU_KILL_SEED", "20261124"))
CHILD = Path(__file__).with_name("child.py")

APP = """
import os, signal, time
def echo(input):
    return {"got": input, "pid": os.getpid()}
def slow(input):
    open(input["began"], "a").close()
    time.sleep(input.get("s", 0))
    return {"pid": os.getpid()}
def once(input):
    with open(input["began"], "a") as file:
        file.write("x")
        file.flush()
        if file.tell() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid()}
"""


def until(check: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := check()):
        assert time.monotonic() < end, f"not within {PATIENCE} s: {what}"
        time.sleep(0.005)
    return found


class Process:
    """A forked client."""

    def __init__(self, nursery: Nursery, id: int, pid: int, out: Path) -> None:
        self._nursery, self._id, self.pid, self.out = nursery, id, pid, out

    def wait(self) -> int:
        """Its exit code; minus the signal that ended it."""
        return self._nursery.status(self._id)

    def is_over(self) -> bool:
        """Whether it is done, well or not (a killed one never says so)."""
        return any("steps" in line or "error" in line for line in self.said())

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def said(self) -> list[dict[str, Any]]:
        """What it wrote; a line that a kill cut off is left out."""
        if not self.out.exists():
            return []
        lines = self.out.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def heard(self, key: str) -> Any:
        return next((line[key] for line in self.said() if key in line), None)


class Nursery:
    """Starts client processes; see ``child.py``."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("UNIGPU_")}
        self._popen = subprocess.Popen(
            [sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        self._number = 0
        self._ended: dict[int, int] = {}
        self._pids: dict[int, int] = {}

    def start(self, out: Path, **job: Any) -> Process:
        self._number += 1
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps({"id": self._number, "out": str(out), **job}).encode() + b"\n")
        self._popen.stdin.flush()
        number = self._number
        while number not in self._pids:
            self._read()
        return Process(self, number, self._pids[number], out)

    def status(self, number: int) -> int:
        end = time.monotonic() + PATIENCE
        while number not in self._ended:
            with self._bounded(number, end):
                self._read()
        return self._ended[number]

    @contextlib.contextmanager
    def _bounded(self, number: int, end: float) -> Iterator[None]:
        import select

        assert self._popen.stdout is not None
        ready, _, _ = select.select([self._popen.stdout], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            os.kill(self._pids[number], signal.SIGKILL)
            raise AssertionError(f"a client process did not end within {PATIENCE} s")
        yield

    def _read(self) -> None:
        assert self._popen.stdout is not None
        told = json.loads(self._popen.stdout.readline())
        (self._pids if "pid" in told else self._ended)[told["id"]] = told.get("pid", told.get("status"))

    def close(self) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.close()
        self._popen.wait()
        self._popen.stdout.close()


class Counts:
    """What a test found, for the summary."""

    def __init__(self) -> None:
        self.deploys = self.leaked = self.doubled = 0
        self.notes: list[str] = []

    def check(self, *, deploys: int) -> None:
        """Fail where anything leaked or doubled, or where the test tried less than it should."""
        assert (self.leaked, self.doubled) == (0, 0), "\n".join(self.notes)
        assert self.deploys >= deploys

    def leak(self, words: str) -> None:
        self.leaked += 1
        self.notes.append(f"leaked: {words}")

    def double(self, words: str) -> None:
        self.doubled += 1
        self.notes.append(f"doubled: {words}")


class Home:
    """One state directory, its project, and the processes that belong to it."""

    def __init__(self, path: Path, nursery: Nursery, counts: Counts, *, app: str = APP) -> None:
        self.path = path
        self.counts = counts
        self._nursery = nursery
        self.project, self.state = path / "project", path / "state"
        self.project.mkdir(parents=True)
        (self.project / "app.py").write_text(app)
        self.config = path / "unigpu.toml"
        self.config.write_text("")
        self._outs = 0

    def handler(self, name: str = "echo") -> str:
        return f"{self.project / 'app.py'}:{name}"

    def spec(self, **more: Any) -> dict[str, Any]:
        return {"handler": self.handler(), "workers": [0, 1], "wait": "worker", "timeout": PATIENCE, **more}

    def start(self, *verbs: str, name: str = "one", **job: Any) -> Process:
        """Fork a client that does *verbs*."""
        self.counts.deploys += "deploy" in verbs
        self._outs += 1
        known = {"verbs": verbs, "name": name, "state": str(self.state), "config": str(self.config), "input": {"n": 1}}
        out = self.path / f"out-{self._outs}"
        return self._nursery.start(out, **{"deploy": self.spec(), "err": str(self.path / "err"), **known, **job})

    def client(self) -> Client:
        return Client("local", state_dir=self.state, config=self.config)

    # -- what is there

    def processes(self) -> dict[int, str]:
        """Living processes of this home: each ``"worker"`` or ``"supervisor"``."""
        home = self.state / "local"
        tag = hashlib.sha256(f"{os.getuid()}:{home.resolve()}".encode()).hexdigest()[:16]
        found: dict[int, str] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                    continue
                if f"UNIGPU_LOCAL={tag}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = "worker"
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"unigpu.emulator.supervisor" in words and str(home).encode() in words:
                    found[int(entry.name)] = "supervisor"
        return found

    def is_locked(self) -> bool:
        """Whether the supervisor's lock is held."""
        try:
            fd = os.open(self.state / "local" / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def supervisor(self) -> int | None:
        try:
            return int(json.loads((self.state / "local" / "supervisor.json").read_text())["pid"])
        except (OSError, ValueError):
            return None

    def intents(self) -> list[str]:
        """Files of the crash journal: intents, what a cut write left, locks that nobody removed."""
        folder = self.state / "intents"
        return sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []

    # -- the next process

    def recover(self, told: str, *, name: str = "one", counted: bool = True) -> None:
        """Deploy the same name, call it, end it; count what is doubled meanwhile, and what is left."""
        self.counts.deploys += counted
        with self.client() as client:
            spec = self.spec()
            spec["workers"] = tuple(spec["workers"])
            deployed = client.deploy(name=name, progress="off", **spec)
            self.look(client, name, f"{told}: after deploy")
            result = client.invoke(deployed, {"told": told}, timeout=PATIENCE)
            assert result.output["got"] == {"told": told}
            self.look(client, name, f"{told}: after invoke")
            client.teardown(name)
        self.leaks(told)

    def look(self, client: Client, name: str, told: str) -> None:
        """Count it where there are two of the name, or more workers than asked for."""
        rows = [one for one in client.deployments() if one.name == name]
        if len(rows) != 1:
            self.counts.double(f"{told}: {len(rows)} deployments")
        ended = (WorkerState.STOPPED, WorkerState.FAILED, WorkerState.EXITED)
        alive = [w for w in client.workers(name) if w.state not in ended] if rows else []
        if len(alive) > 1:
            self.counts.double(f"{told}: {len(alive)} workers")
        kinds = list(self.processes().values())
        if kinds.count("worker") > 1:
            self.counts.double(f"{told}: {kinds.count('worker')} worker processes")
        with contextlib.suppress(AssertionError):  # a dead client's launcher ends when the supervisor listens
            until(lambda: list(self.processes().values()).count("supervisor") <= 1, "one supervisor")
        if (found := list(self.processes().values()).count("supervisor")) != 1:
            self.counts.double(f"{told}: {found} supervisors")

    def leaks(self, told: str) -> None:
        """Count what is left now that nothing should be."""
        with contextlib.suppress(AssertionError):
            until(lambda: not self.processes() and not self.is_locked(), "all gone")
        left = [f"{kind} {pid}" for pid, kind in self.processes().items()]
        left += ["the lock is held"] * self.is_locked() + self.intents()
        left += [f for f in ("supervisor.json", "journal") if (self.state / "local" / f).exists()]
        if left:
            self.counts.leak(f"{told}: {', '.join(left)}")

    def clean(self) -> None:
        """End what a failed test left."""
        for _ in range(3):
            for pid in sorted(self.processes(), key=lambda pid: self.processes().get(pid) != "supervisor"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.path, ignore_errors=True)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def counts(record_property: Any, request: pytest.FixtureRequest) -> Iterator[Counts]:
    """Counts of one test: they must be zero, and stand in the run's summary."""
    made = Counts()
    yield made
    line = f"{request.node.name}: {made.deploys} deploys, {made.leaked} leaked, {made.doubled} doubled"
    record_property("unigpu kill counts", [SEED, made.deploys, made.leaked, made.doubled])
    print(line, *made.notes, sep="\n  ")


@pytest.fixture
def homes(nursery: Nursery, counts: Counts) -> Iterator[Callable[..., Home]]:
    """Makes state directories, each with a project; nothing of them stays."""
    made: list[Home] = []
    root = Path(tempfile.mkdtemp(prefix="unigpu-kill-"))

    def make(**more: Any) -> Home:
        made.append(Home(root / str(len(made)), nursery, counts, **more))
        return made[-1]

    yield make
    for home in made:
        home.clean()
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def home(homes: Callable[..., Home]) -> Home:
    return homes()


@pytest.fixture
def dice(request: pytest.FixtureRequest) -> random.Random:
    """Seeded by ``UNIGPU_KILL_SEED`` and the test; the seed is shown where it fails."""
    print(f"seed {SEED}")
    return random.Random(f"{SEED}:{request.node.name}")


def tenth(points: list[int], dice: random.Random, *, most: int | None = None) -> list[int]:
    """All of them with ``UNIGPU_FULL=1``, else a seeded tenth."""
    return points if FULL else sorted(dice.sample(points, most or max(1, len(points) // 10)))
