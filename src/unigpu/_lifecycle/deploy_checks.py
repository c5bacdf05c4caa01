"""The looks of one deploy on a platform that only lists: right after its create, while it waits, and to settle."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from unigpu.driver import DeploymentInfo, Found
from unigpu.errors import ConflictError, UniGPUError

from .attempt import Attempt
from .consistency.duplicates import Swept, ids_of, sweep
from .consistency.owed_checks import keep
from .consistency.survey import Survey
from .intents import Intent
from .ready import gone
from .scope import Deployed

_log = logging.getLogger("unigpu.lifecycle")

_AGAIN: Final = 5.0
"""Seconds until a look that failed is tried again."""


class Looks(Attempt):
    """One deploy or update call, and the looks that it owes. On an atomic platform all of it does nothing."""

    _not_before = 0.0

    async def look(self, main: Found | None) -> Swept | None:
        """Look once; of several of the name only the winner stays, and nothing of a dead deploy of this machine.

        Args:
            main: The one that is in use.

        Returns:
            ``None``: the list could not be read; nothing was deleted, and the look stays owed.
        """
        attempt = self.identity.attempt if main is None else main.attempt
        intents = self._all_intents()
        given_up = [one for one in intents if attempt is not None and one.attempt != attempt]
        hunted_ids = ids_of(one for one in given_up if main is None or (main.kind, main.id) not in one.resources)
        try:
            swept = await sweep(
                self.scope.for_cleanup(),
                self.resources(self.spec),
                own={self.identity.attempt, *(one.attempt for one in intents)},
                hunted={one.attempt for one in given_up},
                own_ids=(*ids_of(intents), *((found.kind, found.id) for _, found in self.ledger.made)),
                hunted_ids=hunted_ids,
                deadline=self.deadline,
            )
        except UniGPUError as exc:
            _log.info("%s: a look at the list is still owed: %s", self.spec.name, exc)
            self._not_before = self.scope.io.wall() + _AGAIN
            return None
        self.left |= {one.attempt for _, one in swept.seen if one.attempt and (one.kind, one.id) in swept.left}
        self.ledger.made = [pair for pair in self.ledger.made if (pair[1].kind, pair[1].id) not in swept.removed]
        return swept

    async def look_after_create(self, made: dict[str, Found], main: Found | None) -> None:
        """The look right after the last create: who was first?

        Args:
            made: The parts; of its own that were made twice the winner is put in here.
            main: What existed before and was completed.

        Raises:
            ConflictError: another one was first; what this call made was taken back.
        """
        swept = await self.look(main)
        if swept is None or swept.main is None:
            return
        if not self._is_used(swept.main, main):
            self.step_down()
            raise ConflictError(
                f"{self.spec.name} was created by another call first",
                provider=self.scope.provider,
                deployment=self.spec.name,
                maybe_executed=False,
            )
        now = swept.main
        if now.id != made[now.kind].id:  # an earlier create of this call acted late
            made[now.kind] = now
            resource = next(r for r in self.resources(self.spec) if r.kind == now.kind)
            self.ledger.take(resource, now)

    def step_down(self) -> None:
        """Another one counts: this call made nothing that stays."""
        self.ledger.release()
        if self.journal is not None:
            self.give_up(self.journal)
        self.journal = self.ledger.journal = None
        self.info, self.whole, self.inherited = None, False, False

    async def pay(self, info: DeploymentInfo) -> None:
        """Pay what is due, while *info* is waited for.

        Raises:
            DeploymentGone: another one counts.
        """
        journal, wall = self.journal, self.scope.io.wall()
        if journal is None or wall < max(journal.intent.next_look(wall), self._not_before):
            return
        main = self._main_of(info)
        swept = await self.look(main)
        if swept is None:
            return
        journal.paid(wall)
        if swept.main is not None and not self._is_used(swept.main, main):
            raise gone(self.scope, info)

    async def lost(self, info: DeploymentInfo) -> bool:
        """Whether *info* is gone because another one of its name counts; what this call made is taken back then."""
        if not self.listed:
            return False
        seen: Survey = await self.survey(self.spec)
        if seen.main is None or seen.main.id == info.id:
            return False
        await self.look(seen.main)
        self.step_down()
        return True

    async def pay_all(self, deployed: Deployed) -> tuple[Deployed, bool]:
        """Wait for every look that this name owes, and pay it (``settle=True``); with whether another one counts now.

        Where time or the list does not allow it, the rest stays owed, and a warning says so.
        """
        io, main = self.scope.io, self._main_of(deployed.info)
        while owing := [one for one in self._all_intents() if one.due]:
            wall = io.wall()
            seconds = max(0.0, min(one.next_look(wall) for one in owing) - wall, self._not_before - wall)
            if io.now() + seconds >= self.deadline:
                warning = f"{sum(len(one.due) for one in owing)} looks at the list are still owed: the time was up"
                return replace(deployed, warnings=(*deployed.warnings, warning)), False
            await io.sleep(seconds)
            wall, intents = io.wall(), self._all_intents()
            swept = await self.look(main)
            if swept is None:
                continue
            if self.journal is not None:
                self.journal.paid(wall)
            keep(self.scope, [one for one in intents if self.journal is None or one.file != self.journal.intent.file],
                 swept, wall)  # fmt: skip
            if swept.main is not None and not self._is_used(swept.main, main):
                self.step_down()
                return deployed, True
        return deployed, False

    def _all_intents(self) -> Sequence[Intent]:
        """This machine's of the name; without a state directory, this call's own."""
        found = list(self.intents())
        if self.journal is not None and self.scope.store is None:
            found.append(self.journal.intent)
        return found

    def _is_used(self, found: Found, main: Found | None) -> bool:
        """Whether *found* is what this call has in use."""
        if main is None:
            return self.ledger.is_mine(found)
        return found.id == main.id or (found.attempt is not None and found.attempt == main.attempt)

    def _main_of(self, info: DeploymentInfo) -> Found:
        kind = next((kind for kind, id_ in info.ids.items() if id_ == info.id), self.resources(self.spec)[-1].kind)
        return Found(kind=kind, id=info.id, name=info.provider_name, attempt=info.attempt, created_at=info.created_at)
