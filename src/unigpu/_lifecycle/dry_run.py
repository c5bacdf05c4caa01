"""A deploy that changes nothing: the steps of `Run` over what exists, with each change noted instead of sent.

A platform's answer to a change is not known before it is made, so later steps get placeholders for ids, as in
``new-template``; and of a step that sends several changes only the first is noted.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pydantic import SecretStr

from unigpu._io.record import LookingIo, Recorded, RecordingIo
from unigpu.driver import DeploymentInfo, DeploymentSpec, Found, Io, Pauses, Request, State, Updates, Wakes
from unigpu.errors import NotFoundError, UnsupportedError
from unigpu.models import BearerToken

from .consistency.survey import VOLUME, Survey, without_volumes
from .decide import Decision, Limits
from .deploy import Run
from .intents import Intent
from .scope import Deployed, IfExists, Scope

HIDDEN = SecretStr("***")


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """What a deploy would do.

    Attributes:
        deployed: What it would come to; ``info`` of something new holds placeholders.
        requests: What would be sent, in order. They hold the account's key: not for showing.
        fields: The stated spec fields that differ from what exists.
        existing: Kind and id of what has the name now.
        replaced: What exists would be torn down first.
        waking: Operations by which a wait may start a worker.
        spec_hash: Of the spec and its content.
    """

    deployed: Deployed
    requests: tuple[Request, ...]
    fields: tuple[str, ...]
    existing: tuple[tuple[str, str], ...]
    replaced: bool
    waking: frozenset[str]
    spec_hash: str


async def rehearse(scope: Scope, spec: DeploymentSpec, *, if_exists: IfExists, deadline: float) -> Rehearsed:
    """Run a deploy without sending any change.

    Raises:
        NameConflict: the name is taken by something else.
        ConfigurationError: something must be said before it is created.
    """
    run = Rehearsal(replace(scope, io=LookingIo(scope.io)), spec, RecordingIo(scope.io), deadline=deadline)
    deployed = await run.deploy(if_exists)
    requests = tuple(run.requests)
    driver = scope.driver
    waking: frozenset[str] = frozenset()
    warnings = tuple(dict.fromkeys((*deployed.warnings, *run.warnings)))
    if isinstance(driver, Wakes):
        await run.note(lambda io: driver.wake(io, deployed.info, deadline=deadline))
        waking = frozenset(one.operation for one in run.requests[len(requests) :])
    return Rehearsed(
        deployed=replace(deployed, warnings=warnings),
        requests=requests,
        fields=run.fields,
        existing=run.existing,
        replaced=run.removed,
        waking=waking,
        spec_hash=run.hash,
    )


class Rehearsal(Run):
    """`Run`, whose every step that changes something notes it."""

    def __init__(self, scope: Scope, spec: DeploymentSpec, recorder: Io, *, deadline: float) -> None:
        super().__init__(scope, spec, deadline=deadline)
        self._recorder = recorder
        self.requests: list[Request] = []
        self.fields: tuple[str, ...] = ()
        self.existing: tuple[tuple[str, str], ...] = ()

    async def note(self, act: Callable[[Io], Awaitable[object]]) -> None:
        """Take a step as far as its first change, and note that."""
        try:
            await act(self._recorder)
        except Recorded as recorded:
            self.requests.append(recorded.request)
        except UnsupportedError:  # a verb that the driver has for others only: nothing is sent
            return
        except NotFoundError:  # it reads what is not made yet; what it sends then depends on that
            self.warnings.append("more is sent than is shown: it depends on what the platform answers")

    def begin(self, main: Found | None) -> None:
        """No intent: nothing will be there to recover."""

    def filled(self) -> DeploymentSpec:
        """The spec with its secrets hidden: no value is needed to say what would be sent."""
        spec = self.spec
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

    async def survey(self, spec: DeploymentSpec) -> Survey:
        seen = await super().survey(spec)
        self.existing = tuple((found.kind, found.id) for _, found in seen.found)
        return seen

    async def look(self, main: Found | None) -> None:
        """Looks are owed by what was created, and nothing is."""

    def _decide(self, main: Found, info: DeploymentInfo, if_exists: IfExists) -> Decision:
        decision = super()._decide(main, info, if_exists)
        self.fields = decision.fields
        return decision

    def _ends_seen(self, intents: Sequence[Intent]) -> None:
        """A plan writes nothing."""

    async def _start(self, info: DeploymentInfo) -> None:
        driver = self.scope.driver
        if not isinstance(driver, Pauses):
            raise AssertionError("decided to start on a platform that cannot")
        await self.note(lambda io: driver.start(io, info, deadline=self.deadline))
        self.warnings.append(f"{self.spec.name} is stopped; it is started")

    async def _create(self, seen: Survey) -> Deployed:
        return self.deployed(await self._complete(seen, None), "created")

    async def _complete(
        self, seen: Survey, main: Found | None, *, limits_of: DeploymentInfo | None = None
    ) -> DeploymentInfo:
        made: dict[str, Found] = dict(seen.by_kind)
        resources = self.resources(spec := self.filled())
        if len(resources) > len(made):
            self.must_be_said()
        for resource in resources:
            if resource.kind not in made:
                await self.note(partial(resource.create_cold, made=dict(made), deadline=self.deadline))
                made[resource.kind] = self._placeholder(resource.kind)
        info = next((one.info for one in reversed(made.values()) if one.info is not None), None)
        info = info or self._info(resources[-1].kind, made)
        if limits_of is not None and limits_of.workers is not None and "workers" not in spec.stated:
            spec = spec.with_changes(workers=limits_of.workers)
        driver = self.scope.driver
        await self.note(lambda io: driver.warm(io, info, spec, deadline=self.deadline))
        return info

    async def _remove(self, seen: Survey) -> Survey:
        self.must_be_said()
        for resource, found in reversed(without_volumes(self._belongings(seen) if self.listed else seen.found)):
            await self.note(partial(resource.delete, id=found.id, deadline=self.deadline))
        self.removed = True
        kept = {kind: found for kind, found in seen.by_kind.items() if kind == VOLUME}
        return Survey(by_kind=kept)

    async def _update_in_place(self, main: Found, info: DeploymentInfo) -> DeploymentInfo:
        driver = self.scope.driver
        if not isinstance(driver, Updates):
            raise AssertionError("decided to update on a platform that cannot")
        self.must_be_said()
        identity = self.identity_with(main.attempt or info.attempt or self.identity.attempt, main.expires_at)
        spec = self.filled()
        await self.note(lambda io: driver.update(io, info, spec, identity, deadline=self.deadline))
        return info

    async def _scale(self, info: DeploymentInfo, limits: Limits) -> DeploymentInfo:
        driver = self.scope.driver
        asked: Mapping[str, Any] = {
            "workers": limits.workers, "idle_timeout": limits.idle_timeout, "scaling": limits.scaling
        }  # fmt: skip
        await self.note(lambda io: driver.scale(io, info, **asked, deadline=self.deadline))
        return info

    async def _wait_for_end(self, seen: Survey) -> Survey:
        """What is being deleted would be waited for; it is as good as gone."""
        ending = [found for _, found in seen.found if found.info is not None and _ends(found.info)]
        if not ending or (self.listed and seen.main not in ending):
            return seen
        self.warnings.append(f"an earlier {self.spec.name} is being deleted; its end is waited for")
        return Survey()

    def _placeholder(self, kind: str) -> Found:
        return Found(kind=kind, id=f"new-{kind}", name=self.identity.provider_name, attempt=self.identity.attempt)

    def _info(self, kind: str, made: Mapping[str, Found]) -> DeploymentInfo:
        spec: DeploymentSpec = self.spec
        local = self.scope.driver.resources(spec, self.identity)
        one: Sequence[Any] = [r for r in local if r.kind == kind and getattr(r, "id", None)]
        return DeploymentInfo(
            provider=self.scope.provider,
            name=spec.name,
            namespace=self.scope.namespace,
            provider_name=self.identity.provider_name,
            id=str(one[0].id) if one else made[kind].id,
            ids={k: f.id for k, f in made.items()},
            state=State.CREATING,
            interface=spec.interface,
            kind=spec.kind,
            workers=None,
            attempt=self.identity.attempt,
            spec_hash=self.hash,
        )


def _ends(info: DeploymentInfo) -> bool:
    return info.state in (State.DELETING, State.GONE)
