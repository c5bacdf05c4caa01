"""An `Io` that stamps what is sent through it, so that code in between need not know why it was called.

Cleaning up (undo, teardown, cancel, gc) must never be refused because earlier calls failed: what it would leave behind
bills. And a wait within a wait ends with the outer one: of two deadlines the earlier counts.
"""

from __future__ import annotations

import math
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

from .contract import Io, Request, Response, StreamResponse
from .middleware import Middleware

__all__ = ["RequestDefaults", "for_cleanup", "within"]


class RequestDefaults(Middleware):
    """See the module.

    Args:
        cleanup: Whether its requests pass breaker and retry tokens by (`Request.cleanup`).
        deadline: None of its requests ends later.
    """

    def __init__(self, io: Io, *, cleanup: bool = False, deadline: float = math.inf) -> None:
        super().__init__(io)
        self.cleanup, self.deadline = cleanup, deadline

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        return await self._io.send(self._stamped(request))

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        """As `Io.stream`."""
        return self._io.stream(self._stamped(request))

    def _stamped(self, request: Request) -> Request:
        cleanup, deadline = request.cleanup or self.cleanup, min(request.deadline, self.deadline)
        if (cleanup, deadline) == (request.cleanup, request.deadline):
            return request
        return replace(request, cleanup=cleanup, deadline=deadline)


def for_cleanup(io: Io) -> Io:
    """*io* for what ends things."""
    return io if isinstance(io, RequestDefaults) and io.cleanup else RequestDefaults(io, cleanup=True)


def within(io: Io, deadline: float) -> Io:
    """*io* for calls that must all be over by *deadline*, whatever deadline of their own they have."""
    return RequestDefaults(io, deadline=deadline)
