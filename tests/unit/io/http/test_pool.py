"""Connections: none lost, none mixed up; under cancellation, from threads, after a fork, and under another loop."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from typing import Any

import anyio
import pytest

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.contract import CallClass
from unigpu._io.http.client import AsyncHttpIo, HttpConfig, SyncHttpIo

LIMIT = 8
SMALL = HttpConfig(private_workers=True, trust_env=False, limit=LIMIT)


def slow_echo(conn: Any) -> None:
    """Echo, after a few milliseconds for every third request."""
    number = 0
    while (got := conn.request()) is not None:
        number += 1
        if number % 3 == 0:
            conn.server.stopping.wait(0.003)
        conn.answer(got[2])


async def _all_slots_are_free(io: Any, ask: Any, url: str) -> None:
    """*LIMIT* calls must be able to run at the same time, each on a connection of its own; none may wait in line."""
    async with anyio.create_task_group() as group:

        async def hold() -> None:
            async with io.stream(ask(io, url, method="POST", json=1)) as reply:
                held.append(reply)
                await done.wait()

        held: list[Any] = []
        done = anyio.Event()
        for _ in range(LIMIT):
            group.start_soon(hold)
        with anyio.fail_after(20):
            while len(held) < LIMIT:
                await anyio.sleep(0.002)
        done.set()


def test_cancelled_scopes_lose_no_slot(loop_flavour: Any, ask: Any, serve: Any) -> None:
    server, rnd = serve(slow_echo), random.Random(4)

    async def work(io: Any) -> tuple[int, int]:
        done = cancelled = 0

        async def one(number: int) -> None:
            nonlocal done, cancelled
            with anyio.move_on_after(rnd.random() * 0.2 if number % 2 else 60) as scope:
                reply = await io.send(ask(io, server.url, seconds=60, method="POST", json=number))
                assert reply.json() == number
                done += 1
            cancelled += scope.cancelled_caught

        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(one, number)
        await _all_slots_are_free(io, ask, server.url)
        return done, cancelled

    done, cancelled = loop_flavour.with_io(work, SMALL)
    assert done + cancelled == 300
    assert done >= 150
    gc.collect()  # a socket that was lost would warn here, and warnings are errors


def test_native_cancels_twice_in_one_turn_lose_no_slot(ask: Any, serve: Any) -> None:
    server, rnd = serve(slow_echo), random.Random(5)

    async def main() -> None:
        io = AsyncHttpIo(SMALL)
        loop = asyncio.get_running_loop()

        async def one(number: int) -> None:
            reply = await io.send(ask(io, server.url, seconds=60, method="POST", json=number))
            assert reply.json() == number

        tasks = [asyncio.create_task(one(number)) for number in range(300)]
        for task in tasks[::2]:
            delay = rnd.random() * 0.2
            for more in (0, 0, 0.0005):
                loop.call_later(delay + more, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
        assert all(result is None for result in results[1::2])
        await _all_slots_are_free(io, ask, server.url)
        await io.aclose()

    asyncio.run(main())
    gc.collect()


def test_never_more_connections_than_the_limit(loop_flavour: Any, ask: Any, serve: Any) -> None:
    server = serve(slow_echo)

    async def work(io: Any) -> None:
        async with anyio.create_task_group() as group:
            for number in range(200):
                group.start_soon(io.send, ask(io, server.url, seconds=60, method="POST", json=number))

    loop_flavour.with_io(work, SMALL)
    assert server.connections <= LIMIT
    assert len(server.requests) == 200


def test_sixteen_threads_share_one_io_and_get_their_own_answers(ask: Any, serve: Any) -> None:
    server, io, wrong = serve(slow_echo), SyncHttpIo(SMALL), list[Any]()

    def worker(thread: int) -> None:
        for number in range(40):
            mine = [thread, number]
            try:
                reply = run_sync(io.send(ask(io, server.url, seconds=60, method="POST", json=mine)))
                if reply.json() != mine:
                    wrong.append((mine, reply.json()))
            except Exception as exc:
                wrong.append((mine, exc))

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(server.requests) == 640
    assert server.connections <= LIMIT
    io.close()


def test_a_thread_that_waits_in_line_ends_at_its_deadline_and_leaves_no_gap(ask: Any, serve: Any) -> None:
    release = threading.Event()

    def script(conn: Any) -> None:
        while conn.request():
            release.wait(30)
            conn.answer()

    server = serve(script)
    io = SyncHttpIo(HttpConfig(private_workers=True, trust_env=False, limit=1))
    hog = threading.Thread(target=lambda: run_sync(io.send(ask(io, server.url, seconds=60))))
    hog.start()
    while not server.requests:
        time.sleep(0.002)
    with pytest.raises(errors.TransportTimeout) as caught:
        run_sync(io.send(ask(io, server.url, seconds=0.05)))
    assert caught.value.never_sent
    release.set()
    hog.join(30)
    assert run_sync(io.send(ask(io, server.url, seconds=60))).status == 200
    assert server.connections == 1
    io.close()


def test_an_old_socket_is_not_trusted_with_a_call_that_must_not_repeat(
    flavour: Any, ask: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    shift = 0.0
    real = time.monotonic

    async def work(io: Any) -> None:
        nonlocal shift
        await io.send(ask(io, server.url, role="jobs"))
        shift = 6.0  # only what `net` reads: as if six seconds had passed since that connection became idle
        monkeypatch.setattr("unigpu._io.http.network.time.monotonic", lambda: real() + shift)
        await io.send(ask(io, server.url, role="jobs", seconds=60))
        assert server.connections == 1
        shift = 12.0
        await io.send(ask(io, server.url, role="jobs", seconds=60, call=CallClass.USER_DECIDES, method="POST"))
        assert server.connections == 2
        monkeypatch.undo()

    flavour.with_io(work)


FORK = """
import json, os, sys
from unigpu._io.bridge import run_sync
from unigpu._io.contract import CallClass, Request
from unigpu._io.http.client import HttpConfig, SyncHttpIo

url = sys.argv[1]
io = SyncHttpIo(HttpConfig(trust_env=False, private_workers=True))

def call(value):
    request = Request(method="POST", url=url, operation="t", json=value, role="control",
                      call=CallClass.IDEMPOTENT, deadline=io.now() + 60)
    return run_sync(io.send(request)).json()

def wrong(who):
    return sum(call([who, n]) != [who, n] for n in range(150))

assert call("warm") == "warm"                      # an idle connection is there when it forks
child = os.fork()
mistakes = wrong("child" if child == 0 else "parent")
if child == 0:
    os._exit(mistakes and 1)
_, status = os.waitpid(child, 0)
print(json.dumps([mistakes, os.waitstatus_to_exitcode(status)]))
io.close()
"""

FORK_ASYNC = """
import asyncio, json, os, sys
from unigpu._io.contract import CallClass, Request
from unigpu._io.http.client import HttpConfig, AsyncHttpIo

url = sys.argv[1]
io = AsyncHttpIo(HttpConfig(trust_env=False, private_workers=True))

async def call(value):
    request = Request(method="POST", url=url, operation="t", json=value, role="control",
                      call=CallClass.IDEMPOTENT, deadline=io.now() + 60)
    return (await io.send(request)).json()

async def wrong(who):
    return sum([await call([who, n]) != [who, n] for n in range(100)])

async def parent():
    assert await call("warm") == "warm"
    child = os.fork()
    if child == 0:
        os._exit(2)                                # the loop itself may not be used in the child
    os.waitpid(child, 0)
    return await wrong("parent")

mistakes = asyncio.run(parent())
child = os.fork()
if child == 0:
    os._exit(asyncio.run(wrong("child")) and 1)
_, status = os.waitpid(child, 0)
print(json.dumps([mistakes, os.waitstatus_to_exitcode(status)]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("script", [FORK, FORK_ASYNC], ids=["sync", "asyncio"])
def test_after_a_fork_parent_and_child_get_their_own_answers(serve: Any, script: str) -> None:
    server = serve()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), server.url], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[0, 0]", done.stderr


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_io_works_under_a_second_and_a_third_loop(ask: Any, serve: Any) -> None:
    # The sockets of a loop that ended cannot be closed any more, so Python warns; the answers are right.
    server, io = serve(), AsyncHttpIo(SMALL)

    async def three() -> None:
        for number in range(3):
            reply = await io.send(ask(io, server.url, method="POST", json=number))
            assert reply.json() == number

    for _ in range(3):
        asyncio.run(three())
    assert server.connections == 3

    async def close() -> None:
        await io.aclose()

    asyncio.run(close())
    gc.collect()


def test_an_interrupt_in_the_middle_of_a_call_loses_no_slot(ask: Any, serve: Any, monkeypatch: Any) -> None:
    import unigpu._io.http.network as net

    server = serve()
    io = SyncHttpIo(HttpConfig(private_workers=True, trust_env=False, limit=1))
    run_sync(io.send(ask(io, server.url)))

    def press(*_: Any, **__: Any) -> bytes:
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(net._SyncStream, "read", press)
        with pytest.raises(KeyboardInterrupt):
            run_sync(io.send(ask(io, server.url)))
        monkeypatch.undo()
        assert run_sync(io.send(ask(io, server.url))).status == 200
    io.close()


def test_what_is_in_use_while_it_is_closed_is_closed_when_it_comes_back(flavour: Any, ask: Any, serve: Any) -> None:
    ended = threading.Event()

    def script(conn: Any) -> None:
        conn.request()
        conn.answer()
        conn.request()  # returns when the client closes
        ended.set()

    server = serve(script)

    async def main() -> None:
        io = flavour.make()
        async with io.stream(ask(io, server.url)) as reply:
            if flavour.is_async:
                await io.aclose()
            else:
                io.close()
            assert await reply.read() == b"ok"

    flavour.run(main)
    assert ended.wait(10)


EMFILE = """
import resource, socket, sys
from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.contract import CallClass, Request
from unigpu._io.http.client import HttpConfig, SyncHttpIo

io = SyncHttpIo(HttpConfig(trust_env=False, limit=1))

def call():
    return run_sync(io.send(Request(method="GET", url=sys.argv[1], operation="t", role="create",
                                    call=CallClass.IDEMPOTENT, deadline=io.now() + 30))).status

assert call() == 200
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
hoard = []
try:
    while True:
        hoard.append(socket.socket())
except OSError:
    pass
try:
    call()
except errors.TransportError as exc:
    print(exc.never_sent, "too many open files" in str(exc))
for one in hoard:
    one.close()
print(call())
io.close()
"""


def test_no_descriptor_left_is_explained_and_costs_no_slot(serve: Any) -> None:
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EMFILE, serve().url], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True", "200"], done.stderr
