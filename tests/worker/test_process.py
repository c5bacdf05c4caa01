"""Real workers on loopback: start, load, serve, drain, and every way to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unigpu.errors import ConfigurationError, WorkerFailed
from unigpu.worker import serve
from unigpu.worker._http_server import _listen
from unigpu.worker._settings import Settings

pytestmark = pytest.mark.processes


def test_a_worker_listens_while_it_loads_then_serves_and_drains(start: Any, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    worker = start("SlowLoader", TEST_GO=str(gate))
    assert worker.ping() == 204
    assert worker.invoke({}) == (
        503,
        {"error": {"type": "loading", "message": f"{_name('SlowLoader')} is still loading."}},
    )
    gate.touch()
    worker.ready()
    assert worker.ping() == 200
    status, reply = worker.invoke({})
    assert (status, reply["output"]) == (200, "loaded")
    worker.signal()
    assert worker.exit() == 0


def _name(handler: str) -> str:
    return f"{Path(__file__).with_name('handlers.py')}:{handler}"


def test_a_module_is_found_in_the_working_directory(start: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def f(input):\n    return input['x'] + 1\n")
    worker = start("app:f").ready()
    assert worker.invoke({"x": 1})[1]["output"] == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_running_calls_finish_and_refuses_new_ones(
    number: signal.Signals, start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    started, gate = tmp_path / "started", tmp_path / "go"
    worker = start("wait_for_file").ready()
    with contextlib.closing(worker.open({"started": str(started), "go": str(gate)})) as running:
        appears(started)
        worker.signal(number)
        worker.wait_for_line("draining: 1 running")
        assert worker.ping() == 503
        assert worker.invoke({})[1]["error"]["type"] == "draining"
        gate.touch()
        assert worker.answer(running)[1]["output"] == "went"
    assert worker.exit() == 0


@pytest.mark.parametrize("how", ["drain time is over", "second signal"])
def test_a_sync_call_that_outlasts_the_drain_is_told_so_and_the_worker_leaves(
    how: str, start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    started = tmp_path / "started"
    worker = start(
        "wait_for_file", UNIGPU_DRAIN="0.1" if how == "drain time is over" else "3600", UNIGPU_GRACE="0"
    ).ready()
    with contextlib.closing(worker.open({"started": str(started), "go": str(tmp_path / "never")})) as running:
        appears(started)
        worker.signal()
        worker.wait_for_line("draining")
        if how == "second signal":
            worker.signal()
        assert worker.answer(running)[1]["error"]["type"] == "WorkerStopped"
    assert worker.exit() == 0


def test_a_worker_that_is_told_to_stop_while_it_loads_leaves(start: Any, tmp_path: Path) -> None:
    worker = start("SlowLoader", TEST_GO=str(tmp_path / "never"))
    assert worker.ping() == 204
    worker.signal()
    assert worker.exit() == 0


@pytest.mark.parametrize(
    ("target", "last"),
    [
        ("no_such_module:f", "unigpu.worker: cannot load no_such_module:f: no module named 'no_such_module'"),
        ("app:nope", "unigpu.worker: cannot load app:nope: no 'nope' in app"),
        ("app:Broken", "unigpu.worker: cannot load app:Broken: Broken() raised RuntimeError: no weights"),
    ],
)
def test_a_handler_that_cannot_be_loaded_ends_the_worker_with_3_and_its_cause(
    target: str, last: str, start: Any, tmp_path: Path
) -> None:
    code = "class Broken:\n    def __init__(self): raise RuntimeError('no weights')\n    def __call__(self, i): ...\n"
    (tmp_path / "app.py").write_text(code)
    worker = start(target)
    assert worker.exit() == 3
    assert worker.err[-1].startswith(last)
    assert ("Traceback (most recent call last):" in worker.err) == (target == "app:Broken")


@pytest.mark.parametrize("env", [{"UNIGPU_CONCURRENCY": "none"}, {"UNIGPU_AUTH": "TOKEN_THAT_IS_NOT_SET"}])
def test_a_wrong_variable_ends_the_worker_with_2(env: dict[str, str], start: Any) -> None:
    worker = start("echo", **env)
    assert worker.exit() == 2
    assert worker.err[-1].startswith(f"unigpu.worker: {next(iter(env))}")


def test_a_port_that_is_taken_ends_the_worker_with_2(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = start("echo", UNIGPU_PORT=str(taken.getsockname()[1]))
        assert worker.exit() == 2
        assert "Cannot listen on 127.0.0.1 port" in worker.err[-1]


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_extra_ends_the_worker_with_2_and_says_what_to_install(package: str, tmp_path: Path) -> None:
    hide = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {package!r}: raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "sys.argv = ['worker', 'app:f']\n"
        "import runpy; runpy.run_module('unigpu.worker', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert 'pip install "unigpu[worker]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("stream", [False, True])
def test_closing_the_connection_cancels_an_async_call(
    stream: bool, start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    worker = start("wait_forever").ready()
    headers = {"accept": "application/x-ndjson"} if stream else {}
    with contextlib.closing(worker.open({"started": str(started), "ended": str(ended)}, **headers)):
        appears(started)
    appears(ended)


def test_closing_the_connection_in_the_middle_of_a_stream_closes_the_generator(
    start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    ended = tmp_path / "ended"
    worker = start("stream_forever").ready()
    with contextlib.closing(worker.open({"ended": str(ended)}, accept="application/x-ndjson")) as running:
        reply = running.getresponse()
        for _ in range(3):
            assert json.loads(reply.readline())["chunk"]
        reply.close()
    appears(ended)
    with contextlib.closing(worker.open({"ended": str(ended)}, accept="application/x-ndjson")) as again:
        assert again.getresponse().status == 200  # the slot is free again


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from Linux's /proc")
def test_a_client_that_does_not_read_does_not_fill_the_workers_memory(start: Any, tmp_path: Path) -> None:
    worker = start("stream_forever").ready()
    with contextlib.closing(worker.open({"ended": str(tmp_path / "e")}, accept="application/x-ndjson")) as running:
        reply = running.getresponse()
        reply.readline()
        worker.signal()  # while the client does not read
        worker.wait_for_line("draining: 1 running")
        rss = int(Path(f"/proc/{worker.popen.pid}/statm").read_text().split()[1]) * 4096
        assert rss < 300 * 2**20
    assert worker.exit() == 0


def test_above_its_concurrency_a_worker_is_busy(start: Any, tmp_path: Path, appears: Callable[[Path], None]) -> None:
    gate = tmp_path / "go"
    worker = start("wait_for_file", UNIGPU_CONCURRENCY="2").ready()
    with contextlib.ExitStack() as stack:
        running = []
        for i in range(2):
            value = {"started": str(tmp_path / f"started{i}"), "go": str(gate)}
            running.append(stack.enter_context(contextlib.closing(worker.open(value))))
            appears(tmp_path / f"started{i}")
        assert worker.invoke({})[0] == 429
        gate.touch()
        assert [worker.answer(r)[0] for r in running] == [200, 200]


@pytest.mark.parametrize("handler", ["stuck", "async_stuck"])
def test_a_call_that_never_ends_ends_the_worker_with_4(handler: str, start: Any) -> None:
    worker = start(handler, UNIGPU_TIMEOUT="0.1", UNIGPU_GRACE="0.1").ready()
    assert worker.invoke({}, x_unigpu_job="j1")[1]["error"]["type"] == "ExecutionTimeout"
    assert worker.exit() == 4
    assert "j1" in worker.err[-1]


@pytest.mark.parametrize("ends_billing", [True, False])
def test_an_expired_worker_leaves_only_where_that_ends_billing(ends_billing: bool, start: Any) -> None:
    worker = start("echo", UNIGPU_EXPIRES="1", UNIGPU_WORKER_EXIT="ends_billing" if ends_billing else "replaced")
    if not ends_billing:
        assert worker.ping() == 503
        assert worker.invoke({})[1]["error"]["type"] == "expired"
        worker.signal()
    assert worker.exit() == 0
    assert not any("ready" in line for line in worker.err)


def test_what_a_handler_prints_is_in_the_log_when_its_call_is_over(start: Any) -> None:
    worker = start("speak").ready()
    worker.invoke({"word": "hello"})
    worker.wait_for_line("handler says hello", worker.out)  # while the worker lives: no buffer holds it back


def test_the_log_is_one_line_for_start_ready_and_end_and_none_for_a_call(start: Any) -> None:
    worker = start("echo").ready()
    for _ in range(20):
        worker.invoke({})
    worker.signal()
    worker.exit()
    words = [line.split(" INFO ")[1].split()[0].strip(":") for line in worker.err]
    assert words == ["listening", "ready", "SIGTERM", "draining", "stopped"]


def test_serve_is_the_same_in_a_program(tmp_path: Path) -> None:
    code = (
        "import atexit, unigpu.worker\n"
        "atexit.register(print, 'goodbye')\n"
        "unigpu.worker.serve(lambda input: 1)\n"
        "print('served')\n"
    )
    env = {
        "PATH": "",
        "UNIGPU_PORT": "0",
        "UNIGPU_HOST": "127.0.0.1",
        "UNIGPU_EXPIRES": "1",
        "UNIGPU_WORKER_EXIT": "ends_billing",
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=60
    )
    assert done.stdout.split() == ["served", "goodbye"]


def test_serve_raises_typed_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIGPU_HOST", "127.0.0.1")
    monkeypatch.setenv("UNIGPU_PORT", "0")
    with pytest.raises(WorkerFailed, match="no module named 'no_such_module'"):
        serve("no_such_module:f")
    monkeypatch.setenv("UNIGPU_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="UNIGPU_TIMEOUT"):
        serve(lambda input: input)


def test_a_handler_is_loaded_and_run_in_the_main_thread_where_libraries_may_catch_signals(
    start: Any, tmp_path: Path
) -> None:
    code = (
        "import signal, threading\n"
        "signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "def f(input): return threading.current_thread() is threading.main_thread()\n"
        "async def g(input): return threading.current_thread() is threading.main_thread()\n"
    )
    (tmp_path / "app.py").write_text(code)
    for target in ("app:f", "app:g"):
        worker = start(target).ready()
        assert worker.invoke({})[1]["output"] is True
        worker.signal()
        assert worker.exit() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="makes a mutex as Linux lays it out")
def test_a_signal_is_heard_while_native_code_holds_the_main_thread(
    start: Any, tmp_path: Path, appears: Callable[[Path], None]
) -> None:
    code = (
        "import ctypes, pathlib\n"
        "def deadlock(input):\n"
        "    lock, mutex = ctypes.CDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(128)\n"
        "    lock(mutex)\n"
        "    pathlib.Path('in').touch()\n"
        "    lock(mutex)\n"
    )
    (tmp_path / "app.py").write_text(code)
    worker = start("app:deadlock", UNIGPU_DRAIN="0.1", UNIGPU_GRACE="0.1").ready()
    with contextlib.closing(worker.open({})) as running:
        appears(tmp_path / "in")
        assert worker.ping() == 200
        worker.signal()
        assert worker.answer(running)[1]["error"]["type"] == "WorkerStopped"
    assert worker.exit() == 0


def test_what_a_handler_leaves_behind_does_not_hold_the_exit(start: Any, tmp_path: Path) -> None:
    code = (
        "import asyncio, atexit, threading\n"
        "atexit.register(print, 'flushed')\n"
        "def f(input): threading.Thread(target=threading.Event().wait).start()\n"
        "async def g(input): asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)\n"
        "async def h(input): input['t'] = asyncio.create_task(asyncio.Event().wait())\n"
    )
    (tmp_path / "app.py").write_text(code)
    workers = {name: start(f"app:{name}", UNIGPU_GRACE="0.1").ready() for name in "fgh"}
    for worker in workers.values():
        worker.invoke({})
        worker.signal()
    assert [worker.exit() for worker in workers.values()] == [0, 0, 0]
    assert workers["h"].out == ["flushed"]


def test_a_handler_that_stops_its_event_loop_ends_the_worker_so_that_it_is_replaced(start: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import asyncio\nasync def f(input): asyncio.get_running_loop().stop()\n")
    worker = start("app:f").ready()
    with contextlib.closing(worker.open({})):
        assert worker.exit() == 4
    assert "broke the thread" in worker.err[-1]


def test_exit_functions_of_the_handlers_libraries_are_run(start: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import atexit\natexit.register(print, 'flushed')\ndef f(input): ...\n")
    worker = start("app:f").ready()
    worker.invoke({})
    worker.signal()
    assert worker.exit() == 0
    assert worker.out == ["flushed"]


@pytest.mark.parametrize("moment", range(6))
def test_a_signal_at_any_moment_of_the_start_ends_the_worker(moment: int, start: Any) -> None:
    worker = start("echo")
    time.sleep(random.Random(moment).random() * 0.4)  # where in the start it falls is the point, not how long it takes
    worker.signal()
    # Before our first line runs, Python's own answer to the signal applies.
    assert worker.exit() in (0, -signal.SIGTERM)


def test_a_reply_on_its_way_when_the_worker_is_stopped_arrives_whole(start: Any, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def big(input): return 'x' * 20_000_000\n")
    worker = start("app:big").ready()
    with contextlib.closing(worker.open({})) as running:
        reply = running.getresponse()
        worker.signal()
        worker.wait_for_line("draining")
        assert len(json.loads(reply.read())["output"]) == 20_000_000
    assert worker.exit() == 0


def test_small_replies_are_not_held_back_to_be_sent_together() -> None:
    # asyncio turns Nagle's delay (40 ms a reply) off only where the listener says that it is TCP.
    with _listen(Settings(host="127.0.0.1", port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_serve_in_async_code_is_refused() -> None:
    async def go() -> None:
        with pytest.raises(ConfigurationError, match="event loop"):
            serve(lambda input: input)

    asyncio.run(go())
