"""A worker's log: server-sent events that never end by themselves, read as far as they come at once.

https://docs.runpod.io/serverless/development/logs: ``tail`` lines first, then what is new; ``Last-Event-ID`` goes on
after a break. A worker's log ends with the worker.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final
from urllib.parse import quote

from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    EventParser,
    Io,
    LogLine,
    Request,
    buffered,
    object_or_none,
    read_logs,
    shaped,
)
from unigpu.errors import TransportError, TransportTimeout

from .api import RunPodAPI
from .translate import line_of
from .wire import LogWire

OPERATION: Final = "runpod.worker.logs"
_MOST: Final = 5000
_FOLLOW_S: Final = 1.0
_QUIET: Final = 4.0
"""Seconds without a new line after which what is there has been read."""
_WHOLE: Final = 20.0
"""Seconds for which one stream is read at most."""


def read(
    api: RunPodAPI,
    io: Io,
    info: DeploymentInfo,
    *,
    workers: Callable[[], Awaitable[Sequence[str]]],
    worker: str | None,
    follow: bool,
    tail: int,
) -> AsyncIterator[LogLine]:
    """As `unigpu.driver.Driver.logs`; *workers* gives the ids of those that there are now."""
    after: dict[str, str | None] = {}

    async def read_one(id: str, amount: int | None) -> list[LogLine]:
        lines, after[id] = await _read(api, io, info, id, tail=amount, after=after.get(id))
        return lines

    return read_logs(io, workers=workers, read=read_one, worker=worker, follow=follow, tail=tail, pause=_FOLLOW_S)


async def _read(
    api: RunPodAPI, io: Io, info: DeploymentInfo, worker: str, *, tail: int | None, after: str | None
) -> tuple[list[LogLine], str | None]:
    """The lines that are there, and the id after which the next read continues; ends when nothing comes for a while.

    Raises:
        NotFoundError: there is no such worker.
        TransportError: the stream broke before anything was read.
    """
    events, lines, seen = EventParser(), list[LogLine](), False
    try:
        async with io.stream(_request(api, io, info, worker, tail, after)) as reply:
            if reply.status >= 300:
                api.checked(await buffered(reply, OPERATION), deployment=info.name)
            seen = True
            async for chunk in reply.chunks():
                for event in events.feed(chunk):
                    after = event.id or after
                    lines += _line(event.data, worker)
    except TransportError as exc:
        if not seen and not isinstance(exc, TransportTimeout):
            raise  # later than that, it was quiet for a while, or broke off: what was read is what there is
    return lines, after


def _request(api: RunPodAPI, io: Io, info: DeploymentInfo, worker: str, tail: int | None, after: str | None) -> Request:
    path = "" if info.kind == "pod" else f"/workers/{quote(worker, safe='')}"
    return api.request(
        "GET",
        f"{api.path_of(info)}{path}/logs",
        "worker.logs",
        info=info,
        headers=(("accept", "text/event-stream"), *((("last-event-id", after),) if after is not None else ())),
        params=(("tail", str(_MOST if tail is None else max(0, min(tail, _MOST)))),),
        call=CallClass.USER_DECIDES,  # a quiet log ends in a timeout: that is no reason to ask again
        deadline=io.now() + _WHOLE,
        read_timeout=_QUIET,
    )


def _line(data: str, worker: str) -> list[LogLine]:
    """The line of an event; plain text is one, too."""
    try:
        found: object = json.loads(data)
    except (ValueError, RecursionError):
        return [LogLine(text=data, worker_id=worker)]
    row = object_or_none(found)
    return [] if row is None else [line_of(shaped(LogWire, row, OPERATION), worker)]
