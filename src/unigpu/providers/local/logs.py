"""The verb ``logs``. A worker's log comes in pages, each from the line after the last one that was read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from unigpu.driver import DeploymentInfo, Io, LogLine, parse, read_logs

from . import translate
from .api import SupervisorAPI
from .wire import LinesWire, WorkerListWire

_TIMEOUT_S: Final = 10.0
_PAUSE_S: Final = 0.25


def logs(
    api: SupervisorAPI, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
) -> AsyncIterator[LogLine]:
    """As `unigpu.driver.Driver.logs`."""
    reader = _Reader(api, io, info)
    return read_logs(
        io, workers=reader.workers, read=reader.read, worker=worker, follow=follow, tail=tail, pause=_PAUSE_S
    )


@dataclass(slots=True)
class _Reader:
    """Reads on where it stopped.

    Attributes:
        after: Worker → the number of its last line that was read.
    """

    api: SupervisorAPI
    io: Io
    info: DeploymentInfo
    after: dict[str, int] = field(default_factory=dict[str, int])

    async def workers(self) -> Sequence[str]:
        deadline = self.io.now() + _TIMEOUT_S
        reply = await self.api.about(self.io, "GET", self.info, "/workers", "worker.list", deadline=deadline)
        return [one.id for one in parse(WorkerListWire, reply).workers]

    async def read(self, worker: str, tail: int | None) -> Sequence[LogLine]:
        """The lines of one since the last read: the supervisor cannot be asked for the last ones."""
        deadline = self.io.now() + _TIMEOUT_S
        path = f"/workers/{quote(worker, safe='')}/logs"
        found: list[LogLine] = []
        more = True
        while more:
            before = self.after.get(worker, 0)
            params = (("after", str(before)),)
            reply = await self.api.about(
                self.io, "GET", self.info, path, "worker.logs", params=params, deadline=deadline
            )
            page = parse(LinesWire, reply)
            found += [translate.line_of(line, worker) for line in page.lines]
            more = bool(page.lines) and page.after > before
            self.after[worker] = page.after
        return found
