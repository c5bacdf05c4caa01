"""How a failed call deletes what it created: last created first, each deletion verified by a read.

Only what this call created is deleted, and never a resource that carries another call's attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from unigpu.driver import Resource
from unigpu.errors import UniGPUError

from .consistency.absence import ensure_absent, is_listed
from .consistency.lost_answer import LostCreateCheck, check_lost_create
from .consistency.survey import Id, id_of
from .create import CreatedResources
from .scope import UNDO_SECONDS, Scope

_log = logging.getLogger("unigpu.lifecycle")


@dataclass(frozen=True, kw_only=True)
class Undone:
    """The result of an undo.

    Attributes:
        leaked: ``(kind, id)`` of what could not be deleted.
        may_appear: A create without an answer may still act: its intent owes later checks.
    """

    leaked: tuple[Id, ...] = ()
    may_appear: bool = False


async def undo(created: CreatedResources) -> Undone:
    """Delete what the call created.

    What a create without an answer may still bring is left to later checks; without a state directory, nothing could
    remember them, so it is waited for here.
    """
    scope, identity = created.scope.for_cleanup(), created.identity
    deadline = scope.io.now() + UNDO_SECONDS
    leaked: list[Id] = []
    may_appear = False
    for resource, count in _take_unanswered(created):
        try:
            check = await _check_unanswered(scope, resource, identity.attempt, deadline=deadline)
        except UniGPUError as exc:
            _log.warning("could not search for the %s of %s: %s", resource.kind, identity.name, exc)
            leaked.append((resource.kind, identity.provider_name))
            continue
        recorded = {id_of(made) for _, made in created.made}
        new = [one for one in check.mine if id_of(one) not in recorded]
        created.made.extend((resource, one) for one in new)
        if is_listed(resource) and len(new) < count:
            if scope.store is not None:
                may_appear = True
            elif not check.settled:
                leaked.append((resource.kind, identity.provider_name))
    for resource, found in reversed(created.made):
        try:
            await ensure_absent(scope, resource, found.id, attempt=identity.attempt, seen=None, deadline=deadline)
        except UniGPUError as exc:
            _log.warning("could not delete %s %s again: %s", resource.kind, found.id, exc)
            leaked.append(id_of(found))
    created.made.clear()
    return Undone(leaked=tuple(leaked), may_appear=may_appear)


def _take_unanswered(created: CreatedResources) -> Sequence[tuple[Resource, int]]:
    """The creates without an answer, and how many of each kind there were."""
    lost, unsure = dict(created.lost), created.unsure
    created.lost.clear()
    created.unsure = None
    if unsure is not None and unsure.kind not in lost:
        lost[unsure.kind] = unsure, 1
    return list(lost.values())


async def _check_unanswered(scope: Scope, resource: Resource, attempt: str, *, deadline: float) -> LostCreateCheck:
    """What exists of ours: from one list, or through the settle window where no intent could remember it."""
    if is_listed(resource) and scope.store is None:
        return await check_lost_create(scope.io, resource, attempt, before=frozenset(), deadline=deadline)
    seen = await resource.find(scope.io, deadline=deadline)
    return LostCreateCheck(mine=[one for one in seen if one.attempt == attempt])
