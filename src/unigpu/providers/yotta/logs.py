"""The lines that workers wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final

from unigpu.driver import (
    DeploymentInfo,
    Io,
    LogLine,
    WorkerState,
)
from unigpu.errors import DeploymentGone, NotFoundError, UnsupportedError

from .api import NO_ROUTE, PROVIDER, READ_TIMEOUT, YottaAPI
from .wire import (
    LogPageWire,
    LogWire,
    shaped,
    time_of,
)
from .workers import listed

LOG_PAGE: Final = 1000
_FOLLOW_S: Final = 3.0
_MOST_PAGES: Final = 1000
_NO_ENDPOINT: Final = frozenset({14000, 24001})

# Workers and logs.


async def logs(
    api: YottaAPI, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
) -> AsyncIterator[LogLine]:
    """The newest lines by paging backwards, and what follows by paging forwards from the last one."""
    after: dict[str, tuple[str, str]] = {}
    read_out: set[str] = set()
    first = True
    while first or follow:
        lines: list[LogLine] = []
        holders = [(worker, False)] if worker else await _log_holders(api, io, info)
        for id, ended in holders:
            if id in read_out:
                continue
            try:
                if first:  # also where none is wanted: what follows begins after the newest
                    found = await _newest(api, io, info, id, max(1, tail) if follow else tail)
                else:
                    found = await _later(api, io, info, id, after.get(id))
            except DeploymentGone:
                raise
            except NotFoundError:
                if worker:
                    raise
                continue  # it was replaced meanwhile
            if found:
                after[id] = _mark(found[-1])
            if ended:
                read_out.add(id)  # dead workers stay listed; this one says nothing more
            lines += [LogLine(text=one.log, worker_id=id, time=time_of(one.timestamp)) for one in found]
        lines.sort(key=lambda one: one.time or 0.0)
        for one in lines[max(0, len(lines) - tail) :] if first else lines:
            yield one
        first = False
        if follow:
            await io.sleep(_FOLLOW_S)


async def _log_holders(api: YottaAPI, io: Io, info: DeploymentInfo) -> Sequence[tuple[str, bool]]:
    """The workers, and whether they have ended."""
    found = await listed(api, io, info, deadline=io.now() + READ_TIMEOUT)
    if found is None:
        raise _no_logs(info, "there is no list of workers")
    return [(one.id, one.state is WorkerState.EXITED) for one in found]


def _no_logs(info: DeploymentInfo, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"Yotta shows no logs of {info.name or info.provider_name}: {why} (the call is in its guide, and not in its "
        "reference).",
        provider=PROVIDER,
        deployment=info.name,
        capability="logs",
        source="https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless",
        hint="Read them in the console.",
    )


async def _newest(api: YottaAPI, io: Io, info: DeploymentInfo, worker: str, tail: int) -> list[LogWire]:
    found: list[LogWire] = []
    token: tuple[str, str] | None = None
    for _ in range(_MOST_PAGES):
        want = min(LOG_PAGE, tail - len(found))
        if want <= 0:
            break
        page = await _page(api, io, info, worker, "Backward", token, size=want)
        found += page.logs
        token = _token(page)
        if not page.has_more or not page.logs or token is None:
            break
    return sorted(found, key=_order)


async def _later(
    api: YottaAPI, io: Io, info: DeploymentInfo, worker: str, after: tuple[str, str] | None
) -> list[LogWire]:
    found: list[LogWire] = []
    token = after
    for _ in range(_MOST_PAGES):
        page = await _page(api, io, info, worker, "Forward", token, size=LOG_PAGE)
        found += [one for one in page.logs if after is None or _order(one) > _order_of(after)]
        token = _token(page)
        if not page.has_more or not page.logs or token is None:
            break
    return sorted(found, key=_order)


async def _page(
    api: YottaAPI, io: Io, info: DeploymentInfo, worker: str, way: str, token: tuple[str, str] | None, *, size: int
) -> LogPageWire:
    params = [("pageSize", str(size)), ("direction", way)]
    if token is not None:
        params += [("searchAfterTime", token[0]), ("searchAfterOffset", token[1])]
    path, until = f"/workers/{worker}/logs", io.now() + READ_TIMEOUT
    try:
        data = await api.about(io, "GET", info, path, "worker.logs", params=tuple(params), deadline=until)
    except DeploymentGone as exc:
        if exc.status == NO_ROUTE:
            raise _no_logs(info, "there is no such call") from exc
        if exc.status in _NO_ENDPOINT:
            raise
        raise NotFoundError(
            f"{info.name or info.provider_name} has no worker {worker}",
            status=exc.status,
            provider=PROVIDER,
            deployment=info.name,
        ) from exc
    return shaped(LogPageWire, data, "worker.logs")


def _token(page: LogPageWire) -> tuple[str, str] | None:
    at, offset = page.next_search_after_time, page.next_search_after_offset
    return None if at is None or offset is None else (str(at), str(offset))


def _mark(one: LogWire) -> tuple[str, str]:
    """Where to go on after this line: its time in milliseconds, and its offset."""
    at = time_of(one.timestamp)
    return ("0" if at is None else str(round(at * 1000)), str(one.offset if one.offset is not None else 0))


def _order(one: LogWire) -> tuple[float, float]:
    return _order_of(_mark(one))


def _order_of(mark: tuple[str, str]) -> tuple[float, float]:
    try:
        return float(mark[0]), float(mark[1])
    except ValueError:
        return 0.0, 0.0


# Offers.


# What bills.
