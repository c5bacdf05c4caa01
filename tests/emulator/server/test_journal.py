"""The journal: what was written is there after any crash, and nothing is ever there by half."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.emulator.contract import Persist
from unigpu.emulator.journal import Journal

IDS = st.sampled_from(["a", "b", "c"])
VALUES = st.dictionaries(st.sampled_from(["x", "y"]), st.text(max_size=20) | st.integers() | st.none(), max_size=2)
RECORDS = st.one_of(
    st.builds(lambda id, v: Persist(kind="deployment", id=id, record=v), IDS, VALUES),
    st.builds(lambda id: Persist(kind="deployment_gone", id=id), IDS),
    st.builds(lambda id, v: Persist(kind="job", id=id, record=v), IDS, VALUES),
    st.builds(lambda id: Persist(kind="job_gone", id=id), IDS),
)


def apply(state: dict[tuple[str, str], Any], record: Persist) -> None:
    key = (record.kind.removesuffix("_gone"), record.id)
    state.pop(key, None)
    if not record.kind.endswith("_gone"):
        state[key] = dict(record.record)


def content(journal: Journal) -> dict[tuple[str, str], Any]:
    return {(r.kind, r.id): dict(r.record) for r in journal.records()}


def fresh(tmp_path: Path, name: str = "journal") -> Path:
    path = tmp_path / name
    path.unlink(missing_ok=True)
    return path


@given(records=st.lists(RECORDS, max_size=12))
def test_what_was_written_is_read_back_newest_first_wins(records: list[Persist], tmp_path: Path) -> None:
    path = fresh(tmp_path)
    expected: dict[tuple[str, str], Any] = {}
    journal = Journal.open(path)
    for record in records:
        journal.put(record)
        apply(expected, record)
    journal.close()
    again = Journal.open(path)
    assert content(again) == expected
    kinds = [r.kind for r in again.records()]
    assert kinds == sorted(kinds)  # deployments come back before their jobs
    again.close()


@given(records=st.lists(RECORDS, min_size=1, max_size=5), data=st.data())
def test_a_file_cut_anywhere_is_read_up_to_its_last_whole_record(
    records: list[Persist], data: st.DataObject, tmp_path: Path
) -> None:
    path = fresh(tmp_path)
    states: list[tuple[int, dict[tuple[str, str], Any]]] = [(0, {})]
    journal = Journal.open(path)
    for record in records:
        journal.put(record)
        state = dict(states[-1][1])
        apply(state, record)
        states.append((path.stat().st_size, state))
    journal.close()
    cut = data.draw(st.integers(0, path.stat().st_size))
    os.truncate(path, cut)
    again = Journal.open(path)
    assert content(again) == [state for size, state in states if size <= cut][-1]
    again.put(Persist(kind="job", id="after", record={"ok": True}))  # the torn tail is not in the way
    again.close()
    last = Journal.open(path)
    assert content(last)["job", "after"] == {"ok": True}
    last.close()


class FullDisk:
    """Room for so many bytes in all, then ENOSPC; a write may still place its first part, as on a real disk."""

    def __init__(self, room: int, code: int = errno.ENOSPC) -> None:
        self.room = room
        self.code = code

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        written = os.write(fd, data[: self.room])
        self.room -= written
        return written


@given(records=st.lists(RECORDS, min_size=1, max_size=6), data=st.data())
def test_a_disk_that_is_full_at_any_byte_loses_the_new_record_only(
    records: list[Persist], data: st.DataObject, tmp_path: Path
) -> None:
    path = fresh(tmp_path)
    disk = FullDisk(data.draw(st.integers(0, 400)))
    expected: dict[tuple[str, str], Any] = {}
    journal = Journal.open(path, write=disk)
    for record in records:
        try:
            journal.put(record)
        except OSError as exc:
            if exc.errno != errno.ENOSPC:
                raise
        else:
            apply(expected, record)
        assert path.read_bytes().endswith(b"\n") or path.stat().st_size == 0
        assert content(journal) == expected  # in memory as in the file
    journal.close()
    again = Journal.open(path)
    assert content(again) == expected
    again.close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_has_room_again_takes_records_again(code: int, tmp_path: Path) -> None:
    disk = FullDisk(0, code)
    journal = Journal.open(tmp_path / "journal", write=disk)
    with pytest.raises(OSError, match=os.strerror(code)):
        journal.put(Persist(kind="deployment", id="a", record={"n": 1}))
    disk.room = 10_000
    journal.put(Persist(kind="deployment", id="a", record={"n": 2}))
    journal.close()
    again = Journal.open(tmp_path / "journal")
    assert content(again) == {("deployment", "a"): {"n": 2}}
    again.close()


def test_it_does_not_grow_without_end_and_a_full_disk_while_shrinking_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    sizes: list[int] = []
    shrinks = FullDisk(10**12)

    def write(fd: int, data: bytes) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".new") and not sizes:
            raise OSError(errno.ENOSPC, "full")
        return shrinks(fd, data)

    journal = Journal.open(path, write=write)
    journal.put(Persist(kind="deployment", id="d", record={"keep": True}))
    while path.stat().st_size < 1_200_000:
        journal.put(Persist(kind="job", id="j", record={"output": "x" * 50_000}))
    assert content(journal)["deployment", "d"] == {"keep": True}
    assert not path.with_suffix(".new").exists()
    sizes.append(1)  # there is room again
    journal.put(Persist(kind="job", id="j", record={"output": "y"}))
    assert path.stat().st_size < 1000
    journal.close()
    again = Journal.open(path)
    assert content(again) == {("deployment", "d"): {"keep": True}, ("job", "j"): {"output": "y"}}
    again.close()


def test_a_line_that_is_no_record_is_left_out_and_the_rest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path)
    journal.put(Persist(kind="deployment", id="a", record={"n": 1}))
    journal.close()
    with path.open("ab") as file:
        file.write(b'{"v":1,"kind":"deploy\n\x00\xff\n{"v":"x","kind":"deployment","id":"z","record":{}}\n[]\n')
    again = Journal.open(path)
    assert content(again) == {("deployment", "a"): {"n": 1}}
    again.close()


def test_what_another_release_wrote_is_kept_for_it(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    later = b'{"v":2,"kind":"deployment","id":"z","record":{"n":2},"new":1}\n'
    path.write_bytes(b"".join(b'{"v":1,"kind":"job","id":"j","record":{"n":%d}}\n' % n for n in range(50)) + later)
    for _ in range(2):
        journal = Journal.open(path)
        assert journal.has_others
        assert content(journal) == {("job", "j"): {"n": 49}}
        journal.close()
        assert later in path.read_bytes()
        assert path.stat().st_size < 200


def test_it_is_for_its_owner_only_and_never_follows_a_link(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    old = os.umask(0)
    try:
        Journal.open(path).close()
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious")
    path.unlink()
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match=r"symbolic|Too many"):
        Journal.open(path)
    assert elsewhere.read_text() == "precious"


def test_notes_of_the_supervisor_are_no_records_of_the_engine(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "journal")
    journal.note("worker", "w1", {"pid": 1})
    journal.note("worker", "w2", {"pid": 2})
    journal.note("worker", "w1", None)
    journal.close()
    again = Journal.open(tmp_path / "journal")
    assert again.records() == []
    assert again.notes("worker") == {"w2": {"pid": 2}}
    again.close()
