"""The checks of one deploy on a platform that only lists: after its create, during its wait, and until it settles."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from unigpu.driver import DeploymentInfo, Found
from unigpu.errors import ConflictError, UniGPUError

from .attempt import Attempt
from .consistency.absence import gone
from .consistency.duplicates import DuplicateCheck, delete_duplicates
from .consistency.owed_checks import record_check
from .consistency.survey import Survey, id_of, ids_of
from .intents import Intent
from .scope import Deployed

_log = logging.getLogger("unigpu.lifecycle")

_AGAIN: Final = 5.0
"""Seconds until a check that failed is tried again."""


class DeployChecks:
    """The checks that one deploy or update call makes. On an atomic platform none is due.

    Attributes:
        left: Attempts of which something should be deleted, and could not be.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self._not_before = 0.0
        self.left: set[str] = set()

    async def check(self, main: Found | None) -> DuplicateCheck | None:
        """Read the lists once. Of several deployments of the name only the winner stays, and nothing of a deploy of
        this machine that died.

        Args:
            main: The deployment in use; ``None``: what this call created.

        Returns:
            ``None``: a list could not be read. Nothing was deleted, and the check stays owed.
        """
        attempt = self._attempt
        current = attempt.identity.attempt if main is None else main.attempt
        intents = self._intents()
        given_up = [one for one in intents if current is not None and one.attempt != current]
        try:
            checked = await delete_duplicates(
                attempt.scope.for_cleanup(),
                attempt.resources(attempt.spec),
                own={attempt.identity.attempt, *(one.attempt for one in intents)},
                given_up={one.attempt for one in given_up},
                own_ids=(*ids_of(intents), *(id_of(found) for _, found in attempt.created.made)),
                given_up_ids=ids_of(one for one in given_up if main is None or id_of(main) not in one.resources),
                deadline=attempt.deadline,
            )
        except UniGPUError as exc:
            _log.info("%s: a check of the list is still owed: %s", attempt.spec.name, exc)
            self._not_before = attempt.scope.io.wall() + _AGAIN
            return None
        self.left |= {one.attempt for _, one in checked.seen if one.attempt and id_of(one) in checked.left}
        attempt.created.made = [pair for pair in attempt.created.made if id_of(pair[1]) not in checked.removed]
        return checked

    async def check_reused(self, seen: Survey, main: Found) -> None:
        """Where the name carries more than the deployment that was reused: check once."""
        if not self._attempt.listed:
            return
        mains = sum(found.info is not None for _, found in seen.found)
        if mains > 1 or any(intent.attempt != main.attempt for intent in self._attempt.intents()):
            await self.check(main)

    async def check_created(self, made: dict[str, Found], main: Found | None) -> None:
        """The check right after the last create: was another call first?

        Args:
            made: The parts. If this call created one twice, the winner replaces it here.
            main: The deployment that existed before and was completed.

        Raises:
            ConflictError: another call was first; what this call created was deleted.
        """
        attempt = self._attempt
        checked = await self.check(main)
        if checked is None or checked.main is None:
            return
        if not self._is_used(checked.main, main):
            attempt.step_down()
            raise ConflictError(
                f"{attempt.spec.name} was created by another call first",
                provider=attempt.scope.provider,
                deployment=attempt.spec.name,
                maybe_executed=False,
            )
        now = checked.main
        if now.id != made[now.kind].id:  # an earlier create of this call acted late
            made[now.kind] = now
            attempt.created.add(next(r for r in attempt.resources(attempt.spec) if r.kind == now.kind), now)

    async def check_due(self, info: DeploymentInfo) -> None:
        """Make the check that is due, while *info* is waited for.

        Raises:
            DeploymentGone: another deployment of the name counts.
        """
        writer, wall = self._attempt.writer, self._attempt.scope.io.wall()
        if writer is None or wall < max(writer.intent.next_check(wall), self._not_before):
            return
        main = self._main_of(info)
        checked = await self.check(main)
        if checked is None:
            return
        writer.checked(wall)
        if checked.main is not None and not self._is_used(checked.main, main):
            raise gone(self._attempt.scope, info)

    async def has_lost(self, info: DeploymentInfo) -> bool:
        """Whether *info* is gone because another deployment of its name counts. If so, this call deletes its own."""
        attempt = self._attempt
        if not attempt.listed:
            return False
        seen = await attempt.survey()
        if seen.main is None or seen.main.id == info.id:
            return False
        await self.check(seen.main)
        attempt.step_down()
        return True

    async def settle(self, deployed: Deployed) -> tuple[Deployed, bool]:
        """Wait for every check that this name owes, and make it; with whether another deployment counts now.

        Where the deadline or the list prevents it, the rest stays owed, and a warning says so.
        """
        attempt, io, main = self._attempt, self._attempt.scope.io, self._main_of(deployed.info)
        while owing := [one for one in self._intents() if one.due]:
            wall = io.wall()
            seconds = max(0.0, min(one.next_check(wall) for one in owing) - wall, self._not_before - wall)
            if io.now() + seconds >= attempt.deadline:
                warning = f"{sum(len(one.due) for one in owing)} checks of the list are still owed: the timeout is over"
                return replace(deployed, warnings=(*deployed.warnings, warning)), False
            await io.sleep(seconds)
            wall, intents, writer = io.wall(), self._intents(), attempt.writer
            checked = await self.check(main)
            if checked is None:
                continue
            if writer is not None:
                writer.checked(wall)
            others = [one for one in intents if writer is None or one.file != writer.intent.file]
            record_check(attempt.scope, others, checked, wall)
            if checked.main is not None and not self._is_used(checked.main, main):
                attempt.step_down()
                return deployed, True
        return deployed, False

    def _intents(self) -> Sequence[Intent]:
        """This machine's intents of the name; without a state directory, this call's own."""
        found = list(self._attempt.intents())
        if self._attempt.writer is not None and self._attempt.scope.store is None:
            found.append(self._attempt.writer.intent)
        return found

    def _is_used(self, found: Found, main: Found | None) -> bool:
        """Whether *found* is the deployment that this call uses."""
        if main is None:
            return self._attempt.created.is_mine(found)
        return found.id == main.id or (found.attempt is not None and found.attempt == main.attempt)

    def _main_of(self, info: DeploymentInfo) -> Found:
        """*info* as the part that is called."""
        last = self._attempt.resources(self._attempt.spec)[-1]
        kind = next((kind for kind, id_ in info.ids.items() if id_ == info.id), last.kind)
        return Found(kind=kind, id=info.id, name=info.provider_name, attempt=info.attempt, created_at=info.created_at)
