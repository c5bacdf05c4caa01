"""Changes of a deployment that keep it: an update in place, new limits, a start."""

from __future__ import annotations

from functools import partial

from unigpu.driver import Adaptation, CallDriver, DeploymentInfo, DeploymentSpec, Found, Identity, Updates
from unigpu.errors import UniGPUError

from .attempt import Attempt
from .consistency.absence import read
from .consistency.lost_answer import may_have_acted
from .decide import LimitChange
from .ready import start_once
from .scale import retry_while_busy, scale


class InPlaceChanges:
    """What one deploy changes of a deployment that exists."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def update(self, main: Found, info: DeploymentInfo) -> DeploymentInfo:
        """Change it to the spec. Its attempt, name and expiry stay: they belong to its create."""
        attempt, driver = self._attempt, self._attempt.scope.driver
        if not isinstance(driver, Updates):
            raise AssertionError("decided to update on a platform that cannot")
        scope = attempt.scope
        attempt.require_choices()
        identity, spec = self._identity(main, info), attempt.filled()
        change = partial(driver.update, scope.io, info, spec, identity, deadline=attempt.deadline)
        try:
            await retry_while_busy(scope, info, change, deadline=attempt.deadline, what=f"updating {spec.name}")
        except UniGPUError as exc:
            if not may_have_acted(exc):
                raise
            now = await driver.read(scope.io, info, deadline=attempt.deadline)  # the answer is lost: its state decides
            if now is None or now.spec_hash != attempt.hash:
                raise
            return now
        return await read(scope, info, deadline=attempt.deadline)

    async def scale(self, info: DeploymentInfo, limits: LimitChange) -> DeploymentInfo:
        """Set the limits that differ."""
        return await scale(
            self._attempt.scope,
            info,
            workers=limits.workers,
            idle_timeout=limits.idle_timeout,
            scaling=limits.scaling,
            deadline=self._attempt.deadline,
        )

    async def start(self, info: DeploymentInfo) -> None:
        """Start a stopped deployment."""
        self._attempt.warnings.append(f"{self._attempt.spec.name} was stopped; it was started again")
        await start_once(self._attempt.scope, info, deadline=self._attempt.deadline)

    def _identity(self, main: Found, info: DeploymentInfo) -> Identity:
        """The identity of the deployment that exists."""
        attempt = self._attempt
        return attempt.identity_with(main.attempt or info.attempt or attempt.identity.attempt, main.expires_at)


def can_update(driver: CallDriver, info: DeploymentInfo, fields: frozenset[str]) -> bool:
    """Whether the platform changes exactly these fields in place, for a deployment of this kind."""
    if not isinstance(driver, Updates) or info.kind not in driver.update_kinds:
        return False
    return driver.updatable(fields)


def downtime(spec: DeploymentSpec, fields: tuple[str, ...]) -> Adaptation:
    """What the user should know about a change that the platform does not make in place."""
    return Adaptation(
        field="if_exists",
        asked=f"a change of {', '.join(fields)}",
        got="torn down and created anew: downtime, and a new URL where the platform gives one",
        reason="the platform cannot change that in place",
    )
