"""What a client hands in, and what it gets back: plain data, shared by all of the lifecycle."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import SecretStr

from unigpu._io.stamp import for_cleanup
from unigpu.driver import (
    Adaptation,
    DeploymentInfo,
    DeploymentSpec,
    Driver,
    Io,
)
from unigpu.errors import UniGPUError
from unigpu.models import Change, Event, Progress

from .intents import IntentStore
from .shared_status import SharedLooks

_log = logging.getLogger("unigpu.lifecycle")

IfExists = Literal["adopt", "error", "replace"]
OnFailure = Literal["teardown", "keep"]
OnTimeout = Literal["cancel", "keep"]
Wait = bool | Literal["worker"]

UNDO_SECONDS = 120.0
"""How long undoing may take, whatever cancels it."""
CANCEL_SECONDS = 5.0
"""How long cancelling a job may hold up a caller who is leaving."""


@dataclass(frozen=True, kw_only=True)
class Scope:
    """One provider as one client sees it.

    Attributes:
        store: Where intents are kept; ``None``: nowhere (recovery then relies on finding alone).
        base: The provider's base URL: an intent of another base is not ours to judge.
        emit: Gets every event.
        progress: Gets every look of a wait (often with an unchanged phase).
        expected: Seconds a cold start takes, as ``(low, high)``, by the facts.
        secrets: Fills in the secrets' values: called after *find* and before the first write only.
        unsaid: What of the spec must be said before something is created; what exists is adopted without it.
        ends_expired: Nobody ends a deployment at its ttl but the next control call of a client.
        start: Starts a stopped deployment, where the client lets many callers share one start.
        looks: What other calls of the client have just seen; ``None``: each looks for itself.
    """

    io: Io
    driver: Driver
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
    looks: SharedLooks | None = None

    @property
    def provider(self) -> str:
        return self.driver.name

    def for_cleanup(self) -> Scope:
        """The same, for what ends things: its requests pass the breaker and the retry tokens by."""
        return replace(self, io=for_cleanup(self.io))

    def event(self, kind: str, *, deployment: str | None = None, **fields: object) -> None:
        """Tell of an event. A callback that raises is logged: what it is told of has happened all the same."""
        event = Event(
            kind=kind, provider=self.provider, deployment=deployment, time=self.io.wall(), fields=dict(fields)
        )
        try:
            self.emit(event)
        except Exception:
            _log.exception("on_event raised for %s", kind)

    def tell(self, progress: Progress) -> None:
        """Tell how far a wait is; as `event`."""
        try:
            if self.progress is not None:
                self.progress(progress)
        except Exception:
            _log.exception("progress raised")


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What a deploy came to.

    Attributes:
        info: The deployment as last read.
        change: ``"created"`` only where what exists carries this call's own attempt.
        spec: What was asked, with the name it really got (``ephemeral`` adds a suffix).
        warnings: What the user should hear, a sentence each.
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
        start_timeout: Seconds it may wait while no worker of the deployment is ready.
        timeout: Seconds in all; ``None``: ``start_timeout`` and ``execution_timeout`` together.
        execution_timeout: Seconds the handler may run.
        on_timeout: What becomes of a job when we stop waiting.
        idempotent: It may run twice.
        wake: Whether it may start a worker.
        timeout_from: From when ``timeout`` counts: the call, or the moment a worker is ready (`map`).
        token: What the worker asks its callers for.
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
        """Seconds in all."""
        return self.start_timeout + self.execution_timeout if self.timeout is None else self.timeout
