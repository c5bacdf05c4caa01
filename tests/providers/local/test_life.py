"""Deploy, call, scale, stop, start, wake, tear down: the local provider's verbs on real processes."""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from unigpu.driver import (
    Cancels,
    JobStatus,
    Pauses,
    Scaling,
    State,
    StreamsJobs,
    Updates,
    Wakes,
    WorkerState,
)
from unigpu.errors import ConfigurationError, ConflictError, DeploymentGone, JobExpired, StateError
from unigpu.models import DeploymentSpec

pytestmark = pytest.mark.processes
Worlds = Callable[..., Any]


def test_a_deployment_lives_from_nothing_to_nothing(world: Any) -> None:
    assert world.do(world.driver.deployments(world.io, deadline=world.by())) == ()
    assert not world.home.exists()  # looking starts nothing, and leaves nothing
    info = world.deploy(workers=(0, 1))
    job = world.call(info, {"a": 1})
    assert job.status is JobStatus.DONE
    assert job.output["got"] == {"a": 1}
    assert job.timing.cold_start is not None
    assert job.timing.cold_start > 0
    second = world.call(info, {"a": 2})
    assert second.timing.cold_start == 0.0
    assert second.output["pid"] == job.output["pid"]
    listed = world.do(world.driver.deployments(world.io, deadline=world.by()))
    assert [one.name for one in listed] == ["hello"]
    world.teardown(info)
    assert not world.lives()  # teardown waited for the supervisor's end
    world.until(lambda: not world.processes(), "no process is left")
    assert not (world.home / "supervisor.json").exists()
    assert not (world.home / "journal").exists()
    assert world.do(world.driver.deployments(world.io, deadline=world.by())) == ()
    assert world.read(info) is None
    assert not world.lives()


def test_the_driver_has_every_protocol_it_should(world: Any) -> None:
    for protocol in (Cancels, StreamsJobs, Updates, Wakes, Pauses):
        assert isinstance(world.driver, protocol)


def test_another_client_uses_it_by_name_and_the_last_one_ends_it(worlds: Worlds) -> None:
    one, other = worlds(), worlds()
    info = one.deploy()
    (seen,) = other.do(other.driver.deployments(other.io, deadline=other.by()))
    assert (seen.name, seen.spec_hash, seen.attempt) == ("hello", info.spec_hash, info.attempt)
    assert other.call(seen, {"x": 1}).output["got"] == {"x": 1}
    second = other.deploy(name="second")
    one.teardown(info)
    assert one.lives()
    other.teardown(second)
    assert not one.lives()


def test_two_creates_of_one_name_make_one_and_a_repeated_one_is_recognised(world: Any) -> None:
    spec = DeploymentSpec(name="hello", handler="app.py:echo")
    identity = world.identity(spec)
    (resource,) = world.driver.resources(spec, identity)
    first = world.do(resource.create_cold(world.io, {}, deadline=world.by()))
    again = world.do(resource.create_cold(world.io, {}, deadline=world.by()))  # its answer had been lost
    assert (again.id, again.attempt) == (first.id, first.attempt)
    (stranger,) = world.driver.resources(spec, world.identity(spec))
    with pytest.raises(ConflictError):
        world.do(stranger.create_cold(world.io, {}, deadline=world.by()))
    assert len(world.do(resource.find(world.io, deadline=world.by()))) == 1
    world.teardown(first.info)


def test_it_scales_to_zero_when_idle_and_back_on_a_call_which_is_held(world: Any) -> None:
    info = world.deploy(workers=(0, 1), idle_timeout=0.2)
    first = world.call(info, {}).output["pid"]
    world.until(lambda: world.read(info).state is State.COLD, "cold again")
    world.until(lambda: not world.ready(info), "no worker")
    second = world.call(info, {})
    assert second.status is JobStatus.DONE
    assert second.output["pid"] != first
    world.teardown(info)


def test_never_fewer_than_the_least_nor_more_than_the_most(world: Any) -> None:
    info = world.deploy(handler="app.py:gate", workers=(1, 2), idle_timeout=0.3)
    world.until(lambda: len(world.ready(info)) == 1, "the least is there without a call")
    jobs = [world.submit(info, {"n": n}) for n in range(6)]
    world.until(lambda: len(list(world.project.glob("began-*"))) == 2, "two workers are busy")
    (world.project / "go").touch()
    most = 0
    while not all(
        world.do(world.driver.status(world.io, info, job.id, deadline=world.by())).status.is_terminal for job in jobs
    ):
        most = max(most, len([w for w in world.workers(info) if w.state is not WorkerState.EXITED]))
    assert most <= 2
    assert len({world.result(info, job.id).output for job in jobs}) == 2
    world.until(lambda: len(world.ready(info)) == 1, "back to the least")
    world.do(world.driver.scale(world.io, info, workers=(0, 4), idle_timeout=0.1, deadline=world.by()))
    world.until(lambda: not world.ready(info), "to zero")
    now = world.read(info)
    assert (now.workers, now.idle_timeout) == ((0, 4), 0.1)
    scaling = Scaling(signal="requests", target=2)
    world.do(world.driver.scale(world.io, info, scaling=scaling, deadline=world.by()))
    assert world.read(info).details["scaling"] == scaling.model_dump()
    world.teardown(info)


def test_stop_start_and_wake(world: Any) -> None:
    info = world.deploy(workers=(1, 1))
    world.until(lambda: world.ready(info), "ready")
    do, by = world.do, world.by
    for _ in range(2):  # already so is success
        do(world.driver.stop(world.io, info, deadline=by()))
    stopped = world.read(info)
    assert (stopped.state, stopped.bills) == (State.STOPPED, "nothing")
    world.until(lambda: not world.ready(info), "no worker while stopped")
    for _ in range(2):
        do(world.driver.start(world.io, info, deadline=by()))
    world.until(lambda: world.ready(info), "ready again")
    do(world.driver.scale(world.io, info, workers=(0, 1), idle_timeout=60, deadline=by()))
    do(world.driver.stop(world.io, info, deadline=by()))
    do(world.driver.wake(world.io, info, deadline=by()))  # wakes a stopped one too
    world.until(lambda: world.read(info).state is State.READY, "woken")
    world.teardown(info)


def test_a_pod_is_one_worker_that_stays(world: Any) -> None:
    info = world.deploy(kind="pod", idle_timeout=0.1)
    world.until(lambda: len(world.ready(info)) == 1, "its worker")
    pid = world.call(info, {}).output["pid"]
    time.sleep(0.4)  # several idle timeouts
    assert world.call(info, {}).output["pid"] == pid
    world.teardown(info)


def test_a_stream_is_read_by_a_cursor_and_its_result_is_the_list(world: Any) -> None:
    info = world.deploy(handler="app.py:count")
    job = world.submit(info, {"n": 5, "pause": 0.05})
    seen: list[Any] = []
    after, pages, end = 0, 0, False
    while not end:
        page = world.do(world.driver.chunks(world.io, info, job.id, after=after, wait=10, deadline=world.by()))
        seen += page.chunks
        pages += bool(page.chunks)
        after, end = page.after, page.end
    assert seen == [{"i": i} for i in range(5)] == world.result(info, job.id).output
    assert pages > 1  # they came while it ran
    again = world.do(world.driver.chunks(world.io, info, job.id, after=3, wait=0, deadline=world.by()))
    assert again.chunks == ({"i": 3}, {"i": 4})  # a page is read, not drained
    world.teardown(info)


def test_cancel_ends_what_waits_and_what_runs(world: Any) -> None:
    info = world.deploy(handler="app.py:forever", workers=(0, 1))
    running = world.submit(info, {})
    world.until(lambda: (world.project / "began").exists(), "running")
    waiting = world.submit(info, {})
    for job in (waiting, running):
        gone = world.do(world.driver.cancel(world.io, info, job.id, deadline=world.by()))
        assert gone.status is JobStatus.CANCELLED
    world.until(lambda: (world.project / "ended").exists(), "the handler was told")
    world.teardown(info)


def test_a_submit_that_is_repeated_is_one_job_and_an_unknown_one_is_expired(world: Any) -> None:
    info = world.deploy()
    job = world.submit(info, {"a": 1}, job_id="mine")
    assert world.submit(info, {"a": 1}, job_id="mine").id == job.id
    with pytest.raises(ConflictError):
        world.submit(info, {"a": 2}, job_id="mine")
    with pytest.raises(JobExpired):
        world.do(world.driver.status(world.io, info, "never", deadline=world.by()))
    world.teardown(info)
    with pytest.raises(DeploymentGone):
        world.submit(info, {"a": 1})
    assert not world.lives()  # a call to what is gone starts nothing


def test_edited_code_is_served_after_an_update_and_what_runs_may_finish(world: Any) -> None:
    info = world.deploy(handler="app.py:slow", workers=(0, 1))
    old = world.submit(info, {"s": 0.5, "n": 1})
    world.until(lambda: (world.project / "began-1").exists(), "the old code runs")
    before = world.read(info)
    code = (world.project / "app.py").read_text()
    (world.project / "app.py").write_text(code.replace("return os.getpid()", 'return "new"'))
    spec = DeploymentSpec(name="hello", handler="app.py:slow")
    identity = world.identity(spec, attempt=before.attempt)
    assert identity.spec_hash != before.spec_hash
    assert world.driver.updatable(frozenset({"code"}))
    world.do(world.driver.update(world.io, before, spec, identity, deadline=world.by()))
    assert isinstance(world.result(info, old.id).output, int)
    assert world.call(info, {"s": 0}).output == "new"
    now = world.read(info)
    assert (now.attempt, now.spec_hash, now.workers) == (before.attempt, identity.spec_hash, (0, 1))
    stale = before.model_copy(update={"attempt": "another"})
    with pytest.raises(ConflictError):
        world.do(world.driver.update(world.io, stale, spec, identity, deadline=world.by()))
    world.teardown(info)


def test_logs_are_told_in_order_followed_and_kept_after_the_worker(world: Any) -> None:
    info = world.deploy(workers=(0, 1), idle_timeout=0.2)
    for n in range(3):
        world.call(info, {"n": n})
    world.until(lambda: not world.ready(info), "the worker is gone")

    async def lines(**how: Any) -> list[str]:
        return [line.text async for line in world.driver.logs(world.io, info, **how)]

    said = [t for t in world.do(lines(worker=None, follow=False, tail=100)) if t.startswith("said")]
    assert said == ["said {'n': 0}", "said {'n': 1}", "said {'n': 2}"]
    assert len(world.do(lines(worker=None, follow=False, tail=2))) == 2

    async def follow() -> list[str]:
        seen: list[str] = []
        async for line in world.driver.logs(world.io, info, worker=None, follow=True, tail=1):
            seen.append(line.text)
            if len(seen) == 1:
                world.submit(info, {"n": "later"})
            if line.text == "said {'n': 'later'}":
                break
        return seen

    assert world.do(follow())[-1] == "said {'n': 'later'}"
    world.teardown(info)


def test_a_deployment_ends_at_its_ttl_and_so_does_the_supervisor_when_nothing_is_left(world: Any) -> None:
    spec = DeploymentSpec(name="hello", handler="app.py:echo", workers=(1, 1))
    end = time.time() + 3.0  # long enough to start a supervisor on a busy machine
    (resource,) = world.driver.resources(spec, world.identity(spec, expires_at=end))
    found = world.do(resource.create_cold(world.io, {}, deadline=world.by()))
    assert found.expires_at == pytest.approx(end)
    world.until(lambda: world.read(found.info) is None, "ended at its ttl")


def test_the_supervisor_ends_after_idle_exit_and_deployments_come_back_cold(worlds: Worlds) -> None:
    world = worlds(idle_exit=0.3)
    info = world.deploy(workers=(1, 1))
    world.until(lambda: not world.lives(), "idle exit, warm worker included")
    world.until(lambda: not world.processes(), "no process is left")
    assert (world.home / "journal").exists()
    again = world.read(info)  # a look at what the journal holds starts it again
    assert again is not None
    assert again.attempt == info.attempt
    assert world.call(info, {"a": 1}).output["got"] == {"a": 1}
    world.teardown(info)


def test_a_running_job_keeps_the_supervisor_from_its_idle_exit(worlds: Worlds) -> None:
    world = worlds(idle_exit=0.2)
    info = world.deploy(handler="app.py:slow")
    job = world.submit(info, {"s": 1.2})
    pid = world.supervisor()["pid"]
    time.sleep(1.0)  # several idle exits
    assert world.lives()
    assert world.supervisor()["pid"] == pid
    assert world.result(info, job.id).status is JobStatus.DONE
    world.teardown(info)


def test_secrets_and_the_token_are_in_no_file_no_log_and_no_reply(world: Any, monkeypatch: Any) -> None:
    canary, door = "canary-" + "s" * 24, "canary-" + "t" * 24
    monkeypatch.setenv("DOOR_TOKEN", door)
    monkeypatch.setenv("SOME_API_KEY", "canary-" + "k" * 24)
    info = world.deploy(
        handler="app.py:env", secrets={"MODEL_KEY": SecretStr(canary)}, auth={"env": "DOOR_TOKEN"}, env={"PLAIN": "1"}
    )
    token = world.supervisor()["token"]
    seen = world.call(info, {}).output
    assert (seen["MODEL_KEY"], seen["DOOR_TOKEN"], seen["PLAIN"]) == (canary, door, "1")
    assert "SOME_API_KEY" not in seen
    assert token not in json.dumps(seen)  # the supervisor's own token is not the worker's
    told = world.read(info)
    assert told.details["spec"]["secrets"] == ["MODEL_KEY"]
    assert "canary" not in json.dumps(told.model_dump(mode="json"))
    for pid in world.processes():
        words = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert token.encode() not in words
    for file in [f for f in world.home.rglob("*") if f.is_file()]:
        data = file.read_bytes()
        if file.name != "journal":  # a job's own output is its user's business
            assert b"canary" not in data, file
        assert (token.encode() in data) == (file.name == "supervisor.json"), file
    world.teardown(info)


def test_secrets_are_not_in_the_journal_and_are_sent_again_after_a_crash(world: Any) -> None:
    canary = "canary-" + "s" * 24
    (world.project / "keyed.py").write_text("import os\ndef has(input):\n    return len(os.environ['MODEL_KEY'])\n")
    fields: dict[str, Any] = {"name": "keyed", "handler": "keyed.py:has", "secrets": {"MODEL_KEY": SecretStr(canary)}}
    info = world.deploy(**fields)
    assert world.call(info, {}).output == len(canary)
    assert canary.encode() not in (world.home / "journal").read_bytes()
    world.kill_supervisor()
    cold = world.read(info)
    assert cold.state is State.COLD
    assert cold.reason == "its secrets (MODEL_KEY) were lost with the supervisor; deploy it again"
    refused = world.call(info, {})
    assert refused.error is not None
    assert "deploy it again" in refused.error.message
    spec = DeploymentSpec(**fields)
    (resource,) = world.driver.resources(spec, world.identity(spec))
    (found,) = world.do(resource.find(world.io, deadline=world.by()))
    from unigpu._lifecycle.identity import differing

    new = world.identity(spec, attempt=found.attempt)
    assert differing(found.spec_hash, new.spec_hash, frozenset({"handler", "secrets", "code"})) == ("code",)
    world.do(world.driver.update(world.io, found.info, spec, new, deadline=world.by()))  # what a deploy then does
    assert world.call(info, {}).output == len(canary)
    (after,) = world.do(resource.find(world.io, deadline=world.by()))
    assert after.spec_hash == new.spec_hash
    world.teardown(info)


def test_files_are_for_their_owner_only(world: Any) -> None:
    old = os.umask(0)
    try:
        info = world.deploy(volumes=[{"name": "data", "size_gb": 1}], env={"WHERE": "${volume.data}"})
        world.call(info, {})
    finally:
        os.umask(old)
    assert stat.S_IMODE(world.home.stat().st_mode) == 0o700
    for path in world.home.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    world.teardown(info)
    world.home.chmod(0o777)
    with pytest.raises(StateError, match="others may write"):
        world.deploy()


def test_a_volume_is_a_folder_that_outlives_deployment_and_supervisor(world: Any) -> None:
    code = (
        "import os\n"
        "def put(input):\n"
        "    path = os.path.join(os.environ['WHERE'], 'f')\n"
        "    old = os.path.exists(path)\n"
        "    open(path, 'w').close()\n"
        "    return old\n"
    )
    (world.project / "vol.py").write_text(code)
    fields: dict[str, Any] = {
        "name": "vol", "handler": "vol.py:put", "volumes": [{"name": "data", "size_gb": 1}],
        "env": {"WHERE": "${volume.data}/."},
    }  # fmt: skip
    for expected in (False, True):
        info = world.deploy(**fields)
        assert world.call(info, {}).output is expected
        world.teardown(info)


def test_a_command_that_listens_on_its_port_is_an_http_deployment(world: Any) -> None:
    code = (
        "import http.server as h, os\n"
        "h.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), h.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    info = world.deploy(name="files", handler=None, interface="http", command=[sys.executable, "-c", code])
    world.do(world.driver.wake(world.io, info, deadline=world.by()))
    world.until(lambda: world.read(info).state is State.READY, "it listens")
    world.teardown(info)


def test_a_handler_beside_a_script_is_found_by_the_worker_too(world: Any, monkeypatch: Any) -> None:
    elsewhere = world.project / "scripts"
    elsewhere.mkdir()
    (elsewhere / "deep_handler.py").write_text("import helper_beside\ndef f(input):\n    return helper_beside.X\n")
    (elsewhere / "helper_beside.py").write_text("X = 42\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    info = world.deploy(name="deep", handler="deep_handler:f")
    assert info.origin == str(elsewhere)
    assert world.call(info, {}).output == 42
    world.teardown(info)


def test_nothing_starts_for_a_handler_that_is_not_there(world: Any) -> None:
    for target, words in (("app.py:ecko", "did you mean 'echo'"), ("ap.py:echo", "app.py"), ("nowhere:f", "no module")):
        with pytest.raises(ConfigurationError, match=words):
            world.deploy(handler=target)
    assert not world.home.exists()


def test_a_client_without_a_state_directory_says_so(project: Path) -> None:
    from unigpu._io.bridge import run_sync
    from unigpu._io.http.client import HttpConfig, SyncHttpIo
    from unigpu.driver import DriverConfig
    from unigpu.providers.local import LocalDriver

    io = SyncHttpIo(HttpConfig())
    driver = LocalDriver(DriverConfig(state_dir=None))
    with pytest.raises(StateError, match="state directory"):
        run_sync(driver.deployments(io, deadline=io.now() + 5))
    with pytest.raises(ConfigurationError, match="base_url"):
        LocalDriver(DriverConfig(state_dir=None, options={"token": "x"}))
    for bad in ("ftp://x", "http://a:b@c", "http://c/?q=1"):
        with pytest.raises(ConfigurationError):
            LocalDriver(DriverConfig(state_dir=None, options={"base_url": bad}))
    io.close()
