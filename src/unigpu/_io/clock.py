"""Time, in one place: the real clock, and two that a test moves.

The process-wide clock is looked up at every call (`get_clock`), so a clock that is put in place later also holds for
clients that were built before.

* `RealClock`: seconds pass by themselves.
* `InstantClock`: each sleep returns at once and moves the clock, from any thread. Sleeps side by side add up.
* `VirtualClock`: exact order among many sleepers, for one thread or loop. Time jumps to the earliest wake-up, and only
  when nobody can run.

An engine is attached with its ``step`` and its ``next_due``: a jump stops at each due time on the way, so what the
engine does at 3 s and at 7 s happens before a sleeper of 10 s wakes up.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import anyio
import anyio.lowlevel

from unigpu.errors import ConfigurationError

T = TypeVar("T")

# Scheduler turns without a new sleep or a `touch` after which nobody can run any more.
_QUIET_TURNS: Final = 10
# An engine that is due again and again at one moment has a fault; say so instead of standing still for ever.
_SAME_MOMENT: Final = 10_000


class Clock(Protocol):
    """What the way out needs of time. Seconds throughout."""

    def now(self) -> float:
        """Monotonic seconds: for deadlines."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch: for records and HTTP dates."""
        ...

    def sleep(self, seconds: float) -> None: ...
    async def asleep(self, seconds: float) -> None: ...


class RealClock:
    """The computer's own clock."""

    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))

    async def asleep(self, seconds: float) -> None:
        await anyio.sleep(max(0.0, seconds))


@dataclass(frozen=True, slots=True)
class _Attached:
    step: Callable[[float], object]
    next_due: Callable[[], float | None]


class _MovedClock:
    """What the clocks that a test moves share: the time, and what is stepped on the way.

    Args:
        start: What `now` says at first.
        epoch: What `wall` says at first; default: the real time.
    """

    def __init__(self, start: float = 0.0, *, epoch: float | None = None) -> None:
        self._now = start
        self._wall_offset = (time.time() if epoch is None else epoch) - start
        # Held while moving. `now` never takes it: an engine that holds its own lock may read the time.
        self._moving = threading.RLock()
        self._attached: list[_Attached] = []
        self._jumped: list[Callable[[float], object]] = []

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._now + self._wall_offset

    def attach(self, step: Callable[[float], object], next_due: Callable[[], float | None]) -> Callable[[], None]:
        """Call ``step(now)`` at every time that *next_due* names, and at the end of every jump.

        Returns:
            A function that detaches it again.
        """
        one = _Attached(step, next_due)
        self._attached.append(one)
        return lambda: self._attached.remove(one) if one in self._attached else None

    def on_jump(self, callback: Callable[[float], object]) -> Callable[[], None]:
        """Call *callback* with the new time after each move. Returns a function that takes it away again."""
        self._jumped.append(callback)
        return lambda: self._jumped.remove(callback) if callback in self._jumped else None

    def advance(self, seconds: float) -> None:
        """Move the clock by *seconds*, through every due time on the way."""
        with self._moving:
            self._move_to(self._now + max(0.0, seconds))

    def _next_due(self) -> float | None:
        dues = [due for one in self._attached if (due := one.next_due()) is not None]
        return min(dues, default=None)

    def _move_to(self, target: float) -> None:
        with self._moving:
            still = 0
            while (due := self._next_due()) is not None and due <= target:
                still = 0 if due > self._now else still + 1
                if still > _SAME_MOMENT:
                    raise RuntimeError(f"something attached to this clock stays due at {due}")
                self._set(max(self._now, due))
            if target > self._now:
                self._set(target)

    def _set(self, now: float) -> None:
        self._now = now
        for one in tuple(self._attached):
            one.step(now)
        for callback in tuple(self._jumped):
            callback(now)

    def hold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        """Wait until ``poll(now)`` gives something, at most until *until*; time jumps from due time to due time."""
        with self._moving:
            while (found := poll(self._now)) is None and self._now < until:
                due = self._next_due()
                self._move_to(until if due is None else min(max(due, self._now), until))
            return found


class InstantClock(_MovedClock):
    """Each sleep returns at once and moves the clock, from any thread.

    Sleeps side by side add up: a test with deadlines and many callers wants `VirtualClock`.
    """

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    async def asleep(self, seconds: float) -> None:
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()  # keeps the loop alive, and the caller cancellable

    async def ahold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        """As `hold`."""
        found = self.hold(poll, until)
        await anyio.lowlevel.checkpoint()
        return found


class _Sleeper:
    __slots__ = ("done", "due", "event", "poll")

    def __init__(self, due: float, poll: Callable[[float], bool] | None = None) -> None:
        self.due, self.poll = due, poll
        self.event, self.done = anyio.Event(), False


class _SleeperQueue:
    """Those who sleep in one thread: by due time, then by who came first."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, _Sleeper]] = []
        self.holders: list[_Sleeper] = []
        self.leader: _Sleeper | None = None
        self.activity = 0

    def drop_done(self) -> None:
        while self.heap and self.heap[0][2].done:
            heapq.heappop(self.heap)


class VirtualClock(_MovedClock):
    """Exact virtual time for one thread or loop.

    The first sleeper leads: after `_QUIET_TURNS` scheduler turns in which no sleep began and nothing was answered
    (`touch`), it moves time to the earliest wake-up. The synchronous `sleep` jumps at once, through each due time.

    Raises:
        ConfigurationError: used from a thread that is neither the maker's nor adopted. Two threads that both move time
            would make its order a matter of luck; ``"instant"`` mode is for them.
    """

    def __init__(self, start: float = 0.0, *, epoch: float | None = None) -> None:
        super().__init__(start, epoch=epoch)
        self._threads = {threading.get_ident()}
        self._lines: dict[int, _SleeperQueue] = {}
        self._order = itertools.count()

    def adopt(self, thread: int | None = None) -> None:
        """Let another thread (default: the calling one) sleep on this clock: `map`'s own engine does."""
        self._threads.add(threading.get_ident() if thread is None else thread)

    def touch(self) -> None:
        """Say that something happened (a call was answered), so somebody may be able to run."""
        line = self._lines.get(threading.get_ident())
        if line is not None:
            line.activity += 1

    def sleep(self, seconds: float) -> None:
        self._admit()
        self.advance(seconds)

    def hold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        self._admit()
        return super().hold(poll, until)

    async def asleep(self, seconds: float) -> None:
        await self._sleep(_Sleeper(self._now + max(0.0, seconds)))

    async def ahold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        """Wait until ``poll(now)`` gives something, at most until *until*.

        It is asked whenever nobody can run, and after each jump.
        """
        found: list[T] = []

        def ask(now: float) -> bool:
            if (answer := poll(now)) is not None:
                found.append(answer)
            return bool(found)

        if not ask(self._now) and self._now < until:
            await self._sleep(_Sleeper(until, ask))
            if not found:
                ask(self._now)
        return found[0] if found else None

    def _admit(self) -> _SleeperQueue:
        ident = threading.get_ident()
        if ident not in self._threads:
            raise ConfigurationError(
                f"this virtual clock belongs to one thread; {threading.current_thread().name} is another.",
                hint='Use the "instant" clock, which works from any thread, or adopt() this one.',
            )
        return self._lines.setdefault(ident, _SleeperQueue())

    async def _sleep(self, me: _Sleeper) -> None:
        line = self._admit()
        heapq.heappush(line.heap, (me.due, next(self._order), me))
        if me.poll is not None:
            line.holders.append(me)
        line.activity += 1
        try:
            while not me.done:
                if line.leader is None:
                    line.leader = me
                if line.leader is me:
                    await self._lead(line, me)
                else:
                    await me.event.wait()
                    me.event = anyio.Event()
            await anyio.lowlevel.checkpoint_if_cancelled()
        finally:
            me.done = True
            if me.poll is not None:
                line.holders.remove(me)
            if line.leader is me:
                line.leader = None
                line.drop_done()
                if line.heap:  # hand the lead on, also when cancelled
                    line.leader = line.heap[0][2]
                    line.leader.event.set()

    async def _lead(self, line: _SleeperQueue, me: _Sleeper) -> None:
        while not me.done:
            quiet, seen = 0, line.activity
            while quiet < _QUIET_TURNS:
                await anyio.lowlevel.checkpoint()
                quiet, seen = (quiet + 1, seen) if line.activity == seen else (0, line.activity)
            if self._wake_holders(line):
                continue
            line.drop_done()
            if not line.heap:
                return  # everybody else left; *me* was woken or cancelled
            due = self._next_due()
            if due is not None and due <= line.heap[0][0]:
                self._move_to(max(due, self._now))  # an engine is due first: it may let somebody run
            else:
                _, _, sleeper = heapq.heappop(line.heap)
                self._move_to(sleeper.due)
                self._wake(line, sleeper)
            self._wake_holders(line)
            line.activity += 1

    def _wake_holders(self, line: _SleeperQueue) -> bool:
        woken = [one for one in line.holders if not one.done and one.poll is not None and one.poll(self._now)]
        for one in woken:
            self._wake(line, one)
        return bool(woken)

    def _wake(self, line: _SleeperQueue, sleeper: _Sleeper) -> None:
        sleeper.done = True
        sleeper.event.set()
        line.activity += 1


_lock = threading.Lock()
_clocks: list[Clock] = [RealClock()]


def get_clock() -> Clock:
    """The clock that holds now, for the whole process."""
    return _clocks[-1]


@contextlib.contextmanager
def use_clock(clock: Clock) -> Generator[Clock]:
    """Put *clock* in place for the whole process while the block runs."""
    with _lock:
        _clocks.append(clock)
    try:
        yield clock
    finally:
        with _lock:
            for index in range(len(_clocks) - 1, 0, -1):  # by identity: blocks need not end in order
                if _clocks[index] is clock:
                    del _clocks[index]
                    break
