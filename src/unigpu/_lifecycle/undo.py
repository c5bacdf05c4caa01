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
    TransportError,
    UniGPUError,
)

from ._pace import shielded, state_pace
from ._scope import UNDO_SECONDS, Scope
from .intent import Journal

_log = logging.getLogger("unigpu.lifecycle")

CREATE_TRIES: Final = 3
"""How often an atomic create is tried in all when its answer is lost: repeating a PUT by name makes no second one."""
_CREATE_SECONDS: Final = 120.0
_LOST_PAUSE: Final = 1.0


def may_have_acted(error: UniGPUError) -> bool:
    """Whether the platform may have done what was asked although this error came back."""
    if error.maybe_executed is not None:
        return error.maybe_executed
    return isinstance(error, TransportError | ProviderUnavailableError | InvalidResponseError | DeadlineExceeded)


class Ledger:
    """What this call created, in order, and what it may have created."""

    def __init__(self, scope: Scope, identity: Identity) -> None:
        self._scope = scope
        self._identity = identity
        self.journal: Journal | None = None
        self.made: list[tuple[Resource, Found]] = []
        self.unsure: Resource | None = None

    def is_mine(self, found: Found) -> bool:
        """Whether this call made it: it carries our attempt, or is what our create returned."""
        if found.attempt is not None:
            return found.attempt == self._identity.attempt
        return any(made.kind == found.kind and made.id == found.id for _, made in self.made)

    @property
    def is_empty(self) -> bool:
        return not self.made and self.unsure is None

    def release(self) -> None:
        """What was made belongs to a deployment that stays."""
        self.made.clear()
        self.unsure = None

    async def create(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Create one resource cold and record its id.

        Raises:
            ConflictError: somebody else has the name meanwhile: look again.
            DeployOutcomeUnknown: a platform that only lists lost the answer, and the resource is not to be seen.
            StateError: it was created and could not be recorded (the caller undoes it).
        """
        io = self._scope.io
        for turn in range(CREATE_TRIES):
            try:
                return await self._span(resource, made, deadline=deadline)
            except UniGPUError as exc:
                if self.unsure is None:
                    raise
                seen = await self._look(resource, deadline=deadline)
                if seen is not None:
                    self._take(resource, seen)
                    return seen
                if resource.consistency.kind != "atomic":
                    raise self._unknown(resource) from exc
                if turn + 1 == CREATE_TRIES or io.now() >= deadline:
                    raise
                await io.sleep(_LOST_PAUSE)
        raise AssertionError("unreachable: the last turn returns or raises")

    async def _span(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        io = self._scope.io
        until = min(deadline, io.now() + _CREATE_SECONDS)
        out: list[Found] = []

        async def create_and_record() -> None:
            self.unsure = resource
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
            self._take(resource, found)
            out.append(found)

        await shielded(io, create_and_record, seconds=max(1.0, until - io.now()) + 5.0)
        return out[0]

    def _take(self, resource: Resource, found: Found) -> None:
        self.made.append((resource, found))  # first: where recording fails, it is undone
        self.unsure = None
        if self.journal is not None:
            self.journal.record(resource.kind, found.id)

    async def _look(self, resource: Resource, *, deadline: float) -> Found | None:
        """Ours, after a lost answer; ``None`` where it is not there.

        Raises:
            ConflictError: the name is another call's.
        """
        there = await resource.find(self._scope.io, deadline=deadline)
        mine = [found for found in there if found.attempt == self._identity.attempt]
        if mine:
            return mine[0]
        if there and resource.consistency.kind == "atomic":
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
            hint="Deploy or tear down the same name again: both look for it first.",
        )

    async def undo(self) -> tuple[tuple[str, str], ...]:
        """Take back what this call made, last first. Returns what could not be taken back, as ``(kind, id)``."""
        scope = self._scope.for_cleanup()
        io = scope.io
        deadline = io.now() + UNDO_SECONDS
        leaked: list[tuple[str, str]] = []
        if self.unsure is not None:
            resource, self.unsure = self.unsure, None
            try:
                seen = await resource.find(io, deadline=deadline)
            except UniGPUError as exc:
                _log.warning("could not look for the %s of %s: %s", resource.kind, self._identity.name, exc)
                leaked.append((resource.kind, self._identity.provider_name))
            else:
                mine = [found for found in seen if found.attempt == self._identity.attempt]
                self.made.extend((resource, found) for found in mine)
                if not mine and resource.consistency.kind != "atomic":
                    leaked.append((resource.kind, self._identity.provider_name))  # it may still appear
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
        tick,
        deadline=deadline,
        pace=state_pace(scope.driver),
        what=f"the end of {resource.kind} {id_}",
        provider=scope.provider,
    )


def _is_another(found: Found, attempt: str | None) -> bool:
    return attempt is not None and found.attempt is not None and found.attempt != attempt
