"""Log files that never fill a disk: two of a capped size, and silence where nothing can be written."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from pathlib import Path
from typing import Final

_CAP: Final = 1_000_000
_KEEP: Final = 40


class LogFile:
    """A file of lines, mode 0600; at *cap* bytes it becomes ``NAME.1``, and a new one begins."""

    def __init__(self, path: Path, *, cap: int = _CAP) -> None:
        self._path = path
        self._cap = cap
        self._fd = -1
        self._size = 0

    def write(self, stream: str, text: str) -> None:
        """Add one line. A disk that is full loses it; the worker goes on."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        data = f"{stamp} {stream} {text}\n".encode("utf-8", "replace")
        with contextlib.suppress(OSError):
            if self._size + len(data) > self._cap:
                self._turn()
            if self._fd < 0:
                self._open()
            self._size += os.write(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _turn(self) -> None:
        self.close()
        self._size = 0
        self._path.replace(self._path.with_name(self._path.name + ".1"))


class LogFileHandler(logging.Handler):
    """Our own log records into a `LogFile`."""

    def __init__(self, file: LogFile) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(Exception):  # a record that cannot be formatted must not end the supervisor
            self._file.write(record.levelname, self.format(record))

    def close(self) -> None:
        self._file.close()
        super().close()


def prune(folder: Path, *, keep: int = _KEEP) -> None:
    """Remove all but the newest *keep* files of *folder*."""
    with contextlib.suppress(OSError):
        files = sorted((f for f in folder.iterdir() if f.is_file()), key=lambda f: f.stat().st_mtime, reverse=True)
        for file in files[keep:]:
            file.unlink(missing_ok=True)
