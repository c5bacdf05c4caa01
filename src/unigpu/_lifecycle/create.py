"""The one place that creates what is paid for: `CreatedResources.create`.

A create and the record of its id are one span that no cancellation interrupts. So an id is either recorded, or the
intent says that a create was sent. `undo` deletes what this module has recorded, and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

from unigpu.driver import Found, Identity, Resource
from unigpu.errors import ConflictError, DeployOutcomeUnknown, RateLimitError, UniGPUError

from .consistency.absence import is_listed
from .consistency.lost_answer import check_lost_create, may_have_acted
from .consistency.survey import VOLUME, Id
from .intents import IntentWriter
from .scope import Scope

_log = logging.getLogger("unigpu.lifecycle")

CREATE_TRIES: Final = 3
"""How often a create is sent in total when its answer is lost. A repeated PUT by name creates no second resource; where
the platform only lists, the list is read in between."""
_CREATE_SECONDS: Final = 120.0
_RECORD_SECONDS: Final = 5.0
"""How long the span may go on after the create's own deadline, to record the id."""
_LOST_PAUSE: Final = 1.0
_RATE_LIMIT_PAUSE: Final = 1.0


def gc_command(scope: Scope) -> str:
    """The command that lists what failed deploys of this machine left, and with ``--delete`` deletes it."""
    return f"python -m unigpu gc --provider {scope.provider}"


class CreatedResources:
    """What one call created, in order, and what it may have created.

    Attributes:
        made: The resources that this call created, and has to delete if it fails.
        unsure: The resource whose create has no answer yet.
        lost: How many creates of a kind got no answer, where the platform only lists: each may act late.
        before: What carried the name before this call created anything.
        sent: A create was sent to a platform that only lists: its resource, or a second one, may appear late.
        whole: Every part of the deployment exists.
        writer: The intent that records each id.
    """

    def __init__(self, scope: Scope, identity: Identity) -> None:
        self.scope = scope
        self.identity = identity
        self.writer: IntentWriter | None = None
        self.made: list[tuple[Resource, Found]] = []
        self.unsure: Resource | None = None
        self.lost: dict[str, tuple[Resource, int]] = {}
        self.before: frozenset[Id] = frozenset()
        self.sent = False
        self.whole = False

    def is_mine(self, found: Found) -> bool:
        """Whether this call created it: it carries our attempt, or our create returned its id."""
        if found.attempt is not None:
            return found.attempt == self.identity.attempt
        return any(made.kind == found.kind and made.id == found.id for _, made in self.made)

    @property
    def is_empty(self) -> bool:
        return not self.made and self.unsure is None and not self.lost

    def release(self) -> None:
        """The resources belong to a deployment that stays: this call does not undo them any more."""
        self.made.clear()
        self.unsure = None

    def add(self, resource: Resource, found: Found) -> None:
        """Record a resource of this call. The call deletes it if it fails."""
        self.made.append((resource, found))  # first: if the record fails, the resource is undone
        self.unsure = None
        if self.writer is not None:
            self.writer.record(resource.kind, found.id)

    async def create(self, resource: Resource, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Create one resource without workers, and record its id. After a lost answer, search before a second try.

        Where the platform's rate limit is used up, the wait is outside of the span, so a cancellation ends it.

        Raises:
            ConflictError: another call took the name meanwhile: survey again.
            DeployOutcomeUnknown: a platform that only lists lost the answer, and its list does not settle it.
            StateError: the resource exists and could not be recorded. The caller undoes it.
        """
        io, listed = self.scope.io, is_listed(resource)
        lost = 0
        while True:
            until = min(deadline, io.now() + _CREATE_SECONDS)
            span = partial(self._span, resource, made, until)
            try:
                return await io.shield(span, seconds=max(1.0, until - io.now()) + _RECORD_SECONDS)
            except UniGPUError as exc:
                if self.unsure is None:
                    pause = exc.retry_after if isinstance(exc, RateLimitError) else None
                    if pause is None or io.now() + pause >= deadline:
                        raise
                    _log.info("%s: %s; waiting for it", self.identity.name, exc.message)
                    pause = max(pause, _RATE_LIMIT_PAUSE)
                else:
                    lost += 1
                    found = await self._search(resource, exc, deadline=deadline)
                    if found is not None:
                        return found
                    if listed and lost == CREATE_TRIES:
                        raise self._unknown(resource) from exc
                    if not listed and (lost == CREATE_TRIES or io.now() >= deadline):
                        raise
                    pause = 0.0 if listed else _LOST_PAUSE
            if pause:
                await io.sleep(pause)

    async def _span(self, resource: Resource, made: Mapping[str, Found], until: float) -> Found:
        """Create and record. It runs shielded: nothing comes between the two."""
        self.unsure, self.sent = resource, self.sent or is_listed(resource)
        try:
            found = await resource.create_cold(self.scope.io, made, deadline=until)
        except UniGPUError as exc:
            if not may_have_acted(exc):
                self.unsure = None
            raise
        if found.attempt is not None and found.attempt != self.identity.attempt:
            self.unsure = None
            raise self._taken(found)
        self.add(resource, found)
        return found

    async def _search(self, resource: Resource, lost: UniGPUError, *, deadline: float) -> Found | None:
        """What a create without an answer made, recorded; ``None`` where it made nothing.

        Raises:
            ConflictError: the name belongs to another call.
            DeployOutcomeUnknown: the list does not settle it.
        """
        if is_listed(resource):
            found = await self._search_list(resource, lost, deadline=deadline)
        else:
            found = await self._search_name(resource, deadline=deadline)
        if found is None:
            return None
        if found.attempt is None and resource.kind == VOLUME:
            self.unsure = None  # it may hold a user's data: it is used, and never undone
        else:
            self.add(resource, found)
        return found

    async def _search_list(self, resource: Resource, lost: UniGPUError, *, deadline: float) -> Found | None:
        """Our resource, once the list shows it; ``None`` where the settle window passed without it."""
        self.lost[resource.kind] = resource, self.lost.get(resource.kind, (resource, 0))[1] + 1
        check = await check_lost_create(
            self.scope.io,
            resource,
            self.identity.attempt,
            before=frozenset(id_ for kind, id_ in self.before if kind == resource.kind),
            deadline=deadline,
        )
        if check.mine:  # it stays in `lost`: a proxy that repeats requests may have created it twice
            for one in reversed(check.mine[1:]):
                self.add(resource, one)
            return check.mine[0]
        if not check.settled:
            raise self._unknown(resource) from (check.error or lost)
        if resource.kind == VOLUME and check.others:
            self.lost.pop(resource.kind, None)
            return check.others[0]  # a volume belongs to no create: any one of its name will do
        if any(one.info is not None for one in check.others):
            self.unsure = None  # ours may still appear: it stays in `lost`
            raise self._taken(check.others[0])
        return None

    async def _search_name(self, resource: Resource, *, deadline: float) -> Found | None:
        """Our resource on an atomic platform; ``None`` where the name is free."""
        there = await resource.find(self.scope.io, deadline=deadline)
        mine = [found for found in there if found.attempt == self.identity.attempt]
        if mine:
            return mine[0]
        if there:
            self.unsure = None  # the name is taken, so our create did nothing
            raise self._taken(there[0])
        return None

    def _taken(self, found: Found) -> ConflictError:
        return ConflictError(
            f"{found.name} was created by another call meanwhile",
            provider=self.scope.provider,
            deployment=self.identity.name,
            maybe_executed=False,
        )

    def _unknown(self, resource: Resource) -> DeployOutcomeUnknown:
        return DeployOutcomeUnknown(
            f"the {resource.kind} of {self.identity.name} may have been created: the answer was lost, and the list "
            "does not show it (yet)",
            provider=self.scope.provider,
            deployment=self.identity.name,
            maybe_executed=True,
            may_bill=(f"{resource.kind} {self.identity.provider_name}",),
            hint="Deploy or tear down the same name again: both search for it first. "
            f"{gc_command(self.scope)} shows it if it appears later.",
        )
