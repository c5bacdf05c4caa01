"""`Io`s for looking without touching: one that only looks, one that notes a change instead of sending it, and one that
sends no other changes than those that were noted before.

What changes something is told by the method, and for the reads that some platforms ask for by POST or PUT by the last
word of the operation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from unigpu.errors import PlanChanged

from .contract import Io, Request, Response, StreamResponse
from .middleware import Middleware

__all__ = ["GuardedIo", "LookingIo", "Recorded", "RecordingIo", "changes", "is_rehearsal"]

_READS: Final = frozenset({"list", "get", "read", "find", "search", "query", "offers", "prices"})


class Recorded(BaseException):
    """A request that would have changed something. Not an `Exception`: no code on the way takes it for a failure."""

    def __init__(self, request: Request) -> None:
        super().__init__(request.operation)
        self.request = request


def changes(request: Request) -> bool:
    """Whether sending it may change or cost something."""
    if request.method in ("GET", "HEAD"):
        return False
    return request.operation.rpartition(".")[2] not in _READS


def is_rehearsal(io: Io) -> bool:
    """Whether a change is only noted: for the one driver whose platform must first be started to be asked."""
    return isinstance(io, RecordingIo)


class _Checked(Middleware):
    """Looks at each request before it is sent."""

    async def send(self, request: Request) -> Response:
        """As `Io.send`."""
        self._check(request)
        return await self._io.send(request)

    def stream(self, request: Request) -> AbstractAsyncContextManager[StreamResponse]:
        """As `Io.stream`."""
        self._check(request)
        return self._io.stream(request)

    def _check(self, request: Request) -> None:
        raise AssertionError(f"unreachable: {request.operation} is judged by a subclass")


class LookingIo(_Checked):
    """Sends what only reads. A change is a mistake of ours, and is never sent."""

    def _check(self, request: Request) -> None:
        if changes(request):
            raise AssertionError(f"{request.operation} ({request.method}) would change something while a plan looks")


class RecordingIo(_Checked):
    """Sends what only reads; raises `Recorded` with the first request that would change something."""

    def _check(self, request: Request) -> None:
        if changes(request):
            raise Recorded(request)


class GuardedIo(_Checked):
    """Sends only the changes that were planned, in their order. One whose answer was lost may be repeated.

    Once one was sent, cleaning up is let through: it takes back what the plan's own requests made.

    Args:
        planned: ``(method, operation)`` of each, in order.
        free: Operations that a wait may send at any time: waking.

    Raises:
        PlanChanged: another change was about to be sent. It was not.
    """

    def __init__(self, io: Io, planned: Sequence[tuple[str, str]], free: Iterable[str] = ()) -> None:
        super().__init__(io)
        self._planned = tuple(planned)
        self._free = frozenset(free)
        self._done = 0

    def _check(self, request: Request) -> None:
        if not changes(request):
            return
        asked = request.method, request.operation
        if asked in self._planned[self._done : self._done + 1]:
            self._done += 1
        elif request.operation in self._free:
            return
        elif not self._done or not (request.cleanup or asked == self._planned[self._done - 1]):
            raise PlanChanged(
                f"{request.operation} is not what the plan would send now; it was not sent",
                operation=request.operation,
                deployment=request.deployment,
                maybe_executed=False,
                hint="Plan again.",
            )
