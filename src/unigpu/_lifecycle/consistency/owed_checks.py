"""The looks that deploys on platforms of lists still owe: written in their intents, paid by whoever comes first.

Nothing runs in the background. A wait, any later control call of a client of that namespace, its close, and gc pay what
is due; ``deploy(settle=True)`` waits for all of them.
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
from ..teardown import info_of
from .duplicates import Swept, ids_of, sweep

_log = logging.getLogger("unigpu.lifecycle")

PAY_SECONDS: Final = 60.0
"""How long paying may hold up the call that came first."""
_AGAIN: Final = 5.0


def owed(scope: Scope) -> list[Intent]:
    """The intents of this provider, account and namespace that owe a look."""
    return [] if scope.store is None else [intent for intent in mine(scope, scope.store.load()) if intent.due]


def mine(scope: Scope, intents: Iterable[Intent]) -> list[Intent]:
    """Those that are this scope's to judge."""
    wanted = (scope.provider, scope.base, scope.namespace)
    return [one for one in intents if (one.provider, one.base, one.namespace) == wanted]


async def pay(scope: Scope, *, deadline: float) -> None:
    """Pay every look that is due now; one that a living deploy holds is its own to pay.

    Raises:
        UniGPUError: a list could not be read; what was not paid stays owed.
    """
    store = scope.store
    if store is None:
        return
    first: UniGPUError | None = None
    wall = scope.io.wall()
    for key in dict.fromkeys(one.key for one in owed(scope) if one.next_look(wall) <= wall):
        lock = store.try_lock(key)
        if lock is None:
            continue
        try:
            intents = store.load(key)
            swept = await look(scope.for_cleanup(), intents, deadline=deadline)
            keep(scope, intents, swept, wall)
        except UniGPUError as exc:
            first = first or exc
        finally:
            lock.release()
    if first is not None:
        raise first


async def pay_quietly(scope: Scope, *, deadline: float) -> None:
    """As `pay`, on the way of another call, which it must not fail."""
    until = min(deadline, scope.io.now() + PAY_SECONDS)
    try:
        await pay(scope, deadline=until)
    except UniGPUError as exc:
        _log.info("a look at %s is still owed: %s", scope.provider, exc)


async def look(scope: Scope, intents: Sequence[Intent], *, deadline: float, also: Iterable[str] = ()) -> Swept:
    """One look at the name of *intents*, with its lock held.

    Args:
        also: Attempts that are given up as well.
    """
    hunted = {one.attempt for one in intents if one.state == "failed" and one.due} | set(also)
    kept = set(ids_of(one for one in intents if one.state == "committed"))
    return await sweep(
        scope,
        scope.driver.parts(info_of(intents[-1])),
        own={one.attempt for one in intents},
        hunted=hunted,
        orphans={one.attempt for one in intents if one.state == "committed"},
        own_ids=ids_of(intents),
        hunted_ids=[pair for pair in ids_of(one for one in intents if one.attempt in hunted) if pair not in kept],
        deadline=deadline,
    )


def keep(scope: Scope, intents: Iterable[Intent], swept: Swept, wall: float) -> None:
    """Write down that the name was looked at, at *wall*; drop what has nothing more to say."""
    store = scope.store
    if store is None:
        return
    standing = {one.attempt for one in swept.staying}
    ids = {(one.kind, one.id) for one in swept.staying if one.attempt is None}
    for intent in intents:
        due, state = intent.still_due(wall), intent.state
        stands = intent.attempt in standing or not ids.isdisjoint(intent.resources)
        if state == "committed" and not stands:
            state = "failed"  # it lost, or was deleted elsewhere
        if state == "failed" and not due and not swept.has(intent.attempt) and swept.left.isdisjoint(intent.resources):
            store.drop(intent)
        elif (due, state) != (intent.due, intent.state):
            store.save(replace(intent, due=due, state=state, updated_at=scope.io.wall()))


class Owed:
    """What a wait owes, without reading the state directory at each of its looks."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._next = self._earliest()

    async def pay(self, *, deadline: float) -> None:
        wall = self._scope.io.wall()
        if wall < self._next:
            return
        await pay_quietly(self._scope, deadline=deadline)
        self._next = max(wall + _AGAIN, self._earliest())

    def _earliest(self) -> float:
        try:
            wall = self._scope.io.wall()
            return min((one.next_look(wall) for one in owed(self._scope)), default=math.inf)
        except UniGPUError:
            return math.inf
