"""When "not found" is believed, and how a resource is deleted until it is gone.

Reads and lists of a platform that only lists are late, and they flap. So one "not found" proves nothing there: several
reads in a row must agree. On an atomic platform one read is the truth.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from unigpu.driver import DeployDriver, DeploymentInfo, Found, Io, Resource, State, poll
from unigpu.errors import ConflictError, DeploymentGone

from ..scope import Scope

_log = logging.getLogger("unigpu.lifecycle")

ABSENT_READS: Final = 3
"""Reads in a row that must show nothing before a platform that only lists is believed."""
ABSENT_PAUSE: Final = 0.3
"""Seconds between these reads."""


def is_listed(resource: Resource) -> bool:
    """Whether the platform finds it by listing only, and late."""
    return resource.consistency.kind == "listed"


def any_listed(resources: Iterable[Resource]) -> bool:
    """Whether the platform finds any of *resources* by listing only."""
    return any(is_listed(resource) for resource in resources)


def is_ending(found: Found) -> bool:
    """Whether the platform is deleting it, or has deleted it and still shows it."""
    return found.info is not None and found.info.state in (State.DELETING, State.GONE)


async def confirmed(scope: Scope, resource: Resource, id_: str, *, deadline: float) -> Found | None:
    """The resource, read by its id; ``None`` only where several reads in a row agree that it is gone."""
    for turn in range(ABSENT_READS):
        if turn:
            await scope.io.sleep(ABSENT_PAUSE)
        now = await resource.read(scope.io, id_, deadline=deadline)
        if now is not None:
            return now
    return None


def reads_to_believe(scope: Scope, info: DeploymentInfo) -> int:
    """How many reads in a row must say "not found" before the deployment is gone."""
    driver = scope.driver
    return ABSENT_READS if not isinstance(driver, DeployDriver) or any_listed(driver.parts(info)) else 1


async def read(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """The deployment now.

    Raises:
        DeploymentGone: it does not exist any more.
    """
    for turn in range(reads_to_believe(scope, info)):
        if turn:
            await scope.io.sleep(ABSENT_PAUSE)
        now = await scope.driver.read(scope.io, info, deadline=deadline)
        if now is not None:
            if now.state is State.GONE:
                break
            return now
    raise gone(scope, info)


def gone(scope: Scope, info: DeploymentInfo) -> DeploymentGone:
    """The error for a deployment that was deleted."""
    return DeploymentGone(
        f"{info.name or info.provider_name} on {scope.provider} does not exist any more",
        provider=scope.provider,
        deployment=info.name,
        maybe_executed=False,
        hint="Deploy it again.",
    )


async def ensure_absent(
    scope: Scope, resource: Resource, id_: str, *, attempt: str | None, seen: Found | None, deadline: float
) -> None:
    """Delete one resource, and read until it is gone.

    Args:
        attempt: Delete only what carries this attempt (where the platform shows one): an id may be a name.
        seen: What a list or a read just showed, so that the first step need not read it again.

    Raises:
        DeadlineExceeded: the resource still exists.
    """
    deletion = _Deletion(scope.for_cleanup().io, resource, id_, attempt=attempt, seen=seen, deadline=deadline)
    await poll(
        deletion.io,
        deletion.step_listed if is_listed(resource) else deletion.step_atomic,
        deadline=deadline,
        pace=scope.driver.state_pace,
        what=f"the end of {resource.kind} {id_}",
        provider=scope.provider,
    )


class _Deletion:
    """One resource that is being deleted. A step returns ``True`` once the resource is gone."""

    def __init__(
        self, io: Io, resource: Resource, id_: str, *, attempt: str | None, seen: Found | None, deadline: float
    ) -> None:
        self.io = io
        self._resource = resource
        self._id = id_
        self._attempt = attempt
        self._seen = seen
        self._deadline = deadline

    async def step_listed(self) -> bool | None:
        # The id is the resource's own, so it is deleted without a read: a read may be late, too.
        seen = self._take_seen()
        if (seen is None or not is_ending(seen)) and not await self._delete():
            return None
        for turn in range(ABSENT_READS):
            if turn:
                await self.io.sleep(ABSENT_PAUSE)
            found = await self._read()
            if found is not None:
                self._seen = found
                return None
        return True

    async def step_atomic(self) -> bool | None:
        found = self._take_seen() or await self._read()
        if found is None or self._is_another(found):
            return True
        if found.info is None or found.info.state is not State.DELETING:
            if not await self._delete():
                return None
            found = await self._read()
        return True if found is None else None

    def _take_seen(self) -> Found | None:
        seen, self._seen = self._seen, None
        return seen

    async def _read(self) -> Found | None:
        """The resource; ``None`` where it is gone, or its name belongs to another create."""
        found = await self._resource.read(self.io, self._id, deadline=self._deadline)
        return None if found is None or self._is_another(found) else found

    async def _delete(self) -> bool:
        """Delete it; ``False`` where the platform is busy with it, and must be asked again."""
        try:
            await self._resource.delete(self.io, self._id, deadline=self._deadline)
        except ConflictError as exc:
            _log.debug("%s %s cannot be deleted yet: %s", self._resource.kind, self._id, exc)
            return False
        return True

    def _is_another(self, found: Found) -> bool:
        return self._attempt is not None and found.attempt is not None and found.attempt != self._attempt
