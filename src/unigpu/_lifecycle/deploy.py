"""The steps of a deploy: find, decide, create what is absent, change what is there, wait."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from unigpu.driver import Adaptation, DeploymentInfo, DeploymentSpec, Found, Pauses, State, Updates
from unigpu.errors import ConflictError, DeploymentGone, NameConflict, StateError, UniGPUError, UnsupportedError
from unigpu.models import Change

from .consistency.survey import Rows, Survey, confirmed, is_ending, without_volumes
from .create import Ledger, ensure_absent, may_have_acted
from .decide import Decision, Limits, decide, limits_to_change
from .deploy_checks import Looks
from .identity import CODE, compared, differing
from .intents import Intent, Journal
from .ready import gone, read, start_once, wait_ready
from .scale import scale, settled
from .scope import Deployed, IfExists, Wait
from .teardown import remove

_log = logging.getLogger("unigpu.lifecycle")

_ROUNDS: Final = 6
"""How often one deploy looks again because another one was faster."""
_PAUSE: Final = 0.2
_ENDING_PAUSE: Final = 2.0
_HANDOVERS: Final = 3
"""How often a wait goes on with another one that turned out to count."""


class Run(Looks):
    """The steps of one deploy or update call."""

    # -- deploy ---------------------------------------------------------------------------------------------------

    async def deploy(self, if_exists: IfExists) -> Deployed:
        """Find, decide and act; look again where another deploy was faster."""
        ended = False
        for turn in range(_ROUNDS):
            seen = await self.survey(self.spec)
            try:
                return await self._act(seen, if_exists)
            except (ConflictError, DeploymentGone) as exc:
                # Deleted under our hands: once that is made anew, a second time somebody means it.
                if turn + 1 == _ROUNDS or (isinstance(exc, DeploymentGone) and ended):
                    raise
                ended = ended or isinstance(exc, DeploymentGone)
                _log.info("%s: changed by another call meanwhile, looking again (%s)", self.spec.name, exc)
            self.check_time()
            await self.scope.io.sleep(_PAUSE * (1 + self.scope.io.random()))
        raise AssertionError("unreachable: the last round returns or raises")

    async def _act(self, seen: Survey, if_exists: IfExists) -> Deployed:
        seen = await self._see_ends(await self._wait_for_end(seen))
        main, info = seen.main, seen.info
        stale = self.unfinished()
        if main is None or info is None:
            return await self._create(await self._clear_half(seen))
        if self.ledger.is_mine(main):  # an earlier round's create of this very call
            return await self._create(seen)
        if main.expires_at is not None and main.expires_at <= self.scope.io.wall():
            self.warnings.append(f"{self.spec.name} had expired; it was torn down and created anew")
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
            self.adaptations.append(_downtime(self.spec, decision.fields))
            return await self._create(await self._remove(seen))
        return await self._use(seen, main, info, decision, debris=debris)

    async def _use(
        self, seen: Survey, main: Found, info: DeploymentInfo, decision: Decision, *, debris: bool
    ) -> Deployed:
        """Adopt what exists; complete, update and scale it as decided. It is not ours to undo."""
        change: Change = "adopted"
        self.ledger.release()  # a part that an earlier round made belongs to this one now
        self.info = info
        self.warnings.extend(decision.warnings)
        missing = len(seen.by_kind) < len(self.resources(self.spec))
        if missing or debris:  # a deploy that stopped half way is finished: each step is harmless to repeat
            info = await self._complete(seen, main, limits_of=None if debris else info)
        if decision.action == "update":
            info = await self._update_in_place(main, info)
            change = "updated"
        if info.state is State.STOPPED and isinstance(self.scope.driver, Pauses):
            await self._start(info)  # before its limits: one platform takes none while nothing runs
        if decision.limits and not (missing or debris):
            info = await self._scale(info, decision.limits)
            change = change if change == "updated" else "scaled"
        if self.listed and (any(i.attempt != main.attempt for i in self.intents()) or _mains(seen) > 1):
            await self.look(main)
        self.ledger.release()
        return self.deployed(info, change)

    async def _create(self, seen: Survey) -> Deployed:
        """Create what *seen* lacks, cold and recorded, and then set the limits."""
        info = await self._complete(seen, None)
        mine = self.ledger.is_mine(_main_of(seen, self.ledger))
        return self.deployed(info, "created" if mine else "adopted")

    async def _complete(
        self, seen: Survey, main: Found | None, *, limits_of: DeploymentInfo | None = None
    ) -> DeploymentInfo:
        """Create each part that is absent, in order, then warm the whole.

        Args:
            limits_of: What was in use: of its limits only the stated ones change.
        """
        scope = self.scope
        made: dict[str, Found] = dict(seen.by_kind)
        missing = len(self.resources(self.spec)) > len(made)
        if missing:
            self.must_be_said()
        self.begin(main)
        spec = self.filled()
        resources = self.resources(spec)
        for resource in resources:
            if resource.kind in made:
                continue
            self.check_time()
            made[resource.kind] = await self.ledger.create(resource, dict(made), deadline=self.deadline)
        if missing and self.listed:
            await self.look_after_create(made, main)
        elif missing and len(resources) > 1:
            await self._check_whole(len(resources))
        info = _info_of(made)
        if info is None:
            raise AssertionError(f"{scope.provider}: no resource of a deployment shows it (Found.info)")
        self.info, self.whole = info, True
        if limits_of is not None and limits_of.workers is not None and "workers" not in spec.stated:
            spec = spec.with_changes(workers=limits_of.workers)
        await scope.driver.warm(scope.io, info, spec, deadline=self.deadline)
        return info

    async def _check_whole(self, parts: int) -> None:
        """A teardown of the same name may have taken earlier parts while later ones were made: look again then."""
        if len((await self.survey(self.spec)).by_kind) < parts:
            raise ConflictError(
                f"parts of {self.spec.name} were deleted while it was deployed",
                provider=self.scope.provider,
                deployment=self.spec.name,
            )

    async def _clear_half(self, seen: Survey) -> Survey:
        """Parts without the one that is called: kept where they are of this spec, else ended."""
        if not seen.found:
            return seen
        if self.listed:
            return seen  # parts of others may be in the middle of a deploy; those of dead ones here the look takes back
        if all(found.spec_hash in (None, self.hash) for _, found in seen.found):
            return seen
        return await self._remove(seen)

    async def _remove(self, seen: Survey) -> Survey:
        """End what exists, verified, before something else takes its name."""
        self.must_be_said()
        self.filled()  # a secret that is missing is told while the old one still serves
        self.begin(None)
        if self.listed:
            seen = replace(seen, found=self._belongings(seen))
        seen = replace(seen, found=without_volumes(seen.found))
        await remove(self.scope, seen, name=self.spec.name, deadline=self.deadline)
        self.removed = True
        return await self.survey(self.spec)

    def _belongings(self, seen: Survey) -> Rows:
        """Of what carries the name: what is called, with its parts, and what this machine made."""
        attempts = {one.attempt for _, one in seen.found if one.info is not None}
        attempts |= {intent.attempt for intent in self.intents()} | {self.identity.attempt, None}
        return tuple(pair for pair in seen.found if pair[1].attempt in attempts)

    # -- update ---------------------------------------------------------------------------------------------------

    async def update(self, info: DeploymentInfo, changed: frozenset[str]) -> Deployed:
        """Bring an existing deployment to the spec: in place where the platform can, else anew."""
        if "ttl" in changed:
            raise UnsupportedError(
                f"the end of {self.spec.name} was fixed when it was created",
                provider=self.scope.provider,
                deployment=self.spec.name,
                capability="ttl_change",
                hint="Tear it down and deploy it again with another ttl.",
            )
        seen = await self.survey(self.spec)
        main, now = seen.main, seen.info
        if main is None or now is None or (None not in (info.attempt, main.attempt) and info.attempt != main.attempt):
            raise gone(self.scope, info)
        self.info = now
        stated = compared(self.spec, self.content, provider=self.scope.provider)
        differs = set(differing(main.spec_hash or self.known_hash(main), self.hash, stated) or ())
        fields = frozenset((changed & stated) | (differs & {CODE}))
        limits = limits_to_change(now, self.spec)
        if not fields:
            if limits:
                return self.deployed(await self._scale(now, limits), "scaled")
            return self.deployed(now, "adopted")
        if self._updatable(now)(fields):
            now = await self._update_in_place(main, now)
            if limits:
                now = await self._scale(now, limits)
            return self.deployed(now, "updated")
        self.adaptations.append(_downtime(self.spec, tuple(sorted(fields))))
        seen = await self._remove(seen)
        try:
            return await self._create(seen)
        except ConflictError:  # somebody took the name while it was free
            return await self.deploy("replace")

    async def _update_in_place(self, main: Found, info: DeploymentInfo) -> DeploymentInfo:
        scope, driver = self.scope, self.scope.driver
        if not isinstance(driver, Updates):
            raise AssertionError("decided to update on a platform that cannot")
        self.must_be_said()
        # The attempt, the name and the end never change: they belong to the create.
        identity = self.identity_with(main.attempt or info.attempt or self.identity.attempt, main.expires_at)
        spec = self.filled()

        async def act() -> None:
            await driver.update(scope.io, info, spec, identity, deadline=self.deadline)

        try:
            await settled(scope, info, act, deadline=self.deadline, what=f"updating {self.spec.name}")
        except UniGPUError as exc:
            if not may_have_acted(exc):
                raise
            now = await driver.read(scope.io, info, deadline=self.deadline)  # the answer is lost: what is so decides
            if now is None or now.spec_hash != self.hash:
                raise
            return now
        return await read(scope, info, deadline=self.deadline)

    # -- steps ----------------------------------------------------------------------------------------------------

    async def finish(self, deployed: Deployed, wait: Wait, if_exists: IfExists | None = None) -> Deployed:
        """Wait as asked, and read what is so.

        Args:
            if_exists: Where meanwhile another one of the name turns out to count, that is adopted, and waited for.
        """
        for _ in range(_HANDOVERS):
            try:
                return await self._wait(deployed, wait)
            except DeploymentGone:
                if if_exists is None or not await self.lost(deployed.info):
                    raise
                _log.info("%s: another deploy of this name was first; its deployment is adopted", self.spec.name)
            deployed = await self.deploy(if_exists)
        return await self._wait(deployed, wait)

    async def _wait(self, deployed: Deployed, wait: Wait) -> Deployed:
        scope = self.scope
        if wait is False:
            info = await read(scope, deployed.info, deadline=self.deadline)
        else:
            worker = wait == "worker"
            info = await wait_ready(
                scope, deployed.info, wake=worker, need_worker=worker, deadline=self.deadline, between=self.pay
            )
        self.info = info
        replaced = None not in (info.attempt, deployed.info.attempt) and info.attempt != deployed.info.attempt
        if replaced:  # while we waited another create took the name: what serves now is not ours to end
            self.ledger.release()
        return replace(deployed, info=info, change="adopted" if replaced else deployed.change)

    async def settle(self, deployed: Deployed, wait: Wait, if_exists: IfExists) -> Deployed:
        """Pay every look before returning; where another one turns out to count, adopt it."""
        for _ in range(_HANDOVERS):
            deployed, other = await self.pay_all(deployed)
            if not other:
                return deployed
            deployed = self.commit(await self.finish(await self.deploy(if_exists), wait, if_exists))
        return deployed

    async def _wait_for_end(self, seen: Survey) -> Survey:
        """What is being deleted is waited for, not adopted."""
        if self.listed and (seen.main is None or not is_ending(seen.main)):
            return seen  # a list shows for a while what is gone
        for resource, found in reversed(seen.found):
            if found.info is not None and found.info.state in (State.DELETING, State.GONE):
                await ensure_absent(
                    self.scope, resource, found.id, attempt=found.attempt, seen=found, deadline=self.deadline
                )
                seen = await self.survey(self.spec)
        return seen

    async def _see_ends(self, seen: Survey) -> Survey:
        """Parts that a teardown or an undo of this machine was ending: a late list shows them as if they were whole.

        They are looked at through the settle window. One that is there all the time was not ended, and is built on.
        """
        intents = [intent for intent in self.intents() if intent.ending]
        ending = {pair for intent in intents for pair in intent.ending}
        main = None if seen.main is None else seen.main.id
        doomed = [pair for pair in seen.found if (pair[1].kind, pair[1].id) in ending and pair[1].id != main]
        for resource, found in doomed:
            io = self.scope.io
            until = min(self.deadline, io.now() + resource.consistency.settle)
            while await confirmed(self.scope, resource, found.id, deadline=self.deadline) and io.now() < until:
                await io.sleep(_ENDING_PAUSE)
        self._ends_seen(intents)
        return await self.survey(self.spec) if doomed else seen

    def _ends_seen(self, intents: Sequence[Intent]) -> None:
        if self.scope.store is not None:
            with contextlib.suppress(StateError):  # the next deploy looks once more
                for intent in intents:
                    Journal(self.scope.store, self.scope.io, intent).ends_seen()

    async def _start(self, info: DeploymentInfo) -> None:
        self.warnings.append(f"{self.spec.name} was stopped; it was started again")
        await start_once(self.scope, info, deadline=self.deadline)

    async def _scale(self, info: DeploymentInfo, limits: Limits) -> DeploymentInfo:
        return await scale(
            self.scope,
            info,
            workers=limits.workers,
            idle_timeout=limits.idle_timeout,
            scaling=limits.scaling,
            deadline=self.deadline,
        )

    def _updatable(self, info: DeploymentInfo) -> Callable[[frozenset[str]], bool]:
        """Which changes the platform makes in place, of a deployment of this kind."""
        driver = self.scope.driver
        if not isinstance(driver, Updates) or info.kind not in getattr(driver, "update_kinds", (info.kind,)):
            return lambda _: False
        return driver.updatable

    def _decide(self, main: Found, info: DeploymentInfo, if_exists: IfExists) -> Decision:
        return decide(
            main,
            info,
            self.spec,
            self.content,
            new_hash=self.hash,
            known_hash=self.known_hash(main),
            if_exists=if_exists,
            updatable=self._updatable(info),
            wall=self.scope.io.wall(),
        )


def _mains(seen: Survey) -> int:
    return sum(found.info is not None for _, found in seen.found)


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
