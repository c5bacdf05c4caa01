"""Every verb once, as `async def` over an `Io`: `Client` runs them by `run_sync`, `AsyncClient` awaits them."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

from unigpu import _lifecycle
from unigpu._lifecycle import Scope
from unigpu.elasticity.capabilities import Capabilities
from unigpu.errors import ClientClosed, ConfigurationError, NotFoundError, UniGPUError
from unigpu.models import (
    DeploymentInfo,
    DeploymentSpec,
    GcReport,
    GcRow,
    Inventory,
    InventoryItem,
    LogLine,
    Plan,
    State,
    Worker,
    provider_name,
    scale_range,
)
from unigpu.models.spec import Secrets

from . import arguments
from . import plan as planning
from .handle_state import DeploymentView
from .lookup import Finder, in_time
from .offers import with_offers
from .progress import ProgressMode, Reporter, check_progress
from .session import CLOSE_SECONDS, CONTROL_SECONDS, GC_SECONDS, TEARDOWN_SECONDS, Seen, check_fields

_log: Final = logging.getLogger("unigpu.client")


class Core(Finder):
    """One client's verbs over one flavour's ways to the outside."""

    # -- deploy and its kin

    @in_time
    async def deploy(
        self,
        given: object,
        *,
        provider: object,
        wait: object,
        timeout: object,
        if_exists: object,
        ephemeral: object,
        on_unsupported: object,
        on_failure: object,
        settle: object,
        progress: ProgressMode,
        fields: Mapping[str, Any],
    ) -> Seen:
        self.home.open()
        arguments.choice(wait, "wait", (True, False, "worker"))
        arguments.choice(if_exists, "if_exists", ("adopt", "error", "replace"))
        arguments.choice(on_unsupported, "on_unsupported", ("raise", "adapt"))
        arguments.choice(on_failure, "on_failure", ("teardown", "keep"))
        check_progress(progress)
        deadline = self._deadline(timeout)
        plan = given if isinstance(given, Plan) else None
        if plan is not None:
            said = {
                "provider": (provider, provider and plan.provider),
                "if_exists": (if_exists, plan.if_exists if if_exists != "adopt" else if_exists),
                "on_unsupported": (on_unsupported, plan.on_unsupported if on_unsupported != "raise" else "raise"),
                "ephemeral": (ephemeral, False),
            }
            planning.check_plan(plan, self.home.namespace, said, fields)
            given, provider, if_exists, on_unsupported = plan.spec, plan.provider, plan.if_exists, plan.on_unsupported
        if arguments.flag(ephemeral, "ephemeral") and if_exists != "adopt":
            raise ConfigurationError("ephemeral=True is always a new deployment: if_exists= has no meaning with it.")
        asked, where, adapt = self.home.spec(given, provider, fields)
        spec, adaptations, unsaid = self.home.gate(asked, where, adapt=adapt or on_unsupported == "adapt")
        reporter = Reporter(progress)
        try:
            scope = self._scope(where, spec.interface, spec.kind, reporter)
            await self.pay(scope, deadline)
            if plan is not None:
                scope = await planning.hold_to(self, plan, scope)
            done = await _lifecycle.deploy(
                replace(scope, unsaid=unsaid),
                spec,
                if_exists=if_exists,  # type: ignore[arg-type]  # checked above
                wait=wait,  # type: ignore[arg-type]  # checked above
                deadline=deadline,
                on_failure=on_failure,  # type: ignore[arg-type]  # checked above
                settle=arguments.flag(settle, "settle"),
                ephemeral=bool(ephemeral),
            )
            seen = self._seen(done.info, done.spec)
            seen.change, seen.owned = done.change, done.change == "created"
            if done.change not in ("created", "updated"):
                seen.spec = None  # of what was adopted only the stated part is known
            seen.adaptations = (*adaptations, *done.adaptations)
            self.home.remember(done.info)
            self._tell(seen, done.spec, reporter, done.warnings)
        except ConfigurationError as exc:
            if unsaid is None or exc.message != unsaid.message:
                raise
            raise await with_offers(self, exc, spec, where) from None
        finally:
            reporter.close()
        return seen

    async def update(
        self,
        deployment: object,
        *,
        wait: object,
        timeout: object,
        on_unsupported: object,
        progress: ProgressMode,
        changes: Mapping[str, Any],
    ) -> Seen:
        self.home.open()
        arguments.choice(wait, "wait", (True, False, "worker"))
        arguments.choice(on_unsupported, "on_unsupported", ("raise", "adapt"))
        check_progress(progress)
        check_fields(changes)
        deadline = self._deadline(timeout)
        if "name" in changes:
            raise ConfigurationError("name: a deployment keeps its name; deploy another one, and tear this one down.")
        reporter = Reporter(progress)

        async def act(scope: Scope, seen: Seen) -> None:
            seen.info = await _lifecycle.read(scope, seen.info, deadline=deadline)
            asked = _whole_spec(seen).with_changes(**changes)
            spec, adaptations, unsaid = self.home.gate(asked, seen.info.provider, adapt=on_unsupported == "adapt")
            if unsaid is not None:
                raise unsaid
            done = await _lifecycle.update(
                scope,
                seen.info,
                spec,
                changed=frozenset(changes),
                wait=wait,  # type: ignore[arg-type]  # checked above
                deadline=deadline,
            )
            fresh = self._seen(done.info, done.spec)
            seen.info, seen.rate, seen.change, seen.spec = done.info, fresh.rate, done.change, done.spec
            seen.adaptations = (*adaptations, *done.adaptations)
            self._tell(seen, done.spec, reporter, done.warnings)

        try:
            return await self.on(deployment, deadline, act, reporter)
        finally:
            reporter.close()

    async def scale(self, deployment: object, workers: object, *, on_unsupported: object) -> Seen:
        self.home.open()
        none = workers == 0 and not isinstance(workers, bool)
        limits = (0, 0) if none else scale_range(workers)
        arguments.choice(on_unsupported, "on_unsupported", ("raise", "adapt"))
        deadline = self._deadline(TEARDOWN_SECONDS if none else CONTROL_SECONDS)

        async def act(scope: Scope, seen: Seen) -> None:
            if none:
                seen.adaptations = (self.home.gate_zero(seen.info),)
                self._is_now(seen, await _lifecycle.stop(scope, seen.info, deadline=deadline))
                seen.change = "scaled"
                return
            adapt = on_unsupported == "adapt" or self.home.adapts(seen.info)
            got, adaptations = self.home.gate_workers(seen.info, limits, adapt=adapt)
            seen.info = await _lifecycle.scale(scope, seen.info, workers=got, deadline=deadline)
            seen.change, seen.adaptations = "scaled", adaptations
            if seen.spec is not None:
                seen.spec = seen.spec.with_changes(workers=got)
                seen.rate = self._seen(seen.info, seen.spec).rate
            else:
                seen.rate = seen.info.rate

        return await self.on(deployment, deadline, act)

    @in_time
    async def teardown(self, deployment: object, *, timeout: object, missing_ok: object, volumes: object) -> None:
        self.home.open()
        arguments.flag(missing_ok, "missing_ok")
        arguments.flag(volumes, "volumes")
        deadline = self._deadline(timeout)
        if isinstance(deployment, DeploymentView):
            seen = self._own(deployment)
        else:
            seen = await self._doomed(deployment, deadline, bool(missing_ok))
            seen.info = seen.info.model_copy(update={"attempt": None})  # whatever carries the name is meant
        info, scope = seen.info, self.scope_of(seen.info)
        await self.pay(scope, deadline)
        if not missing_ok:
            await _lifecycle.read(scope, info, deadline=deadline)  # raises where it is gone
        await _lifecycle.teardown(scope, info, deadline=deadline, volumes=bool(volumes))
        kept = None if volumes else info.ids.get("volume")
        if kept is not None:
            text = "%s: its volume %s on %s is kept, and may bill; teardown(volumes=True) deletes it"
            _log.info(text, info.name or info.provider_name, kept, info.provider)
        self._ended(seen)

    async def _doomed(self, deployment: object, deadline: float, missing_ok: bool) -> Seen:
        """What a name that should be gone means, also where only this machine's journal knows it any more."""
        name, provider = self._address(deployment)
        try:
            return await self._find(name, provider, deadline, fresh=True)
        except NotFoundError:
            journalled = _lifecycle.known(self._scope(provider, "function", "serverless"), name)
            if journalled is not None:
                return Seen(journalled)  # half made, or half gone: teardown settles it by its names
            if not (missing_ok and self.home.knew(provider, name)):
                raise
        its_name = provider_name(self.home.namespace, name)
        return Seen(
            DeploymentInfo(
                provider=provider, name=name, namespace=self.home.namespace, provider_name=its_name, id=its_name
            )
        )

    async def close(self) -> None:
        """Pay the looks that are due, and close the connections. Deployments stay as they are."""
        try:
            if not self.home.closed:
                for name in self.home.used:
                    await self._pay_at_the_end(name)
        finally:
            self.home.closed = True
            await self.ways.close()

    async def _pay_at_the_end(self, provider: str) -> None:
        try:
            scope = self._scope(provider, "function", "serverless")
        except UniGPUError:
            return
        await _lifecycle.pay_quietly(scope, deadline=self.io.now() + CLOSE_SECONDS)

    async def leave(self, seen: Seen, body: BaseException | None) -> None:
        """The end of a ``with`` block: ends what its deploy created, leaves what it adopted.

        The body's error stays the one that is raised; a failed teardown is a note on it.
        """
        if seen.gone:
            return
        if not seen.owned:
            _log.info("left running: %s (adopted, not created here)", seen.label)
            return
        info = seen.info
        scope = self.scope_of(info)

        async def end() -> None:
            self.home.open()
            await _lifecycle.teardown(scope, info, deadline=self.io.now() + TEARDOWN_SECONDS)

        try:
            await self.io.shield(end, seconds=TEARDOWN_SECONDS)
        except BaseException as exc:
            if isinstance(exc, ClientClosed):
                exc.may_bill = (f"{seen.label} on {info.provider}",)
            if body is None or not isinstance(exc, Exception):
                raise
            body.add_note(f"unigpu: and tearing down {seen.label} on {info.provider} failed: {exc}")
            return
        self._ended(seen)

    def _ended(self, seen: Seen) -> None:
        self.home.forget(seen.info.provider, seen.info.provider_name)
        seen.gone = True
        seen.info = seen.info.model_copy(update={"state": State.GONE, "ready_workers": 0})

    # -- readiness

    async def wait_ready(self, deployment: object, *, wake: object, timeout: object, progress: ProgressMode) -> Seen:
        self.home.open()
        arguments.flag(wake, "wake")
        check_progress(progress)
        deadline = self._deadline(timeout)
        reporter = Reporter(progress)

        async def act(scope: Scope, seen: Seen) -> None:
            owed = _lifecycle.OwedChecks(scope)

            async def pay(_: DeploymentInfo) -> None:
                await owed.pay(deadline=deadline)

            now = await _lifecycle.wait_ready(
                scope, seen.info, wake=bool(wake), need_worker=bool(wake), deadline=deadline, between=pay
            )
            self._is_now(seen, now)

        try:
            return await self.on(deployment, deadline, act, reporter)
        finally:
            reporter.close()

    async def wake(self, deployment: object) -> Seen:
        self.home.open()
        deadline = self._deadline(CONTROL_SECONDS)

        async def act(scope: Scope, seen: Seen) -> None:
            self.home.require("wake", seen.info, doing="wake()")

            async def send() -> None:
                self._is_now(seen, await _lifecycle.wake(scope, seen.info, deadline=deadline))

            await self._once("wake", seen.info, deadline, send)

        return await self.on(deployment, deadline, act)

    async def stop(self, deployment: object, *, timeout: object) -> Seen:
        self.home.open()
        deadline = self._deadline(timeout)

        async def act(scope: Scope, seen: Seen) -> None:
            self.home.require("stop", seen.info, doing="stop()")
            self._is_now(seen, await _lifecycle.stop(scope, seen.info, deadline=deadline))

        return await self.on(deployment, deadline, act)

    async def start(self, deployment: object, *, wait: object, timeout: object) -> Seen:
        self.home.open()
        arguments.flag(wait, "wait")
        deadline = self._deadline(timeout)

        async def act(scope: Scope, seen: Seen) -> None:
            self.home.require("stop", seen.info, doing="start()")
            self._is_now(seen, await _lifecycle.start(scope, seen.info, deadline=deadline, wait=bool(wait)))

        return await self.on(deployment, deadline, act)

    def _is_now(self, seen: Seen, info: DeploymentInfo) -> None:
        """What a stop or start made of it, and what it costs then."""
        seen.info = info
        seen.rate = info.rate if info.state is State.STOPPED else self._seen(info, seen.spec).rate

    # -- looking

    async def get(self, name: object, *, provider: object, interface: object, port: object) -> Seen:
        self.home.open()
        arguments.choice(interface, "interface", (None, "function", "http"))
        if port is not None:
            arguments.count(port, "port", most=65535)
        logical, where = self._address(name, provider)
        seen = await self._find(logical, where, self._deadline(CONTROL_SECONDS), fresh=True)
        seen.info = _declared(seen.info, {"interface": interface, "port": port})
        self.home.remember(seen.info)
        return seen

    def capabilities(self, provider: object, interface: object, kind: object) -> Capabilities:
        self.home.open()
        arguments.choice(interface, "interface", ("function", "http"))
        arguments.choice(kind, "kind", ("serverless", "pod"))
        return self.home.capabilities(self.home.provider(provider), cast("Any", interface), cast("Any", kind))

    async def deployments(self, provider: object) -> tuple[list[Seen], dict[str, UniGPUError]]:
        self.home.open()
        found: list[Seen] = []
        unreadable: dict[str, UniGPUError] = {}
        for name in self.home.providers(provider):
            try:
                listed = await self._listing(name, self._deadline(CONTROL_SECONDS))
            except UniGPUError as exc:
                if isinstance(provider, str):
                    raise  # the one that was asked for
                unreadable[name] = exc
                continue
            found.extend(self._seen(info, None) for info in listed)
        return found, unreadable

    async def gc(self, provider: object, delete: object, all_namespaces: object) -> GcReport:
        self.home.open()
        deleting = arguments.flag(delete, "delete")
        everywhere = arguments.flag(all_namespaces, "all_namespaces")
        looked: list[tuple[Scope, list[_lifecycle.Group]]] = []
        unreadable: dict[str, UniGPUError] = {}
        for name in self.home.providers(provider):
            deadline = self._deadline(GC_SECONDS)
            try:
                scope = self._scope(name, "function", "serverless")
                looked.append((scope, await _lifecycle.inspect(scope, all_namespaces=everywhere, deadline=deadline)))
            except UniGPUError as exc:
                if isinstance(provider, str):
                    raise  # the one that was asked for
                unreadable[name] = exc
        rows: list[GcRow] = []
        for scope, groups in looked:
            if deleting and not unreadable:
                deadline = self._deadline(GC_SECONDS)
                rows += await _lifecycle.collect(scope, groups, deadline=deadline)
                await _lifecycle.pay_quietly(scope, deadline=deadline)
            else:
                rows += [row for group in groups for _, _, row in group.judged]
        return GcReport(rows, unreadable, deleting=deleting)

    async def inventory(self, provider: object) -> Inventory:
        self.home.open()
        found: list[InventoryItem] = []
        unreadable: dict[str, UniGPUError] = {}
        for name in self.home.providers(provider):
            try:
                scope = self._scope(name, "function", "serverless")
                found += await _lifecycle.inventory(scope, deadline=self._deadline(CONTROL_SECONDS))
            except UniGPUError as exc:
                if isinstance(provider, str):
                    raise  # the one that was asked for
                unreadable[name] = exc
        return Inventory(found, unreadable)

    async def workers(self, deployment: object) -> tuple[Worker, ...]:
        self.home.open()
        deadline = self._deadline(CONTROL_SECONDS)
        found: list[Worker] = []

        async def act(scope: Scope, seen: Seen) -> None:
            found.extend(await scope.driver.workers(scope.io, seen.info, deadline=deadline))

        await self.on(deployment, deadline, act)
        return tuple(found)

    def logs(self, deployment: object, *, worker: object, follow: object, tail: object) -> AsyncIterator[LogLine]:
        self.home.open()
        self.check_target(deployment)
        one = arguments.text_or_none(worker, "worker")
        on = arguments.flag(follow, "follow")
        return self._lines(deployment, one, on, arguments.count(tail, "tail", least=0, most=1_000_000))

    async def _lines(self, deployment: object, worker: str | None, follow: bool, tail: int) -> AsyncIterator[LogLine]:
        seen = await self.target(deployment, self._deadline(CONTROL_SECONDS))
        self.home.require("logs", seen.info, doing="logs()")
        scope = self.scope_of(seen.info)
        lines = scope.driver.logs(scope.io, seen.info, worker=worker, follow=follow, tail=tail)
        try:
            async for line in lines:
                yield line
        finally:
            close: Callable[[], Awaitable[object]] | None = getattr(lines, "aclose", None)
            if close is not None:
                await close()


def _whole_spec(seen: Seen) -> DeploymentSpec:
    """All stated fields of what runs: as the platform tells them (local does), else as this handle deployed them.

    Values of secrets are told by no platform; those that this handle was given are kept.
    """
    told: object = seen.info.details.get("spec")
    if not isinstance(told, Mapping):
        if seen.spec is not None:
            return seen.spec
        raise ConfigurationError(
            f"{seen.label}: {seen.info.provider} does not tell the whole spec of what runs, "
            "so single fields cannot be changed from here.",
            provider=seen.info.provider,
            hint='Give the whole spec: deploy(..., if_exists="replace").',
        )
    spec = DeploymentSpec.model_validate(dict(cast("Mapping[str, Any]", told)))
    kept: Secrets = {} if seen.spec is None else seen.spec.secrets
    values = {name: kept.get(name) if value is None else value for name, value in spec.secrets.items()}
    return spec.with_changes(secrets=values) if spec.secrets else spec


def _declared(info: DeploymentInfo, given: Mapping[str, object]) -> DeploymentInfo:
    """*info* with what the caller says of it, where the platform cannot tell."""
    changes: dict[str, object] = {}
    for name, value in given.items():
        if value is None or value == getattr(info, name):
            continue
        if name not in info.assumed:
            raise ConfigurationError(
                f"{name}={value!r}: {info.provider} says {getattr(info, name)!r} of {info.name}.",
                provider=info.provider,
            )
        changes[name] = value
    return info.model_copy(update=changes) if changes else info
