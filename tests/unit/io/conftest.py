"""Three ways to run one test, and servers on loopback that misbehave on demand."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest

from unigpu._io.bridge import run_sync
from unigpu._io.contract import CallClass, Request
from unigpu._io.http.client import AsyncHttpIo, HttpConfig, SyncHttpIo

LOOPBACK = HttpConfig(private_workers=True, trust_env=False)


class Flavour:
    """Sync, asyncio or trio: one test body for all three."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_async = name != "sync"

    def make(self, config: HttpConfig = LOOPBACK) -> Any:
        return AsyncHttpIo(config) if self.is_async else SyncHttpIo(config)

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        if not self.is_async:
            return run_sync(work())  # type: ignore[arg-type]  # a coroutine function in every test

        async def main() -> Any:
            return await work()

        return anyio.run(main, backend=self.name)

    def with_io(self, work: Callable[[Any], Awaitable[Any]], config: HttpConfig = LOOPBACK) -> Any:
        """Run ``work(io)`` over a new `Io`, closed afterwards."""

        async def main() -> Any:
            io = self.make(config)
            try:
                return await work(io)
            finally:
                if self.is_async:
                    await io.aclose()
                else:
                    io.close()

        return self.run(main)


@pytest.fixture(params=["sync", "asyncio", "trio"])
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return Flavour(request.param)


@pytest.fixture(params=["asyncio", "trio"])
def loop_flavour(request: pytest.FixtureRequest) -> Flavour:
    return Flavour(request.param)


@pytest.fixture
def ask() -> Callable[..., Request]:
    """``ask(io, url, seconds=…, **fields)``: a request with the usual fields filled in."""

    def make(io: Any, url: str, *, seconds: float = 10.0, **fields: Any) -> Request:
        usual: dict[str, Any] = {
            "method": "GET",
            "operation": "test.op",
            "role": "control",
            "call": CallClass.IDEMPOTENT,
            "deadline": io.now() + seconds,
        }
        return Request(url=url, **{**usual, **fields})

    return make


class Conn:
    """One accepted connection, with the few words a scripted server needs."""

    def __init__(self, sock: socket.socket, server: Server) -> None:
        self.sock, self.server = sock, server
        self._data = b""

    def request(self) -> tuple[str, dict[str, str], bytes] | None:
        """Read one request: first line, headers, body. ``None``: the client left."""
        while b"\r\n\r\n" not in self._data:
            more = self.sock.recv(65536)
            if not more:
                return None
            self._data += more
        head, _, rest = self._data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
        size = int(headers.get("content-length", 0))
        while len(rest) < size:
            more = self.sock.recv(65536)
            if not more:
                return None
            rest += more
        self._data = rest[size:]
        with self.server.lock:
            self.server.requests.append((lines[0], headers, rest[:size]))
        return lines[0], headers, rest[:size]

    def answer(self, body: bytes = b"ok", status: str = "200 OK", *headers: str, length: int | None = None) -> None:
        size = len(body) if length is None else length
        head = "\r\n".join((f"HTTP/1.1 {status}", f"Content-Length: {size}", *headers, "", ""))
        self.sock.sendall(head.encode("latin-1") + body)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """A scripted server: *script* runs in a thread for each connection."""

    def __init__(
        self, script: Callable[[Conn], object], *, receive_buffer: int | None = None, host: str = "127.0.0.1"
    ) -> None:
        self._script = script
        self.connections = 0
        self.finished = 0  # scripts that came to their end, and not by a client who left
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._conns: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket()
        if receive_buffer is not None:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind((host, 0))
        self._listener.listen(512)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                self._conns.append(sock)
                thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            self._script(Conn(sock, self))
            with self.lock:
                self.finished += 1

    def close(self) -> None:
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(5)
        with self.lock:
            conns, threads = list(self._conns), list(self._threads)
        for sock in conns:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)


def echo(conn: Conn) -> None:
    """Answer every request with its own body."""
    while (got := conn.request()) is not None:
        conn.answer(got[2] or b"ok")


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """``serve(script)``: a running server; without a script it echoes."""
    servers: list[Server] = []

    def start(script: Callable[[Conn], object] = echo, **options: Any) -> Server:
        servers.append(Server(script, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
