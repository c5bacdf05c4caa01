"""The state that the parts of the engine share: what exists, timers, and the effects that wait to be carried out."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

from ..contract import Effect
from .billing import Meter
from .entities import EngineDeployment, EngineRefused, EngineSettings, EngineWorker, Ghost, LogRecord


class EngineState:
    """One engine's state. It has no rules of its own: its parts read and change it."""

    def __init__(self, *, now: float, wall: Callable[[float], float], seed: int, settings: EngineSettings) -> None:
        self.now = now
        self.wall = wall
        self.random = random.Random(seed)
        self.settings = settings
        self.meter = Meter()
        self.deployments: dict[str, EngineDeployment] = {}
        self.workers: dict[str, EngineWorker] = {}
        self.leases: dict[str, str] = {}
        self.ghosts: list[Ghost] = []
        self.effects: list[Effect] = []
        self._dirty: dict[str, None] = {}
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        """A name that was not given before, the same in each run of a seed."""
        return f"{prefix}-{next(self._order):x}{self.random.getrandbits(32):08x}"

    def advance(self, now: float) -> float:
        """Take note of the time. It never goes back."""
        self.now = max(self.now, now)
        return self.now

    def at(self, due: float, do: Callable[[float], None]) -> None:
        """Call *do* in the first tick at or after *due*. It must look for itself whether it still applies."""
        heapq.heappush(self._timers, (due, next(self._order), do))

    def touch(self, deployment_id: str) -> None:
        """Something of this deployment changed: the next tick looks at it."""
        self._dirty[deployment_id] = None

    def take_touched(self) -> Iterator[EngineDeployment]:
        while self._dirty:
            id = next(iter(self._dirty))
            del self._dirty[id]
            if id in self.deployments:
                yield self.deployments[id]

    def fire(self, now: float) -> None:
        """Run every timer that is due."""
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2](now)

    @property
    def busy(self) -> bool:
        return bool(self._dirty or self.effects)

    def next_timer(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def lag(self) -> float:
        lag = self.settings.list_lag
        return max(0.0, lag(self.random) if callable(lag) else lag)

    def monotonic(self, epoch: float) -> float:
        """The engine's time at an epoch time, by the wall clock of now."""
        return self.now + (epoch - self.wall(self.now))

    def find(self, deployment_id: str) -> EngineDeployment:
        """The deployment.

        Raises:
            Refused: ``not_found``, where there is none.
        """
        found = self.deployments.get(deployment_id)
        if found is None:
            raise EngineRefused("not_found", f"there is no deployment {deployment_id!r}", what="deployment")
        return found

    def worker(self, deployment_id: str, worker_id: str) -> EngineWorker:
        """A worker of a deployment, also one that ended lately.

        Raises:
            Refused: ``not_found``.
        """
        for worker in self.find(deployment_id).everyone():
            if worker.id == worker_id:
                return worker
        raise EngineRefused("not_found", f"there is no worker {worker_id!r} of {deployment_id!r}")

    def log(self, worker: EngineWorker, text: str, stream: str) -> None:
        """Keep a line of a worker's log, cut at 8,000 characters; old lines make room."""
        if len(text) > 8000:
            text = text[:8000] + " … (cut)"
        worker.logged += 1
        line = LogRecord(n=worker.logged, time=self.wall(self.now), stream=stream, text=text)
        if len(worker.log) >= self.settings.log_lines:
            worker.log.popleft()
        worker.log.append(line)
