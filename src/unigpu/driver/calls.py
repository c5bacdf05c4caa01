"""What a driver gets for one call, and what it gives back beside a `JobInfo` or a `Result`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

__all__ = ["ChunkPage", "HTTPCall", "Invocation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of a function deployment.

    Attributes:
        input: Put it into ``Request.json`` as it is, alone or inside of an envelope: it is encoded already, and a copy
            would be encoded again.
        job_id: Our own id, for platforms that take one: a repeated submit is then harmless.
        deadline: On `Io.now`'s clock; the whole call.
        start_deadline: By when a worker must be ready, where the platform itself holds the call (no job API).
        execution_timeout: Seconds the handler may run.
        idempotent: It may safely run twice.
        hold: Seconds for which a submit may be held until the job has ended, because its caller waits anyway; 0: it
            returns at once.
        token: What the deployment's own worker asks its callers for, where its spec says ``auth=BearerToken(...)``.
    """

    input: Mapping[str, Any] = field(repr=False)
    job_id: str
    deadline: float
    start_deadline: float
    execution_timeout: float
    idempotent: bool = False
    hold: float = 0.0
    token: SecretStr | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkPage:
    """Some chunks of a stream.

    Attributes:
        after: The cursor for the next page.
        end: No more will come.
        ready_workers: Workers of the deployment that are ready, where the platform tells with it.
        started: Whether a worker has taken the job, where the platform tells with it.
    """

    chunks: tuple[Any, ...] = ()
    after: int = 0
    end: bool = False
    ready_workers: int | None = None
    started: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPCall:
    """One request to an http deployment: the user's own server.

    Attributes:
        target: Path and query, encoded: ``"/v1/models?limit=3"``.
        headers: The caller's; none that belongs to one connection, and none of ours.
        deadline: On `Io.now`'s clock; the whole, the body included.
        hold: Seconds for which the platform may hold it while no worker is ready and free.
        wake: Whether it may start a stopped deployment.
        idempotent: It may safely run twice.
        read_timeout: Seconds without a byte after which it is given up, beyond *hold*; ``None``: the deadline alone.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    content: bytes | None = field(default=None, repr=False)
    deadline: float
    hold: float
    wake: bool = True
    idempotent: bool = False
    read_timeout: float | None = None
