"""What carries a deployment's name now, and which of several counts.

On an atomic platform a name is one thing, and looking is the truth. A platform that only lists shows late what was
created or deleted, and may hold several of one name: the oldest counts, then the smallest id, and what counts is read
by its id before anybody acts on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unigpu.driver import DeploymentInfo, Found, Resource, State

from ..scope import Scope

ABSENT: Final = 3
"""So many looks in a row must show nothing before it is believed: lists and reads flap."""
ABSENT_PAUSE: Final = 0.3
"""Seconds between such reads."""

VOLUME: Final = "volume"
"""The kind of a part that belongs to no create: found by its name, shared, ended by ``teardown(volumes=True)`` only."""

Rows = tuple[tuple[Resource, Found], ...]
Id = tuple[str, str]
"""``(kind, id)`` of a resource."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What carries a deployment's name now.

    Attributes:
        found: Each part that a list shows, in the order of creation; of one kind the oldest first.
        main: The one that is called, with what it shows; ``None`` where that is absent.
        by_kind: The part of each kind that belongs to *main*.
    """

    found: Rows = ()
    main: Found | None = None
    by_kind: Mapping[str, Found] = field(default_factory=dict[str, Found])

    @property
    def info(self) -> DeploymentInfo | None:
        if self.main is None or self.main.info is None:
            return None
        ids = {kind: found.id for kind, found in self.by_kind.items()}
        return self.main.info.model_copy(update={"ids": {**self.main.info.ids, **ids}})

    @property
    def ids(self) -> frozenset[Id]:
        return frozenset((found.kind, found.id) for _, found in self.found)


def is_listed(resource: Resource) -> bool:
    """Whether it is found by listing only, late."""
    return resource.consistency.kind == "listed"


def without_volumes(found: Rows) -> Rows:
    """What may be ended without having been asked for by name: what somebody's data is on may not."""
    return tuple(pair for pair in found if pair[1].kind != VOLUME)


def any_listed(resources: Iterable[Resource]) -> bool:
    return any(is_listed(resource) for resource in resources)


def age(found: Found) -> tuple[float, str]:
    """The order of the winner rule: the smallest wins."""
    return found.created_at or 0.0, found.id


def is_ending(found: Found) -> bool:
    return found.info is not None and found.info.state in (State.DELETING, State.GONE)


async def rows(scope: Scope, resources: Sequence[Resource], *, deadline: float, known: Iterable[Id] = ()) -> Rows:
    """Everything that carries the name. What is *known* by its id and too young for the list is read.

    Raises:
        UniGPUError: a list could not be read whole; nothing is known then.
    """
    out: list[tuple[Resource, Found]] = []
    ids = tuple(dict.fromkeys(known))
    for resource in resources:
        seen = {one.id: one for one in await resource.find(scope.io, deadline=deadline)}
        for kind, id_ in ids if is_listed(resource) else ():
            if kind == resource.kind and id_ not in seen:
                there = await confirmed(scope, resource, id_, deadline=deadline)
                if there is not None:
                    seen[id_] = there
        out.extend((resource, one) for one in sorted(seen.values(), key=age))
    return tuple(out)


async def survey(
    scope: Scope,
    resources: Sequence[Resource],
    *,
    deadline: float,
    known: Iterable[Id] = (),
    mine: str | None = None,
) -> Survey:
    """Look for each part by name. Of several of one kind the oldest counts, then the smallest id: a fixed winner.

    Args:
        known: Ids that this machine recorded for the name.
        mine: This call's own attempt: where nothing is called yet, only its own parts are counted.
    """
    found = await rows(scope, resources, deadline=deadline, known=known)
    if not any_listed(resources):
        by_kind = {one.kind: one for _, one in reversed(found)}
        main = next((one for _, one in reversed(found) if one.info is not None and by_kind[one.kind] is one), None)
        return Survey(found=found, main=main, by_kind={r.kind: by_kind[r.kind] for r in resources if r.kind in by_kind})
    main = await _main(scope, found, deadline=deadline)
    parts: dict[str, Found] = {}
    for resource in resources:
        if main is not None and resource.kind == main.kind:
            parts[resource.kind] = main
            continue
        part = await _part(scope, resource, found, main, mine, deadline=deadline)
        if part is not None:
            parts[resource.kind] = part
    return Survey(found=found, main=main, by_kind=parts)


async def _main(scope: Scope, found: Rows, *, deadline: float) -> Found | None:
    """The one that counts and is really there: a list shows for a while what was deleted."""
    mains = [(resource, one) for resource, one in found if one.info is not None]
    ending: Found | None = None
    for resource, one in sorted(mains, key=lambda pair: (is_ending(pair[1]), *age(pair[1]))):
        now = await confirmed(scope, resource, one.id, deadline=deadline)
        if now is None:
            continue
        if not is_ending(now):
            return now
        ending = ending or now
    return ending


async def _part(
    scope: Scope, resource: Resource, found: Rows, main: Found | None, mine: str | None, *, deadline: float
) -> Found | None:
    """The part of *resource*'s kind that *main* stands on."""
    named = None if main is None or main.info is None else main.info.ids.get(resource.kind)
    if named is not None:
        shown = next((one for _, one in found if (one.kind, one.id) == (resource.kind, named)), None)
        return shown or await confirmed(scope, resource, named, deadline=deadline)
    attempt = mine if main is None else main.attempt
    for _, one in found:
        if one.kind != resource.kind:
            continue
        if resource.kind != VOLUME and (one.attempt != attempt if attempt is not None else main is None):
            continue
        now = await confirmed(scope, resource, one.id, deadline=deadline)
        if now is not None:
            return now
    return None


async def confirmed(scope: Scope, resource: Resource, id_: str, *, deadline: float) -> Found | None:
    """It, read by its id; ``None`` only where several reads in a row agree that it is gone."""
    for turn in range(ABSENT):
        if turn:
            await scope.io.sleep(ABSENT_PAUSE)
        now = await resource.read(scope.io, id_, deadline=deadline)
        if now is not None:
            return now
    return None
