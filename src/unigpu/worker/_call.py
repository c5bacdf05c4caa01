"""One running call, seen from the server's loop: what it gives, whether it is over, and how to stop it."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import Callable
from dataclasses import dataclass

AHEAD = 8  # chunks that a handler may be ahead of its reader


@dataclass(frozen=True, slots=True)
class Chunk:
    """One value of a stream, as JSON."""

    json: bytes


@dataclass(frozen=True, slots=True)
class Done:
    """The call ended well.

    Attributes:
        output: Its JSON, or None when it was streamed.
        single: The handler returned one value; it did not yield.
    """

    output: bytes | None
    execution_s: float
    single: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """The call ended badly: the handler raised, or the worker ended it."""

    type: str
    message: str
    traceback: str | None = None
    execution_s: float | None = None


Outcome = Done | Failed


class Call:
    """One call of a handler. Everything but `offer`, `wanted` and `finish` belongs to the server's loop.

    Two ends are kept apart: ``answered`` (the reader has its answer: the handler's, or "it took too long") and
    ``ended`` (the handler's code has really returned, and its slot is free).
    """

    def __init__(self, job: str, *, collect: bool, on_end: Callable[[Call], None]) -> None:
        self.job = job
        self.collect = collect
        self.ended = asyncio.Event()
        self.answered = False
        self.stopped = threading.Event()
        self.interrupt: Callable[[], None] = _nothing  # wakes or cancels the side that runs the handler
        self.permit: Callable[[], None] = _nothing  # lets the handler make one more chunk
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._queue: collections.deque[Chunk | Outcome] = collections.deque()

    # -- the reader's side, on the server's loop ---------------------------------------------------------------

    async def next(self) -> Chunk | Outcome:
        """The next chunk, or the outcome, which comes once and last."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        event = self._queue.popleft()
        if isinstance(event, Chunk):
            self.permit()
        return event

    def stop(self, why: Failed) -> None:
        """Answer the reader with ``why``, and ask the handler to end; does nothing once there is an answer.

        An async handler is cancelled and a generator closed. A plain function in a thread cannot be ended: its
        result is dropped, and its slot stays taken until it returns.
        """
        if self.ended.is_set() or self.stopped.is_set():  # a second cancel would break a handler's cleaning up
            return
        self._answer(why)
        self.stopped.set()
        self.interrupt()

    def _answer(self, outcome: Outcome) -> None:
        if not self.answered:
            self.answered = True
            self._put(outcome)

    def _put(self, event: Chunk | Outcome) -> None:
        self._queue.append(event)
        self._ready.set()

    # -- the handler's side, from any thread -------------------------------------------------------------------

    def offer(self, json: bytes) -> None:
        """Hand over one chunk."""
        self._loop.call_soon_threadsafe(self._offered, Chunk(json))

    def finish(self, outcome: Outcome) -> None:
        """The handler's code has returned, for good."""
        try:
            self._loop.call_soon_threadsafe(self._finished, outcome)
        except RuntimeError:  # the server is gone: nobody is left to tell
            return

    def _offered(self, chunk: Chunk) -> None:
        if not self.answered:
            self._put(chunk)

    def _finished(self, outcome: Outcome) -> None:
        # The slot is free before the answer can leave: a caller that has its answer is never told "busy".
        self.ended.set()
        self._on_end(self)
        self._answer(outcome)


def _nothing() -> None:
    return None
