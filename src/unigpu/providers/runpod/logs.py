"""A worker's log: server-sent events that never end by themselves, read as far as they come at once.

https://docs.runpod.io/serverless/development/logs: ``tail`` lines first, then what is new; ``Last-Event-ID`` goes on
after a break. A worker's log ends with the worker.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from unigpu.driver import CallClass, DeploymentInfo, Io, LogLine, Request, Response, check
from unigpu.errors import TransportError, TransportTimeout

from .api import RunPodAPI
from .translate import line_of
from .wire import PROVIDER, LogWire, shaped

OPERATION: Final = "runpod.worker.logs"
MOST: Final = 5000
_QUIET: Final = 4.0
"""Seconds without a new line after which what is there has been read."""
_WHOLE: Final = 20.0
"""Seconds for which one stream is read at most."""


@dataclass(slots=True)
class Events:
    """Server-sent events out of bytes, as they arrive: ``id:`` and ``data:`` lines, an event per empty line."""

    last_id: str | None = None
    _rest: bytes = b""
    _data: list[str] = field(default_factory=list[str])
    _id: str | None = None

    def feed(self, chunk: bytes) -> list[str]:
        """The data of each event that is whole now."""
        out: list[str] = []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line:
                if self._data:
                    out.append("\n".join(self._data))
                    self.last_id = self._id or self.last_id
                self._data, self._id = [], None
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                self._data.append(value)
            elif name == "id":
                self._id = value
        return out


async def read(
    api: RunPodAPI, io: Io, info: DeploymentInfo, worker: str, *, tail: int, after: str | None
) -> AsyncIterator[tuple[LogLine, str | None]]:
    """Lines that are there, each with where to go on after it; ends when nothing comes for a while.

    Raises:
        NotFoundError: there is no such worker.
        TransportError: it broke before anything was read.
    """
    events, seen = Events(last_id=after), False
    try:
        async with io.stream(_request(api, io, info, worker, tail, after)) as reply:
            if reply.status >= 300:
                said = Response(status=reply.status, headers=reply.headers, content=await reply.read())
                check(said, PROVIDER, deployment=info.name)
            seen = True
            async for chunk in reply.chunks():
                for data in events.feed(chunk):
                    found = _line(data, worker)
                    if found is not None:
                        yield found, events.last_id
    except TransportError as exc:
        if not seen and not isinstance(exc, TransportTimeout):
            raise
        return  # it was quiet for a while, or broke off: what was read is what there is


def _request(api: RunPodAPI, io: Io, info: DeploymentInfo, worker: str, tail: int, after: str | None) -> Request:
    pod = info.kind == "pod"
    path = f"/pods/{quote(info.id, safe='')}/logs" if pod else (
        f"/serverless/{quote(info.id, safe='')}/workers/{quote(worker, safe='')}/logs"
    )  # fmt: skip
    headers = (api.headers[0], ("accept", "text/event-stream"))
    return Request(
        method="GET",
        url=f"{api.control}{path}",
        operation=OPERATION,
        headers=(*headers, ("last-event-id", after)) if after is not None else headers,
        params=(("tail", str(max(0, min(tail, MOST)))),),
        role="control",
        call=CallClass.USER_DECIDES,  # a quiet log ends in a timeout: that is no reason to ask again
        deadline=io.now() + _WHOLE,
        read_timeout=_QUIET,
        deployment=info.name,
    )


def _line(data: str, worker: str) -> LogLine | None:
    try:
        found: object = json.loads(data)
    except ValueError:
        return LogLine(text=data, worker_id=worker)
    if not isinstance(found, Mapping):
        return None
    return line_of(shaped(LogWire, found, OPERATION), worker)  # pyright: ignore[reportUnknownArgumentType] - any JSON object, which `shaped` checks
