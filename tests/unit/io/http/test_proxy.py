from __future__ import annotations

from typing import Any

import pytest
import respx

from unigpu import errors
from unigpu._io.http.client import HttpConfig
from unigpu._io.http.proxy import Proxies

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("socks4://user:canary@proxy.example", "'socks4'"),
        ("ftp://proxy.example", "'ftp'"),
        ("http://", "not a URL"),
        ("http://proxy.example:99999", "not a URL"),
        ("socks5://proxy.example", "pip install socksio"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_a_configuration_error(
    flavour: Any, env: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    env.setenv("HTTPS_PROXY", text)
    with pytest.raises(errors.ConfigurationError, match=words) as caught:
        flavour.make(HttpConfig())
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("api.example.com", "", False),
        ("api.example.com", "example.com", True),
        ("api.example.com", ".example.com", True),
        ("api.example.com", "*.example.com", True),
        ("badexample.com", "example.com", False),
        ("api.example.com", "other.com, *", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("localhost", "", True),
        ("127.0.0.1", "", True),
        ("::1", "", True),
        ("sub.localhost", "", True),
    ],
)
def test_who_is_reached_without_the_proxy(host: str, no_proxy: str, direct: bool) -> None:
    proxies = Proxies({"http": "http://proxy.example:3128", "no": no_proxy})
    assert (proxies.find("http", host) is None) is direct


def test_a_proxy_shows_no_password() -> None:
    proxy = Proxies({"all": "http://me:canary@proxy.example"}).find("https", "x.example")
    assert proxy is not None
    assert proxy.auth == ("me", "canary")
    assert "canary" not in repr(proxy) + proxy.url


def test_providers_go_through_the_proxy_and_workers_never_do(
    flavour: Any, ask: Any, serve: Any, env: pytest.MonkeyPatch
) -> None:
    proxy = serve()
    env.setenv("HTTP_PROXY", f"http://me:pass@127.0.0.1:{proxy.port}")

    async def work(io: Any) -> None:
        for _ in range(3):
            assert (await io.send(ask(io, "http://api.example/x?y=1"))).status == 200
        with pytest.raises(errors.TransportError):
            await io.send(ask(io, "http://192.0.2.1:1/", role="worker"))

    flavour.with_io(work, HttpConfig())
    assert [line for line, _, _ in proxy.requests] == ["GET http://api.example/x?y=1 HTTP/1.1"] * 3
    assert proxy.requests[0][1]["proxy-authorization"].startswith("Basic ")
    assert proxy.connections == 1


def test_the_deadline_holds_through_a_proxy(flavour: Any, ask: Any, serve: Any, env: pytest.MonkeyPatch) -> None:
    def drip(conn: Any) -> None:
        conn.request()
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not conn.server.stopping.wait(0.02):
            conn.sock.sendall(b"x")

    env.setenv("ALL_PROXY", serve(drip).url)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout):
            await io.send(ask(io, "http://api.example/", seconds=0.3))

    flavour.with_io(work, HttpConfig())


def test_a_refused_tunnel_was_never_sent(flavour: Any, ask: Any, serve: Any, env: pytest.MonkeyPatch) -> None:
    def refuse(conn: Any) -> None:
        while conn.request():
            conn.answer(b"<html>no</html>", "407 Proxy Authentication Required")

    env.setenv("HTTPS_PROXY", serve(refuse).url)

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match="proxy refused") as caught:
            await io.send(ask(io, "https://api.example/"))
        assert caught.value.never_sent

    flavour.with_io(work, HttpConfig())


def test_a_mock_intercepts_what_would_go_through_a_proxy(flavour: Any, ask: Any, env: pytest.MonkeyPatch) -> None:
    env.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def work(io: Any) -> None:
        with respx.mock:
            respx.get("https://api.example/").respond(201)
            assert (await io.send(ask(io, "https://api.example/"))).status == 201

    flavour.with_io(work, HttpConfig())
