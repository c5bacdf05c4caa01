"""RunPod's mode: what is handed to the official package, which runs the loop. The package itself: `tests/official`."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from unigpu.errors import ConfigurationError
from unigpu.worker import _runpod, runpod_loop
from unigpu.worker._exit_codes import CANNOT_LOAD, OK
from unigpu.worker._settings import Settings
from unigpu.worker._start import find_mode

Drive = Callable[[dict[str, Any]], Coroutine[Any, Any, Any]]
Job = dict[str, Any]


class Package:
    """Stands in for ``runpod.serverless``: `start` gives the config to a test, on a loop of its own, as it does."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self.result: Any = None

    def start(self, config: dict[str, Any]) -> None:
        self.result = asyncio.run(self._drive(config))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(handler: Any, drive: Drive, **settings: Any) -> Any:
        package = Package(drive)
        monkeypatch.setattr(_runpod, "_package", lambda: package)
        end = _runpod.run(handler, Settings(**settings))
        assert end.code == OK, end
        return package.result

    return run


def job(**input: Any) -> Job:
    return {"id": "j1", "input": input}


def echo(input: Job) -> Any:
    if "boom" in input:
        raise ValueError(input["boom"])
    return input


class Model:
    def __init__(self) -> None:
        self.loaded_in = threading.current_thread().name

    def __call__(self, input: Job) -> Any:
        return [self.loaded_in, threading.current_thread().name]


def count(input: Job) -> Any:
    for k in range(input["n"]):
        if k == 3:
            raise RuntimeError("three")
        yield {"k": k, "error": "a word of the user's"}


async def count_async(input: Job) -> AsyncIterator[int]:
    for k in range(input["n"]):
        await asyncio.sleep(0)
        yield k


def test_a_worker_of_a_queue_endpoint_is_in_runpods_mode_and_others_serve_http() -> None:
    assert find_mode({"RUNPOD_WEBHOOK_GET_JOB": "https://api.runpod.ai/v2/x/job-take/$ID"}) is _runpod
    # An endpoint without a queue, and a pod: RunPod sets the pod's id there too.
    assert find_mode({"RUNPOD_POD_ID": "w", "RUNPOD_ENDPOINT_ID": "x"}) is not _runpod


@pytest.mark.parametrize("output", [{"a": 1}, {"error": "mine"}, {"refresh_worker": True}, {}, [1], "text", 0, None])
def test_an_output_goes_through_the_package_as_the_handler_gave_it(run: Any, output: Any) -> None:
    def handler(input: Job) -> Any:
        return output

    async def drive(config: dict[str, Any]) -> Any:
        found = await config["handler"](job(x=1))
        # What runpod 1.12 does to it before it is sent.
        result: dict[str, Any] = {"output": found}
        if isinstance(found, dict):
            error, refresh = found.pop("error", None), found.pop("refresh_worker", None)
            assert (error, refresh) == (None, None)
        if result.get("output") == {}:
            result.pop("output")
        return json.loads(json.dumps(result))

    assert run(handler, drive) == {"output": output}


def test_what_a_handler_raises_is_the_jobs_error_in_runpods_own_form(run: Any) -> None:
    async def drive(config: dict[str, Any]) -> Any:
        return await config["handler"](job(boom="no such thing"))

    found = run(echo, drive)
    assert set(found) == {"error"}
    error = json.loads(found["error"])
    assert (error["error_type"], error["error_message"]) == ("<class 'ValueError'>", "no such thing")
    assert error["error_traceback"] == ""
    told = json.loads(run(echo, drive, traceback=True)["error"])
    assert "no such thing" in told["error_traceback"]


def test_a_job_that_only_wakes_a_worker_does_not_reach_the_handler(run: Any) -> None:
    from unigpu.providers.runpod.calls import wake_body

    calls: list[Job] = []

    def handler(input: Job) -> Any:
        calls.append(input)
        return input

    def stream(input: Job) -> Any:
        calls.append(input)
        yield input

    async def drive(config: dict[str, Any]) -> Any:
        found = config["handler"]({"id": "j1", "input": wake_body()["input"]})
        return [one async for one in found] if hasattr(found, "__aiter__") else await found

    assert run(handler, drive) == {"woken": True}
    assert run(stream, drive) == []
    assert calls == []


@pytest.mark.parametrize(
    ("handler", "expected"),
    [(count, [{"k": k, "error": "a word of the user's"} for k in range(2)]), (count_async, [0, 1])],
)
def test_a_generator_is_one_for_the_package_and_each_value_is_a_chunk(run: Any, handler: Any, expected: Any) -> None:
    async def drive(config: dict[str, Any]) -> Any:
        assert config["return_aggregate_stream"] is True
        chunks = [chunk async for chunk in config["handler"](job(n=2))]
        # A chunk whose own word is "error" is no failure to it.
        assert not any(isinstance(chunk, dict) and chunk.get("error") for chunk in chunks)
        return json.loads(json.dumps(chunks))

    assert run(handler, drive) == expected


def test_a_generator_that_raises_gives_its_chunks_and_then_the_error(run: Any) -> None:
    async def drive(config: dict[str, Any]) -> Any:
        return [chunk async for chunk in config["handler"](job(n=9))]

    *chunks, last = run(count, drive)
    assert [chunk["k"] for chunk in chunks] == [0, 1, 2]
    assert json.loads(last["error"])["error_message"] == "three"


def test_a_class_is_loaded_once_in_the_thread_that_runs_it(run: Any) -> None:
    async def drive(config: dict[str, Any]) -> Any:
        return [await config["handler"](job()) for _ in range(2)]

    first, second = run(Model, drive)
    assert first == second == [first[0]] * 2


def test_as_many_jobs_run_at_a_time_as_the_deployment_says(run: Any) -> None:
    barrier = threading.Barrier(3, timeout=30)

    def together(input: Job) -> Any:
        barrier.wait()
        return "ok"

    async def drive(config: dict[str, Any]) -> Any:
        most = config["concurrency_modifier"](1)
        return most, await asyncio.gather(*(config["handler"](job(k=k)) for k in range(most)))

    assert run(together, drive, concurrency=3) == (3, ["ok"] * 3)


def test_a_job_that_is_stopped_is_cancelled_where_it_runs_and_its_slot_is_free_again(run: Any) -> None:
    began, ended = threading.Event(), threading.Event()

    async def slow(input: Job) -> Any:
        if "stay" not in input:
            return "next"
        began.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    async def drive(config: dict[str, Any]) -> Any:
        task = asyncio.ensure_future(config["handler"](job(stay=1)))
        await asyncio.to_thread(began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(ended.wait, 30)
        return await config["handler"](job())

    assert run(slow, drive) == "next"


def test_a_blocking_handler_that_was_stopped_keeps_its_slot_until_it_returns(run: Any) -> None:
    began, let_go = threading.Event(), threading.Event()
    order: list[str] = []

    def blocking(input: Job) -> Any:
        if "stay" in input:
            began.set()
            let_go.wait(30)
            order.append("first")
        else:
            order.append("second")
        return "ok"

    async def drive(config: dict[str, Any]) -> Any:
        task = asyncio.ensure_future(config["handler"](job(stay=1)))
        await asyncio.to_thread(began.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        after = asyncio.ensure_future(config["handler"](job()))
        await asyncio.sleep(0)
        let_go.set()
        return await after

    assert run(blocking, drive) == "ok"
    assert order == ["first", "second"]


def test_a_call_over_its_time_and_one_after_the_ttl_are_told_as_errors(run: Any) -> None:
    async def slow(input: Job) -> Any:
        await asyncio.sleep(3600)

    async def drive(config: dict[str, Any]) -> Any:
        return json.loads((await config["handler"](job()))["error"])

    assert run(slow, drive, timeout=0.05)["error_type"] == "<class 'ExecutionTimeout'>"
    assert run(slow, drive, expires=time.time() - 1)["error_type"] == "<class 'expired'>"


def test_an_input_that_is_no_object_is_an_error_and_no_crash(run: Any) -> None:
    async def drive(config: dict[str, Any]) -> Any:
        return json.loads((await config["handler"]({"id": "j", "input": [1]}))["error"])

    assert run(echo, drive)["error_type"] == "<class 'bad_request'>"


def test_a_handler_that_cannot_be_loaded_ends_the_worker_before_it_takes_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(config: dict[str, Any]) -> Any:
        raise AssertionError("no job may be taken")

    monkeypatch.setattr(_runpod, "_package", lambda: Package(never))
    end = _runpod.run("no_such_module:f", Settings())
    assert end.code == CANNOT_LOAD
    assert "no_such_module" in (end.reason or "")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "runpod.serverless", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "runpod", None)
    with pytest.raises(ConfigurationError, match="worker-runpod"):
        _runpod.run(echo, Settings())


def test_an_environment_of_its_own_that_is_not_there_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("UNIGPU_RUNPOD_PYTHON", "/no/such/python")
    with pytest.raises(ConfigurationError, match="/no/such/python"):
        _runpod.run(echo, Settings())


def test_the_program_of_its_own_environment_needs_nothing_of_ours() -> None:
    """RunPod's environment has the standard library and RunPod's package only."""
    code = f"import runpy; runpy.run_path({runpod_loop.__file__!r}); print('fine')"
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stdout == "fine\n", ran.stderr
