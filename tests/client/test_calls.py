"""Calls of a function deployment: what is sent, how long it waits, and what becomes of it."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import MappingProxyType
from typing import Any

import pytest

from unigpu import (
    AsyncClient,
    Client,
    ConfigurationError,
    DeadlineExceeded,
    DeploymentGone,
    InvalidInput,
    JobCancelled,
    JobFailed,
    JobStatus,
    NoWorkerReady,
    PayloadTooLarge,
    State,
    StreamInterrupted,
    TransportTimeout,
    UnsupportedError,
    WorkerLost,
    _registry,
)

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello", "progress": "off"}
instant = pytest.mark.usefixtures("instant")


@instant
def test_a_handlers_failure_is_data(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(JobFailed, match="ValueError: no such file") as caught:
            await app.invoke({"fail": "no such file"})
        assert (caught.value.error_type, caught.value.error_message) == ("ValueError", "no such file")
        with pytest.raises(WorkerLost):
            await app.invoke({"lose": True})

    flavour.run(work, "fake")


@instant
def test_an_idempotent_call_runs_again_when_its_worker_is_lost_and_others_do_not(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        for idempotent, sent in ((False, 1), (True, 3)):
            cloud.log.clear()
            with pytest.raises(WorkerLost):
                await app.invoke({"lose": True}, idempotent=idempotent)
            assert cloud.count("submit") == sent

    flavour.run(work, "fake")


@instant
def test_no_worker_in_time_says_so_and_cancels_the_job(flavour: Any, cloud: Any) -> None:
    cloud.cold_start = 3600.0

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(NoWorkerReady) as caught:
            await app.invoke({"a": 1}, start_timeout=5)
        assert (caught.value.job, caught.value.state) == (None, "STARTING")
        assert [entry.cancelled for entry in cloud.jobs.values()] == [True]

    flavour.run(work, "fake")


@instant
def test_keep_leaves_the_job_in_the_queue_and_hands_it_over(flavour: Any, cloud: Any) -> None:
    cloud.cold_start = 3600.0

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(NoWorkerReady) as caught:
            await app.invoke({"a": 1}, start_timeout=5, on_timeout="keep")
        assert [entry.cancelled for entry in cloud.jobs.values()] == [False]
        cloud.cold_start = 0.0
        job = caught.value.job
        assert job.id == caught.value.job_id
        result = job.result()
        assert (await result if hasattr(result, "__await__") else result).output == {"a": 1}

    flavour.run(work, "fake")


@instant
def test_the_whole_has_a_deadline_of_its_own(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(DeadlineExceeded) as caught:
            await app.invoke({"sleep": 100}, timeout=3)
        assert not isinstance(caught.value, NoWorkerReady)
        assert [entry.cancelled for entry in cloud.jobs.values()] == [True]

    flavour.run(work, "fake")


@instant
def test_a_call_may_be_told_not_to_start_a_worker(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(NoWorkerReady, match="may not start one"):
            await app.invoke({}, wake=False)
        assert cloud.count("submit") == 0

    flavour.run(work, "fake")


@instant
def test_a_job_outlives_the_call_that_submitted_it(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        job = await app.submit({"sleep": 2})
        assert await job.status() is JobStatus.RUNNING
        assert "RUNNING as last seen" in repr(job).replace("(", "").replace(")", "")
        with pytest.raises(DeadlineExceeded):
            await job.result(timeout=0.5)
        assert (await job.result()).output == {"sleep": 2}
        other = await client.submit("hello", {"sleep": 1000})
        assert await other.cancel() is JobStatus.CANCELLED
        with pytest.raises(JobCancelled):
            await other.result()

    flavour.run(work, "fake")


@instant
def test_a_stream_gives_chunks_and_then_the_whole_result(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        async with app.stream({"chunks": 3}) as stream:
            with pytest.raises(ConfigurationError, match="end"):
                _ = stream.result
            assert [chunk async for chunk in stream] == [0, 1, 2]
            assert stream.result.output == [0, 1, 2]
        job = await app.submit({"chunks": 2})
        assert [chunk async for chunk in job.stream()] == [0, 1]

    flavour.run(work, "fake")


@instant
def test_leaving_a_stream_early_cancels_its_job(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        async with app.stream({"endless": True}) as stream:
            async for chunk in stream:
                if chunk == 4:
                    break
        assert [entry.cancelled for entry in cloud.jobs.values()] == [True]

    flavour.run(work, "fake")


@instant
def test_a_leaked_async_stream_warns(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            stream = app.stream({"endless": True})
            await anext(stream)
            with pytest.warns(ResourceWarning, match="async with"):  # noqa: PT031 - dropping it is the statement
                del stream
                gc.collect()

    asyncio.run(work())


@instant
@instant
@pytest.mark.parametrize(("sent", "job"), [(False, False), (True, True)])
def test_a_submit_that_takes_the_whole_time_is_a_deadline_and_its_job_is_cancelled(
    flavour: Any, cloud: Any, instant: Any, sent: bool, job: bool
) -> None:
    class Silent(_registry.load("fake")):  # type: ignore[misc]  # a driver whose platform does not answer
        async def submit(self, io: Any, info: Any, call: Any) -> Any:
            if sent:
                await super().submit(io, info, call)
            await io.sleep(call.deadline - io.now())
            raise TransportTimeout("no answer in time", never_sent=not sent, stop_reason="deadline")

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(DeadlineExceeded) as caught:
            await app.invoke({"sleep": 1000}, timeout=5)
        assert (caught.value.maybe_executed, caught.value.job_id is not None) == (sent, job)
        assert [entry.cancelled for entry in cloud.jobs.values()] == [True] * job
        cloud.jobs.clear()

    with _registry.using("fake", Silent):
        flavour.run(work, "fake")


def test_a_stream_whose_loop_has_ended_says_so_instead_of_ending(cloud: Any) -> None:
    client = AsyncClient("fake")

    async def begin() -> Any:
        app = await client.deploy(**HELLO)
        stream = app.stream({"endless": True})
        assert await anext(stream) == 0
        return stream

    async def go_on(stream: Any) -> None:
        with pytest.raises(StreamInterrupted, match="has ended") as caught:
            await anext(stream)
        assert caught.value.partial == (0,)
        await client.aclose()

    asyncio.run(go_on(asyncio.run(begin())))


def test_a_stream_that_failed_is_over_and_warns_of_nothing(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            stream = app.stream({"fail": "broken"})
            with pytest.raises(JobFailed):
                await anext(stream)
            assert [chunk async for chunk in stream] == []
            del stream
            gc.collect()

    asyncio.run(work())


INPUTS_THAT_ARE_NOT_JSON = [
    ({"a": {1, 2}}, "$.a"),
    ({"a": [1, {"b": object()}]}, "$.a[1].b"),
    ({"a": float("nan")}, "$.a"),
    ({"a": {"b": b"bytes"}}, "$.a.b"),
    ({1: "a"}, "$"),
    ({"a": "\ud800"}, "$"),
    ({"a": 10**5000}, "$"),
    ([1], "$"),
    (None, "$"),
    ("text", "$"),
]


@instant
@pytest.mark.parametrize(("given", "path"), INPUTS_THAT_ARE_NOT_JSON, ids=lambda v: str(type(v)))
def test_what_is_not_json_is_refused_with_its_path_before_anything_is_sent(
    flavour: Any, cloud: Any, given: Any, path: str
) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        cloud.log.clear()
        for verb in (client.invoke, client.submit):
            with pytest.raises(InvalidInput) as caught:
                await verb("hello", given)
            assert caught.value.path == path
        with pytest.raises(InvalidInput):
            client.stream("hello", given)
        assert cloud.log == []

    flavour.run(work, "fake")


@instant
def test_tuples_and_any_mapping_are_json_and_what_is_sent_is_a_copy(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        given = MappingProxyType({"a": (1, 2), "b": MappingProxyType({"c": True})})
        assert (await app.invoke(given)).output == {"a": [1, 2], "b": {"c": True}}

    flavour.run(work, "fake")


def _facts(**values: object) -> dict[str, Any]:
    facts: Any = _registry.load("fake").facts  # type: ignore[attr-defined]  # a plugin's own facts
    tables = {name: dict(table) for name, table in facts.items() if name.startswith("*") or "/" in name}
    for table in tables.values():
        table.update({k: {**facts["*"][k], **table.get(k, {}), "value": v} for k, v in values.items() if k in table})
    return {**facts, **tables}


@instant
def test_what_the_platform_cannot_do_is_refused_with_the_fact_before_sending(flavour: Any, cloud: Any) -> None:
    class Poor(_registry.load("fake")):  # type: ignore[misc]  # a driver with other facts
        facts = _facts(submit=False, cancel="none", streaming="none", empty_input=False, max_payload=20, stop=False)

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        cloud.log.clear()
        refused = (
            (lambda: app.submit({"a": 1}), "submit"),
            (lambda: app.invoke({"a": 1}, on_timeout="keep"), "submit"),
            (lambda: app.invoke({}), "empty_input"),
            (lambda: app.stop(), "stop"),
        )
        for call, flag in refused:
            with pytest.raises(UnsupportedError) as caught:
                await call()
            assert caught.value.capability == flag
            assert caught.value.source is not None
        with pytest.raises(UnsupportedError):
            [_ async for _ in app.stream({"a": 1})]
        with pytest.raises(PayloadTooLarge) as large:
            await app.invoke({"a": "x" * 20})
        assert (large.value.limit, large.value.size) == (20, 28)
        assert cloud.log == []

    with _registry.using("fake", Poor):
        flavour.run(work, "fake")


@instant
def test_a_verb_of_the_other_interface_names_the_right_one(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(name="web", interface="http", command=["serve"], progress="off")
        for call in (lambda: app.invoke({"a": 1}), lambda: app.submit({"a": 1})):
            with pytest.raises(UnsupportedError, match=r"request\(\)"):
                await call()
        with pytest.raises(UnsupportedError, match=r"request\(\.\.\., stream=True\)"):
            [_ async for _ in app.stream({"a": 1})]
        with pytest.raises(UnsupportedError, match="request"):
            [_ async for _ in app.map([{"a": 1}])]

    flavour.run(work, "fake")


def test_fifty_callers_of_one_client_send_one_start(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            await app.stop()
            cloud.log.clear()
            results = await asyncio.gather(*(app.start() for _ in range(50)))
            assert {id(r) for r in results} == {id(app)}
        assert cloud.count("start") == 1

    asyncio.run(work())


def test_fifty_calls_of_a_stopped_deployment_send_one_start(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            await app.stop()
            cloud.log.clear()
            results = await asyncio.gather(*(client.invoke("hello", {"i": i}) for i in range(50)))
            assert [r.output["i"] for r in results] == list(range(50))
        assert cloud.count("start") == 1

    asyncio.run(work())


def test_when_the_one_that_starts_it_is_cancelled_another_one_does(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            await app.stop()
            cloud.log.clear()
            first = asyncio.create_task(app.start())
            while cloud.count("start") == 0:
                await asyncio.sleep(0)
            second = asyncio.create_task(app.start())
            await asyncio.sleep(0)
            first.cancel()
            assert (await second).state is not State.STOPPED
            assert cloud.count("start") == 2

    asyncio.run(work())


@instant
def test_a_call_that_may_have_run_is_not_sent_again_to_a_new_deployment_of_the_name(flavour: Any, cloud: Any) -> None:
    class Replaced(_registry.load("fake")):  # type: ignore[misc]  # torn down and made anew while a job runs
        async def status(self, *args: Any, **options: Any) -> Any:
            raise DeploymentGone("it is gone", maybe_executed=False)

        async def chunks(self, *args: Any, **options: Any) -> Any:
            raise DeploymentGone("it is gone", maybe_executed=False)

    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        with pytest.raises(DeploymentGone) as caught:
            await client.invoke("hello", {"sleep": 1})
        assert caught.value.maybe_executed
        with pytest.raises(DeploymentGone):
            [_ async for _ in client.stream("hello", {"sleep": 1})]
        assert cloud.count("submit") == 2

    with _registry.using("fake", Replaced):
        flavour.run(work, "fake")


def test_sixteen_threads_use_one_client(cloud: Any) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO)
        app.stop()
        cloud.log.clear()
        barrier, wrong = threading.Barrier(16), list[BaseException]()

        def work(n: int) -> None:
            try:
                barrier.wait(30)
                app.start()
                for i in range(20):
                    assert client.invoke("hello", {"n": n, "i": i}).output == {"n": n, "i": i}
                client.get("hello").workers()
            except BaseException as exc:
                wrong.append(exc)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == []
        assert cloud.count("start") >= 1
        assert len(cloud.jobs) == 16 * 20


def test_an_async_client_works_under_a_second_loop(cloud: Any) -> None:
    client = AsyncClient("fake")

    async def work(n: int) -> None:
        app = await client.deploy(**HELLO)
        assert (await app.invoke({"n": n})).output == {"n": n}
        assert [r.output async for r in app.map([{"i": i} for i in range(5)])] == [{"i": i} for i in range(5)]

    asyncio.run(work(1))
    asyncio.run(work(2))
    asyncio.run(client.aclose())
