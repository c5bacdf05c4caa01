"""The three clocks of a mock, with what its cloud needs of each: to be stepped, and to hold a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol, TypeVar

import anyio

from unigpu._io.clock import InstantClock, RealClock, VirtualClock

T = TypeVar("T")
Mode = Literal["instant", "virtual", "real"]
_LOOK: Final = 0.01


class MockClock(Protocol):
    """A clock on which requests can be held."""

    def now(self) -> float: ...
    def wall(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...
    async def asleep(self, seconds: float) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def attach(self, step: Callable[[float], object], next_due: Callable[[], float | None]) -> Callable[[], None]: ...
    def hold(self, poll: Callable[[float], Any], until: float) -> Any: ...
    async def ahold(self, poll: Callable[[float], Any], until: float) -> Any: ...


class RealMockClock(RealClock):
    """Seconds pass by themselves, and the cloud is looked at while somebody waits. `advance` skips time."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._steps: list[Callable[[float], object]] = []

    def now(self) -> float:
        return super().now() + self._skipped

    def wall(self) -> float:
        return super().wall() + self._skipped

    def advance(self, seconds: float) -> None:
        self._skipped += max(0.0, seconds)
        self._step()

    def attach(self, step: Callable[[float], object], next_due: Callable[[], float | None]) -> Callable[[], None]:
        self._steps.append(step)
        return lambda: self._steps.remove(step) if step in self._steps else None

    def hold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        while (found := self._ask(poll)) is None and self.now() < until:
            time.sleep(max(0.0, min(_LOOK, until - self.now())))
        return found

    async def ahold(self, poll: Callable[[float], T | None], until: float) -> T | None:
        while (found := self._ask(poll)) is None and self.now() < until:  # noqa: ASYNC110 - looking is what steps the cloud
            await anyio.sleep(max(0.0, min(_LOOK, until - self.now())))
        return found

    def _ask(self, poll: Callable[[float], T | None]) -> T | None:
        self._step()
        return poll(self.now())

    def _step(self) -> None:
        for step in tuple(self._steps):
            step(self.now())


def make(mode: Mode) -> MockClock:
    """The clock of a mode. The moved ones start where real time is: a client made before has deadlines of real time."""
    if mode == "real":
        return RealMockClock()
    return InstantClock(start=time.monotonic()) if mode == "instant" else VirtualClock(start=time.monotonic())
