"""What the engine, its emulated APIs and its three drivers say to each other. Standard library only, and no I/O.

The engine is pure: state, events, and a clock handed in. An *emulated API* translates one platform's HTTP into engine
calls. Something drives it: `simulation` (virtual time, simulated workers), `server` (ASGI on real time), `supervisor`
(the server with real worker processes). The driver carries out the *effects* that `Engine.tick` returns, and reports
*events*.
"""

from __future__ import annotations

import json as _json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JSON = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCall:
    """A request as an emulated API sees it. Header names are lower case; ``host`` is without a port.

    Attributes:
        path: Decoded, without the query.
        target: Path and query as they were sent, still encoded; a `Forward` passes it on. Empty: made from the others.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict[str, str])
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    body: bytes = field(default=b"", repr=False)
    host: str = ""
    scheme: str = "http"
    target: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole answer."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)

    @classmethod
    def json(cls, value: JSON, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
        try:
            body = _json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
        except UnicodeEncodeError:  # half a surrogate pair, as a handler may return it: only its escape is UTF-8
            body = _json.dumps(value, separators=(",", ":")).encode()
        return cls(status=status, headers=(("content-type", "application/json"), *headers), body=body)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """Hand this request to a worker's own port, and stream its answer back.

    The driver reports `ForwardDone` with the lease when the answer ended or the caller left.

    Attributes:
        marks: Headers of the worker's answer, besides its own: what a program before its server adds.
    """

    worker_id: str
    lease: str
    call: HttpCall
    marks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """No answer, on purpose (an injected fault).

    ``how``: ``"drop"``: close the connection at once; ``"timeout"``: never answer, until the caller gives up.
    """

    how: Literal["drop", "timeout"] = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Not yet: ask *poll* again after each change and at *until*, when it must answer.

    *poll* gets the time and returns the answer, or ``None`` for "still not" (never at or after *until*).
    """

    until: float
    poll: Callable[[float], Reply | Forward | Dropped | None]
    abandoned: Callable[[float], None] | None = None
    """Called when the caller left before an answer."""


Answer = Reply | Forward | Hold | Dropped


# What the engine wants done (effects).


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How a worker of a deployment is started, as its platform was told. The engine itself does not read it.

    Attributes:
        argv: The command; empty where the handler runs in a portable worker of ours.
        handler: ``module:name`` or ``file.py:name``.
        env: Declared environment only.
        cwd: Working directory.
        python: The interpreter that runs a handler.
        per_worker: Variables that differ by worker, names and values with ``{worker}`` (its id), ``{number}`` (the
            same as a number), ``{port}`` (the port that it was given) and ``{second}`` (one more, where it runs two
            servers). They win over ``env``.
        health: The path that answers 200 when the server takes requests; ``None``: as soon as it listens.
        reports: The worker tells its platform by itself when it is ready, so its port is not probed; the emulated API
            reports `WorkerReady` then.
    """

    argv: tuple[str, ...] = ()
    handler: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    cwd: str | None = None
    python: str | None = None
    per_worker: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    health: str | None = None
    reports: bool = False
    extra: Mapping[str, JSON] = field(default_factory=dict[str, JSON])


@dataclass(frozen=True, slots=True, kw_only=True)
class StartWorker:
    worker_id: str
    deployment_id: str
    launch: Launch


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWorker:
    """Stop it: ask it to end, and kill it after *grace* seconds."""

    worker_id: str
    grace: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """Give a job to a worker that takes jobs by HTTP; answer with `Chunk` and `JobDone` events."""

    worker_id: str
    job_id: str
    input: JSON = field(repr=False)
    execution_timeout: float
    stream: bool = False
    extra: Mapping[str, JSON] = field(default_factory=dict[str, JSON], repr=False)
    """What the platform sends with it, where it has such a thing. With ``path``, the input alone is the whole body,
    posted there with ``headers``, and a 2xx answer's body is the output: a platform that does not know our envelope."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelPush:
    """Stop a job that was pushed: close its connection."""

    worker_id: str
    job_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """Call a user's webhook; the driver reports `CallbackDone`."""

    callback_id: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Write a record that must survive a crash, before the answer that depends on it leaves.

    ``kind``: ``"deployment"``, ``"deployment_gone"``, ``"job"``, ``"job_gone"``.
    """

    kind: str
    id: str
    record: Mapping[str, JSON] = field(default_factory=dict[str, JSON], repr=False)


WorkerEffect = StartWorker | StopWorker | Push | CancelPush
Effect = WorkerEffect | Callback | Persist


# What happened (events).


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    worker_id: str
    address: str | None = None
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted:
    """The process exists; it is not ready yet."""

    worker_id: str
    pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited:
    """The worker is gone. ``reason`` in words, as in ``"killed by SIGKILL"``; ``cause`` as `WorkerFailed.reason`."""

    worker_id: str
    code: int | None = None
    reason: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLog:
    worker_id: str
    text: str
    stream: str = "stdout"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDone:
    """The worker answered. ``lost``: it died instead. ``busy``: it did not take it. ``size``: the answer's bytes."""

    worker_id: str
    job_id: str
    output: JSON = field(default=None, repr=False)
    error: Mapping[str, JSON] | None = field(default=None, repr=False)
    execution_s: float | None = None
    size: int = field(default=0, compare=False)
    lost: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    worker_id: str
    job_id: str
    value: JSON = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardDone:
    worker_id: str
    lease: str
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackDone:
    callback_id: str
    status: int | None


Event = WorkerReady | WorkerStarted | WorkerExited | WorkerLog | JobDone | Chunk | ForwardDone | CallbackDone


class EmulatedAPI(Protocol):
    """One platform's wire protocol over the engine. It only translates, and never imports a driver.

    Attributes:
        name: The platform.
        hosts: Host names that it answers for, in memory and under a mock; ``.name`` is every name under it. The first
            is the platform's own.

    An emulated API may also have ``operations``, the names of all its routes (without its own): a mock then refuses a
    fault for a route that does not exist.
    """

    name: str
    hosts: tuple[str, ...]

    def operation(self, call: HttpCall) -> str | None:
        """The name of the route that *call* is for, as in ``"local.deployment.put"``; ``None``: there is none."""
        ...

    def handle(self, call: HttpCall, now: float) -> Answer: ...


class Backend(Protocol):
    """Carries out what the engine wants done with workers, and reports events."""

    def carry_out(self, effect: WorkerEffect) -> None:
        """Begin it; never blocks, never raises."""
        ...

    def address(self, worker_id: str) -> tuple[str, int] | None:
        """Where a worker listens; ``None``: it does not, any more."""
        ...

    async def close(self, *, grace: float) -> None:
        """Stop every worker, and return when none is left."""
        ...


def worker_number(worker_id: str) -> int:
    """A worker's id as a number, for platforms whose ids are numbers; 0 where it is none of ours."""
    try:
        return int(worker_id.rpartition("-")[2], 16)
    except ValueError:
        return 0
