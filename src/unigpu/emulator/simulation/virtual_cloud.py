"""Drives an engine on a clock that a test moves, with simulated workers: a deployment's hour passes in milliseconds.

`VirtualCloud.call` answers at once, jumping through time where the engine holds the request. For callers that wait by
themselves (many tasks on one virtual clock), `begin` gives a `Pending` to ask again; the cloud is attached to the
clock, which steps it. `handle` is the same for `unigpu._io.in_memory.MemoryIo`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from unigpu._io.clock import InstantClock
from unigpu._io.contract import UNSET, Headers, Request, Response
from unigpu._io.http.prepare import encode_json
from unigpu._io.in_memory import Held
from unigpu.errors import TransportError

from ..contract import (
    Callback,
    CallbackDone,
    Dropped,
    EmulatedAPI,
    Event,
    Forward,
    ForwardDone,
    Hold,
    HttpCall,
    Persist,
    Reply,
)
from ..engine import Engine, EngineSettings
from .workers import Behavior, Simulation

__all__ = ["Behavior", "Pending", "VirtualCloud"]

_FOR_EVER: Final = 1e9
_MOST_ROUNDS: Final = 10_000


class MovedClock(Protocol):
    """A clock that is moved, and steps what is attached to it (`InstantClock`, `VirtualClock`)."""

    def now(self) -> float: ...
    def wall(self) -> float: ...
    def advance(self, seconds: float) -> None: ...
    def attach(self, step: Callable[[float], object], next_due: Callable[[], float | None]) -> Callable[[], None]: ...
    def hold(self, poll: Callable[[float], Any], until: float) -> Any: ...


class Pending:
    """A call that may have no answer yet. Ask `poll` again after each step of the clock, and at ``until``."""

    def __init__(self, cloud: VirtualCloud, answer: Reply | Dropped | Forward | Hold) -> None:
        self._cloud = cloud
        self._answer = answer
        self._reply: Reply | None = None
        self._forwarded = False

    @property
    def until(self) -> float:
        """When there will be an answer at the latest, as far as it is known."""
        return self._answer.until if isinstance(self._answer, Hold) else self._cloud.clock.now() + _FOR_EVER

    def poll(self, now: float) -> Reply | Dropped | None:
        """The answer, if there is one by now."""
        with self._cloud.lock:
            if isinstance(self._answer, Hold):
                found = self._answer.poll(now)
                if found is None:
                    return None
                self._answer = found
                self._cloud.held.pop(self, None)
            if isinstance(self._answer, Forward):
                if not self._forwarded:
                    self._forwarded = True
                    self._cloud.simulation.forward(self._answer, now, self._got)
                return self._reply
            return self._answer

    def abandon(self, now: float) -> None:
        """The caller left."""
        with self._cloud.lock:
            self._cloud.held.pop(self, None)
            if isinstance(self._answer, Hold) and self._answer.abandoned is not None:
                self._answer.abandoned(now)
            elif isinstance(self._answer, Forward) and self._reply is None:
                done = ForwardDone(worker_id=self._answer.worker_id, lease=self._answer.lease)
                self._cloud.engine.event(done, now)
            self._cloud.step(now)

    def _got(self, reply: Reply) -> None:
        self._reply = reply


class VirtualCloud:
    """An emulator in memory.

    Args:
        clock: Moved by whoever uses it; default: one of its own, on which every call returns at once. Its wall clock is
            the engine's.
        behavior: How workers behave where `behave` says nothing.
        seed, settings: The engine's.

    Attributes:
        journal: What the engine asked to persist and did not end, by kind and id: `Engine.restore` takes it back.
        callbacks: The webhooks that were called.
        receiver: Answers them with a status, or with ``None`` (no answer); by default with 200.
        effects: How many of each kind were carried out, by name.
        held: Calls that the engine holds, and until when: time does not jump over that moment.
    """

    def __init__(
        self,
        *,
        clock: MovedClock | None = None,
        behavior: Behavior | None = None,
        seed: int = 0,
        settings: EngineSettings | None = None,
    ) -> None:
        self.clock: MovedClock = clock if clock is not None else InstantClock(epoch=1_000_000.0)
        self.lock = threading.RLock()
        start = self.clock.now()
        offset = self.clock.wall() - start
        self.engine = Engine(now=start, wall=lambda now: now + offset, seed=seed, settings=settings)
        self.simulation = Simulation(self._emit, self._behavior_of)
        self.journal: dict[tuple[str, str], Persist] = {}
        self.callbacks: list[Callback] = []
        self.receiver: Callable[[Callback], int | None] = lambda _: 200
        self.effects: dict[str, int] = {}
        self.held: dict[Pending, float] = {}
        self._default = behavior or Behavior()
        self._behaviors: dict[str, Behavior] = {}
        self.detach = self.clock.attach(self.step, self.next_due)

    def mount(self, api: EmulatedAPI) -> None:
        self.engine.mount(api)

    def behave(self, name: str, behavior: Behavior) -> None:
        """How the workers of a deployment, by its id or its own name, behave from their next start on."""
        self._behaviors[name] = behavior

    def call(self, call: HttpCall, *, patience: float = 3600.0) -> Reply | Dropped:
        """The answer, however long it takes; after *patience* seconds the caller gives up."""
        pending = self.begin(call)
        started = self.clock.now()
        found: Reply | Dropped | None = self.clock.hold(pending.poll, min(pending.until, started + patience))
        while found is None and self.clock.now() < started + patience:
            # It was held for a worker and is forwarded now: that takes its own time.
            found = self.clock.hold(pending.poll, min(pending.until, started + patience))
        if found is None:
            pending.abandon(self.clock.now())
            return Dropped(how="timeout")
        return found

    def begin(self, call: HttpCall) -> Pending:
        """Hand a call to the engine."""
        with self.lock:
            now = self.clock.now()
            self.step(now)
            answer = self.engine.handle(call, now)
            pending = Pending(self, answer)
            if isinstance(answer, Hold):
                self.held[pending] = answer.until
            self.step(now)
            return pending

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    def crash(self, worker_id: str, *, reason: str = "killed by SIGKILL", cause: str | None = None) -> None:
        """Kill a worker."""
        with self.lock:
            now = self.clock.now()
            self.simulation.crash(worker_id, now, reason=reason, cause=cause)
            self.step(now)

    def step(self, now: float) -> None:
        """Carry out what is due at *now*, until nothing is."""
        with self.lock:
            for _ in range(_MOST_ROUNDS):
                happened = self.simulation.step(now)
                for effect in self.engine.tick(now):
                    happened = True
                    name = type(effect).__name__
                    self.effects[name] = self.effects.get(name, 0) + 1
                    if isinstance(effect, Persist):
                        self._persist(effect)
                    elif isinstance(effect, Callback):
                        self.callbacks.append(effect)
                        self.engine.event(
                            CallbackDone(callback_id=effect.callback_id, status=self.receiver(effect)), now
                        )
                    else:
                        self.simulation.carry_out(effect, now)
                if not happened:
                    return
            raise RuntimeError("the virtual cloud does not come to rest at one moment")

    def next_due(self) -> float | None:
        """When something happens by itself; ``None``: never."""
        with self.lock:
            dues = [due for due in (self.engine.next_due(), self.simulation.next_due()) if due is not None]
            now = self.clock.now()
            dues += [until for until in self.held.values() if until > now]
        return min(dues, default=None)

    def handle(self, request: Request) -> Response | Held:
        """For `MemoryIo`: this cloud as the other end of every request.

        Raises:
            TransportError: an injected fault closed the connection.
        """
        pending = self.begin(_http_call(request))

        def poll(now: float) -> Response | None:
            found = pending.poll(now)
            return None if found is None else _response(found, request)

        found = poll(self.clock.now())
        return found if found is not None else Held(until=request.deadline, poll=poll, abandoned=pending.abandon)

    def _behavior_of(self, deployment_id: str) -> Behavior:
        if deployment_id in self._behaviors:
            return self._behaviors[deployment_id]
        deployment = self.engine.deployments.get(deployment_id, self.clock.now())
        return self._behaviors.get(str(deployment.terms.data.get("name")), self._default)

    def _emit(self, event: Event, now: float) -> None:
        self.engine.event(event, now)

    def _persist(self, record: Persist) -> None:
        kind = record.kind.removesuffix("_gone")
        self.journal.pop((kind, record.id), None)
        if kind == record.kind:
            self.journal[kind, record.id] = record


def _http_call(request: Request) -> HttpCall:
    """A request as an emulated API sees it."""
    parts = urlsplit(request.url)
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), *request.params]
    headers = dict(Headers(request.headers))
    body = request.content or b""
    if request.json is not UNSET:
        body = encode_json(request.json, operation=request.operation)  # as it would be sent
        headers.setdefault("content-type", "application/json")
    query = urlencode(pairs)
    return HttpCall(
        method=request.method,
        path=unquote(parts.path) or "/",
        query=dict(pairs),
        headers=headers,
        body=body,
        host=parts.hostname or "",
        scheme=parts.scheme,
        target=(parts.path or "/") + (f"?{query}" if query else ""),
    )


def _response(answer: Reply | Dropped, request: Request) -> Response | None:
    """The reply that arrives; ``None``: none ever does.

    Raises:
        TransportError: the connection was closed without one.
    """
    if isinstance(answer, Reply):
        return Response(
            status=answer.status, headers=Headers(answer.headers), content=answer.body, operation=request.operation
        )
    if answer.how == "timeout":
        return None
    raise TransportError(f"{request.operation}: the connection was closed without a reply", operation=request.operation)
