"""The verb ``logs``. A worker's log comes in pages: backwards from its newest line, or forwards from a mark."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from unigpu.driver import DeploymentInfo, Io, LogLine, Params, WorkerState, epoch, read_logs
from unigpu.errors import DeploymentGone, NotFoundError, UnsupportedError

from .api import NO_ROUTE, PROVIDER, YottaAPI
from .wire import LogPageWire, LogWire
from .workers import listed

LOG_PAGE: Final = 1000
_PAUSE_S: Final = 3.0
_MOST_PAGES: Final = 1000
_NO_ENDPOINT: Final = frozenset({14000, 24001})

Mark = tuple[str, str]
"""A place in a log: a time in milliseconds, and an offset."""


def logs(
    api: YottaAPI, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
) -> AsyncIterator[LogLine]:
    """As `unigpu.driver.Driver.logs`."""
    reader = _Reader(api, io, info, follow=follow)
    return read_logs(
        io, workers=reader.workers, read=reader.read, worker=worker, follow=follow, tail=tail, pause=_PAUSE_S
    )


@dataclass(slots=True)
class _Reader:
    """Reads on where it stopped.

    Attributes:
        after: Worker → the mark of its last line that was read.
        ended: Workers that have ended. They stay listed, and write nothing more.
    """

    api: YottaAPI
    io: Io
    info: DeploymentInfo
    follow: bool
    after: dict[str, Mark] = field(default_factory=dict[str, Mark])
    ended: set[str] = field(default_factory=set[str])

    async def workers(self) -> Sequence[str]:
        """The ids of those whose log was not read to its end."""
        found = await listed(self.api, self.io, self.info, deadline=self._until())
        if found is None:
            raise self._no_logs("there is no list of workers")
        unread = [one for one in found if one.id not in self.ended]
        self.ended |= {one.id for one in unread if one.state is WorkerState.EXITED}
        return [one.id for one in unread]

    async def read(self, worker: str, tail: int | None) -> Sequence[LogLine]:
        """The last *tail* lines of one, or those since the last read."""
        if tail is None:
            found = await self._later(worker, self.after.get(worker))
        else:  # one line also where none is wanted: what follows begins after the newest
            found = await self._newest(worker, max(1, tail) if self.follow else tail)
        if found:
            self.after[worker] = _mark(found[-1])
        return [LogLine(text=one.log, worker_id=worker, time=epoch(one.timestamp)) for one in found]

    async def _newest(self, worker: str, tail: int) -> list[LogWire]:
        found: list[LogWire] = []
        mark: Mark | None = None
        for _ in range(_MOST_PAGES):
            size = min(LOG_PAGE, tail - len(found))
            if size <= 0:
                break
            page = await self._page(worker, "Backward", mark, size=size)
            found += page.logs
            mark = _next(page)
            if mark is None:
                break
        return sorted(found, key=_order)

    async def _later(self, worker: str, after: Mark | None) -> list[LogWire]:
        found: list[LogWire] = []
        mark = after
        for _ in range(_MOST_PAGES):
            page = await self._page(worker, "Forward", mark, size=LOG_PAGE)
            found += [one for one in page.logs if after is None or _order(one) > _order_of(after)]
            mark = _next(page)
            if mark is None:
                break
        return sorted(found, key=_order)

    async def _page(self, worker: str, direction: str, mark: Mark | None, *, size: int) -> LogPageWire:
        params: Params = (("pageSize", str(size)), ("direction", direction))
        if mark is not None:
            params = (*params, ("searchAfterTime", mark[0]), ("searchAfterOffset", mark[1]))
        path = f"/workers/{quote(worker, safe='')}/logs"
        try:
            reply = await self.api.about(
                self.io, "GET", self.info, path, "worker.logs", params=params, deadline=self._until()
            )
        except DeploymentGone as exc:
            if exc.status == NO_ROUTE:
                raise self._no_logs("there is no such call") from exc
            if exc.status in _NO_ENDPOINT:
                raise
            raise NotFoundError(
                f"{self.info.name or self.info.provider_name} has no worker {worker}",
                status=exc.status,
                provider=PROVIDER,
                deployment=self.info.name,
            ) from exc
        return self.api.parse(LogPageWire, reply)

    def _until(self) -> float:
        return self.io.now() + self.api.read_timeout

    def _no_logs(self, why: str) -> UnsupportedError:
        return UnsupportedError(
            f"Yotta shows no logs of {self.info.name or self.info.provider_name}: {why} (the call is in its guide, and "
            "not in its reference).",
            provider=PROVIDER,
            deployment=self.info.name,
            capability="logs",
            source="https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless",
            hint="Read them in the console.",
        )


def _next(page: LogPageWire) -> Mark | None:
    """Where the next page begins; ``None``: there is none."""
    at, offset = page.next_search_after_time, page.next_search_after_offset
    if not page.has_more or not page.logs or at is None or offset is None:
        return None
    return str(at), str(offset)


def _mark(one: LogWire) -> Mark:
    at = epoch(one.timestamp)
    return ("0" if at is None else str(round(at * 1000)), str(one.offset if one.offset is not None else 0))


def _order(one: LogWire) -> tuple[float, float]:
    return _order_of(_mark(one))


def _order_of(mark: Mark) -> tuple[float, float]:
    try:
        return float(mark[0]), float(mark[1])
    except ValueError:
        return 0.0, 0.0
