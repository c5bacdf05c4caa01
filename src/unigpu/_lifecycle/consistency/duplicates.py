"""One check of a name on a platform that only lists: what exists twice, or appeared late, is deleted.

Of several deployments of one name the oldest stays. A client deletes only what is its own: what carries an attempt of
this machine, and, where the platform shows no attempt, everything but the winner. If a list cannot be read, nothing is
deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from unigpu.driver import Found, Resource
from unigpu.errors import UniGPUError

from ..scope import Scope
from .absence import ensure_absent
from .survey import VOLUME, Id, Rows, age, existing, id_of, ids_used_by, mains_of, rows

_log = logging.getLogger("unigpu.lifecycle")

DELETE_SECONDS: Final = 60.0
"""How long one check may take to delete a duplicate."""
PART_SECONDS: Final = 5.0
"""The same for a part of one: the platform refuses while something uses the part that no list shows yet."""


@dataclass(frozen=True, kw_only=True)
class DuplicateCheck:
    """The result of one check.

    Attributes:
        main: The deployment that counts, read by its id; ``None``: there is none.
        staying: All deployments that were kept, the winner first.
        seen: Everything that the list showed, before anything was deleted.
        removed: What was deleted and is verified to be gone.
        left: What should be deleted, and could not be.
    """

    main: Found | None
    staying: tuple[Found, ...]
    seen: Rows
    removed: frozenset[Id] = frozenset()
    left: frozenset[Id] = frozenset()

    def has(self, attempt: str) -> bool:
        """Whether anything of this attempt still exists."""
        return any(one.attempt == attempt and id_of(one) not in self.removed for _, one in self.seen)


async def delete_duplicates(
    scope: Scope,
    parts: Sequence[Resource],
    *,
    own: Iterable[str],
    given_up: Iterable[str] = (),
    orphans: Iterable[str] = (),
    own_ids: Iterable[Id] = (),
    given_up_ids: Iterable[Id] = (),
    deadline: float,
) -> DuplicateCheck:
    """Read the lists once, and delete what exists too often.

    Args:
        own: Attempts of this machine: only the winner of the name stays.
        given_up: Attempts that failed: whatever carries one is deleted.
        orphans: Attempts whose parts are useless without the part that is called.
        own_ids: What this machine recorded: it is read where a list does not show it yet.
        given_up_ids: What attempts that failed recorded, for platforms that show no attempt.

    Raises:
        UniGPUError: a list could not be read; nothing was deleted.
    """
    parts = [part for part in parts if part.kind != VOLUME]
    plan = _DuplicatePlan(frozenset(own), frozenset(given_up), frozenset(orphans), frozenset(given_up_ids))
    found = await rows(scope, parts, deadline=deadline, known=(*own_ids, *plan.given_up_ids))
    mains = await existing(scope, mains_of(found), deadline=deadline)
    to_delete, staying = plan.judge([one for _, one in mains], found)
    removed, left = await _delete(scope, parts, to_delete, deadline=deadline)
    return DuplicateCheck(
        main=staying[0] if staying else None, staying=tuple(staying), seen=found, removed=removed, left=left
    )


@dataclass(frozen=True, slots=True)
class _DuplicatePlan:
    """Which resources of one name are deleted. See `delete_duplicates` for its fields."""

    own: frozenset[str]
    given_up: frozenset[str]
    orphans: frozenset[str]
    given_up_ids: frozenset[Id]

    def judge(self, mains: Sequence[Found], found: Rows) -> tuple[list[Found], list[Found]]:
        """What is deleted, and which of *mains* stay, the winner first."""
        staying, to_delete = self._judge_mains(mains)
        deleted_attempts = {one.attempt for one in to_delete if one.attempt is not None}
        used = ids_used_by(staying)
        earlier: set[tuple[str, str | None]] = set()
        for _, part in found:
            if part.info is not None or part.id in used:
                continue
            of_deleted = part.attempt in deleted_attempts
            if self._is_given_up(part) or of_deleted or self._is_spare(part, staying, earlier):
                to_delete.append(part)
            earlier.add((part.kind, part.attempt))
        return to_delete, staying

    def _judge_mains(self, mains: Sequence[Found]) -> tuple[list[Found], list[Found]]:
        """Which of *mains* stay, the winner first, and which are deleted."""
        staying: list[Found] = []
        to_delete: list[Found] = []
        for one in sorted(mains, key=age):
            may_delete = one.attempt is None or one.attempt in self.own
            if self._is_given_up(one) or (staying and may_delete):
                to_delete.append(one)
            else:
                staying.append(one)
        return staying, to_delete

    def _is_given_up(self, one: Found) -> bool:
        return one.attempt in self.given_up if one.attempt is not None else id_of(one) in self.given_up_ids

    def _is_spare(self, part: Found, staying: Sequence[Found], earlier: set[tuple[str, str | None]]) -> bool:
        """Whether a part that no deployment names is a second one of its create, or lost the part that is called.

        Args:
            earlier: Kind and attempt of the older parts.
        """
        if part.attempt is None or part.attempt not in self.own:
            return False
        main = next((one for one in staying if one.attempt == part.attempt), None)
        if main is None:
            return part.attempt in self.orphans
        names_another = main.info is not None and part.kind in main.info.ids
        return names_another or (part.kind, part.attempt) in earlier


async def _delete(
    scope: Scope, parts: Sequence[Resource], to_delete: Sequence[Found], *, deadline: float
) -> tuple[frozenset[Id], frozenset[Id]]:
    """Delete, last created first. Returns what is gone, and what could not be deleted: a later check tries again."""
    removed: set[Id] = set()
    left: set[Id] = set()
    for resource in reversed(parts):
        for one in to_delete:
            if one.kind != resource.kind:
                continue
            if left:  # it may carry what could not be deleted
                left.add(id_of(one))
                continue
            until = min(deadline, scope.io.now() + (PART_SECONDS if one.info is None else DELETE_SECONDS))
            try:
                await ensure_absent(scope, resource, one.id, attempt=one.attempt, seen=one, deadline=until)
            except UniGPUError as exc:
                _log.warning("%s %s is a duplicate, and could not be deleted: %s", one.kind, one.id, exc)
                left.add(id_of(one))
            else:
                _log.info("%s %s of %s was a duplicate, and was deleted", one.kind, one.id, one.name)
                removed.add(id_of(one))
                scope.event("sweep.deleted", deployment=one.name, part=one.kind, id=one.id)
    return frozenset(removed), frozenset(left)
