"""Who is dialled: addresses that a provider names must be public, and the one that was checked is the one used."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
import respx

from unigpu import errors
from unigpu._io.http.client import HttpConfig
from unigpu._io.http.dns import is_public

GUARDED = HttpConfig(trust_env=False)

NOT_PUBLIC = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "fe80::1",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "not an address",
]


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_a_public_address(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_what_is_a_public_address(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """``resolver[name] = [answers, …]``: each look-up takes the next list of addresses; the last stays."""
    table: dict[str, Any] = {}
    real = socket.getaddrinfo

    def stub(host: Any, port: Any, *rest: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in table:
            return real(host, port, *rest, **more)
        answers = table[name]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, BaseException):
            raise found
        if callable(found):
            found = found()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    return table


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_a_worker_on_loopback_is_refused_in_every_spelling(
    flavour: Any, ask: Any, serve: Any, resolver: dict[str, Any], host: str
) -> None:
    server = serve()
    for odd in ("127.1", "0x7f000001", "2130706433"):  # no addresses to Python, but to many resolvers
        resolver[odd] = [["127.0.0.1"]]

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match="not public") as caught:
            await io.send(ask(io, f"http://{host}:{server.port}/", role="worker"))
        assert caught.value.never_sent
        assert caught.value.retryable is False

    flavour.with_io(work, GUARDED)
    assert server.connections == 0


def test_a_name_whose_second_answer_differs_is_dialled_at_the_address_that_was_checked(
    flavour: Any, ask: Any, serve: Any, resolver: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, dialled = serve(), list[str]()
    resolver["worker.example"] = [["93.184.216.34"], ["127.0.0.1"]]  # rebinding: public first, then ours

    def refuse(self: socket.socket, address: Any) -> None:
        dialled.append(address[0])
        raise ConnectionRefusedError(111, "refused")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    async def work(io: Any) -> None:
        import httpcore

        def connect(*args: Any, **_: Any) -> Any:
            dialled.append(args[1])
            raise httpcore.ConnectError("refused")

        async def aconnect(*args: Any, **_: Any) -> Any:
            connect(*args)

        monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
        monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", aconnect)
        with pytest.raises(errors.TransportError):
            await io.send(ask(io, f"http://worker.example:{server.port}/", role="worker"))

    flavour.with_io(work, GUARDED)
    assert dialled == ["93.184.216.34"]
    assert server.connections == 0


def test_of_a_mixed_answer_only_public_addresses_are_dialled(
    flavour: Any, ask: Any, serve: Any, resolver: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import httpcore

    server, dialled = serve(), list[str]()
    resolver["worker.example"] = [["127.0.0.1", "93.184.216.34", "10.0.0.1"]]

    def connect(*args: Any, **_: Any) -> Any:
        dialled.append(args[1])
        raise httpcore.ConnectError("refused")

    async def aconnect(*args: Any, **_: Any) -> Any:
        connect(*args)

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    monkeypatch.setattr(httpcore.AnyIOBackend, "connect_tcp", aconnect)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError):
            await io.send(ask(io, f"http://worker.example:{server.port}/", role="worker"))

    flavour.with_io(work, GUARDED)
    assert dialled == ["93.184.216.34"]


@pytest.mark.parametrize("role", ["control", "create", "jobs"])
def test_the_configured_base_is_the_users_word_and_is_dialled(flavour: Any, ask: Any, serve: Any, role: str) -> None:
    server = serve()

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, server.url, role=role))).status == 200

    flavour.with_io(work, GUARDED)


def test_workers_on_loopback_are_dialled_where_the_base_is_there_too(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve()

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, f"http://localhost:{server.port}/", role="worker"))).status == 200

    flavour.with_io(work)


def test_a_mock_never_reaches_the_guard(flavour: Any, ask: Any) -> None:
    async def work(io: Any) -> None:
        with respx.mock:
            respx.get("http://192.0.2.7:1234/").respond(200)
            assert (await io.send(ask(io, "http://192.0.2.7:1234/", role="worker"))).status == 200

    flavour.with_io(work, GUARDED)


# Names


def test_a_slow_name_server_cannot_outlast_the_deadline(flavour: Any, ask: Any, resolver: dict[str, Any]) -> None:
    release = threading.Event()
    answered: list[bool] = []

    def slow() -> list[str]:
        answered.append(release.wait(60))
        return ["127.0.0.1"]

    resolver["slow.example"] = [slow]

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, "http://slow.example:9/", seconds=0.2))
        assert answered == []  # it did not wait for the name server
        assert caught.value.never_sent

    try:
        flavour.with_io(work)
    finally:
        release.set()
        _no_lookup_left()


def _no_lookup_left() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("unigpu resolve"):
            thread.join(20)


def test_a_name_that_does_not_exist_was_never_sent_and_may_be_tried_again(
    flavour: Any, ask: Any, resolver: dict[str, Any]
) -> None:
    resolver["gone.example"] = [socket.gaierror(socket.EAI_NONAME, "no such name")]

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match=r"'gone\.example' was not found") as caught:
            await io.send(ask(io, "http://gone.example/"))
        assert caught.value.never_sent
        assert caught.value.retryable

    flavour.with_io(work)


def test_many_callers_of_one_name_share_one_lookup(
    loop_flavour: Any, ask: Any, serve: Any, resolver: dict[str, Any]
) -> None:
    import anyio

    server, lookups = serve(), list[int]()
    gate = threading.Event()

    def answer() -> list[str]:
        lookups.append(1)
        gate.wait(20)
        return ["127.0.0.1"]

    resolver["many.example"] = [answer]

    async def work(io: Any) -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(io.send, ask(io, f"http://many.example:{server.port}/"))
            await anyio.sleep(0.05)
            gate.set()

    loop_flavour.with_io(work)
    assert len(server.requests) == 50
    assert len(lookups) < 10


def test_the_next_address_is_tried_when_one_refuses(
    flavour: Any, ask: Any, serve: Any, resolver: dict[str, Any]
) -> None:
    server = serve()
    resolver["two.example"] = [["127.0.0.2", "127.0.0.1"]]  # nobody listens on the first

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, f"http://two.example:{server.port}/"))).status == 200

    flavour.with_io(work)
