"""`unigpu_mock`: what the test suite of an application relies on."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
import trio

from unigpu import AsyncClient, Client, errors
from unigpu._io.clock import RealClock, get_clock
from unigpu.testing import UnigpuMock, unigpu_mock


def short(input: dict[str, Any]) -> dict[str, Any]:
    return {"summary": input["text"][:3]}


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("local", "reference") as mock:
        yield mock


PROVIDERS = ["local", "reference"]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_cold_start_of_five_minutes_passes_at_once_in_every_flavour(cloud: UnigpuMock, provider: str) -> None:
    cloud.serve(f"summarize@{provider}", short, cold_start=300, workers=(0, 1))

    async def call() -> Any:
        async with AsyncClient(provider) as client:
            return (await client.invoke("summarize", {"text": "abcdef"}, start_timeout=400)).output

    with Client(provider) as client:
        began = cloud.clock.now()
        assert client.invoke("summarize", {"text": "abcdef"}, start_timeout=400).output == {"summary": "abc"}
        assert cloud.clock.now() - began >= 300
    cloud.assert_nothing_billing(after=600)
    assert asyncio.run(call()) == {"summary": "abc"}
    cloud.assert_nothing_billing(after=600)
    assert trio.run(call) == {"summary": "abc"}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_client_waits_as_long_as_it_really_would(cloud: UnigpuMock, provider: str) -> None:
    cloud.serve(f"summarize@{provider}", short, cold_start=300)
    with Client(provider) as client, pytest.raises(errors.NoWorkerReady):
        client.invoke("summarize", {"text": "abc"}, start_timeout=30)


@pytest.mark.parametrize("clock", ["instant", "virtual", "real"])
def test_a_client_made_before_the_mock_is_served_on_each_clock(clock: Any) -> None:
    with Client("local") as client:
        with unigpu_mock("local", clock=clock) as cloud:
            cloud.serve("summarize", short, cold_start=0.05, duration=0.0)
            assert client.invoke("summarize", {"text": "abcdef"}).output == {"summary": "abc"}
        assert isinstance(get_clock(), RealClock)


def test_a_virtual_clock_keeps_the_order_of_many_callers() -> None:
    async def calls(cloud: UnigpuMock) -> list[int]:
        done: list[int] = []

        async def one(client: AsyncClient, n: int) -> None:
            await client.invoke("slow", {"n": n})
            done.append(n)

        async with AsyncClient() as client:
            await asyncio.gather(*(one(client, n) for n in (3, 1, 2)))
        return done

    with unigpu_mock("local", clock="virtual") as cloud:
        cloud.serve("slow", lambda i: i, duration=lambda i: 10.0 * i["n"], workers=(3, 3))
        assert asyncio.run(calls(cloud)) == [1, 2, 3]


def test_a_virtual_clock_keeps_the_order_on_trio_too() -> None:
    done: list[int] = []

    async def one(client: AsyncClient, n: int) -> None:
        await client.invoke("slow", {"n": n})
        done.append(n)

    async def calls() -> None:
        async with AsyncClient() as client, trio.open_nursery() as nursery:
            for n in (3, 1, 2):
                nursery.start_soon(one, client, n)

    with unigpu_mock("local", clock="virtual") as cloud:
        cloud.serve("slow", lambda i: i, duration=lambda i: 10.0 * i["n"], workers=(3, 3))
        trio.run(calls)
    assert done == [1, 2, 3]


def test_many_threads_share_a_mock(cloud: UnigpuMock) -> None:
    cloud.serve("summarize@local", short, cold_start=30, workers=(0, 3))
    with Client("local") as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        outputs = pool.map(lambda n: client.invoke("summarize", {"text": f"{n:03}..."}).output, range(24))
        assert list(outputs) == [{"summary": f"{n:03}"} for n in range(24)]


def test_map_runs_in_order(cloud: UnigpuMock) -> None:
    cloud.serve("summarize@local", short)
    with Client("local") as client:
        found = [one.output for one in client.map("summarize", [{"text": f"{n}__x"} for n in range(5)], progress="off")]
    assert found == [{"summary": f"{n}__"} for n in range(5)]


@pytest.mark.parametrize("provider", PROVIDERS)
def test_what_the_application_deploys_itself_lives_and_ends(cloud: UnigpuMock, provider: str) -> None:
    cloud.serve(f"summarize@{provider}", short, exists=False)
    fields = {} if provider == "local" else {"image": "me/app:1", "gpu": "RTX 4090"}
    with Client(provider) as client:
        handle = client.deploy(name="summarize", handler="unigpu.testing._mock.served:served", progress="off", **fields)  # type: ignore[arg-type]
        assert client.invoke(handle, {"text": "abcdef"}).output == {"summary": "abc"}
        client.teardown(handle)
        with pytest.raises(errors.NotFoundError):
            client.get("summarize")
    cloud.assert_nothing_billing(after=600)
    assert {one.operation for one in cloud.calls("summarize", "teardown")}


def test_a_handler_that_raises_is_a_failed_job(cloud: UnigpuMock) -> None:
    cloud.serve("broken@local", lambda _: {}["no"])
    with Client("local") as client, pytest.raises(errors.JobFailed) as caught:
        client.invoke("broken", {})
    assert caught.value.error_type == "KeyError"


def test_a_create_whose_answer_is_lost_makes_one_deployment(cloud: UnigpuMock) -> None:
    fault = cloud.reference.fault("endpoint.create", after=500)
    with Client("reference") as client:
        client.deploy(
            name="once", handler="app:f", image="me/app:1", gpu="RTX 4090", workers=(0, 1), progress="off", settle=True
        )
        assert fault.hits == 1
        assert [one.name for one in client.deployments(provider="reference")] == ["once"]


def test_no_capacity_is_an_error_of_ours_until_healed(cloud: UnigpuMock) -> None:
    cloud.serve("chat@reference", short)
    with Client("reference") as client:
        cloud.reference.no_capacity()
        with pytest.raises(errors.UniGPUError):
            client.scale("chat", (1, 1))
        cloud.reference.heal()
        cloud.advance(600)
        assert client.scale("chat", (1, 1)).info.workers == (1, 1)


def test_a_read_timeout_ends_a_request_that_is_never_answered(cloud: UnigpuMock) -> None:
    cloud.serve("chat@reference", short)
    cloud.reference.fault("endpoint.get", before="timeout", times=None)
    cloud.reference.fault("endpoint.list", before="timeout", times=None)
    with Client("reference") as client, pytest.raises(errors.TransportError):
        client.get("chat")


def test_calls_are_told_by_deployment_and_verb(cloud: UnigpuMock) -> None:
    cloud.serve("one@local", short)
    cloud.serve("two@local", short)
    with Client("local") as client:
        for _ in range(2):
            client.invoke("one", {"text": "abc"})
    assert len(cloud.calls("one", "invoke")) == 2
    assert cloud.calls("two@local", "invoke") == ()
    assert len(cloud.calls(verb="deploy")) == 2


def test_a_worker_that_stays_is_named(cloud: UnigpuMock) -> None:
    cloud.serve("warm@local", short, workers=(1, 1))
    cloud.advance(10)
    with pytest.raises(AssertionError, match="warm"):
        cloud.assert_nothing_billing(after=600)


def test_state_keys_and_config_are_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REFERENCE_API_KEY", "a-real-one")
    monkeypatch.setenv("RUNPOD_API_KEY", "a-real-one")
    monkeypatch.setenv("UNIGPU_NAMESPACE", "production")
    monkeypatch.setenv("UNIGPU_STATE_DIR", str(tmp_path / "real"))
    with unigpu_mock("reference") as cloud:
        assert os.environ["REFERENCE_API_KEY"] == "key-of-a-mock"
        assert not {"RUNPOD_API_KEY", "UNIGPU_NAMESPACE"} & set(os.environ)
        cloud.serve("chat", short)
        with Client("reference") as client:
            assert client.invoke("chat", {"text": "abc"}).ok
        assert cloud.state_dir.exists()
    assert not (tmp_path / "real").exists()
    assert os.environ["REFERENCE_API_KEY"] == "a-real-one"
    assert not cloud.state_dir.exists()


def test_two_mocks_side_by_side_keep_apart(cloud: UnigpuMock) -> None:
    cloud.serve("who@reference", lambda _: {"i": "outer"})
    with unigpu_mock("reference") as inner:
        inner.serve("who", lambda _: {"i": "inner"})
        with Client("reference") as client:
            assert client.invoke("who", {}).output == {"i": "inner"}
    with Client("reference") as client:
        assert client.invoke("who", {}).output == {"i": "outer"}


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_tests_own_respx_serves_its_own_hosts_beside_ours(first: str) -> None:
    theirs = respx.mock(assert_all_mocked=first != "theirs", assert_all_called=False)
    ours = unigpu_mock("reference")
    outer, inner = (ours, theirs) if first == "ours" else (theirs, ours)
    with outer, inner:
        theirs.get("https://weather.test/").respond(json={"t": 3})
        ours.serve("chat", short)
        with Client("reference") as client:
            assert client.invoke("chat", {"text": "abc"}).ok
        assert httpx.get("https://weather.test/", trust_env=False).json() == {"t": 3}


def test_a_tests_own_route_for_a_served_host_is_told(cloud: UnigpuMock) -> None:
    with respx.mock(assert_all_called=False) as mine, Client("reference") as client:
        mine.route(host="api.reference.test").respond(418)
        with pytest.raises(AssertionError, match="unigpu_mock both serve"):
            client.deployments(provider="reference")


def test_what_is_not_served_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(errors.ConfigurationError, match="reference"):
        unigpu_mock("referense")
    with unigpu_mock("local") as cloud, pytest.raises(AttributeError, match="local"):
        cloud.reference  # noqa: B018 - the access is the test


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_fault_that_could_never_strike_is_refused_with_the_nearest_route(cloud: UnigpuMock, provider: str) -> None:
    platform = getattr(cloud, provider)
    with pytest.raises(errors.ConfigurationError, match=r"did you mean 'job\.submit'"):
        platform.fault("job.sumbit", after=500)
    with pytest.raises(errors.ConfigurationError, match="no route"):
        platform.fault("jbo.*", after=500)
    platform.fault("job.*", before=500)
    platform.fault("*", before=500)


def test_a_hundred_mocks_in_one_process_are_each_reached() -> None:
    with Client("local") as client:
        for _ in range(100):
            with unigpu_mock("local") as cloud:
                cloud.serve("one", short)
                assert client.get("one").name == "one"
