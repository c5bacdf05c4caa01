"""What `client` asks of whatever carries a request: a pool of ours, or a transport that the user hands in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from .prepare import Prepared

__all__ = ["Raw", "SendTiming", "Wire"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTiming:
    """How long one attempt may take.

    Attributes:
        connect: Seconds for name, connection and TLS together.
        read: Seconds without a byte.
        write: Seconds for one write.
        pool: Seconds in the line for a connection.
        until: On `time.monotonic`: when all of it must be over.
        max_idle: A connection that was idle for longer is not used; ``None``: any that is still open.
    """

    connect: float
    read: float
    write: float
    pool: float
    until: float
    max_idle: float | None = None

    def extension(self) -> dict[str, float]:
        """As httpx and httpcore carry it."""
        return {"connect": self.connect, "read": self.read, "write": self.write, "pool": self.pool}


class Raw(Protocol):
    """A reply as it comes from the wire: nothing decoded, nothing checked."""

    status: int
    headers: list[tuple[str, str]]

    async def next(self) -> bytes | None:
        """The next bytes of the body; ``None``: it ended."""
        ...

    async def close(self) -> None:
        """Give the connection back, or close it where the body was not read whole. Safe to call twice."""
        ...


class Wire(Protocol):
    """Carries requests. The synchronous ones never suspend."""

    async def open(self, prepared: Prepared, timing: SendTiming, extensions: dict[str, Any]) -> Raw: ...
    async def close(self) -> None: ...
