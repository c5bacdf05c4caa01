"""Deleting what has workers, and seeing that they are gone.

Whether deleting an endpoint or a workergroup destroys every machine of it is told in three ways by Vast's documents and
tools, and a machine that was missed is billed on. So their ids are remembered first, and looked for afterwards, twice:
one may have been rented while the others went. https://docs.vast.ai/guides/serverless (worker states),
https://github.com/vast-ai/docs/pull/915.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from unigpu.driver import Io, Response, items, mapping
from unigpu.errors import AuthenticationError, DeadlineExceeded, InvalidRequestError, NotFoundError

from .api import VastAPI
from .wire import PROVIDER

_PASSES: Final = 2
_LOOK_S: Final = 2.0
_LONGEST_S: Final = 10.0


async def end(
    api: VastAPI, io: Io, path: str, operation: str, id: str, *, deadline: float, group: bool = False
) -> None:
    """Delete it and all of its machines. One that is gone already is success.

    Raises:
        DeadlineExceeded: machines of it are still there; `may_bill` names them.
    """
    machines = await _workers(api, io, id, group=group, deadline=deadline)
    try:
        reply = await api.send(io, "DELETE", path, operation, deadline=deadline)
    except NotFoundError:
        reply = None
    if not group:
        api.own.pop(id, None)  # it ended with the endpoint, and is not asked with again
    machines |= _named(reply)
    seen_none = 0
    pause = _LOOK_S
    while machines and seen_none < _PASSES:
        machines |= await _workers(api, io, id, group=group, deadline=deadline)
        there = {one.id for one in await api.instances(io, deadline=deadline)} & machines
        for one in sorted(there):
            await destroy(api, io, str(one), deadline=deadline)
        seen_none = 0 if there else seen_none + 1
        if seen_none >= _PASSES:
            return
        if io.now() + pause >= deadline:
            raise _left(there or machines, operation)
        await io.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_S)


async def destroy(api: VastAPI, io: Io, id: str, *, deadline: float) -> None:
    """Destroy one instance; its disk goes with it."""
    try:
        await api.send(io, "DELETE", f"/api/v0/instances/{id}/", "instance.delete", json={}, deadline=deadline)
    except NotFoundError:
        return


async def _workers(api: VastAPI, io: Io, id: str, *, group: bool, deadline: float) -> set[int]:
    try:
        return {one.id for one in await api.workers(io, id, group=group, deadline=deadline)}
    except (NotFoundError, AuthenticationError, InvalidRequestError):
        # The engine does not know it (any more): an endpoint's own key ends with it. The delete names its machines,
        # too, and refuses a key that is really wrong.
        return set()


def _named(reply: Response | None) -> set[int]:
    if reply is None or not reply.content:
        return set()
    body: object = reply.json()
    told = mapping(body)
    named = [one for key in ("deleted_workers", "failed_workers") for one in items(told.get(key))]
    return {one for one in named if isinstance(one, int) and not isinstance(one, bool)}


def _left(ids: Iterable[int], operation: str) -> DeadlineExceeded:
    names = tuple(f"instance {one}" for one in sorted(ids))
    return DeadlineExceeded(
        f"machines of it may still be there: {', '.join(names)}",
        provider=PROVIDER,
        operation=f"vast.{operation}",
        maybe_executed=True,
        may_bill=names,
        hint="Tear it down again, or destroy them in Vast's console.",
        stop_reason="deadline",
    )
