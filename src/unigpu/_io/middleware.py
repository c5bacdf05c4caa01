"""An `Io` around another one: lets everything through, so that one built on it says only what it does differently."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from .contract import Io, Request, Response, Shield, StreamResponse

__all__ = ["Middleware"]


class Middleware:
    """See the module."""

    def __init__(self, io: Io) -> None:
        self._io = io

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        return await self._io.send(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        """As `Io.stream`."""
        return self._io.stream(request)

    async def sleep(self, seconds: float) -> None:
        """As `Io.sleep`."""
        await self._io.sleep(seconds)

    def now(self) -> float:
        """As `Io.now`."""
        return self._io.now()

    def wall(self) -> float:
        """As `Io.wall`."""
        return self._io.wall()

    def random(self) -> float:
        """As `Io.random`."""
        return self._io.random()

    @property
    def shield(self) -> Shield:
        """As `Io.shield`: handed through, so that a protected span passes no frame of a middleware."""
        return self._io.shield
