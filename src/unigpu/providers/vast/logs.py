"""Logs: of a machine by its id, and of the engine's own decisions where no machine is there yet.

A machine's log is written to a store by a request, and read from an address that the reply names, without any key. It
is there a moment later. https://docs.vast.ai/api-reference/instances/show-logs, vastai 1.9.1 (``api/instances.py``).
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from unigpu.driver import CallClass, DeploymentInfo, Io, LogLine, Request, mapping
from unigpu.errors import InvalidResponseError, NotFoundError, TransportError

from .api import VastAPI, said_no
from .wire import PROVIDER

MOST: Final = 1000
_TRIES: Final = 20
_PAUSE: Final = 0.5
_LEVELS: Final = ("info0", "info1")


async def of_machine(api: VastAPI, io: Io, info: DeploymentInfo, id: str, *, tail: int, deadline: float) -> list[str]:
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


async def of_engine(api: VastAPI, io: Io, info: DeploymentInfo, *, tail: int, deadline: float) -> list[LogLine]:
    """What the engine says about an endpoint: which machines it looks for, and why it takes none."""
    try:
        reply = await api.ask(
            io, "/get_endpoint_logs/", "endpoint.logs.get", info.id, json={"id": int(info.id), "tail": tail},
            deadline=deadline, deployment=info.name,
        )  # fmt: skip
    except NotFoundError:
        return []
    body: Any = reply.json()
    if said_no(reply) is not None:
        return []
    told = mapping(body)
    texts = [told[level] for level in (*_LEVELS, "logs") if level in told]
    lines = [one for text in texts for one in (text.splitlines() if isinstance(text, str) else map(str, text or ()))]
    return [LogLine(text=one, stream="system") for one in (lines[-tail:] if tail > 0 else [])]
