"""What unigpu left on an account: shown, and deleted only for reasons that cannot hit another machine's deployment.

Three reasons: this machine's intents give it up (a deploy failed and could not undo, or was killed half way), another
one of its name is older, or its ttl has passed. That no intent is here is never a reason. What a killed deploy left
*whole* is shown and not deleted: another machine may have adopted it since, and nothing on a platform tells.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unigpu._io.around import Around
from unigpu._io.contract import Request, Response
from unigpu.driver import DeploymentInfo, Found, Io, Resource, State, is_in_namespace, is_ours
from unigpu.errors import UniGPUError
from unigpu.models.gc import GcReason, GcRow

from .consistency.owed_checks import mine
from .consistency.survey import (
    ABSENT,
    ABSENT_PAUSE,
    VOLUME,
    Id,
    Rows,
    age,
    any_listed,
    confirmed,
    is_ending,
    is_listed,
    rows,
)
from .create import ensure_absent
from .intents import Intent, key_of
from .scope import Scope
from .teardown import info_of

_log = logging.getLogger("unigpu.lifecycle")


@dataclass(frozen=True, kw_only=True)
class Group:
    """What carries one name.

    Attributes:
        info: The name, as far as it is known.
        judged: What is to be shown, in the order of creation.
        standing: What is called and stays, the winner first.
        wall: When it was looked at.
    """

    info: DeploymentInfo
    parts: Sequence[Resource]
    found: Rows
    judged: Sequence[tuple[Resource, Found, GcRow]]
    standing: Sequence[Found]
    wall: float


async def inspect(scope: Scope, *, all_namespaces: bool = False, deadline: float) -> list[Group]:
    """Look at everything that carries unigpu's tag. Changes nothing.

    Raises:
        UniGPUError: a list could not be read whole.
    """
    scope = replace(scope.for_cleanup(), io=_Memo(scope.for_cleanup().io))
    intents: dict[str, list[Intent]] = {}
    for intent in mine(scope, [] if scope.store is None else scope.store.load()):
        intents.setdefault(intent.provider_name, []).append(intent)
    infos: dict[str, DeploymentInfo] = {name: info_of(found[-1]) for name, found in intents.items()}
    groups: list[Group] = []
    for info in await scope.driver.deployments(scope.io, deadline=deadline):
        if not (info.ours and is_ours(info.provider_name)):
            continue
        if is_in_namespace(info.provider_name, scope.namespace):
            infos[info.provider_name] = info
        elif all_namespaces:
            groups.append(_of_another_namespace(scope, info))
    for name, info in infos.items():
        if scope.store is not None and scope.store.is_locked(key_of(scope.provider, scope.base, name)):
            continue  # somebody here works on it now
        groups.append(await _look(scope, info, intents.get(name, ()), deadline=deadline))
    return groups


async def collect(scope: Scope, groups: Sequence[Group], *, deadline: float) -> list[GcRow]:
    """Delete what may be deleted, each verified, and drop the intents that have nothing more to say."""
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


async def _look(scope: Scope, info: DeploymentInfo, intents: Sequence[Intent], *, deadline: float) -> Group:
    parts, wall = [part for part in scope.driver.parts(info) if part.kind != VOLUME], scope.io.wall()
    known = [pair for intent in intents for pair in intent.resources]
    there: list[tuple[Resource, Found]] = []
    for resource, one in await rows(scope, parts, deadline=deadline, known=known):
        now = await confirmed(scope, resource, one.id, deadline=deadline)  # lists show for a while what was deleted
        if now is not None and not is_ending(now):
            there.append((resource, now))
    found: Rows = tuple(there)
    mains = [one for _, one in found if one.info is not None]
    judge = _Judge(scope, parts, found, {one.attempt: one for one in intents}, wall)
    return Group(
        info=info,
        parts=parts,
        found=found,
        judged=judge.all(sorted(mains, key=age)),
        standing=judge.standing,
        wall=wall,
    )


class _Judge:
    """Why each resource of one name is to be shown."""

    def __init__(
        self, scope: Scope, parts: Sequence[Resource], found: Rows, intents: Mapping[str, Intent], wall: float
    ) -> None:
        self.scope, self.parts, self.found, self.intents, self.wall = scope, parts, found, intents, wall
        self.by_id: dict[Id, Intent] = {pair: one for one in intents.values() for pair in one.resources}
        self.standing: list[Found] = []
        # What only this machine can reach, nobody else can have adopted.
        self.shared = scope.driver.env_key is not None or any_listed(parts)

    def all(self, mains: Sequence[Found]) -> list[tuple[Resource, Found, GcRow]]:
        why: dict[Id, tuple[GcReason, str, bool]] = {}
        for one in mains:
            told = self._main(one)
            if told is None or not told[2]:
                self.standing.append(one)
            if told is not None:
                why[one.kind, one.id] = told
        by_attempt = {one.attempt: why.get((one.kind, one.id)) for one in mains if one.attempt is not None}
        used = {id_ for one in self.standing if one.info is not None for id_ in one.info.ids.values()}
        for _, one in self.found:
            if one.info is not None or one.id in used:
                continue
            if one.attempt in by_attempt:
                told = by_attempt[one.attempt]
                main = next(m for m in self.standing + list(mains) if m.attempt == one.attempt)
                named = main.info is not None and one.kind in main.info.ids
                stays = told is None or not told[2]
                if stays and named and self._intent(one) is not None:  # made twice, and the other one is in use
                    told = "duplicate", "made twice by one deploy of this machine", True
            else:
                told = self._part(one)
            if told is not None:
                why[one.kind, one.id] = told
        return [(r, one, self._row(one, *why[one.kind, one.id])) for r, one in self.found if (one.kind, one.id) in why]

    def _main(self, one: Found) -> tuple[GcReason, str, bool] | None:
        intent = self._intent(one)
        ends = one.expires_at if one.expires_at is not None else None if intent is None else intent.expires_at
        if ends is not None and ends <= self.wall:
            return "expired", f"its ttl passed {self.wall - ends:.0f} s ago", True
        if intent is not None and intent.state == "failed":
            return "failed", "a deploy of this machine failed, and could not take it back", True
        if self.standing:
            return "duplicate", f"{self.standing[0].id} of the same name is older", True
        if intent is None:
            return "unclaimed", "made elsewhere, or unknown here; teardown by its name ends it", False
        if intent.state == "pending":
            half = not self._is_whole(one)
            text = "the deploy that made it was killed" + (
                " half way" if half else "; it is whole: deploy the name again to go on, or tear it down by its name"
            )
            return "abandoned", text, half or not self.shared
        return None

    def _part(self, one: Found) -> tuple[GcReason, str, bool]:
        """A part of something that is not there."""
        intent = self._intent(one)
        if intent is None:
            return "unclaimed", "made elsewhere, or unknown here; teardown by its name ends it", False
        if intent.state == "pending":
            return "abandoned", "the deploy that made it was killed half way", True
        return "failed", "what it belonged to is gone", True

    def _intent(self, one: Found) -> Intent | None:
        """By the create that it tells; else by its id: what completed another's carries this machine's own attempt."""
        by_attempt = None if one.attempt is None else self.intents.get(one.attempt)
        return by_attempt or self.by_id.get((one.kind, one.id))

    def _is_whole(self, main: Found) -> bool:
        """Whether all is there that a deployment of *main*'s kind has."""
        ids: Mapping[str, str] = {} if main.info is None else main.info.ids
        there = {part.kind for _, part in self.found if part.attempt in (None, main.attempt)}
        parts = self.parts if main.info is None else self.scope.driver.parts(main.info)
        needed = [one.kind for one in parts if one.kind != VOLUME and not getattr(one, "optional", False)]
        return all(kind in ids or kind in there for kind in needed)

    def _row(self, one: Found, reason: GcReason, why: str, deletable: bool) -> GcRow:
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
            reason=reason,
            why=why + _stopped(info),
            deletable=deletable,
        )


def _per_hour(info: DeploymentInfo | None) -> float | None:
    """USD per hour without a call; of a stopped one its rate says nothing."""
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
        why="of another namespace; gc with that namespace judges it" + _stopped(info),
    )
    parts = scope.driver.parts(info)
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
    """Delete the rows of one name that may be deleted: what was made last first."""
    done: dict[Id, GcRow] = {}
    failed = False
    for resource in reversed(group.parts):
        for _, one, row in group.judged:
            if one.kind != resource.kind or not row.deletable:
                continue
            try:
                if failed:
                    raise UniGPUError("what it belongs to is still there")
                await ensure_absent(scope, resource, one.id, attempt=one.attempt, seen=one, deadline=deadline)
            except UniGPUError as exc:
                _log.warning("gc: %s %s of %s could not be deleted: %s", one.kind, one.id, one.name, exc)
                done[one.kind, one.id] = row.model_copy(update={"error": exc.message})
                failed = True
            else:
                done[one.kind, one.id] = row.model_copy(update={"deleted": True})
                scope.event("gc.deleted", deployment=row.name, part=one.kind, id=one.id, reason=row.reason)
    return [done.get((one.kind, one.id), row) for _, one, row in group.judged]


async def _drop(scope: Scope, group: Group, key: str, gone: set[Id], *, deadline: float) -> None:
    """Drop the intents that have nothing more to say; the lock of the name is held."""
    store = scope.store
    if store is None:
        return
    used = {id_ for one in group.standing if one.info is not None for id_ in one.info.ids.values()}
    left = [one for _, one in group.found if (one.kind, one.id) not in gone and one.id not in used]
    standing = [one for one in group.standing if (one.kind, one.id) not in gone]
    for intent in store.load(key):
        if intent.created_at > group.wall:
            continue  # begun since we looked
        stands = any(_is_of(one, intent) for one in standing)
        if stands and intent.state != "failed":
            continue
        due = intent.still_due(group.wall)
        remains = any(_is_of(one, intent) for one in left)
        if remains and intent.state != "committed":
            continue
        if due or remains or await _made_more(scope, group, intent, gone, deadline=deadline):
            store.save(replace(intent, state="failed", due=due, updated_at=scope.io.wall()))
        else:
            store.drop(intent)
    store.sweep_temporary(key)


async def _made_more(scope: Scope, group: Group, intent: Intent, gone: set[Id], *, deadline: float) -> bool:
    """Whether a killed deploy made something that it did not record, and that the list of before did not show.

    Its intent is all that knows of it, so one list that shows nothing is not believed: lists flap.
    """
    if intent.state == "committed":
        return False
    recorded = {kind for kind, _ in intent.resources}
    missing = [part for part in group.parts if part.kind not in recorded and is_listed(part)]
    known = gone | {(one.kind, one.id) for _, one in group.found}
    for _ in range(ABSENT - 1) if missing else ():
        await scope.io.sleep(ABSENT_PAUSE)
        try:
            seen = [one for part in missing for one in await part.find(scope.io, deadline=deadline)]
        except UniGPUError as exc:
            _log.warning("gc: the intent of %s is kept: %s", intent.name, exc)
            return True
        if any(one.attempt in (None, intent.attempt) and (one.kind, one.id) not in known for one in seen):
            return True
    return False


def _is_of(one: Found, intent: Intent) -> bool:
    return one.attempt == intent.attempt or (one.kind, one.id) in intent.resources


class _Memo(Around):
    """An `Io` that asks each list once: the names of one account share their lists."""

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
