"""The one waiting loop: ask, and ask again less and less often, until there is an answer or the deadline.

A tick that fails is no news: the thing that is waited for goes on. Five failures in a row, or failures for 60 s, raise.
A reply that was read and makes no sense is news: asking again would bring the same, so it raises at once.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from unigpu.errors import (
    DeadlineExceeded,
    InvalidResponseError,
    ProviderUnavailableError,
    RateLimitError,
    TransportError,
    UniGPUError,
)

from .contract import Io

T = TypeVar("T")

_log = logging.getLogger("unigpu.poll")

FAILURES: Final = 5
"""Failed ticks in a row that are too many."""
SILENCE: Final = 60.0
"""Seconds of failed ticks that are too long."""
_NO_NEWS: Final = (TransportError, RateLimitError, ProviderUnavailableError, InvalidResponseError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to wait between two ticks: a fraction of the time elapsed, within limits, give or take *jitter*.

    Attributes:
        fraction: Of the seconds elapsed since the wait began.
        floor: Seconds at least.
        cap: Seconds at most.
        jitter: 0.2 means ± 20 %, so that many clients do not ask in step.
    """

    fraction: float = 0.1
    floor: float
    cap: float
    jitter: float = 0.0

    def delay(self, elapsed: float, random: float) -> float:
        """Seconds until the next tick; *random* in [0, 1)."""
        plain = min(self.cap, max(self.floor, self.fraction * elapsed))
        return plain * (1 + self.jitter * (2 * random - 1))


JOB_PACE: Final = Pace(floor=0.05, cap=5.0)
"""Jobs: 10 % of the time elapsed, 50 ms to 5 s."""
STATE_PACE: Final = Pace(floor=1.0, cap=5.0, jitter=0.2)
"""Control states: 1 to 5 s, ± 20 %."""


async def poll(
    io: Io,
    tick: Callable[[], Awaitable[T | None]],
    *,
    deadline: float,
    pace: Pace = JOB_PACE,
    hint: Callable[[], float | None] | None = None,
    held: bool = False,
    min_interval: float | Callable[[], float] = 0.0,
    what: str = "the answer",
    provider: str | None = None,
    deployment: str | None = None,
) -> T:
    """Call *tick* until it gives something other than ``None``.

    Args:
        tick: One look. ``None``: not yet.
        deadline: On `Io.now`'s clock.
        pace: How long to wait between two looks.
        hint: After a look, seconds until the next one is worth it, where something better than the pace knows.
        held: The platform holds a look open until there is news, or a while: what a look took counts as waited.
        min_interval: Seconds between the starts of two looks at least: half of a documented rate, over all open jobs.
        what: For the error text: "job 123".

    Raises:
        DeadlineExceeded: nothing by the deadline.
        UniGPUError: a tick's own error, at once; or the last of too many failed ticks.
    """
    start = io.now()
    failures, failing_since = 0, start
    while True:
        asked, floor = io.now(), 0.0
        try:
            found = await tick()
        except _NO_NEWS as exc:
            failures += 1
            failing_since = asked if failures == 1 else failing_since
            if not _is_no_news(exc, failures, io.now() - failing_since) and io.now() < deadline:
                raise
            _log.debug("no news of %s (%d in a row): %s", what, failures, type(exc).__name__)
            floor = getattr(exc, "retry_after", None) or 0.0
            error: UniGPUError | None = exc
        else:
            if found is not None:
                return found
            failures, error = 0, None
        now = io.now()
        advice = hint() if hint is not None and error is None else None
        delay = pace.delay(now - start, io.random()) if advice is None else max(0.0, advice)
        if held and error is None:
            delay = max(0.0, delay - (now - asked))
        least = min_interval() if callable(min_interval) else min_interval
        delay = max(delay, floor, least - (now - asked))
        if now + delay >= deadline:
            await io.sleep(max(0.0, deadline - now))
            raise DeadlineExceeded(
                f"{what} did not come within {deadline - start:.3g} s",
                provider=provider,
                deployment=deployment,
                stop_reason="deadline",
            ) from error
        await io.sleep(delay)


def _is_no_news(error: UniGPUError, failures: int, seconds: float) -> bool:
    refused = isinstance(error, TransportError) and error.never_sent and not error.retryable
    misread = isinstance(error, InvalidResponseError) and not error.retryable
    return not (refused or misread) and failures < FAILURES and seconds < SILENCE
