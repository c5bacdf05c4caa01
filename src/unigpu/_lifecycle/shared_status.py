"""One look at a deployment for all calls of a client that wait for its first worker.

Fifty calls that each look every few seconds would be thousands of requests in one cold start, against rates that a
platform may not publish. Whoever finds the newest look too old makes the next one; the others take what it shows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from unigpu._io._forklock import ForkLock
from unigpu.driver import DeploymentInfo, Worker


@dataclass(frozen=True, slots=True)
class Look:
    """What a look showed.

    Attributes:
        at: When it began, on `Io.now`'s clock.
        seen: ``None``: it has not come back.
    """

    at: float
    seen: DeploymentInfo | None = None
    workers: Sequence[Worker] = ()


class SharedLooks:
    """The newest look at each deployment. It waits for nobody: a look that hangs is taken over by the next caller."""

    def __init__(self) -> None:
        self._looks: dict[Hashable, Look] = {}
        self._lock = ForkLock()

    def newest(self, key: Hashable, now: float, *, within: float) -> Look | None:
        """The newest look that is not older than *within* seconds; ``None``: the caller is to look now, for all."""
        with self._lock:
            found = self._looks.get(key)
            if found is not None and 0 <= now - found.at < within:
                return found
            self._looks[key] = Look(now)
            return None

    def told(self, key: Hashable) -> DeploymentInfo | None:
        """What the newest look has shown, if it has."""
        found = self._looks.get(key)
        return None if found is None else found.seen

    def show(self, key: Hashable, at: float, seen: DeploymentInfo, workers: Sequence[Worker]) -> None:
        """What the look that began *at* has shown; a newer one counts more."""
        with self._lock:
            found = self._looks.get(key)
            if found is not None and found.at == at:
                self._looks[key] = replace(found, seen=seen, workers=tuple(workers))

    def forget(self, key: Hashable, now: float) -> None:
        """It was changed now: what was seen before says nothing more."""
        with self._lock:
            self._looks[key] = Look(now)
