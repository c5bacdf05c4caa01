"""Logs: of a machine by its id, and of the engine's own decisions while there is no machine yet.

A request writes a machine's log to a store, and the reply names the address, which needs no key. The log is there a
moment later. https://docs.vast.ai/api-reference/instances/show-logs, vastai 1.9.1 (``api/instances.py``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from unigpu.driver import CallClass, DeploymentInfo, Io, LogLine, Request, Worker, mapping, read_logs
from unigpu.errors import InvalidResponseError, NotFoundError, TransportError

from .api import VastAPI, said_no
from .wire import PROVIDER

_MOST: Final = 1000
_TRIES: Final = 20
_PAUSE: Final = 0.5
_PASS_S: Final = 30.0
_FOLLOW_S: Final = 5.0
_ENGINE: Final = ""
_LEVELS: Final = ("info0", "info1")


class Workers(Protocol):
    async def __call__(self, *, deadline: float) -> Sequence[Worker]: ...


def logs(
    api: VastAPI,
    io: Io,
    info: DeploymentInfo,
    workers: Workers,
    *,
    worker: str | None,
    follow: bool,
    tail: int,
) -> AsyncIterator[LogLine]:
    """Each machine's own log; while there is no machine, what the engine says about its search. Vast gives the end of
    a log only, so following reads it again, and gives what was not there before."""
    seen: dict[str, list[str]] = {}

    async def machines() -> list[str]:
        if info.kind == "pod":
            return [info.id]
        return [one.id for one in await workers(deadline=io.now() + _PASS_S)] or [_ENGINE]

    async def read(id: str, amount: int | None) -> list[LogLine]:
        until, most = io.now() + _PASS_S, _MOST if amount is None else amount
        source = _of_engine if id == _ENGINE else _of_machine
        texts = await source(api, io, info, id, tail=most, deadline=until)
        fresh, seen[id] = _after(seen.get(id, []), texts), texts
        if id == _ENGINE:
            return [LogLine(text=text, stream="system") for text in fresh]
        return [LogLine(text=text, worker_id=id) for text in fresh]

    return read_logs(io, workers=machines, read=read, worker=worker, follow=follow, tail=tail, pause=_FOLLOW_S)


async def _of_machine(api: VastAPI, io: Io, info: DeploymentInfo, id: str, *, tail: int, deadline: float) -> list[str]:
    """The last lines of a machine's log.

    Raises:
        NotFoundError: there is no such machine.
        InvalidResponseError: Vast names no address, or nothing comes there.
    """
    reply = await api.send(
        io, "PUT", f"/api/v0/instances/request_logs/{id}/", "instance.logs.get", json={"tail": str(tail)},
        deadline=deadline, deployment=info.name,
    )  # fmt: skip
    body: Any = reply.json()
    url: object = mapping(body).get("result_url")
    if not isinstance(url, str) or urlsplit(url).scheme not in ("https", "http"):
        raise InvalidResponseError(
            f"{reply.operation}: Vast's reply names no log", provider=PROVIDER, operation=reply.operation
        )
    for turn in range(_TRIES):
        if turn:
            if io.now() + _PAUSE >= deadline:
                break
            await io.sleep(_PAUSE)
        request = Request(
            method="GET",
            url=url,
            operation="vast.logfile.get",
            role="worker",  # an address that was named to us: public ones only, and no key
            call=CallClass.IDEMPOTENT,
            deadline=deadline,
            read_timeout=10.0,
            deployment=info.name,
            reroutes=True,
            foreign=True,
        )
        try:
            found = await io.send(request)
        except TransportError:
            continue
        if found.status == 200:
            return found.content.decode("utf-8", "replace").splitlines()[-tail:] if tail > 0 else []
    raise InvalidResponseError(
        f"{reply.operation}: the log of {id} did not come", provider=PROVIDER, operation=reply.operation
    )


async def _of_engine(api: VastAPI, io: Io, info: DeploymentInfo, id: str, *, tail: int, deadline: float) -> list[str]:
    """What the engine says about an endpoint: which machines it searches for, and why it takes none."""
    try:
        reply = await api.ask(
            io, "/get_endpoint_logs/", "endpoint.logs.get", info.id, json={"id": int(info.id), "tail": tail},
            deadline=deadline, deployment=info.name,
        )  # fmt: skip
    except NotFoundError:
        return []
    if said_no(reply) is not None:
        return []
    body: Any = reply.json()
    found = mapping(body)
    texts = [found[level] for level in (*_LEVELS, "logs") if level in found]
    lines = [one for text in texts for one in (text.splitlines() if isinstance(text, str) else map(str, text or ()))]
    return lines[-tail:] if tail > 0 else []


def _after(before: list[str], now: list[str]) -> list[str]:
    """What of *now* was not at the end of *before*: a log's tail that has moved on."""
    for n in range(min(len(before), len(now)), 0, -1):
        if before[-n:] == now[:n]:
            return now[n:]
    return now
