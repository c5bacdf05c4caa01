"""What a user's type checker sees. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

import httpx

from unigpu import (
    AsyncClient,
    AsyncDeployment,
    AsyncHTTPStream,
    AsyncJob,
    AsyncStream,
    Capabilities,
    Client,
    Deployment,
    DeploymentInfo,
    Deployments,
    DeploymentSpec,
    Event,
    HTTPReply,
    HTTPStream,
    Job,
    JobStatus,
    LogLine,
    Progress,
    Rate,
    Result,
    ServerSentEvent,
    State,
    Stream,
    UniGPUError,
    Worker,
)


def summarize(input: dict[str, Any]) -> dict[str, Any]:
    return input


def watch(event: Event) -> None: ...
def show(progress: Progress) -> None: ...


def plain() -> None:
    with Client("runpod", api_key={"runpod": "key"}, namespace="team", state_dir=None, on_event=watch) as client:
        assert_type(client, Client)
        app = client.deploy(
            name="summarize",
            handler=summarize,
            image="ghcr.io/me/summarize:1.2",
            gpu=["RTX 4090", "L40S"],
            max_price=1.2,
            workers=(0, 3),
            idle_timeout=60,
            ttl="8h",
            secrets=["HF_TOKEN"],
            wait="worker",
            progress=show,
        )
        assert_type(app, Deployment)
        assert_type(app.rate, Rate)
        assert_type(app.state, State)
        assert_type(app.info, DeploymentInfo)
        assert_type(app.url, str | None)
        assert_type(app.invoke({"text": "…"}), Result)
        assert_type(client.invoke("summarize@vast", {"text": "…"}, on_timeout="keep").output, Any)
        assert_type(app.scale(workers=3).teardown(), None)
        job = client.submit(app, {})
        assert_type(job, Job)
        assert_type(job.status(), JobStatus)
        assert_type(job.result(timeout=5), Result)
        with app.stream({}) as stream:
            assert_type(stream, Stream)
            for _chunk in stream:
                pass
            assert_type(stream.result, Result)
        for result in client.map(app, ({"i": i} for i in range(9)), key=str, checkpoint="progress.jsonl"):
            assert_type(result, Result)
            assert_type(result.error, UniGPUError | None)
        results: Iterator[Result] = app.map([{}])
        next(results)
        assert_type(client.deployments(provider=["runpod", "vast"]), Deployments[Deployment])
        assert_type(client.deployments()[0], Deployment)
        assert_type(client.workers("summarize"), tuple[Worker, ...])
        assert_type(client.logs(app, follow=True), Iterator[LogLine])
        assert_type(client.capabilities("vast", interface="http", kind="pod"), Capabilities)
        assert_type(client.request("chat", "GET", "/", params={"a": [1, 2]}), HTTPReply)
        assert_type(app.request("GET", "/", stream=True), HTTPStream)
        assert_type(next(app.request("GET", "/", stream=True).events()), ServerSentEvent)
        assert_type(app.openai(), dict[str, Any])
        assert_type(client.get("summarize").update(env={"A": "1"}), Deployment)
        client.deploy(DeploymentSpec(name="x"), if_exists="replace")
        with client.deploy("declared", ephemeral=True) as short:
            assert_type(short, Deployment)
    Client(transport=httpx.MockTransport(lambda request: httpx.Response(200)))


async def awaited() -> None:
    async with AsyncClient(transport=httpx.AsyncHTTPTransport()) as client:
        app = await client.deploy(name="summarize", handler="app:summarize")
        assert_type(app, AsyncDeployment)
        assert_type(await app.invoke({}), Result)
        job = await app.submit({})
        assert_type(job, AsyncJob)
        assert_type(await job.cancel(), JobStatus)
        async with client.stream("summarize", {}) as stream:
            assert_type(stream, AsyncStream)
            async for _chunk in stream:
                pass
        results: AsyncIterator[Result] = app.map([{}])
        async for result in results:
            assert_type(result, Result)
        assert_type(client.logs(app), AsyncIterator[LogLine])
        assert_type(await client.deployments(), Deployments[AsyncDeployment])
        assert_type(client.capabilities(), Capabilities)
        assert_type(await client.request("chat", "POST", "/", json={}), HTTPReply)
        assert_type(await app.request("GET", "/", stream=True), AsyncHTTPStream)
        async with await client.deploy(name="short", handler=summarize, ephemeral=True):
            pass


def refused() -> None:
    """Each of these is an error for a type checker: an unused ignore would say so."""
    client = Client()
    client.deploy(name="x", worker=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - no such field
    client.deploy(name="x", workers="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - a number or a pair
    client.deploy(name="x", if_exists="update")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType] - no such choice
    client.invoke("x", {}, 5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue] - keywords only
    client.map("x", {"a": 1})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType] - many inputs, not one
