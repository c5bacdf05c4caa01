"""Real processes: started, ready, given work, explained when they end, and gone without a trace."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from unigpu.emulator.contract import Chunk, JobDone, WorkerExited, WorkerLog, WorkerReady, WorkerStarted

pytestmark = pytest.mark.processes
Run = Callable[..., Any]

HANDLERS = """
import asyncio, os, sys, time
def echo(input):
    print("said", flush=True)
    return input
def env(input):
    return dict(os.environ)
def count(input):
    for i in range(input["n"]):
        yield {"i": i}
def boom(input):
    raise ValueError("not like this")
def die(input):
    os.kill(os.getpid(), 9)
async def forever(input):
    open("began", "w").close()
    try:
        await asyncio.sleep(1000)
    finally:
        open("ended", "w").close()
class Loads:
    def __init__(self):
        raise RuntimeError("no weights here")
    def __call__(self, input):
        return 1
"""


def handler(rig: Any, name: str, **launch: Any) -> None:
    rig.write("app.py", HANDLERS)
    rig.start(handler=f"app.py:{name}", **launch)


def test_a_worker_becomes_ready_answers_and_its_lines_are_told(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "echo")
        ready = await rig.first(WorkerReady)
        assert ready.pid == (await rig.first(WorkerStarted)).pid
        assert ready.address == f"127.0.0.1:{rig.backend.address('w1')[1]}"
        rig.push("j1", {"a": 1})
        done = await rig.first(JobDone)
        assert (done.output, done.error, done.lost) == ({"a": 1}, None, False)
        assert done.execution_s is not None
        assert (await rig.first(WorkerLog, lambda e: e.text == "said")).stream == "stdout"
        rig.stop()
        gone = await rig.first(WorkerExited)
        assert gone.code == 0
        assert gone.cause is None
        assert rig.notes == {"w1": None}  # it was recorded while it lived

    run(scenario)


def test_a_stream_gives_its_chunks_and_the_output_it_would_have_had_without(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "count")
        await rig.first(WorkerReady)
        rig.push("j1", {"n": 3}, stream=True)
        done = await rig.first(JobDone)
        assert [c.value for c in rig.all(Chunk)] == [{"i": 0}, {"i": 1}, {"i": 2}] == done.output
        rig.push("j2", {"n": 3})
        assert (await rig.first(JobDone, lambda e: e.job_id == "j2")).output == done.output

    run(scenario)


def test_one_returned_value_is_the_same_streamed_or_not(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "echo")
        await rig.first(WorkerReady)
        for job, stream in (("j1", True), ("j2", False)):
            rig.push(job, {"list": [1]}, stream=stream)
            done = await rig.first(JobDone, lambda e, job=job: e.job_id == job)
            assert done.output == {"list": [1]}

    run(scenario)


def test_a_handlers_error_is_data_and_the_worker_lives_on(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "boom")
        await rig.first(WorkerReady)
        for job, stream in (("j1", False), ("j2", True)):
            rig.push(job, {}, stream=stream)
            done = await rig.first(JobDone, lambda e, job=job: e.job_id == job)
            assert done.error is not None
            assert (done.error["type"], done.error["message"], done.lost) == ("ValueError", "not like this", False)
        assert rig.all(WorkerExited) == []

    run(scenario)


def test_a_worker_sees_what_was_declared_and_a_handful_of_ours_and_nothing_else(run: Run) -> None:
    secret = "canary-" + "x" * 20

    async def scenario(rig: Any) -> None:
        handler(rig, "env", env={"DECLARED": "yes", "UNIGPU_NAME": "hello"})
        await rig.first(WorkerReady)
        rig.push("j1", {})
        env = (await rig.first(JobDone)).output
        assert env["DECLARED"] == "yes"
        assert env["UNIGPU_NAME"] == "hello"
        assert env["PORT"] == env["UNIGPU_PORT"]
        assert env["UNIGPU_HOST"] == "127.0.0.1"
        assert env["UNIGPU_LOCAL"] == "tag"
        assert secret not in json.dumps(env)
        allowed = {
            "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX",
            "PYTHONUNBUFFERED", "DECLARED", "PORT",
        }  # fmt: skip
        assert {name for name in env if not name.startswith(("UNIGPU_", "COVERAGE_"))} <= allowed
        pid = rig.all(WorkerStarted)[0].pid
        assert os.readlink(f"/proc/{pid}/fd/0") == os.devnull

    own = {**os.environ, "MY_API_KEY": secret, "UNIGPU_TOKEN": secret, "PYTHONPATH": secret}
    run(scenario, environ=own, tag="tag")


def test_a_worker_takes_no_call_from_a_stranger_on_this_machine(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "echo")
        await rig.first(WorkerReady)
        host, port = rig.backend.address("w1")
        async with httpx.AsyncClient(trust_env=False) as http:
            url = f"http://{host}:{port}"
            assert (await http.post(url + "/invoke", json={"input": {}})).status_code == 401
            assert (await http.post(url + "/", content=b'{"a": 1}')).status_code == 401
        assert not any(e.text == "said" for e in rig.all(WorkerLog))
        rig.push("j1", {"a": 1})
        assert (await rig.first(JobDone)).output == {"a": 1}

    run(scenario)


def test_a_worker_inherits_no_open_file_of_ours(run: Run, tmp_path: Path) -> None:
    async def scenario(rig: Any) -> None:
        fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
        os.set_inheritable(fd, True)  # the worst case: even then
        try:
            handler(rig, "echo")
            pid = (await rig.first(WorkerReady)).pid
            held = {os.path.realpath(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")}
            assert str(tmp_path / "lock") not in held
        finally:
            os.close(fd)

    run(scenario)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import sys; print('the reason', file=sys.stderr); sys.exit(7)", "exited with code 7: the reason"),
        ("import os; print('bye', flush=True); os.kill(os.getpid(), 9)", "killed by SIGKILL: bye"),
        ("import os; os.abort()", "killed by SIGABRT"),
        ("pass", "exited with code 0"),
    ],
)
def test_an_end_is_told_in_words(code: str, words: str, run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.script(code)
        gone = await rig.first(WorkerExited)
        assert gone.reason == words
        assert rig.all(WorkerReady) == []

    run(scenario)


def test_a_handler_that_cannot_be_loaded_ends_with_its_cause(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "Loads")
        gone = await rig.first(WorkerExited)
        assert gone.code == 3
        assert gone.reason is not None
        assert "no weights here" in gone.reason
        assert any("Traceback" in e.text for e in rig.all(WorkerLog))

    run(scenario)


@pytest.mark.parametrize("words", ["MemoryError", "torch.cuda.OutOfMemoryError: CUDA out of memory"])
def test_want_of_memory_is_told_where_it_can_be_told(words: str, run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.script(f"import sys; print({words!r}, file=sys.stderr); sys.exit(1)")
        gone = await rig.first(WorkerExited)
        assert gone.cause == "out_of_memory"
        assert gone.reason is not None
        assert "out of memory" in gone.reason

    run(scenario)


@pytest.mark.parametrize(
    "launch",
    [
        {"argv": ("/no/such/program",)},
        {"argv": ("true",), "cwd": "/no/such/folder"},
        {"argv": ()},
        {"handler": "app.py:f", "python": "/no/such/python"},
    ],
)
def test_what_cannot_be_started_is_an_exit_with_a_reason_not_an_exception(launch: dict[str, Any], run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.start(**launch)
        gone = await rig.first(WorkerExited)
        assert gone.reason
        assert rig.all(WorkerStarted) == []

    run(scenario)


def test_a_process_that_could_not_be_recorded_is_not_left_running(run: Run, tools: Any) -> None:
    async def scenario(rig: Any) -> None:
        rig.note_error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rig.script("import time; time.sleep(1000)")
        gone = await rig.first(WorkerExited)
        assert gone.reason is not None
        assert "No space left" in gone.reason
        rig.note_error = None

    run(scenario)


def test_a_command_is_ready_when_it_listens_on_its_port(run: Run) -> None:
    code = (
        "import http.server, os\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        body = self.rfile.read(int(self.headers['content-length']))\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b'[' + body + b']')\n"
        "    def log_message(self, *a): pass\n"
        "http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), H).serve_forever()\n"
    )

    async def scenario(rig: Any) -> None:
        rig.script(code, env={"UNIGPU_ROUTE": "/predict"})
        await rig.first(WorkerReady)
        rig.push("j1", {"x": 1})  # a server that is not ours gets the bare input, and its reply is the output
        assert (await rig.first(JobDone)).output == [{"x": 1}]

    run(scenario)


def test_a_worker_that_never_listens_is_ended_at_the_start_limit(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.script("import time; time.sleep(1000)")
        gone = await rig.first(WorkerExited)
        assert gone.cause == "probe"
        assert gone.reason == "it was not ready within 0.2 s"

    run(scenario, start_limit=0.2)


def test_a_worker_that_dies_in_a_job_tells_why_before_anything_else_is_said_of_the_job(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "die")
        await rig.first(WorkerReady)
        rig.push("j1", {})
        gone = await rig.first(WorkerExited)
        assert gone.reason is not None
        assert gone.reason == "killed by SIGKILL", "not with a line of ours that explains nothing"
        assert rig.all(JobDone) == []  # the engine fails its jobs with the exit's own reason

    run(scenario)


def test_cancelling_closes_the_connection_and_the_handler_ends(run: Run, tmp_path: Path) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "forever")
        await rig.first(WorkerReady)
        rig.push("j1", {})
        await _file(tmp_path / "began")
        rig.cancel("j1")
        done = await rig.first(JobDone)
        assert done.error is not None
        assert done.error["type"] == "Cancelled"
        await _file(tmp_path / "ended")
        assert rig.all(WorkerExited) == []

    run(scenario)


def test_a_busy_worker_says_so_and_the_job_is_not_lost(run: Run, tmp_path: Path) -> None:
    async def scenario(rig: Any) -> None:
        handler(rig, "forever")
        await rig.first(WorkerReady)
        rig.push("j1", {})
        await _file(tmp_path / "began")
        rig.push("j2", {})
        done = await rig.first(JobDone)
        assert (done.job_id, done.busy, done.lost) == ("j2", True, False)

    run(scenario)


@pytest.mark.parametrize("how", ["stop", "crash"])
def test_everything_a_worker_started_ends_with_it(how: str, run: Run, tools: Any) -> None:
    # The grandchild ignores SIGTERM, and stays in the group when its parent dies.
    code = (
        "import subprocess, sys, time, os\n"
        "c = subprocess.Popen([sys.executable, '-c', 'import signal, time; "
        'signal.signal(signal.SIGTERM, signal.SIG_IGN); print(\\"deaf\\", flush=True); time.sleep(1000)\'])\n'
        "print('child', c.pid, flush=True)\n"
        "time.sleep(1000)\n"
    )

    async def scenario(rig: Any) -> None:
        rig.script(code)
        line = await rig.first(WorkerLog, lambda e: e.text.startswith("child"))
        await rig.first(WorkerLog, lambda e: e.text == "deaf")
        grandchild = int(line.text.split()[1])
        if how == "stop":
            rig.stop(grace=0.3)
        else:
            os.kill(rig.all(WorkerStarted)[0].pid, signal.SIGKILL)
        await rig.first(WorkerExited)
        async with tools.patience():
            while tools.alive(grandchild):
                await asyncio.sleep(0.01)

    run(scenario)


def test_a_worker_that_ignores_sigterm_is_killed_after_its_grace(run: Run) -> None:
    code = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, lambda *a: print('no', flush=True))\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)\n"
    )

    async def scenario(rig: Any) -> None:
        rig.script(code)
        await rig.first(WorkerLog, lambda e: e.text == "up")
        began = time.monotonic()
        rig.stop(grace=0.3)
        gone = await rig.first(WorkerExited)
        assert gone.code == -signal.SIGKILL
        assert time.monotonic() - began >= 0.3
        assert any(e.text == "no" for e in rig.all(WorkerLog))  # it was asked first

    run(scenario)


def test_a_command_may_finish_its_work_after_sigterm(run: Run) -> None:
    code = (
        "import signal, sys, time\n"
        "def end(*a): print('finished', flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', flush=True)\n"
        "while True: time.sleep(1)\n"
    )

    async def scenario(rig: Any) -> None:
        rig.script(code)
        await rig.first(WorkerLog, lambda e: e.text == "up")
        rig.stop(grace=20)
        assert (await rig.first(WorkerExited)).code == 0
        assert any(e.text == "finished" for e in rig.all(WorkerLog))

    run(scenario)


def test_a_flood_of_lines_is_told_whole_and_nothing_waits_for_it(run: Run, tmp_path: Path) -> None:
    lines = 20_000

    async def scenario(rig: Any) -> None:
        rig.script(f"for i in range({lines}): print(f'line {{i}} ' + 'x' * 50)")
        await rig.first(WorkerExited)
        told = [e.text for e in rig.all(WorkerLog) if e.stream == "stdout"]
        assert len(told) == lines
        assert told[-1].startswith(f"line {lines - 1} ")

    run(scenario, log_dir=_folder(tmp_path / "logs"))
    sizes = [f.stat().st_size for f in (tmp_path / "logs").iterdir()]
    assert max(sizes) <= 1_000_000
    assert len(sizes) <= 2


def test_odd_output_is_told_as_text_in_pieces(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.script("import sys; sys.stdout.buffer.write(b'\\xff\\xfe ok\\r\\n' + b'y' * 20000 + b'\\nlast')")
        await rig.first(WorkerExited)
        told = [e.text for e in rig.all(WorkerLog) if e.stream == "stdout"]
        assert told[0] == "\ufffd\ufffd ok"
        assert "".join(told[1:-1]) == "y" * 20_000
        assert told[-1] == "last"

    run(scenario)


def test_ports_are_each_workers_own_and_the_stated_one_where_it_is_free(run: Run) -> None:
    async def scenario(rig: Any) -> None:
        rig.write("app.py", HANDLERS)
        for n in range(4):
            rig.start(f"w{n}", handler="app.py:echo", extra={"port": 18_431} if n < 2 else {})
        for n in range(4):
            await rig.first(WorkerReady, lambda e, n=n: e.worker_id == f"w{n}")
        ports = [rig.backend.address(f"w{n}")[1] for n in range(4)]
        assert len(set(ports)) == 4

    run(scenario)


async def _file(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)


def _folder(path: Path) -> Path:
    path.mkdir()
    return path
