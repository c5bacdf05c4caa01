"""TLS: checked always, one context for providers and one for workers, and the handshake counts against the deadline."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unigpu import errors
from unigpu._io.contract import Trust
from unigpu._io.http.client import HttpConfig
from unigpu._io.http.network import trusting as context_of

PEM = Path(__file__).parent / "loopback.pem"  # made for these tests: key and certificate of 127.0.0.1 and localhost


def tls(script: Any) -> Any:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)

    def wrapped(conn: Any) -> None:
        conn.sock = context.wrap_socket(conn.sock, server_side=True)
        with conn.sock:
            script(conn)

    return wrapped


def echo(conn: Any) -> None:
    while (got := conn.request()) is not None:
        conn.answer(got[2] or b"ok")


def trusting() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(PEM))


def config(**fields: Any) -> HttpConfig:
    return HttpConfig(private_workers=True, trust_env=False, **fields)


def test_an_unknown_certificate_is_refused_with_its_reason_and_not_tried_again(
    flavour: Any, ask: Any, serve: Any
) -> None:
    server = serve(tls(echo))

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match="certificate was refused: self-signed") as caught:
            await io.send(ask(io, f"https://127.0.0.1:{server.port}/"))
        assert caught.value.never_sent
        assert caught.value.retryable is False

    flavour.with_io(work, config())
    assert server.requests == []


def test_a_certificate_of_another_host_is_refused(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(tls(echo), host="127.0.0.2")

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportError, match="certificate was refused"):
            await io.send(ask(io, f"https://127.0.0.2:{server.port}/"))

    flavour.with_io(work, config(ssl_context=trusting()))
    assert server.requests == []


def test_providers_and_workers_each_have_their_own_roots(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(tls(echo))
    url = f"https://localhost:{server.port}/"

    async def work(io: Any) -> None:
        for _ in range(3):
            assert (await io.send(ask(io, url, role="worker"))).status == 200
        for role in ("control", "create", "jobs"):
            with pytest.raises(errors.TransportError, match="certificate"):
                await io.send(ask(io, url, role=role))

    flavour.with_io(work, config(worker_ssl_context=trusting()))
    assert len(server.requests) == 3


def test_a_handshake_that_never_ends_is_over_at_the_deadline(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(lambda conn: conn.server.stopping.wait(60))

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, f"https://127.0.0.1:{server.port}/", seconds=0.2))
        assert caught.value.never_sent

    flavour.with_io(work, config(ssl_context=trusting()))


def test_the_deadline_holds_over_tls(flavour: Any, ask: Any, serve: Any) -> None:
    def drip(conn: Any) -> None:
        conn.request()
        conn.sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while not conn.server.stopping.wait(0.02):
            conn.sock.sendall(b"x")

    server = serve(tls(drip))

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, f"https://127.0.0.1:{server.port}/", seconds=0.5))
        assert not caught.value.never_sent

    flavour.with_io(work, config(ssl_context=trusting()))


def test_a_large_body_goes_over_tls_whole(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(tls(echo))
    body = bytes(range(256)) * 20_000

    async def work(io: Any) -> None:
        reply = await io.send(ask(io, f"https://127.0.0.1:{server.port}/", seconds=60, method="POST", content=body))
        assert reply.content == body

    flavour.with_io(work, config(ssl_context=trusting()))


def test_a_platforms_own_root_counts_for_its_workers_alone(flavour: Any, ask: Any, serve: Any) -> None:
    text = PEM.read_text()
    mine = Trust(roots=text[text.index("-----BEGIN CERTIFICATE-----") :], strict=False)
    server = serve(tls(echo))
    url = f"https://localhost:{server.port}/"

    async def work(io: Any) -> None:
        for _ in range(3):
            assert (await io.send(replace(ask(io, url, role="worker"), trust=mine))).status == 200
        refused = [replace(ask(io, url, role=role), trust=mine) for role in ("control", "create", "jobs")]
        for request in (ask(io, url, role="worker"), *refused):  # no other request trusts it, whoever asked before
            with pytest.raises(errors.TransportError, match="certificate"):
                await io.send(request)

    flavour.with_io(work, config())
    assert len(server.requests) == 3


def test_beside_an_own_root_the_usual_ones_do_not_count() -> None:
    text = PEM.read_text()
    trust = Trust(roots=text[text.index("-----BEGIN CERTIFICATE-----") :], strict=False)
    context = context_of(trust)
    assert len(context.get_ca_certs()) == 1
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert trust.roots not in repr(trust)
    with pytest.raises(errors.ConfigurationError, match="PEM"):
        context_of(Trust(roots="no certificate"))
