"""One worker's process group: start it, read its lines, see its end, and leave nothing of it behind.

Each worker leads a session of its own, so that one signal reaches all it started and nothing of ours. Its end is seen
through a pidfd (no thread, no SIGCHLD handler); what it started is killed while the dead leader still holds the group's
number, so that no other process can be hit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

_READ: Final = 65_536
_LINE: Final = 8_192  # characters; a longer line is told in pieces
_BURST: Final = 262_144  # bytes a pipe may give in one _PAUSE: a flood waits in it, and we stay awake
_PAUSE: Final = 0.05
_PROC: Final = Path("/proc")
_LAST_BYTES: Final = 1_048_576  # at most so much is read after the end

OnLine = Callable[[str, str], None]
"""Called with ``"stdout"`` or ``"stderr"``, and one line without its end."""


class ProcessGroup:
    """A running process with all it started. Made by `spawn`, inside a running loop."""

    def __init__(self, popen: subprocess.Popen[bytes], lines: Sequence[_Lines]) -> None:
        self.pid = popen.pid
        self.started = start_time(popen.pid)
        self.stopping = False
        self._patient = False
        self._popen = popen
        self._lines = lines
        self._ended = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._pidfd = -1
        self._watch()

    @classmethod
    def spawn(
        cls, argv: Sequence[str], *, env: Mapping[str, str], cwd: str | None, on_line: OnLine, umask: int = -1
    ) -> ProcessGroup:
        """Start *argv* with exactly *env*; *umask* -1 is ours.

        Raises:
            OSError: there is no such program or folder, or the machine has no room for another process.
        """
        pipes: list[tuple[int, int]] = []
        try:
            pipes = [os.pipe(), os.pipe()]
            popen = subprocess.Popen(  # noqa: S603 - running the user's command is what this does
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=pipes[0][1],
                stderr=pipes[1][1],
                start_new_session=True,
                umask=umask,
            )
        except BaseException:
            for read, _ in pipes:
                os.close(read)
            raise
        finally:
            for _, write in pipes:
                os.close(write)
        names = ("stdout", "stderr")
        return cls(popen, [_Lines(read, name, on_line) for (read, _), name in zip(pipes, names, strict=True)])

    @property
    def alive(self) -> bool:
        return not self._ended.is_set()

    async def wait(self) -> int:
        """Its exit code, or the negative number of the signal that killed it; all its output has been told then."""
        await self._ended.wait()
        return self._popen.returncode

    async def stop(self, grace: float, *, group: bool) -> None:
        """Ask it to end (all of the *group*, or its leader alone), and kill all of it after *grace* seconds."""
        self.stopping, self._patient = True, group
        self._signal(signal.SIGTERM, group=group)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._ended.wait()
                while group and _group_exists(self.pid):  # noqa: ASYNC110 - nothing tells of a group's end
                    await asyncio.sleep(0.02)
        if group or self.alive:
            self._signal(signal.SIGKILL, group=True)
        await self._ended.wait()

    def kill(self) -> None:
        """Kill all of it now."""
        self._signal(signal.SIGKILL, group=True)

    def _signal(self, number: signal.Signals, *, group: bool) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(self.pid, number)
            elif self.alive:
                os.kill(self.pid, number)

    def _watch(self) -> None:
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):  # no Linux, or no descriptor left: look at it now and then
            self._watcher = asyncio.get_running_loop().create_task(self._look())
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._on_end)

    async def _look(self) -> None:
        while self._popen.poll() is None:  # noqa: ASYNC110 - nothing tells of its end here
            await asyncio.sleep(_PAUSE)
        self._on_end()

    def _on_end(self) -> None:
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        if not self._patient:
            self._signal(signal.SIGKILL, group=True)  # before the leader is reaped: its number is still its own
        self._popen.wait()
        for lines in self._lines:
            lines.finish()
        self._ended.set()


class _Lines:
    """Reads a pipe without blocking, and tells its lines."""

    def __init__(self, fd: int, name: str, on_line: OnLine) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._name = name
        self._on_line = on_line
        self._rest = b""
        self._budget = _BURST
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(fd, self._on_data)

    def finish(self) -> None:
        """Read what is left, and close. What an escaped child still writes is not waited for."""
        if self._fd < 0:
            return
        read = 0
        while read < _LAST_BYTES and (data := self._read()):
            read += len(data)
            self._take(data)
        self._close()

    def _on_data(self) -> None:
        data = self._read()
        if data == b"":
            self._close()
        elif data:
            self._take(data)
            self._budget -= len(data)
            if self._timer is None:
                self._timer = self._loop.call_later(_PAUSE, self._refill)
            if self._budget <= 0:
                self._loop.remove_reader(self._fd)

    def _refill(self) -> None:
        self._timer = None
        if self._budget <= 0 and self._fd >= 0:
            self._loop.add_reader(self._fd, self._on_data)
        self._budget = _BURST

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, _READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._tell(line)
        while len(self._rest) >= _LINE:
            self._tell(self._rest[:_LINE])
            self._rest = self._rest[_LINE:]

    def _tell(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").rstrip("\r")
        for at in range(0, max(len(text), 1), _LINE):
            self._on_line(self._name, text[at : at + _LINE])

    def _close(self) -> None:
        if self._rest:
            self._tell(self._rest)
            self._rest = b""
        self._loop.remove_reader(self._fd)
        if self._timer is not None:
            self._timer.cancel()
        os.close(self._fd)
        self._fd = -1


def exit_words(code: int) -> str:
    """An exit code in words: ``"exited with code 3"``, ``"killed by SIGKILL"``."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def start_time(pid: int) -> int | str | None:
    """When a process began, in the kernel's ticks since boot; with the pid it names one process of one boot.

    Where there is no ``/proc`` (macOS), a text of `ps`, good to the second.
    """
    if not _PROC.is_dir():
        return _ask("ps", "-o", "lstart=", "-p", str(pid))
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
        return int(stat.rpartition(")")[2].split()[19])  # field 22 of proc_pid_stat(5); the name may hold spaces
    except (OSError, ValueError, IndexError):
        return None


def boot_id() -> str:
    """Which boot, and which numbering of processes (a container's is its own), pids of this process belong to."""
    if not _PROC.is_dir():
        return _ask("sysctl", "-n", "kern.boottime") or "unknown"
    parts: list[str] = []
    with contextlib.suppress(OSError):
        parts.append((_PROC / "sys/kernel/random/boot_id").read_text().strip())
    with contextlib.suppress(OSError):
        parts.append(os.readlink(_PROC / "self/ns/pid"))
    return "/".join(parts) or "unknown"


def _ask(*argv: str) -> str | None:
    """What a small program of the system says in one line, or ``None``."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603 - fixed words
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def oom_kills() -> int | None:
    """How many processes the kernel has killed in our control group for want of memory, where that can be read."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            file = (
                Path("/sys/fs/cgroup" + path, "memory.events")
                if not controllers
                else Path("/sys/fs/cgroup/memory" + path, "memory.oom_control")
            )
            if controllers in ("", "memory") and file.is_file():
                counts = dict(row.split() for row in file.read_text().splitlines())
                if "oom_kill" in counts:
                    return int(counts["oom_kill"])
    return None


def _group_exists(pgid: int) -> bool:
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
