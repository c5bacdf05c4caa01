"""Log files: private, capped, and never in the way of what they tell of."""

from __future__ import annotations

import errno
import logging
import os
import stat
from pathlib import Path
from typing import Any

from unigpu.emulator.processes.log_files import LogFile, LogFileHandler, prune


def test_it_never_has_more_than_two_files_of_its_cap_and_the_newest_line_is_there(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "w.log", cap=1000)
    for n in range(200):
        file.write("stdout", f"line {n}")
    file.close()
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert set(sizes) == {"w.log", "w.log.1"}
    assert max(sizes.values()) <= 1000
    assert (tmp_path / "w.log").read_text().endswith("line 199\n")
    assert stat.S_IMODE((tmp_path / "w.log").stat().st_mode) == 0o600


def test_a_full_disk_loses_lines_and_nothing_else(tmp_path: Path, monkeypatch: Any) -> None:
    file = LogFile(tmp_path / "w.log", cap=1000)
    handler = LogFileHandler(file)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    file.write("stdout", "lost")
    handler.emit(logging.LogRecord("n", logging.INFO, "f", 1, "lost %s", ("too",), None))
    handler.emit(logging.LogRecord("n", logging.INFO, "f", 1, "%d", ("not a number",), None))
    monkeypatch.setattr(os, "write", real)
    file.write("stdout", "kept")
    handler.close()
    assert (tmp_path / "w.log").read_text().endswith("stdout kept\n")


def test_old_files_are_removed_and_the_newest_kept(tmp_path: Path) -> None:
    for n in range(10):
        (tmp_path / f"{n}.log").touch()
        os.utime(tmp_path / f"{n}.log", (n, n))
    (tmp_path / "folder").mkdir()
    prune(tmp_path, keep=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["7.log", "8.log", "9.log", "folder"]
    prune(tmp_path / "nowhere")
