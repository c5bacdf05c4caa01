"""How one sending ended."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from unigpu.errors import TransportError

from ..contract import Headers, Outcome, Request, Response
from ..status import outcome, retry_after

__all__ = ["ReplyHead", "SendOutcome", "evidence"]

_IMPATIENT = 5.0  # seconds: a caller who leaves earlier has learnt nothing about the provider


class ReplyHead(Protocol):
    """The part of a reply that is there before its body."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...


class SendOutcome:
    """How one sending ended, and the class that it belongs to.

    Attributes:
        drop: Gives up a reply that is not wanted (an open stream).
        wall: `Io.wall` when it ended, for a hint that is a date.
        foreign: As `Request.foreign`: any reply is an answer.
        hint: Seconds that the provider asked to wait.
        size: Bytes of the body, where it is here.
    """

    __slots__ = ("drop", "error", "hint", "known", "reply", "size", "status")

    def __init__(
        self,
        reply: ReplyHead | None = None,
        error: TransportError | None = None,
        drop: Callable[[], Awaitable[object]] | None = None,
        wall: float | None = None,
        *,
        foreign: bool = False,
    ) -> None:
        self.reply, self.error, self.drop = reply, error, drop
        self.status = reply.status if reply is not None else None
        self.size = len(reply.content) if isinstance(reply, Response) else None
        if error is not None:
            self.known = outcome(error)
        elif foreign:
            self.known = Outcome.DONE
        else:
            self.known = outcome(Response(status=self.status or 0, headers=Headers()))
        self.hint = retry_after(reply.headers, wall=wall) if reply is not None and reply.status >= 400 else None

    @property
    def words(self) -> str:
        """It, in two words, for a log."""
        return f"HTTP {self.status}" if self.error is None else type(self.error).__name__


def evidence(request: Request, end: SendOutcome, seconds: float) -> bool | None:
    """Whether this sending shows that the provider answers, or that it does not; ``None``: neither.

    A caller's own deadline says little: it may have been short, or the call long. It counts where nothing came for
    `_IMPATIENT` seconds on the control plane, or while connecting.
    """
    if end.known is Outcome.DONE or end.known is Outcome.REJECTED:
        return True
    if request.reroutes and end.known is Outcome.NEVER_SENT:
        return None
    if end.error is not None and end.error.stop_reason == "deadline":
        slow = end.known is Outcome.NEVER_SENT or request.role in ("control", "create")
        return False if slow and seconds >= _IMPATIENT else None
    return False
