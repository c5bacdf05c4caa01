"""Whom a worker is, and what reaches it: strangers' machines, named by an answer that anybody may have changed."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import pytest
from pydantic import SecretStr
from vast_world import FIELDS, KEY, Account, ready

from unigpu import Client
from unigpu._io.bridge import run_sync
from unigpu._io.http.client import HttpConfig, SyncHttpIo
from unigpu._io.resilience.retry import RetryingIo
from unigpu.driver import DeploymentInfo, DriverConfig, Headers, Invocation, Request, Response
from unigpu.errors import TransportError, UniGPUError
from unigpu.providers.vast import VastDriver
from unigpu.providers.vast.tls import FINGERPRINT, shipped, trust_of

INFO = DeploymentInfo(
    provider="vast", name="summarize", provider_name="summa-ugaaaaaaaaaaaa", id="12345", attempt="a" * 32,
    worker_protocol="1",
)  # fmt: skip


class Mixed(SyncHttpIo):
    """The engine answers what a test says; workers are dialled for real."""

    def __init__(self, url: str, **config: Any) -> None:
        super().__init__(HttpConfig(trust_env=False, **config))
        self.url = url

    async def send(self, request: Request) -> Response:
        if request.role == "worker":
            return await super().send(request)
        body: Any = ready(self.url)[1] if request.operation == "vast.job.route.get" else []
        return Response(status=200, headers=Headers(), content=json.dumps(body).encode(), operation=request.operation)

    @contextlib.asynccontextmanager
    async def stream(self, request: Request) -> AsyncGenerator[Any]:
        assert request.role == "worker"
        async with super().stream(request) as reply:
            yield reply

    async def sleep(self, seconds: float) -> None:
        """No time passes for pauses."""


def call(io: Mixed, *, seconds: float = 2.0, **options: Any) -> Any:
    driver = VastDriver(DriverConfig(api_key=SecretStr(KEY), options={"http_workers": True, **options}))
    until = io.now() + seconds
    asked = Invocation(input={"n": 1}, job_id="j", deadline=until, start_deadline=until, execution_timeout=600.0)
    return run_sync(driver.submit(RetryingIo(io), INFO, asked))


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every address that is dialled; nobody answers."""
    seen: list[str] = []

    def connect(self: object, host: str, *_: object, **__: object) -> None:
        seen.append(host)
        raise httpcore.ConnectError("refused")

    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    return seen


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """``resolver[name]``: the addresses that look-ups of it give, one each; the last stays."""
    table: dict[str, list[str]] = {}

    def stub(host: Any, port: Any, *_: Any, **__: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in table:
            raise socket.gaierror(-2, "Name or service not known")
        answers = table[name]
        address = answers.pop(0) if len(answers) > 1 else answers[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [(family, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    return table


FORBIDDEN = [
    "http://127.0.0.1:1/", "http://127.1:1", "http://0x7f000001:1", "http://2130706433:1", "http://017700000001:1",
    "http://localhost:1", "http://[::1]:1", "http://[::ffff:127.0.0.1]:1", "http://[::ffff:169.254.169.254]:1",
    "http://0.0.0.0:1", "http://[::]:1", "http://169.254.169.254", "http://[fe80::1]:1", "http://10.0.0.1:1",
    "http://172.16.0.1:1", "http://192.168.1.1:1", "http://100.64.0.1:1", "http://[fc00::1]:1", "http://224.0.0.1:1",
    "http://user@203.0.113.42:1", "http://127.0.0.1\\@203.0.113.42:1", "http://203.0.113.42%0d%0aHost:x:1",
    "http://203.0.113.42:99999", "http://203.0.113.42:0", "file:///etc/passwd", "gopher://203.0.113.42:1",
    "http://203.0.113.42\x00:1", "http://metadata.google.internal:80",
]  # fmt: skip
"""More than the 27 that are asked for: loopback in every spelling, private nets, link-local, and what is no address."""


@pytest.mark.parametrize("url", FORBIDDEN)
def test_no_address_of_this_machine_or_net_is_ever_dialled(
    url: str, dialled: list[str], resolver: dict[str, list[str]]
) -> None:
    for odd in ("127.1", "0x7f000001", "2130706433", "017700000001", "localhost"):
        resolver[odd] = ["127.0.0.1"]
    resolver["metadata.google.internal"] = ["169.254.169.254"]
    with pytest.raises(UniGPUError) as caught:
        call(Mixed(url))
    assert dialled == []
    assert KEY not in str(caught.value)


def test_a_name_that_turns_to_this_machine_after_it_was_checked_is_not_followed(
    dialled: list[str], resolver: dict[str, list[str]]
) -> None:
    """DNS rebinding: a public address first, then ours."""
    resolver["worker.example"] = ["93.184.216.34", "127.0.0.1"]
    with pytest.raises(UniGPUError):
        call(Mixed("http://worker.example:80"))
    assert dialled
    assert set(dialled) == {"93.184.216.34"}


def test_the_shipped_root_is_vasts() -> None:
    text = shipped()
    der = base64.b64decode("".join(line for line in text.splitlines() if line and not line.startswith("-----")))
    digest = hashlib.sha256(der).hexdigest().upper()
    assert ":".join(digest[n : n + 2] for n in range(0, 64, 2)) == FINGERPRINT
    (root,) = _context(text).get_ca_certs()
    assert dict(pair[0] for pair in root["subject"])["organizationName"] == "Vast.ai Inc."  # type: ignore[misc]  # ssl's nested tuples
    assert not trust_of(None).strict
    assert trust_of("another").roots == "another"


def _context(text: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=text)
    return context


PEM = Path(__file__).parents[2] / "unit" / "io" / "http" / "loopback.pem"


@pytest.fixture
def tls_worker() -> Iterator[Callable[[], tuple[int, list[bytes]]]]:
    """A worker on loopback with a certificate of ours; what it was sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(PEM)
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                raw, _ = listener.accept()
                with contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as conn:
                    data = conn.recv(65536)
                    while data and not data.endswith(b"}"):
                        data += conn.recv(65536)
                    seen.append(data)
                    body = b'{"output": 1, "execution_s": 0.1}'
                    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
                    conn.sendall(head + body)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield lambda: (listener.getsockname()[1], seen)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def test_a_worker_that_vast_did_not_certify_is_sent_nothing(
    tls_worker: Callable[[], tuple[int, list[bytes]]],
) -> None:
    """Nor is it asked again: the same would come again."""
    port, seen = tls_worker()
    with pytest.raises(TransportError, match="certificate") as caught:
        call(Mixed(f"https://127.0.0.1:{port}", private_workers=True), seconds=20)
    assert caught.value.never_sent
    assert seen == []


def test_a_root_of_ones_own_replaces_vasts(tls_worker: Callable[[], tuple[int, list[bytes]]]) -> None:
    port, seen = tls_worker()
    text = PEM.read_text()
    mine = text[text.index("-----BEGIN CERTIFICATE-----") :]
    result = call(Mixed(f"https://127.0.0.1:{port}", private_workers=True), worker_ca=mine, seconds=20)
    assert result.output == 1
    assert KEY.encode() not in seen[0]
    assert b"authorization" not in seen[0].lower()


def test_nothing_that_reaches_a_worker_holds_the_key(client: Client, account: Account) -> None:
    """Not its variables, not its command, not a call: `Kept` looks at every request, and this counts them."""
    app = client.deploy(**FIELDS, wait="worker", secrets={"TOKEN": "canary-secret"}, accept=["secrets_on_shared_hosts"])
    for n in range(5):
        client.invoke(app, {"n": n})
    with client.stream(app, {"n": 1}) as stream:
        list(stream)
    list(client.map(app, [{"n": n} for n in range(5)]))
    list(client.logs(app))
    (template,) = account.bodies("POST", "/api/v0/template/")
    assert "TOKEN=canary-secret" in template["env"]
    reached = [*(one.content.decode() for one in account.to_workers), json.dumps(template)]
    assert len(reached) >= 12
    assert [text for text in reached if KEY in text] == []
    assert [one for one in account.to_workers if KEY in f"{one.url}{one.headers.raw!r}"] == []
    client.teardown(app)
