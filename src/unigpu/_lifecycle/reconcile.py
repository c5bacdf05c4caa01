"""Deploy and update, for every provider: find, decide, record the intent, create cold, warm, wait, commit, or undo.

The truth is the platform, found by name; the intent is only a crash log. One deploy of a name runs at a time on one
machine (the name's lock); between machines the platform's create decides, and the loser looks again.
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from unigpu.driver import (
    Adaptation,
    Content,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Pauses,
    Resource,
    State,
    Updates,
    provider_name,
)
from unigpu.errors import ConfigurationError, ConflictError, DeadlineExceeded, NameConflict, StateError, UniGPUError
from unigpu.models import Change

from . import control
from ._scope import Deployed, IfExists, OnFailure, Scope, Wait
from .decide import Decision, Limits, decide, limits_to_change
from .failure import on_error
from .identity import CODE, compared, differing, identity_of, new_attempt, spec_hash
from .intent import Intent, Journal, key_of
from .ready import gone, start_once, wait_ready
from .teardown import Survey, remove, survey
from .undo import Ledger, ensure_absent, may_have_acted

_log = logging.getLogger("unigpu.lifecycle")

EPHEMERAL_TTL: Final = 3600.0
_SUFFIX: Final = 8
_ROUNDS: Final = 6
"""How often one deploy looks again because another one was faster."""
_PAUSE: Final = 0.2


async def deploy(
    scope: Scope,
    spec: DeploymentSpec,
    *,
    if_exists: IfExists,
    wait: Wait,
    deadline: float,
    on_failure: OnFailure,
    settle: bool,
    ephemeral: bool = False,
) -> Deployed:
    """Make a deployment of this name and spec be there, once, whatever happens on the way.

    Args:
        ephemeral: Add a random suffix to the name, never adopt, and end after an hour unless a ttl is stated.
        settle: Pay every look that is owed before returning; an atomic platform owes none.

    Raises:
        NameConflict: the name is taken by something else.
        StateError: the intent cannot be kept; nothing was created.
        WorkerFailed: a worker cannot start; what this call created was torn down (``on_failure="keep"``: left).
        DeadlineExceeded: past the last create what exists is kept, before it everything is undone.
        PartialDeployError: it failed, and undoing failed too: what is left, and how to end it.
    """
    if ephemeral:
        spec, if_exists = ephemeral_spec(spec), "error"
    run = _Run(scope, spec, deadline=deadline)
    lock = None
    if scope.store is not None:
        lock = await scope.store.lock(scope.io, run.key, deadline=deadline, what=f"deploying {spec.name}")
    try:
        try:
            deployed = await run.deploy(if_exists)
            deployed = run.commit(await run.finish(deployed, wait))
            await scope.io.sleep(0)  # a cancellation that came after the last call still finds somebody to undo
        except GeneratorExit:
            raise  # nothing can be awaited any more; the intent stays, and the next deploy of the name settles it
        except BaseException as exc:
            await run.failed(exc, keep=on_failure == "keep")
            raise
    finally:
        if lock is not None:
            lock.release()
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


async def update(
    scope: Scope,
    info: DeploymentInfo,
    spec: DeploymentSpec,
    *,
    changed: frozenset[str],
    wait: Wait,
    deadline: float,
) -> Deployed:
    """Change an existing deployment to *spec*: ``replace`` on a handle.

    Args:
        changed: The fields that the caller named; they are sent even where nothing seems to differ (secrets).

    Raises:
        DeploymentGone: it does not exist any more.
        As `deploy`.
    """
    run = _Run(scope, spec, deadline=deadline)
    lock = None
    if scope.store is not None:
        lock = await scope.store.lock(scope.io, run.key, deadline=deadline, what=f"updating {spec.name}")
    try:
        try:
            deployed = await run.update(info, changed)
            deployed = run.commit(await run.finish(deployed, wait))
            await scope.io.sleep(0)  # a cancellation that came after the last call still finds somebody to undo
        except GeneratorExit:
            raise
        except BaseException as exc:
            await run.failed(exc, keep=False)
            raise
    finally:
        if lock is not None:
            lock.release()
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


def ephemeral_spec(spec: DeploymentSpec) -> DeploymentSpec:
    """*spec* under a name of its own, with an end.

    Raises:
        ConfigurationError: the base name is too long.
    """
    room = 63 - _SUFFIX - 1
    if len(spec.name) > room:
        raise ConfigurationError(
            f"name: with ephemeral=True a name has at most {room} characters ({_SUFFIX} random ones are added)"
        )
    ttl = spec.ttl if "ttl" in spec.stated else EPHEMERAL_TTL
    return spec.with_changes(name=f"{spec.name}-{secrets.token_hex(_SUFFIX // 2)}", ttl=ttl)


@dataclass
class _Steps:
    """What a run has come to know on its way to `Deployed`."""

    adaptations: list[Adaptation] = field(default_factory=list[Adaptation])
    warnings: list[str] = field(default_factory=list[str])


class _Run:
    """One deploy or update call. The name's lock is held by the caller."""

    def __init__(self, scope: Scope, spec: DeploymentSpec, *, deadline: float) -> None:
        self.scope = scope
        self.spec = spec
        self.deadline = deadline
        self.content: Content = scope.driver.content(spec)
        self.hash = spec_hash(spec, self.content, provider=scope.provider)
        self.identity = self._identity(new_attempt(), self._expiry())
        self.key = key_of(scope.provider, scope.base, provider_name(scope.namespace, spec.name))
        self.journal: Journal | None = None
        self.ledger = Ledger(scope, self.identity)
        self.info: DeploymentInfo | None = None
        self.whole = False
        self.inherited = False
        self.removed = False
        self.steps = _Steps(warnings=list(self.content.notes))

    # -- deploy ---------------------------------------------------------------------------------------------------

    async def deploy(self, if_exists: IfExists) -> Deployed:
        """Find, decide and act; look again where another deploy was faster."""
        for turn in range(_ROUNDS):
            seen = await self._survey(self.spec)
            try:
                return await self._act(seen, if_exists)
            except ConflictError as exc:
                if turn + 1 == _ROUNDS:
                    raise
                _log.info("%s: changed by another call meanwhile, looking again (%s)", self.spec.name, exc)
            self._check_time()
            await self.scope.io.sleep(_PAUSE * (1 + self.scope.io.random()))
        raise AssertionError("unreachable: the last round returns or raises")

    async def _act(self, seen: Survey, if_exists: IfExists) -> Deployed:
        seen = await self._wait_for_end(seen)
        main, info = seen.main, seen.info
        stale = self._unfinished()
        if main is None or info is None:
            return await self._create(await self._clear_half(seen))
        if self.ledger.is_mine(main):  # an earlier round's create of this very call
            return await self._create(seen)
        if main.expires_at is not None and main.expires_at <= self.scope.io.wall():
            self.steps.warnings.append(f"{self.spec.name} had expired; it was torn down and created anew")
            return await self._create(await self._remove(seen))
        debris = _is_debris(main, stale)
        try:
            decision = self._decide(main, info, if_exists)
        except NameConflict:
            if not debris:
                raise
            # What a crashed deploy of this machine left was never handed to anybody: nothing is lost by ending it.
            return await self._create(await self._remove(seen))
        if decision.action == "recreate":
            self.steps.adaptations.append(_downtime(self.spec, decision.fields))
            return await self._create(await self._remove(seen))
        return await self._use(seen, main, info, decision, debris=debris)

    async def _use(
        self, seen: Survey, main: Found, info: DeploymentInfo, decision: Decision, *, debris: bool
    ) -> Deployed:
        """Adopt what exists; complete, update and scale it as decided. It is not ours to undo."""
        scope, change = self.scope, _adopted()
        self.ledger.release()  # a part that an earlier round made belongs to this one now
        self.info = info
        self.steps.warnings.extend(decision.warnings)
        missing = len(seen.by_kind) < len(self._resources(self.spec))
        if missing or debris:  # a deploy that stopped half way is finished: each step is harmless to repeat
            info = await self._complete(seen, main)
        if decision.action == "update":
            info = await self._update_in_place(main, info)
            change = "updated"
        if decision.limits and not (missing or debris):
            info = await self._scale(info, decision.limits)
            change = change if change == "updated" else "scaled"
        if info.state is State.STOPPED and isinstance(scope.driver, Pauses):
            self.steps.warnings.append(f"{self.spec.name} was stopped; it was started again")
            await start_once(scope, info, deadline=self.deadline)
        self.ledger.release()
        return self._deployed(info, change)

    async def _create(self, seen: Survey) -> Deployed:
        """Create what *seen* lacks, cold and recorded, and then set the limits."""
        info = await self._complete(seen, None)
        mine = self.ledger.is_mine(_main_of(seen, self.ledger))
        return self._deployed(info, "created" if mine else "adopted")

    async def _complete(self, seen: Survey, main: Found | None) -> DeploymentInfo:
        """Create each part that is absent, in order, then warm the whole."""
        scope = self.scope
        made: dict[str, Found] = dict(seen.by_kind)
        self._begin(main)
        spec = self._filled()
        resources = self._resources(spec)
        for resource in resources:
            if resource.kind in made:
                continue
            self._check_time()
            made[resource.kind] = await self.ledger.create(resource, dict(made), deadline=self.deadline)
        if len(resources) > 1 and len(seen.by_kind) < len(resources):
            await self._check_whole(len(resources))
        info = _info_of(made)
        if info is None:
            raise AssertionError(f"{scope.provider}: no resource of a deployment shows it (Found.info)")
        self.info, self.whole = info, True
        await scope.driver.warm(scope.io, info, spec, deadline=self.deadline)
        return info

    async def _check_whole(self, parts: int) -> None:
        """A teardown of the same name may have taken earlier parts while later ones were made: look again then."""
        if len((await self._survey(self.spec)).by_kind) < parts:
            raise ConflictError(
                f"parts of {self.spec.name} were deleted while it was deployed",
                provider=self.scope.provider,
                deployment=self.spec.name,
            )

    async def _clear_half(self, seen: Survey) -> Survey:
        """Parts without the one that is called: kept where they are of this spec, else ended."""
        if not seen.found:
            return seen
        if all(found.spec_hash in (None, self.hash) for _, found in seen.found):
            return seen
        return await self._remove(seen)

    async def _remove(self, seen: Survey) -> Survey:
        """End what exists, verified, before something else takes its name."""
        self._begin(None)
        resources = self._resources(self.spec)
        await remove(self.scope, resources, seen, name=self.spec.name, deadline=self.deadline)
        self.removed = True
        return await self._survey(self.spec)

    # -- update ---------------------------------------------------------------------------------------------------

    async def update(self, info: DeploymentInfo, changed: frozenset[str]) -> Deployed:
        """Bring an existing deployment to the spec: in place where the platform can, else anew."""
        seen = await self._survey(self.spec)
        main, now = seen.main, seen.info
        if main is None or now is None or (None not in (info.attempt, main.attempt) and info.attempt != main.attempt):
            raise gone(self.scope, info)
        self.info = now
        stated = compared(self.spec, self.content, provider=self.scope.provider)
        differs = set(differing(main.spec_hash or self._known_hash(main), self.hash, stated) or ())
        fields = frozenset((changed & stated) | (differs & {CODE}) | (differs & changed))
        limits = limits_to_change(now, self.spec)
        driver = self.scope.driver
        if not fields:
            if limits:
                return self._deployed(await self._scale(now, limits), "scaled")
            return self._deployed(now, "adopted")
        if isinstance(driver, Updates) and driver.updatable(fields):
            now = await self._update_in_place(main, now)
            if limits:
                now = await self._scale(now, limits)
            return self._deployed(now, "updated")
        self.steps.adaptations.append(_downtime(self.spec, tuple(sorted(fields))))
        return await self._create(await self._remove(seen))

    async def _update_in_place(self, main: Found, info: DeploymentInfo) -> DeploymentInfo:
        scope, driver = self.scope, self.scope.driver
        if not isinstance(driver, Updates):
            raise AssertionError("decided to update on a platform that cannot")
        # The attempt, the name and the end never change: they belong to the create.
        identity = self._identity(main.attempt or info.attempt or self.identity.attempt, main.expires_at)
        spec = self._filled()

        async def act() -> None:
            await driver.update(scope.io, info, spec, identity, deadline=self.deadline)

        try:
            await control.settled(scope, info, act, deadline=self.deadline, what=f"updating {self.spec.name}")
        except UniGPUError as exc:
            if not may_have_acted(exc):
                raise
            now = await driver.read(scope.io, info, deadline=self.deadline)  # the answer is lost: what is so decides
            if now is None or now.spec_hash != self.hash:
                raise
            return now
        now = await driver.read(scope.io, info, deadline=self.deadline)
        if now is None:
            raise gone(scope, info)
        return now

    # -- steps ----------------------------------------------------------------------------------------------------

    async def finish(self, deployed: Deployed, wait: Wait) -> Deployed:
        """Wait as asked, and read what is so."""
        scope = self.scope
        if wait is False:
            now = await scope.driver.read(scope.io, deployed.info, deadline=self.deadline)
            if now is None:
                raise gone(scope, deployed.info)
            info = now
        else:
            worker = wait == "worker"
            info = await wait_ready(scope, deployed.info, wake=worker, need_worker=worker, deadline=self.deadline)
        self.info = info
        return Deployed(
            info=info,
            change=deployed.change,
            adaptations=deployed.adaptations,
            spec=deployed.spec,
            warnings=deployed.warnings,
        )

    async def failed(self, exc: BaseException, *, keep: bool) -> None:
        """Undo or keep what this call made; the caller raises *exc* again."""
        if self.removed and isinstance(exc, UniGPUError):
            exc.hint = f"{exc.hint or ''} The one that existed before was already torn down.".strip()
        await on_error(
            self.scope,
            exc,
            self.ledger,
            None if self.inherited and self.ledger.is_empty else self.journal,
            spec=self.spec,
            info=self.info,
            whole=self.whole,
            keep=keep,
            deadline=self.deadline,
        )

    def commit(self, deployed: Deployed) -> Deployed:
        """It stands: its intent says so, and no other intent of the name is needed.

        Where that cannot be written the intent is removed (which needs no room on the disk): a pending one would let a
        later deploy take what stands for debris.
        """
        store, journal, info = self.scope.store, self.journal, deployed.info
        if store is None:
            return deployed
        if journal is not None and info.attempt not in (None, journal.intent.attempt):
            journal.drop()  # another call was faster: this one made nothing that stays
            journal = None
        try:
            if journal is not None:
                journal.mark("committed")
            for intent in store.load(self.key):
                if journal is not None and intent.file == journal.intent.file:
                    continue
                if journal is None and intent.attempt == info.attempt and intent.state == "committed":
                    now = info.spec_hash or (self.hash if deployed.change == "updated" else intent.spec_hash)
                    Journal(store, self.scope.io, intent).rewrite(spec_hash=now)
                else:
                    store.drop(intent)
            store.sweep_temporary(self.key)
        except StateError as exc:
            if journal is not None:
                journal.drop()
            return replace(deployed, warnings=(*deployed.warnings, f"it stands, but is not recorded: {exc.message}"))
        return deployed

    def _begin(self, main: Found | None) -> None:
        """Write the intent before the first change; what a dead deploy left goes on under its own intent."""
        if self.journal is not None:
            return
        identity = self.identity
        attempt = main.attempt if main is not None and main.attempt is not None else identity.attempt
        earlier = next((i for i in self._intents() if main is not None and i.attempt == attempt), None)
        self.inherited = main is not None
        self.journal = Journal(
            self.scope.store,
            self.scope.io,
            earlier
            or Intent(
                state="pending",
                provider=self.scope.provider,
                base=self.scope.base,
                namespace=self.scope.namespace,
                name=self.spec.name,
                provider_name=identity.provider_name,
                attempt=attempt,
                spec_hash=self.hash,
                expires_at=identity.expires_at if main is None else main.expires_at,
            ),
        )
        self.journal.begin()
        self.ledger.journal = self.journal

    async def _survey(self, spec: DeploymentSpec) -> Survey:
        return await survey(self.scope, self._resources(spec), deadline=self.deadline)

    async def _wait_for_end(self, seen: Survey) -> Survey:
        """What is being deleted is waited for, not adopted."""
        for resource, found in reversed(seen.found):
            if found.info is not None and found.info.state in (State.DELETING, State.GONE):
                await ensure_absent(
                    self.scope, resource, found.id, attempt=found.attempt, seen=found, deadline=self.deadline
                )
                seen = await self._survey(self.spec)
        return seen

    async def _scale(self, info: DeploymentInfo, limits: Limits) -> DeploymentInfo:
        return await control.scale(
            self.scope,
            info,
            workers=limits.workers,
            idle_timeout=limits.idle_timeout,
            scaling=limits.scaling,
            deadline=self.deadline,
        )

    def _decide(self, main: Found, info: DeploymentInfo, if_exists: IfExists) -> Decision:
        driver = self.scope.driver
        return decide(
            main,
            info,
            self.spec,
            self.content,
            new_hash=self.hash,
            known_hash=self._known_hash(main),
            if_exists=if_exists,
            updatable=driver.updatable if isinstance(driver, Updates) else lambda _: False,
            wall=self.scope.io.wall(),
        )

    def _known_hash(self, main: Found) -> str | None:
        """What this machine's intent keeps of it, for platforms that do not show a spec."""
        for intent in reversed(self._intents()):
            if (main.kind, main.id) in intent.resources and intent.attempt == (main.attempt or intent.attempt):
                return intent.spec_hash
        return None

    def _intents(self) -> Sequence[Intent]:
        return [] if self.scope.store is None else self.scope.store.load(self.key)

    def _unfinished(self) -> Sequence[Intent]:
        """Intents of dead writers: the lock of the name is ours, so nobody else is writing."""
        return [i for i in self._intents() if i.state != "committed" and i.attempt != self.identity.attempt]

    def _resources(self, spec: DeploymentSpec) -> Sequence[Resource]:
        return self.scope.driver.resources(spec, self.identity)

    def _filled(self) -> DeploymentSpec:
        """The spec with its secrets' values: read as late as this, and kept nowhere."""
        return self.spec if self.scope.secrets is None else self.scope.secrets(self.spec)

    def _identity(self, attempt: str, expires_at: float | None) -> Identity:
        return identity_of(
            self.spec,
            provider=self.scope.provider,
            namespace=self.scope.namespace,
            spec_hash=self.hash,
            attempt=attempt,
            expires_at=expires_at,
        )

    def _expiry(self) -> float | None:
        ttl = self.spec.ttl
        return None if ttl is None else float(math.ceil(self.scope.io.wall() + ttl))

    def _check_time(self) -> None:
        if self.scope.io.now() >= self.deadline:
            raise DeadlineExceeded(
                f"deploying {self.spec.name} on {self.scope.provider} did not end in time",
                provider=self.scope.provider,
                deployment=self.spec.name,
                stop_reason="deadline",
            )

    def _deployed(self, info: DeploymentInfo, change: Change) -> Deployed:
        self.info = info
        return Deployed(
            info=info,
            change=change,
            adaptations=tuple(self.steps.adaptations),
            spec=self.spec,
            warnings=tuple(dict.fromkeys(self.steps.warnings)),
        )


def _adopted() -> Change:
    return "adopted"


def _is_debris(main: Found, stale: Sequence[Intent]) -> bool:
    """Whether a deploy that died on this machine made it: it carries its attempt, or its recorded id."""
    return any(
        intent.attempt == main.attempt if main.attempt is not None else (main.kind, main.id) in intent.resources
        for intent in stale
    )


def _info_of(made: Mapping[str, Found]) -> DeploymentInfo | None:
    for found in reversed(list(made.values())):
        if found.info is not None:
            ids = {kind: one.id for kind, one in made.items()}
            return found.info.model_copy(update={"ids": {**found.info.ids, **ids}})
    return None


def _main_of(seen: Survey, ledger: Ledger) -> Found:
    for _, found in reversed(ledger.made):
        if found.info is not None:
            return found
    if seen.main is None:
        raise AssertionError("a whole deployment has a part that is called")
    return seen.main


def _downtime(spec: DeploymentSpec, fields: tuple[str, ...]) -> Adaptation:
    return Adaptation(
        field="if_exists",
        asked=f"a change of {', '.join(fields)}",
        got="torn down and created anew: downtime, and a new URL where the platform gives one",
        reason="the platform cannot change that in place",
    )
