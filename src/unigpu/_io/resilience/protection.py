"""What one client remembers of its providers' health and rates, shared by all of its ways to the outside.

It belongs to a client object, outlives its connections, and works on in a child of a fork.
"""

from __future__ import annotations

from typing import Final

from ..fork_lock import ForkLock
from .breaker import Breaker
from .failure_domain import keep, latest
from .rate_limit import Limiter
from .retry_budget import RetryTokens

__all__ = ["WARNING_PAUSE", "Protection"]

WARNING_PAUSE: Final = 30.0
"""Seconds between two warnings about one plane; what comes between is logged at INFO."""


class Protection:
    """See the module.

    Args:
        tokens: ``None``: repetitions cost nothing.
        breaker: ``None``: nothing is ever refused.
    """

    def __init__(
        self,
        *,
        tokens: RetryTokens | None = None,
        breaker: Breaker | None = None,
        limiter: Limiter | None = None,
    ) -> None:
        self.tokens, self.breaker, self.limiter = tokens, breaker, limiter or Limiter()
        self._warned: dict[str, float] = {}
        self._lock = ForkLock()

    @classmethod
    def usual(cls) -> Protection:
        """A client's own."""
        return cls(tokens=RetryTokens(), breaker=Breaker())

    def may_warn(self, key: str, now: float) -> bool:
        """Whether a warning about this plane is due; one that is, is taken."""
        with self._lock:
            last = latest(self._warned, key)
            if last is not None and now - last < WARNING_PAUSE:
                return False
            self._warned.pop(key, None)
            keep(self._warned, key, now)
            return True
