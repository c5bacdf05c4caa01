"""Over real sockets: deadlines, broken replies, redirects, sizes, and how many connections it takes."""

from __future__ import annotations

import gzip
import threading
import zlib
from typing import Any

import pytest

from unigpu import errors
from unigpu._io.contract import CallClass
from unigpu._io.http.client import HttpConfig

PATIENCE = 40.0  # far above any deadline below: a server that comes to its end means that the deadline did not hold


def drip(conn: Any) -> None:
    conn.request()
    conn.sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    _drops(conn)


def drip_headers(conn: Any) -> None:
    conn.request()
    conn.sock.sendall(b"HTTP/1.1 200 OK\r\nx-slow: ")
    _drops(conn)


def _drops(conn: Any) -> None:
    for _ in range(int(PATIENCE / 0.02)):
        if conn.server.stopping.wait(0.02):
            return
        conn.sock.sendall(b"x")


def silent(conn: Any) -> None:
    conn.request()
    conn.server.stopping.wait(PATIENCE)


@pytest.mark.parametrize("script", [drip, drip_headers, silent])
def test_the_total_deadline_holds_against_a_slow_server(flavour: Any, ask: Any, serve: Any, script: Any) -> None:
    server = serve(script)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, server.url, seconds=0.3, method="POST", json={}))
        assert server.finished == 0
        assert not caught.value.never_sent
        assert "deadline has passed" in str(caught.value)

    flavour.with_io(work)


def test_the_total_deadline_holds_for_each_request_on_a_reused_connection(flavour: Any, ask: Any, serve: Any) -> None:
    def script(conn: Any) -> None:
        for _ in range(2):
            conn.request()
            conn.answer()
        drip(conn)

    server = serve(script)

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, server.url, seconds=10))).status == 200
        assert (await io.send(ask(io, server.url, seconds=30))).status == 200
        with pytest.raises(errors.TransportTimeout):
            await io.send(ask(io, server.url, seconds=0.3))

    flavour.with_io(work)
    assert server.connections == 1


def test_the_total_deadline_holds_in_a_stream(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(drip)

    async def work(io: Any) -> None:
        got = list[bytes]()

        async def read() -> None:
            async with io.stream(ask(io, server.url, seconds=1)) as reply:
                async for chunk in reply.chunks():
                    got.append(chunk)

        with pytest.raises(errors.TransportTimeout):
            await read()
        assert got

    flavour.with_io(work)


def test_the_deadline_holds_against_a_server_that_never_reads(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(lambda conn: conn.server.stopping.wait(PATIENCE), receive_buffer=4096)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, server.url, seconds=0.3, method="POST", content=b"x" * 16_000_000))
        assert server.finished == 0
        assert not caught.value.never_sent

    flavour.with_io(work)


def test_the_deadline_holds_in_the_line_for_a_connection(loop_flavour: Any, ask: Any, serve: Any) -> None:
    import anyio

    server = serve(silent)

    async def work(io: Any) -> None:
        async with anyio.create_task_group() as group:

            async def hog() -> None:
                with pytest.raises(errors.TransportTimeout):
                    await io.send(ask(io, server.url, seconds=60))

            group.start_soon(hog)
            while server.connections == 0:
                await anyio.sleep(0.005)
            with pytest.raises(errors.TransportTimeout, match="became free") as caught:
                await io.send(ask(io, server.url, seconds=0.1))
            assert caught.value.never_sent
            group.cancel_scope.cancel()

    loop_flavour.with_io(work, HttpConfig(private_workers=True, trust_env=False, limit=1))


def test_a_read_timeout_ends_one_attempt_before_the_deadline(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(silent)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, server.url, seconds=600, read_timeout=0.1))
        assert caught.value.stop_reason is None

    flavour.with_io(work)


def cut(conn: Any) -> None:
    conn.request()
    conn.answer(b"half", length=100)


def reset_after_request(conn: Any) -> None:
    conn.request()
    conn.reset()


def hang_up(conn: Any) -> None:
    conn.request()


def raw(data: bytes) -> Any:
    def script(conn: Any) -> None:
        conn.request()
        conn.sock.sendall(data)

    script.__name__ = f"raw_{zlib.crc32(data)}"
    return script


@pytest.mark.parametrize(
    "script",
    [
        cut,
        reset_after_request,
        hang_up,
        raw(b"SSH-2.0-OpenSSH\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
        raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc"),
        raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n"),
    ],
)
def test_a_reply_that_is_not_whole_is_ambiguous(flavour: Any, ask: Any, serve: Any, script: Any) -> None:
    server = serve(script)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError) as caught:
            await io.send(ask(io, server.url, method="POST", json={}))
        assert caught.value.never_sent is False
        assert caught.value.maybe_executed is True
        assert caught.value.__context__ is None

    flavour.with_io(work)


def test_a_refused_connection_was_never_sent(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve()
    server.close()

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match="refused") as caught:
            await io.send(ask(io, server.url))
        assert caught.value.never_sent

    flavour.with_io(work)


def test_plain_http_on_a_tls_url_was_never_sent(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(lambda conn: (conn.sock.recv(1000), conn.sock.sendall(b"HTTP/1.1 400 no\r\n\r\n")))

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError) as caught:
            await io.send(ask(io, server.url.replace("http:", "https:"), seconds=5))
        assert caught.value.never_sent

    flavour.with_io(work)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["same", "other", "https", "none"])
def test_a_redirect_is_an_error_and_never_followed(
    flavour: Any, ask: Any, serve: Any, status: int, target: str
) -> None:
    other = serve()

    def script(conn: Any) -> None:
        while conn.request():
            where = {
                "same": "/elsewhere?token=canary",
                "other": f"http://user:canary@127.0.0.1:{other.port}/x?token=canary",
                "https": "https://evil.example/canary",
                "none": "",
            }[target]
            conn.answer(b"moved", f"{status} Moved", *([f"Location: {where}"] if where else []))

    server = serve(script)

    async def work(io: Any) -> None:
        request = ask(
            io,
            server.url,
            method="POST",
            json={},
            headers=(("X-API-Key", "canary-key"), ("Authorization", "Bearer canary-key")),
            call=CallClass.RECONCILE,
        )

        async def open_it() -> None:
            async with io.stream(request):
                raise AssertionError("opened")

        for attempt in (lambda: io.send(request), open_it):
            with pytest.raises(errors.InvalidResponseError) as caught:
                await attempt()
            text = str(caught.value)
            assert "canary" not in text
            assert f"HTTP {status}" in text
            assert ("evil.example" in text) is (target == "https")
            assert caught.value.retryable is False

    flavour.with_io(work)
    assert len(server.requests) == 2
    assert other.requests == []
    assert other.connections == 0


# Sizes


def coded(body: bytes, coding: str) -> Any:
    def script(conn: Any) -> None:
        while conn.request():
            conn.answer(body, "200 OK", f"Content-Encoding: {coding}")

    return script


RAW_DEFLATE = zlib.compressobj(wbits=-15)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"hello" * 100)),
        ("gzip", gzip.compress(b"hello" * 40) + gzip.compress(b"hello" * 60)),
        ("x-gzip", gzip.compress(b"hello" * 100)),
        ("deflate", zlib.compress(b"hello" * 100)),
        ("deflate", RAW_DEFLATE.compress(b"hello" * 100) + RAW_DEFLATE.flush()),
        ("identity", b"hello" * 100),
    ],
    ids=["gzip", "two members", "x-gzip", "deflate", "bare deflate", "identity"],
)
def test_a_coded_body_is_decoded(flavour: Any, ask: Any, serve: Any, coding: str, body: bytes) -> None:
    server = serve(coded(body, coding))

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, server.url))).content == b"hello" * 100
        async with io.stream(ask(io, server.url)) as reply:
            decoded = b"".join([chunk async for chunk in reply.chunks()])
            assert decoded == b"hello" * 100
            assert ("content-encoding" in reply.headers) is (coding == "identity")

    flavour.with_io(work)


@pytest.mark.parametrize(
    ("body", "coding", "words"),
    [
        (gzip.compress(b"\0" * 50_000_000), "gzip", "unpacks to more than 200 times"),
        (gzip.compress(b"hello")[:-4], "gzip", "ends too early"),
        (b"not gzip", "gzip", "not coded as it says"),
        (gzip.compress(b"hello") + b"more", "gzip", "something follows"),
        (zlib.compress(b"hello") + b"more", "deflate", "something follows"),
        (b"x", "br", "not asked for"),
        (b"x", "gzip, gzip", "not asked for"),
    ],
    ids=["bomb", "cut", "not gzip", "tail", "deflate tail", "brotli", "twice"],
)
def test_a_hostile_coding_is_refused(flavour: Any, ask: Any, serve: Any, body: bytes, coding: str, words: str) -> None:
    server = serve(coded(body, coding))

    async def work(io: Any) -> None:
        with pytest.raises(errors.InvalidResponseError, match=words) as caught:
            await io.send(ask(io, server.url))
        assert caught.value.maybe_executed is True
        assert (await io.send(ask(io, serve().url))).status == 200

    flavour.with_io(work)


def test_an_endless_reply_is_cut_at_the_cap(flavour: Any, ask: Any, serve: Any) -> None:
    def script(conn: Any) -> None:
        conn.request()
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not conn.server.stopping.is_set():
            conn.sock.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")

    server = serve(script)

    async def work(io: Any) -> None:
        with pytest.raises(errors.InvalidResponseError, match="larger than 1,000,000 bytes"):
            await io.send(ask(io, server.url))
        with pytest.raises(errors.InvalidResponseError, match="larger than 1,000,000 bytes"):
            async with io.stream(ask(io, server.url)) as reply:
                await reply.read()

    flavour.with_io(work, HttpConfig(private_workers=True, trust_env=False, max_response=1_000_000))


# Connections


def test_keep_alive_uses_one_connection_and_create_a_new_one_each(flavour: Any, ask: Any, serve: Any) -> None:
    server, creating = serve(), serve()

    async def work(io: Any) -> None:
        for _ in range(10):
            await io.send(ask(io, server.url, role="control"))
            await io.send(ask(io, creating.url, role="create", method="POST", call=CallClass.RECONCILE))

    flavour.with_io(work)
    assert server.connections == 1
    assert creating.connections == 10
    assert all(headers.get("connection") == "close" for _, headers, _ in creating.requests)


def test_a_connection_that_the_server_closed_is_not_used_again(flavour: Any, ask: Any, serve: Any) -> None:
    gone = threading.Semaphore(0)

    def once(conn: Any) -> None:
        conn.request()
        conn.answer()
        conn.sock.close()
        gone.release()

    server = serve(once)

    async def work(io: Any) -> None:
        for _ in range(5):
            reply = await io.send(ask(io, server.url, call=CallClass.USER_DECIDES, role="jobs"))
            assert reply.status == 200
            gone.acquire(timeout=5)

    flavour.with_io(work)
    assert server.connections == 5


def test_leaving_a_stream_early_closes_its_connection_and_frees_its_slot(flavour: Any, ask: Any, serve: Any) -> None:
    left = threading.Event()

    def script(conn: Any) -> None:
        conn.request()
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            while not conn.server.stopping.is_set():
                conn.sock.sendall(b"1\r\nx\r\n")
        except OSError:
            left.set()

    server = serve(script)

    async def work(io: Any) -> None:
        for _ in range(3):
            left.clear()
            async with io.stream(ask(io, server.url)) as reply:
                async for _ in reply.chunks():
                    break
            assert left.wait(10)

    flavour.with_io(work, HttpConfig(private_workers=True, trust_env=False, limit=1))
    assert server.connections == 3


def test_the_request_arrives_as_it_was_meant(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve()

    async def work(io: Any) -> None:
        await io.send(
            ask(
                io,
                f"{server.url}/a%20b?x=1&x=2",
                method="put",
                params=(("x", "ü &="), ("x", "4")),
                headers=(("X-One", "1"), ("X-One", "2")),
                content=b"\x00\xff",
            )
        )
        await io.send(ask(io, server.url, method="POST"))
        await io.send(ask(io, server.url, role="worker"))

    flavour.with_io(work, HttpConfig(private_workers=True, trust_env=False, user_agent="unigpu/test"))
    line, headers, body = server.requests[0]
    assert line == "PUT /a%20b?x=1&x=2&x=%C3%BC%20%26%3D&x=4 HTTP/1.1"
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["user-agent"] == "unigpu/test"
    assert body == b"\x00\xff"
    assert server.requests[1][1]["content-length"] == "0"
    assert set(server.requests[2][1]) == {"host"}  # a worker learns nothing about us


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"url": "http://user:canary@host/"}, "user name"),
        ({"url": "http://user@host/"}, "user name"),
        ({"url": "ftp://host/"}, "not http"),
        ({"url": "//host/x"}, "not http"),
        ({"url": "http:///x"}, "not http"),
        ({"url": "http://host:99999/"}, "cannot be read"),
        ({"url": "http://host:0/"}, "port 0"),
        ({"url": "http://host/a b"}, "blank"),
        ({"url": "http://host/\r\nX: y"}, "blank"),
        ({"url": "http://hößt/"}, "no ASCII"),
        ({"url": "http:\\\\host"}, "backslash"),
        ({"url": "http://host/#x"}, "fragment"),
        ({"headers": (("X-API-Key", "canary\n"),)}, "X-API-Key"),
        ({"headers": (("X-API-Key", "canäry"),)}, "X-API-Key"),
        ({"headers": (("X-API-Key", " canary"),)}, "X-API-Key"),
        ({"headers": (("Bad Name", "canary"),)}, "a name that is not a word"),
        ({"method": "GE T"}, "method"),
        ({"content": b"x", "json": {}}, "both"),
        ({"json": {"a": {1, 2}}}, "JSON"),
        ({"json": float("nan")}, "JSON"),
        ({"json": "\ud800"}, "JSON"),
        ({"params": (("a", "\ud800"),)}, "Unicode"),
    ],
)
def test_what_cannot_be_sent_as_it_is_is_refused_before_sending(
    flavour: Any, ask: Any, fields: dict[str, Any], words: str
) -> None:
    async def work(io: Any) -> None:
        url = fields.get("url", "http://127.0.0.1:1/")
        rest = {key: value for key, value in fields.items() if key != "url"}
        with pytest.raises(errors.ConfigurationError, match=words) as caught:
            await io.send(ask(io, url, **rest))
        assert "canary" not in str(caught.value) + repr(caught.value.__dict__)
        assert caught.value.__context__ is None or "can" not in repr(caught.value.__context__)

    flavour.with_io(work)


def test_after_close_every_use_says_so(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve()

    async def main() -> None:
        io = flavour.make()
        await io.send(ask(io, server.url))
        if flavour.is_async:
            await io.aclose()
        else:
            io.close()
        with pytest.raises(errors.ClientClosed):
            await io.send(ask(io, server.url))
        with pytest.raises(errors.ClientClosed):
            async with io.stream(ask(io, server.url)):
                pass

    flavour.run(main)
