"""What unigpu left on an account: listed, and deleted only for reasons that cannot hit another machine's deployment.

There are three reasons: an intent of this machine gives it up (a deploy failed and could not undo, or was killed half
way), another deployment of its name is older, or its ttl has passed. A missing intent is never a reason. A *whole*
deployment of a killed deploy is listed and not deleted: another machine may have reused it since, and the platform
does not show that.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from unigpu._io.contract import Request, Response
from unigpu._io.middleware import Middleware
from unigpu.driver import DeploymentInfo, Found, Io, Resource, State, is_in_namespace, is_ours
from unigpu.errors import UniGPUError
from unigpu.models.gc import GcReason, GcRow

from .consistency.absence import (
    ABSENT_PAUSE,
    ABSENT_READS,
    any_listed,
    ensure_absent,
    is_listed,
)
from .consistency.owed_checks import of_scope
from .consistency.survey import VOLUME, Id, Rows, age, existing, id_of, ids_of, ids_used_by, info_of, mains_of, rows
from .intents import Intent, key_of
from .scope import Scope

_log = logging.getLogger("unigpu.lifecycle")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What carries one name.

    Attributes:
        info: The deployment, as far as it is known.
        judged: What is listed, in the order of creation.
        standing: The deployments that stay, the winner first.
        wall: When the platform was read.
    """

    info: DeploymentInfo
    parts: Sequence[Resource]
    found: Rows
    judged: Sequence[tuple[Resource, Found, GcRow]]
    standing: Sequence[Found]
    wall: float


async def inspect(scope: Scope, *, all_namespaces: bool = False, deadline: float) -> list[Group]:
    """Find everything that carries unigpu's tag. Changes nothing.

    Raises:
        UniGPUError: a list could not be read whole.
    """
    scope = replace(scope.for_cleanup(), io=_Memo(scope.for_cleanup().io))
    intents: dict[str, list[Intent]] = {}
    for intent in of_scope(scope, [] if scope.store is None else scope.store.load()):
        intents.setdefault(intent.provider_name, []).append(intent)
    infos: dict[str, DeploymentInfo] = {name: info_of(found[-1]) for name, found in intents.items()}
    groups: list[Group] = []
    for info in await scope.deployer.deployments(scope.io, deadline=deadline):
        if not (info.ours and is_ours(info.provider_name)):
            continue
        if is_in_namespace(info.provider_name, scope.namespace):
            infos[info.provider_name] = info
        elif all_namespaces:
            groups.append(_of_another_namespace(scope, info))
    for name, info in infos.items():
        if scope.store is not None and scope.store.is_locked(key_of(scope.provider, scope.base, name)):
            continue  # a process on this machine works on it now
        groups.append(await _inspect_name(scope, info, intents.get(name, ()), deadline=deadline))
    return groups


async def collect(scope: Scope, groups: Sequence[Group], *, deadline: float) -> list[GcRow]:
    """Delete what may be deleted, each verified, and drop the intents that are not needed any more."""
    scope = scope.for_cleanup()
    out: list[GcRow] = []
    for group in groups:
        store, key = scope.store, key_of(scope.provider, scope.base, group.info.provider_name)
        if group.info.namespace not in (None, scope.namespace):
            out.extend(row for _, _, row in group.judged)
            continue
        lock = None if store is None else store.try_lock(key)
        if store is not None and lock is None:
            out.extend(row.model_copy(update={"error": "in use by another process here"}) for _, _, row in group.judged)
            continue
        try:
            done = await _delete(scope, group, deadline=deadline)
            out.extend(done)
            gone = {(row.kind, row.id) for row in done if row.deleted}
            await _drop(scope, group, key, gone, deadline=deadline)
        finally:
            if lock is not None:
                lock.release()
    if scope.store is not None:
        scope.store.sweep_locks()
    return out


async def _inspect_name(scope: Scope, info: DeploymentInfo, intents: Sequence[Intent], *, deadline: float) -> Group:
    parts, wall = [part for part in scope.deployer.parts(info) if part.kind != VOLUME], scope.io.wall()
    known = ids_of(intents)
    listed = await rows(scope, parts, deadline=deadline, known=known)
    found = await existing(scope, listed, deadline=deadline)
    mains = [one for _, one in mains_of(found)]
    judge = _Judge(scope, parts, found, {one.attempt: one for one in intents}, wall)
    return Group(
        info=info,
        parts=parts,
        found=found,
        judged=judge.all(sorted(mains, key=age)),
        standing=judge.standing,
        wall=wall,
    )


class _Verdict(NamedTuple):
    """Why a resource is listed, and whether gc may delete it."""

    reason: GcReason
    why: str
    deletable: bool


_UNCLAIMED: Final = _Verdict(
    "unclaimed", "created elsewhere, or not recorded here; teardown by its name deletes it", False
)


class _Judge:
    """Why each resource of one name is listed."""

    def __init__(
        self, scope: Scope, parts: Sequence[Resource], found: Rows, intents: Mapping[str, Intent], wall: float
    ) -> None:
        self.scope, self.parts, self.found, self.intents, self.wall = scope, parts, found, intents, wall
        self.by_id: dict[Id, Intent] = {pair: one for one in intents.values() for pair in one.resources}
        self.standing: list[Found] = []
        # What only this machine can reach, no other machine can have reused.
        self.shared = scope.driver.env_key is not None or any_listed(parts)

    def all(self, mains: Sequence[Found]) -> list[tuple[Resource, Found, GcRow]]:
        verdicts: dict[Id, _Verdict] = {}
        by_attempt: dict[str, tuple[Found, _Verdict | None]] = {}
        for one in mains:
            verdict = self._main(one)
            if verdict is None or not verdict.deletable:
                self.standing.append(one)
            if verdict is not None:
                verdicts[id_of(one)] = verdict
            if one.attempt is not None:
                by_attempt[one.attempt] = one, verdict
        used = ids_used_by(self.standing)
        for _, one in self.found:
            if one.info is not None or one.id in used:
                continue
            main = by_attempt.get(one.attempt or "")
            verdict = self._orphan(one) if main is None else self._part_of(one, *main)
            if verdict is not None:
                verdicts[id_of(one)] = verdict
        return [(r, one, self._row(one, verdicts[id_of(one)])) for r, one in self.found if id_of(one) in verdicts]

    def _main(self, one: Found) -> _Verdict | None:
        intent = self._intent(one)
        ends = one.expires_at if one.expires_at is not None else None if intent is None else intent.expires_at
        if ends is not None and ends <= self.wall:
            return _Verdict("expired", f"its ttl passed {self.wall - ends:.0f} s ago", True)
        if intent is not None and intent.state == "failed":
            return _Verdict("failed", "a deploy of this machine failed, and could not delete it", True)
        if self.standing:
            return _Verdict("duplicate", f"{self.standing[0].id} of the same name is older", True)
        if intent is None:
            return _UNCLAIMED
        if intent.state == "pending":
            if not self._is_whole(one):
                return _Verdict("abandoned", "the deploy that created it was killed half way", True)
            why = (
                "the deploy that created it was killed; it is whole: deploy the name again to use it, or tear it down "
                "by its name"
            )
            return _Verdict("abandoned", why, not self.shared)
        return None

    def _part_of(self, one: Found, main: Found, verdict: _Verdict | None) -> _Verdict | None:
        """A part that *main* does not use, though the same deploy created both: it shares main's verdict."""
        stays = verdict is None or not verdict.deletable
        names_another = main.info is not None and one.kind in main.info.ids
        if stays and names_another and self._intent(one) is not None:
            return _Verdict("duplicate", "created twice by one deploy of this machine, and the other one is used", True)
        return verdict

    def _orphan(self, one: Found) -> _Verdict:
        """A part of a deployment that does not exist."""
        intent = self._intent(one)
        if intent is None:
            return _UNCLAIMED
        if intent.state == "pending":
            return _Verdict("abandoned", "the deploy that created it was killed half way", True)
        return _Verdict("failed", "the deployment that it belonged to is gone", True)

    def _intent(self, one: Found) -> Intent | None:
        """By its attempt, else by its id: a part that completed another machine's deployment carries our attempt."""
        by_attempt = None if one.attempt is None else self.intents.get(one.attempt)
        return by_attempt or self.by_id.get(id_of(one))

    def _is_whole(self, main: Found) -> bool:
        """Whether every part exists that a deployment of *main*'s kind has."""
        ids: Mapping[str, str] = {} if main.info is None else main.info.ids
        there = {part.kind for _, part in self.found if part.attempt in (None, main.attempt)}
        parts = self.parts if main.info is None else self.scope.deployer.parts(main.info)
        needed = [one.kind for one in parts if one.kind != VOLUME and not one.optional]
        return all(kind in ids or kind in there for kind in needed)

    def _row(self, one: Found, verdict: _Verdict) -> GcRow:
        info, intent = one.info, self._intent(one)
        return GcRow(
            provider=self.scope.provider,
            id=one.id,
            kind=one.kind,
            name=info.name if info is not None and info.name else None if intent is None else intent.name,
            provider_name=one.name,
            namespace=self.scope.namespace,
            state=None if info is None else info.state,
            age=None if one.created_at is None else max(0.0, self.wall - one.created_at),
            per_hour=_per_hour(info),
            reason=verdict.reason,
            why=verdict.why + _stopped(info),
            deletable=verdict.deletable,
        )


def _per_hour(info: DeploymentInfo | None) -> float | None:
    """USD per hour without a call. The rate of a stopped deployment does not count."""
    return None if info is None or info.state is State.STOPPED else info.rate.idle_per_hour


def _stopped(info: DeploymentInfo | None) -> str:
    if info is None or info.state is not State.STOPPED:
        return ""
    return f"; it is stopped, and still costs {info.bills}" if info.bills else "; it is stopped"


def _of_another_namespace(scope: Scope, info: DeploymentInfo) -> Group:
    wall = scope.io.wall()
    found = Found(kind="deployment", id=info.id, name=info.provider_name, info=info, created_at=info.created_at)
    row = GcRow(
        provider=scope.provider,
        id=info.id,
        kind=next((kind for kind, id_ in info.ids.items() if id_ == info.id), "deployment"),
        name=info.name,
        provider_name=info.provider_name,
        namespace=info.namespace,
        state=info.state,
        age=None if info.created_at is None else max(0.0, wall - info.created_at),
        per_hour=_per_hour(info),
        reason="unclaimed",
        why="of another namespace; run gc with that namespace" + _stopped(info),
    )
    parts = scope.deployer.parts(info)
    namespace = info.namespace or "another"
    return Group(
        info=info.model_copy(update={"namespace": namespace}),
        parts=parts,
        found=(),
        judged=[(parts[-1], found, row)],
        standing=(),
        wall=wall,
    )


async def _delete(scope: Scope, group: Group, *, deadline: float) -> list[GcRow]:
    """Delete the rows of one name that may be deleted, last created first."""
    done: dict[Id, GcRow] = {}
    failed = False
    for resource in reversed(group.parts):
        for _, one, row in group.judged:
            if one.kind != resource.kind or not row.deletable:
                continue
            try:
                if failed:
                    raise UniGPUError("what it belongs to still exists")
                await ensure_absent(scope, resource, one.id, attempt=one.attempt, seen=one, deadline=deadline)
            except UniGPUError as exc:
                _log.warning("gc: %s %s of %s could not be deleted: %s", one.kind, one.id, one.name, exc)
                done[id_of(one)] = row.model_copy(update={"error": exc.message})
                failed = True
            else:
                done[id_of(one)] = row.model_copy(update={"deleted": True})
                scope.event("gc.deleted", deployment=row.name, part=one.kind, id=one.id, reason=row.reason)
    return [done.get(id_of(one), row) for _, one, row in group.judged]


async def _drop(scope: Scope, group: Group, key: str, gone: set[Id], *, deadline: float) -> None:
    """Drop the intents that are not needed any more. The lock of the name is held."""
    store = scope.store
    if store is None:
        return
    used = ids_used_by(group.standing)
    left = [one for _, one in group.found if id_of(one) not in gone and one.id not in used]
    standing = [one for one in group.standing if id_of(one) not in gone]
    for intent in store.load(key):
        if intent.created_at > group.wall:
            continue  # a deploy that began after the platform was read
        stands = any(_is_of(one, intent) for one in standing)
        if stands and intent.state != "failed":
            continue
        due = intent.still_due(group.wall)
        remains = any(_is_of(one, intent) for one in left)
        if remains and intent.state != "committed":
            continue
        if due or remains or await _may_have_made_more(scope, group, intent, gone, deadline=deadline):
            store.save(replace(intent, state="failed", due=due, updated_at=scope.io.wall()))
        else:
            store.drop(intent)
    store.sweep_temporary(key)


async def _may_have_made_more(scope: Scope, group: Group, intent: Intent, gone: set[Id], *, deadline: float) -> bool:
    """Whether a killed deploy may have created something that it did not record, and that the list did not show.

    Only the intent points to such a resource, so one list that does not show it proves nothing.
    """
    if intent.state == "committed":
        return False
    recorded = {kind for kind, _ in intent.resources}
    missing = [part for part in group.parts if part.kind not in recorded and is_listed(part)]
    known = gone | {id_of(one) for _, one in group.found}
    for _ in range(ABSENT_READS - 1) if missing else ():
        await scope.io.sleep(ABSENT_PAUSE)
        try:
            seen = [one for part in missing for one in await part.find(scope.io, deadline=deadline)]
        except UniGPUError as exc:
            _log.warning("gc: the intent of %s is kept: %s", intent.name, exc)
            return True
        if any(one.attempt in (None, intent.attempt) and id_of(one) not in known for one in seen):
            return True
    return False


def _is_of(one: Found, intent: Intent) -> bool:
    return one.attempt == intent.attempt or id_of(one) in intent.resources


class _Memo(Middleware):
    """An `Io` that sends each GET once: the names of one account share their lists."""

    def __init__(self, io: Io) -> None:
        super().__init__(io)
        self._known: dict[tuple[str, object], Response] = {}

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        if request.method != "GET":
            return await self._io.send(request)
        key = request.url, request.params
        found = self._known.get(key)
        if found is None:
            found = await self._io.send(request)
            if found.status < 300:
                self._known[key] = found
        return found
