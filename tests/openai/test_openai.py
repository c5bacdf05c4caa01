"""`openai(...)` with the official package, of whichever generation is installed."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from unigpu import AsyncClient, Client, errors
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior
from unigpu.testing import UnigpuMock, unigpu_mock

openai = pytest.importorskip("openai")

SERVER = Path(__file__).with_name("chat_server.py")
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
COMPLETION = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}
MEMORY = {"interface": "http", "command": ["serve"], "progress": "off"}


def spec() -> dict[str, Any]:
    return {
        "name": "chat", "interface": "http", "command": [sys.executable, str(SERVER)], "workers": (0, 1),
        "concurrency": 8, "progress": "off",
    }  # fmt: skip


def until(stats: Callable[[], Any], holds: Callable[[Any], bool]) -> None:
    end = time.monotonic() + 30
    while not holds(stats()):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.processes
def test_sync_a_cold_worker_is_woken_waited_for_and_streams_as_it_goes() -> None:
    with Client("local") as client, client.deploy(**spec()) as app, openai.OpenAI(**app.openai()) as ai:
        assert app.state == "COLD"
        assert ai.chat.completions.create(**ASK).choices[0].message.content == "hello"
        with ai.chat.completions.create(**ASK, stream=True) as stream:
            first = next(iter(stream))
            assert app.request("POST", "/go").json()["sent"] == 1, "it was here before the next one was made"
            rest = [part.choices[0].delta.content for part in stream]
        assert [first.choices[0].delta.content, *rest] == ["t0", "t1", "t2"]
        with ai.chat.completions.create(**ASK, stream=True, max_tokens=1000) as stream:
            next(iter(stream))
        until(lambda: app.request("GET", "/stats").json(), lambda seen: seen["closed"] == 2 and seen["sent"] < 1000)
        seen = app.request("GET", "/stats").json()
        assert set(seen["authorization"]) == {None}, "neither a key of the account nor the placeholder arrives"
        assert not [name for name in seen["fields"] if name.startswith("x-unigpu")]
        with pytest.raises(openai.InternalServerError, match="out of memory"):
            ai.chat.completions.create(**{**ASK, "model": "broken"})


async def streams(app: Any, ai: Any) -> None:
    async with ai:
        answer = await ai.chat.completions.create(**ASK)
        assert answer.choices[0].message.content == "hello"
        async with await ai.chat.completions.create(**ASK, stream=True) as stream:
            parts = aiter(stream)
            first = await anext(parts)
            assert (await app.request("POST", "/go")).json()["sent"] == 1
            rest = [part.choices[0].delta.content async for part in parts]
        assert [first.choices[0].delta.content, *rest] == ["t0", "t1", "t2"]


@pytest.mark.processes
def test_async_a_cold_worker_streams_and_a_cancelled_reader_lets_it_go() -> None:
    async def work() -> None:
        async with AsyncClient("local") as client, await client.deploy(**spec()) as app:
            ai = openai.AsyncOpenAI(**client.openai("chat"))
            await streams(app, ai)
            reading = asyncio.Event()

            async def read() -> None:
                async with await again.chat.completions.create(**ASK, stream=True, max_tokens=1000) as stream:
                    async for _ in stream:
                        reading.set()

            async with openai.AsyncOpenAI(**app.openai()) as again:
                task = asyncio.create_task(read())
                await reading.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                async with asyncio.timeout(30):
                    while (await app.request("GET", "/stats")).json()["closed"] < 2:
                        await asyncio.sleep(0.02)

    asyncio.run(work())


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("local") as mock:
        yield mock


def serves(cloud: UnigpuMock, seen: list[HttpCall] | None = None, **more: Any) -> None:
    def answer(call: HttpCall) -> Reply:
        if seen is not None:
            seen.append(call)
        return Reply.json(COMPLETION)

    cloud._behaviors["chat"] = Behavior(http=answer, **more)


@pytest.mark.parametrize("run", [asyncio.run, trio.run], ids=["asyncio", "trio"])
def test_async_on_both_loops(cloud: UnigpuMock, run: Callable[[Callable[[], Awaitable[None]]], None]) -> None:
    serves(cloud, cold_start=300)

    async def work() -> None:
        async with AsyncClient("local") as client:
            await client.deploy(name="chat", **MEMORY)
            async with openai.AsyncOpenAI(**client.openai("chat", start_timeout=400)) as ai:
                assert (await ai.chat.completions.create(**ASK)).choices[0].message.content == "hello"

    run(work if run is trio.run else work())  # type: ignore[arg-type]  # each runner takes its own form


def test_no_worker_in_time_is_the_packages_timeout_and_ours_is_behind_it(cloud: UnigpuMock) -> None:
    serves(cloud, cold_start=300)
    with Client("local") as client:
        client.deploy(name="chat", **MEMORY)
        with openai.OpenAI(**client.openai("chat", start_timeout=30)) as ai:
            with pytest.raises(openai.APITimeoutError) as caught:
                ai.chat.completions.create(**ASK)
            behind = caught.value.__cause__.__cause__
            assert isinstance(behind, errors.NoWorkerReady)
            assert behind.deployment == "chat"
        with (
            openai.OpenAI(**client.openai("chat", start_timeout=200)) as ai,
            pytest.raises(openai.APITimeoutError),
        ):
            ai.chat.completions.create(**ASK, timeout=20)
        assert sum(call.operation == "http" for call in cloud.calls()) < 10


def test_it_speaks_to_its_deployment_only(cloud: UnigpuMock) -> None:
    serves(cloud)
    with Client("local") as client:
        client.deploy(name="chat", **MEMORY)
        arguments = {**client.openai("chat"), "base_url": "http://elsewhere.example/v1"}
        with openai.OpenAI(**arguments) as ai, pytest.raises(openai.APIConnectionError) as caught:
            ai.chat.completions.create(**ASK)
        assert "its deployment only" in str(caught.value.__cause__)
        assert not [call for call in cloud.calls() if call.operation == "http"]


def test_a_key_of_the_users_own_server_is_passed_on_and_ours_is_a_placeholder(
    cloud: UnigpuMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-another-service")
    seen: list[HttpCall] = []
    serves(cloud, seen)
    with Client("local") as client:
        client.deploy(name="chat", **MEMORY)
        arguments = client.openai("chat")
        assert arguments["api_key"] == "unigpu"
        assert arguments["max_retries"] == 0
        for extra in ({}, {"api_key": "vllm-key"}):
            with openai.OpenAI(**{**arguments, **extra, "http_client": client.openai("chat")["http_client"]}) as ai:
                ai.chat.completions.create(**ASK)
    assert [call.headers.get("authorization") for call in seen] == [None, "Bearer vllm-key"]
    assert {call.target for call in seen} == {"/v1/chat/completions"}


def test_errors_of_ours_are_behind_the_packages_own(cloud: UnigpuMock) -> None:
    serves(cloud, job="crash")
    cloud.serve("plain", lambda given: given)
    with Client("local") as client:
        client.deploy(name="chat", **MEMORY)
        for name, kind in (
            ("chat", errors.WorkerLost),
            ("absent", errors.NotFoundError),
            ("plain", errors.UnsupportedError),
        ):
            with openai.OpenAI(**client.openai(name)) as ai, pytest.raises(openai.APIConnectionError) as caught:
                ai.chat.completions.create(**ASK)
            assert isinstance(caught.value.__cause__.__cause__, kind)
        with pytest.raises(errors.UnsupportedError, match="invoke"):
            client.get("plain").openai()


def test_without_the_package_it_says_what_to_install(cloud: UnigpuMock, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    serves(cloud)
    with Client("local") as client:
        app = client.deploy(name="chat", **MEMORY)
        monkeypatch.setattr(importlib.metadata, "version", absent)
        with pytest.raises(errors.ConfigurationError, match="pip install openai"):
            app.openai()
