"""A deploy that changes nothing: the decisions of `DeployRun`, with each change recorded instead of sent.

The platform's answer to a change is not known, so later steps get placeholders for ids, as in ``new-template``. Of a
step that sends several changes only the first one is recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import SecretStr

from unigpu._io.dry_run import LookingIo, Recorded, RecordingIo
from unigpu.driver import DeploymentInfo, DeploymentSpec, Found, Io, Pauses, Request, State, Updates, Wakes
from unigpu.errors import NotFoundError, UnsupportedError
from unigpu.models import BearerToken

from .attempt import Attempt
from .consistency.absence import is_ending, is_listed
from .consistency.duplicates import DuplicateCheck
from .consistency.survey import VOLUME, Survey, id_of
from .decide import LimitChange
from .deploy import DeployRun, with_limits_of
from .deploy_checks import DeployChecks
from .in_place import InPlaceChanges
from .intents import Intent
from .replace import Replacement
from .scope import Deployed, IfExists, Scope

HIDDEN = SecretStr("***")


@dataclass(frozen=True, kw_only=True)
class DryRunResult:
    """What a deploy would do.

    Attributes:
        deployed: The result it would have; ``info`` of a new deployment holds placeholders.
        requests: What it would send, in order. The requests hold the account's key: do not show them.
        fields: The stated spec fields that differ from what exists.
        existing: Kind and id of each resource that has the name now.
        replaced: The existing deployment would be torn down first.
        waking: Operations by which a wait may start a worker.
        spec_hash: The hash of the spec and its content.
    """

    deployed: Deployed
    requests: tuple[Request, ...]
    fields: tuple[str, ...]
    existing: tuple[tuple[str, str], ...]
    replaced: bool
    waking: frozenset[str]
    spec_hash: str


async def dry_run(scope: Scope, spec: DeploymentSpec, *, if_exists: IfExists, deadline: float) -> DryRunResult:
    """Run a deploy without sending any change.

    Raises:
        NameConflict: another deployment has the name.
        ConfigurationError: the spec leaves out a choice that a create needs.
    """
    driver = scope.driver
    reading = replace(scope, io=LookingIo(scope.io), secrets=hide_secrets)
    run = _DryRun(reading, spec, RecordingIo(scope.io), deadline=deadline)
    deployed = await run.deploy(if_exists)
    requests = tuple(run.changes.requests)
    waking: frozenset[str] = frozenset()
    warnings = tuple(dict.fromkeys((*deployed.warnings, *run.attempt.warnings)))
    if isinstance(driver, Wakes):
        await run.changes.record(lambda io: driver.wake(io, deployed.info, deadline=deadline))
        waking = frozenset(one.operation for one in run.changes.requests[len(requests) :])
    return DryRunResult(
        deployed=replace(deployed, warnings=warnings),
        requests=requests,
        fields=() if run.decision is None else run.decision.fields,
        existing=tuple(id_of(found) for _, found in run.attempt.seen.found),
        replaced=run.replacement.removed,
        waking=waking,
        spec_hash=run.attempt.hash,
    )


def hide_secrets(spec: DeploymentSpec) -> DeploymentSpec:
    """*spec* with its secrets hidden: their values are not needed to say what would be sent."""
    changed: dict[str, Any] = {}
    if spec.secrets:
        changed["secrets"] = {
            name: HIDDEN if value is None or isinstance(value, SecretStr) else value
            for name, value in spec.secrets.items()
        }
    if isinstance(spec.auth, BearerToken):
        changed["secrets"] = {**changed.get("secrets", {}), spec.auth.env: HIDDEN}
    if spec.registry is not None:
        changed["registry"] = spec.registry.model_copy(update={"password": HIDDEN})
    return spec.with_changes(**changed) if changed else spec


class _Changes:
    """What would be sent.

    Args:
        recorder: Raises `Recorded` instead of sending a change.
        warnings: The warnings of the deploy.
    """

    def __init__(self, recorder: Io, warnings: list[str]) -> None:
        self._recorder = recorder
        self.requests: list[Request] = []
        self.warnings = warnings

    async def record(self, act: Callable[[Io], Awaitable[object]]) -> None:
        """Run a step until its first change, and record that."""
        try:
            await act(self._recorder)
        except Recorded as recorded:
            self.requests.append(recorded.request)
        except UnsupportedError:  # the driver has this verb for other deployments only: nothing is sent
            return
        except NotFoundError:  # the step reads what does not exist yet, and what it sends depends on that
            self.warnings.append("more requests follow than are shown: they depend on the platform's answers")


class _DryRun(DeployRun):
    """`DeployRun`, whose parts record what they would change."""

    def __init__(self, scope: Scope, spec: DeploymentSpec, recorder: Io, *, deadline: float) -> None:
        super().__init__(scope, spec, deadline=deadline)
        self.changes = _Changes(recorder, self.attempt.warnings)
        self.checks = _NoChecks(self.attempt)
        self.replacement = _DryReplacement(self.attempt, self.changes)
        self.in_place = _DryInPlaceChanges(self.attempt, self.changes)

    async def complete(
        self, seen: Survey, main: Found | None = None, *, limits_of: DeploymentInfo | None = None
    ) -> Found:
        attempt, driver = self.attempt, self.scope.deployer
        made: dict[str, Found] = dict(seen.by_kind)
        resources = attempt.resources(spec := attempt.filled())
        if len(resources) > len(made):
            attempt.require_choices()
        for resource in resources:
            if resource.kind not in made:
                create = partial(resource.create_cold, made=dict(made), deadline=attempt.deadline)
                await self.changes.record(create)
                made[resource.kind] = Found(
                    kind=resource.kind,
                    id=f"new-{resource.kind}",
                    name=attempt.identity.provider_name,
                    attempt=attempt.identity.attempt,
                )
        called = next((one for one in reversed(made.values()) if one.info is not None), made[resources[-1].kind])
        info = called.info or self._placeholder(called.kind, made)
        spec = with_limits_of(spec, limits_of)
        await self.changes.record(lambda io: driver.warm(io, info, spec, deadline=attempt.deadline))
        return replace(called, info=info)

    def _placeholder(self, kind: str, made: Mapping[str, Found]) -> DeploymentInfo:
        """The deployment that does not exist yet."""
        attempt = self.attempt
        # Where a create is a PUT by name, the name is the id.
        by_name = any(one.kind == kind and not is_listed(one) for one in attempt.resources(attempt.spec))
        return DeploymentInfo(
            provider=self.scope.provider,
            name=attempt.spec.name,
            namespace=self.scope.namespace,
            provider_name=attempt.identity.provider_name,
            id=attempt.identity.provider_name if by_name else made[kind].id,
            ids={one: found.id for one, found in made.items()},
            state=State.CREATING,
            interface=attempt.spec.interface,
            kind=attempt.spec.kind,
            workers=None,
            attempt=attempt.identity.attempt,
            spec_hash=attempt.hash,
        )


class _NoChecks(DeployChecks):
    """Nothing was created, so nothing is checked."""

    async def check(self, main: Found | None) -> DuplicateCheck | None:
        return None


class _DryReplacement(Replacement):
    def __init__(self, attempt: Attempt, changes: _Changes) -> None:
        super().__init__(attempt)
        self._changes = changes

    async def remove(self, seen: Survey) -> Survey:
        self._attempt.require_choices()
        for resource, found in reversed(self._to_remove(seen)):
            await self._changes.record(partial(resource.delete, id=found.id, deadline=self._attempt.deadline))
        self.removed = True
        return Survey(by_kind={kind: found for kind, found in seen.by_kind.items() if kind == VOLUME})

    async def _wait_for_main(self, seen: Survey) -> Survey:
        """A deploy would wait for what is being deleted: it counts as gone."""
        ending = [found for _, found in seen.found if is_ending(found)]
        if not ending or (self._attempt.listed and seen.main not in ending):
            return seen
        name = self._attempt.spec.name
        self._changes.warnings.append(f"an earlier {name} is being deleted; the deploy waits until it is gone")
        return Survey()

    def _clear_ending(self, intents: Sequence[Intent]) -> None:
        """A dry run writes nothing."""


class _DryInPlaceChanges(InPlaceChanges):
    def __init__(self, attempt: Attempt, changes: _Changes) -> None:
        super().__init__(attempt)
        self._changes = changes

    async def update(self, main: Found, info: DeploymentInfo) -> DeploymentInfo:
        attempt, driver = self._attempt, self._attempt.scope.driver
        if not isinstance(driver, Updates):
            raise AssertionError("decided to update on a platform that cannot")
        attempt.require_choices()
        identity, spec = self._identity(main, info), attempt.filled()
        await self._changes.record(lambda io: driver.update(io, info, spec, identity, deadline=attempt.deadline))
        return info

    async def scale(self, info: DeploymentInfo, limits: LimitChange) -> DeploymentInfo:
        driver, deadline = self._attempt.scope.deployer, self._attempt.deadline
        asked: Mapping[str, Any] = {
            "workers": limits.workers, "idle_timeout": limits.idle_timeout, "scaling": limits.scaling
        }  # fmt: skip
        await self._changes.record(lambda io: driver.scale(io, info, **asked, deadline=deadline))
        return info

    async def start(self, info: DeploymentInfo) -> None:
        driver = self._attempt.scope.driver
        if not isinstance(driver, Pauses):
            raise AssertionError("decided to start on a platform that cannot")
        await self._changes.record(lambda io: driver.start(io, info, deadline=self._attempt.deadline))
        self._changes.warnings.append(f"{self._attempt.spec.name} is stopped; the deploy starts it")
