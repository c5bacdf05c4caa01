"""The local provider's supervisor: the server, real worker processes, and the rule by which it ends.

Whoever starts it holds an exclusive ``flock`` on the state directory's lock, and hands the open file over: it is held
for the supervisor's life, and the kernel drops it at its death. Held means that somebody lives, starts or is exiting.

It ends when a DELETE leaves nothing (told in the answer; every later request gets 503, and the process is gone within
half a second), when nothing is deployed, after ``idle_exit`` without a call or a job, and on SIGTERM. In the last two
cases the deployments stay in the journal, and come back without workers when the next supervisor starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from .apis.local.emulator import LocalEmulator
from .contract import HttpCall, Reply
from .engine import Engine
from .journal import Journal, sync_dir
from .processes.backend import ProcessBackend, ProcessSettings
from .processes.log_files import LogFile, LogFileHandler, prune
from .processes.orphans import process_tag, reap
from .processes.process_group import boot_id, start_time
from .server.app import CloudServer, closing
from .server.listener import listen, serving

log = logging.getLogger("unigpu.cloud.supervisor")

PROTOCOL: Final = 1
IDLE_EXIT: Final = 3600.0
CANNOT_WRITE: Final = 3
"""Exit code: the state directory cannot be written; the reason is on stdout."""
DIED: Final = 4
"""Exit code: it ended without a word before it listened, as by a signal; another try may do better."""

_EMPTY_S: Final = 10.0  # between a start and the PUT it was started for, and after a ttl took the last deployment
_LOOK_S: Final = 0.5
_LINGER_S: Final = 0.05  # for the last answer to leave
_LAST_GRACE_S: Final = 0.3  # for workers after the last DELETE, which promises an end within half a second
_STOP_GRACE_S: Final = 5.0
_STUCK_S: Final = 5.0
_SYNC_S: Final = 1.0
_SET_S: Final = 1.0  # the wall clock was set, or the machine slept, where it is so far from where it should be


def supervise_main(state_dir: str, lock_fd: int, *, idle_exit: float = IDLE_EXIT) -> int:
    """Detach, serve until the end, and return the exit code.

    The caller's process ends as soon as the supervisor listens (0), or with the reason on stdout where it cannot.
    """
    os.set_inheritable(lock_fd, False)  # a worker that kept it would keep the name of a dead supervisor alive
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours already: it came locked with the open file
    except OSError as exc:
        print(f"the lock is not ours: {exc.strerror or exc}", flush=True)  # noqa: T201 - the launcher reads this line
        return 1
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        return _report(read)
    os.close(read)
    code = _detached(Path(state_dir), idle_exit, _Teller(write))
    # Let go for every copy of the open file, should a fork of the launcher hold one; then be gone at once, so that a
    # free lock means a dead supervisor.
    fcntl.flock(lock_fd, fcntl.LOCK_UN)
    os._exit(code)


class _Teller:
    """Tells the waiting parent, once, that we listen, or why we do not."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __call__(self, code: int, words: str = "") -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._fd, f"{code} {words}".encode()[:4000])
            os.close(self._fd)
            self._fd = -1


def _report(fd: int) -> int:
    """The parent: wait for the child's word, and pass it on."""
    with os.fdopen(fd, "rb") as pipe:
        code, _, words = pipe.read().decode().partition(" ")
    if code != "0":
        print(words or "it ended before it listened", flush=True)  # noqa: T201 - the launcher reads this line
    return int(code) if code.isdigit() else DIED


def _detached(state_dir: Path, idle_exit: float, tell: _Teller) -> int:
    umask = os.umask(0o077)  # our own files are private; what workers write is as its user wants it
    handler: logging.Handler | None = None
    try:
        os.chdir(state_dir)
        _redirect(state_dir / "supervisor.err")
        handler = _log_to(state_dir / "supervisor.log")
        asyncio.run(Supervisor(state_dir, idle_exit=idle_exit, umask=umask).run(lambda: tell(0)))
    except OSError as exc:
        log.exception("the supervisor ends")
        tell(CANNOT_WRITE, f"{exc.strerror or exc}: {exc.filename or state_dir}")
        return CANNOT_WRITE
    except BaseException as exc:
        log.exception("the supervisor ends")
        tell(1, f"{type(exc).__name__}: {exc}")
        return 1
    finally:
        if handler is not None:
            handler.close()
    return 0


def _redirect(errors: Path) -> None:
    """Nothing of ours reaches the caller's terminal; what the interpreter itself says at a crash is kept."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        err = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    except OSError:
        err = os.dup(null)
    for source, target in ((null, 0), (null, 1), (err, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(err)


def _log_to(path: Path) -> logging.Handler:
    handler = LogFileHandler(LogFile(path))
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    for name in ("unigpu", "uvicorn.error", "asyncio"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO if name == "unigpu" else logging.WARNING)
        logger.addHandler(handler)
    return handler


class Supervisor:
    """One supervisor of one state directory.

    Raises:
        OSError: from `run`, before it listens: the state directory cannot be written.
    """

    def __init__(self, state_dir: Path, *, idle_exit: float = IDLE_EXIT, umask: int = -1) -> None:
        self._dir = state_dir
        self._info = state_dir / "supervisor.json"
        self._idle_exit = idle_exit
        self._umask = umask
        self._token = secrets.token_urlsafe(32)
        self._lock = _identity(state_dir / "lock")
        self._lost = False
        self._closing = asyncio.Event()
        self._grace = _STOP_GRACE_S
        self._why = ""

    async def run(self, started: Callable[[], None]) -> None:
        """Serve until the end; *started* is called once it listens and can be found."""
        tag = process_tag(self._dir)
        journal = Journal.open(self._dir / "journal")
        try:
            await reap(journal, tag)
            engine = Engine(now=time.monotonic(), wall=_wall)
            engine.mount(LocalEmulator(engine, token=self._token, info={"pid": os.getpid()}))
            engine.restore(journal.records(), time.monotonic())
            server = CloudServer(engine, persist=journal.put, refuse=self._refuse, after=self._after)
            logs = self._dir / "logs"
            logs.mkdir(mode=0o700, exist_ok=True)
            prune(logs)

            def note(worker_id: str, record: Any) -> None:
                journal.note("worker", worker_id, None if record is None else {**record, "boot": boot_id()})

            backend = ProcessBackend(
                server.emit, settings=ProcessSettings(log_dir=logs, tag=tag, umask=self._umask), note=note
            )
            server.backend = backend
            listener = listen("127.0.0.1", 0)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._end, f"{number.name} received")
            async with serving(server, listener):
                server.pump()
                port = listener.getsockname()[1]
                self._publish(port)
                started()
                log.info("listening on port %d; %d deployments", port, len(engine.deployment_ids()))
                await self._until_closing(server, journal, port)
                self._unpublish()
                log.info("ending: %s", self._why)
                await asyncio.sleep(_LINGER_S)
                server.close()
                with contextlib.suppress(TimeoutError):  # what cannot be killed is left to the next one's reaping
                    async with asyncio.timeout(self._grace + _STUCK_S):
                        await backend.close(grace=self._grace)
            if not (engine.deployment_ids() or journal.has_others or self._lost):
                (self._dir / "journal").unlink(missing_ok=True)
        finally:
            self._unpublish()
            journal.close()

    def _publish(self, port: int) -> None:
        """Let clients find us, all at once: the file is whole, or not there."""
        info = {
            "protocol": PROTOCOL,
            "pid": os.getpid(),
            "started": start_time(os.getpid()),
            "boot_id": boot_id(),
            "port": port,
            "token": self._token,
            "python": sys.executable,
        }
        temporary = self._dir / ".supervisor.json"
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(info, file)
            file.flush()
            os.fsync(fd)
        temporary.rename(self._info)
        sync_dir(self._dir)

    def _unpublish(self) -> None:
        if self._lost:
            return  # what is there now is another's
        with contextlib.suppress(OSError):
            self._info.unlink(missing_ok=True)

    # -- when it ends -----------------------------------------------------------------------------------------------

    def _end(self, why: str, *, grace: float = _STOP_GRACE_S) -> None:
        if not self._closing.is_set():
            self._why, self._grace = why, grace
            self._closing.set()
            self._unpublish()

    def _refuse(self, call: HttpCall) -> Reply | None:
        return closing() if self._closing.is_set() else None

    def _after(self, call: HttpCall, reply: Reply) -> Reply:
        """Any DELETE that leaves nothing ends us, in the same turn of the loop in which it says so."""
        if call.method == "DELETE" and reply.status == 200 and json.loads(reply.body).get("last") is True:
            self._end("nothing is deployed", grace=_LAST_GRACE_S)
        return reply

    def _be_found(self, port: int) -> None:
        """See to it that clients find us; end where none ever will, because the state directory was removed."""
        with contextlib.suppress(OSError):  # a full disk, or one that cannot be read now: looked at again
            if self._lock is not None and _identity(self._dir / "lock") != self._lock:
                self._lost = True
                self._end("the state directory was removed")
            elif not self._info.exists():
                self._publish(port)

    async def _until_closing(self, server: CloudServer, journal: Journal, port: int) -> None:
        synced, ahead = time.monotonic(), _wall(0.0)
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._closing.wait()
            if self._closing.is_set():
                return
            self._be_found(port)
            now = time.monotonic()
            if abs(_wall(0.0) - ahead) > _SET_S:
                ahead = _wall(0.0)
                server.engine.deployments.clock_was_set(now)
                server.pump()
            if now - synced >= _SYNC_S:
                synced = now
                try:
                    journal.sync()
                except OSError as exc:
                    log.error("the journal cannot be brought to the disk: %s", exc.strerror or exc)
            idle = now - server.last_call
            if server.open_calls == 0 and idle >= _EMPTY_S and not server.engine.deployment_ids():
                self._end("nothing is deployed")
            elif server.open_calls == 0 and idle >= self._idle_exit and not server.engine.has_work():
                self._end(f"no call for {self._idle_exit:g} s")


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file has that name; ``None``: there is none. An open one's numbers are given to no other."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def _wall(now: float) -> float:
    """The epoch time of a monotonic one, by the clock as it is set now: it may be set, and a machine may sleep."""
    return time.time() + (now - time.monotonic())


if __name__ == "__main__":  # python -m unigpu.emulator.supervisor STATE_DIR LOCK_FD IDLE_EXIT, by the local provider
    _state_dir, _lock_fd, _idle_exit = sys.argv[1:]
    sys.exit(supervise_main(_state_dir, int(_lock_fd), idle_exit=float(_idle_exit)))
