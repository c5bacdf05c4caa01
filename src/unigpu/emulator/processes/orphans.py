"""What a supervisor that was killed left running, and how the next one ends it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..journal import Journal
from .process_group import boot_id, start_time

log = logging.getLogger("unigpu.cloud.leftovers")

_MARK: Final = "UNIGPU_LOCAL"
_GONE_S: Final = 5.0


def process_tag(state_dir: Path) -> str:
    """Marks every process of the supervisors of one state directory, by a variable of its environment."""
    return hashlib.sha256(f"{os.getuid()}:{state_dir.resolve()}".encode()).hexdigest()[:16]


async def reap(journal: Journal, tag: str) -> int:
    """Kill what is left of an earlier supervisor's workers; returns how many processes that were.

    A recorded group is killed only where pid, start time and boot are the recorded ones: after a reboot, or where the
    number was given to another process, nothing is touched. The mark finds what left its group, or was started in the
    moment before it could be recorded.
    """
    here = boot_id()
    killed: set[int] = set()
    notes = journal.notes("worker")
    for record in notes.values():
        pid = record.get("pid")
        if isinstance(pid, int) and record.get("boot") == here and _is(pid, record.get("started")):
            killed.add(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
    for pid in _marked(tag):
        killed.add(pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    if killed:
        log.warning("an earlier supervisor ended without stopping its workers; killed: %s", sorted(killed))
        await _until_gone(killed)
    for worker_id in notes:
        with contextlib.suppress(OSError):  # a full disk: looked at, and found gone, next time
            journal.note("worker", worker_id, None)
    return len(killed)


def _is(pid: int, started: object) -> bool:
    return pid > 1 and started is not None and start_time(pid) == started


def _marked(tag: str) -> Iterator[int]:
    """Processes of ours whose environment has the mark; none where there is no ``/proc``."""
    mark = f"{_MARK}={tag}".encode()
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):  # another user's, or gone by now
                    if mark in (entry / "environ").read_bytes().split(b"\0"):
                        yield int(entry.name)


async def _until_gone(pids: set[int]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GONE_S):
            while any(_lives(pid) for pid in pids):  # noqa: ASYNC110 - they are not our children: nothing tells
                await asyncio.sleep(0.01)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")
