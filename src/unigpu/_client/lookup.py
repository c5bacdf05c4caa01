"""From what a caller calls a deployment to the deployment, and once more where that one is gone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unigpu import _lifecycle
from unigpu._lifecycle import Scope
from unigpu.driver import DeployDriver, EndpointRef, is_in_namespace
from unigpu.errors import ConfigurationError, NotFoundError, UniGPUError, UnsupportedError
from unigpu.models import DeploymentInfo, provider_name

from . import arguments
from .context import Context, Report, in_time
from .handle_state import DeploymentView, inside
from .known import Seen

_log: Final = logging.getLogger("unigpu.client")

DeploymentLike = DeploymentView | str
"""A handle, a name, or an address such as ``"summarize@vast"``."""


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment that one call of a verb works on.

    Attributes:
        given: What the caller calls it.
        seen: What it is; of a handle the handle's own, which the verb keeps true.
        scope: In which the lifecycle works on it.
        deadline: Of the call, on `Io.now`'s clock.
        report: Gets the progress of the call.
        renewed: It was looked up again: what is gone now is gone.
    """

    given: DeploymentLike
    seen: Seen
    scope: Scope
    deadline: float
    report: Report | None = None
    renewed: bool = False

    @property
    def info(self) -> DeploymentInfo:
        return self.seen.info


class Lookup:
    """Finds deployments: by handle, by what the client remembers, and by the platform's list.

    A verb takes a `target`, works on it, and hands every error to `renewed`, which gives the target to try once more or
    raises.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._session = context.session
        self._known = context.session.known

    async def target(self, given: DeploymentLike, deadline: float, report: Report | None = None) -> Target:
        """What *given* means.

        Raises:
            NotFoundError: there is no such deployment; names the nearest.
            DeadlineExceeded: it was not found in time.
        """
        if isinstance(given, DeploymentView):
            seen = self.own(given)
        else:
            with in_time():
                seen = await self.find(*self.address(given), deadline)
        return Target(given, seen, self._context.scope_of(seen.info, report), deadline, report)

    async def control(self, given: DeploymentLike, deadline: float, report: Report | None = None) -> Target:
        """The same for a control call, which first makes the checks that are due and ends what has expired."""
        target = await self.target(given, deadline, report)
        with in_time():
            await self.pay(self._context.scope_of(target.info), deadline)
        return target

    async def changed(self, doing: str, given: DeploymentLike, deadline: float, report: Report | None = None) -> Target:
        """As `control`, for a verb that changes the deployment.

        Raises:
            UnsupportedError: unigpu did not create it, and the user has not adopted it.
        """
        target = await self.target(given, deadline, report)
        self.require_changeable(doing, target.seen)
        with in_time():
            await self.pay(self._context.scope_of(target.info), deadline)
        return target

    def require_changeable(self, doing: str, seen: Seen) -> None:
        """Raise `UnsupportedError` for an endpoint that unigpu did not create."""
        if seen.foreign:
            raise UnsupportedError(
                f"{doing}: unigpu did not create {seen.address}, so it changes nothing there.",
                provider=seen.info.provider,
                deployment=seen.label,
                capability="adopt",
                hint="client.adopt(app) allows it for that handle; gc never touches it.",
            )

    async def renewed(self, target: Target, error: UniGPUError) -> Target:
        """The target, looked up again because *error* says that it is gone: a name afresh, a handle by its name where a
        platform only lists.

        Where two deploys raced, the handle of the one that lost its deployment means the other's from now on, and does
        not end it when its block is left.

        Raises:
            UniGPUError: *error*, where that cannot help.
        """
        with in_time():
            if target.renewed or not isinstance(error, NotFoundError) or error.maybe_executed:
                raise error
            given, seen, deadline = target.given, target.seen, target.deadline
            if not isinstance(given, DeploymentView):
                name, provider = self.address(given)
                self._known.forget_name(provider, name)
                seen = await self.find(name, provider, deadline, fresh=True)
            elif seen.foreign or seen.adopted or not await self._found_again(seen, deadline):
                raise error  # an endpoint of another is that one, and no other of its name
        scope = self._context.scope_of(seen.info, target.report)
        return Target(given, seen, scope, deadline, target.report, renewed=True)

    async def _found_again(self, seen: Seen, deadline: float) -> bool:
        if seen.gone:
            return False
        now = await _lifecycle.find(self._context.scope_of(seen.info), seen.info, deadline=deadline)
        if now is None:
            return False
        _log.info("%s: %s is gone, and %s has its name: it is used from now on", seen.label, seen.info.id, now.id)
        seen.info, seen.change, seen.owned, seen.spec = now, "reused", False, None
        return True

    def used(self, target: Target) -> Seen:
        """The target, which exists: the verb has just worked on it."""
        if not target.seen.gone and target.info.ours:
            self._known.remember(target.seen.info)
        return target.seen

    async def pay(self, scope: Scope, deadline: float) -> None:
        """What a control call does first: make the checks that are due, end what has expired. It never fails."""
        if not isinstance(scope.driver, DeployDriver):
            return  # it creates nothing, so nothing is owed
        await _lifecycle.pay_quietly(scope, deadline=deadline)
        await _lifecycle.end_expired(scope, deadline=deadline)

    # -- what a caller calls it

    def check(self, given: DeploymentLike) -> None:
        """Raise `ConfigurationError` where it can be no deployment of this client's."""
        self.label(given)

    def label(self, given: DeploymentLike) -> tuple[str, str]:
        """Name and provider of what *given* means."""
        if isinstance(given, DeploymentView):
            seen = self.own(given)
            return seen.label, seen.info.provider
        return self.address(given)

    def own(self, view: DeploymentView) -> Seen:
        """What a handle of this client holds."""
        seen, session = inside(view)
        if session is not self._session:
            raise ConfigurationError(
                f"this handle of {seen.label} belongs to another client.",
                hint=f"Use the client that made it, or its address: {seen.address}.",
            )
        return seen

    def address(self, given: str, provider: str | None = None) -> tuple[str, str]:
        name, where = arguments.address(given, provider)
        return name, self._session.provider(where)

    # -- what the platform lists

    async def find(self, name: str, provider: str, deadline: float, *, fresh: bool = False) -> Seen:
        """The deployment of that name. *fresh*: whatever the client remembers.

        Raises:
            NotFoundError: there is none; names the nearest.
        """
        if name.startswith(arguments.BY_ID):
            ref = EndpointRef(id=name.removeprefix(arguments.BY_ID))
            return await self.endpoint(ref, provider, deadline, fresh=fresh)
        info = None if fresh else self._known.recall(provider, name)
        if info is None:
            listed = await self.listing(provider, deadline)
            its_name = provider_name(self._session.namespace, name)
            info = next((one for one in listed if its_name == one.provider_name), None)
            if info is None:
                raise self._known.not_found(provider, name, listed)
            if info.name is None:  # the platform shows its own name only; the caller knows ours
                info = info.model_copy(update={"name": name, "namespace": self._session.namespace})
                self._known.remember(info)
        return self._context.seen(info, None)

    async def endpoint(
        self, ref: EndpointRef, provider: str, deadline: float, *, fresh: bool = False, idempotent: bool = False
    ) -> Seen:
        """An endpoint on the platform, also one that unigpu did not create. Nothing is written there.

        Raises:
            NotFoundError: there is none; names what exists under a like name or id.
        """
        info = None if fresh else self._known.recall_id(provider, ref.id)
        if info is None:
            scope = self._context.scope(provider, ref.interface or "function")
            info = await scope.driver.find(scope.io, ref, deadline=deadline)
            if idempotent:
                info = info.model_copy(update={"idempotent": True})
            self._known.remember_id(ref.id, info)
        seen = self._context.seen(info, None)
        seen.foreign = not (info.ours and is_in_namespace(info.provider_name, self._session.namespace))
        return seen

    async def listing(self, provider: str, deadline: float) -> Sequence[DeploymentInfo]:
        """Every deployment of the namespace, without those that have just expired."""
        scope = self._context.scope(provider)
        await self.pay(scope, deadline)
        listed = await _lifecycle.listing(scope, deadline=deadline)
        ended = await _lifecycle.end_expired(scope, listed, deadline=deadline)
        listed = [info for info in listed if (info.provider_name, info.attempt) not in ended]
        for info in listed:
            self._known.remember(info)
        return listed
