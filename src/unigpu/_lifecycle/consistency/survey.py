"""What carries a deployment's name now, and which of several resources counts.

On an atomic platform a name belongs to one resource, and a list is the truth. A platform that only lists shows late
what was created or deleted, and may hold several resources of one name: the oldest counts, then the smallest id. That
one is read by its id before any step relies on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from unigpu.driver import DeploymentInfo, Found, Resource

from ..intents import Intent
from ..scope import Scope
from .absence import any_listed, confirmed, is_ending, is_listed

VOLUME: Final = "volume"
"""The kind of a part that belongs to no create: it is found by its name, may be shared, and is deleted by
``teardown(volumes=True)`` only."""

Rows = tuple[tuple[Resource, Found], ...]
Id = tuple[str, str]
"""``(kind, id)`` of a resource."""


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What carries a deployment's name now.

    Attributes:
        found: Each part that a list shows, in the order of creation; of one kind the oldest first.
        main: The part that is called, with its `DeploymentInfo`; ``None`` where there is none.
        by_kind: The part of each kind that belongs to *main*.
    """

    found: Rows = ()
    main: Found | None = None
    by_kind: Mapping[str, Found] = field(default_factory=dict[str, Found])

    @property
    def info(self) -> DeploymentInfo | None:
        """*main* as a deployment, with the ids of all its parts."""
        return None if self.main is None else whole_info(self.main, self.by_kind)

    @property
    def ids(self) -> frozenset[Id]:
        return frozenset(id_of(found) for _, found in self.found)


def whole_info(main: Found, by_kind: Mapping[str, Found]) -> DeploymentInfo | None:
    """The deployment that *main* shows, with the ids of all its parts; ``None`` where *main* shows none."""
    if main.info is None:
        return None
    ids = {kind: found.id for kind, found in by_kind.items()}
    return main.info.model_copy(update={"ids": {**main.info.ids, **ids}})


def id_of(found: Found) -> Id:
    return found.kind, found.id


def ids_of(intents: Iterable[Intent]) -> tuple[Id, ...]:
    """What *intents* recorded."""
    return tuple(pair for intent in intents for pair in intent.resources)


def ids_used_by(mains: Iterable[Found]) -> frozenset[str]:
    """The ids of the parts that *mains* name as theirs."""
    return frozenset(id_ for one in mains if one.info is not None for id_ in one.info.ids.values())


def info_of(intent: Intent) -> DeploymentInfo:
    """The deployment as its intent records it. Its attempt is left out: the name may carry another one by now."""
    return DeploymentInfo(
        provider=intent.provider,
        name=intent.name,
        namespace=intent.namespace,
        provider_name=intent.provider_name,
        id=intent.resources[-1][1] if intent.resources else intent.provider_name,
        ids=dict(intent.resources),
        spec_hash=intent.spec_hash,
        attempt=None,
        created_at=intent.created_at,
        expires_at=intent.expires_at,
    )


def without_volumes(found: Rows) -> Rows:
    """*found* without volumes: a volume holds a user's data, and is deleted on explicit request only."""
    return tuple(pair for pair in found if pair[1].kind != VOLUME)


def mains_of(found: Rows) -> Rows:
    """The parts of *found* that can be called."""
    return tuple(pair for pair in found if pair[1].info is not None)


def age(found: Found) -> tuple[float, str]:
    """The order by which a winner is chosen: the smallest wins."""
    return found.created_at or 0.0, found.id


async def rows(scope: Scope, resources: Sequence[Resource], *, deadline: float, known: Iterable[Id] = ()) -> Rows:
    """Everything that carries the name. Resources in *known* that a late list does not show yet are read by id.

    Raises:
        UniGPUError: a list could not be read whole, so the result would not be complete.
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
    """Find each part by name. Of several of one kind the oldest counts, then the smallest id.

    Args:
        known: Ids that this machine recorded for the name.
        mine: This call's own attempt: where no part can be called yet, only parts of this attempt count.
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


async def existing(scope: Scope, found: Rows, *, deadline: float) -> Rows:
    """What of *found* really exists, read by id: a list shows for a while what was deleted."""
    out: list[tuple[Resource, Found]] = []
    for resource, one in found:
        now = await confirmed(scope, resource, one.id, deadline=deadline)
        if now is not None and not is_ending(now):
            out.append((resource, now))
    return tuple(out)


async def _main(scope: Scope, found: Rows, *, deadline: float) -> Found | None:
    """The part that counts and really exists; else one that is being deleted."""
    ending: Found | None = None
    for resource, one in sorted(mains_of(found), key=lambda pair: (is_ending(pair[1]), *age(pair[1]))):
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
    """The part of *resource*'s kind that *main* depends on."""
    named = None if main is None or main.info is None else main.info.ids.get(resource.kind)
    if named is not None:
        shown = next((one for _, one in found if id_of(one) == (resource.kind, named)), None)
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
