"""A cleanup that was begun ends, whatever cancels or interrupts its caller; and a person can still abandon it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import anyio
import pytest

from unigpu import errors
from unigpu._io.bridge import run_sync
from unigpu._io.shield import shield_async, shield_sync

CHILD = """
import asyncio, os, sys, time
import anyio
from unigpu._io.bridge import run_sync
from unigpu._io.http.client import AsyncHttpIo, HttpConfig, SyncHttpIo

flavour, held = sys.argv[1], float(sys.argv[2])
log = []

def say(word):
    log.append(word)
    print(word, flush=True)

async def life(io):
    try:
        say("running")
        await io.sleep(60)
    except BaseException as exc:
        say(type(exc).__name__)
        async def undo():
            say("undoing")
            end = io.now() + held
            while io.now() < end:
                await io.sleep(0.02)
            say("undone")
        await io.shield(undo, seconds=30)
        raise

config = HttpConfig(trust_env=False)
try:
    if flavour == "sync":
        run_sync(life(SyncHttpIo(config)))
    else:
        anyio.run(life, AsyncHttpIo(config), backend=flavour)
except BaseException as exc:
    say("out:" + type(exc).__name__)
"""


def press(flavour: str, presses: int, held: float) -> tuple[list[str], str]:
    """Run the child, press Ctrl-C once when it runs, and the rest while it cleans up; what it said, and its stderr."""
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", CHILD, flavour, str(held)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    said: list[str] = []
    try:
        for word in (line.strip() for line in child.stdout):
            said.append(word)
            if word == "running":
                child.send_signal(signal.SIGINT)
            elif word == "undoing":
                for number in range(presses - 1):
                    if number and flavour == "sync":
                        # two signals at once are one: wait until the first was answered
                        while "press again" not in child.stderr.readline():
                            pass
                    elif number:
                        anyio.run(anyio.sleep, 0.3)
                    child.send_signal(signal.SIGINT)
        error = child.stderr.read()
        child.wait(60)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()
    return said, error


@pytest.mark.skipif(os.name == "nt", reason="signals as on POSIX")
@pytest.mark.parametrize(
    ("flavour", "presses", "undone"),
    [
        ("sync", 1, True),
        ("sync", 2, True),
        ("sync", 3, False),
        ("asyncio", 1, True),
        ("trio", 1, True),
        ("asyncio", 3, False),
        ("trio", 2, False),
    ],
)
def test_ctrl_c_lets_a_cleanup_end_and_more_presses_abandon_it(flavour: str, presses: int, undone: bool) -> None:
    # `held` is long where it must be abandoned, so that being there early proves that nobody waited for it.
    said, error = press(flavour, presses, 0.2 if undone else 25)
    assert said[-1] == "out:KeyboardInterrupt", (said, error)
    assert ("undone" in said) is undone, (said, error)
    if flavour == "sync" and presses == 2:
        assert "press again to abandon" in error
        assert "may still bill" in error


def test_native_cancels_any_number_of_times_let_it_end() -> None:
    log: list[str] = []

    async def undo() -> None:
        await asyncio.sleep(0.05)
        log.append("undone")

    async def host() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await shield_async(undo, seconds=30)

    async def main() -> None:
        task = asyncio.create_task(host())
        await asyncio.sleep(0)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.005)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert log == ["undone"]


def test_the_end_of_asyncio_run_lets_it_end() -> None:
    log: list[str] = []

    async def undo() -> None:
        await asyncio.sleep(0.05)
        log.append("undone")

    async def main() -> None:
        task = asyncio.create_task(shield_async(undo, seconds=30))  # type: ignore[arg-type]  # generic over None
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()

    asyncio.run(main())
    assert log == ["undone"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_anyio_scope_lets_it_end_without_spinning(backend: str) -> None:
    log: list[Any] = []

    async def undo() -> int:
        await anyio.sleep(0.1)
        log.append("undone")
        return 7

    async def main() -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            with anyio.move_on_after(0.01) as scope:
                try:
                    await anyio.sleep(60)
                finally:
                    log.append(await shield_async(undo, seconds=30))
            assert scope.cancelled_caught
            group.cancel_scope.cancel()
        assert turns < 1000

    anyio.run(main, backend=backend)
    assert log == ["undone", 7]  # a scope's cancel comes at the next checkpoint after it


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_time_given_bounds_it(backend: str) -> None:
    async def main() -> None:
        with pytest.raises(errors.DeadlineExceeded):
            await shield_async(anyio.sleep_forever, seconds=0.05)

    anyio.run(main, backend=backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_results_and_errors_come_through(backend: str) -> None:
    async def good() -> int:
        return 7

    async def bad() -> None:
        raise KeyError("x")

    async def main() -> None:
        assert await shield_async(good, seconds=5) == 7
        with pytest.raises(KeyError):
            await shield_async(bad, seconds=5)

    anyio.run(main, backend=backend)


def test_a_cancel_tells_that_the_cleanup_failed() -> None:
    async def bad() -> None:
        await asyncio.sleep(0.02)
        raise ValueError("not undone")

    async def main() -> None:
        task = asyncio.create_task(shield_async(bad, seconds=5))  # type: ignore[arg-type]  # generic over None
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert "ValueError: not undone" in caught.value.__notes__[0]

    asyncio.run(main())


def test_synchronous_results_errors_and_the_handler_are_as_before() -> None:
    async def good() -> int:
        return 7

    async def bad() -> None:
        raise KeyError("x")

    before = signal.getsignal(signal.SIGINT)
    assert run_sync(shield_sync(good, seconds=5)) == 7
    with pytest.raises(KeyError):
        run_sync(shield_sync(bad, seconds=5))
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_that_is_not_pythons_own_is_left_alone() -> None:
    async def look() -> Any:
        return signal.getsignal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)

    def mine(*_: object) -> None: ...

    signal.signal(signal.SIGINT, mine)
    try:
        assert run_sync(shield_sync(look, seconds=5)) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_it_only_runs_the_work() -> None:
    seen: list[Any] = []

    async def look() -> Any:
        return signal.getsignal(signal.SIGINT)

    thread = threading.Thread(target=lambda: seen.append(run_sync(shield_sync(look, seconds=5))))
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
