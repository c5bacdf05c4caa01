"""The status of a deployment, shared by all calls of a client that wait for its first worker.

Fifty calls that each check every few seconds would send thousands of requests in one cold start, and platforms do not
always publish their rate limits. So the first call that finds the newest status too old asks the platform; the other
calls use its answer.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

from unigpu._io.fork_lock import ForkLock
from unigpu.driver import DeploymentInfo, Worker


@dataclass(frozen=True, slots=True)
class SharedStatusEntry:
    """The newest check of one deployment.

    Attributes:
        at: When the check began, on `Io.now`'s clock.
        seen: The deployment; ``None``: the check has not finished.
        workers: Its workers.
    """

    at: float
    seen: DeploymentInfo | None = None
    workers: Sequence[Worker] = ()


class SharedStatus:
    """The newest check of each deployment. No call waits for another one: the next call replaces a check that hangs."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, SharedStatusEntry] = {}
        self._lock = ForkLock()

    def newest(self, key: Hashable, now: float, *, within: float) -> SharedStatusEntry | None:
        """The newest check, if it is not older than *within* seconds; ``None``: the caller checks now, for all."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and 0 <= now - entry.at < within:
                return entry
            self._entries[key] = SharedStatusEntry(now)
            return None

    def latest(self, key: Hashable) -> DeploymentInfo | None:
        """The deployment as the newest check has shown it; ``None``: no check has finished."""
        entry = self._entries.get(key)
        return None if entry is None else entry.seen

    def show(self, key: Hashable, at: float, seen: DeploymentInfo, workers: Sequence[Worker]) -> None:
        """Store the result of the check that began *at*, unless a newer check has begun."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None and entry.at == at:
                self._entries[key] = replace(entry, seen=seen, workers=tuple(workers))

    def forget(self, key: Hashable, now: float) -> None:
        """The deployment was changed now: results of earlier checks do not count any more."""
        with self._lock:
            self._entries[key] = SharedStatusEntry(now)
