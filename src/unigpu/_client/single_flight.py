"""Of all callers of one client that start the same deployment, one sends and the others wait for how it ends."""

from __future__ import annotations

import copy
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Literal

from unigpu.driver import Io
from unigpu.errors import DeadlineExceeded, UniGPUError
from unigpu.models import DeploymentInfo

_TICK: Final = 0.05


@dataclass(slots=True)
class _Start:
    state: Literal["running", "done", "lost"] = "running"
    error: UniGPUError | None = None


class SingleFlight:
    """The starts of one client that are under way."""

    def __init__(self) -> None:
        self._running: dict[tuple[int, str, str, str], _Start] = {}

    async def run(
        self, io: Io, verb: str, info: DeploymentInfo, work: Callable[[], Awaitable[None]], *, deadline: float
    ) -> None:
        """Run *work*, or wait for the caller that runs it already.

        Raises:
            UniGPUError: what *work* raised, for every caller.
            DeadlineExceeded: it was still under way at *deadline*.
        """
        key = (os.getpid(), verb, info.provider, info.provider_name)  # a child of a fork waits for no parent's start
        mine = _Start()
        while (running := self._running.setdefault(key, mine)) is not mine:
            while running.state == "running":
                if io.now() >= deadline:
                    raise DeadlineExceeded(
                        f"{info.name or info.provider_name}: another call of this client is still starting it.",
                        provider=info.provider,
                        deployment=info.name,
                        stop_reason="deadline",
                    )
                await io.sleep(_TICK)
            if running.error is not None:
                raise copy.copy(running.error)  # each caller has a traceback of its own
            if running.state == "done":
                return
            # It was cancelled: another caller starts it.
        try:
            await work()
            mine.state = "done"
        except UniGPUError as exc:
            mine.error = exc
            raise
        finally:
            if mine.state == "running":
                mine.state = "lost"
            self._running.pop(key, None)
