"""Run a handler away from the server's loop, so that no handler, however it blocks, keeps /ping from answering.

A sync handler has a thread per slot, and the first is the one that loaded it (the process's main thread), so that with
one slot everything happens in one thread. An async handler runs on a second event loop, in the thread that loaded it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, cast

from unigpu.worker._call import AHEAD, Call, Done, Failed, Outcome
from unigpu.worker._handler import Handler
from unigpu.worker._strict_json import OutputNotJSON, encode

log = logging.getLogger("unigpu.worker")
_MESSAGE_LIMIT = 4000


class Lane:
    """One thread's list of things to do, one after another."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    @classmethod
    def spawn(cls, name: str) -> Lane:
        """A lane in a thread of its own: a daemon, because a stuck handler must not hold the exit."""
        lane = cls()
        threading.Thread(target=lane.run, name=name, daemon=True).start()
        return lane

    def put(self, work: Callable[[], None]) -> None:
        """Do ``work`` after what was put before; it must not raise."""
        self._work.put(work)

    def close(self) -> None:
        """End the thread after what was put before."""
        self._work.put(None)

    def run(self) -> None:
        """Do the work in the calling thread, until `close`."""
        while (work := self._work.get()) is not None:
            work()
            del work  # or the last input lived on until the next one came


class ThreadExecutor:
    """Runs a sync handler: one lane a slot."""

    def __init__(self, handler: Handler, first: Lane, *, traceback: bool) -> None:
        self._handler = handler
        self._lanes = [first]
        self._free = [first]
        self._traceback = traceback

    def start(self, call: Call, value: dict[str, Any]) -> None:
        """Begin; called on the server's loop, and only when a slot is free."""
        lane = self._free.pop() if self._free else self._lane()
        permits = threading.Semaphore(AHEAD)
        call.interrupt = call.permit = permits.release

        def work() -> None:
            outcome = self._run(call, value, permits)
            self._free.append(lane)  # before the end is told, or the next call would find no lane
            call.finish(outcome)

        lane.put(work)

    def close(self) -> None:
        """End the lanes, each after the call it runs."""
        for lane in self._lanes:
            lane.close()

    def _lane(self) -> Lane:
        lane = Lane.spawn(f"unigpu-handler-{len(self._lanes) + 1}")
        self._lanes.append(lane)
        return lane

    def _run(self, call: Call, value: dict[str, Any], permits: threading.Semaphore) -> Outcome:
        started = time.perf_counter()
        single = False
        try:
            result = self._handler.call(value)
            if isinstance(result, Iterator):
                output = _drive(call, cast("Iterator[object]", result), permits)
            elif isinstance(result, (Awaitable, AsyncIterator)):
                if (close := getattr(cast(object, result), "close", None)) is not None:
                    close()  # or Python warns that it was never awaited
                raise TypeError(
                    f"{self._handler.name} is a plain function that returned something to await: make it async"
                )
            else:
                output, single = _single(call, result), True
        except BaseException as error:  # a handler may raise anything, SystemExit too, and that is its error
            return failure(call, error, started, self._traceback)
        return Done(output, round(time.perf_counter() - started, 6), single)


def _drive(call: Call, result: Iterator[object], permits: threading.Semaphore) -> bytes | None:
    parts: list[bytes] = []
    try:
        for number, chunk in enumerate(result):
            _take(call, parts, chunk, number)
            if not call.collect:
                permits.acquire()
            if call.stopped.is_set():
                break
    finally:
        if (close := getattr(result, "close", None)) is not None:
            close()
    return _collected(call, parts)


class LoopExecutor:
    """Runs an async handler: one event loop for all slots, in the lane that loaded it."""

    def __init__(self, handler: Handler, lane: Lane, *, traceback: bool) -> None:
        self._handler = handler
        self._traceback = traceback
        self._loop = asyncio.new_event_loop()
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[Outcome]] = set()
        lane.put(self._serve)
        lane.close()

    def start(self, call: Call, value: dict[str, Any]) -> None:
        """Begin; called on the server's loop, and only when a slot is free."""
        self._loop.call_soon_threadsafe(self._begin, call, value)

    def close(self) -> None:
        """End the loop."""
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(self._closing.set)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._until_closed())

    async def _until_closed(self) -> None:
        await self._closing.wait()

    def _begin(self, call: Call, value: dict[str, Any]) -> None:
        permits = asyncio.Semaphore(AHEAD)

        def interrupt() -> None:
            task.cancel()
            permits.release()

        task = self._loop.create_task(self._run(call, value, permits))
        self._tasks.add(task)
        call.permit = lambda: self._tell(permits.release)
        call.interrupt = lambda: self._tell(interrupt)
        if call.stopped.is_set():  # stopped before there was a task to cancel
            task.cancel()
        task.add_done_callback(lambda done: self._end(call, done))

    def _end(self, call: Call, task: asyncio.Task[Outcome]) -> None:
        self._tasks.discard(task)
        call.finish(Failed("CancelledError", "cancelled before it began") if task.cancelled() else task.result())

    def _tell(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # closed already
            self._loop.call_soon_threadsafe(what)

    async def _run(self, call: Call, value: dict[str, Any], permits: asyncio.Semaphore) -> Outcome:
        started = time.perf_counter()
        single = False
        try:
            result = self._handler.call(value)
            if isinstance(result, AsyncIterator):
                output = await _drive_async(call, cast("AsyncIterator[object]", result), permits)
            else:
                if isinstance(result, Awaitable):
                    result = await cast("Awaitable[object]", result)
                output, single = _single(call, result), True
        except BaseException as error:  # as above; a cancelled call ends here as well, and its task with it
            return failure(call, error, started, self._traceback)
        return Done(output, round(time.perf_counter() - started, 6), single)


async def _drive_async(call: Call, result: AsyncIterator[object], permits: asyncio.Semaphore) -> bytes | None:
    parts: list[bytes] = []
    number = 0
    try:
        async for chunk in result:
            _take(call, parts, chunk, number)
            number += 1
            if not call.collect:
                await permits.acquire()
            if call.stopped.is_set():  # a handler may have swallowed its cancellation
                break
    finally:
        if (aclose := getattr(result, "aclose", None)) is not None:
            await aclose()
    return _collected(call, parts)


def _single(call: Call, result: object) -> bytes | None:
    json = encode(result)
    if call.collect:
        return json
    call.offer(json)
    return None


def _take(call: Call, parts: list[bytes], chunk: object, number: int) -> None:
    try:
        json = encode(chunk)
    except OutputNotJSON as error:
        raise OutputNotJSON(f"In chunk {number}: {error}", error.path) from None
    if call.collect:
        parts.append(json)
    else:
        call.offer(json)


def _collected(call: Call, parts: list[bytes]) -> bytes | None:
    return b"[" + b",".join(parts) + b"]" if call.collect else None


def failure(call: Call, error: BaseException, started: float, with_traceback: bool) -> Failed:
    """What a handler's exception is in a reply, after logging it with its traceback."""
    name = type(error).__name__
    try:
        message = str(error)[:_MESSAGE_LIMIT]
    except Exception:  # the user's own __str__ may raise
        message = "(its message cannot be shown)"
    text = None
    if call.stopped.is_set():
        log.info("job %s: ended after it was stopped (%s)", call.job, name)
    elif isinstance(error, OutputNotJSON):
        log.error("job %s: %s", call.job, message)
    else:
        error = error.with_traceback(_users_part(error.__traceback__))
        log.error("job %s: the handler raised %s", call.job, name, exc_info=error)
        if with_traceback:
            text = "".join(traceback.format_exception(error))
    return Failed(name, message, text, round(time.perf_counter() - started, 6))


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    # Our frames come first and say nothing about the user's mistake.
    while tb is not None and tb.tb_next is not None and tb.tb_frame.f_code.co_filename == __file__:
        tb = tb.tb_next
    return tb
