"""What can be looked at beside deployments: workers and their logs, offers, and everything that bills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Literal

from unigpu.driver import (
    DeploymentInfo,
    GPURequest,
    InventoryItem,
    Io,
    LogLine,
    Offer,
    State,
    Worker,
    WorkerState,
    canonical,
    gpu,
    is_ours,
    members,
    spelling,
)
from unigpu.errors import DeploymentGone, NotFoundError, UnsupportedError

from . import translate
from ._codes import NO_ROUTE, PROVIDER
from .api import READ_TIMEOUT, Line
from .options import Options
from .wire import (
    EndpointWire,
    LogPageWire,
    LogWire,
    PlaceWire,
    PodWire,
    StockWire,
    VmWire,
    VolumeWire,
    WorkerWire,
    rows,
    shaped,
    time_of,
)

LOG_PAGE: Final = 1000
_FOLLOW_S: Final = 3.0
_MOST_PAGES: Final = 1000
_SOURCE: Final = "availability only: Yotta's API tells no price before a deployment exists"
_OWN_PRICE: Final = "your own price table (driver_options)"
_NO_ENDPOINT: Final = frozenset({14000, 24001})
_STORAGE: Final = ("S3", "CEPH", "VENDOR", "R2")
_ENDED: Final = frozenset({"TERMINATED", "TERMINATING", "STOPPED", "DELETING"})

# Workers and logs.


async def workers(line: Line, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
    """``GET /v2/serverless/{id}/workers``. The call stands in the guide, and not in the reference: where it is missing,
    the numbers of running and declared workers stand for them."""
    if info.kind == "pod":
        return _as_workers(await _again(line, io, info, deadline=deadline), of_pod=True)
    listed = await _listed(line, io, info, deadline=deadline)
    if listed is None:
        return _as_workers(await _again(line, io, info, deadline=deadline), of_pod=False)
    return listed


async def _listed(line: Line, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker] | None:
    """The workers by their ids; ``None``: there is no such call."""
    try:
        data = await line.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
    except DeploymentGone as exc:
        if exc.status != NO_ROUTE:
            raise
        return None
    return tuple(map(translate.worker_of, rows(WorkerWire, data, "worker.list")))


async def _again(line: Line, io: Io, info: DeploymentInfo, *, deadline: float) -> Any:
    what = "pod.get" if info.kind == "pod" else "endpoint.get"
    return await line.about(io, "GET", info, "", what, deadline=deadline)


def _as_workers(data: Any, *, of_pod: bool) -> Sequence[Worker]:
    """The workers that the numbers tell of; they have no ids of their own."""
    if of_pod:
        pod = shaped(PodWire, data, "pod.get")
        state = translate.worker_of(WorkerWire(id=pod.id, status=pod.status))
        name = None if pod.gpu_type is None else canonical(PROVIDER, pod.gpu_type) or pod.gpu_type
        return (state.model_copy(update={"gpu": name, "gpu_count": pod.gpu_count, "region": pod.region}),)
    one = shaped(EndpointWire, data, "endpoint.get")
    ready, whole = one.running_workers or 0, one.total_workers or 0
    if one.status.upper() in _ENDED:
        return ()
    return tuple(
        Worker(
            id=f"{one.id}-{n + 1}", state=WorkerState.IDLE if n < ready else WorkerState.STARTING, raw_state=one.status
        )
        for n in range(max(ready, whole))
    )


async def logs(
    line: Line, io: Io, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
) -> AsyncIterator[LogLine]:
    """The newest lines by paging backwards, and what follows by paging forwards from the last one."""
    after: dict[str, tuple[str, str]] = {}
    read_out: set[str] = set()
    first = True
    while first or follow:
        lines: list[LogLine] = []
        holders = [(worker, False)] if worker else await _log_holders(line, io, info)
        for id, ended in holders:
            if id in read_out:
                continue
            try:
                if first:  # also where none is wanted: what follows begins after the newest
                    found = await _newest(line, io, info, id, max(1, tail) if follow else tail)
                else:
                    found = await _later(line, io, info, id, after.get(id))
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


async def _log_holders(line: Line, io: Io, info: DeploymentInfo) -> Sequence[tuple[str, bool]]:
    """The workers, and whether they have ended."""
    listed = await _listed(line, io, info, deadline=io.now() + READ_TIMEOUT)
    if listed is None:
        raise _no_logs(info, "there is no list of workers")
    return [(one.id, one.state is WorkerState.EXITED) for one in listed]


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


async def _newest(line: Line, io: Io, info: DeploymentInfo, worker: str, tail: int) -> list[LogWire]:
    found: list[LogWire] = []
    token: tuple[str, str] | None = None
    for _ in range(_MOST_PAGES):
        want = min(LOG_PAGE, tail - len(found))
        if want <= 0:
            break
        page = await _page(line, io, info, worker, "Backward", token, size=want)
        found += page.logs
        token = _token(page)
        if not page.has_more or not page.logs or token is None:
            break
    return sorted(found, key=_order)


async def _later(line: Line, io: Io, info: DeploymentInfo, worker: str, after: tuple[str, str] | None) -> list[LogWire]:
    found: list[LogWire] = []
    token = after
    for _ in range(_MOST_PAGES):
        page = await _page(line, io, info, worker, "Forward", token, size=LOG_PAGE)
        found += [one for one in page.logs if after is None or _order(one) > _order_of(after)]
        token = _token(page)
        if not page.has_more or not page.logs or token is None:
            break
    return sorted(found, key=_order)


async def _page(
    line: Line, io: Io, info: DeploymentInfo, worker: str, way: str, token: tuple[str, str] | None, *, size: int
) -> LogPageWire:
    params = [("pageSize", str(size)), ("direction", way)]
    if token is not None:
        params += [("searchAfterTime", token[0]), ("searchAfterOffset", token[1])]
    path, until = f"/workers/{worker}/logs", io.now() + READ_TIMEOUT
    try:
        data = await line.about(io, "GET", info, path, "worker.logs", params=tuple(params), deadline=until)
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


def offers(
    stock: Sequence[StockWire],
    options: Options,
    *,
    wanted: tuple[GPURequest, ...] | None,
    regions: tuple[str, ...] | None,
    kind: Literal["serverless", "pod"],
) -> Sequence[Offer]:
    """Each GPU, with Yotta's ids of the regions that have it now. No price, and no number: the API tells none.

    Raises:
        UnsupportedError: a place was asked for; Yotta knows only ids of its own, and does not say where they are.
    """
    if regions is not None:
        raise UnsupportedError(
            "regions: yotta knows only its own region ids, and does not say in which country they are.",
            provider=PROVIDER,
            capability="regions",
            hint="Leave regions out; each offer says which of Yotta's regions have it.",
        )
    counts: Mapping[str, Sequence[int]] | None = None
    if wanted is not None:
        asked: dict[str, list[int]] = {}
        for request in wanted:
            for code in spelling(request, PROVIDER):
                asked.setdefault(code, []).append(request.count)
        counts = asked
    return tuple(
        _offer(row.gpu_type, there, count, options, kind)
        for row in stock
        if (there := [place for place in row.regions if place.available])
        for count in ((1,) if counts is None else dict.fromkeys(counts.get(row.gpu_type, ())))
    )


def _offer(
    code: str, there: Sequence[PlaceWire], count: int, options: Options, kind: Literal["serverless", "pod"]
) -> Offer:
    known = canonical(PROVIDER, code)
    one = None if known is None else gpu(known) or min(members(known), key=lambda each: each.memory_gb)
    price = translate.price_in(options.prices, code)
    return Offer(
        provider=PROVIDER,
        gpu=known or code,
        count=count,
        memory_gb=None if one is None else one.memory_gb,
        price_per_hour=None if price is None else round(price * count, 6),
        kind=kind,
        available=", ".join(place.region for place in there),
        id=code,
        source=_SOURCE if price is None else _OWN_PRICE,
        details={"regions": {place.region: place.region_name for place in there}},
    )


# What bills.


def item_of(info: DeploymentInfo) -> InventoryItem:
    """An endpoint or pod, by what it tells of its price."""
    stopped = info.state is State.STOPPED
    return InventoryItem(
        provider=PROVIDER,
        id=info.id,
        kind=translate.POD if info.kind == "pod" else translate.ENDPOINT,
        owner="ours" if info.ours else "foreign",
        name=info.name or info.provider_name,
        namespace=info.namespace,
        state=info.raw_state,
        per_hour=0.0 if stopped and info.kind != "pod" else None if stopped else info.rate.idle_per_hour,
        created_at=info.created_at,
        note=info.bills if stopped else None,
    )


async def machines(line: Line, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Virtual machines. unigpu makes none, so they are somebody's own; their price is not told."""
    found = await line.pages(io, "/v2/vms", "vm.list", deadline=deadline)
    items = rows(VmWire, found, "vm.list")
    return [
        InventoryItem(
            provider=PROVIDER,
            id=one.id,
            kind="vm",
            owner="ours" if is_ours(one.name or "") else "foreign",
            name=one.name,
            state=one.status,
            created_at=one.created_at,
        )
        for one in items
        if one.status.upper() != "TERMINATED"
    ]


async def volumes(line: Line, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Volumes bill until they are deleted, whatever uses them. They are listed by kind of storage."""
    found = [
        (storage, one)
        for storage in _STORAGE
        for one in rows(VolumeWire, await _of_storage(line, io, storage, deadline=deadline), "volume.list")
    ]
    return [
        InventoryItem(
            provider=PROVIDER,
            id=one.id,
            kind="volume",
            owner="ours" if is_ours(one.name or "") else "foreign",
            name=one.name,
            state=one.status,
            created_at=one.created_at,
            note=f"{storage} storage; bills by the month until it is deleted",
        )
        for storage, one in found
    ]


async def _of_storage(line: Line, io: Io, storage: str, *, deadline: float) -> Sequence[Any]:
    return await line.pages(io, "/v2/volumes", "volume.list", (("storageType", storage),), deadline=deadline)
