"""Finds the supervisor, starts it, and waits until it is gone. The one file of a driver that may do so.

The lock decides, never a pid. The process that takes the ``flock`` starts a supervisor and hands it the open file, so
the lock is held as long as one lives, starts or is exiting, and the kernel drops it at its death. `connect` costs two
system calls where a supervisor lives. All waiting is ``io.sleep``.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import Io
from unigpu.errors import ConfigurationError, DeadlineExceeded, StateError, UnsupportedError

if sys.platform != "win32":
    import fcntl

PROTOCOL: Final = 1
_PAUSE: Final = 0.02
_START_S: Final = 30.0
_CANNOT_WRITE: Final = 3  # exit codes of the launching process, as the supervisor's module has them
_DIED: Final = 4
_DEATHS: Final = 4  # so many in a row are no accident
_MEASURED: Final = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")  # tests measure child processes, too
_INHERITED: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TMPDIR",
    "TZ",
    "PYTHONPATH",
    "PYTHONHOME",
    *_MEASURED,
)
_NEEDED: Final = ("starlette", "uvicorn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where a supervisor listens, and what it asks for. ``pid`` only tells one from the next."""

    base: str
    token: SecretStr | None = field(default=None, repr=False)
    pid: int | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no error may show."""
        return () if self.token is None else (self.token.get_secret_value(),)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorDirectory:
    """The state directory of the local provider, and how a supervisor is started in it."""

    path: Path
    idle_exit: float

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def info(self) -> Path:
        return self.path / "supervisor.json"


async def connect(io: Io, directory: SupervisorDirectory, *, start: bool, deadline: float) -> Link | None:
    """The supervisor that lives there; started where there is none and *start* says so, or a journal waits for it.

    Returns:
        ``None``: there is none, and nothing is deployed.

    Raises:
        StateError: the state directory cannot be written, or is not ours alone.
        ConfigurationError: the supervisor cannot start, with its reason.
        DeadlineExceeded: one is starting or ending, and was not done by *deadline*.
    """
    _supported()
    deaths = 0
    while True:
        link = _read(directory)
        if _held(directory):
            if link is not None:
                return link
        elif start or _has_journal(directory):
            deaths += not await _launch(io, directory, last=deaths == _DEATHS)
        else:
            return None
        if io.now() >= deadline:
            raise DeadlineExceeded(
                "the local supervisor did not start or end in time",
                provider="local",
                hint=f"Its log is {directory.path / 'supervisor.log'}.",
                stop_reason="deadline",
            )
        await io.sleep(_PAUSE)


async def gone(io: Io, directory: SupervisorDirectory, link: Link, *, deadline: float) -> None:
    """Wait until the supervisor behind *link* has exited: its lock is free, or the next one has it.

    Raises:
        DeadlineExceeded: it still lives at *deadline*.
    """
    while _held(directory):
        other = _read(directory)
        if other is not None and other.pid != link.pid:
            return
        if io.now() >= deadline:
            raise DeadlineExceeded("the local supervisor did not end in time", provider="local", stop_reason="deadline")
        await io.sleep(_PAUSE / 4)


def is_current(directory: SupervisorDirectory, link: Link) -> bool:
    """Whether *link* still leads to the supervisor that holds the lock."""
    return _held(directory) and _read(directory) == link


def interpreter() -> str:
    """The interpreter that runs this program."""
    return sys.executable


def working_directory() -> str:
    """The directory that relative paths of this program mean.

    Raises:
        ConfigurationError: it was deleted.
    """
    try:
        return os.getcwd()
    except OSError as exc:
        raise ConfigurationError(f"the working directory cannot be read: {exc.strerror or exc}") from None


def own_variable(name: str) -> str | None:
    """A variable of this program's environment, read late: the token that callers of a deployment must send."""
    return os.environ.get(name)


def volume_folder(directory: SupervisorDirectory, namespace: str, name: str) -> str:
    """The folder of a volume, created where it is absent."""
    with _writing(directory):
        _make(directory.path)
        folder = directory.path
        for part in ("volumes", namespace, name):  # one by one: `parents` would leave those above open to others
            folder /= part
            folder.mkdir(mode=0o700, exist_ok=True)
    return str(folder)


async def _launch(io: Io, directory: SupervisorDirectory, *, last: bool) -> bool:
    """Start a supervisor, unless another process is doing so. Returns when it listens.

    Returns:
        ``False``: it was killed before it listened. Where this is the *last* try, that is an error.
    """
    with _writing(directory):
        _make(directory.path)
        fd = os.open(directory.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        with _writing(directory):
            directory.info.unlink(missing_ok=True)
        process = _spawn(directory, fd)
    finally:
        os.close(fd)  # the supervisor has a copy of its own, and with it the lock
    return await _started(io, process, last=last)


def _spawn(directory: SupervisorDirectory, fd: int) -> subprocess.Popen[bytes]:
    for package in _NEEDED:
        if not _installed(package):
            raise ConfigurationError('the local provider needs: pip install "unigpu[local]"', provider="local")
    if not sys.executable:
        raise ConfigurationError("this program has no Python interpreter to start others with", provider="local")
    # -P: a json.py in a user's folder must not take the standard library's place.
    python = (sys.executable, "-P", "-m", "unigpu.emulator.supervisor")
    try:
        return subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [*python, str(directory.path), str(fd), repr(directory.idle_exit)],
            pass_fds=[fd],
            cwd=directory.path,
            env={name: os.environ[name] for name in _INHERITED if name in os.environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as exc:
        raise ConfigurationError(
            f"the local supervisor cannot be started: {exc.strerror or exc}", provider="local"
        ) from None


async def _started(io: Io, process: subprocess.Popen[bytes], *, last: bool) -> bool:
    """Wait for the launching process, which ends when the supervisor listens, or with the reason."""
    deadline = io.now() + _START_S
    try:
        while process.poll() is None:
            if io.now() >= deadline:
                raise DeadlineExceeded(f"the local supervisor did not start in {_START_S:g} s", provider="local")
            await io.sleep(_PAUSE / 2)
    except BaseException:
        # A caller that leaves early leaves no zombie. A supervisor that got so far ends by itself.
        process.kill()
        process.communicate()
        raise
    output = process.communicate()[0]
    if (process.returncode == _DIED or process.returncode < 0) and not last:
        return False
    if process.returncode:
        words = output.decode("utf-8", "replace").strip().splitlines()[-1:] or ["it gave no reason"]
        if process.returncode == _CANNOT_WRITE:
            raise StateError(
                f"the local provider's state directory cannot be written: {words[0]}",
                provider="local",
                hint="Free some space, or choose another with UNIGPU_STATE_DIR.",
            )
        raise ConfigurationError(f"the local supervisor cannot start: {words[0]}", provider="local")
    return True


def _read(directory: SupervisorDirectory) -> Link | None:
    """What the supervisor wrote; ``None`` where there is nothing whole."""
    try:
        info: Any = json.loads(directory.info.read_bytes())
        protocol, port, token, pid = info["protocol"], int(info["port"]), str(info["token"]), int(info["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if protocol != PROTOCOL and _held(directory):
        raise StateError(
            f"another release of unigpu runs the local provider in {directory.path} "
            f"(protocol {protocol}, not {PROTOCOL})",
            provider="local",
            hint="Tear down its deployments with that release, or choose another directory with UNIGPU_STATE_DIR.",
        )
    return Link(base=f"http://127.0.0.1:{port}", token=SecretStr(token), pid=pid)


def _held(directory: SupervisorDirectory) -> bool:
    """Whether a supervisor lives, starts or is exiting there."""
    try:
        fd = os.open(directory.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise StateError(f"{directory.lock} cannot be opened: {exc.strerror or exc}", provider="local") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(fd, fcntl.LOCK_UN)  # said, not left to close(): a fork of ours may hold a copy
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _has_journal(directory: SupervisorDirectory) -> bool:
    try:
        return (directory.path / "journal").stat().st_size > 0
    except OSError:
        return False


def _make(path: Path) -> None:
    """The directory, ours alone.

    Raises:
        StateError: it is another user's, or others may write in it.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StateError(
            f"{path} belongs to another user, or others may write in it",
            provider="local",
            hint="It would let them run programs as you: choose another with UNIGPU_STATE_DIR.",
        )


@contextlib.contextmanager
def _writing(directory: SupervisorDirectory) -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise StateError(
            f"the local provider's state directory {directory.path} cannot be written: {exc.strerror or exc}",
            provider="local",
            hint="Free some space, or choose another with UNIGPU_STATE_DIR.",
        ) from None


def _installed(package: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(package) is not None


def _supported() -> None:
    if sys.platform == "win32":
        raise UnsupportedError(
            "the local provider needs Linux or macOS",
            provider="local",
            fact="its supervisor is found by a lock that Windows does not have",
            hint="Everything else of unigpu works on Windows.",
        )
