"""From what a caller calls a deployment to the deployment, and to the scope in which the lifecycle works on it."""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

from unigpu import _lifecycle
from unigpu._lifecycle import IntentStore, Scope
from unigpu._lifecycle.ready import start_once
from unigpu.errors import ConfigurationError, DeadlineExceeded, NotFoundError, TransportTimeout, UniGPUError
from unigpu.models import DeploymentInfo, DeploymentSpec, Interface, Progress, Rate, provider_name
from unigpu.models._lines import deploy_line

from . import arguments
from .handle_state import DeploymentView, inside
from .progress import Reporter
from .session import DEPLOY_SECONDS, Flight, Home, Seen, expected
from .transports import Ways

P = ParamSpec("P")
T = TypeVar("T")

_FLIGHT_TICK: Final = 0.05
_log: Final = logging.getLogger("unigpu.client")


def in_time(verb: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """*verb*, where a time that passes while a request is on its way is a `DeadlineExceeded`, as anywhere else."""

    @functools.wraps(verb)
    async def timed(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await verb(*args, **kwargs)
        except TransportTimeout as exc:
            if exc.stop_reason != "deadline":
                raise
            error = DeadlineExceeded(
                f"it was not done in time ({exc.message})",
                provider=exc.provider,
                operation=exc.operation,
                deployment=exc.deployment,
                maybe_executed=exc.maybe_executed,
                may_bill=exc.may_bill,
                hint=exc.hint,
                stop_reason="deadline",
            )
            raise error from exc

    return timed


class Finder:
    """What all verbs share: names, scopes, single flight, deadlines."""

    def __init__(self, home: Home, ways: Ways) -> None:
        self.home = home
        self.ways = ways
        self.io = ways.usual
        own = home.settings.state_dir
        self._store = None if own is None else IntentStore(own)
        self._elsewhere: dict[Path, IntentStore] = {}

    def _journal(self) -> IntentStore | None:
        """The intents, where they are kept now: a mock has a place of its own for them."""
        state = self.home.settings.state
        if state is None or state == self.home.settings.state_dir:
            return self._store
        return self._elsewhere.setdefault(state, IntentStore(state))

    @in_time
    async def on(
        self,
        deployment: object,
        deadline: float,
        act: Callable[[Scope, Seen], Awaitable[None]],
        reporter: Callable[[Progress], None] | None = None,
        *,
        pays: bool = True,
    ) -> Seen:
        """Run *act* on what *deployment* means; what was remembered and is gone is looked up again, once.

        Args:
            pays: It is a control call: it pays the looks that are due, and ends what has expired.
        """
        seen = await self.target(deployment, deadline)
        if pays:
            await self.pay(self.scope_of(seen.info), deadline)
        try:
            await act(self.scope_of(seen.info, reporter), seen)
        except NotFoundError as exc:
            if exc.maybe_executed:
                raise
            if isinstance(deployment, DeploymentView):
                if not await self.renew(deployment, deadline):
                    raise
                await act(self.scope_of(seen.info, reporter), seen)
                self.home.remember(seen.info)
                return seen
            name, provider = self._address(deployment)
            self.home.forget(*self.home.key(provider, name))
            seen = await self._find(name, provider, deadline, fresh=True)
            await act(self.scope_of(seen.info, reporter), seen)
        if not seen.gone:
            self.home.remember(seen.info)
        return seen

    async def target(self, deployment: object, deadline: float) -> Seen:
        if isinstance(deployment, DeploymentView):
            return self._own(deployment)
        name, provider = self._address(deployment)
        return await self._find(name, provider, deadline, fresh=False)

    def check_target(self, deployment: object) -> None:
        if isinstance(deployment, DeploymentView):
            self._own(deployment)
        else:
            self._address(deployment)

    async def renew(self, deployment: object, deadline: float) -> bool:
        """Look again for what is gone: a name afresh, a handle by its name where a platform only lists.

        Returns:
            Whether it may be tried again. Where two deploys raced, the handle of the one that lost its deployment means
            the other's from now on, and does not end it when its block is left.
        """
        if not isinstance(deployment, DeploymentView):
            name, provider = self._address(deployment)
            self.home.forget(*self.home.key(provider, name))
            return True
        seen = self._own(deployment)
        now = None if seen.gone else await _lifecycle.find(self.scope_of(seen.info), seen.info, deadline=deadline)
        if now is None:
            return False
        _log.info("%s: %s is gone, and %s has its name: it is used from now on", seen.label, seen.info.id, now.id)
        seen.info, seen.change, seen.owned, seen.spec = now, "adopted", False, None
        return True

    async def pay(self, scope: Scope, deadline: float) -> None:
        """What every control call does first: pay the looks that are due, and end what has expired. It never fails."""
        await _lifecycle.pay_quietly(scope, deadline=deadline)
        await _lifecycle.end_expired(scope, deadline=deadline)

    def label(self, deployment: object) -> tuple[str, str]:
        """Name and provider of what *deployment* means."""
        if isinstance(deployment, DeploymentView):
            seen = self._own(deployment)
            return seen.label, seen.info.provider
        return self._address(deployment)

    def _own(self, view: DeploymentView) -> Seen:
        seen, home = inside(view)
        if home is not self.home:
            raise ConfigurationError(
                f"this handle of {seen.label} belongs to another client.",
                hint=f"Use the client that made it, or its address: {seen.label}@{seen.info.provider}.",
            )
        return seen

    def _address(self, deployment: object, provider: object = None) -> tuple[str, str]:
        if not isinstance(deployment, str):
            raise ConfigurationError(f"give a deployment's handle, name or address, not {type(deployment).__name__}.")
        name, at = arguments.address(deployment)
        if at is not None and provider is not None and provider != at:
            raise ConfigurationError(f"provider={provider!r}, and the address says {at!r}: which one?")
        return name, at or self.home.provider(provider)

    async def _find(self, name: str, provider: str, deadline: float, *, fresh: bool) -> Seen:
        info = None if fresh else self.home.recall(provider, name)
        if info is None:
            listed = await self._listing(provider, deadline)
            its_name = provider_name(self.home.namespace, name)
            info = next((one for one in listed if its_name == one.provider_name), None)
            if info is None:
                raise self.home.not_found(provider, name, listed)
            if info.name is None:  # the platform shows its own name only; the caller knows ours
                info = info.model_copy(update={"name": name, "namespace": self.home.namespace})
                self.home.remember(info)
        return self._seen(info, None)

    async def _listing(self, provider: str, deadline: float) -> Sequence[DeploymentInfo]:
        scope = self._scope(provider, "function", "serverless")
        await self.pay(scope, deadline)
        listed = await _lifecycle.listing(scope, deadline=deadline)
        ended = await _lifecycle.end_expired(scope, listed, deadline=deadline)
        listed = [info for info in listed if (info.provider_name, info.attempt) not in ended]
        for info in listed:
            self.home.remember(info)
        return listed

    async def _once(
        self, verb: str, info: DeploymentInfo, deadline: float, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Single flight: of many callers of this client that start one deployment, one sends, and all wait."""
        key = (verb, *self.home.flight_key(info))
        mine = Flight()
        while (flight := self.home.flights.setdefault(key, mine)) is not mine:
            while flight.state == "flying":
                if self.io.now() >= deadline:
                    raise DeadlineExceeded(
                        f"{info.name or info.provider_name}: another call of this client is still starting it.",
                        provider=info.provider,
                        deployment=info.name,
                        stop_reason="deadline",
                    )
                await self.io.sleep(_FLIGHT_TICK)
            if flight.error is not None:
                raise copy.copy(flight.error)  # each caller has a traceback of its own
            if flight.state == "landed":
                return
            # It was cancelled on the way: somebody else starts it.
        try:
            await work()
            mine.state = "landed"
        except UniGPUError as exc:
            mine.error = exc
            raise
        finally:
            if mine.state == "flying":
                mine.state = "lost"
            self.home.flights.pop(key, None)

    async def _start_shared(self, info: DeploymentInfo, deadline: float) -> None:
        async def send() -> None:
            await start_once(replace(self.scope_of(info), start=None), info, deadline=deadline)

        await self._once("start", info, deadline, send)

    def scope(self, provider: str, spec: DeploymentSpec) -> Scope:
        """The scope of a spec on a provider, before anything of it exists."""
        return self._scope(provider, spec.interface, spec.kind)

    def rate(self, info: DeploymentInfo, spec: DeploymentSpec) -> Rate:
        """What an existing deployment costs, as far as the platform or the driver tells."""
        return self._seen(info, spec).rate

    def scope_of(self, info: DeploymentInfo, reporter: Callable[[Progress], None] | None = None) -> Scope:
        return self._scope(info.provider, info.interface, info.kind, reporter)

    def _scope(
        self, provider: str, interface: Interface, kind: Any, reporter: Callable[[Progress], None] | None = None
    ) -> Scope:
        base, driver = self.home.base(provider), self.home.driver(provider)
        caps = self.home.capabilities(provider, interface, kind)
        self.ways.learn(driver)
        return Scope(
            io=self.ways.to(base),
            driver=driver,
            namespace=self.home.namespace,
            store=self._journal(),
            base=base,
            emit=self.home.emit,
            progress=reporter,
            expected=expected(caps),
            ends_expired=caps.ttl_enforced_by.value != "platform",
            secrets=self.home.secrets,
            start=self._start_shared,
            status=self.home.status,
        )

    def _deadline(self, timeout: object, default: float = DEPLOY_SECONDS) -> float:
        return self.io.now() + (default if timeout is None else arguments.seconds(timeout, "timeout"))

    def _seen(self, info: DeploymentInfo, spec: DeploymentSpec | None) -> Seen:
        rate = info.rate
        if spec is not None and rate == Rate():
            as_it_is = spec if info.workers is None or spec.kind == "pod" else spec.with_changes(workers=info.workers)
            rate = self.home.driver(info.provider).rate(as_it_is)
        ends = None if info.expires_at is None else self.home.ttl_enforcer(info, spec)
        return Seen(info, spec=spec, rate=rate, ttl_enforced_by=ends)

    def _tell(self, seen: Seen, spec: DeploymentSpec, reporter: Reporter, warnings: Sequence[str]) -> None:
        for warning in warnings:
            _log.warning("%s: %s", seen.label, warning)
        for adaptation in seen.adaptations:
            _log.info("%s: %s", seen.label, adaptation)
        enforcer = self.home.ttl_enforcer(seen.info, spec)
        gpu = "" if self.home.of(seen.info).gpu.value == "ignored" else None
        line = deploy_line(seen.info, spec, seen.rate, ttl_enforced_by=enforcer, gpu=gpu)
        reporter.say(line, warn=(seen.rate.idle_per_hour or 0.0) > 0.0)
