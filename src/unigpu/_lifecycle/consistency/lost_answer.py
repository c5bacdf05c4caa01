"""After a request whose answer was lost: whether the platform may have acted, and what a create really made.

A platform that only lists shows a new resource late, so one list without it proves nothing. The list is read again and
again for the resource's settle window.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from unigpu.driver import Found, Io, Resource
from unigpu.errors import (
    DeadlineExceeded,
    InvalidResponseError,
    ProviderUnavailableError,
    RateLimitError,
    TransportError,
    UniGPUError,
)

from .absence import ABSENT_READS
from .survey import age

_log = logging.getLogger("unigpu.lifecycle")

_STEPS: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two reads of the list; the last one repeats."""
_BETWEEN: Final = 0.5
_FAILURES: Final = 5
_NO_NEWS: Final = (TransportError, RateLimitError, ProviderUnavailableError, InvalidResponseError)


def may_have_acted(error: UniGPUError) -> bool:
    """Whether the platform may have executed the request although it ended in this error."""
    if error.maybe_executed is not None:
        return error.maybe_executed
    return isinstance(error, TransportError | ProviderUnavailableError | InvalidResponseError | DeadlineExceeded)


@dataclass(frozen=True, kw_only=True)
class LostCreateCheck:
    """What the list showed after a create without an answer.

    Attributes:
        mine: Resources that carry the attempt, oldest first.
        others: Resources that appeared meanwhile and carry another attempt, or none that can be read.
        settled: Whether the answer is certain: the resource exists, or the list certainly does not show it.
        error: Why the list could not be read, if that was the reason.
    """

    mine: Sequence[Found] = ()
    others: Sequence[Found] = ()
    settled: bool = True
    error: UniGPUError | None = None


async def check_lost_create(
    io: Io, resource: Resource, attempt: str, *, before: frozenset[str], deadline: float
) -> LostCreateCheck:
    """Read the list until it shows *attempt*, or until the resource's settle window has passed without it.

    Args:
        before: Ids of this name that existed before the create.

    Raises:
        UniGPUError: the platform refuses to list (the key is not valid any more).
    """
    ends = io.now() + resource.consistency.settle
    absent = failures = turn = 0
    while True:
        delay = _STEPS[min(turn, len(_STEPS) - 1)]
        now = io.now()
        if now + delay > ends:
            delay = max(_BETWEEN, ends - now)
        if now + delay > deadline:
            return LostCreateCheck(settled=False)
        await io.sleep(delay)
        turn += 1
        try:
            seen = sorted(await resource.find(io, deadline=deadline), key=age)
        except _NO_NEWS as exc:
            _log.info("the list of %ss could not be read after a lost answer: %s", resource.kind, exc)
            absent, failures = 0, failures + 1
            if failures >= _FAILURES and io.now() >= ends:
                return LostCreateCheck(settled=False, error=exc)
            continue
        failures = 0
        mine = [one for one in seen if one.attempt == attempt]
        if mine:
            return LostCreateCheck(mine=mine)
        absent += 1
        if absent >= ABSENT_READS and io.now() >= ends:
            return LostCreateCheck(others=[one for one in seen if one.id not in before])
