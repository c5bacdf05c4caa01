"""The file that makes a `map` resumable: JSON lines, one fact each, appended as it becomes true.

``submitted`` is written before we wait for a job (and, where the platform takes our id, before it is sent); ``done``
holds the output; ``taken`` says that the consumer asked for the next one, so the output may be dropped from the file;
``failed`` says that the input may run again. Each line is handed to the operating system at once, so a killed process
loses nothing; it is forced to disk every 100 lines or every second, so a power cut loses no more than that.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, cast

from unigpu.errors import CheckpointMismatch, ConfigurationError, StateError
from unigpu.models import Cost, Result, Timing

try:
    import fcntl
except ImportError:  # Windows has no flock: two maps over one file are then the user's own care
    fcntl = None  # type: ignore[assignment]  # the module's absence is the value

_FORMAT: Final = 1
_SYNC_LINES: Final = 100
_SYNC_SECONDS: Final = 1.0
_COMPACT_BYTES: Final = 32 * 1024 * 1024
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0)
_HEADER_MOST: Final = 4096  # bytes of a first line that is read: a header of ours is shorter

State = Literal["new", "submitted", "done", "failed", "taken"]


@dataclass(slots=True)
class CheckpointEntry:
    """What the file says of one key. ``offset`` and ``length`` are where its output stands."""

    digest: str
    state: State = "new"
    job_id: str | None = None
    offset: int = 0
    length: int = 0


def digest(value: Mapping[str, Any]) -> str:
    """A hash of an input, the same whatever the order of its keys."""
    text = json.dumps(dict(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Checkpoint:
    """One open checkpoint file. May be used from two threads (sync `map`: the consumer's and the engine's).

    Raises:
        CheckpointMismatch: the file belongs to another deployment or is no checkpoint.
        ConfigurationError: another process uses it.
        StateError: it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str], *, deployment: str) -> None:
        try:
            self._path = Path(os.path.realpath(os.fspath(path)))  # compacting replaces the file, never a link to it
        except (TypeError, ValueError):
            raise ConfigurationError("checkpoint: give the path of a file.") from None
        self._deployment = deployment
        self._entries: dict[str, CheckpointEntry] = {}
        self._lock = threading.Lock()
        self._fd = -1
        self._unsynced = 0
        self._synced_at = time.monotonic()
        self._dropped = 0
        with _as_state_error(self._path, "Nothing was sent. Give a file in a folder that exists and can be written."):
            self._fd = _open_locked(self._path)
            try:
                self._size = self._load()
                if self._dropped > self._size // 2:
                    self._compact()
            except BaseException:
                os.close(self._fd)
                self._fd = -1
                raise

    def entry(self, key: str, digest: str) -> CheckpointEntry:
        """What the file says of *key*; a new one is remembered.

        Raises:
            CheckpointMismatch: the file knows *key* with another input.
        """
        with self._lock:
            found = self._entries.setdefault(key, CheckpointEntry(digest))
        if found.digest != digest:
            raise CheckpointMismatch(
                f"{self._path}: the input with the key {key!r} is not the one that was started.",
                hint="Use another checkpoint file, or give key= so that keys follow the inputs.",
            )
        return found

    def output(self, key: str) -> Result:
        """The result that was recorded for *key*."""
        entry = self._entries[key]
        with self._lock, _as_state_error(self._path):
            line = os.pread(self._fd, entry.length, entry.offset)
        fact = _parsed(line) or {}
        return Result(
            output=fact.get("output"),
            key=key,
            job_id=fact.get("job"),
            worker_id=fact.get("worker"),
            timing=Timing.model_validate(fact.get("timing") or {}),
            cost=Cost.model_validate(fact.get("cost") or {}),
        )

    def submitted(self, key: str, job_id: str | None) -> None:
        self._write(key, "submitted", {"submitted": key, "input": self._entries[key].digest, "job": job_id})
        self._entries[key].job_id = job_id

    def done(self, key: str, result: Result) -> None:
        self._write(
            key,
            "done",
            {
                "done": key,
                "input": self._entries[key].digest,
                "job": result.job_id,
                "worker": result.worker_id,
                "timing": result.timing.model_dump(exclude_none=True),
                "cost": result.cost.model_dump(exclude_none=True),
                "output": result.output,
            },
        )

    def failed(self, key: str) -> None:
        self._write(key, "failed", {"failed": key, "input": self._entries[key].digest})

    def taken(self, key: str) -> None:
        entry = self._entries[key]
        if entry.state == "done":
            self._dropped += entry.length
            self._write(key, "taken", {"taken": key, "input": entry.digest})
            if self._dropped > max(_COMPACT_BYTES, self._size // 2):
                with self._lock, _as_state_error(self._path):
                    self._compact()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:  # a map that was never read
            os.close(self._fd)

    def close(self) -> None:
        """Force what was written to disk, and let the file go."""
        with self._lock:
            if self._fd >= 0:
                with _as_state_error(self._path):
                    try:
                        os.fsync(self._fd)
                    finally:
                        os.close(self._fd)
                        self._fd = -1

    def _write(self, key: str, state: State, fact: Mapping[str, Any]) -> None:
        line = _line(fact)
        with self._lock, _as_state_error(self._path):
            if self._fd < 0:
                return  # closed meanwhile: the map was left, and a resume asks the platform instead
            try:
                _write_all(self._fd, line)
            except OSError:
                os.ftruncate(self._fd, self._size)  # no half line in the middle of the file
                os.lseek(self._fd, self._size, os.SEEK_SET)
                raise
            entry = self._entries[key]
            entry.state, entry.offset, entry.length = state, self._size, len(line)
            self._size += len(line)
            self._unsynced += 1
            now = time.monotonic()
            if self._unsynced >= _SYNC_LINES or now - self._synced_at >= _SYNC_SECONDS:
                os.fsync(self._fd)
                self._unsynced, self._synced_at = 0, now

    def _load(self) -> int:
        """Read the file; returns its size. A last line that was cut off is dropped."""
        size, whole = os.fstat(self._fd).st_size, 0
        header = self._header()
        with os.fdopen(os.dup(self._fd), "rb") as stream:
            stream.seek(0)
            first = stream.readline(_HEADER_MOST)
            if first.endswith(b"\n") or not header.startswith(first):  # else: new, or killed while it was begun
                self._check_header(first)
                whole = len(first)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._remember(line, whole)
                    whole += len(line)
        if whole < size:
            os.ftruncate(self._fd, whole)
        os.lseek(self._fd, whole, os.SEEK_SET)
        if whole == 0:
            _write_all(self._fd, header)
            os.fsync(self._fd)
            return len(header)
        return whole

    def _header(self) -> bytes:
        return _line({"unigpu_map": _FORMAT, "deployment": self._deployment})

    def _check_header(self, line: bytes) -> None:
        head = _parsed(line)
        if head is None or head.get("unigpu_map") != _FORMAT:
            raise CheckpointMismatch(f"{self._path} is no checkpoint of this version of unigpu; it was left as it is.")
        if head.get("deployment") != self._deployment:
            raise CheckpointMismatch(
                f"{self._path} belongs to {head.get('deployment')}, not to {self._deployment}.",
                hint="Use another checkpoint file.",
            )

    def _remember(self, line: bytes, offset: int) -> None:
        fact = _parsed(line) or {}
        states: tuple[State, ...] = ("submitted", "done", "failed", "taken")
        for state in states:
            key = fact.get(state)
            if isinstance(key, str):
                entry = self._entries.setdefault(key, CheckpointEntry(str(fact.get("input"))))
                if state == "taken" and entry.state == "done":
                    self._dropped += entry.length
                entry.state, entry.offset, entry.length = state, offset, len(line)
                entry.job_id = fact.get("job") if state == "submitted" else entry.job_id
                return
        raise CheckpointMismatch(f"{self._path}: the line at byte {offset} is none of a checkpoint's.")

    def _compact(self) -> None:
        """Write the file anew without the outputs that were taken; replaces it in one step."""
        # One name: who holds the lock is alone here, and what a killed one left is written over.
        fresh = self._path.with_name(f".{self._path.name}.unigpu-tmp")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | _NOFOLLOW, 0o600)
        try:
            _flock(fd)
            header = self._header()
            size = len(header)
            _write_all(fd, header)
            moved: dict[str, tuple[int, int]] = {}
            for key, entry in self._entries.items():
                if entry.state == "new":
                    continue
                line = (
                    _line({"taken": key, "input": entry.digest})
                    if entry.state == "taken"
                    else os.pread(self._fd, entry.length, entry.offset)
                )
                _write_all(fd, line)
                moved[key] = (size, len(line))
                size += len(line)
            os.fsync(fd)
            fresh.replace(self._path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        os.close(self._fd)
        self._fd, self._size, self._dropped = fd, size, 0
        for key, (offset, length) in moved.items():
            self._entries[key].offset, self._entries[key].length = offset, length


def _open_locked(path: Path) -> int:
    """Open and lock the file; tries again where it was replaced (compacted) between the two."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _flock(fd)
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return fd
        except BlockingIOError:
            os.close(fd)
            raise ConfigurationError(f"checkpoint: {path} is in use by another map.") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _flock(fd: int) -> None:
    if fcntl is not None:  # pyright: ignore[reportUnnecessaryComparison] - None on Windows, see the import
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _line(fact: Mapping[str, Any]) -> bytes:
    return json.dumps(fact, separators=(",", ":")).encode() + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found: object = json.loads(line)
    except ValueError:
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


@contextlib.contextmanager
def _as_state_error(path: Path, hint: str = "What was recorded before is kept; jobs may run on.") -> Generator[None]:
    try:
        yield
    except OSError as exc:
        raise StateError(f"the checkpoint {path} cannot be used: {exc.strerror or exc}.", hint=hint) from exc
