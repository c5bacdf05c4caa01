"""The small HTTP client, and jobs given by it, against servers that answer well, badly, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from unigpu.emulator.contract import Chunk, Event, JobDone, Push
from unigpu.emulator.http_client import Exchange, UpstreamError, call
from unigpu.emulator.processes import push as push_module
from unigpu.emulator.processes.push import PushTarget, push

T = Callable[[int, list[bytes]], Awaitable[Any]]


def against(answer: bytes | None, use: T) -> Any:
    """Run *use* against a server that answers with these bytes, and closes (``None``: it never answers)."""

    async def main() -> Any:
        seen: list[bytes] = []
        open_ends: list[asyncio.StreamWriter] = []

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_ends.append(writer)
            with contextlib.suppress(asyncio.IncompleteReadError, OSError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if b"content-length" in x.lower()), 0)
                if b"expect: 100-continue" in head.lower() and answer is not None:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                seen.append(head + await reader.readexactly(length))
                if answer is None:
                    await reader.read()
                else:
                    writer.write(answer)
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server:
            try:
                return await use(server.sockets[0].getsockname()[1], seen)
            finally:
                for writer in open_ends:
                    writer.close()
                    with contextlib.suppress(OSError):
                        await writer.wait_closed()

    return asyncio.run(main())


def ok(body: bytes, kind: str = "application/json") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (kind.encode(), len(body), body)


def chunked(*parts: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


def test_a_webhook_is_called_once_with_its_body_and_the_status_comes_back() -> None:
    async def use(port: int, seen: list[bytes]) -> None:
        url = f"http://localhost:{port}/hook?x=1"
        assert await call("POST", url, headers=[("x-a", "b")], body=b"hello", seconds=10) == (200, b"fine")
        (request,) = seen
        assert request.startswith(b"POST /hook?x=1 HTTP/1.1\r\n")
        assert request.endswith(b"\r\n\r\nhello")
        assert b"x-a: b\r\n" in request

    against(b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b"fine"), use)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "closed before an answer|no HTTP answer"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome", "broke off"),
        (ok(b"x" * 2000), "longer than 1000 bytes"),
        (None, r"no answer within 0\.2 s"),
    ],
)
def test_an_answer_that_is_none_is_one_error_of_ours(answer: bytes | None, words: str) -> None:
    async def use(port: int, seen: list[bytes]) -> None:
        seconds = 0.2 if answer is None else 10
        with pytest.raises(UpstreamError, match=words):
            await call("GET", f"http://127.0.0.1:{port}/", seconds=seconds, limit=1000)

    against(answer, use)


@pytest.mark.parametrize("url", ["ftp://localhost/", "http:///x", "/x", "file:///etc/passwd"])
def test_what_is_no_http_url_is_never_called(url: str) -> None:
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(call("GET", url, seconds=1))
    assert caught.value.never_sent


def test_where_nobody_listens_nothing_was_sent() -> None:
    async def use(port: int, seen: list[bytes]) -> int:
        return port

    port = against(b"", use)
    with pytest.raises(UpstreamError) as caught:
        asyncio.run(Exchange.open("127.0.0.1", port))
    assert caught.value.never_sent


# -- jobs -------------------------------------------------------------------------------------------------------------


def give(
    answer: bytes, *, stream: bool = True, raw: bool = False, token: str | None = None
) -> tuple[list[Event], bytes]:
    events: list[Event] = []

    async def use(port: int, seen: list[bytes]) -> bytes:
        door = PushTarget(host="127.0.0.1", port=port, route="/p" if raw else "/invoke", raw=raw, token=token)
        await push(
            door, Push(worker_id="w", job_id="j", input={"é": 1}, execution_timeout=2.5, stream=stream), events.append
        )
        return seen[0]

    return events, against(answer, use)


def test_a_job_is_posted_as_the_contract_says() -> None:
    (done,), request = give(ok(b'{"output": 1, "execution_s": 0.5}'), token="t")
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /invoke HTTP/1.1")
    for field in (b"x-unigpu-job: j", b"x-unigpu-timeout: 2.5", b"authorization: Bearer t"):
        assert field in head
    assert json.loads(body) == {"input": {"é": 1}}
    assert done == JobDone(worker_id="w", job_id="j", output=1, execution_s=0.5)


def test_lines_cut_anywhere_are_the_same_chunks() -> None:
    whole = b'{"chunk": "\xc3\xa9"}\n{"chunk": null}\n{"done": true, "execution_s": 1}\n'
    for at in range(1, len(whole)):
        events, _ = give(chunked(whole[:at], whole[at:]))
        assert [e.value for e in events if isinstance(e, Chunk)] == ["é", None]
        assert events[-1] == JobDone(worker_id="w", job_id="j", output=["é", None], execution_s=1.0)


def test_an_error_after_chunks_and_a_single_value() -> None:
    events, _ = give(chunked(b'{"chunk": 1}\n', b'{"error": {"type": "E", "message": "m"}}\n'))
    last = events[-1]
    assert isinstance(last, JobDone)
    assert last.error == {"type": "E", "message": "m"}
    events, _ = give(chunked(b'{"chunk": [1]}\n{"done": true, "single": true}\n'))
    assert events[-1] == JobDone(worker_id="w", job_id="j", output=[1])


def test_a_worker_that_ends_before_it_asked_for_the_job_never_had_it() -> None:
    async def use(port: int, seen: list[bytes]) -> None:
        exchange = await Exchange.open("127.0.0.1", port)
        with pytest.raises(UpstreamError) as caught:
            await exchange.send("POST", "/invoke", [("host", "w")], b"{}", ask_first=True)
        assert caught.value.never_sent
        assert seen == []
        exchange.close()

    async def main() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.transport.abort()

        async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
            await use(server.sockets[0].getsockname()[1], [])

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503])
def test_a_worker_that_takes_no_work_now_is_busy_not_broken(status: int) -> None:
    (done,), _ = give(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % status)
    assert done == JobDone(worker_id="w", job_id="j", busy=True)


@pytest.mark.parametrize("raw", [False, True])
def test_a_status_that_the_contract_does_not_have_is_a_failure_with_the_servers_words(raw: bool) -> None:
    (done,), _ = give(b"HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops", raw=raw)
    assert isinstance(done, JobDone)
    assert done.error == {"type": "HTTP500", "message": "oops"}


def test_a_server_that_is_not_ours_gets_the_bare_input_and_answers_anything() -> None:
    for body, output in ((b'{"x": 1}', {"x": 1}), (b"plain text", "plain text"), (b"", "")):
        (done,), request = give(ok(body, "text/plain"), raw=True)
        assert json.loads(request.partition(b"\r\n\r\n")[2]) == {"é": 1}
        assert done == JobDone(worker_id="w", job_id="j", output=output)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ok(b"nope"), "not JSON"),
        (ok(b"[1]"), "not an object"),
        (chunked(b'{"chunk": 1}\n'), "without its last line"),
        (chunked(b'{"news": 1}\n'), "neither a chunk nor its end"),
    ],
)
def test_a_broken_answer_is_told_as_broken(answer: bytes, words: str) -> None:
    with pytest.raises(UpstreamError, match=words):
        give(answer)


@pytest.mark.parametrize(
    "answer",
    [ok(json.dumps({"output": "x" * 200}).encode()), chunked(b"x" * 200), chunked(b'{"chunk": "0123456789"}\n' * 20)],
    ids=["whole", "one chunk", "many chunks"],
)
def test_an_output_that_is_too_large_is_the_handlers_failure_and_not_a_lost_worker(
    answer: bytes, monkeypatch: Any
) -> None:
    monkeypatch.setattr(push_module, "OUTPUT_LIMIT", 100)
    events, _ = give(answer)
    done = events[-1]
    assert isinstance(done, JobDone)
    assert (done.lost, done.error and done.error["type"]) == (False, "OutputTooLarge")
