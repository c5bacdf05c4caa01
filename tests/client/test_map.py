"""`map`: the window, the order, errors, and what becomes of the jobs when it ends early."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import trio

from unigpu import (
    AsyncClient,
    Client,
    ClientClosed,
    ConfigurationError,
    DeploymentGone,
    InvalidInput,
    JobFailed,
    NotFoundError,
)
from unigpu._io.clock import InstantClock, VirtualClock, use_clock

HELLO: dict[str, Any] = {"name": "hello", "handler": "app:hello", "progress": "off", "workers": (0, 4)}


def inputs(n: int, **more: Any) -> Iterator[dict[str, Any]]:
    return ({"i": i, **more} for i in range(n))


def test_results_come_in_the_order_of_the_inputs_with_their_keys(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        # The first is the slowest: its result is still the first.
        given = [{"i": i, "sleep": 0.2 if i == 0 else 0.0} for i in range(20)]
        found = [r async for r in app.map(given, progress="off")]
        assert [r.output["i"] for r in found] == list(range(20))
        assert [r.key for r in found] == [str(i) for i in range(20)]
        assert all(r.ok for r in found)

    flavour.run(work, "fake")


def test_results_may_come_as_they_are_done(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        given = [{"i": i, "sleep": 0.5 if i == 0 else 0.0} for i in range(8)]
        found = [r.output["i"] async for r in app.map(given, order="done", progress="off")]
        assert sorted(found) == list(range(8))
        assert found[0] != 0

    flavour.run(work, "fake")


def test_memory_goes_with_the_window_never_with_the_inputs(flavour: Any, cloud: Any) -> None:
    pulled: list[int] = []

    def endless() -> Iterator[dict[str, Any]]:
        for i in range(10**9):
            pulled.append(i)
            yield {"i": i}

    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        taken = 0
        async with client.map("hello", endless(), concurrency=4, progress="off") as results:
            async for result in results:
                assert result.output == {"i": taken}
                taken += 1
                assert len(pulled) <= taken + 2 * 4
                if taken == 50:
                    break

    flavour.run(work, "fake")


def test_the_window_is_what_the_workers_take_unless_it_is_said(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO, concurrency=2)
        for concurrency, most in ((None, 8), (3, 3)):
            cloud.most_running = 0
            [_ async for _ in app.map(inputs(12, sleep=0.2), concurrency=concurrency, progress="off")]
            assert 2 <= cloud.most_running <= most

    flavour.run(work, "fake")


def test_the_first_failure_is_raised_and_the_other_jobs_are_cancelled(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        given = [{"fail": "broken"}, *inputs(3, sleep=1000)]
        with pytest.raises(JobFailed, match="broken"):
            [_ async for _ in app.map(given, progress="off")]
        assert all(e.cancelled for e in cloud.jobs.values() if "sleep" in e.call.input)

    flavour.run(work, "fake")


def test_failures_may_come_as_results(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        given = [{"i": 0}, {"fail": "broken"}, {"i": float("nan")}, {"i": 3}]
        found = [r async for r in app.map(given, on_error="return", progress="off")]
        assert [r.ok for r in found] == [True, False, False, True]
        assert isinstance(found[1].error, JobFailed)
        assert isinstance(found[2].error, InvalidInput)
        assert [r.key for r in found] == ["0", "1", "2", "3"]

    flavour.run(work, "fake")


def test_a_sync_map_pulls_its_inputs_in_the_consumers_own_thread(cloud: Any) -> None:
    threads: set[int] = set()

    def mine() -> Iterator[dict[str, Any]]:
        for i in range(20):
            threads.add(threading.get_ident())
            yield {"i": i}

    with Client("fake") as client:
        list(client.deploy(**HELLO).map(mine(), progress="off"))
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("clock", [InstantClock, VirtualClock])
def test_a_map_of_hours_passes_at_once_on_a_clock_that_a_test_moves(flavour: Any, cloud: Any, clock: Any) -> None:
    cloud.cold_start = 300.0

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        found = [r async for r in app.map(inputs(8, sleep=300), start_timeout=7200, timeout=10**6, progress="off")]
        assert [r.output["i"] for r in found] == list(range(8))

    with use_clock(clock()):
        flavour.run(work, "fake")


def test_an_error_of_the_input_iterator_is_the_users_own(flavour: Any, cloud: Any) -> None:
    def broken() -> Iterator[dict[str, Any]]:
        yield {"i": 0}
        raise ZeroDivisionError("the file ended")

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        with pytest.raises(ZeroDivisionError, match="the file ended"):
            [_ async for _ in app.map(broken(), progress="off")]

    flavour.run(work, "fake")


def test_a_name_that_does_not_exist_is_not_found(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        with pytest.raises(NotFoundError):
            [_ async for _ in client.map("hello", inputs(3), progress="off")]

    flavour.run(work, "fake")


def test_a_deployment_that_went_away_is_told(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        cloud.rows.clear()
        with pytest.raises(DeploymentGone):
            [_ async for _ in app.map(inputs(3), progress="off")]

    flavour.run(work, "fake")


def test_what_is_given_is_checked_at_once(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        await client.deploy(**HELLO)
        wrong: list[dict[str, Any]] = [
            {"inputs": 5},
            {"inputs": {"a": 1}},
            {"inputs": "text"},
            {"concurrency": 0},
            {"order": "inptu"},
            {"on_error": "ignore"},
            {"key": "id"},
            {"progress": "on"},
            {"timeout": -1},
        ]
        for one in wrong:
            with pytest.raises(ConfigurationError):
                client.map("hello", **{"inputs": [], **one})

    flavour.run(work, "fake")


def test_an_empty_map_has_no_results(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        assert [r async for r in app.map([], progress="off")] == []

    flavour.run(work, "fake")


def test_progress_tells_how_many_are_done(flavour: Any, cloud: Any) -> None:
    seen: list[Any] = []

    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        [_ async for _ in app.map(inputs(5), progress=seen.append)]

    flavour.run(work, "fake")
    assert seen[-1].message == "5 done, 0 failed, 0 open"
    assert len(seen) == 6


def test_leaving_early_cancels_what_still_runs(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        given = [{"i": 0}, *inputs(3, sleep=1000)]
        async with app.map(given, progress="off") as results:
            async for _ in results:
                break
        await_all(cloud)

    flavour.run(work, "fake")
    assert_one_thread()


def await_all(cloud: Any) -> None:
    assert all(e.cancelled for e in cloud.jobs.values() if "sleep" in e.call.input)


def assert_one_thread() -> None:
    assert [t.name for t in threading.enumerate() if t.name == "unigpu-map"] == []


def test_dropping_the_iterator_of_a_sync_map_cancels_too(cloud: Any) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO)
        results = app.map([{"i": 0}, *inputs(3, sleep=1000)], progress="off")
        next(results)
        del results
        gc.collect()
        await_all(cloud)
    assert_one_thread()


def test_dropping_the_iterator_of_an_async_map_cancels_too(cloud: Any) -> None:
    async def work() -> None:
        async with AsyncClient("fake") as client:
            app = await client.deploy(**HELLO)
            results = app.map([{"i": 0}, *inputs(3, sleep=1000)], progress="off")
            await anext(results)
            del results
            gc.collect()
            while any(t.get_name() == "unigpu map" for t in asyncio.all_tasks()):
                await asyncio.sleep(0)
            await_all(cloud)

    asyncio.run(work())


def test_cancelling_the_consumer_cancels_the_jobs(cloud: Any) -> None:
    async def consume(client: AsyncClient) -> None:
        async for _ in client.map("hello", inputs(4, sleep=1000), progress="off"):
            raise AssertionError("none of them ends")

    async def on_asyncio() -> None:
        async with AsyncClient("fake") as client:
            await client.deploy(**HELLO)
            task = asyncio.create_task(consume(client))
            while len(cloud.jobs) < 4:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await_all(cloud)

    async def on_trio() -> None:
        async with AsyncClient("fake") as client:
            await client.deploy(**HELLO, if_exists="replace")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume, client)
                while len(cloud.jobs) < 8:
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        await_all(cloud)

    asyncio.run(on_asyncio())
    trio.run(on_trio)


def test_a_transport_for_threads_only_names_the_async_client(cloud: Any) -> None:
    class ThreadsOnly(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise AssertionError("nothing is sent")

    with Client("fake", transport=ThreadsOnly()) as client:
        app = client.deploy(**HELLO)
        with pytest.raises(ConfigurationError, match="AsyncClient"):
            list(app.map(inputs(2), progress="off"))


SIGINT_CHILD = """
import importlib.util, sys, time
spec = importlib.util.spec_from_file_location("client_fakes", sys.argv[1])
fakes = importlib.util.module_from_spec(spec); sys.modules["client_fakes"] = fakes; spec.loader.exec_module(fakes)
from unigpu import Client, _registry
cloud = fakes.FakeCloud()
where = sys.argv[2]

def told():
    print("cancelled", sum(e.cancelled for e in cloud.jobs.values()), flush=True)

import atexit
atexit.register(told)  # registered first, so it runs last: after the finalizer of the map
with _registry.using("fake", fakes.driver_for(cloud)), Client("fake") as client:
    client.deploy(name="hello", handler="app:f", workers=(0, 8), progress="off")
    first = [{"i": 0}] if where != "next" else []
    results = client.map("hello", [*first, *({"i": i, "sleep": 1000} for i in range(8))], progress="off")
    if where == "next":
        import threading
        def when_all_run():
            while len(cloud.jobs) < 8: time.sleep(0.01)
            print("go", flush=True)
        threading.Thread(target=when_all_run, daemon=True).start()
        next(results)
    for result in results:
        while len(cloud.jobs) < 9: time.sleep(0.01)
        print("go", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("where", ["next", "body"])
def test_ctrl_c_cancels_the_jobs_wherever_the_consumer_is(where: str, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", SIGINT_CHILD, str(Path(__file__).with_name("fake_driver.py")), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "go\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert out.strip() == "cancelled 8"
    assert "KeyboardInterrupt" in err
    assert "Warning" not in err


def test_a_client_that_is_closed_sends_no_more_inputs(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        results = app.map(inputs(1000), concurrency=2, progress="off")
        await anext(results)
        await client.aclose()
        with pytest.raises(ClientClosed):
            [_ async for _ in results]
        assert cloud.count("submit") < 20

    flavour.run(work, "fake")


def test_a_map_whose_loop_has_ended_says_so_instead_of_ending(cloud: Any) -> None:
    client = AsyncClient("fake")

    async def begin() -> Any:
        app = await client.deploy(**HELLO)
        results = app.map(inputs(50), progress="off")
        await anext(results)
        return results

    async def go_on(results: Any) -> None:
        with pytest.raises(ClientClosed, match="ended while it was read"):
            [_ async for _ in results]
        await client.aclose()

    results = asyncio.run(begin())
    asyncio.run(go_on(results))


def test_a_key_function_cannot_end_a_map_by_accident(flavour: Any, cloud: Any) -> None:
    async def work(client: Any) -> None:
        app = await client.deploy(**HELLO)
        for end in (StopIteration, StopAsyncIteration):

            def key(value: Any, end: type[Exception] = end) -> str:
                raise end

            with pytest.raises(RuntimeError, match=end.__name__):
                [_ async for _ in app.map(inputs(3), key=key, progress="off")]

    flavour.run(work, "fake")


def test_ctrl_c_while_the_maps_thread_begins_is_not_hidden_and_nothing_is_sent(
    cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[threading.Thread] = []

    class Interrupted(threading.Thread):
        """As if the press came while ``start`` waits for the thread's first step."""

        def start(self) -> None:
            later = threading.Thread(target=self.run, daemon=True)
            begun.append(later)
            raise KeyboardInterrupt

    with Client("fake") as client:
        app = client.deploy(**HELLO)
        results = app.map(inputs(20), progress="off")
        with monkeypatch.context() as patched:
            patched.setattr(
                "unigpu._client.map.results.threading", SimpleNamespace(**{**vars(threading), "Thread": Interrupted})
            )
            with pytest.raises(KeyboardInterrupt):
                next(results)
        begun[0].start()
        begun[0].join(30)
        assert not begun[0].is_alive()
        assert cloud.count("submit") == 0


def test_a_forked_child_is_told_that_a_map_is_its_parents(cloud: Any) -> None:
    with Client("fake") as client:
        app = client.deploy(**HELLO)
        results = app.map(inputs(20), progress="off")
        next(results)
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 and later: the process has threads
            child = os.fork()
        if child == 0:
            said = "it went on"
            try:
                next(results)
            except ClientClosed as exc:
                said = exc.message
            finally:
                os.write(write, said.encode())
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            assert "forked" in pipe.read()
        os.waitpid(child, 0)
        assert len(list(results)) == 19


def test_results_do_not_wait_for_inputs_that_are_slow_to_come(cloud: Any) -> None:
    pulled = 0

    def slowly() -> Iterator[dict[str, Any]]:
        nonlocal pulled
        for i in range(100):
            time.sleep(0.06)
            pulled += 1
            yield {"i": i}

    with Client("fake") as client:
        app = client.deploy(**HELLO)
        with app.map(slowly(), concurrency=60, progress="off") as results:
            assert [next(results).output["i"] for _ in range(3)] == [0, 1, 2]
            assert pulled < 100, "not two windows first"
