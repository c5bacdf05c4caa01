"""What the local supervisor must not forget: deployments, jobs, and the process groups it started.

One file of JSON lines, mode 0600. A record is one line; the newest of a kind and id counts, and ``…_gone`` ends it. A
torn last line (a crash while writing) is dropped; a write that fails half way (a full disk) is taken back, so that the
file never holds half a record. Deployments are on the disk before `put` returns; jobs are in the kernel's hands then
(they survive the process), and on the disk at the next `sync`.

Whatever the engine hands in is written as it is: its records hold no value of a secret.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

from .contract import JSON, Persist

log = logging.getLogger("unigpu.cloud.journal")

_VERSION: Final = 1
_COMPACT_BYTES: Final = 1_000_000
_Place = tuple[int, int]  # offset and length of a line; outputs are kept in the file alone
_NOWHERE: Final = (0, 0)
_OTHERS: Final = "(other release)"  # the kind under which lines are carried along that only another release can read


class Journal:
    """The journal of one state directory, held by the one supervisor that lives there.

    Raises:
        OSError: from `open`, `put` and `note`, where the disk is full or the file cannot be written; the record is then
            certainly not in the file.
    """

    def __init__(self, path: Path, *, write: Callable[[int, bytes], int] = os.write) -> None:
        self._path = path
        self._write = write
        self._fd = -1
        self._size = 0
        self._live: dict[tuple[str, str], _Place] = {}
        self._live_bytes = 0
        self._unsynced = False

    @classmethod
    def open(cls, path: Path, *, write: Callable[[int, bytes], int] = os.write) -> Journal:
        """Read what is there, cut off a torn tail, and compact it."""
        journal = cls(path, write=write)
        journal._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND, 0o600)
        try:
            journal._load()
            with contextlib.suppress(OSError):  # a full disk: the longer file is as true as the shorter one
                journal._compact(least=0)
        except BaseException:
            journal.close()
            raise
        return journal

    def records(self) -> list[Persist]:
        """What is there, deployments first, as the engine takes it back."""
        found = [
            Persist(kind=kind, id=id, record=_record(self._line_at(place)))
            for (kind, id), place in self._live.items()
            if kind in ("deployment", "job")
        ]
        return sorted(found, key=lambda record: record.kind)

    def notes(self, kind: str) -> dict[str, Mapping[str, JSON]]:
        """The supervisor's own records of one kind, by id."""
        return {id: _record(self._line_at(place)) for (k, id), place in self._live.items() if k == kind}

    @property
    def has_others(self) -> bool:
        """Whether there is something in it that only another release of unigpu can read."""
        return any(kind == _OTHERS for kind, _ in self._live)

    def put(self, effect: Persist) -> None:
        """Write one record of the engine; a deployment's is on the disk when this returns."""
        kind, gone = effect.kind.removesuffix("_gone"), effect.kind.endswith("_gone")
        self._put(kind, effect.id, None if gone else effect.record, sync=kind == "deployment")

    def note(self, kind: str, id: str, record: Mapping[str, JSON] | None) -> None:
        """Write, or with ``None`` end, a record of the supervisor's own."""
        self._put(kind, id, record, sync=False)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._unsynced:
            os.fsync(self._fd)
            self._unsynced = False

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self.sync()
            os.close(self._fd)
            self._fd = -1

    def _put(self, kind: str, id: str, record: Mapping[str, JSON] | None, *, sync: bool) -> None:
        if record is None and (kind, id) not in self._live:
            return
        line = _line(kind, id, record)
        at = self._append(line, sync=sync)
        self._stands((kind, id), None if record is None else (at, len(line)))
        with contextlib.suppress(OSError):  # a full disk: the longer file is as true as the shorter one
            self._compact(least=_COMPACT_BYTES)

    def _stands(self, key: tuple[str, str], place: _Place | None) -> None:
        """Where the record that counts stands now; the newest goes last: a rewritten file keeps the order of events."""
        self._live_bytes -= self._live.pop(key, _NOWHERE)[1]
        if place is not None:
            self._live[key] = place
            self._live_bytes += place[1]

    def _line_at(self, place: _Place) -> bytes:
        at, length = place
        return os.pread(self._fd, length, at)

    def _append(self, line: bytes, *, sync: bool) -> int:
        """Write it; returns where it stands."""
        if os.fstat(self._fd).st_size != self._size:
            os.ftruncate(self._fd, self._size)  # half a record, left where taking it back had failed
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._write(self._fd, bytes(rest)) :]
            if sync:
                os.fsync(self._fd)
                self._unsynced = False
            else:
                self._unsynced = True
        except OSError:
            # Truncating needs no room: the file ends with the last whole record again.
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line)
        return self._size - len(line)

    def _load(self) -> None:
        with os.fdopen(os.dup(self._fd), "rb") as file:
            data = file.read()
        whole, at = data[: data.rfind(b"\n") + 1], 0
        for number, line in enumerate(whole.splitlines(keepends=True), 1):
            entry = _parse(line)
            if entry == "other":
                self._stands((_OTHERS, str(number)), (at, len(line)))
            elif entry is None:
                # A torn line can be in the middle, where a crash hit and the next writer appended.
                log.warning("%s: line %d is not a record; left out", self._path.name, number)
            else:
                kind, id, record = entry
                self._stands((kind, id), None if record is None else (at, len(line)))
            at += len(line)
        if len(whole) != len(data):
            os.ftruncate(self._fd, len(whole))
        self._size = len(whole)

    def _compact(self, *, least: int) -> None:
        """Write the live records alone to a new file, where more than half of this one is past."""
        if self._size <= max(least, 2 * self._live_bytes):
            return
        temporary = self._path.with_suffix(".new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_APPEND, 0o600)
        moved: dict[tuple[str, str], _Place] = {}
        size = 0
        try:
            for key, place in self._live.items():
                rest = memoryview(self._line_at(place))
                while rest:
                    rest = rest[self._write(fd, bytes(rest)) :]
                moved[key] = size, place[1]
                size += place[1]
            os.fsync(fd)
            temporary.rename(self._path)
        except BaseException:
            os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        os.close(self._fd)
        self._fd, self._size, self._live, self._unsynced = fd, size, moved, False
        sync_dir(self._path.parent)


def sync_dir(path: Path) -> None:
    """Bring a rename in *path* to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _line(kind: str, id: str, record: Mapping[str, JSON] | None) -> bytes:
    entry: dict[str, JSON] = {"v": _VERSION, "kind": kind, "id": id, "record": record}
    # ASCII, so that nothing in a user's text can be taken for the end of a line.
    return json.dumps(entry, separators=(",", ":")).encode("ascii") + b"\n"


def _parse(line: bytes) -> tuple[str, str, Mapping[str, JSON] | None] | Literal["other"] | None:
    """Kind, id and record; ``"other"``: another release's; ``None``: no record."""
    try:
        entry: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match entry:
        case {"v": 1, "kind": str(kind), "id": str(id), "record": None | {} as record}:
            return kind, id, cast("Mapping[str, JSON] | None", record)
        case {"v": int(version)} if version != _VERSION:
            return "other"
        case _:
            return None


def _record(line: bytes) -> Mapping[str, JSON]:
    return cast("Mapping[str, JSON]", json.loads(line)["record"])
