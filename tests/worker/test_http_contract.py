"""The HTTP contract, over the ASGI app in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BAD_BODIES = [
    b"",
    b"not json",
    b"[1]",
    b'"text"',
    b"{}",
    b'{"input": 1}',
    b'{"input": [1]}',
    b'{"input": null}',
    b'{"input": {}, "more": 1}',
    b'{"input": {"x": NaN}}',
    b'{"input": {"x": Infinity}}',
    b'{"input": {}} trailing',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"input": {"x": ' + b"9" * 5000 + b"}}",
]


def test_the_worker_answers_while_it_loads_and_says_so(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo, loaded=False) as worker:
            assert await worker.ping() == 204
            reply = await worker.invoke({"x": 1})
            assert (reply.status, reply.json()["error"]["type"]) == (503, "loading")
            assert reply.headers["retry-after"]
            worker.worker.start()
            await worker.worker.loaded.wait()
            assert await worker.ping() == 200
            assert (await worker.invoke({"x": 1})).json()["output"] == {"x": 1}

    asyncio.run(go())


@pytest.mark.parametrize(
    ("name", "value", "output"),
    [
        ("echo", {"x": 1}, {"x": 1}),
        ("async_echo", {"x": 1}, {"x": 1}),
        ("count", {"n": 3}, [0, 1, 2]),
        ("async_count", {"n": 3}, [0, 1, 2]),
        ("Doubler", {"x": 2}, {"y": 4, "loads": 1, "same_thread": True}),
        ("AsyncDoubler", {"x": 2}, 4),
        ("Counter", {"n": 20}, list(range(20))),
        ("AsyncCounter", {"n": 20}, list(range(20))),
    ],
)
def test_every_kind_of_handler_is_invoked(name: str, value: Any, output: Any, local: Any, handlers: Any) -> None:
    async def go() -> None:
        handlers.Doubler.loads = 0
        async with local(getattr(handlers, name)) as worker:
            for _ in range(3):
                reply = await worker.invoke(value)
                assert reply.status == 200
                assert reply.json()["output"] == output
                assert reply.json()["execution_s"] >= 0

    asyncio.run(go())


@pytest.mark.parametrize("name", ["count", "async_count", "Counter", "AsyncCounter"])
def test_a_generator_streams_a_line_a_chunk_and_a_last_line(name: str, local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(getattr(handlers, name)) as worker:
            *chunks, last = await worker.stream({"n": 20})
            assert chunks == [{"chunk": i} for i in range(20)]
            assert last.pop("execution_s") >= 0
            assert last == {"done": True}

    asyncio.run(go())


@pytest.mark.parametrize("name", ["echo", "async_echo"])
def test_a_plain_function_streams_one_chunk(name: str, local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(getattr(handlers, name)) as worker:
            chunk, last = await worker.stream({"x": 1})
            assert chunk == {"chunk": {"x": 1}}
            assert last["done"] is True
            assert last["single"] is True  # so that a caller can tell a value from a list of one

    asyncio.run(go())


def test_a_handlers_error_is_data_with_status_200(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.fail) as worker:
            reply = await worker.invoke({})
            assert reply.status == 200
            assert reply.json()["error"] == {"type": "ValueError", "message": "the model says no"}
            assert "output" not in reply.json()

    asyncio.run(go())


def test_a_handler_that_exits_ends_its_call_and_not_the_worker(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.leave) as worker:
            for _ in range(2):
                assert (await worker.invoke({})).json()["error"] == {"type": "SystemExit", "message": "7"}

    asyncio.run(go())


def test_an_error_after_chunks_is_the_last_line(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.fail_midway) as worker:
            chunk, last = await worker.stream({})
            assert chunk == {"chunk": 1}
            assert last["error"] == {"type": "ValueError", "message": "halfway"}
            assert (await worker.invoke({})).json()["error"]["message"] == "halfway"

    asyncio.run(go())


def test_the_traceback_is_in_the_log_and_in_the_reply_only_when_asked(
    local: Any, handlers: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> None:
        async with local(handlers.fail) as worker:
            assert "traceback" not in (await worker.invoke({}, x_unigpu_job="job-7")).json()["error"]
        async with local(handlers.fail, traceback=True) as worker:
            text = (await worker.invoke({})).json()["error"]["traceback"]
            assert "handlers.py" in text
            assert "_execute.py" not in text

    asyncio.run(go())
    assert "job-7" in caplog.text
    assert 'raise ValueError("the model says no")' in caplog.text


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda b: b[:24].decode("latin-1"))
def test_a_bad_envelope_is_400_and_no_call(body: bytes, local: Any) -> None:
    calls: list[Any] = []

    async def go() -> None:
        async with local(lambda input: calls.append(input)) as worker:
            reply = await worker.post(body)
            assert (reply.status, reply.json()["error"]["type"]) == (400, "bad_request")
            assert await worker.ping() == 200

    asyncio.run(go())
    assert calls == []


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", ""])
def test_a_bad_timeout_is_400(text: str, local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo) as worker:
            assert (await worker.invoke({}, x_unigpu_timeout=text)).status == 400

    asyncio.run(go())


def test_other_methods_and_paths_are_refused(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo) as worker:
            assert (await worker.send(b"", method="GET").task).status == 405
            assert (await worker.send({"x": 1}, path="/ping").task).status == 405
            assert (await worker.send(b"", method="GET", path="/nowhere").task).status == 404
            assert (await worker.send(b"", method="HEAD", path="/ping").task).status == 200

    asyncio.run(go())


@pytest.mark.parametrize("path", ["/", "/run", "/v1/anything"])
def test_raw_routes_take_the_body_as_input_and_give_the_bare_output(path: str, local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo) as worker:
            assert (await worker.post({"prompt": "hi"}, path)).json() == {"prompt": "hi"}
            assert (await worker.post({"input": "text"}, path)).json() == {"input": "text"}
            assert (await worker.post({"input": {"a": 1}, "b": 2}, path)).json() == {"input": {"a": 1}, "b": 2}
            assert (await worker.post([1], path)).status == 400
            wrapped = (await worker.post({"input": {"a": 1}}, path)).json()
            assert wrapped["output"] == {"a": 1}
            assert "execution_s" in wrapped

    asyncio.run(go())


def test_a_failure_on_a_raw_route_is_not_a_success(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.fail) as worker:
            reply = await worker.post({"prompt": "hi"}, "/")
            assert (reply.status, reply.json()["error"]["type"]) == (500, "ValueError")
            assert (await worker.post({"input": {}}, "/")).status == 200

    asyncio.run(go())


def test_above_its_concurrency_the_worker_is_busy_and_then_free_again(local: Any) -> None:
    async def go() -> None:
        gate = asyncio.Event()
        loop = asyncio.get_running_loop()
        started: asyncio.Queue[int] = asyncio.Queue()

        async def handler(input: dict[str, Any]) -> int:
            loop.call_soon_threadsafe(started.put_nowait, 1)
            while not gate.is_set():
                await asyncio.sleep(0.01)
            return 1

        async with local(handler, concurrency=2) as worker:
            running = [worker.send({"input": {}}) for _ in range(2)]
            for _ in running:
                await started.get()
            busy = await worker.invoke({})
            assert (busy.status, busy.json()["error"]["type"]) == (429, "busy")
            assert busy.headers["retry-after"]
            assert await worker.ping() == 200
            gate.set()
            assert [(await r.task).json()["output"] for r in running] == [1, 1]
            assert (await worker.invoke({})).status == 200

    asyncio.run(go())


def test_a_caller_with_its_answer_is_never_told_busy(local: Any, handlers: Any) -> None:
    async def go() -> None:
        for name in ("echo", "async_echo", "count"):
            async with local(getattr(handlers, name), concurrency=1) as worker:
                for _ in range(200):
                    assert (await worker.invoke({"n": 1})).status == 200

    asyncio.run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_an_async_call_over_its_timeout_is_cancelled(stream: bool, local: Any, handlers: Any, tmp_path: Path) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "ended": str(tmp_path / "ended")}
        headers = {"x_unigpu_timeout": "0.05"} | ({"accept": "application/x-ndjson"} if stream else {})
        async with local(handlers.wait_forever) as worker:
            reply = await worker.invoke(value, **headers)
            assert reply.status == 200
            assert reply.lines()[-1]["error"]["type"] == "ExecutionTimeout"
            while worker.worker.running:
                await asyncio.sleep(0.01)
            assert (tmp_path / "ended").exists()

    asyncio.run(go())


def test_a_header_shortens_the_deployments_timeout_and_never_lengthens_it(
    local: Any, handlers: Any, tmp_path: Path
) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "ended": str(tmp_path / "ended")}
        async with local(handlers.wait_forever, timeout=0.05) as worker:
            reply = await worker.invoke(value, x_unigpu_timeout="3600")
            assert "0.05 s" in reply.json()["error"]["message"]

    asyncio.run(go())


def test_a_sync_call_over_its_timeout_is_answered_and_keeps_its_slot_until_it_ends(
    local: Any, handlers: Any, tmp_path: Path
) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
        async with local(handlers.wait_for_file) as worker:
            assert (await worker.invoke(value, x_unigpu_timeout="0.05")).json()["error"]["type"] == "ExecutionTimeout"
            assert (await worker.invoke(value)).status == 429
            (tmp_path / "go").touch()
            while worker.worker.running:
                await asyncio.sleep(0.01)
            assert (await worker.invoke(value)).json()["output"] == "went"
            assert not worker.worker.over.is_set()

    asyncio.run(go())


@pytest.mark.parametrize("name", ["stuck", "async_stuck"])
def test_a_call_that_never_ends_makes_the_worker_give_itself_up(name: str, local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(getattr(handlers, name), grace=0.05) as worker:
            reply = await worker.invoke({}, x_unigpu_timeout="0.05", x_unigpu_job="j1")
            assert reply.json()["error"]["type"] == "ExecutionTimeout"
            await asyncio.wait_for(worker.worker.over.wait(), 30)
            assert "j1" in worker.worker.stuck
            await worker.worker.drain(30)  # which does not wait for what will never end

    asyncio.run(go())


def test_an_async_handler_that_blocks_does_not_keep_ping_from_answering(
    local: Any, handlers: Any, tmp_path: Path
) -> None:
    async def go() -> None:
        async def blocking(input: dict[str, Any]) -> str:
            return str(handlers.wait_for_file(input))

        value = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
        async with local(blocking) as worker:
            running = worker.send({"input": value})
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            assert await worker.ping() == 200
            (tmp_path / "go").touch()
            assert (await running.task).json()["output"] == "went"

    asyncio.run(go())


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_that_leaves_cancels_an_async_call(stream: bool, local: Any, handlers: Any, tmp_path: Path) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "ended": str(tmp_path / "ended")}
        headers = {"accept": "application/x-ndjson"} if stream else {}
        async with local(handlers.wait_forever) as worker:
            running = worker.send({"input": value}, **headers)
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            running.leave()
            await asyncio.wait_for(running.task, 30)
            while worker.worker.running:
                await asyncio.sleep(0.01)
            assert (tmp_path / "ended").exists()

    asyncio.run(go())


def _counting(made: list[int], closed: list[bool]) -> Callable[[dict[str, Any]], Iterator[int]]:
    def handler(input: dict[str, Any]) -> Iterator[int]:
        try:
            for i in range(10_000):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    return handler


def _async_counting(made: list[int], closed: list[bool]) -> Callable[[dict[str, Any]], AsyncIterator[int]]:
    async def handler(input: dict[str, Any]) -> AsyncIterator[int]:
        try:
            for i in range(10_000):
                made.append(i)
                yield i
        finally:
            closed.append(True)

    return handler


@pytest.mark.parametrize("make", [_counting, _async_counting])
def test_a_slow_reader_holds_the_generator_back_and_its_leaving_closes_it(make: Any, local: Any) -> None:
    made: list[int] = []
    closed: list[bool] = []

    async def go() -> None:
        async with local(make(made, closed)) as worker:
            running = worker.send({"input": {}}, accept="application/x-ndjson")
            running.reading.clear()
            seen = -1
            while seen != len(made) or not made:  # until it makes no more
                seen = len(made)
                await asyncio.sleep(0.1)
            assert len(made) < 20
            running.leave()
            await asyncio.wait_for(running.task, 30)
            while worker.worker.running:
                await asyncio.sleep(0.01)
            assert len(made) < 30
            assert closed == [True]

    asyncio.run(go())


def test_cleaning_up_after_a_cancel_is_not_cancelled_again(local: Any) -> None:
    cleaned: list[bool] = []

    async def handler(input: dict[str, Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.2)
            cleaned.append(True)

    async def go() -> None:
        async with local(handler) as worker:
            running = worker.send({"input": {}}, x_unigpu_timeout="0.02")
            await running.task
            running.leave()
            while worker.worker.running:
                await asyncio.sleep(0.01)

    asyncio.run(go())
    assert cleaned == [True]


def test_a_draining_worker_finishes_what_runs_and_takes_nothing_new(local: Any, handlers: Any, tmp_path: Path) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
        async with local(handlers.wait_for_file, concurrency=2) as worker:
            running = worker.send({"input": value})
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            drain = asyncio.create_task(worker.worker.drain(30))
            await asyncio.sleep(0)
            assert await worker.ping() == 503
            refused = await worker.invoke(value)
            assert (refused.status, refused.json()["error"]["type"]) == (503, "draining")
            assert refused.headers["connection"] == "close"
            (tmp_path / "go").touch()
            assert (await running.task).json()["output"] == "went"
            await asyncio.wait_for(drain, 30)

    asyncio.run(go())


def test_what_does_not_end_in_the_drain_time_is_told_so(local: Any, handlers: Any, tmp_path: Path) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "ended": str(tmp_path / "ended")}
        async with local(handlers.wait_forever) as worker:
            running = worker.send({"input": value})
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            await worker.worker.drain(0.05)
            assert (await running.task).json()["error"]["type"] == "WorkerStopped"
            assert (tmp_path / "ended").exists()

    asyncio.run(go())


@pytest.mark.parametrize("ends_billing", [True, False])
def test_an_expired_worker_takes_no_work_and_leaves_only_where_that_ends_billing(
    ends_billing: bool, local: Any, handlers: Any
) -> None:
    async def go() -> None:
        async with local(handlers.echo, expires=1.0, exit_ends_billing=ends_billing) as worker:
            assert await worker.ping() == 503
            reply = await worker.invoke({})
            assert (reply.status, reply.json()["error"]["type"]) == (503, "expired")
            assert worker.worker.over.is_set() is ends_billing

    asyncio.run(go())


def test_a_worker_expires_while_it_runs(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo, expires=time.time() + 0.3, exit_ends_billing=True) as worker:
            await asyncio.wait_for(worker.worker.over.wait(), 30)
            assert worker.worker.state == "expired"

    asyncio.run(go())


def test_a_token_is_asked_for_on_every_call_but_ping(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo, token="s3cret") as worker:
            assert await worker.ping() == 200
            for headers in ({}, {"authorization": "Bearer other"}, {"authorization": "s3cret"}):
                reply = await worker.invoke({}, **headers)
                assert (reply.status, reply.json()["error"]["type"]) == (401, "unauthorized")
                assert "s3cret" not in reply.body.decode()
            assert (await worker.invoke({}, authorization="Bearer s3cret")).status == 200
            assert "s3cret" not in repr(worker.worker.settings)

    asyncio.run(go())


def test_the_path_is_the_request_lines_whatever_the_host_header_says(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.echo, token="t") as worker:
            reply = await worker.send(b"", method="GET", host="x/ping?").task
            assert reply.status == 401

    asyncio.run(go())


def test_a_caller_that_leaves_while_it_sends_its_input_runs_nothing(local: Any) -> None:
    calls: list[Any] = []
    sent: list[Any] = []

    async def go() -> None:
        messages = [
            {"type": "http.request", "body": b'{"input": {', "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/invoke", "query_string": b"", "headers": []}
        async with local(lambda input: calls.append(input)) as worker:
            await worker.app(scope, receive, send)
            assert worker.worker.running == 0

    asyncio.run(go())
    assert calls == sent == []


def test_a_plain_function_that_gives_a_coroutine_is_told_to_be_async(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(lambda input: handlers.async_echo(input)) as worker:
            error = (await worker.invoke({})).json()["error"]
            assert error["type"] == "TypeError"
            assert "make it async" in error["message"]

    asyncio.run(go())


def test_an_exception_that_cannot_be_shown_is_still_an_error_of_its_type(local: Any) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def handler(input: dict[str, Any]) -> None:
        raise Odd

    async def go() -> None:
        async with local(handler) as worker:
            assert (await worker.invoke({})).json()["error"]["type"] == "Odd"

    asyncio.run(go())


def test_a_long_message_is_cut_and_half_a_character_is_no_trouble(local: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "unigpu.worker")  # xdist cannot carry half a character in a captured log

    def handler(input: dict[str, Any]) -> None:
        raise ValueError("\ud800" + "x" * 1_000_000)

    async def go() -> None:
        async with local(handler) as worker:
            reply = await worker.invoke({})
            assert reply.json()["error"]["message"].startswith("\ud800x")
            assert len(reply.body) < 10_000

    asyncio.run(go())


def test_iterators_that_are_not_generators_stream_too(local: Any) -> None:
    class Three:
        def __init__(self) -> None:
            self.n = 0

        def __aiter__(self) -> Three:
            return self

        async def __anext__(self) -> int:
            self.n += 1
            if self.n > 3:
                raise StopAsyncIteration
            return self.n

    async def wrapper(input: dict[str, Any]) -> AsyncIterator[int]:
        async for i in Three():
            yield i

    async def go() -> None:
        for handler in (lambda input: iter([1, 2, 3]), lambda input: map(int, "123"), wrapper):
            async with local(handler) as worker:
                assert (await worker.invoke({})).json()["output"] == [1, 2, 3]
                assert [line.get("chunk") for line in await worker.stream({})] == [1, 2, 3, None]

    asyncio.run(go())


def test_what_runs_when_the_ttl_ends_is_finished(local: Any, handlers: Any, tmp_path: Path) -> None:
    async def go() -> None:
        value = {"started": str(tmp_path / "started"), "go": str(tmp_path / "go")}
        async with local(handlers.wait_for_file, expires=time.time() + 3600) as worker:
            running = worker.send({"input": value})
            while not (tmp_path / "started").exists():
                await asyncio.sleep(0.01)
            worker.worker._expire()
            assert (await worker.invoke({})).json()["error"]["type"] == "expired"
            (tmp_path / "go").touch()
            assert (await running.task).json()["output"] == "went"

    asyncio.run(go())


def test_a_call_that_cannot_be_started_is_an_error_and_loses_no_slot(
    local: Any, handlers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with local(handlers.echo) as worker:
            with monkeypatch.context() as patch:
                patch.setattr(worker.worker._executor, "start", _no_thread)
                assert "can't start" in (await worker.invoke({})).json()["error"]["message"]
            assert (await worker.invoke({"x": 1})).json()["output"] == {"x": 1}

    asyncio.run(go())


def _no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")
