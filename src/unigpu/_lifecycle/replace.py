"""How a deploy deletes what exists before it creates anew, and how it waits for what is already being deleted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from unigpu.driver import Found
from unigpu.errors import StateError

from .attempt import Attempt
from .consistency.absence import confirmed, ensure_absent, is_ending
from .consistency.survey import Rows, Survey, id_of, without_volumes
from .intents import Intent, IntentWriter
from .teardown import remove

_ENDING_PAUSE: Final = 2.0


class Replacement:
    """What one deploy deletes to make room for its own.

    Attributes:
        removed: A deployment that existed before was deleted by this call.
    """

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt
        self.removed = False

    async def remove(self, seen: Survey) -> Survey:
        """Delete what exists, verified, before something else takes its name."""
        attempt = self._attempt
        attempt.require_choices()
        attempt.filled()  # a secret that is missing fails the deploy while the old deployment still serves
        attempt.begin(None)
        seen = replace(seen, found=self._to_remove(seen))
        await remove(attempt.scope, seen, name=attempt.spec.name, deadline=attempt.deadline)
        self.removed = True
        return await attempt.survey()

    async def wait_for_deletions(self, seen: Survey) -> Survey:
        """Wait for what is being deleted: a deploy never reuses it."""
        return await self._wait_for_unfinished(await self._wait_for_main(seen))

    def _to_remove(self, seen: Survey) -> Rows:
        """What is deleted: on a platform that only lists, the deployment that is called with its parts, and whatever
        else this machine created. Volumes stay."""
        attempt, found = self._attempt, seen.found
        if attempt.listed:
            attempts = {one.attempt for _, one in found if one.info is not None}
            attempts |= {intent.attempt for intent in attempt.intents()} | {attempt.identity.attempt, None}
            found = tuple(pair for pair in found if pair[1].attempt in attempts)
        return without_volumes(found)

    async def _wait_for_main(self, seen: Survey) -> Survey:
        attempt = self._attempt
        if attempt.listed and (seen.main is None or not is_ending(seen.main)):
            return seen  # a list shows for a while what is gone
        for resource, found in reversed(seen.found):
            if is_ending(found):
                await ensure_absent(
                    attempt.scope, resource, found.id, attempt=found.attempt, seen=found, deadline=attempt.deadline
                )
                seen = await attempt.survey()
        return seen

    async def _wait_for_unfinished(self, seen: Survey) -> Survey:
        """Wait for parts that an unfinished teardown or undo of this machine was deleting.

        A late list shows them as if they were whole, so each is read through the settle window. A part that exists all
        the time was not deleted, and is used again.
        """
        attempt, io = self._attempt, self._attempt.scope.io
        intents = [intent for intent in attempt.intents() if intent.ending]
        ending = {pair for intent in intents for pair in intent.ending}
        main = None if seen.main is None else seen.main.id
        unfinished = [pair for pair in seen.found if id_of(pair[1]) in ending and pair[1].id != main]
        for resource, found in unfinished:
            until = min(attempt.deadline, io.now() + resource.consistency.settle)
            while await confirmed(attempt.scope, resource, found.id, deadline=attempt.deadline) and io.now() < until:
                await io.sleep(_ENDING_PAUSE)
        self._clear_ending(intents)
        return await attempt.survey() if unfinished else seen

    def _clear_ending(self, intents: Sequence[Intent]) -> None:
        scope = self._attempt.scope
        if scope.store is not None:
            with contextlib.suppress(StateError):  # the next deploy waits once more
                for intent in intents:
                    IntentWriter(scope.store, scope.io, intent).clear_ending()


def is_leftover(main: Found, unfinished: Iterable[Intent]) -> bool:
    """Whether a deploy of this machine that died created *main*: by its attempt, or by its recorded id."""
    return any(
        intent.attempt == main.attempt if main.attempt is not None else id_of(main) in intent.resources
        for intent in unfinished
    )
