"""The worker's life: loading, ready, draining or expired; its slots, and the ends of its calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any, Literal

from unigpu.worker._call import Call, Failed
from unigpu.worker._executors import Lane, LoopExecutor, ThreadExecutor
from unigpu.worker._handler import Handler, LoadError, Target, load_handler, target_name
from unigpu.worker._settings import Settings

log = logging.getLogger("unigpu.worker")

State = Literal["loading", "ready", "draining", "expired"]
_EXPIRY_LOOK = 30.0  # seconds; the wall clock may be set while we wait


class WorkerServer:
    """One handler and its slots. Belongs to the loop on which `start` was called; modes drive it.

    Attributes:
        state: ``loading``, ``ready``, ``draining`` (asked to stop), or ``expired`` (past its ttl).
        loaded: Set when loading is over, well or badly.
        over: Set when the worker should leave: its handler cannot be loaded, a call is stuck, or it has expired where
            leaving ends billing. `error` and `stuck` say which.
        error: Why the handler cannot be loaded.
        handler: What was loaded.
        stuck: Which call did not end although it was told to.
    """

    def __init__(self, target: Target, settings: Settings, *, lane: Lane | None = None) -> None:
        self.name = target_name(target)
        self.settings = settings
        self.state: State = "loading"
        self.loaded = asyncio.Event()
        self.over = asyncio.Event()
        self.error: LoadError | None = None
        self.handler: Handler | None = None
        self.stuck: str | None = None
        self._target = target
        self._lane = lane
        self._calls: set[Call] = set()
        self._lost: set[Call] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._executor: ThreadExecutor | LoopExecutor | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._timers: dict[Call, asyncio.TimerHandle] = {}
        self._turns: deque[asyncio.Future[None]] = deque()

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._calls)

    @property
    def abandoned(self) -> bool:
        """Whether leaving now leaves a handler behind that still loads or runs."""
        return bool(self._calls) or not self.loaded.is_set()

    def start(self) -> None:
        """Begin to load the handler in its lane (without one: in a thread); the worker can answer meanwhile."""
        if self.settings.expires is not None:
            if time.time() >= self.settings.expires:
                self._expire()  # and no model is loaded for nothing
                self.loaded.set()
                return
            self._expiry = asyncio.get_running_loop().create_task(self._watch_expiry(self.settings.expires))
        lane = self._lane or Lane.spawn("unigpu-handler-1")
        loop = asyncio.get_running_loop()

        def load() -> None:
            result: Handler | LoadError
            started = time.perf_counter()
            try:
                result = load_handler(self._target)
            except LoadError as error:
                result = error
            except BaseException as error:  # a property or a metaclass of the user's may raise anything
                result = LoadError(f"cannot load {self.name}: {type(error).__name__}")
                result.__cause__ = error
            try:
                loop.call_soon_threadsafe(self._on_loaded, result, lane, time.perf_counter() - started)
            except RuntimeError:  # the worker left while this was loading
                return

        lane.put(load)

    def _on_loaded(self, result: Handler | LoadError, lane: Lane, seconds: float) -> None:
        if isinstance(result, LoadError):
            lane.close()
            self.error = result
            log.error("the handler cannot be loaded", exc_info=result.__cause__)
            self.over.set()
        else:
            self.handler = result
            kind = LoopExecutor if result.is_async else ThreadExecutor
            self._executor = kind(result, lane, traceback=self.settings.traceback)
            if self.state == "loading":
                self.state = "ready"
                log.info("ready: %s, loaded in %.2f s, concurrency %d", self.name, seconds, self.settings.concurrency)
        self.loaded.set()

    def refusal(self) -> Failed | None:
        """Why no call can be taken now: ``loading``, ``draining``, ``expired`` or ``busy``; None when one can."""
        if self.state == "loading":
            return Failed("loading", f"{self.name} is still loading.")
        if self.state == "draining":
            return Failed("draining", "This worker is stopping and takes no more calls.")
        if self.state == "expired":
            return Failed("expired", "This deployment's ttl is over; the worker takes no more calls.")
        if len(self._calls) >= self.settings.concurrency:
            return Failed("busy", f"All {self.settings.concurrency} slots of this worker are taken.")
        return None

    def turn(self) -> asyncio.Future[None]:
        """Stand in line: done when another call may take a slot, or none ever will. Who asked first goes first.

        Cancel it to leave the line; one that is done already and is not taken goes to the next by `pass_turn`.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.append(waiter)
        return waiter

    def pass_turn(self) -> None:
        """Leave a turn to the next in line."""
        self._next_turn()

    def _next_turn(self, *, everyone: bool = False) -> None:
        while self._turns:
            waiter = self._turns.popleft()
            if not waiter.done():
                waiter.set_result(None)
                if not everyone:
                    return

    def call(
        self, value: dict[str, Any], *, job: str = "-", timeout: float | None = None, stream: bool = False
    ) -> Call:
        """Run the handler on ``value``; only when `refusal` is None.

        Args:
            value: The input.
            job: Its id, for the log.
            timeout: Seconds it may run; it can shorten the deployment's own limit, never lengthen it.
            stream: Give chunks as they come; otherwise an iterator's values are one list.
        """
        if self._executor is None:
            raise RuntimeError("the handler is not loaded")
        call = Call(job, collect=not stream, on_end=self._on_end)
        self._calls.add(call)
        self._idle.clear()
        limit = self.settings.timeout if timeout is None else min(timeout, self.settings.timeout)
        self._timers[call] = asyncio.get_running_loop().call_later(limit, self._on_timeout, call, limit)
        try:
            self._executor.start(call, value)
        except RuntimeError as error:  # no more threads on this machine; or the handler's loop is gone
            call.finish(Failed("RuntimeError", f"The worker could not start the call: {error}"))
        return call

    async def drain(self, seconds: float) -> None:
        """Take no more work; let running calls go on for ``seconds``, then end them. Returns when it is idle.

        Stopped calls get `Settings.grace`, at most 2 s here, to really end.
        """
        if self.state != "expired":
            self.state = "draining"
        self._next_turn(everyone=True)
        log.info("draining: %d running, at most %g s", len(self._calls), seconds)
        if not await self._idle_within(seconds):
            for call in list(self._calls):
                log.warning("job %s: cut off, the worker stops", call.job)
                call.stop(
                    Failed("WorkerStopped", f"The worker was stopped, and the call did not end in {seconds:g} s.")
                )
            await self._idle_within(min(self.settings.grace, 2.0))

    def close(self) -> None:
        """Let go of timers and threads. Running handlers are not waited for."""
        if self._expiry is not None:
            self._expiry.cancel()
        for timer in self._timers.values():
            timer.cancel()
        if self._executor is not None:
            self._executor.close()

    async def _idle_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def _on_end(self, call: Call) -> None:
        self._calls.discard(call)
        self._lost.discard(call)
        self._timers.pop(call).cancel()
        self._next_turn()
        self._look_idle()

    def _look_idle(self) -> None:
        if self._calls <= self._lost:
            self._idle.set()

    def _on_timeout(self, call: Call, limit: float) -> None:
        log.warning("job %s: over its execution timeout of %g s", call.job, limit)
        call.stop(Failed("ExecutionTimeout", f"The call ran longer than its execution timeout of {limit:g} s."))
        grace = self.settings.grace
        self._timers[call] = asyncio.get_running_loop().call_later(grace, self._on_stuck, call)

    def _on_stuck(self, call: Call) -> None:
        # A thread cannot be killed. A worker that keeps a dead slot is worth less than a new one.
        self.stuck = f"job {call.job} of {self.name} still ran {self.settings.grace:g} s after it was told to end"
        log.error("%s; giving this worker up", self.stuck)
        self._lost.add(call)
        self._look_idle()
        self.over.set()

    async def _watch_expiry(self, expires: float) -> None:
        while (left := expires - time.time()) > 0:  # noqa: ASYNC110 - no event tells that the wall clock was set
            await asyncio.sleep(min(left, _EXPIRY_LOOK))
        self._expire()

    def _expire(self) -> None:
        if self.state != "draining":
            self.state = "expired"
        self._next_turn(everyone=True)
        log.warning("expired: the deployment's ttl is over; no more calls are taken")
        if self.settings.exit_ends_billing:
            self.over.set()
