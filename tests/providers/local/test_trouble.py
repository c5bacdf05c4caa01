"""What goes wrong: workers and supervisors that die, disks that are full, machines that were started anew."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unigpu.driver import JobStatus, State, WorkerState
from unigpu.errors import StateError, TransportError, UniGPUError
from unigpu.models import DeploymentSpec

pytestmark = pytest.mark.processes
Worlds = Callable[..., Any]


def logs(world: Any, info: Any) -> list[str]:
    async def read() -> list[str]:
        return [line.text async for line in world.driver.logs(world.io, info, worker=None, follow=False, tail=100)]

    return world.do(read())


# -- workers ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_cannot_start_is_explained_and_calls_are_answered_quickly(world: Any) -> None:
    info = world.deploy(handler="app.py:Broken")
    job = world.call(info, {})
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.type == "WorkerFailed"
    assert "no weights here" in job.error.message
    assert job.error.traceback is not None
    assert "loading the weights" in job.error.traceback  # its own last lines
    now = world.read(info)
    assert now.state is State.FAILED
    assert now.reason.startswith("crash_loop: ")
    assert any("RuntimeError: no weights here" in line for line in now.details["failure"]["logs"])
    assert "loading the weights" in logs(world, info)
    failed = [w for w in world.workers(info) if w.state is WorkerState.FAILED]
    assert len(failed) == 3
    assert all("no weights here" in w.reason for w in failed)
    world.teardown(info)


def test_a_worker_that_loads_slowly_is_waited_for(world: Any) -> None:
    info = world.deploy(handler="app.py:SlowLoad")
    job = world.call(info, {})
    assert job.output == "loaded"
    assert job.timing.cold_start >= 0.5
    world.teardown(info)


def test_a_job_whose_worker_dies_is_lost_and_the_next_one_gets_another(world: Any) -> None:
    info = world.deploy(handler="app.py:die")
    job = world.call(info, {})
    assert (job.status, job.lost) == (JobStatus.FAILED, True)
    assert job.error is not None
    assert "SIGKILL" in job.error.message
    assert "about to die" in logs(world, info)
    world.teardown(info)


def test_an_idle_worker_that_is_killed_is_not_missed(world: Any) -> None:
    info = world.deploy()
    pid = world.call(info, {}).output["pid"]
    for _ in range(4):
        os.kill(pid, signal.SIGKILL)
        world.until(lambda pid=pid: not _runs(pid), "dead")
        again = world.call(info, {})  # at once: its death may not even be known
        assert again.status is JobStatus.DONE, again
        assert again.output["pid"] != pid
        pid = again.output["pid"]
    world.teardown(info)


def _runs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_an_idempotent_job_survives_its_worker(world: Any) -> None:
    info = world.deploy(handler="app.py:slow")
    job = world.submit(info, {"s": 1.0, "n": 1}, idempotent=True)
    world.until(lambda: (world.project / "began-1").exists(), "it runs")
    (worker,) = world.ready(info)
    os.kill(worker.pid, signal.SIGKILL)
    done = world.result(info, job.id)
    assert done.status is JobStatus.DONE
    assert done.worker_id != worker.id
    world.teardown(info)


def test_a_job_that_takes_too_long_is_ended_and_the_deployment_serves_on(world: Any) -> None:
    info = world.deploy(handler="app.py:forever")
    job = world.call(info, {}, execution_timeout=0.5)
    assert job.status is JobStatus.FAILED
    assert job.error is not None
    assert job.error.type == "ExecutionTimeout"
    world.until(lambda: (world.project / "ended").exists(), "the handler was ended")
    world.teardown(info)


# -- the supervisor ---------------------------------------------------------------------------------------------------


def test_an_odd_output_is_told_as_it_is_and_one_that_is_too_large_as_the_handlers_failure(world: Any) -> None:
    code = """
def odd(input):
    return {"half": "\\ud800", "kind": input["kind"]} if input["kind"] == "half" else "x" * input["n"]
def many(input):
    for _ in range(input["n"]):
        yield "x" * 1_000_000
"""
    (world.project / "odd.py").write_text(code)
    info = world.deploy(handler="odd.py:odd")
    assert world.call(info, {"kind": "half"}).output == {"half": "\ud800", "kind": "half"}
    assert len(world.call(info, {"kind": "large", "n": 31_000_000}).output) == 31_000_000
    large = world.call(info, {"kind": "large", "n": 32_000_000})
    assert (large.status, large.lost) == (JobStatus.FAILED, False)
    assert large.error is not None
    assert large.error.type == "OutputTooLarge"
    many = world.deploy("many", handler="odd.py:many")
    stream = world.call(many, {"n": 40})
    assert stream.error is not None
    assert stream.error.type == "OutputTooLarge"
    assert len(world.call(many, {"n": 3}).output) == 3, "the same worker serves on"
    world.teardown(info)
    world.teardown(many)


def test_after_kill_9_of_the_supervisor_the_next_one_has_everything_but_what_ran(world: Any) -> None:
    info = world.deploy(handler="app.py:slow", workers=(0, 2))
    done = world.call(info, {"s": 0})
    running = world.submit(info, {"s": 30, "n": 2})
    world.until(lambda: (world.project / "began-2").exists(), "it runs")
    before = world.processes()
    dead = world.kill_supervisor()
    orphans = world.processes()
    assert orphans == before - {dead}
    assert orphans
    now = world.read(info)  # the journal brings the next supervisor up
    assert now.attempt == info.attempt
    assert now.state is State.COLD
    assert not orphans & world.processes()
    lost = world.result(info, running.id)
    assert (lost.status, lost.lost) == (JobStatus.FAILED, True)
    assert lost.error is not None
    assert lost.error.message == "supervisor restarted"
    assert world.result(info, done.id).output == done.output  # a finished job's result is kept
    assert world.call(info, {"s": 0}).status is JobStatus.DONE
    world.teardown(info)


def test_a_call_that_waits_while_the_supervisor_is_killed_gets_an_answer(worlds: Worlds) -> None:
    world, killer = worlds(), worlds()
    info = world.deploy(handler="app.py:slow")
    job = world.submit(info, {"s": 30, "n": 3})
    world.until(lambda: (world.project / "began-3").exists(), "it runs")
    code = f"import os, time; time.sleep(0.5); os.kill({killer.supervisor()['pid']}, 9)"
    child = subprocess.Popen([sys.executable, "-c", code])
    lost = world.result(info, job.id)  # one long poll spans the death
    assert child.wait() == 0
    assert lost.error is not None
    assert lost.error.message == "supervisor restarted"
    world.teardown(info)


@pytest.mark.parametrize("junk", [b"", b"{", b"[]", b'{"protocol": 1}', b"\xff" * 100])
def test_junk_in_supervisor_json_is_as_if_it_were_not_there(junk: bytes, world: Any) -> None:
    world.home.mkdir(parents=True, mode=0o700)
    (world.home / "supervisor.json").write_bytes(junk)
    info = world.deploy()
    world.teardown(info)


def test_another_release_that_runs_there_is_named_and_left_alone(world: Any) -> None:
    info = world.deploy()
    path = world.home / "supervisor.json"
    mine = path.read_text()
    path.write_text(json.dumps({**json.loads(mine), "protocol": 2}))
    with pytest.raises(StateError, match="another release"):
        world.read(info)
    path.write_text(mine)
    world.teardown(info)


def test_after_a_reboot_nothing_is_killed_and_deployments_come_back_cold(world: Any) -> None:
    info = world.deploy(workers=(1, 1))
    world.until(lambda: world.ready(info), "ready")
    for pid in world.processes() - {world.supervisor()["pid"]}:
        os.kill(pid, signal.SIGSTOP)  # so that its end is not recorded before the supervisor's
    pids = world.processes()
    world.kill_supervisor()
    for pid in pids:
        os.kill(pid, signal.SIGKILL) if pid in world.processes() else None
    bystander = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    try:
        # The same number is somebody else's after the boot; even the start time may be the same.
        started = int(Path(f"/proc/{bystander.pid}/stat").read_text().rpartition(")")[2].split()[19])
        journal = world.home / "journal"
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        notes = [line for line in lines if line["kind"] == "worker" and line["record"]]
        assert notes
        for note in notes:
            note["record"] |= {"pid": bystander.pid, "started": started, "boot": "another-boot"}
        journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        (world.home / "supervisor.json").write_text(
            json.dumps({"protocol": 1, "pid": bystander.pid, "port": 1, "token": "old", "boot_id": "another-boot"})
        )
        now = world.read(info)
        assert now.attempt == info.attempt
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
    assert world.call(info, {"a": 1}).output["got"] == {"a": 1}
    world.teardown(info)


def test_workers_never_hold_the_lock(world: Any) -> None:
    info = world.deploy()
    world.call(info, {})
    lock = str(world.home / "lock")
    for pid in world.processes() - {world.supervisor()["pid"]}:
        held = [os.path.realpath(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        assert lock not in held
    world.teardown(info)


def test_the_client_keeps_no_descriptor_and_no_child(world: Any) -> None:
    info = world.deploy()
    world.teardown(info)
    before = set(os.listdir("/proc/self/fd"))
    info = world.deploy()
    kept = {os.path.realpath(f"/proc/self/fd/{n}") for n in os.listdir("/proc/self/fd")}
    assert not any(path.startswith(str(world.home)) for path in kept)
    world.teardown(info)
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 2  # connections of the Io
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    zombies = [c for c in children if Path(f"/proc/{c}/stat").read_text().rpartition(")")[2].split()[0] == "Z"]
    assert zombies == []


# -- a full disk ------------------------------------------------------------------------------------------------------


def _full_at(pid: int, size: int) -> None:
    """No file of that process may grow beyond *size* bytes: writes fail there as on a full disk."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def _sizes(world: Any) -> Iterator[int]:
    size = (world.home / "journal").stat().st_size
    yield from (size, size + 1, size + 100, size + 700)


def test_a_disk_full_at_any_write_is_a_clear_error_and_never_a_half_deployment(world: Any) -> None:
    keep = world.deploy(name="keep")
    pid = world.supervisor()["pid"]
    refused = 0
    for n, size in enumerate(_sizes(world)):
        spec = DeploymentSpec(name=f"new{n}", handler="app.py:echo")
        (part,) = world.driver.resources(spec, world.identity(spec))
        _full_at(pid, size)
        try:
            with pytest.raises(StateError, match="could not record"):
                world.do(part.create_cold(world.io, {}, deadline=world.by()))
            refused += 1
            with pytest.raises(StateError):
                world.do(world.driver.scale(world.io, keep, workers=(0, 7), deadline=world.by()))
            with pytest.raises(StateError):
                world.do(world.driver.parts(keep)[0].delete(world.io, keep.id, deadline=world.by()))
        finally:
            _full_at(pid, resource.RLIM_INFINITY)
        world.until(lambda part=part: not world.do(part.find(world.io, deadline=world.by())), "undone")
        found = world.do(part.create_cold(world.io, {}, deadline=world.by()))  # there is room again
        world.teardown(found.info)
    assert refused == 4
    assert world.read(keep).workers == (0, 1)
    world.kill_supervisor()
    assert [d.name for d in world.do(world.driver.deployments(world.io, deadline=world.by()))] == ["keep"]
    assert world.call(keep, {"a": 1}).output["got"] == {"a": 1}
    world.teardown(keep)


def test_on_a_full_disk_calls_are_still_answered_and_the_supervisor_ends_cleanly(world: Any) -> None:
    info = world.deploy()
    world.call(info, {})  # its worker is there
    pid = world.supervisor()["pid"]
    _full_at(pid, (world.home / "journal").stat().st_size)
    assert world.call(info, {"a": 1}).output["got"] == {"a": 1}
    _full_at(pid, resource.RLIM_INFINITY)
    world.teardown(info)
    assert not world.lives()


def test_a_supervisor_that_cannot_write_its_files_says_so_and_is_gone(world: Any, tmp_path: Path) -> None:
    script = f"""
        import resource, sys
        from unigpu._io.bridge import run_sync
        from unigpu._io.http.client import HttpConfig, SyncHttpIo
        from unigpu.driver import DriverConfig, Identity
        from unigpu.errors import StateError
        from unigpu.models import DeploymentSpec
        from unigpu.providers.local import LocalDriver
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
        io = SyncHttpIo(HttpConfig())
        driver = LocalDriver(DriverConfig(state_dir={str(world.state)!r}))
        spec = DeploymentSpec(name="hello", handler="app.py:echo")
        identity = Identity(name="hello", namespace="default", attempt="a", spec_hash="1:0")
        try:
            run_sync(driver.resources(spec, identity)[0].create_cold(io, {{}}, deadline=io.now() + 20))
        except StateError as error:
            print("told:", error)
        io.close()
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}  # it writes, too
    for room in (0, 10):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(script), str(room)],
            capture_output=True, text=True, cwd=world.project, timeout=60, check=False, env=plain,
        )  # fmt: skip
        assert done.stderr == ""
        assert done.stdout.startswith("told: the local provider's state directory cannot be written")
        assert not world.lives()
        assert not (world.home / "supervisor.json").exists()
    info = world.deploy()  # with room again, what is left there is no obstacle
    world.teardown(info)


def test_a_state_directory_that_cannot_be_made_is_a_state_error(worlds: Worlds, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file is in the way")
    world = worlds()
    with pytest.raises(StateError):
        world.deploy()
    (tmp_path / "state").unlink()


# -- races ------------------------------------------------------------------------------------------------------------

_RACER = """
    import json, random, sys, time, uuid
    from unigpu._io.bridge import run_sync
    from unigpu._io.http.client import HttpConfig, SyncHttpIo
    from unigpu._io.resilience.retry import RetryingIo
    from unigpu.driver import DriverConfig, Identity, Invocation
    from unigpu.models import DeploymentSpec
    from unigpu.providers.local import LocalDriver
    me, rounds, state, pause = sys.argv[1], int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    http = SyncHttpIo(HttpConfig())
    io = RetryingIo(http)
    driver = LocalDriver(DriverConfig(state_dir=state))
    rng = random.Random(int(me))
    spec = DeploymentSpec(name="n" + me, handler="app.py:echo")
    failed, lost, called = [], 0, 0
    for k in range(rounds):
        try:
            identity = Identity(name=spec.name, namespace="default", attempt=uuid.uuid4().hex, spec_hash="1:0")
            (part,) = driver.resources(spec, identity)
            found = run_sync(part.create_cold(io, {}, deadline=io.now() + 60))
            seen = run_sync(driver.read(io, found.info, deadline=io.now() + 60))
            lost += seen is None or seen.attempt != identity.attempt
            if k % 10 == 3:
                call = Invocation(input={"k": k}, job_id=uuid.uuid4().hex, deadline=io.now() + 60,
                                  start_deadline=io.now() + 60, execution_timeout=30)
                job = run_sync(driver.submit(io, found.info, call))
                while not job.status.is_terminal:
                    job = run_sync(driver.status(io, found.info, job.id, wait=10, deadline=io.now() + 60))
                called += job.output["got"] == {"k": k}
            time.sleep(rng.random() * pause)
            run_sync(part.delete(io, found.id, deadline=io.now() + 60))
            while run_sync(part.read(io, found.id, deadline=io.now() + 60)) is not None:
                time.sleep(0.01)
            time.sleep(rng.random() * pause * 3)
        except Exception as error:
            failed.append(repr(error))
    http.close()
    print(json.dumps([failed, lost, called]))
"""


@pytest.mark.kill
@pytest.mark.parametrize(
    ("rounds", "pause"),
    [
        (5, 0.0),
        pytest.param(25, 0.0, marks=pytest.mark.full),
        pytest.param(25, 0.05, marks=pytest.mark.full),
    ],
)
def test_four_processes_race_and_nothing_is_lost_or_left(rounds: int, pause: float, world: Any) -> None:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(_RACER)]
    racers = [
        subprocess.Popen(
            [*command, str(n), str(rounds), str(world.state), str(pause)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=world.project,
        )
        for n in range(4)
    ]  # fmt: skip
    said = [racer.communicate(timeout=240) for racer in racers]
    assert [err for _, err in said] == [""] * 4
    outs = [json.loads(out) for out, _ in said]
    assert [failed for failed, _, _ in outs] == [[]] * 4
    assert sum(lost for _, lost, _ in outs) == 0
    assert sum(called for _, _, called in outs) == 4 * len(range(3, rounds, 10))
    assert not world.lives()
    world.until(lambda: not world.processes(), "no process is left")
    assert not (world.home / "supervisor.json").exists()
    assert not (world.home / "journal").exists()
    endings = (world.home / "supervisor.log").read_text().count("ending: nothing is deployed")
    print(f"{4 * rounds} rounds, 0 failed, 0 lost, {endings} supervisors that ended")


def test_a_server_that_is_configured_by_its_address_is_used_and_nothing_is_started(
    worlds: Worlds, project: Path
) -> None:
    served = subprocess.Popen(
        [sys.executable, "-m", "unigpu", "emulator", "serve", "local"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert served.stdout is not None
        told = json.loads(served.stdout.readline())
        world = worlds(base_url=told["base_urls"]["local"], token=told["key"])
        info = world.deploy()
        assert world.call(info, {"a": 1}).output["got"] == {"a": 1}
        world.teardown(info)
        assert not world.home.exists()
        wrong = worlds(base_url=told["base_urls"]["local"], token="wrong")
        with pytest.raises(UniGPUError, match="401"):
            wrong.read(info)
    finally:
        served.terminate()
        assert served.wait(timeout=30) == 0
        served.stdout.close()  # type: ignore[union-attr]  # it is a pipe
    with pytest.raises(TransportError):
        world.read(info)


@pytest.mark.kill
@pytest.mark.parametrize("kills", [6, pytest.param(40, marks=pytest.mark.full)])
def test_the_supervisor_is_killed_at_random_moments_and_every_answer_is_true(kills: int, world: Any) -> None:
    rng = random.Random(11)
    stop = threading.Event()
    killed: list[int] = []

    def killer() -> None:
        while len(killed) < kills:
            if stop.wait(rng.random() * 1.5):
                return
            with contextlib.suppress(OSError, ValueError, KeyError):
                pid = world.supervisor()["pid"]
                if world.lives():
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)

    thread = threading.Thread(target=killer)
    thread.start()
    rounds = done = 0
    try:
        while thread.is_alive():
            rounds += 1
            spec = DeploymentSpec(name="hello", handler="app.py:echo")
            identity = world.identity(spec)
            (part,) = world.driver.resources(spec, identity)
            found = world.do(part.create_cold(world.io, {}, deadline=world.by()))
            assert found.attempt == identity.attempt  # it is ours, however often it was sent
            job = world.call(found.info, {"n": rounds})
            if job.status is JobStatus.DONE:
                assert job.output["got"] == {"n": rounds}
                done += 1
            else:
                assert job.error is not None
                assert job.error.message == "supervisor restarted"
            world.teardown(found.info)
            assert world.do(part.find(world.io, deadline=world.by())) == ()
    finally:
        stop.set()
        thread.join()
    world.until(lambda: not world.lives(), "the last DELETE ended the last one")
    world.until(lambda: not world.processes(), "no process is left")
    print(f"{rounds} rounds, {len(killed)} kills, {done} calls answered, 0 lost, 0 left")


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("kill -9 $$", "ConfigurationError", "it gave no reason"),
        ("echo ignored; echo the reason; exit 1", "ConfigurationError", "cannot start: the reason"),
        ("echo No space left on device; exit 3", "StateError", "cannot be written: No space left"),
    ],
)
def test_a_supervisor_that_never_comes_up_is_an_error_with_its_reason(
    script: str, error: str, words: str, world: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(UniGPUError, match=words) as caught:
        world.deploy()
    assert type(caught.value).__name__ == error
    assert not world.lives()
