"""Small files that survive a crash: written whole or not at all, readable by their owner only, locked by `flock`.

A lock belongs to the open file of a living process, never to a pid: a pid means nothing in another container on the
same volume. A lock file is removed while it is held. So a process that takes a lock checks that the file still has the
name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import weakref
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from unigpu.errors import StateError

Hook = Callable[[str], None]
"""Called with ``"before write"``, ``"mid write"``, ``"after write"``, ``"before remove"`` …: tests crash there."""

_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY: Final = getattr(os, "O_DIRECTORY", 0)
_MAX_BYTES: Final = 256 * 1024


if sys.platform != "win32":
    import fcntl

    def _flock(fd: int, *, shared: bool = False) -> None:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
else:

    def _flock(fd: int, *, shared: bool = False) -> None:
        """Windows has no flock, so two processes may work on one name. Their attempts on the platform differ."""


class Directory:
    """One directory of small files, with mode 0700.

    Raises:
        StateError: it cannot be created, or other users could write to it.
    """

    def __init__(self, path: Path, *, hook: Hook | None = None) -> None:
        self.path = path
        self._hook: Hook = hook or (lambda _: None)

    def prepare(self) -> None:
        """Create the directory if it does not exist, and refuse one that other users could change."""
        with _as_state_error(self.path):
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = os.stat(self.path, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            raise StateError(f"{self.path} is a link or a file, not a directory; unigpu does not follow it")
        if hasattr(os, "geteuid"):
            if found.st_uid != os.geteuid():
                raise StateError(f"{self.path} belongs to another user; pass another state_dir=")
            if found.st_mode & 0o022:
                raise StateError(f"other users can write to {self.path}; run: chmod 700 {self.path}")

    def names(self, prefix: str) -> list[str]:
        """The files that begin with *prefix*, sorted; none where the directory does not exist."""
        try:
            return sorted(entry for entry in os.listdir(self.path) if entry.startswith(prefix))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise _state_error(self.path, exc) from None

    def read(self, name: str) -> bytes | None:
        """A file's bytes; ``None`` where it does not exist, is no regular file, or is too large to be an intent."""
        try:
            fd = os.open(self.path / name, os.O_RDONLY | _NOFOLLOW)
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
                return None
            raise _state_error(self.path / name, exc) from None
        with os.fdopen(fd, "rb") as file, _as_state_error(self.path / name):
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return None
            data = file.read(_MAX_BYTES + 1)
        return data if len(data) <= _MAX_BYTES else None

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole: write a temporary file, sync and rename it, then sync the directory."""
        self._hook("before write")
        temp = self.path / f"{temp_prefix(name)}{secrets.token_hex(4)}"
        with _as_state_error(self.path / name):
            try:
                fd = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW, 0o600)
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(fd, view) :]
                    os.fsync(fd)
                finally:
                    os.close(fd)
                self._hook("mid write")
                os.replace(temp, self.path / name)
            except (OSError, KeyboardInterrupt):
                with contextlib.suppress(OSError):
                    os.unlink(temp)
                raise
            self._sync()
        self._hook("after write")

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        self._hook("before remove")
        with _as_state_error(self.path / name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / name)
            self._sync()
        self._hook("after remove")

    def _sync(self) -> None:
        if not _DIRECTORY:
            return  # Windows cannot open a directory; NTFS journals the rename
        fd = os.open(self.path, os.O_RDONLY | _DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def try_lock(self, name: str) -> Lock | None:
        """The lock of *name*, or ``None`` where a living process holds it."""
        path = self.path / name
        while True:
            with _as_state_error(path):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, 0o600)
            try:
                _flock(fd)
                if _is_named(fd, path):
                    return Lock(fd, path)
            except BlockingIOError:
                os.close(fd)
                return None
            except OSError as exc:
                os.close(fd)
                raise _state_error(path, exc) from None
            os.close(fd)  # the last holder removed the file that we locked: lock the new one

    def is_locked(self, name: str) -> bool:
        """Whether a living process holds the lock of *name*. Creates no file."""
        try:
            fd = os.open(self.path / name, os.O_RDWR | _NOFOLLOW)
        except FileNotFoundError:
            return False
        except OSError as exc:
            raise _state_error(self.path / name, exc) from None
        try:
            _flock(fd, shared=True)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False


class Lock:
    """A held lock. `release` removes the file while it still holds the lock, then closes it."""

    def __init__(self, fd: int, path: Path) -> None:
        self._fd: int | None = fd
        self._path = path
        _held.add(self)

    def release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is None:
            return
        try:
            if _is_named(fd, self._path):
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
        finally:
            os.close(fd)

    def forget(self) -> None:
        """In a forked child: close the parent's lock, which must not outlive the parent here."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)  # the last descriptor releases a flock, so the parent keeps it


_held: weakref.WeakSet[Lock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def temp_prefix(name: str) -> str:
    """The prefix of the temporary files of *name*."""
    return f".{name}.tmp-"


def _is_named(fd: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except OSError:
        return False
    mine = os.fstat(fd)
    return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


@contextlib.contextmanager
def _as_state_error(path: Path) -> Generator[None, None, None]:
    try:
        yield
    except OSError as exc:
        raise _state_error(path, exc) from None


def _state_error(path: Path, exc: OSError) -> StateError:
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StateError(
            f"the disk of {path.parent} is full: a deployment could not be recorded",
            hint="Free some space, or pass another state_dir= (state_dir=None keeps no record).",
        )
    return StateError(
        f"{path}: {exc.strerror or type(exc).__name__}",
        hint="Pass a state_dir= that you can write to (state_dir=None keeps no record).",
    )
