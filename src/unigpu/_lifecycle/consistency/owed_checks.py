"""Follow-up checks that deploys on platforms of lists still owe: recorded in intents, made by the next call.

Nothing runs in the background. A wait, any later control call of a client of that namespace, its close, and gc make the
checks that are due; ``deploy(settle=True)`` waits for all of them.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from unigpu.errors import UniGPUError

from ..intents import Intent
from ..scope import Scope
from .duplicates import DuplicateCheck, delete_duplicates
from .survey import id_of, ids_of, info_of

_log = logging.getLogger("unigpu.lifecycle")

PAY_SECONDS: Final = 60.0
"""How long due checks may delay the call that makes them."""
_AGAIN: Final = 5.0


def of_scope(scope: Scope, intents: Iterable[Intent]) -> list[Intent]:
    """The intents of this provider, account and namespace."""
    wanted = (scope.provider, scope.base, scope.namespace)
    return [one for one in intents if (one.provider, one.base, one.namespace) == wanted]


def owed(scope: Scope) -> list[Intent]:
    """The intents of this scope that owe a check."""
    return [] if scope.store is None else [intent for intent in of_scope(scope, scope.store.load()) if intent.due]


async def pay(scope: Scope, *, deadline: float) -> None:
    """Make every check that is due now. A name that a running deploy holds is left to that deploy.

    Raises:
        UniGPUError: a list could not be read; its check stays owed.
    """
    store = scope.store
    if store is None:
        return
    first: UniGPUError | None = None
    wall = scope.io.wall()
    for key in dict.fromkeys(one.key for one in owed(scope) if one.next_check(wall) <= wall):
        lock = store.try_lock(key)
        if lock is None:
            continue
        try:
            intents = store.load(key)
            checked = await check_name(scope.for_cleanup(), intents, deadline=deadline)
            record_check(scope, intents, checked, wall)
        except UniGPUError as exc:
            first = first or exc
        finally:
            lock.release()
    if first is not None:
        raise first


async def pay_quietly(scope: Scope, *, deadline: float) -> None:
    """As `pay`, as part of another call, which must not fail for it."""
    until = min(deadline, scope.io.now() + PAY_SECONDS)
    try:
        await pay(scope, deadline=until)
    except UniGPUError as exc:
        _log.info("a check of the lists of %s is still owed: %s", scope.provider, exc)


async def check_name(scope: Scope, intents: Sequence[Intent], *, deadline: float) -> DuplicateCheck:
    """One check of the name of *intents*, whose lock the caller holds."""
    given_up = {one.attempt for one in intents if one.state == "failed" and one.due}
    committed = [one for one in intents if one.state == "committed"]
    kept = set(ids_of(committed))
    return await delete_duplicates(
        scope,
        scope.deployer.parts(info_of(intents[-1])),
        own={one.attempt for one in intents},
        given_up=given_up,
        orphans={one.attempt for one in committed},
        own_ids=ids_of(intents),
        given_up_ids=[pair for pair in ids_of(one for one in intents if one.attempt in given_up) if pair not in kept],
        deadline=deadline,
    )


def record_check(scope: Scope, intents: Iterable[Intent], checked: DuplicateCheck, wall: float) -> None:
    """Record that the name was checked at *wall*, and drop the intents that are not needed any more."""
    store = scope.store
    if store is None:
        return
    standing = {one.attempt for one in checked.staying}
    ids = {id_of(one) for one in checked.staying if one.attempt is None}
    for intent in intents:
        due, state = intent.still_due(wall), intent.state
        stands = intent.attempt in standing or not ids.isdisjoint(intent.resources)
        if state == "committed" and not stands:
            state = "failed"  # another deployment won, or this one was deleted elsewhere
        done = not due and not checked.has(intent.attempt) and checked.left.isdisjoint(intent.resources)
        if state == "failed" and done:
            store.drop(intent)
        elif (due, state) != (intent.due, intent.state):
            store.save(replace(intent, due=due, state=state, updated_at=scope.io.wall()))


class OwedChecks:
    """The checks that fall due during a wait, without a read of the state directory at each step of the wait."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._next = self._earliest()

    async def pay(self, *, deadline: float) -> None:
        """Make the checks that are due, if any."""
        wall = self._scope.io.wall()
        if wall < self._next:
            return
        await pay_quietly(self._scope, deadline=deadline)
        self._next = max(wall + _AGAIN, self._earliest())

    def _earliest(self) -> float:
        try:
            wall = self._scope.io.wall()
            return min((one.next_check(wall) for one in owed(self._scope)), default=math.inf)
        except UniGPUError:
            return math.inf
