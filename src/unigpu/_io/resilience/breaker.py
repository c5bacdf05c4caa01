"""The circuit breaker: a plane that only fails is left alone for a while, and then asked by one call.

::

    closed --5 failures in a row, or half of the last 20--> open --30 s--> half open --the probe fails--> open
       ^                                                                       |
       +------------------------------- the probe is answered ----------------+

A failure is a call that never reached the provider, or whose answer never came (NEVER_SENT, AMBIGUOUS). Any answer, a
4xx or 429 too, shows that the provider is there. Only the calls that were sent since the last change of state count:
what was on its way before it says nothing about now.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from ..fork_lock import ForkLock
from .failure_domain import keep, latest

__all__ = ["Breaker", "BreakerPermit", "BreakerState"]

IN_A_ROW: Final = 5
"""Failures in a row that open it."""
WINDOW: Final = 20
"""Latest calls of which `SHARE` failed open it, too."""
SHARE: Final = 0.5
OPEN_SECONDS: Final = 30.0
"""Seconds for which it stays open, ± `JITTER`."""
JITTER: Final = 0.2
PROBE_PAUSE: Final = 5.0
"""Seconds, at most, after which a caller who met the probe on its way may look again."""
PROBE_SECONDS: Final = 2 * OPEN_SECONDS
"""Seconds after which a probe of which nothing was heard is given up."""

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerPermit:
    """Leave to send one request. Each is ended by `Breaker.record` or `Breaker.leave`."""

    key: str
    era: int
    probe: bool = False


class _Plane:
    __slots__ = ("era", "open_until", "probe_pid", "probe_since", "recent", "row")

    def __init__(self) -> None:
        self.row = 0
        self.recent: deque[bool] = deque(maxlen=WINDOW)
        self.era = 0
        self.open_until: float | None = None
        self.probe_since: float | None = None
        self.probe_pid = 0

    def change(self, open_until: float | None) -> None:
        self.row, self.open_until, self.probe_since = 0, open_until, None
        self.recent.clear()
        self.era += 1

    def probe_is_out(self, now: float) -> bool:
        # A child of a fork hears nothing of its parent's probe.
        return self.probe_since is not None and self.probe_pid == os.getpid() and now < self.probe_since + PROBE_SECONDS


class Breaker:
    """The breakers of one client, by plane, for any number of threads. Times are `Io.now`'s seconds."""

    def __init__(self) -> None:
        self._planes: dict[str, _Plane] = {}
        self._lock = ForkLock()

    def enter(self, key: str, now: float, *, anyway: bool = False) -> BreakerPermit | float:
        """Leave to send now, or the seconds until it is worth asking again. *anyway*: never refused."""
        with self._lock:
            plane = self._plane(key)
            if anyway or plane.open_until is None:
                return BreakerPermit(key, plane.era)
            if now < plane.open_until:
                return plane.open_until - now
            if plane.probe_is_out(now):
                return PROBE_PAUSE
            plane.probe_since, plane.probe_pid = now, os.getpid()
            return BreakerPermit(key, plane.era, probe=True)

    def refuses(self, key: str, now: float) -> bool:
        """Whether `enter` would say no."""
        with self._lock:
            plane = self._plane(key)
            return plane.open_until is not None and (now < plane.open_until or plane.probe_is_out(now))

    def record(
        self, entry: BreakerPermit, answered: bool, now: float, random: Callable[[], float]
    ) -> Literal["opened", "closed"] | None:
        """How it ended. Returns what changed: ``opened`` also where a probe failed."""
        with self._lock:
            plane = self._plane(entry.key)
            if entry.era != plane.era:
                return None
            if plane.open_until is not None:
                if answered:
                    plane.change(None)
                    return "closed"
                if not entry.probe:
                    return None  # a cleanup that failed, too
                plane.change(_until(now, random))
                return "opened"
            plane.row = 0 if answered else plane.row + 1
            plane.recent.append(answered)
            failed = plane.recent.count(False)
            if plane.row < IN_A_ROW and (len(plane.recent) < WINDOW or failed < SHARE * WINDOW):
                return None
            if answered:
                return None  # it has just answered: the next failure decides
            plane.change(_until(now, random))
            return "opened"

    def leave(self, entry: BreakerPermit) -> None:
        """It ended without saying anything about the provider: cancelled, refused on this side, out of time."""
        with self._lock:
            plane = self._plane(entry.key)
            if entry.probe and entry.era == plane.era:
                plane.probe_since = None

    def state(self, key: str, now: float) -> BreakerState:
        """For records."""
        with self._lock:
            plane = self._plane(key)
            if plane.open_until is None:
                return "closed"
            return "open" if now < plane.open_until else "half_open"

    def _plane(self, key: str) -> _Plane:
        found = latest(self._planes, key)
        return keep(self._planes, key, _Plane()) if found is None else found


def _until(now: float, random: Callable[[], float]) -> float:
    return now + OPEN_SECONDS * (1 + JITTER * (2 * random() - 1))
