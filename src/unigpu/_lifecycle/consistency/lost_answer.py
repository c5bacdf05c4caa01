"""After a create whose answer was lost, on a platform that only lists: look for it, again and again, for a while."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unigpu.driver import Found, Io, Resource
from unigpu.errors import (
    InvalidResponseError,
    ProviderUnavailableError,
    RateLimitError,
    TransportError,
    UniGPUError,
)

from .survey import ABSENT, age

_log = logging.getLogger("unigpu.lifecycle")

_STEPS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two looks; the last one repeats."""
_BETWEEN: Final = 0.5
_FAILURES: Final = 5
_NO_NEWS: Final = (TransportError, RateLimitError, ProviderUnavailableError, InvalidResponseError)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a list came to show.

    Attributes:
        mine: What carries the attempt, oldest first.
        others: What appeared meanwhile and carries another attempt, or none that can be read.
        settled: Whether looking told: it is there, or it certainly is not in the list.
        error: Why the list could not be read, where that was it.
    """

    mine: Sequence[Found] = ()
    others: Sequence[Found] = ()
    settled: bool = True
    error: UniGPUError | None = None


async def look_for(
    io: Io, resource: Resource, attempt: str, *, before: frozenset[str], deadline: float, seconds: float | None = None
) -> Look:
    """Look for what carries *attempt* until it is seen, or the resource's settle window has passed without it.

    Args:
        before: Ids of this name that existed before the create.
        seconds: Another window than the resource's own.

    Raises:
        UniGPUError: the list is refused (a key that is not valid any more).
    """
    window = resource.consistency.settle if seconds is None else seconds
    ends = io.now() + window
    absent = failures = turn = 0
    while True:
        delay = _STEPS[min(turn, len(_STEPS) - 1)]
        now = io.now()
        if now + delay > ends:
            delay = max(_BETWEEN, ends - now)
        if now + delay > deadline:
            return Look(settled=False)
        await io.sleep(delay)
        turn += 1
        try:
            seen = sorted(await resource.find(io, deadline=deadline), key=age)
        except _NO_NEWS as exc:
            _log.info("looking for a %s: the list could not be read: %s", resource.kind, exc)
            absent, failures = 0, failures + 1
            if failures >= _FAILURES and io.now() >= ends:
                return Look(settled=False, error=exc)
            continue
        failures = 0
        mine = [one for one in seen if one.attempt == attempt]
        if mine:
            return Look(mine=mine)
        others = [one for one in seen if one.id not in before]
        absent += 1
        if absent >= ABSENT and io.now() >= ends:
            return Look(others=others)
