"""`request`: what an application may rely on, over the engine in memory, in every flavour."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from unigpu import errors
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior
from unigpu.testing import UnigpuMock, unigpu_mock

COMMAND = {"interface": "http", "command": ["serve"], "progress": "off"}


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("local") as mock:
        yield mock


def serves(cloud: UnigpuMock, answer: Callable[[HttpCall], Reply], **more: Any) -> None:
    cloud._behaviors["chat"] = Behavior(http=answer, **more)


def echo(call: HttpCall) -> Reply:
    return Reply.json(
        {
            "method": call.method,
            "target": call.target,
            "headers": dict(call.headers),
            "body": call.body.decode(),
        },
        status=201,
        headers=(("x-own", "1"),),
    )


def requests(cloud: UnigpuMock) -> int:
    return sum(call.operation == "http" for call in cloud.calls())


def test_a_request_wakes_a_cold_deployment_is_held_and_arrives_whole(flavour: Any, cloud: UnigpuMock) -> None:
    serves(cloud, echo, cold_start=300)

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", workers=(0, 1), **COMMAND)
        began = cloud.clock.now()
        reply = await app.request(
            "post", "/v1/é x?a=1", json={"q": "ü"}, params={"b": [1, True], "c": "x&y"},
            headers={"X-Mine": "yes", "Authorization": "Bearer theirs"}, start_timeout=400,
        )  # fmt: skip
        assert cloud.clock.now() - began >= 300
        assert (reply.status, reply.ok, reply.headers["X-OWN"]) == (201, True, "1")
        seen = reply.json()
        assert (seen["method"], seen["target"]) == ("POST", "/v1/%C3%A9%20x?a=1&b=1&b=true&c=x%26y")
        assert json.loads(seen["body"]) == {"q": "ü"}
        assert seen["headers"]["x-mine"] == "yes"
        assert seen["headers"]["authorization"] == "Bearer theirs"
        assert seen["headers"]["content-type"] == "application/json"
        assert not [name for name in seen["headers"] if name.startswith("x-unigpu")]
        assert requests(cloud) == 1
        assert (await client.request("chat", "GET", "/")).json()["body"] == ""

    flavour.run(work, "local")


@pytest.mark.parametrize("status", [302, 404, 429, 500, 503])
def test_an_error_of_the_users_server_is_data_and_never_repeated(flavour: Any, cloud: UnigpuMock, status: int) -> None:
    def answer(call: HttpCall) -> Reply:
        body = {"error": {"type": "closing", "message": call.headers["x-api-key"]}}
        return Reply.json(body, status=status, headers=(("retry-after", "900"), ("location", "/other")))

    serves(cloud, answer)

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", idempotent=True, **COMMAND)
        for _ in range(8):  # more than a circuit breaker would take for a dead provider
            reply = await app.request("GET", "/", headers={"x-api-key": "of-the-user"})
            assert (reply.status, reply.ok) == (status, False)
            assert reply.json()["error"]["message"] == "of-the-user"
        assert requests(cloud) == 8
        assert (await client.get("chat")).state == "READY"

    flavour.run(work, "local")


def test_no_worker_in_time_says_so_and_nothing_ran(flavour: Any, cloud: UnigpuMock) -> None:
    ran: list[HttpCall] = []
    serves(cloud, lambda call: ran.append(call) or echo(call), cold_start=300)  # type: ignore[func-returns-value]  # appends, then echoes

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", **COMMAND)
        with pytest.raises(errors.NoWorkerReady) as caught:
            await app.request("POST", "/", json={}, start_timeout=30)
        assert caught.value.maybe_executed is False
        assert caught.value.deployment == "chat"
        assert ran == []
        with pytest.raises(TimeoutError):
            await app.request("POST", "/", json={}, start_timeout=30, stream=True)

    flavour.run(work, "local")


def test_a_call_that_may_not_wake_does_not(flavour: Any, cloud: UnigpuMock) -> None:
    serves(cloud, echo)

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", **COMMAND)
        with pytest.raises(errors.NoWorkerReady, match="may not start one"):
            await app.request("GET", "/", wake=False)
        assert requests(cloud) == 0
        await app.stop()
        with pytest.raises(errors.NoWorkerReady, match="stopped"):
            await app.request("GET", "/", wake=False)
        assert (await app.request("GET", "/")).ok, "otherwise a request starts what is stopped"

    flavour.run(work, "local")


def test_waiting_behind_others_counts_against_the_whole_alone(flavour: Any, cloud: UnigpuMock) -> None:
    serves(cloud, echo, duration=100.0)

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", workers=(1, 1), wait="worker", **COMMAND)
        began = cloud.clock.now()
        assert (await app.request("GET", "/", start_timeout=5)).ok, "it may run longer than a start may take"
        assert cloud.clock.now() - began >= 100
        with pytest.raises(errors.DeadlineExceeded):
            await app.request("GET", "/", start_timeout=5, timeout=20)

    flavour.run(work, "local")


def test_a_worker_that_cannot_start_says_why_before_the_deadline(flavour: Any, cloud: UnigpuMock) -> None:
    serves(cloud, echo, start="crash", lines=("no such module",))

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", **COMMAND)
        began = cloud.clock.now()
        with pytest.raises(errors.WorkerFailed) as caught:
            await app.request("GET", "/", start_timeout=1500)
        assert cloud.clock.now() - began < 600
        assert "no such module" in "".join(caught.value.logs)

    flavour.run(work, "local")


@pytest.mark.parametrize(("idempotent", "sent"), [(False, 1), (True, 3)])
def test_a_lost_worker_is_an_error_and_only_an_idempotent_request_runs_again(
    flavour: Any, cloud: UnigpuMock, idempotent: bool, sent: int
) -> None:
    serves(cloud, echo, job="crash")

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", idempotent=idempotent, **COMMAND)
        with pytest.raises(errors.WorkerLost) as caught:
            await app.request("GET", "/")
        assert caught.value.maybe_executed is True
        assert requests(cloud) == sent

    flavour.run(work, "local")


def test_it_is_for_http_deployments_and_says_what_is_for_the_other(flavour: Any, cloud: UnigpuMock) -> None:
    cloud.serve("plain", lambda given: given)
    serves(cloud, echo)

    async def work(client: Any) -> None:
        with pytest.raises(errors.UnsupportedError, match=r"invoke\(\)"):
            await client.request("plain", "GET", "/")
        app = await client.deploy(name="chat", **COMMAND)
        with pytest.raises(errors.UnsupportedError, match=r"request\(\) or openai\(\)"):
            await app.invoke({})
        for path, headers in (("wss://host/live", None), ("/live", {"Upgrade": "websocket", "Connection": "Upgrade"})):
            with pytest.raises(errors.UnsupportedError, match="WebSocket") as caught:
                await app.request("GET", path, headers=headers)
            assert caught.value.capability == "websocket"
        assert requests(cloud) == 0
        await app.teardown()
        with pytest.raises(errors.NotFoundError):
            await client.request("chat", "GET", "/")

    flavour.run(work, "local")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "v1"}, "path"),
        ({"path": "http://other/v1"}, "path"),
        ({"path": "//other/v1"}, "path"),
        ({"path": "/a\r\nx: y"}, "control character"),
        ({"path": "/a#b"}, "#"),
        ({"path": "/a\\b"}, "backslash"),
        ({"path": "/a/../../stop"}, "lead out"),
        ({"path": "/a/%2E%2e/stop"}, "lead out"),
        ({"path": "/a%2f..%2fstop"}, "lead out"),
        ({"method": "GET /x"}, "method"),
        ({"method": "CONNECT"}, "method"),
        ({"headers": {"Host": "other"}}, "host"),
        ({"headers": {"Content-Length": "3"}}, "content-length"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "transfer-encoding"),
        ({"headers": {"X-Unigpu-Wake": "1"}}, "unigpu's own"),
        ({"headers": {"a": "b\r\nc: d"}}, "line break"),
        ({"headers": {"a b": "c"}}, "not a word"),
        ({"headers": {"Accept-Encoding": "br"}}, "accept-encoding"),
        ({"json": {}, "content": b""}, "not both"),
        ({"json": {"x": float("nan")}}, "JSON"),
        ({"content": 3}, "content"),
        ({"params": {"a": None}}, "params"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_what_cannot_be_sent_as_it_is_is_refused_before_anything_is(
    cloud: UnigpuMock, given: dict[str, Any], words: str
) -> None:
    from unigpu import Client

    serves(cloud, echo)
    with Client("local") as client:
        app = client.deploy(name="chat", **COMMAND)
        with pytest.raises(errors.ConfigurationError, match=words):
            app.request(**{"method": "GET", "path": "/", **given})
    assert requests(cloud) == 0


def test_a_deployments_own_token_is_sent_unless_the_caller_says_another(
    flavour: Any, cloud: UnigpuMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "chat-token-value")
    serves(cloud, echo)

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", auth={"env": "CHAT_TOKEN"}, **COMMAND)
        assert (await app.request("GET", "/")).json()["headers"]["authorization"] == "Bearer chat-token-value"
        other = await app.request("GET", "/", headers={"authorization": "Basic x"})
        assert other.json()["headers"]["authorization"] == "Basic x"
        monkeypatch.delenv("CHAT_TOKEN")
        with pytest.raises(errors.ConfigurationError, match="CHAT_TOKEN"):
            await app.request("GET", "/")

    flavour.run(work, "local")


def test_a_stream_gives_bytes_events_or_the_rest(flavour: Any, cloud: UnigpuMock) -> None:
    body = b"event: token\nid: 7\ndata: a\ndata: b\n\n: note\n\ndata: [DONE]\n\n"
    serves(cloud, lambda call: Reply(status=200, body=body, headers=(("content-type", "text/event-stream"),)))

    async def work(client: Any) -> None:
        app = await client.deploy(name="chat", **COMMAND)
        async with await app.request("GET", "/", stream=True) as reply:
            assert reply.status == 200
            assert b"".join([chunk async for chunk in reply]) == body
        async with await app.request("GET", "/", stream=True) as reply:
            assert await reply.read() == body
        async with await app.request("GET", "/", stream=True) as reply:
            found = [event async for event in reply.events()]
        assert [(e.event, e.data, e.id) for e in found] == [("token", "a\nb", "7"), ("message", "[DONE]", "7")]

    flavour.run(work, "local")


def test_a_stream_that_is_dropped_says_so(cloud: UnigpuMock) -> None:
    from unigpu import Client

    serves(cloud, echo)
    with Client("local") as client:
        app = client.deploy(name="chat", **COMMAND)
        stream = app.request("GET", "/", stream=True)
        with pytest.warns(ResourceWarning, match="HTTPStream was dropped before its end"):
            del stream
