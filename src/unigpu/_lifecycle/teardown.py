"""Teardown: every part is deleted in reverse order and verified to be gone, and the intents are dropped.

It needs nothing but names: parts are searched by the deployment's name. So a deployment that is incomplete, or partly
deleted already, is torn down in the same way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
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

from .consistency.absence import any_listed, ensure_absent, is_ending
from .consistency.owed_checks import of_scope
from .consistency.survey import (
    VOLUME,
    Rows,
    Survey,
    age,
    existing,
    id_of,
    ids_of,
    ids_used_by,
    info_of,
    mains_of,
    rows,
    survey,
)
from .intents import Intent, IntentWriter, key_of
from .scope import Scope

_log = logging.getLogger("unigpu.lifecycle")


async def teardown(scope: Scope, info: DeploymentInfo, *, deadline: float, volumes: bool = False) -> None:
    """Delete a deployment, verify that it is gone, and drop its intents. A deployment that is gone is success.

    *info* may be the old view of a handle: where the name now carries another create's attempt, that one is kept.

    Raises:
        TeardownIncomplete: with what still exists, or could not be verified.
        AuthenticationError, PermissionDeniedError: the key does not allow it; ``may_bill`` names what still exists.
    """
    scope = scope.for_cleanup()
    key = key_of(scope.provider, scope.base, info.provider_name)
    # A teardown does not wait for a deploy that waits for its workers: that deploy settles its own intent.
    lock = None if scope.store is None else scope.store.try_lock(key)
    try:
        parts = [part for part in scope.deployer.parts(info) if volumes or part.kind != VOLUME]
        if any_listed(parts):
            await _teardown_listed(scope, parts, info, key, locked=lock is not None, deadline=deadline)
            return
        seen = await survey(scope, parts, deadline=deadline)
        if _is_another(info, seen.main):
            _log.warning(
                "%s: the deployment of this handle is gone; another deployment of that name exists and was left alone",
                info.name,
            )
            return
        await remove(scope, seen, name=info.name or info.provider_name, deadline=deadline)
        if lock is not None:
            await settle_intents(scope, parts, key, deadline=deadline)
        scope.event("teardown.done", deployment=info.name, id=info.id)
    finally:
        if lock is not None:
            lock.release()
    await forget_expired(scope, deadline=deadline)


async def teardown_adopted(scope: Scope, info: DeploymentInfo, *, deadline: float) -> None:
    """Delete an endpoint that unigpu did not create, by its id, and verify that it is gone.

    Only the resource that is called: what else carries its name may belong to something else.

    Raises:
        TeardownIncomplete: it still exists, or could not be verified to be gone.
    """
    scope = scope.for_cleanup()
    called = next(one for one in scope.deployer.parts(info) if info.ids.get(one.kind) == info.id)
    seen = await called.read(scope.io, info.id, deadline=deadline)
    if seen is None:
        return
    await remove(scope, Survey(found=((called, seen),)), name=info.name or info.provider_name, deadline=deadline)
    scope.event("teardown.done", deployment=info.name, id=info.id)


async def _teardown_listed(
    scope: Scope, parts: Sequence[Resource], info: DeploymentInfo, key: str, *, locked: bool, deadline: float
) -> None:
    """`teardown` where several deployments may carry a name, and lists are late.

    Where *info* counts, or shows no attempt, everything of the name is deleted. Where another deployment counts, it is
    kept: it belongs to another deploy. An intent whose create may still act late stays until its checks are made.

    Args:
        locked: The lock of the name is held: only then every intent that is not committed has no living writer, and
            intents may be changed.
    """
    name = info.name or info.provider_name
    intents = [] if scope.store is None else scope.store.load(key)
    unfinished = {one.attempt for one in intents if locked and one.state != "committed"}
    began = scope.io.wall()
    found = await rows(scope, parts, deadline=deadline, known=(*info.ids.items(), *ids_of(intents)))
    others = await _others(scope, found, info, unfinished, deadline=deadline)
    if others:
        attempts = {info.attempt, *unfinished}
        found = _of_attempts(found, attempts, kept=others)
        intents_of_deleted = [one for one in intents if one.attempt in attempts]
        _log.warning("%s: another deployment of that name exists, and was left alone: %s", name, others[0].id)
    else:
        intents_of_deleted = intents
    try:
        await remove(scope, Survey(found=found), name=name, deadline=deadline)
    except UniGPUError:
        if locked:
            _note_ending(scope, intents, found)
        raise
    if locked:
        _close_intents(scope, key, intents_of_deleted, began)
    if found:
        scope.event("teardown.done", deployment=info.name, id=info.id)


async def _others(
    scope: Scope, found: Rows, info: DeploymentInfo, unfinished: set[str], *, deadline: float
) -> Sequence[Found]:
    """The deployments of the name that must stay: those that count before the one of *info*, oldest first.

    Args:
        unfinished: Attempts of deploys of this machine that died: what they created never counts.
    """
    if info.attempt is None:
        return ()
    mains = tuple(pair for pair in mains_of(found) if not is_ending(pair[1]))
    mine = [one for _, one in mains if one.attempt == info.attempt or one.id == info.id]
    not_mine = tuple(pair for pair in mains if pair[1] not in mine and pair[1].attempt not in unfinished)
    others = sorted((one for _, one in await existing(scope, not_mine, deadline=deadline)), key=age)
    if mine and others and min(map(age, mine)) < age(others[0]):
        return ()
    return others


def _of_attempts(found: Rows, attempts: set[str | None], *, kept: Sequence[Found]) -> Rows:
    """What carries one of *attempts*, and is neither one of *kept* nor used by one."""
    used = ids_used_by(kept) | {one.id for one in kept}
    return tuple((resource, one) for resource, one in found if one.attempt in attempts and one.id not in used)


def _note_ending(scope: Scope, intents: Iterable[Intent], found: Rows) -> None:
    """Record what a failed teardown was deleting: a later deploy must not reuse it."""
    if scope.store is not None:
        with contextlib.suppress(StateError):  # the error of the teardown matters more
            for intent in intents:
                IntentWriter(scope.store, scope.io, intent).note_ending(id_of(one) for _, one in found)


def _close_intents(scope: Scope, key: str, intents: Iterable[Intent], began: float) -> None:
    """Drop the intents of what is gone; keep those whose create may still act.

    Args:
        began: When the lists were read: checks that were due before are made.
    """
    store = scope.store
    if store is None:
        return
    for intent in intents:
        if due := intent.still_due(began):
            store.save(replace(intent, state="failed", due=due, updated_at=scope.io.wall()))
        else:
            store.drop(intent)
    store.sweep_temporary(key)


async def remove(scope: Scope, seen: Survey, *, name: str, deadline: float) -> None:
    """Delete what *seen* shows, last created first, each verified. After a failure go on, then say what still exists.

    Raises:
        TeardownIncomplete, AuthenticationError, PermissionDeniedError: as `teardown`.
    """
    remaining: list[tuple[str, str]] = []
    first: UniGPUError | None = None
    for resource, found in reversed(seen.found):
        try:
            await ensure_absent(scope, resource, found.id, attempt=found.attempt, seen=found, deadline=deadline)
        except UniGPUError as exc:
            _log.warning("%s: %s %s could not be deleted: %s", name, resource.kind, found.id, exc)
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
        f"{name} on {scope.provider} still exists" + (" at the deadline" if late else f" ({first.message})"),
        provider=scope.provider,
        deployment=name,
        remaining=tuple(remaining),
        may_bill=left,
        hint="Tear it down again, or delete it in the provider's console.",
    ) from first


async def settle_intents(scope: Scope, parts: Sequence[Resource], key: str, *, deadline: float) -> None:
    """Drop a name's intents after its parts are gone. What only an intent still names is deleted as well.

    The caller holds the lock of the name: no intent of it has a living writer.
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
    """Drop the intents of expired deployments that are seen to be gone. Delete nothing on the platform.

    The name of an ephemeral deployment never comes back, so no later deploy or teardown of it would settle the intent
    of a client that was killed. Only atomic platforms count: what a late list does not show may still exist. After an
    error the intents stay for the next time.
    """
    store = scope.store
    if store is None:
        return
    try:
        for intent in store.load():
            ended = intent.expires_at is not None and intent.expires_at <= scope.io.wall()
            if not ended or (intent.provider, intent.base) != (scope.provider, scope.base):
                continue
            parts = scope.deployer.parts(info_of(intent))
            lock = None if any_listed(parts) else store.try_lock(intent.key)
            if lock is None:
                continue  # its writer is alive
            try:
                if not (await survey(scope, parts, deadline=deadline)).found:
                    store.drop(intent)
                    store.sweep_temporary(intent.key)
            finally:
                lock.release()
        store.sweep_locks()
    except UniGPUError as exc:
        _log.debug("expired intents of %s stay until the next call: %s", scope.provider, exc)


async def end_expired(
    scope: Scope, infos: Sequence[DeploymentInfo] = (), *, deadline: float
) -> frozenset[tuple[str, str | None]]:
    """Tear down what has expired, where the platform does not: by this machine's intents, and by *infos* of a list.

    This is part of another call: an error is logged, and the next call tries again.

    Returns:
        What was torn down, as the provider's name and the attempt.
    """
    ended: set[tuple[str, str | None]] = set()
    if not scope.ends_expired:
        return frozenset()
    wall = scope.io.wall()
    expired = {
        (info.provider_name, info.attempt): info
        for info in infos
        if info.expires_at is not None
        and info.expires_at <= wall
        and is_in_namespace(info.provider_name, scope.namespace)
    }
    try:
        for intent in [] if scope.store is None else of_scope(scope, scope.store.load()):
            if intent.state == "committed" and intent.expires_at is not None and intent.expires_at <= wall:
                expired.setdefault(
                    (intent.provider_name, intent.attempt),
                    info_of(intent).model_copy(update={"attempt": intent.attempt}),
                )
        for name, info in expired.items():
            key = key_of(scope.provider, scope.base, info.provider_name)
            if scope.store is not None and scope.store.is_locked(key):
                continue  # the deploy that works on it sees that it has expired
            await teardown(scope, info, deadline=deadline)
            ended.add(name)
            _log.warning("%s on %s was torn down: its ttl has passed", info.name or info.provider_name, scope.provider)
    except UniGPUError as exc:
        _log.warning("an expired deployment on %s could not be torn down yet: %s", scope.provider, exc)
    return frozenset(ended)


def known(scope: Scope, name: str) -> DeploymentInfo | None:
    """A deployment by this machine's intents: for the teardown of one that no list shows."""
    if scope.store is None:
        return None
    intents = reversed(of_scope(scope, scope.store.load()))
    return next((info_of(intent) for intent in intents if intent.name == name), None)


def _is_another(info: DeploymentInfo, main: Found | None) -> bool:
    return main is not None and None not in (info.attempt, main.attempt) and info.attempt != main.attempt
