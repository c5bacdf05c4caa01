"""What one deploy has made, and how it is taken back.

A create and the record of its id are one span that no cancellation cuts. Undoing goes in reverse order, is shielded as
well, and each step is verified by reading. Nothing that was found is ever undone, and nothing that carries another
call's attempt is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from unigpu.driver import Found, Identity, Resource, State, poll
from unigpu.errors import (
    ConflictError,
    DeadlineExceeded,
    DeployOutcomeUnknown,
    InvalidResponseError,
    ProviderUnavailableError,
    RateLimitError,
    TransportError,
    UniGPUError,
)

from ._pace import shielded, state_pace
from .consistency.lost_answer import Look, look_for
from .consistency.survey import ABSENT, ABSENT_PAUSE, VOLUME, Id, is_ending, is_listed
from .intents import Journal
from .scope import UNDO_SECONDS, Scope

_log = logging.getLogger("unigpu.lifecycle")

CREATE_TRIES: Final = 3
"""How often a create is tried in all when its answer is lost: repeating a PUT by name makes no second one, and where
only a list tells, it is looked for in between."""
_CREATE_SECONDS: Final = 120.0
_LOST_PAUSE: Final = 1.0
_LEAST_PAUSE: Final = 1.0


def command(scope: Scope) -> str:
    """What shows, and with ``--delete`` ends, what failed deploys of this machine left."""
    return f"python -m unigpu gc --provider {scope.provider}"


def may_have_acted(error: UniGPUError) -> bool:
    """Whether the platform may have done what was asked although this error came back."""
    if error.maybe_executed is not None:
        return error.maybe_executed
    return isinstance(error, TransportError | ProviderUnavailableError | InvalidResponseError | DeadlineExceeded)


class Ledger:
    """What this call created, in order, and what it may have created.

    Attributes:
        made: What it made, and is its own to undo.
        unsure: What it asked for, while there is no answer.
        lost: How many creates of a kind went without an answer, where only a list tells: each may act late.
        before: What carried the name before this call created anything.
        sent: Some create was sent where only a list tells: what it made, even twice, may appear late.
        owed: After `undo`: a create has no answer yet.
    """

    def __init__(self, scope: Scope, identity: Identity) -> None:
        self._scope = scope
        self._identity = identity
        self.journal: Journal | None = None
        self.made: list[tuple[Resource, Found]] = []
        self.unsure: Resource | None = None
        self.lost: dict[str, tuple[Resource, int]] = {}
        self.before: frozenset[Id] = frozenset()
        self.sent = False
        self.owed = False

    def is_mine(self, found: Found) -> bool:
        """Whether this call made it: it carries our attempt, or is what our create returned."""
        if found.attempt is not None:
            return found.attempt == self._identity.attempt
        return any(made.kind == found.kind and made.id == found.id for _, made in self.made)

    @property
    def is_empty(self) -> bool:
        return not self.made and self.unsure is None and not self.lost

    def release(self) -> None:
        """What was made belongs to a deployment that stays."""
        self.made.clear()
        self.unsure = None

    async def create(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Create one resource cold and record its id. After a lost answer it is looked for before it is tried again.

        Raises:
            ConflictError: somebody else has the name meanwhile: look again.
            DeployOutcomeUnknown: a platform that only lists lost the answer, and looking did not tell.
            StateError: it was created and could not be recorded (the caller undoes it).
        """
        io = self._scope.io
        for turn in range(CREATE_TRIES):
            try:
                return await self._admitted(resource, made, deadline=deadline)
            except UniGPUError as exc:
                if self.unsure is None:
                    raise
                if is_listed(resource):
                    seen = await self._settle(resource, exc, deadline=deadline)
                    if seen is None and turn + 1 == CREATE_TRIES:
                        raise self._unknown(resource) from exc
                else:
                    seen = await self._look(resource, deadline=deadline)
                    if seen is None:
                        if turn + 1 == CREATE_TRIES or io.now() >= deadline:
                            raise
                        await io.sleep(_LOST_PAUSE)
                if seen is not None and seen.attempt is None and resource.kind == VOLUME:
                    self.unsure = None
                    return seen  # whoever made it may have data on it: it is used, and never undone
                if seen is not None:
                    self.take(resource, seen)
                    return seen
        raise AssertionError("unreachable: the last turn returns or raises")

    async def _settle(self, resource: Resource, lost: UniGPUError, *, deadline: float) -> Found | None:
        """Ours, once the list shows it; ``None`` where the settle window passed without it.

        Raises:
            ConflictError: meanwhile the list shows another of the name: look again, and adopt it.
            DeployOutcomeUnknown: the list did not tell.
        """
        self.lost[resource.kind] = resource, self.lost.get(resource.kind, (resource, 0))[1] + 1
        look = await look_for(
            self._scope.io,
            resource,
            self._identity.attempt,
            before=frozenset(id_ for kind, id_ in self.before if kind == resource.kind),
            deadline=deadline,
        )
        if look.mine:  # it stays remembered as lost: what repeats a request on the way may have made it twice
            for one in reversed(look.mine[1:]):
                self.take(resource, one)
            return look.mine[0]
        if not look.settled:
            raise self._unknown(resource) from (look.error or lost)
        if resource.kind == VOLUME and look.others:
            self.lost.pop(resource.kind, None)
            return look.others[0]  # it belongs to no create: the one of its name will do
        if any(one.info is not None for one in look.others):
            self.unsure = None  # ours may still come: it is remembered as lost
            raise ConflictError(
                f"{look.others[0].name} was created by another call meanwhile",
                provider=self._scope.provider,
                deployment=self._identity.name,
                maybe_executed=False,
            )
        return None

    async def _admitted(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        """As `_span`; where the platform's rate is used up for longer than one span lasts, the wait is out here, where
        a cancellation cuts it, and as long as the whole deploy may take."""
        io = self._scope.io
        while True:
            try:
                return await self._span(resource, made, deadline=deadline)
            except RateLimitError as exc:
                pause = exc.retry_after
                if self.unsure is not None or pause is None or io.now() + pause >= deadline:
                    raise
                _log.info("%s: %s; waiting for it", self._identity.name, exc.message)
            await io.sleep(max(pause, _LEAST_PAUSE))

    async def _span(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        io = self._scope.io
        until = min(deadline, io.now() + _CREATE_SECONDS)
        out: list[Found] = []

        async def create_and_record() -> None:
            self.unsure, self.sent = resource, self.sent or is_listed(resource)
            try:
                found = await resource.create_cold(io, made, deadline=until)
            except UniGPUError as exc:
                if not may_have_acted(exc):
                    self.unsure = None
                raise
            if found.attempt is not None and found.attempt != self._identity.attempt:
                self.unsure = None
                raise ConflictError(
                    f"{found.name} was created by another call meanwhile",
                    provider=self._scope.provider,
                    deployment=self._identity.name,
                    maybe_executed=False,
                )
            self.take(resource, found)
            out.append(found)

        await shielded(io, create_and_record, seconds=max(1.0, until - io.now()) + 5.0)
        return out[0]

    def take(self, resource: Resource, found: Found) -> None:
        """It is this call's own: recorded, and undone if the call fails."""
        self.made.append((resource, found))  # first: where recording fails, it is undone
        self.unsure = None
        if self.journal is not None:
            self.journal.record(resource.kind, found.id)

    async def _look(self, resource: Resource, *, deadline: float) -> Found | None:
        """Ours, after a lost answer on an atomic platform; ``None`` where it is not there.

        Raises:
            ConflictError: the name is another call's.
        """
        there = await resource.find(self._scope.io, deadline=deadline)
        mine = [found for found in there if found.attempt == self._identity.attempt]
        if mine:
            return mine[0]
        if there:
            self.unsure = None  # one name, one thing: ours was not made
            raise ConflictError(
                f"{there[0].name} was created by another call meanwhile",
                provider=self._scope.provider,
                deployment=self._identity.name,
                maybe_executed=False,
            )
        return None

    def _unknown(self, resource: Resource) -> DeployOutcomeUnknown:
        return DeployOutcomeUnknown(
            f"the {resource.kind} of {self._identity.name} may have been created: the answer was lost, and it is not "
            "(yet) in the list",
            provider=self._scope.provider,
            deployment=self._identity.name,
            maybe_executed=True,
            may_bill=(f"{resource.kind} {self._identity.provider_name}",),
            hint=f"Deploy or tear down the same name again: both look for it first. {command(self._scope)} shows it, "
            "should it appear later.",
        )

    async def undo(self) -> tuple[Id, ...]:
        """Take back what this call made, last first. Returns what could not be taken back, as ``(kind, id)``.

        What an unanswered create may still bring is left to later looks, which the intent then owes (`owed`); where
        nothing is kept, it is waited for here.
        """
        scope = self._scope.for_cleanup()
        io = scope.io
        deadline = io.now() + UNDO_SECONDS
        leaked: list[Id] = []
        for resource, count in self._unanswered():
            try:
                mine = await self._late(scope, resource, deadline=deadline)
            except UniGPUError as exc:
                _log.warning("could not look for the %s of %s: %s", resource.kind, self._identity.name, exc)
                leaked.append((resource.kind, self._identity.provider_name))
                continue
            new = [one for one in mine.mine if not any((one.kind, one.id) == (m.kind, m.id) for _, m in self.made)]
            self.made.extend((resource, one) for one in new)
            if is_listed(resource) and len(new) < count:
                if scope.store is not None:
                    self.owed = True
                elif not mine.settled:
                    leaked.append((resource.kind, self._identity.provider_name))
        leaked.extend(await self.withdraw(deadline=deadline))
        return tuple(leaked)

    async def withdraw(self, *, deadline: float) -> tuple[Id, ...]:
        """Delete what this call made, last first. Returns what could not be deleted."""
        scope = self._scope.for_cleanup()
        leaked: list[Id] = []
        for resource, found in reversed(self.made):
            try:
                await ensure_absent(
                    scope, resource, found.id, attempt=self._identity.attempt, seen=None, deadline=deadline
                )
            except UniGPUError as exc:
                _log.warning("could not take back %s %s: %s", resource.kind, found.id, exc)
                leaked.append((resource.kind, found.id))
        self.made.clear()
        return tuple(leaked)

    def _unanswered(self) -> list[tuple[Resource, int]]:
        lost, unsure = dict(self.lost), self.unsure
        self.lost.clear()
        self.unsure = None
        if unsure is not None and unsure.kind not in lost:
            lost[unsure.kind] = unsure, 1
        return list(lost.values())

    async def _late(self, scope: Scope, resource: Resource, *, deadline: float) -> Look:
        """What there is of ours: looked at once, or through the settle window where no intent could remember it."""
        io = scope.io
        if is_listed(resource) and scope.store is None:
            return await look_for(io, resource, self._identity.attempt, before=frozenset(), deadline=deadline)
        seen = await resource.find(io, deadline=deadline)
        return Look(mine=[one for one in seen if one.attempt == self._identity.attempt])


async def ensure_absent(
    scope: Scope, resource: Resource, id_: str, *, attempt: str | None, seen: Found | None, deadline: float
) -> None:
    """Delete one resource and read that it is gone.

    Args:
        attempt: Delete only what carries this attempt (where the platform tells it): an id may be a name.
        seen: What a look just showed, so that it need not be read first.

    Raises:
        DeadlineExceeded: it is still there.
    """
    io = scope.for_cleanup().io
    first = [seen]

    async def listed() -> bool | None:
        found = first.pop() if first else None
        if found is None or not is_ending(found):  # its id is its own: it is deleted unread, as a read may lag, too
            try:
                await resource.delete(io, id_, deadline=deadline)
            except ConflictError as exc:
                _log.debug("%s %s cannot be deleted yet: %s", resource.kind, id_, exc)
                return None
        for turn in range(ABSENT):
            if turn:
                await io.sleep(ABSENT_PAUSE)
            found = await resource.read(io, id_, deadline=deadline)
            if found is not None and not _is_another(found, attempt):
                first.append(found)
                return None
        return True

    async def tick() -> bool | None:
        found = first.pop() if first else None
        if found is None:
            found = await resource.read(io, id_, deadline=deadline)
        if found is None or _is_another(found, attempt):
            return True
        if found.info is None or found.info.state is not State.DELETING:
            try:
                await resource.delete(io, id_, deadline=deadline)
            except ConflictError as exc:  # busy: it is asked again
                _log.debug("%s %s cannot be deleted yet: %s", resource.kind, id_, exc)
                return None
            found = await resource.read(io, id_, deadline=deadline)
        return True if found is None or _is_another(found, attempt) else None

    await poll(
        io,
        listed if is_listed(resource) else tick,
        deadline=deadline,
        pace=state_pace(scope.driver),
        what=f"the end of {resource.kind} {id_}",
        provider=scope.provider,
    )


def _is_another(found: Found, attempt: str | None) -> bool:
    return attempt is not None and found.attempt is not None and found.attempt != attempt
