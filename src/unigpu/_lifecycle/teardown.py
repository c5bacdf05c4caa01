"""The end of a deployment: every part deleted in reverse order, each verified absent, its intents dropped.

It works with nothing but names: parts are found by the deployment's name, so a deployment that was half made, or is
half gone, ends the same way.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from unigpu.driver import DeploymentInfo, Found, Resource
from unigpu.errors import AuthenticationError, DeadlineExceeded, PermissionDeniedError, TeardownIncomplete, UniGPUError

from ._files import Lock
from ._scope import Scope
from .intent import Intent, key_of
from .undo import ensure_absent

_log = logging.getLogger("unigpu.lifecycle")


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What carries a deployment's name now.

    Attributes:
        found: Each part that exists, in the order of creation.
        main: The one that is called, with what it shows; ``None`` where that is absent.
    """

    found: tuple[tuple[Resource, Found], ...] = ()
    main: Found | None = None
    by_kind: Mapping[str, Found] = field(default_factory=dict[str, Found])

    @property
    def info(self) -> DeploymentInfo | None:
        if self.main is None or self.main.info is None:
            return None
        ids = {kind: found.id for kind, found in self.by_kind.items()}
        return self.main.info.model_copy(update={"ids": {**self.main.info.ids, **ids}})


async def survey(scope: Scope, resources: Sequence[Resource], *, deadline: float) -> Survey:
    """Look for each part by name. Of several of one kind the oldest counts, then the smallest id: a fixed winner."""
    found: list[tuple[Resource, Found]] = []
    by_kind: dict[str, Found] = {}
    main: Found | None = None
    for resource in resources:
        seen = sorted(await resource.find(scope.io, deadline=deadline), key=lambda f: (f.created_at or 0.0, f.id))
        found.extend((resource, one) for one in seen)
        if seen:
            by_kind[resource.kind] = seen[0]
            if seen[0].info is not None:
                main = seen[0]
    return Survey(found=tuple(found), main=main, by_kind=by_kind)


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
        parts = [part for part in scope.driver.parts(info) if volumes or part.kind != "volume"]
        seen = await survey(scope, parts, deadline=deadline)
        if _is_another(info, seen.main):
            _log.warning(
                "%s: what this handle stood for is gone; another deployment of that name exists and was left", info.name
            )
            return
        await remove(scope, parts, seen, name=info.name or info.provider_name, deadline=deadline)
        if lock is not None:
            await settle_intents(scope, parts, key, deadline=deadline)
        scope.event("teardown.done", deployment=info.name, id=info.id)
    finally:
        _release(lock)
    await forget_expired(scope, deadline=deadline)


async def remove(scope: Scope, parts: Sequence[Resource], seen: Survey, *, name: str, deadline: float) -> None:
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
