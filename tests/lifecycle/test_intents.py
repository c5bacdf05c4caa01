"""The crash journal's files: whole or absent, private, locked by the living, and without secrets."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lifecycle_fakes import BASE, FakeIo, World, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu._lifecycle import durable_files
from unigpu._lifecycle.intents import Intent, IntentStore, key_of, parse
from unigpu.errors import DeadlineExceeded, StateError

FAR = 1e7
KEY = key_of("fake", BASE, "summa-ugaaaabbbbbbbb")


def intent(**fields: Any) -> Intent:
    return Intent(
        **{
            "state": "pending",
            "provider": "fake",
            "base": BASE,
            "namespace": "default",
            "name": "summarize",
            "provider_name": "summa-ugaaaabbbbbbbb",
            "attempt": "0123456789abcdef",
            "spec_hash": "1:0000",
            "created_at": 5.0,
            **fields,
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> IntentStore:
    return IntentStore(tmp_path / "state")


def files(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "state" / "intents").iterdir())


def deploy(world: World, **fields: Any) -> life.Deployed:
    return run_sync(
        life.deploy(
            world.scope(),
            spec(**fields),
            if_exists="reuse",
            wait=True,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    )


# -- content --------------------------------------------------------------------------------------------------------


@given(
    resources=st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=3),
    due=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3),
    expires=st.none() | st.floats(0, 1e10),
    state=st.sampled_from(["pending", "committed", "failed"]),
    extra=st.dictionaries(st.sampled_from(["later", "unknown"]), st.integers()),
)
def test_what_is_written_is_what_is_read(
    resources: Any, due: Any, expires: Any, state: Any, extra: dict[str, int]
) -> None:
    one = intent(resources=tuple(resources), due=tuple(due), expires_at=expires, state=state, extra=extra)
    assert parse(one.to_json()) == one


def test_fields_of_a_later_release_are_kept(store: IntentStore, tmp_path: Path) -> None:
    store.save(intent())
    (name,) = files(tmp_path)
    path = tmp_path / "state" / "intents" / name
    path.write_text(json.dumps({**json.loads(path.read_text()), "later": [1]}))
    (one,) = store.load(KEY)
    store.save(one)
    assert json.loads(path.read_text())["later"] == [1]


def test_another_version_is_left_alone_and_a_corrupt_file_is_ignored_with_a_warning(
    store: IntentStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(intent())
    where = tmp_path / "state" / "intents"
    (name,) = files(tmp_path)
    good = (where / name).read_text()
    (where / f"{KEY}.aaaaaaaaaaaa.json").write_text(good.replace('"version": 1', '"version": 2'))
    (where / f"{KEY}.bbbbbbbbbbbb.json").write_text(good[:40])
    (where / f"{KEY}.cccccccccccc.json").write_bytes(b"\xff\xfe")
    (where / f"{KEY}.dddddddddddd.json").write_text("[" * 100_000)
    before = files(tmp_path)
    with caplog.at_level(logging.WARNING, logger="unigpu"):
        assert [one.attempt for one in store.load(KEY)] == ["0123456789abcdef"]
    assert caplog.text.count("is ignored") == 3
    assert files(tmp_path) == before


@given(data=st.binary(max_size=300))
def test_no_file_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    (base / "intents").mkdir()
    (base / "intents" / f"{KEY}.aaaaaaaaaaaa.json").write_bytes(data)
    IntentStore(base).load(KEY)


def test_no_secret_and_no_environment_value_is_ever_written(world: World) -> None:
    def fill(wanted: Any) -> Any:
        return wanted.with_changes(secrets={"TOKEN": "hunter2"})

    scope = world.scope(secrets=fill)
    seen: list[str] = []
    real = scope.store._dir.write  # type: ignore[union-attr]  # there is one

    def write(name: str, data: bytes) -> None:
        seen.append(data.decode())
        real(name, data)

    scope.store._dir.write = write  # type: ignore[union-attr, method-assign]  # watches
    run_sync(
        life.deploy(
            scope,
            spec(secrets=["TOKEN"], env={"VISIBLE": "confidential"}),
            if_exists="reuse",
            wait=True,
            deadline=FAR,
            on_failure="teardown",
            settle=False,
        )
    )
    assert seen
    assert "hunter2" not in "".join(seen)
    assert "confidential" not in "".join(seen)


# -- the files ------------------------------------------------------------------------------------------------------


def test_a_file_is_synced_renamed_and_its_directory_synced(
    store: IntentStore, monkeypatch: pytest.MonkeyPatch, real_disk: None
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real: Callable[..., Any] = getattr(os, name)

        def watched(*args: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            what = name
            if name == "fsync":
                what += " directory" if stat.S_ISDIR(os.fstat(args[0]).st_mode) else " file"
            calls.append(what)
            return real(*args)

        monkeypatch.setattr(os, name, watched)
    store.save(intent())
    assert calls == ["fsync file", "replace", "fsync directory"]


def test_files_and_directory_are_their_owners_alone(store: IntentStore, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store.save(intent())
        lock = store.try_lock(KEY)
    finally:
        os.umask(old)
    where = tmp_path / "state" / "intents"
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    for path in where.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert lock is not None
    lock.release()


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o702])
def test_a_directory_that_others_can_write_is_refused_before_anything_is_created(world: World, mode: int) -> None:
    where = world.state_dir / "intents"  # type: ignore[operator]  # there is one
    where.mkdir(parents=True)
    where.chmod(mode)
    with pytest.raises(StateError, match="chmod 700"):
        deploy(world)
    assert world.cloud.created == []


def test_links_are_not_followed(world: World, store: IntentStore, tmp_path: Path) -> None:
    state = tmp_path / "state"
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    state.mkdir()
    (state / "intents").symlink_to(target)
    with pytest.raises(StateError, match="link"):
        deploy(world)
    (state / "intents").unlink()
    store.save(intent())
    (name,) = files(tmp_path)
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (state / "intents" / name).unlink()
    (state / "intents" / name).symlink_to(victim)
    assert store.load(KEY) == []
    store.save(intent())  # the link is replaced, not what it points to
    assert victim.read_text() == "precious"
    (state / "intents" / f"{KEY}.lock").symlink_to(victim)
    with pytest.raises(StateError):
        store.try_lock(KEY)


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_any_disk_error_is_ours_and_leaves_the_old_file_whole(
    store: IntentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    store.save(intent())

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StateError):
            store.save(intent(state="committed"))
    (one,) = store.load(KEY)
    assert one.state == "pending"
    assert len(files(tmp_path)) == 1


def test_a_directory_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    store = IntentStore(tmp_path / "nowhere")
    assert store.load() == []
    assert not store.is_locked(KEY)
    assert not (tmp_path / "nowhere").exists()


# -- the lock -------------------------------------------------------------------------------------------------------


def test_one_holder_at_a_time_and_the_file_goes_with_it(store: IntentStore, tmp_path: Path) -> None:
    first = store.try_lock(KEY)
    assert first is not None
    assert store.try_lock(KEY) is None
    assert store.is_locked(KEY)
    first.release()
    first.release()  # once more does nothing
    assert not store.is_locked(KEY)
    assert files(tmp_path) == []
    second = store.try_lock(KEY)
    assert second is not None
    second.release()


def test_a_lock_on_a_file_that_its_last_holder_just_removed_is_taken_again(
    store: IntentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.try_lock(KEY)
    assert first is not None
    real = durable_files._flock

    def late(fd: int, **more: Any) -> None:
        first.release()  # between our opening the file and our locking it
        real(fd, **more)

    with monkeypatch.context() as patch:
        patch.setattr(durable_files, "_flock", late)
        second = store.try_lock(KEY)
    assert second is not None
    assert store.try_lock(KEY) is None  # one holder, not one of each file
    second.release()


def test_waiting_for_a_lock_ends_at_the_deadline(world: World) -> None:
    store = IntentStore(world.state_dir)  # type: ignore[arg-type]  # there is one
    lock = store.try_lock(KEY)
    assert lock is not None
    io = FakeIo(world.cloud)
    before = io.now()
    with pytest.raises(DeadlineExceeded, match="another process"):
        run_sync(store.lock(io, KEY, deadline=before + 10, what="deploying summarize"))
    assert io.now() == pytest.approx(before + 10)
    lock.release()


HOLDER = """
import sys, time
from unigpu._lifecycle import durable_files
from unigpu._lifecycle.intents import IntentStore
lock = IntentStore(sys.argv[1]).try_lock(sys.argv[2])
print("held" if lock else "busy", flush=True)
sys.stdin.read()
"""


@pytest.mark.processes
def test_a_killed_holder_lets_go_and_a_pid_means_nothing(store: IntentStore, tmp_path: Path) -> None:
    store.save(intent())
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "state"), KEY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == "held"
        assert store.try_lock(KEY) is None
        assert store.is_locked(KEY)
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert not store.is_locked(KEY)
    assert f"{KEY}.lock" in files(tmp_path)  # left by the dead; it says nothing
    lock = store.try_lock(KEY)
    assert lock is not None
    lock.release()
    assert f"{KEY}.lock" not in files(tmp_path)


@pytest.mark.processes
def test_a_forked_child_does_not_keep_its_parents_lock(tmp_path: Path) -> None:
    script = f"""
import os, signal
from unigpu._lifecycle import durable_files
from unigpu._lifecycle.intents import IntentStore
store = IntentStore({str(tmp_path / "state")!r})
lock = store.try_lock({KEY!r})
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    os.write(ready[1], b"x")
    os.read(go[0], 1)  # lives on, and must not hold the lock
    os._exit(0)
os.read(ready[0], 1)
assert store.is_locked({KEY!r})  # the child's start let nothing go
os.close(lock._fd)  # the parent dies
assert not store.is_locked({KEY!r})
os.write(go[1], b"x")
os.waitpid(child, 0)
print("free")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "free", done.stderr


def test_many_threads_hold_it_one_at_a_time(store: IntentStore) -> None:
    inside, most, rounds = [0], [0], [0]

    def work() -> None:
        for _ in range(200):
            lock = store.try_lock(KEY)
            if lock is None:
                continue
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            rounds[0] += 1
            inside[0] -= 1
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert rounds[0] > 0


def test_a_temporary_file_of_the_dead_is_swept_and_one_of_the_living_is_not(store: IntentStore, tmp_path: Path) -> None:
    store.save(intent())
    where = tmp_path / "state" / "intents"
    other = key_of("fake", BASE, "other-ugaaaabbbbbbbb")
    for key in (KEY, other, "third-key"):
        (where / f".{key}.0123.json.tmp-aa").write_text("{")
    living = store.try_lock(other)
    mine = store.try_lock(KEY)
    assert living is not None
    assert mine is not None
    store.sweep_temporary(KEY)
    assert [name for name in files(tmp_path) if ".tmp-" in name] == [f".{other}.0123.json.tmp-aa"]
    living.release()
    mine.release()
