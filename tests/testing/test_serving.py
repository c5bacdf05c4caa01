"""`unigpu_mock`: servers behind http deployments, cold starts without a word, capacity, and clients of any age."""

from __future__ import annotations

import asyncio
import http.server
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from unigpu import AsyncClient, Client, errors
from unigpu.testing import UnigpuMock, unigpu_mock

REFERENCE: dict[str, Any] = {"handler": "app:f", "image": "me/app:1", "progress": "off"}


def answer(request: httpx.Request) -> httpx.Response:
    if request.url.path == "/events":
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, text="data: 1\n\ndata: 2\n\n")
    return httpx.Response(201, json={"path": request.url.path, "q": dict(request.url.params)}, headers={"x-own": "1"})


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("local", "reference") as mock:
        yield mock


def test_a_server_answers_requests_after_a_cold_start_of_five_minutes(cloud: UnigpuMock) -> None:
    cloud.serve_http("chat@local", answer, cold_start=300)
    with Client("local") as client:
        began = cloud.clock.now()
        reply = client.request("chat", "GET", "/v1/models", params={"a": "1"})
        assert (reply.status, reply.json(), reply.headers["x-own"]) == (
            201,
            {"path": "/v1/models", "q": {"a": "1"}},
            "1",
        )
        assert cloud.clock.now() - began >= 300
        with client.request("chat", "GET", "/events", stream=True) as stream:
            assert [event.data for event in stream.events()] == ["1", "2"]
    assert len(cloud.calls("chat", "request")) >= 2
    cloud.assert_nothing_billing(after=600)


@pytest.mark.parametrize("run", ["asyncio", "trio"])
def test_a_server_answers_on_both_loops(cloud: UnigpuMock, run: str) -> None:
    cloud.serve_http("chat@local", answer, cold_start=300)

    async def work() -> Any:
        async with AsyncClient("local") as client:
            return (await client.request("chat", "POST", "/v1", json={})).json()

    found = asyncio.run(work()) if run == "asyncio" else trio.run(work)
    assert found == {"path": "/v1", "q": {}}


@pytest.mark.parametrize(
    ("given", "status", "text"),
    [("hi", 200, "hi"), (b"hi", 200, "hi"), ({"a": [1]}, 200, '{"a": [1]}'), (None, 204, "")],
    ids=["text", "bytes", "json", "none"],
)
def test_what_a_server_returns_becomes_a_reply(cloud: UnigpuMock, given: Any, status: int, text: str) -> None:
    cloud.serve_http("plain@local", lambda _: given)
    with Client("local") as client:
        reply = client.request("plain", "GET", "/")
        assert (reply.status, reply.text) == (status, text)


def test_a_server_that_raises_answers_500(cloud: UnigpuMock) -> None:
    cloud.serve_http("broken@local", lambda _: {}["no"])
    with Client("local") as client:
        reply = client.request("broken", "GET", "/")
        assert (reply.status, reply.json()["error"]["type"]) == (500, "KeyError")


def test_a_platform_without_http_says_so(cloud: UnigpuMock) -> None:
    with pytest.raises(errors.UnsupportedError, match="reference"):
        cloud.serve_http("chat@reference", answer)


@pytest.mark.parametrize("provider", ["local", "reference"])
def test_five_minutes_pass_at_once_without_a_start_timeout(cloud: UnigpuMock, provider: str) -> None:
    cloud.serve(f"slow@{provider}", lambda given: given, cold_start=300, workers=(0, 1))
    with Client(provider) as client:
        assert client.invoke("slow", {"n": 1}).output == {"n": 1}
        assert client.map("slow", [{"n": 2}], progress="off").__next__().output == {"n": 2}
    cloud.assert_nothing_billing(after=600)


def test_a_worker_that_is_killed_loses_its_call_and_no_other(cloud: UnigpuMock) -> None:
    for provider in ("local", "reference"):
        cloud.serve(f"long@{provider}", lambda given: given, duration=600)
    with Client() as client:
        jobs = {provider: client.submit(f"long@{provider}", {"n": 1}) for provider in ("local", "reference")}
        cloud.advance(60)
        assert cloud.crash("long@local") == 1
        assert cloud.crash("nobody") == 0
        with pytest.raises(errors.WorkerLost):
            jobs["local"].result(timeout=900)
        assert jobs["reference"].result(timeout=900).ok


def test_one_name_on_two_platforms_is_two_functions(cloud: UnigpuMock) -> None:
    cloud.serve("who@local", lambda _: {"i": "local"})
    cloud.serve("who@reference", lambda _: {"i": "reference"})
    with Client() as client:
        assert [client.invoke(f"who@{p}", {}).output["i"] for p in ("local", "reference")] == ["local", "reference"]


def test_no_capacity_of_one_gpu_leaves_the_others(cloud: UnigpuMock) -> None:
    cloud.reference.no_capacity("RTX 4090")
    with Client("reference") as client:
        with pytest.raises(errors.NoCapacityError):
            client.deploy(name="one", gpu="RTX 4090", workers=(1, 1), **REFERENCE)
        assert client.deploy(name="two", gpu="L40S", workers=(1, 1), **REFERENCE).change == "created"
        assert client.scale("two", (2, 2)).info.workers == (2, 2)
        cloud.reference.heal()
        cloud.advance(600)
        assert client.deploy(name="one", gpu="RTX 4090", **REFERENCE).change == "created"
        cloud.reference.no_capacity("RTX 4090")
        with pytest.raises(errors.NoCapacityError):
            client.scale("one", (1, 1))


@pytest.mark.parametrize("provider", ["local", "reference"])
def test_no_capacity_is_its_own_error_and_leaves_nothing(cloud: UnigpuMock, provider: str) -> None:
    fields: dict[str, Any] = {} if provider == "local" else {"image": "me/app:1", "gpu": "RTX 4090"}
    handler = "unigpu.testing.handlers:echo"
    getattr(cloud, provider).no_capacity(times=1)
    with Client(provider) as client:
        with pytest.raises(errors.NoCapacityError) as caught:
            client.deploy(name="chat", handler=handler, workers=(1, 1), progress="off", **fields)
        assert (caught.value.provider, caught.value.retryable) == (provider, True)
        assert list(client.deployments(provider=provider)) == []
        assert client.deploy(name="chat", handler=handler, progress="off", **fields).change == "created"


def test_no_capacity_asks_for_gpus_that_there_are(cloud: UnigpuMock) -> None:
    with pytest.raises(errors.ConfigurationError):
        cloud.reference.no_capacity("RTX 409000")
    with pytest.raises(errors.ConfigurationError, match="places no GPUs"):
        cloud.local.no_capacity("RTX 4090")


def test_a_client_made_before_keeps_nothing_in_its_own_state_directory_meanwhile(tmp_path: Path) -> None:
    with Client("local", state_dir=tmp_path / "real") as client:
        with unigpu_mock("local") as cloud:
            client.deploy(name="chat", handler="unigpu.testing._mock.served:served", progress="off")
            assert list(cloud.state_dir.rglob("*"))
        assert not (tmp_path / "real").exists()
        with unigpu_mock("local") as cloud, pytest.raises(errors.NotFoundError):
            client.get("chat")


def test_a_client_of_a_mock_that_is_over_is_refused() -> None:
    with unigpu_mock("local") as cloud:
        cloud.serve("chat", lambda given: given)
        client = Client("local")
        client.get("chat")
    with pytest.raises(errors.ConfigurationError, match="which is over"):
        client.invoke("chat", {})
    client.close()
    assert not cloud.state_dir.exists()


def test_the_projects_file_can_be_the_applications_own(tmp_path: Path) -> None:
    file = tmp_path / "unigpu.toml"
    file.write_text('[deployments.chat]\nhandler = "unigpu.testing._mock.served:served"\n')
    with unigpu_mock("local", config=file), Client() as client:
        assert client.deploy("chat", progress="off").change == "created"


def test_a_virtual_clock_refuses_other_threads_in_words_that_help() -> None:
    told: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with Client("local") as client:
                client.invoke("chat", {})
        except errors.ConfigurationError as exc:
            told.append(exc)

    with unigpu_mock("local", clock="virtual") as cloud:
        cloud.serve("chat", lambda given: given)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with Client("local") as client:  # map's own thread is no other
            assert next(client.map("chat", [{"n": 1}], progress="off")).output == {"n": 1}
    assert '"instant"' in str(told[0])


class _Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"hi")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing to tell."""


def test_hosts_that_are_passed_through_are_reached_and_no_others() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), _Hello) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/"
        with unigpu_mock("reference", pass_through=["127.0.0.1"]), httpx.Client(trust_env=False) as own:
            assert own.get(url).text == "hi"
            with pytest.raises(AssertionError, match="not mocked"):
                own.get("http://elsewhere.test/")
        thread.join()


class InUnittest(unittest.TestCase):
    def setUp(self) -> None:
        self.cloud = self.enterContext(unigpu_mock("local"))
        self.cloud.serve("chat", lambda given: given, cold_start=90)

    def test_it_is_a_context_manager_like_any_other(self) -> None:
        with Client() as client:
            assert client.invoke("chat", {"a": 1}).output == {"a": 1}
        self.cloud.assert_nothing_billing(after=600)


def count(input: dict[str, Any]) -> Iterator[int]:
    yield from range(input["n"])
    if input["n"] > 3:
        raise ValueError("too many")


def one(input: dict[str, Any]) -> dict[str, Any]:
    return {"n": input["n"]}


def test_a_pod_streams_and_needs_no_number_of_workers() -> None:
    said: dict[str, Any] = {"kind": "pod", "ttl": "1h", "auth": "none"}
    with unigpu_mock("runpod") as mock:
        mock.serve("counts@runpod", count, **said)
        mock.serve("one@runpod", one, **said)
        mock.serve("slow@runpod", count, duration=9.0, execution_timeout=5.0, **said)
        with Client("runpod") as client:
            assert client.invoke("counts", {"n": 2}).output == [0, 1]
            assert list(client.stream("counts", {"n": 3})) == [0, 1, 2]
            assert list(client.stream("counts", {"n": 0})) == []
            assert list(client.stream("one", {"n": 2})) == [{"n": 2}]
            got: list[Any] = []
            with pytest.raises(errors.JobFailed, match="ValueError: too many"):
                got.extend(client.stream("counts", {"n": 4}))
            assert got == [0, 1, 2, 3]
            with pytest.raises(errors.JobFailed, match="ExecutionTimeout"):
                list(client.stream("slow", {"n": 1}))
