"""The verbs of a deployment, once, as `async def` over an `Io`: `Client` runs them by `run_sync`, `AsyncClient` awaits
them. Calls are in `calls`, what concerns a whole account in `account`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from unigpu import _lifecycle
from unigpu._lifecycle import IfExists, OnFailure, Wait
from unigpu.driver import EndpointRef, Logs
from unigpu.elasticity.capabilities import Capabilities
from unigpu.errors import ClientClosed, ConfigurationError, NotFoundError, UniGPUError, UnsupportedError
from unigpu.models import (
    DeploymentInfo,
    DeploymentSpec,
    Interface,
    Kind,
    LogLine,
    Plan,
    State,
    Worker,
    provider_name,
    scale_range,
)
from unigpu.models._text import deploy_line

from . import arguments
from . import plan as plans
from .arguments import OnUnsupported
from .context import Context, in_time
from .handle_state import DeploymentView
from .known import Seen
from .lookup import DeploymentLike, Lookup, Target
from .offers import with_offers
from .progress import ProgressMode, Reporter
from .session import CONTROL_SECONDS, TEARDOWN_SECONDS

_log: Final = logging.getLogger("unigpu.client")


class Verbs:
    """One client's verbs over one flavor's connections."""

    def __init__(self, context: Context, lookup: Lookup) -> None:
        self.context = context
        self.lookup = lookup
        self._session = context.session
        self._gate = context.gate

    # -- deploy and its kin

    async def deploy(
        self,
        given: DeploymentSpec | str | Plan | None,
        *,
        provider: str | None,
        wait: Wait,
        timeout: float | None,
        if_exists: IfExists,
        ephemeral: bool,
        on_unsupported: OnUnsupported,
        on_failure: OnFailure,
        settle: bool,
        progress: ProgressMode,
        fields: Mapping[str, Any],
    ) -> Seen:
        context, gate = self.context, self._gate
        self._session.open()
        wait = arguments.choice(wait, "wait", arguments.WAIT)
        if_exists = arguments.choice(if_exists, "if_exists", arguments.IF_EXISTS)
        on_unsupported = arguments.choice(on_unsupported, "on_unsupported", arguments.ON_UNSUPPORTED)
        on_failure = arguments.choice(on_failure, "on_failure", arguments.ON_FAILURE)
        ephemeral, settle = arguments.flag(ephemeral, "ephemeral"), arguments.flag(settle, "settle")
        reporter = Reporter(progress)
        deadline = context.deadline(timeout)
        plan = given if isinstance(given, Plan) else None
        if isinstance(given, Plan):
            agrees = {
                "provider": provider in (None, given.provider),
                "if_exists": if_exists in ("reuse", given.if_exists),
                "on_unsupported": on_unsupported in ("raise", given.on_unsupported),
                "ephemeral": not ephemeral,
            }
            plans.check_plan(given, self._session.namespace, agrees, fields)
            provider, if_exists, on_unsupported = given.provider, given.if_exists, given.on_unsupported
            given = given.spec
        if ephemeral and if_exists != "reuse":
            raise ConfigurationError("ephemeral=True is always a new deployment: if_exists= has no meaning with it.")
        asked, where, adapt = gate.spec(given, provider, fields)
        spec, adaptations, unsaid = gate.admit(asked, where, adapt=adapt or on_unsupported == "adapt")
        try:
            with in_time():
                scope = context.scope(where, spec.interface, spec.kind, reporter)
                await self.lookup.pay(scope, deadline)
                if plan is not None:
                    scope = await plans.hold_to(context, plan, scope)
                done = await _lifecycle.deploy(
                    replace(scope, unsaid=unsaid),
                    spec,
                    if_exists=if_exists,
                    wait=wait,
                    deadline=deadline,
                    on_failure=on_failure,
                    settle=settle,
                    ephemeral=ephemeral,
                )
        except ConfigurationError as exc:
            if unsaid is None or exc.message != unsaid.message:
                raise
            raise await with_offers(context, exc, spec, where) from None
        else:
            seen = context.seen(done.info, done.spec)
            seen.change, seen.owned = done.change, done.change == "created"
            if done.change not in ("created", "updated"):
                seen.spec = None  # of what was reused only the stated part is known
            seen.adaptations = (*adaptations, *done.adaptations)
            self._session.known.remember(done.info)
            self._tell(seen, done.spec, reporter, done.warnings)
            return seen
        finally:
            reporter.close()

    async def update(
        self,
        deployment: DeploymentLike,
        *,
        wait: Wait,
        timeout: float | None,
        on_unsupported: OnUnsupported,
        progress: ProgressMode,
        changes: Mapping[str, Any],
    ) -> Seen:
        self._session.open()
        wait = arguments.choice(wait, "wait", arguments.WAIT)
        adapt = arguments.choice(on_unsupported, "on_unsupported", arguments.ON_UNSUPPORTED) == "adapt"
        reporter = Reporter(progress)
        arguments.check_fields(changes)
        deadline = self.context.deadline(timeout)
        if "name" in changes:
            raise ConfigurationError("name: a deployment keeps its name; deploy another one, and tear this one down.")
        try:
            target = await self.lookup.changed("update()", deployment, deadline, reporter)
            while True:
                try:
                    await self._update(target, changes, wait, reporter, adapt=adapt)
                    return self.lookup.used(target)
                except UniGPUError as exc:
                    target = await self.lookup.renewed(target, exc)
        finally:
            reporter.close()

    async def _update(
        self, target: Target, changes: Mapping[str, Any], wait: Wait, reporter: Reporter, *, adapt: bool
    ) -> None:
        seen, scope = target.seen, target.scope
        seen.info = await _lifecycle.read(scope, seen.info, deadline=target.deadline)
        asked = arguments.whole_spec(seen).with_changes(**changes)
        spec, adaptations, unsaid = self._gate.admit(asked, seen.info.provider, adapt=adapt)
        if unsaid is not None:
            raise unsaid
        done = await _lifecycle.update(
            scope, seen.info, spec, changed=frozenset(changes), wait=wait, deadline=target.deadline
        )
        fresh = self.context.seen(done.info, done.spec)
        seen.info, seen.rate, seen.change, seen.spec = done.info, fresh.rate, done.change, done.spec
        seen.adaptations = (*adaptations, *done.adaptations)
        self._tell(seen, done.spec, reporter, done.warnings)

    def _tell(self, seen: Seen, spec: DeploymentSpec, reporter: Reporter, warnings: Sequence[str]) -> None:
        for warning in warnings:
            _log.warning("%s: %s", seen.label, warning)
        for adaptation in seen.adaptations:
            _log.info("%s: %s", seen.label, adaptation)
        enforcer = self._gate.ttl_enforcer(seen.info, spec)
        gpu = "" if self._gate.of(seen.info).gpu.value == "ignored" else None
        line = deploy_line(seen.info, spec, seen.rate, ttl_enforced_by=enforcer, gpu=gpu)
        reporter.say(line, warn=(seen.rate.idle_per_hour or 0.0) > 0.0)

    async def scale(
        self, deployment: DeploymentLike, workers: int | tuple[int, int], *, on_unsupported: OnUnsupported
    ) -> Seen:
        self._session.open()
        none = type(workers) is int and workers == 0
        limits = (0, 0) if none else scale_range(workers)
        adapt = arguments.choice(on_unsupported, "on_unsupported", arguments.ON_UNSUPPORTED) == "adapt"
        deadline = self.context.deadline(TEARDOWN_SECONDS if none else CONTROL_SECONDS)
        target = await self.lookup.changed("scale()", deployment, deadline)
        while True:
            try:
                if none:
                    await self._scale_to_none(target)
                else:
                    await self._scale(target, limits, adapt=adapt)
                return self.lookup.used(target)
            except UniGPUError as exc:
                target = await self.lookup.renewed(target, exc)

    async def _scale(self, target: Target, limits: tuple[int, int], *, adapt: bool) -> None:
        seen = target.seen
        got, adaptations = self._gate.admit_workers(seen.info, limits, adapt=adapt or self._gate.adapts(seen.info))
        seen.info = await _lifecycle.scale(target.scope, seen.info, workers=got, deadline=target.deadline)
        seen.change, seen.adaptations = "scaled", adaptations
        if seen.spec is not None:
            seen.spec = seen.spec.with_changes(workers=got)
            seen.rate = self.context.seen(seen.info, seen.spec).rate
        else:
            seen.rate = seen.info.rate

    async def _scale_to_none(self, target: Target) -> None:
        seen = target.seen
        seen.adaptations = (self._gate.admit_zero(seen.info),)
        self._is_now(seen, await _lifecycle.stop(target.scope, seen.info, deadline=target.deadline))
        seen.change = "scaled"

    # -- the end

    async def teardown(
        self, deployment: DeploymentLike, *, timeout: float | None, missing_ok: bool, volumes: bool
    ) -> None:
        self._session.open()
        missing_ok, volumes = arguments.flag(missing_ok, "missing_ok"), arguments.flag(volumes, "volumes")
        deadline = self.context.deadline(timeout)
        with in_time():
            if isinstance(deployment, DeploymentView):
                seen = self.lookup.own(deployment)
            else:
                seen = await self._to_delete(deployment, deadline, missing_ok=missing_ok)
                seen.info = seen.info.model_copy(update={"attempt": None})  # whatever carries the name is meant
            self.lookup.require_changeable("teardown()", seen)
            info, scope = seen.info, self.context.scope_of(seen.info)
            await self.lookup.pay(scope, deadline)
            if not missing_ok:
                await _lifecycle.read(scope, info, deadline=deadline)  # raises where it is gone
            if seen.adopted:
                await _lifecycle.teardown_adopted(scope, info, deadline=deadline)
            else:
                await _lifecycle.teardown(scope, info, deadline=deadline, volumes=volumes)
        kept = None if volumes else info.ids.get("volume")
        if kept is not None:
            text = "%s: its volume %s on %s is kept, and may bill; teardown(volumes=True) deletes it"
            _log.info(text, info.name or info.provider_name, kept, info.provider)
        self._ended(seen)

    async def _to_delete(self, deployment: str, deadline: float, *, missing_ok: bool) -> Seen:
        """What a name that should be gone means, also where only this machine's intents know it any more."""
        name, provider = self.lookup.address(deployment)
        try:
            return await self.lookup.find(name, provider, deadline, fresh=True)
        except NotFoundError:
            intended = _lifecycle.known(self.context.scope(provider), name)
            if intended is not None:
                return Seen(intended)  # half made, or half gone: teardown settles it by its names
            if not (missing_ok and self._session.known.knew(provider, name)):
                raise
        its_name = provider_name(self._session.namespace, name)
        return Seen(
            DeploymentInfo(
                provider=provider,
                name=name,
                namespace=self._session.namespace,
                provider_name=its_name,
                id=its_name,
            )
        )

    async def leave(self, seen: Seen, body: BaseException | None) -> None:
        """The end of a ``with`` block: ends what its deploy created, leaves what it reused.

        The body's error stays the one that is raised; a failed teardown is a note on it.
        """
        if seen.gone:
            return
        if not seen.owned:
            _log.info("left running: %s (reused, not created here)", seen.label)
            return
        try:
            await self.context.io.shield(partial(self._end, seen.info), seconds=TEARDOWN_SECONDS)
        except BaseException as exc:
            if isinstance(exc, ClientClosed):
                exc.may_bill = (f"{seen.label} on {seen.info.provider}",)
            if body is None or not isinstance(exc, Exception):
                raise
            body.add_note(f"unigpu: and tearing down {seen.label} on {seen.info.provider} failed: {exc}")
            return
        self._ended(seen)

    async def _end(self, info: DeploymentInfo) -> None:
        self._session.open()
        deadline = self.context.deadline(TEARDOWN_SECONDS)
        await _lifecycle.teardown(self.context.scope_of(info), info, deadline=deadline)

    def _ended(self, seen: Seen) -> None:
        self._session.known.forget(seen.info)
        seen.gone = True
        seen.info = seen.info.model_copy(update={"state": State.GONE, "ready_workers": 0})

    # -- readiness

    async def wait_ready(
        self, deployment: DeploymentLike, *, wake: bool, timeout: float | None, progress: ProgressMode
    ) -> Seen:
        self._session.open()
        wake = arguments.flag(wake, "wake")
        reporter = Reporter(progress)
        deadline = self.context.deadline(timeout)
        try:
            target = await self.lookup.control(deployment, deadline, reporter)
            while True:
                try:
                    self._is_now(target.seen, await _wait_ready(target, wake=wake))
                    return self.lookup.used(target)
                except UniGPUError as exc:
                    target = await self.lookup.renewed(target, exc)
        finally:
            reporter.close()

    async def wake(self, deployment: DeploymentLike) -> Seen:
        self._session.open()
        target = await self.lookup.control(deployment, self.context.soon())
        while True:
            try:
                self._gate.require("wake", target.info, doing="wake()")
                await self._session.starts.run(
                    self.context.io, "wake", target.info, partial(self._wake, target), deadline=target.deadline
                )
                return self.lookup.used(target)
            except UniGPUError as exc:
                target = await self.lookup.renewed(target, exc)

    async def _wake(self, target: Target) -> None:
        self._is_now(target.seen, await _lifecycle.wake(target.scope, target.info, deadline=target.deadline))

    async def stop(self, deployment: DeploymentLike, *, timeout: float | None) -> Seen:
        self._session.open()
        target = await self.lookup.changed("stop()", deployment, self.context.deadline(timeout))
        while True:
            try:
                self._gate.require("stop", target.info, doing="stop()")
                now = await _lifecycle.stop(target.scope, target.info, deadline=target.deadline)
                self._is_now(target.seen, now)
                return self.lookup.used(target)
            except UniGPUError as exc:
                target = await self.lookup.renewed(target, exc)

    async def start(self, deployment: DeploymentLike, *, wait: bool, timeout: float | None) -> Seen:
        self._session.open()
        wait = arguments.flag(wait, "wait")
        target = await self.lookup.changed("start()", deployment, self.context.deadline(timeout))
        while True:
            try:
                self._gate.require("stop", target.info, doing="start()")
                now = await _lifecycle.start(target.scope, target.info, deadline=target.deadline, wait=wait)
                self._is_now(target.seen, now)
                return self.lookup.used(target)
            except UniGPUError as exc:
                target = await self.lookup.renewed(target, exc)

    def _is_now(self, seen: Seen, info: DeploymentInfo) -> None:
        """What a stop or start made of it, and what it costs then."""
        seen.info = info
        seen.rate = info.rate if info.state is State.STOPPED else self.context.seen(info, seen.spec).rate

    # -- what there is

    async def get(
        self,
        name: str | None,
        *,
        id: str | None,
        provider: str | None,
        interface: Interface | None,
        port: int | None,
        route: str | None,
        idempotent: bool,
    ) -> Seen:
        self._session.open()
        if interface is not None:
            interface = arguments.choice(interface, "interface", (None, *arguments.INTERFACES))
        if port is not None:
            port = arguments.count(port, "port", most=65535)
        route, idempotent = arguments.route_or_none(route), arguments.flag(idempotent, "idempotent")
        if (name is None) == (id is None):
            raise ConfigurationError("get: give a name, or id= for an endpoint that unigpu did not create.")
        if name is not None:
            logical, where = self.lookup.address(name, provider)
            if not logical.startswith(arguments.BY_ID):
                return await self._by_name(logical, where, interface=interface, port=port, route=route)
            id = logical.removeprefix(arguments.BY_ID)
        else:
            id, where = arguments.endpoint_id(id), self._session.provider(provider)
        ref = EndpointRef(id=id, interface=interface, port=port, route=route)
        with in_time():
            return await self.lookup.endpoint(ref, where, self.context.soon(), fresh=True, idempotent=idempotent)

    async def _by_name(
        self, name: str, provider: str, *, interface: Interface | None, port: int | None, route: str | None
    ) -> Seen:
        seen = await self.lookup.find(name, provider, self.context.soon(), fresh=True)
        seen.info = arguments.declared(seen.info, interface=interface, port=port, route=route)
        self._session.known.remember(seen.info)
        return seen

    def adopt(self, deployment: DeploymentView) -> Seen:
        self._session.open()
        if not isinstance(deployment, DeploymentView):  # pyright: ignore[reportUnnecessaryIsInstance] - users give names
            raise ConfigurationError("adopt: give the handle that get(id=...) returned.")
        seen = self.lookup.own(deployment)
        if seen.foreign:
            seen.foreign, seen.adopted = False, True
        return seen

    def capabilities(self, provider: str | None, interface: Interface, kind: Kind) -> Capabilities:
        self._session.open()
        interface = arguments.choice(interface, "interface", arguments.INTERFACES)
        kind = arguments.choice(kind, "kind", arguments.KINDS)
        return self._gate.capabilities(self._session.provider(provider), interface, kind)

    async def workers(self, deployment: DeploymentLike) -> tuple[Worker, ...]:
        self._session.open()
        target = await self.lookup.control(deployment, self.context.soon())
        while True:
            try:
                scope = target.scope
                found = await scope.driver.workers(scope.io, target.info, deadline=target.deadline)
                self.lookup.used(target)
                return tuple(found)
            except UniGPUError as exc:
                target = await self.lookup.renewed(target, exc)

    def logs(
        self, deployment: DeploymentLike, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        self._session.open()
        self.lookup.check(deployment)
        worker = arguments.text_or_none(worker, "worker")
        follow = arguments.flag(follow, "follow")
        return self._lines(deployment, worker, follow, arguments.count(tail, "tail", least=0, most=1_000_000))

    async def _lines(
        self, deployment: DeploymentLike, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        target = await self.lookup.target(deployment, self.context.soon())
        self._gate.require("logs", target.info, doing="logs()")
        driver = target.scope.driver
        if not isinstance(driver, Logs):
            raise UnsupportedError(
                f"{driver.name} reads no logs", provider=driver.name, deployment=target.info.name, capability="logs"
            )
        lines = driver.logs(target.scope.io, target.info, worker=worker, follow=follow, tail=tail)
        try:
            async for line in lines:
                yield line
        finally:
            close: Callable[[], Awaitable[object]] | None = getattr(lines, "aclose", None)
            if close is not None:
                await close()


async def _wait_ready(target: Target, *, wake: bool) -> DeploymentInfo:
    owed = _lifecycle.OwedChecks(target.scope)

    async def pay(_: DeploymentInfo) -> None:
        await owed.pay(deadline=target.deadline)

    return await _lifecycle.wait_ready(
        target.scope, target.info, wake=wake, need_worker=wake, deadline=target.deadline, between=pay
    )
