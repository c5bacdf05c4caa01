"""`map`: many calls of one deployment, a window at a time. One engine, async; two ways to feed and to read it.

`AsyncResults` runs the engine as a task beside the consumer; its workers pull the inputs. `Results` runs it in one
daemon thread with a loop and an `Io` of its own, and the consumer's thread pulls the inputs: an input generator that
blocks then stops no call, and a database cursor stays in its thread. Memory grows with the window, not with the
inputs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, Final, Self

import anyio

from unigpu._io.clock import get_clock
from unigpu.errors import ClientClosed
from unigpu.models import Result

from ..handle_state import Unpicklable
from .inputs import Item
from .window import Giving, MapPlan, Prepare, Window

_STOP_SECONDS: Final = 15.0
"""How long leaving a sync `map` waits for its jobs to be cancelled."""
_SLOW_INPUT: Final = 0.05  # seconds
_ENDED: Final = "this map was ended while it was read."
_AHEAD: Final = 2
"""How many windows of inputs are pulled before the consumer takes a result."""


class _Beside:
    """The engine as a task beside its consumer. It knows no iterator, so a dropped iterator can be collected."""

    def __init__(self, giving: Giving) -> None:
        self.giving = giving
        self.engine = Window(giving.plan.prepare, self._feed, self._deliver, self._sized)
        self.finished = False
        self._later: Callable[[Callable[[], object]], object] | None = None
        self._pulling = anyio.Lock()
        self._news, self._space, self._over = anyio.Event(), anyio.Event(), anyio.Event()
        self._ahead, self._most = 0, 1
        self._exhausted = False

    def start(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # without an asyncio loop the caller runs on trio
            import trio

            self._later = trio.lowlevel.current_trio_token().run_sync_soon
            trio.lowlevel.spawn_system_task(self._run, name="unigpu map")
        else:
            self._later = loop.call_soon_threadsafe
            self._task = loop.create_task(self._run(), name="unigpu map")

    async def next(self) -> Result | None:
        """The next result; ``None``: there are no more."""
        while (result := self.giving.arrivals.next()) is None:
            if self.engine.failure is not None:
                raise self.engine.failure
            if self.finished:
                if self._exhausted and not self.giving.arrivals.outstanding:
                    return None
                raise ClientClosed(_ENDED)  # its task was cancelled: by the end of its loop, for one
            self._news = anyio.Event()
            await self._news.wait()
        self._ahead -= 1
        self._space.set()
        return result

    async def stop(self) -> None:
        self.engine.cancel()
        with anyio.CancelScope(shield=True):
            await self._over.wait()

    def abandon(self) -> None:
        """Stop without waiting, from whichever thread drops the iterator."""
        if self._later is not None and not self.finished:
            try:
                self._later(self.engine.cancel)
            except RuntimeError:  # the loop has ended, and the engine with it
                return

    async def _run(self) -> None:
        try:
            await self.engine.run()
        finally:
            self.finished = True
            self._news.set()
            self._over.set()

    async def _feed(self) -> Item | None:
        async with self._pulling:
            while self._ahead >= self._most:
                self._space = anyio.Event()
                await self._space.wait()
            item = None if self._exhausted else self.giving.plan.intake.next()
            if item is None:
                self._exhausted = True
                return None
            self._ahead += 1
            self.giving.arrivals.expect(item.index)
            return item

    def _sized(self, window: int) -> None:
        self._most = _AHEAD * window

    def _deliver(self, index: int, result: Result) -> None:
        self.giving.arrivals.put(index, result)
        self._news.set()


class AsyncResults(Unpicklable, AsyncIterator[Result]):
    """The results of an async `map`: an async iterator, and a context manager that ends it early.

    Ending it early (``aclose``, leaving ``async with``, an error, a cancellation, dropping it) cancels the jobs that
    still run.
    """

    def __init__(self, plan: MapPlan) -> None:
        self._giving = Giving(plan)
        self._beside: _Beside | None = None
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Result:
        if self._closed:
            raise StopAsyncIteration
        try:
            self._giving.took()
            if self._beside is None:
                self._beside = _Beside(self._giving)
                self._beside.start()
            result = await self._beside.next()
            if result is not None:
                return self._giving.give(result)
            self._giving.tell("ready")
        except BaseException:
            await self.aclose()
            raise
        await self.aclose()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """End it: jobs that still run are cancelled, and waited for."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._beside is not None:
                await self._beside.stop()
        finally:
            self._giving.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._beside is not None and not self._closed:
            self._beside.abandon()


class _Apart:
    """The engine in a thread of its own. It knows no iterator, so a dropped iterator can be collected."""

    def __init__(self) -> None:
        self.inputs: deque[Item | None] = deque()
        self.out: queue.SimpleQueue[tuple[int, Result] | None] = queue.SimpleQueue()
        self.ready = threading.Event()
        self.window = 1
        self.failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine: Window | None = None
        self._news: asyncio.Event | None = None
        self._stopped = False
        self.pid = os.getpid()

    def run(self, prepare: Prepare) -> None:
        """The thread: one loop, one engine."""
        adopt: Any = getattr(get_clock(), "adopt", None)
        if adopt is not None:
            adopt()  # a virtual clock lets this thread sleep on it
        try:
            asyncio.run(self._main(prepare))
        except BaseException as exc:
            self.failure = self.failure or exc
        finally:
            self.ready.set()
            self.out.put(None)

    def wake(self) -> None:
        """There are inputs."""
        if self._news is not None:
            self._in_loop(self._news.set)

    def stop(self) -> None:
        self._stopped = True  # seen by an engine that is made after this line, as by Ctrl-C while the thread starts
        if self._engine is not None:
            self._in_loop(self._engine.cancel)

    def _in_loop(self, act: Callable[[], object]) -> None:
        try:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(act)
        except RuntimeError:  # the loop has ended; what ended it is in `failure`
            return

    async def _main(self, prepare: Prepare) -> None:
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._engine = Window(prepare, self._feed, self._deliver, self._sized)
        if self._stopped:
            self._engine.cancel()
        await self._engine.run()
        self.failure = self._engine.failure

    async def _feed(self) -> Item | None:
        assert self._news is not None
        while not self.inputs:
            self._news.clear()
            await self._news.wait()
        if self.inputs[0] is None:  # the end stays there, for every worker
            self._news.set()
            return None
        return self.inputs.popleft()

    def _deliver(self, index: int, result: Result) -> None:
        self.out.put((index, result))

    def _sized(self, window: int) -> None:
        self.window = window
        self.ready.set()


class Results(Unpicklable, Iterator[Result]):
    """The results of a `map`: an iterator, and a context manager that ends it early.

    Ending it early (``close``, leaving ``with``, an error, Ctrl-C, dropping it, the end of the program) cancels the
    jobs that still run.
    """

    def __init__(self, plan: MapPlan) -> None:
        self._giving = Giving(plan)
        self._apart: _Apart | None = None
        self._closed = self._exhausted = self._slow = False

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Result:
        if self._closed:
            raise StopIteration
        if self._apart is not None and self._apart.pid != os.getpid():
            raise ClientClosed(
                "this map runs in the process that was forked; it can be read there only.",
                hint="Begin a map in the child: a client works on in a fork.",
            )
        try:
            self._giving.took()
            result = self._next(self._apart or self._start())
            if result is not None:
                return self._giving.give(result)
            self._giving.tell("ready")
        except BaseException:
            self.close()
            raise
        self.close()
        raise StopIteration

    def close(self) -> None:
        """End it: jobs that still run are cancelled, and waited for."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._apart is not None:
                self._stop()
        finally:
            self._giving.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> _Apart:
        apart = self._apart = _Apart()
        thread = threading.Thread(target=apart.run, args=(self._giving.plan.prepare,), name="unigpu-map", daemon=True)
        # Also run at interpreter exit, before daemon threads die: without it no job would be cancelled then.
        self._stop = weakref.finalize(self, _stop, apart, thread)
        thread.start()
        apart.ready.wait()
        if apart.failure is not None:
            raise apart.failure
        return apart

    def _next(self, apart: _Apart) -> Result | None:
        arrivals = self._giving.arrivals
        self._pull(apart)
        while (result := arrivals.next()) is None:
            if self._exhausted and not arrivals.outstanding:
                return None
            got = apart.out.get()  # Ctrl-C interrupts it
            if got is None:
                apart.out.put(None)
                raise apart.failure or ClientClosed(_ENDED)
            arrivals.put(*got)
        return result

    def _pull(self, apart: _Apart) -> None:
        """Hand inputs over, two windows ahead of what was taken; where they are slow to come, results go first."""
        arrivals = self._giving.arrivals
        while not self._exhausted and arrivals.outstanding < _AHEAD * apart.window:
            if self._slow and self._has_news(apart):
                return
            began = time.monotonic()
            item = self._giving.plan.intake.next()
            self._slow = time.monotonic() - began > _SLOW_INPUT
            if item is None:
                self._exhausted = True
            else:
                arrivals.expect(item.index)
                if item.outcome is not None:
                    arrivals.put(item.index, item.outcome)
                    continue
            apart.inputs.append(item)
            apart.wake()

    def _has_news(self, apart: _Apart) -> bool:
        """Whether a result, or the end, may be given now."""
        with contextlib.suppress(queue.Empty):
            while (got := apart.out.get_nowait()) is not None:
                self._giving.arrivals.put(*got)
            apart.out.put(None)
            return True
        return self._giving.arrivals.ready


def _stop(apart: _Apart, thread: threading.Thread) -> None:
    apart.stop()
    if thread is not threading.current_thread():
        with contextlib.suppress(RuntimeError):  # Ctrl-C before it had begun: it ends as it begins
            thread.join(_STOP_SECONDS)
