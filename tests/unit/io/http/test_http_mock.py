"""A plain ``@respx.mock`` intercepts every call, in all flavours, also of an `Io` that was built and used before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpcore
import httpx
import pytest
import respx

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.contract import CallClass
from unigpu._io.http.client import HttpConfig, SyncHttpIo

URL = "https://api.runpod.example/v2/x"
ROLES = ("control", "create", "jobs", "worker")


@pytest.mark.parametrize("role", ROLES)
def test_every_role_is_intercepted(flavour: Any, ask: Any, role: str) -> None:
    @respx.mock
    def run() -> None:
        route = respx.post(URL).respond(201, json={"id": 1}, headers={"X-Request-Id": "r"})

        async def work(io: Any) -> None:
            reply = await io.send(ask(io, URL, method="POST", role=role, json={"a": "ü"}))
            assert (reply.status, reply.json(), reply.headers["x-request-id"]) == (201, {"id": 1}, "r")
            assert reply.operation == "test.op"

        flavour.with_io(work)
        assert route.calls.last.request.content == '{"a":"ü"}'.encode()
        assert route.calls.last.request.headers["content-type"] == "application/json"

    run()


def test_an_io_that_was_warm_before_the_mock_is_intercepted_and_warm_after_it(
    flavour: Any, ask: Any, serve: Any
) -> None:
    server = serve()

    async def work(io: Any) -> None:
        assert (await io.send(ask(io, server.url))).status == 200
        with respx.mock:
            respx.get(server.url).respond(418)
            assert (await io.send(ask(io, server.url))).status == 418
        assert (await io.send(ask(io, server.url))).status == 200

    flavour.with_io(work)
    assert server.connections == 1


def test_a_stream_is_intercepted(flavour: Any, ask: Any) -> None:
    async def chunks() -> Any:
        for number in range(3):
            yield b"%d\n" % number

    def answer(_: httpx.Request) -> httpx.Response:
        content: Any = chunks() if flavour.is_async else [b"0\n", b"1\n", b"2\n"]
        return httpx.Response(200, content=content)

    async def work(io: Any) -> list[bytes]:
        with respx.mock:
            respx.get(URL).mock(side_effect=answer)
            async with io.stream(ask(io, URL)) as reply:
                assert reply.status == 200
                return [chunk async for chunk in reply.chunks()]

    assert flavour.with_io(work) == [b"0\n", b"1\n", b"2\n"]


def test_the_mock_sees_flavour_operation_and_deadlines(flavour: Any, ask: Any) -> None:
    seen: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(dict(request.extensions))
        return httpx.Response(204)

    async def work(io: Any) -> float:
        with respx.mock:
            respx.get(URL).mock(side_effect=answer)
            request = ask(io, URL, seconds=20, read_timeout=7.0)
            await io.send(request)
            return float(request.deadline)

    deadline = flavour.with_io(work)
    assert seen[0]["unigpu.async"] is flavour.is_async
    assert seen[0]["unigpu.operation"] == "test.op"
    assert seen[0]["unigpu.deadline"] == deadline
    assert seen[0]["timeout"]["read"] == 7.0
    assert seen[0]["timeout"]["connect"] == 5.0


@pytest.mark.parametrize("library", [httpx, httpcore])
@pytest.mark.parametrize(
    ("name", "kind", "never_sent"),
    [
        ("ConnectError", errors.TransportError, True),
        ("ConnectTimeout", errors.TransportTimeout, True),
        ("PoolTimeout", errors.TransportTimeout, True),
        ("ProxyError", errors.TransportError, True),
        ("UnsupportedProtocol", errors.TransportError, True),
        ("ReadTimeout", errors.TransportTimeout, False),
        ("WriteTimeout", errors.TransportTimeout, False),
        ("ReadError", errors.TransportError, False),
        ("WriteError", errors.TransportError, False),
        ("RemoteProtocolError", errors.TransportError, False),
        ("LocalProtocolError", errors.TransportError, False),
    ],
)
def test_each_failure_of_the_libraries_has_its_class(
    ask: Any, library: Any, name: str, kind: type[errors.TransportError], never_sent: bool
) -> None:
    io = SyncHttpIo(HttpConfig(trust_env=False))
    with respx.mock:
        respx.get(URL).mock(side_effect=getattr(library, name)("secret-canary in the text"))
        with pytest.raises(errors.TransportError) as caught:
            run_sync(io.send(ask(io, URL)))
    error = caught.value
    assert type(error) is kind
    assert error.never_sent is never_sent
    assert error.maybe_executed is not never_sent
    assert error.retryable
    assert "canary" not in str(error)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_an_unknown_exception_is_ambiguous(flavour: Any, ask: Any) -> None:
    class Strange(Exception):
        pass

    async def work(io: Any) -> None:
        with respx.mock:
            respx.get(URL).mock(side_effect=Strange("secret-canary"))
            with pytest.raises(errors.TransportError, match="Strange") as caught:
                await io.send(ask(io, URL))
        assert not caught.value.never_sent
        assert "canary" not in str(caught.value)

    flavour.with_io(work)


@pytest.mark.parametrize("passing", [AssertionError("mine"), MemoryError()])
def test_assertions_and_memory_errors_pass_untouched(flavour: Any, ask: Any, passing: Exception) -> None:
    async def work(io: Any) -> None:
        with respx.mock:
            respx.get(URL).mock(side_effect=passing)
            with pytest.raises(type(passing)):
                await io.send(ask(io, URL))

    flavour.with_io(work)


def test_a_forgotten_route_is_the_mocks_own_assertion(flavour: Any, ask: Any) -> None:
    async def work(io: Any) -> None:
        with respx.mock, pytest.raises(AssertionError, match="not mocked"):
            await io.send(ask(io, URL))

    flavour.with_io(work)


def test_no_slot_is_lost_to_mocked_failures(flavour: Any, ask: Any, serve: Any) -> None:
    server = serve()
    config = HttpConfig(private_workers=True, trust_env=False, limit=1)

    async def work(io: Any) -> None:
        for _ in range(5):
            with respx.mock:
                respx.get(server.url).mock(side_effect=httpx.ReadTimeout("x"))
                with pytest.raises(errors.TransportTimeout):
                    await io.send(ask(io, server.url))
            assert (await io.send(ask(io, server.url))).status == 200

    flavour.with_io(work, config)


# A transport that is handed in


def test_a_transport_that_is_handed_in_carries_every_call(flavour: Any, ask: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"path": request.url.path, "async": request.extensions["unigpu.async"]})

    async def work(io: Any) -> None:
        for role in ROLES:
            reply = await io.send(ask(io, URL, role=role))
            assert reply.json() == {"path": "/v2/x", "async": flavour.is_async}
        async with io.stream(ask(io, URL)) as stream:
            assert b"/v2/x" in await stream.read()

    flavour.with_io(work, HttpConfig(transport=httpx.MockTransport(answer)))


def test_a_transport_of_the_other_flavour_is_refused_by_name(flavour: Any) -> None:
    kind: Callable[..., Any] = httpx.HTTPTransport if flavour.is_async else httpx.AsyncHTTPTransport
    with pytest.raises(errors.ConfigurationError, match="transport="):
        flavour.make(HttpConfig(transport=kind()))


def test_the_deadline_holds_over_an_asynchronous_transport_that_never_answers(loop_flavour: Any, ask: Any) -> None:
    import anyio

    async def answer(_: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    async def work(io: Any) -> None:
        with pytest.raises(errors.TransportTimeout) as caught:
            await io.send(ask(io, URL, seconds=0.05))
        assert not caught.value.never_sent

    loop_flavour.with_io(work, HttpConfig(transport=httpx.MockTransport(answer)))


def test_a_deadline_that_has_passed_sends_nothing(flavour: Any, ask: Any) -> None:
    async def work(io: Any) -> None:
        with respx.mock(assert_all_called=False) as router:
            route = router.get(URL)
            with pytest.raises(errors.TransportTimeout) as caught:
                await io.send(ask(io, URL, seconds=-1, call=CallClass.RECONCILE))
            assert caught.value.never_sent
            assert caught.value.maybe_executed is False
            assert not route.called

    flavour.with_io(work)
