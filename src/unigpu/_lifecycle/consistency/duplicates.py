"""One look at a name on a platform that only lists: what is there twice, or appeared late, is taken back.

Of several of one name the oldest stays. A client takes back only what is its own: what carries an attempt of this
machine; where no attempt can be read, everything but the winner. Nothing is deleted when a list cannot be read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unigpu.driver import Found, Resource
from unigpu.errors import UniGPUError

from ..create import ensure_absent
from ..intents import Intent
from ..scope import Scope
from .survey import VOLUME, Id, Rows, age, confirmed, is_ending, rows

_log = logging.getLogger("unigpu.lifecycle")

DELETE_SECONDS = 60.0
"""How long one look may take to delete one that is too many."""
PART_SECONDS = 5.0
"""The same for what it stands on: that is refused as long as something uses it that no list shows yet."""


@dataclass(frozen=True, kw_only=True)
class Swept:
    """What a look came to.

    Attributes:
        main: The one that counts, read by its id; ``None``: there is none.
        seen: Everything that the list showed, before anything was deleted.
        removed: What was deleted, verified.
        left: What should be gone and could not be deleted.
    """

    main: Found | None
    staying: tuple[Found, ...]
    seen: Rows
    removed: frozenset[Id] = frozenset()
    left: frozenset[Id] = frozenset()

    def has(self, attempt: str) -> bool:
        """Whether something of this attempt is still there."""
        return any(one.attempt == attempt and (one.kind, one.id) not in self.removed for _, one in self.seen)


async def sweep(
    scope: Scope,
    parts: Sequence[Resource],
    *,
    own: Iterable[str],
    hunted: Iterable[str] = (),
    orphans: Iterable[str] = (),
    own_ids: Iterable[Id] = (),
    hunted_ids: Iterable[Id] = (),
    deadline: float,
) -> Swept:
    """Look once, and delete what is too much.

    Args:
        own: Attempts of this machine: of these only the winner of the name stays.
        hunted: Attempts that were given up: whatever carries one is deleted.
        orphans: Attempts whose parts mean nothing without the part that is called.
        own_ids: What this machine recorded: read where a list does not show it yet.
        hunted_ids: The same, of attempts that were given up: for platforms that show no attempt.

    Raises:
        UniGPUError: a list could not be read; nothing was deleted.
    """
    parts = [part for part in parts if part.kind != VOLUME]
    plan = _Plan(frozenset(own), frozenset(hunted), frozenset(orphans), frozenset(hunted_ids))
    found = await rows(scope, parts, deadline=deadline, known=(*own_ids, *plan.hunted_ids))
    mains: list[tuple[Resource, Found]] = []
    for resource, one in found:
        if one.info is None:
            continue
        now = await confirmed(scope, resource, one.id, deadline=deadline)  # lists show for a while what was deleted
        if now is not None and not is_ending(now):
            mains.append((resource, now))
    doomed, staying = plan.judge(mains, found)
    removed, left = await _delete(scope, parts, doomed, deadline=deadline)
    return Swept(main=staying[0] if staying else None, staying=tuple(staying), seen=found, removed=removed, left=left)


@dataclass(frozen=True, slots=True)
class _Plan:
    own: frozenset[str]
    hunted: frozenset[str]
    orphans: frozenset[str]
    hunted_ids: frozenset[Id]

    def judge(self, mains: Sequence[tuple[Resource, Found]], found: Rows) -> tuple[dict[Id, Found], list[Found]]:
        """What is to be deleted, and what is called and stays, the winner first."""
        doomed: dict[Id, Found] = {}
        staying: list[Found] = []
        for _, one in sorted(mains, key=lambda pair: age(pair[1])):
            loser = bool(staying) and (one.attempt is None or one.attempt in self.own)
            if self._is_hunted(one) or loser:
                doomed[one.kind, one.id] = one
            else:
                staying.append(one)
        gone = {one.attempt for one in doomed.values()}
        used = {id_ for one in staying if one.info is not None for id_ in one.info.ids.values()}
        kept: set[tuple[str, str | None]] = set()
        for _, part in found:
            if part.info is not None or part.id in used:
                continue
            if self._is_hunted(part) or (part.attempt is not None and part.attempt in gone):
                doomed[part.kind, part.id] = part
            elif part.attempt is not None and part.attempt in self.own:
                main = next((one for one in staying if one.attempt == part.attempt), None)
                named = main is not None and main.info is not None and part.kind in main.info.ids
                double = main is not None and (named or (part.kind, part.attempt) in kept)
                if double or (main is None and part.attempt in self.orphans):
                    doomed[part.kind, part.id] = part
                kept.add((part.kind, part.attempt))
        return doomed, staying

    def _is_hunted(self, one: Found) -> bool:
        return one.attempt in self.hunted if one.attempt is not None else (one.kind, one.id) in self.hunted_ids


async def _delete(
    scope: Scope, parts: Sequence[Resource], doomed: dict[Id, Found], *, deadline: float
) -> tuple[frozenset[Id], frozenset[Id]]:
    """Delete, what was made last first. What cannot be deleted is told, and is for another time."""
    removed: set[Id] = set()
    left: set[Id] = set()
    for resource in reversed(parts):
        for key, one in doomed.items():
            if one.kind != resource.kind:
                continue
            if left:  # what it carries is still there
                left.add(key)
                continue
            until = min(deadline, scope.io.now() + (PART_SECONDS if one.info is None else DELETE_SECONDS))
            try:
                await ensure_absent(scope, resource, one.id, attempt=one.attempt, seen=one, deadline=until)
            except UniGPUError as exc:
                _log.warning("%s %s is one too many, and could not be deleted: %s", one.kind, one.id, exc)
                left.add(key)
            else:
                _log.info("%s %s of %s was one too many, and was deleted", one.kind, one.id, one.name)
                removed.add(key)
                scope.event("sweep.deleted", deployment=one.name, part=one.kind, id=one.id)
    return frozenset(removed), frozenset(left)


def ids_of(intents: Iterable[Intent]) -> tuple[Id, ...]:
    return tuple(pair for intent in intents for pair in intent.resources)
