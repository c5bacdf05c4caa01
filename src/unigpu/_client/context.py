"""What the verbs of a client work with: its session, its connections of one flavor, deadlines, and scopes."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from unigpu._lifecycle import IntentStore, Scope, deploying
from unigpu._lifecycle.ready import start_once
from unigpu.errors import DeadlineExceeded, TransportTimeout
from unigpu.models import DeploymentInfo, DeploymentSpec, Interface, Kind, Progress, Rate

from . import arguments
from .gate import Gate, cold_start
from .known import Seen
from .session import CONTROL_SECONDS, DEPLOY_SECONDS, Session
from .transports import Transports

Report = Callable[[Progress], None]


class Context:
    """One client over one flavor's connections. The engine of a sync `map` has a second one for the same session."""

    def __init__(self, session: Session, gate: Gate, transports: Transports) -> None:
        self.session = session
        self.gate = gate
        self.transports = transports
        self.io = transports.usual
        own = session.settings.state_dir
        self._store = None if own is None else IntentStore(own)
        self._elsewhere: dict[Path, IntentStore] = {}

    def deadline(self, timeout: float | None, default: float = DEPLOY_SECONDS) -> float:
        """*timeout* from now, on `Io.now`'s clock."""
        return self.io.now() + (default if timeout is None else arguments.seconds(timeout, "timeout"))

    def soon(self) -> float:
        """The deadline of what only reads or changes a setting."""
        return self.io.now() + CONTROL_SECONDS

    def scope(
        self,
        provider: str,
        interface: Interface = "function",
        kind: Kind = "serverless",
        report: Report | None = None,
    ) -> Scope:
        """One provider as the lifecycle sees it, for one kind of deployment."""
        session = self.session
        base, driver = session.base(provider), session.driver(provider)
        caps = self.gate.capabilities(provider, interface, kind)
        self.transports.learn(driver)
        return Scope(
            io=self.transports.to(base),
            driver=driver,
            namespace=session.namespace,
            store=self._intents(),
            base=base,
            emit=session.emit,
            progress=report,
            expected=cold_start(caps),
            ends_expired=caps.ttl_enforced_by.value != "platform",
            secrets=session.secrets,
            start=self._start_shared,
            status=session.status,
        )

    def scope_of(self, info: DeploymentInfo, report: Report | None = None) -> Scope:
        return self.scope(info.provider, info.interface, info.kind, report)

    def seen(self, info: DeploymentInfo, spec: DeploymentSpec | None) -> Seen:
        """*info*, with what it costs and who ends it, as far as the platform, the driver or *spec* tells."""
        rate = info.rate
        if spec is not None and rate == Rate():
            as_it_is = spec if info.workers is None or spec.kind == "pod" else spec.with_changes(workers=info.workers)
            rate = deploying(self.session.driver(info.provider)).rate(as_it_is)
        ends = None if info.expires_at is None else self.gate.ttl_enforcer(info, spec)
        return Seen(info, spec=spec, rate=rate, ttl_enforced_by=ends)

    def _intents(self) -> IntentStore | None:
        """The intents, where they are kept now: a mock has a place of its own for them."""
        state = self.session.settings.state
        if state is None or state == self.session.settings.state_dir:
            return self._store
        return self._elsewhere.setdefault(state, IntentStore(state))

    async def _start_shared(self, info: DeploymentInfo, deadline: float) -> None:
        start = partial(start_once, replace(self.scope_of(info), start=None), info, deadline=deadline)
        await self.session.starts.run(self.io, "start", info, start, deadline=deadline)


@contextmanager
def in_time() -> Generator[None]:
    """A time that passes while a request is on its way is a `DeadlineExceeded`, as anywhere else."""
    try:
        yield
    except TransportTimeout as exc:
        if exc.stop_reason != "deadline":
            raise
        raise DeadlineExceeded(
            f"it was not done in time ({exc.message})",
            provider=exc.provider,
            operation=exc.operation,
            deployment=exc.deployment,
            maybe_executed=exc.maybe_executed,
            may_bill=exc.may_bill,
            hint=exc.hint,
            stop_reason="deadline",
        ) from exc
