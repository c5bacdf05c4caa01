"""How many repetitions a client can afford: a bucket of tokens for each plane.

While most calls succeed the bucket is full and nothing changes. When most fail it empties, and then each call is sent
once: a provider in trouble gets the load of one try a call, not of four.
"""

from __future__ import annotations

from typing import Final

from ..fork_lock import ForkLock
from .failure_domain import keep, latest

__all__ = ["CAPACITY", "FIRST_SUCCESS", "REFILL", "THROTTLE_COST", "TRANSIENT_COST", "RetryTokens"]

CAPACITY: Final = 100.0
"""Tokens of a plane."""
TRANSIENT_COST: Final = 10.0
"""Tokens that a repetition after a fault or a lost answer costs."""
THROTTLE_COST: Final = 5.0
"""Tokens that a repetition after a 429 costs."""
FIRST_SUCCESS: Final = 1.0
"""Tokens that come back with a call that succeeds at once; with one that succeeds after a repetition, its cost."""
REFILL: Final = 0.1
"""Tokens that come back each second, so that a client with few calls does not stay poor for days after an outage."""


class _Purse:
    __slots__ = ("at", "tokens")

    def __init__(self, tokens: float, at: float) -> None:
        self.tokens, self.at = tokens, at


class RetryTokens:
    """The tokens of one client, for any number of threads. Times are `Io.now`'s seconds."""

    def __init__(self, *, capacity: float = CAPACITY, refill: float = REFILL) -> None:
        self._capacity, self._refill = capacity, refill
        self._purses: dict[str, _Purse] = {}
        self._lock = ForkLock()

    def take(self, key: str, cost: float, now: float) -> bool:
        """Pay for a repetition; ``False``: there is not enough, and nothing was taken."""
        with self._lock:
            purse = self._purse(key, now)
            if purse.tokens < cost:
                return False
            purse.tokens -= cost
            return True

    def credit(self, key: str, amount: float, now: float) -> None:
        """Give back after a success."""
        with self._lock:
            purse = self._purse(key, now)
            purse.tokens = min(self._capacity, purse.tokens + amount)

    def left(self, key: str, now: float) -> float:
        """Tokens that there are."""
        with self._lock:
            return self._purse(key, now).tokens

    def _purse(self, key: str, now: float) -> _Purse:
        purse = latest(self._purses, key)
        if purse is None:
            return keep(self._purses, key, _Purse(self._capacity, now))
        purse.tokens = min(self._capacity, purse.tokens + self._refill * max(0.0, now - purse.at))
        purse.at = max(purse.at, now)
        return purse
