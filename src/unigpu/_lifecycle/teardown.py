"""The end of a deployment: every part deleted in reverse order, each verified absent, its intents dropped.

It works with nothing but names: parts are found by the deployment's name, so a deployment that was half made, or is
half gone, ends the same way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from unigpu.driver import DeploymentInfo, Found, Resource, is_in_namespace
from unigpu.errors import (
    AuthenticationError,
    DeadlineExceeded,
    PermissionDeniedError,
    StateError,
    TeardownIncomplete,
    UniGPUError,
)

from .consistency.survey import VOLUME, Rows, Survey, age, any_listed, confirmed, is_ending, rows, survey
from .create import ensure_absent
from .durable_files import Lock
from .intents import Intent, Journal, key_of
from .scope import Scope

_log = logging.getLogger("unigpu.lifecycle")


async def teardown(scope: Scope, info: DeploymentInfo, *, deadline: float, volumes: bool = False) -> None:
    """End a deployment, verify that it is gone, and drop its intents. One that is gone already is success.

    *info* may be a handle's old view: where the name now carries another create's attempt, that other one is left.

    Raises:
        TeardownIncomplete: with what is still there, or could not be verified.
        AuthenticationError, PermissionDeniedError: the key does not allow it; ``may_bill`` names what is left.
    """
    scope = scope.for_cleanup()
    key = key_of(scope.provider, scope.base, info.provider_name)
    # Ending must not wait for a deploy that waits for its workers: that one's writer settles its own intent.
    lock = None if scope.store is None else scope.store.try_lock(key)
    try:
        parts = [part for part in scope.driver.parts(info) if volumes or part.kind != VOLUME]
        if any_listed(parts):
            await _end_listed(scope, parts, info, key, locked=lock is not None, deadline=deadline)
            return
        seen = await survey(scope, parts, deadline=deadline)
        if _is_another(info, seen.main):
            _log.warning(
                "%s: what this handle stood for is gone; another deployment of that name exists and was left", info.name
            )
            return
        await remove(scope, seen, name=info.name or info.provider_name, deadline=deadline)
        if lock is not None:
            await settle_intents(scope, parts, key, deadline=deadline)
        scope.event("teardown.done", deployment=info.name, id=info.id)
    finally:
        _release(lock)
    await forget_expired(scope, deadline=deadline)


async def _end_listed(
    scope: Scope, parts: Sequence[Resource], info: DeploymentInfo, key: str, *, locked: bool, deadline: float
) -> None:
    """`teardown` where a name may be carried by several, and lists are late.

    Where *info* is the one that counts, or says no attempt, all of the name goes. Where another one counts, that one is
    left: it is another deploy's. An intent whose create may still act late stays until its looks are paid.
    """
    name = info.name or info.provider_name
    intents = [] if scope.store is None else scope.store.load(key)
    dead = {one.attempt for one in intents if one.state != "committed"} if locked else set[str]()
    wall = scope.io.wall()
    known = (*info.ids.items(), *(pair for one in intents for pair in one.resources))
    found = await rows(scope, parts, deadline=deadline, known=known)
    others = await _others(scope, found, info, dead, deadline=deadline)
    doomed = found
    if others:
        used = {id_ for one in others if one.info is not None for id_ in (one.id, *one.info.ids.values())}
        gone = {info.attempt, *dead}
        doomed = tuple((r, one) for r, one in found if one.attempt in gone and one.id not in used)
        _log.warning("%s: another deployment of that name exists, and was left: %s", name, others[0].id)
    try:
        await remove(scope, Survey(found=doomed), name=name, deadline=deadline)
    except UniGPUError:
        if locked and scope.store is not None:
            with contextlib.suppress(StateError):  # what is still there matters more
                for intent in intents:
                    Journal(scope.store, scope.io, intent).note_ending((one.kind, one.id) for _, one in doomed)
        raise
    if locked and scope.store is not None:
        for intent in intents:
            if others and intent.attempt not in (info.attempt, *dead):
                continue
            due = intent.still_due(wall)
            if due:
                scope.store.save(replace(intent, state="failed", due=due, updated_at=scope.io.wall()))
            else:
                scope.store.drop(intent)
        scope.store.sweep_temporary(key)
    if doomed:
        scope.event("teardown.done", deployment=info.name, id=info.id)


async def _others(
    scope: Scope, found: Rows, info: DeploymentInfo, dead: set[str], *, deadline: float
) -> Sequence[Found]:
    """The deployments of the name that *info* must not take along: those that count before its own."""
    if info.attempt is None:
        return ()
    mains = [(r, one) for r, one in found if one.info is not None and not is_ending(one)]
    mine = [one for _, one in mains if one.attempt == info.attempt or one.id == info.id]
    others: list[Found] = []
    for resource, one in mains:
        if one in mine or one.attempt in dead:
            continue
        now = await confirmed(scope, resource, one.id, deadline=deadline)
        if now is not None and not is_ending(now):
            others.append(now)
    if mine and others and min(map(age, mine)) < min(map(age, others)):
        return ()
    return sorted(others, key=age)


async def remove(scope: Scope, seen: Survey, *, name: str, deadline: float) -> None:
    """Delete what *seen* shows, last made first, each verified; goes on after a failure, and then says what is left.

    Raises:
        TeardownIncomplete, AuthenticationError, PermissionDeniedError: as `teardown`.
    """
    remaining: list[tuple[str, str]] = []
    first: UniGPUError | None = None
    for resource, found in reversed(seen.found):
        try:
            await ensure_absent(scope, resource, found.id, attempt=found.attempt, seen=found, deadline=deadline)
        except UniGPUError as exc:
            _log.warning("%s: %s %s could not be ended: %s", name, resource.kind, found.id, exc)
            remaining.append((resource.kind, found.id))
            first = first or exc
    if first is None:
        return
    left = tuple(f"{kind} {id_}" for kind, id_ in remaining)
    if isinstance(first, AuthenticationError | PermissionDeniedError):
        first.may_bill = (*first.may_bill, *left)
        raise first
    late = isinstance(first, DeadlineExceeded)
    raise TeardownIncomplete(
        f"{name} on {scope.provider}: still there" + (" at the deadline" if late else f" ({first.message})"),
        provider=scope.provider,
        deployment=name,
        remaining=tuple(remaining),
        may_bill=left,
        hint="Tear it down again, or delete it in the provider's console.",
    ) from first


async def settle_intents(scope: Scope, parts: Sequence[Resource], key: str, *, deadline: float) -> None:
    """Drop a name's intents after its parts are gone; what only an intent still names is ended as well.

    Only with the name's lock held: every intent of it is then a dead writer's, or committed.
    """
    store = scope.store
    if store is None:
        return
    kinds = {part.kind: part for part in parts}
    for intent in store.load(key):
        for kind, id_ in reversed(intent.resources):
            if kind in kinds:
                await ensure_absent(scope, kinds[kind], id_, attempt=intent.attempt, seen=None, deadline=deadline)
        store.drop(intent)
    store.sweep_temporary(key)


async def forget_expired(scope: Scope, *, deadline: float) -> None:
    """Drop the intents of deployments whose end has passed and that are seen to be gone.

    An ephemeral deployment's name never comes back, so no later deploy or teardown of the name would settle what a
    client that was killed had written. Deletes nothing on the platform. Only where looking by name is the truth (atomic
    parts): what a late list does not show may still be there. Failing to look leaves them for another time.
    """
    store = scope.store
    if store is None:
        return
    try:
        for intent in store.load():
            ended = intent.expires_at is not None and intent.expires_at <= scope.io.wall()
            if not ended or (intent.provider, intent.base) != (scope.provider, scope.base):
                continue
            parts = scope.driver.parts(info_of(intent))
            lock = store.try_lock(intent.key) if all(p.consistency.kind == "atomic" for p in parts) else None
            if lock is None:
                continue  # its writer lives
            try:
                if not (await survey(scope, parts, deadline=deadline)).found:
                    store.drop(intent)
                    store.sweep_temporary(intent.key)
            finally:
                lock.release()
        store.sweep_locks()
    except UniGPUError as exc:
        _log.debug("expired intents of %s are looked at another time: %s", scope.provider, exc)


async def end_expired(
    scope: Scope, infos: Sequence[DeploymentInfo] = (), *, deadline: float
) -> frozenset[tuple[str, str | None]]:
    """End what has expired, where nobody else does: of this machine's intents, and of what a list just showed.

    On the way of another call: what cannot be ended is logged, and is for the next one. Returns what was ended, as
    provider's name and attempt.
    """
    ended: set[tuple[str, str | None]] = set()
    if not scope.ends_expired:
        return frozenset()
    wall = scope.io.wall()
    over = {
        (info.provider_name, info.attempt): info
        for info in infos
        if info.expires_at is not None
        and info.expires_at <= wall
        and is_in_namespace(info.provider_name, scope.namespace)
    }
    try:
        for intent in [] if scope.store is None else scope.store.load():
            wanted = (intent.provider, intent.base, intent.namespace) == (scope.provider, scope.base, scope.namespace)
            if wanted and intent.state == "committed" and intent.expires_at is not None and intent.expires_at <= wall:
                over.setdefault(
                    (intent.provider_name, intent.attempt),
                    info_of(intent).model_copy(update={"attempt": intent.attempt}),
                )
        for name, info in over.items():
            key = key_of(scope.provider, scope.base, info.provider_name)
            if scope.store is not None and scope.store.is_locked(key):
                continue  # a deploy that works on it sees that it has expired
            await teardown(scope, info, deadline=deadline)
            ended.add(name)
            _log.warning("%s on %s was ended: its ttl has passed", info.name or info.provider_name, scope.provider)
    except UniGPUError as exc:
        _log.warning("something on %s has expired and is not ended yet: %s", scope.provider, exc)
    return frozenset(ended)


def known(scope: Scope, name: str) -> DeploymentInfo | None:
    """A deployment as this machine's intents know it, by names only: for ending one that no list shows."""
    if scope.store is None:
        return None
    for intent in reversed(scope.store.load()):
        if (intent.provider, intent.base, intent.namespace, intent.name) == (
            scope.provider,
            scope.base,
            scope.namespace,
            name,
        ):
            return info_of(intent)
    return None


def info_of(intent: Intent) -> DeploymentInfo:
    """What an intent tells of its deployment."""
    ids = dict(intent.resources)
    return DeploymentInfo(
        provider=intent.provider,
        name=intent.name,
        namespace=intent.namespace,
        provider_name=intent.provider_name,
        id=intent.resources[-1][1] if intent.resources else intent.provider_name,
        ids=ids,
        spec_hash=intent.spec_hash,
        attempt=None,  # whatever carries the name is meant
        created_at=intent.created_at,
        expires_at=intent.expires_at,
    )


def _is_another(info: DeploymentInfo, main: Found | None) -> bool:
    return main is not None and None not in (info.attempt, main.attempt) and info.attempt != main.attempt


def _release(lock: Lock | None) -> None:
    if lock is not None:
        lock.release()
