"""What a client passes to the lifecycle and gets back: plain data that every step works with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import SecretStr

from unigpu._io.request_defaults import for_cleanup
from unigpu.driver import Adaptation, CallDriver, DeployDriver, DeploymentInfo, DeploymentSpec, Io
from unigpu.errors import UniGPUError, UnsupportedError
from unigpu.models import Change, Event, Progress

from .intents import IntentStore
from .shared_status import SharedStatus

_log = logging.getLogger("unigpu.lifecycle")

IfExists = Literal["reuse", "error", "replace"]
OnFailure = Literal["teardown", "keep"]
OnTimeout = Literal["cancel", "keep"]
Wait = bool | Literal["worker"]

UNDO_SECONDS = 120.0
"""How long an undo may take, even if its caller is cancelled."""
CANCEL_SECONDS = 5.0
"""How long the cancellation of a job may delay a caller who leaves."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """One provider as one client sees it.

    Attributes:
        store: Where intents are kept; ``None``: nowhere (recovery then finds resources by name only).
        base: The provider's base URL. Intents of another base belong to another account.
        emit: Receives every event.
        progress: Receives the result of every check of a wait, often with an unchanged phase.
        expected: Seconds a cold start takes, as ``(low, high)``, from the facts.
        secrets: Fills in the values of secrets. It runs after the first survey and before the first write.
        unsaid: The error to raise before a create, where the spec leaves out a choice that has no safe default. A
            deployment that exists is reused without it.
        ends_expired: The platform deletes nothing at a ttl: the next control call of a client does.
        start: Starts a stopped deployment, where the client lets many callers share one start.
        status: What other calls of the client have just seen; ``None``: each call asks the platform itself.
    """

    io: Io
    driver: CallDriver
    namespace: str
    store: IntentStore | None
    base: str
    emit: Callable[[Event], None]
    progress: Callable[[Progress], None] | None = None
    expected: tuple[float, float] | None = None
    secrets: Callable[[DeploymentSpec], DeploymentSpec] | None = None
    unsaid: UniGPUError | None = None
    ends_expired: bool = False
    start: Callable[[DeploymentInfo, float], Awaitable[None]] | None = None
    status: SharedStatus | None = None

    @property
    def provider(self) -> str:
        return self.driver.name

    @property
    def deployer(self) -> DeployDriver:
        """The driver, where it creates and deletes deployments; raises as `deploying`."""
        return deploying(self.driver)

    def for_cleanup(self) -> Scope:
        """The same scope for deletions: their requests bypass the circuit breaker and the retry budget."""
        return replace(self, io=for_cleanup(self.io))

    def event(self, kind: str, *, deployment: str | None = None, **fields: object) -> None:
        """Emit an event. An exception of the callback is logged: the event has happened anyway."""
        event = Event(
            kind=kind, provider=self.provider, deployment=deployment, time=self.io.wall(), fields=dict(fields)
        )
        try:
            self.emit(event)
        except Exception:
            _log.exception("on_event raised for %s", kind)

    def report(self, progress: Progress) -> None:
        """Report how far a wait is. An exception of the callback is logged."""
        try:
            if self.progress is not None:
                self.progress(progress)
        except Exception:
            _log.exception("progress raised")


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The result of a deploy.

    Attributes:
        info: The deployment as last read.
        change: ``"created"`` only where the deployment carries this call's own attempt.
        spec: The requested spec, with its final name (``ephemeral`` adds a suffix).
        warnings: What the user should know, one sentence each.
    """

    info: DeploymentInfo
    change: Change
    adaptations: tuple[Adaptation, ...]
    spec: DeploymentSpec
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CallOptions:
    """How one call waits.

    Attributes:
        start_timeout: Seconds the call may wait while no worker of the deployment is ready.
        timeout: Seconds in total; ``None``: ``start_timeout`` plus ``execution_timeout``.
        execution_timeout: Seconds the handler may run.
        on_timeout: What happens to a job when the call stops waiting.
        idempotent: The handler may run twice.
        wake: Whether the call may start a worker.
        timeout_from: When ``timeout`` starts to count: at the call, or once a worker is ready (`map`).
        token: The token that the worker requires from its callers.
    """

    start_timeout: float
    timeout: float | None
    execution_timeout: float
    on_timeout: OnTimeout = "cancel"
    idempotent: bool = False
    wake: bool = True
    timeout_from: Literal["call", "ready"] = "call"
    token: SecretStr | None = field(default=None, repr=False)

    @property
    def whole(self) -> float:
        """Seconds in total."""
        return self.start_timeout + self.execution_timeout if self.timeout is None else self.timeout


def deploying(driver: CallDriver) -> DeployDriver:
    """*driver*, where it creates and deletes deployments.

    Raises:
        UnsupportedError: it only calls endpoints that exist.
    """
    if isinstance(driver, DeployDriver):
        return driver
    raise UnsupportedError(
        f"{driver.name}: this driver calls endpoints that exist; it creates, lists and deletes none",
        provider=driver.name,
        capability="deploy",
        hint='Use client.get(id="...") for an endpoint that exists.',
    )
