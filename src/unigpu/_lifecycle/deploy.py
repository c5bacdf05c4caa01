"""Deploy, for every provider: survey, decide, record the intent, create, warm, wait, commit, or undo.

The truth is the platform, searched by name; the intent is only a crash log. On one machine one deploy of a name runs at
a time (it holds the name's lock). Between machines the platform's create decides, and the loser surveys again.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Final

from unigpu.driver import DeploymentInfo, DeploymentSpec, Found, Pauses, State
from unigpu.errors import ConfigurationError, ConflictError, DeploymentGone, NameConflict, UniGPUError
from unigpu.models import Change

from .attempt import Attempt
from .consistency.absence import read
from .consistency.survey import Survey, whole_info
from .decide import DeployDecision, decide
from .deploy_checks import DeployChecks
from .deploy_failure import handle_failure
from .durable_files import Lock
from .in_place import InPlaceChanges, can_update, downtime
from .ready import wait_ready
from .replace import Replacement, is_leftover
from .scope import Deployed, IfExists, OnFailure, Scope, Wait

_log = logging.getLogger("unigpu.lifecycle")

EPHEMERAL_TTL: Final = 3600.0
_SUFFIX: Final = 8
_ROUNDS: Final = 6
"""How often one deploy surveys again because another one was faster."""
_PAUSE: Final = 0.2
_HANDOVERS: Final = 3
"""How often a wait goes on with another deployment of the name, because that one counts."""


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
    """Make sure that one deployment of this name and spec exists, whatever happens meanwhile.

    Args:
        ephemeral: Add a random suffix to the name, never reuse, and expire after an hour unless a ttl is stated.
        settle: Make every owed check before returning. An atomic platform owes none.

    Raises:
        NameConflict: another deployment has the name.
        StateError: the intent cannot be written; nothing was created.
        WorkerFailed: a worker cannot start; what this call created was deleted (``on_failure="keep"``: kept).
        DeadlineExceeded: after the last create the deployment is kept, before it everything is undone.
        PartialDeployError: it failed, and so did the undo: what still exists, and how to delete it.
    """
    if ephemeral:
        spec, if_exists = ephemeral_spec(spec), "error"
    async with DeployRun(scope, spec, deadline=deadline, doing="deploying", keep=on_failure == "keep") as run:
        deployed = await run.deploy(if_exists)
        deployed = run.commit(await run.finish(deployed, wait, if_exists))
        if settle:
            deployed = await run.settle(deployed, wait, if_exists)
        await scope.io.sleep(0)  # a cancellation after the last request is raised here, where the run still undoes
    scope.event(f"deploy.{deployed.change}", deployment=spec.name, id=deployed.info.id)
    return deployed


def ephemeral_spec(spec: DeploymentSpec) -> DeploymentSpec:
    """*spec* under a unique name, with an expiry.

    Raises:
        ConfigurationError: the base name is too long.
    """
    longest = 63 - _SUFFIX - 1
    if len(spec.name) > longest:
        raise ConfigurationError(
            f"name: with ephemeral=True a name has at most {longest} characters ({_SUFFIX} random ones are added)"
        )
    ttl = spec.ttl if "ttl" in spec.stated else EPHEMERAL_TTL
    return spec.with_changes(name=f"{spec.name}-{secrets.token_hex(_SUFFIX // 2)}", ttl=ttl)


@dataclass(frozen=True, kw_only=True)
class _Use:
    """Use the deployment that exists.

    Attributes:
        leftover: A deploy of this machine that died created it.
    """

    seen: Survey
    main: Found
    info: DeploymentInfo
    decision: DeployDecision
    leftover: bool


class DeployRun:
    """One deploy or update call, as a context: it holds the name's lock, and what fails in it is undone.

    Attributes:
        decision: What was decided about the deployment that exists; ``None``: none exists.

    Args:
        doing: For the error of a name that stays locked: ``"deploying"``.
        keep: Keep what the call created, even if it fails.
    """

    def __init__(
        self, scope: Scope, spec: DeploymentSpec, *, deadline: float, doing: str = "deploying", keep: bool = False
    ) -> None:
        self.scope = scope
        self.attempt = Attempt(scope, spec, deadline=deadline)
        self.checks = DeployChecks(self.attempt)
        self.replacement = Replacement(self.attempt)
        self.in_place = InPlaceChanges(self.attempt)
        self.decision: DeployDecision | None = None
        self._doing = doing
        self._keep = keep
        self._lock: Lock | None = None

    async def __aenter__(self) -> DeployRun:
        store, attempt = self.scope.store, self.attempt
        if store is not None:
            what = f"{self._doing} {attempt.spec.name}"
            self._lock = await store.lock(self.scope.io, attempt.key, deadline=attempt.deadline, what=what)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After GeneratorExit nothing can be awaited. The intent stays, and the next deploy of the name settles it.
            if exc is not None and not isinstance(exc, GeneratorExit):
                if self.replacement.removed and isinstance(exc, UniGPUError):
                    exc.hint = f"{exc.hint or ''} The deployment that existed before was already torn down.".strip()
                await handle_failure(self.attempt, exc, keep=self._keep)
        finally:
            if self._lock is not None:
                self._lock.release()

    # -- deploy ---------------------------------------------------------------------------------------------------

    async def deploy(self, if_exists: IfExists) -> Deployed:
        """Survey, decide and act; start again where another deploy was faster."""
        attempt, deleted = self.attempt, False
        for turn in range(_ROUNDS):
            seen = await attempt.survey()
            try:
                step = await self._decide(seen, if_exists)
                if isinstance(step, Survey):
                    return self.created(await self.complete(step))
                return await self._use(step)
            except (ConflictError, DeploymentGone) as exc:
                # The first time the deployment disappears it is created again; the second time it is left deleted.
                if turn + 1 == _ROUNDS or (isinstance(exc, DeploymentGone) and deleted):
                    raise
                deleted = deleted or isinstance(exc, DeploymentGone)
                _log.info("%s: changed by another call meanwhile, surveying again (%s)", attempt.spec.name, exc)
            attempt.check_time()
            await self.scope.io.sleep(_PAUSE * (1 + self.scope.io.random()))
        raise AssertionError("unreachable: the last round returns or raises")

    async def _decide(self, seen: Survey, if_exists: IfExists) -> Survey | _Use:
        """What to do: use what exists, or create what the survey lacks. What must go first is deleted here."""
        attempt = self.attempt
        seen = await self.replacement.wait_for_deletions(seen)
        main, info = seen.main, seen.info
        if main is None or info is None:
            return await self._clear_parts(seen)
        if attempt.created.is_mine(main):  # an earlier round of this very call created it
            return seen
        if main.expires_at is not None and main.expires_at <= self.scope.io.wall():
            attempt.warnings.append(f"{attempt.spec.name} had expired; it was torn down and created anew")
            return await self.replacement.remove(seen)
        leftover = is_leftover(main, attempt.unfinished())
        try:
            self.decision = decision = self._compare(main, info, if_exists)
        except NameConflict:
            if not leftover:
                raise
            # The deploy that created it died before it returned: no client uses it, so nothing is lost.
            return await self.replacement.remove(seen)
        if decision.action == "recreate":
            attempt.adaptations.append(downtime(attempt.spec, decision.fields))
            return await self.replacement.remove(seen)
        return _Use(seen=seen, main=main, info=info, decision=decision, leftover=leftover)

    def _compare(self, main: Found, info: DeploymentInfo, if_exists: IfExists) -> DeployDecision:
        attempt = self.attempt
        return decide(
            main,
            info,
            attempt.spec,
            attempt.content,
            new_hash=attempt.hash,
            known_hash=attempt.known_hash(main),
            if_exists=if_exists,
            updatable=partial(can_update, self.scope.driver, info),
            wall=self.scope.io.wall(),
        )

    async def _clear_parts(self, seen: Survey) -> Survey:
        """Parts without the one that is called: they are used if they have this spec's hash, else deleted."""
        if self.attempt.listed:
            return seen  # another machine's deploy may be at work on them; a check deletes this machine's own
        if all(found.spec_hash in (None, self.attempt.hash) for _, found in seen.found):
            return seen
        return await self.replacement.remove(seen)

    async def _use(self, step: _Use) -> Deployed:
        """Reuse what exists; complete, update and scale it as decided. This call does not undo it."""
        attempt, seen, info, decision = self.attempt, step.seen, step.info, step.decision
        change: Change = "reused"
        attempt.created.release()  # a part that an earlier round created belongs to this deployment now
        attempt.info = info
        attempt.warnings.extend(decision.warnings)
        incomplete = len(seen.by_kind) < len(attempt.resources(attempt.spec))
        if incomplete or step.leftover:  # a deploy that stopped half way is finished: each step may be repeated
            main = await self.complete(seen, step.main, limits_of=None if step.leftover else info)
            info = main.info or info
        if decision.action == "update":
            info = await self.in_place.update(step.main, info)
            change = "updated"
        if info.state is State.STOPPED and isinstance(self.scope.driver, Pauses):
            await self.in_place.start(info)  # before its limits: one platform accepts none while nothing runs
        if decision.limits and not (incomplete or step.leftover):
            info = await self.in_place.scale(info, decision.limits)
            change = change if change == "updated" else "scaled"
        await self.checks.check_reused(seen, step.main)
        attempt.created.release()
        return attempt.deployed(info, change)

    async def complete(
        self, seen: Survey, main: Found | None = None, *, limits_of: DeploymentInfo | None = None
    ) -> Found:
        """Create each part that is absent, in order, without workers; then warm the deployment.

        Args:
            main: The deployment that is completed, where it exists.
            limits_of: What was in use: only the limits that the spec states change.

        Returns:
            The part that is called, as a whole deployment.
        """
        attempt, scope = self.attempt, self.scope
        made: dict[str, Found] = dict(seen.by_kind)
        missing = len(attempt.resources(attempt.spec)) > len(made)
        if missing:
            attempt.require_choices()
        attempt.begin(main)
        spec = attempt.filled()
        resources = attempt.resources(spec)
        for resource in resources:
            if resource.kind not in made:
                attempt.check_time()
                made[resource.kind] = await attempt.created.create(resource, dict(made), deadline=attempt.deadline)
        if missing and attempt.listed:
            await self.checks.check_created(made, main)
        elif missing and len(resources) > 1:
            await self._check_parts(len(resources))
        called = next((found for found in reversed(made.values()) if found.info is not None), None)
        if called is None or (info := whole_info(called, made)) is None:
            raise AssertionError(f"{scope.provider}: no resource of a deployment shows it (Found.info)")
        attempt.info, attempt.created.whole = info, True
        await scope.deployer.warm(scope.io, info, with_limits_of(spec, limits_of), deadline=attempt.deadline)
        return replace(called, info=info)

    def created(self, main: Found) -> Deployed:
        """The result of `complete`: created, unless another call was faster."""
        if main.info is None:
            raise AssertionError("a complete deployment has a part that is called")
        return self.attempt.deployed(main.info, "created" if self.attempt.created.is_mine(main) else "reused")

    async def _check_parts(self, parts: int) -> None:
        """A teardown of the same name may have deleted earlier parts while later ones were created: survey again."""
        attempt = self.attempt
        if len((await attempt.survey()).by_kind) < parts:
            raise ConflictError(
                f"parts of {attempt.spec.name} were deleted while it was deployed",
                provider=self.scope.provider,
                deployment=attempt.spec.name,
            )

    # -- after the deploy -----------------------------------------------------------------------------------------

    async def finish(self, deployed: Deployed, wait: Wait, if_exists: IfExists | None = None) -> Deployed:
        """Wait as requested, and read the deployment.

        Args:
            if_exists: Where another deployment of the name counts meanwhile, reuse that one, and wait for it.
        """
        for _ in range(_HANDOVERS):
            try:
                return await self._wait(deployed, wait)
            except DeploymentGone:
                if if_exists is None or not await self.checks.has_lost(deployed.info):
                    raise
                _log.info("%s: another deploy of this name was first; its deployment is reused", deployed.spec.name)
            deployed = await self.deploy(if_exists)
        return await self._wait(deployed, wait)

    async def _wait(self, deployed: Deployed, wait: Wait) -> Deployed:
        scope, attempt = self.scope, self.attempt
        if wait is False:
            info = await read(scope, deployed.info, deadline=attempt.deadline)
        else:
            worker = wait == "worker"
            info = await wait_ready(
                scope,
                deployed.info,
                wake=worker,
                need_worker=worker,
                deadline=attempt.deadline,
                between=self.checks.check_due,
            )
        attempt.info = info
        replaced = None not in (info.attempt, deployed.info.attempt) and info.attempt != deployed.info.attempt
        if replaced:  # another create took the name during the wait: its deployment is not ours to delete
            attempt.created.release()
        return replace(deployed, info=info, change="reused" if replaced else deployed.change)

    def commit(self, deployed: Deployed) -> Deployed:
        """Record that the deployment stands."""
        return self.attempt.commit(deployed, left=self.checks.left)

    async def settle(self, deployed: Deployed, wait: Wait, if_exists: IfExists) -> Deployed:
        """Make every owed check; where another deployment of the name counts, reuse that one."""
        for _ in range(_HANDOVERS):
            deployed, lost = await self.checks.settle(deployed)
            if not lost:
                return deployed
            deployed = self.commit(await self.finish(await self.deploy(if_exists), wait, if_exists))
        return deployed


def with_limits_of(spec: DeploymentSpec, info: DeploymentInfo | None) -> DeploymentSpec:
    """*spec*, with the number of workers of a deployment in use where the spec states none."""
    if info is None or info.workers is None or "workers" in spec.stated:
        return spec
    return spec.with_changes(workers=info.workers)
