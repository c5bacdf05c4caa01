"""Tokens, breaker, rates, records and events, as a client's user meets them; and no secret in any of them."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

import anyio
import httpx
import pytest
from pydantic import SecretStr

import unigpu.elasticity
from unigpu import CircuitOpen, Client, UniGPUError, _registry
from unigpu._io.bridge import run_sync
from unigpu._io.clock import InstantClock
from unigpu._io.contract import CallClass, Request
from unigpu.driver import Limit
from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models import Event
from unigpu.providers.local import LocalDriver

FACTS = Path(unigpu.elasticity.__file__).parent / "facts" / "local.toml"
TOKEN = "canary/4711+SECRET=="
FORMS = [TOKEN, base64.b64encode(TOKEN.encode()).decode().rstrip("="), quote(TOKEN, safe=""), TOKEN[:8]]


class Line(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A line to nowhere in particular: answers each request as it is told."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []
        self.answer: Callable[[], httpx.Response] | None = None
        self.cloud: VirtualCloud | None = None

    def empty(self) -> httpx.Response:
        return httpx.Response(200, json={"deployments": []})

    def broken(self) -> httpx.Response:
        raise httpx.ReadError("reset")

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        if self.answer is not None:
            return self.answer()
        if self.cloud is None:
            return self.empty()
        url = urlsplit(str(request.url))
        found = self.cloud.call(
            HttpCall(
                method=request.method,
                path=url.path,
                query=dict(parse_qsl(url.query)),
                body=request.content,
                host="127.0.0.1",
                headers=dict(request.headers),
                scheme="http",
                target=url.path,
            )
        )
        assert isinstance(found, Reply)
        return httpx.Response(found.status, headers=list(found.headers), content=found.body)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


@pytest.fixture
def line(instant: InstantClock) -> Line:
    return Line()


def options(line: Line, **more: Any) -> dict[str, Any]:
    return {
        "provider": "local",
        "driver_options": {"local": {"base_url": "http://127.0.0.1:1", "token": TOKEN}},
        "transport": line,
        **more,
    }


def test_a_client_stops_asking_a_provider_that_is_down_and_another_client_starts_anew(
    flavour: Any, line: Line, instant: InstantClock
) -> None:
    line.answer = line.broken
    events: list[Event] = []

    async def work(client: Any) -> None:
        caught: list[UniGPUError] = []
        for _ in range(4):
            with pytest.raises(UniGPUError) as one:
                await client.deployments(provider="local")
            caught.append(one.value)
        assert [error.stop_reason for error in caught] == ["attempts", "breaker", "breaker", "breaker"]
        assert len(line.sent) == 5
        refused = caught[-1]
        assert isinstance(refused, CircuitOpen)
        assert refused.retry_after is not None
        instant.advance(refused.retry_after)
        line.answer = line.empty
        assert list(await client.deployments(provider="local")) == []

    flavour.run(work, **options(line, on_event=events.append))
    kinds = [event.kind for event in events]
    assert kinds == ["retry"] * 3 + ["gave_up", "breaker.opened"] + ["gave_up"] * 3 + ["breaker.closed"]
    assert {(event.provider, event.operation) for event in events} == {("local", "local.deployment.list")}
    line.answer = line.broken
    before = len(line.sent)

    async def anew(client: Any) -> None:
        with pytest.raises(UniGPUError):
            await client.deployments(provider="local")

    flavour.run(anew, **options(line))
    assert len(line.sent) == before + 4


def test_a_teardown_goes_out_although_the_breaker_is_open(flavour: Any, line: Line, instant: InstantClock) -> None:
    row: dict[str, Any] = {}

    async def work(client: Any) -> None:
        cloud = VirtualCloud(clock=instant)
        cloud.mount(LocalEmulator(cloud.engine, token=TOKEN))
        line.cloud = cloud
        app = await client.deploy(name="work", command=["true"], interface="http", workers=(0, 1), progress="off")
        line.answer = line.broken
        for _ in range(3):
            with contextlib.suppress(UniGPUError):
                await client.deployments(provider="local")
        with pytest.raises(CircuitOpen):
            await app.scale((0, 2))
        line.answer = None
        await app.teardown()
        row["left"] = cloud.engine.deployments.list(instant.now(), platform="local")

    flavour.run(work, **options(line, state_dir=None))
    assert row == {"left": []}


@pytest.mark.parametrize("broken", [True, False])
def test_a_map_on_its_own_loop_shares_what_its_client_remembers(
    line: Line, instant: InstantClock, broken: bool
) -> None:
    with Client(**options(line)) as client:
        context = client._context
        request = Request(
            method="GET", url="http://127.0.0.1:1/", operation="local.x", role="control", call=CallClass.IDEMPOTENT,
            deadline=instant.now() + 600,
        )  # fmt: skip
        ways: list[Any] = []

        async def inside() -> None:
            async with client._map_calls() as calls:
                ways.append(calls.context.transports)
                if broken:
                    with pytest.raises(CircuitOpen):
                        await calls.context.io.send(request)
                else:
                    await calls.context.io.send(request)

        if broken:
            line.answer = line.broken
            for _ in range(3):
                with contextlib.suppress(UniGPUError):
                    run_sync(context.io.send(request))
        else:
            line.answer = lambda: httpx.Response(200, headers={"RateLimit": '"minute";r=0;t=12'})
            run_sync(context.io.send(request))
        before = instant.now()
        anyio.run(inside)
        assert ways[0].protection is context.transports.protection
        assert instant.now() - before == (0 if broken else 12)


def test_a_drivers_table_of_rates_is_kept_to(flavour: Any, line: Line, instant: InstantClock) -> None:
    class Polite(LocalDriver):
        name = "polite"
        facts = FACTS
        limits: ClassVar[dict[str, Limit]] = {"local.list": Limit.every(7.0)}

        async def deployments(self, io: Any, *, deadline: float) -> Any:
            await io.send(
                Request(
                    method="GET",
                    url="http://127.0.0.1:1/",
                    operation="local.list",
                    role="control",
                    call=CallClass.IDEMPOTENT,
                    deadline=deadline,
                    limit_key="local.list",
                )
            )
            return []

    async def work(client: Any) -> None:
        for _ in range(4):
            await client.deployments(provider="polite")

    began = instant.now()
    with _registry.using("polite", Polite):
        flavour.run(work, **{**options(line), "driver_options": {}})
    assert instant.now() - began == pytest.approx(21)


def test_a_hook_that_raises_is_counted_and_changes_nothing(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    def hook(event: Event) -> None:
        raise ValueError(f"cannot take {event.kind}")

    answers = [line.broken, line.broken, line.empty]
    line.answer = lambda: answers.pop(0)()
    with caplog.at_level(logging.WARNING, "unigpu.client"), Client(**options(line, on_event=hook)) as client:
        assert list(client.deployments(provider="local")) == []
        assert client._context.session.event_failures == 2
    assert [r.getMessage() for r in caplog.records] == [
        "on_event failed for retry (1 so far): ValueError",
        "on_event failed for retry (2 so far): ValueError",
    ]


# No secret anywhere


class Server:
    """The local platform on a real socket, and what a broken or malicious one might answer instead."""

    def __init__(self, clock: InstantClock) -> None:
        self.mode = "ok"
        self.cloud = VirtualCloud(clock=clock, behavior=Behavior(run=_handler, cold_start=0.01))
        self.cloud.mount(LocalEmulator(self.cloud.engine, token=TOKEN))
        self.lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: it would cost 40 ms each time

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError):
                    super().handle_one_request()

            def __getattr__(self, name: str) -> Any:
                if name.startswith("do_"):
                    return self.answer
                raise AttributeError(name)

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                server.answer(self, body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()

    def answer(self, handler: Any, body: bytes) -> None:
        echo = repr({**handler.headers, "again": f"Bearer {TOKEN}", "plain": TOKEN}).encode()
        if self.mode == "drop":
            handler.close_connection = True
        elif self.mode == "cut":
            self.reply(handler, 200, echo, length=len(echo) + 100)
            handler.close_connection = True
        elif self.mode == "garbage":
            handler.wfile.write(echo + b"\r\n\r\n")
            handler.close_connection = True
        elif self.mode == "page":
            self.reply(handler, 200, b"<html>" + echo)
        elif self.mode == "shape":
            self.reply(handler, 200, json.dumps({"id": [TOKEN], "deployments": {TOKEN: TOKEN}}).encode())
        elif self.mode == "redirect":
            self.reply(handler, 307, echo, location=f"https://other.example/?key={quote(TOKEN, safe='')}")
        elif self.mode != "ok":
            self.reply(handler, int(self.mode), echo)
        else:
            url = urlsplit(handler.path)
            call = HttpCall(
                method=handler.command, path=url.path, query=dict(parse_qsl(url.query)), body=body, host="127.0.0.1",
                headers={k.lower(): v for k, v in handler.headers.items()}, scheme="http", target=handler.path,
            )  # fmt: skip
            with self.lock:
                found = self.cloud.call(call)
            assert isinstance(found, Reply)
            self.reply(handler, found.status, found.body, **dict(found.headers))

    def reply(self, handler: Any, status: int, body: bytes, *, length: int | None = None, **headers: str) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            if name.lower() != "content-length":
                handler.send_header(name, value)
        handler.send_header("content-length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)


def _handler(input: Any) -> Any:
    return {"got": input}


@pytest.fixture
def server(instant: InstantClock) -> Iterator[Server]:
    made = Server(instant)
    yield made
    made.close()


def _shown(exc: BaseException | None, seen: set[int]) -> Iterator[str]:
    if exc is None or id(exc) in seen:
        return
    seen.add(id(exc))
    yield from (str(exc), repr(exc), repr(exc.args), repr(exc.__dict__), repr(getattr(exc, "__notes__", None)))
    yield from _shown(exc.__cause__, seen)
    yield from _shown(exc.__context__, seen)


async def _all(items: Any) -> list[Any]:
    return [one async for one in items]


MODES = (
    "ok", "drop", "cut", "garbage", "page", "shape", "redirect", "401", "404", "409", "422", "429", "500", "503",
)  # fmt: skip


def test_no_operation_well_or_ill_shows_a_secret_in_any_log_event_or_error(
    flavour: Any, server: Server, instant: InstantClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    project = tmp_path / "app.py"
    project.write_text("def work(input):\n    return input\n")
    events: list[Event] = []
    shown: list[str] = []
    ends: dict[str, int] = {}

    async def attempt(mode: str, name: str, work: Callable[[], Any]) -> None:
        server.mode = mode
        try:
            shown.append(repr(await work()))
            ends["fine"] = ends.get("fine", 0) + 1
        except UniGPUError as exc:
            if mode == "ok":
                raise
            shown.extend(_shown(exc, set()))
            ends[mode] = ends.get(mode, 0) + 1
        server.mode = "ok"
        instant.advance(60)  # an open breaker lets the next one through

    async def work(client: Any) -> None:
        fields: dict[str, Any] = {
            "name": "work", "handler": f"{project}:work", "workers": (0, 1), "progress": "off",
            "secrets": {"HF_TOKEN": SecretStr(TOKEN)},
        }  # fmt: skip
        app = await client.deploy(**fields)
        job = await app.submit({"a": 1})
        shown.append(repr([client, app, job]))
        operations: dict[str, Callable[[], Any]] = {
            "deployments": lambda: client.deployments(provider="local"),
            "get": lambda: client.get("work"),
            "deploy": lambda: client.deploy(**fields, timeout=90),
            "update": lambda: app.update(execution_timeout=50, progress="off", timeout=90),
            "scale": lambda: app.scale((0, 2)),
            "wake": lambda: app.wake(),
            "wait_ready": lambda: app.wait_ready(progress="off", timeout=90),
            "workers": lambda: app.workers(),
            "logs": lambda: _all(app.logs()),
            "invoke": lambda: app.invoke({"a": 1}, timeout=90),
            "stream": lambda: _all(app.stream({"a": 1}, timeout=90)),
            "status": lambda: job.status(),
            "result": lambda: job.result(timeout=90),
            "cancel": lambda: job.cancel(),
            "map": lambda: _all(app.map([{"a": 1}], timeout=90, on_error="return", progress="off")),
            "stop": lambda: app.stop(timeout=90),
            "start": lambda: app.start(timeout=90),
        }
        for mode in MODES:
            for name, call in operations.items():
                await attempt(mode, name, call)
        await attempt("500", "teardown", lambda: app.teardown(timeout=90))
        await attempt("ok", "teardown", app.teardown)

    with caplog.at_level(logging.DEBUG):
        flavour.run(
            work,
            provider="local",
            driver_options={"local": {"base_url": server.url, "token": TOKEN}},
            state_dir=tmp_path / "state",
            on_event=events.append,
        )
    assert set(ends) >= {"fine", "drop", "cut", "page", "shape", "redirect", "401", "429", "500", "503"}
    names = {record.name for record in caplog.records}
    assert {"unigpu.retry", "unigpu.http", "httpcore.http11"} <= names
    lines = [record.getMessage() + repr(record.__dict__) for record in caplog.records if _is_ours(record)]
    for text in (*lines, *shown, *(repr(event) for event in events)):
        assert not [form for form in FORMS if form in text], text[:500]
    stored = [file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file()]
    assert not [form for form in FORMS for data in stored if form.encode() in data]


def _is_ours(record: logging.LogRecord) -> bool:
    """All but what httpcore shows of a reply's head: those are the server's own words, and this one is hostile."""
    return not record.getMessage().startswith("receive_response_headers.")
