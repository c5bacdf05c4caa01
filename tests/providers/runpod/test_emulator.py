"""Workflows of users over RunPod's face in memory: what the scripted account cannot show, because it has no workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from unigpu import AsyncClient, Client
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import Behavior
from unigpu.errors import DeadlineExceeded, JobFailed, NoWorkerReady
from unigpu.models import JobStatus, State
from unigpu.testing import UnigpuMock, unigpu_mock

FUNCTION: dict[str, Any] = {
    "name": "summarize", "handler": "app:f", "image": "me/app:1", "gpu": "RTX 4090", "progress": "off"
}  # fmt: skip
WEB: dict[str, Any] = {
    "name": "web", "interface": "http", "image": "me/web:1", "command": "serve", "gpu": "L4", "progress": "off"
}  # fmt: skip


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("runpod") as mock:
        yield mock


def behave(cloud: UnigpuMock, name: str, behavior: Behavior) -> None:
    cloud._behaviors[name] = behavior


def test_a_cold_endpoint_is_woken_by_a_call_and_goes_back_to_zero(cloud: UnigpuMock) -> None:
    behave(cloud, "summarize", Behavior(run=lambda given: given["n"] + 1, cold_start=30.0, duration=2.0))
    with Client("runpod") as client:
        app = client.deploy(**FUNCTION, workers=(0, 2), idle_timeout=10)
        assert app.state is State.COLD
        assert client.workers(app) == ()
        began = cloud.clock.now()
        assert client.invoke(app, {"n": 1}).output == 2
        assert cloud.clock.now() - began >= 32
        assert client.explain(app).cause == "ready"
        cloud.clock.sleep(60)
        assert client.explain(app).cause == "cold"
        client.teardown(app)
        assert not client.deployments()


def test_wake_starts_one_worker_without_a_call_of_the_users(cloud: UnigpuMock) -> None:
    behave(cloud, "summarize", Behavior(cold_start=20.0))
    with Client("runpod") as client:
        app = client.deploy(**FUNCTION, wait="worker", idle_timeout=600)
        assert app.state is State.READY
        assert len(client.workers(app)) == 1


def test_a_job_is_cancelled_in_the_queue_and_while_it_runs(cloud: UnigpuMock) -> None:
    behave(cloud, "summarize", Behavior(duration=600.0, cold_start=1.0))
    with Client("runpod") as client:
        app = client.deploy(**FUNCTION, workers=(0, 1))
        running, waiting = client.submit(app, {"n": 1}), client.submit(app, {"n": 2})
        cloud.clock.sleep(30)
        assert (running.status(), waiting.status()) == (JobStatus.RUNNING, JobStatus.QUEUED)
        assert waiting.cancel() is JobStatus.CANCELLED
        assert running.cancel() is JobStatus.CANCELLED
        with pytest.raises(DeadlineExceeded) as caught:
            client.invoke(app, {"n": 3}, timeout=20)
        assert caught.value.job_id
        assert "was cancelled" in str(caught.value)


def test_chunks_come_while_the_handler_yields_and_none_is_lost(cloud: UnigpuMock) -> None:
    def count(given: Any) -> Any:
        for i in range(given["n"]):
            yield {"i": i}

    behave(cloud, "summarize", Behavior(run=count, duration=2.0, cold_start=1.0))
    with Client("runpod") as client:
        app = client.deploy(**FUNCTION)
        with client.stream(app, {"n": 100}) as stream:
            assert [chunk["i"] for chunk in stream] == list(range(100))
        assert stream.result is not None


def test_fifty_calls_at_once_are_shared_by_the_workers(cloud: UnigpuMock) -> None:
    behave(cloud, "summarize", Behavior(run=lambda given: given["n"], duration=1.0, cold_start=5.0))

    async def main() -> list[Any]:
        async with AsyncClient("runpod") as client:
            app = await client.deploy(**FUNCTION, workers=(0, 3), scaling={"signal": "requests", "target": 1})
            results = client.map(app, [{"n": n} for n in range(50)], concurrency=50, progress="off")
            return [result.output async for result in results]

    assert asyncio.run(main()) == list(range(50))


def test_a_server_behind_the_balancer_is_held_for_and_answers_with_what_it_likes(cloud: UnigpuMock) -> None:
    def serve(call: HttpCall) -> Reply:
        return Reply.json({"path": call.path}, status=418 if call.path == "/tea" else 200)

    behave(cloud, "web", Behavior(http=serve, cold_start=40.0))
    with Client("runpod") as client:
        web = client.deploy(**WEB, workers=(0, 1))
        assert web.state is State.COLD
        assert client.request(web, "GET", "/a/b?c=1").json()["path"].startswith("/a/b")
        assert client.request(web, "POST", "/tea", json={}).status == 418
        with client.request(web, "GET", "/piece/by/piece", stream=True) as reply:
            assert b"".join(reply) == b'{"path":"/piece/by/piece"}'


def test_a_pod_lives_stops_starts_and_ends(cloud: UnigpuMock) -> None:
    behave(cloud, "web", Behavior(http=lambda call: Reply.json({"on": "a pod"}), cold_start=40.0))
    with Client("runpod") as client:
        pod = client.deploy(**WEB, kind="pod", ttl="6h", auth="none")
        assert pod.state is State.READY
        assert client.request(pod, "GET", "/").json() == {"on": "a pod"}
        assert client.stop(pod).state is State.STOPPED
        with pytest.raises(NoWorkerReady):
            client.request(pod, "GET", "/", wake=False)
        assert client.start(pod).state is State.READY
        assert client.request(pod, "GET", "/").json() == {"on": "a pod"}
        client.teardown(pod)


def test_a_function_on_a_pod_is_called_at_its_own_address(cloud: UnigpuMock, monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(given: Any) -> Any:
        if "boom" in given:
            raise ValueError("no such page")
        return {"got": given}

    monkeypatch.setenv("TOK", "very-secret-token")
    behave(cloud, "summarize", Behavior(run=handle, cold_start=10.0, duration=0.5))
    with Client("runpod") as client:
        pod = client.deploy(**FUNCTION, kind="pod", ttl=None, auth={"env": "TOK"})
        assert client.invoke(pod, {"n": 1}).output == {"got": {"n": 1}}
        with pytest.raises(JobFailed, match="no such page"):
            client.invoke(pod, {"boom": True})


def test_the_official_openai_package_speaks_to_a_queue_workers_own_route(cloud: UnigpuMock) -> None:
    openai = pytest.importorskip("openai")
    completion = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    }  # fmt: skip
    seen: list[Any] = []

    def worker(given: Any) -> Any:
        seen.append(given)
        return completion

    behave(cloud, "llm", Behavior(run=worker, cold_start=40.0))
    with Client("runpod") as client:
        options = {"runpod": {"endpoint_type": "QUEUE"}}
        llm = client.deploy(**{**WEB, "name": "llm", "command": None}, provider_options=options)
        with openai.OpenAI(**client.openai(llm)) as ai:
            said = ai.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
        assert said.choices[0].message.content == "hello"
        assert seen[0]["openai_route"] == "/v1/chat/completions"
        assert seen[0]["openai_input"]["model"] == "m"
