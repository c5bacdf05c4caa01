"""How often a driver's states are worth a look, and how a shielded span ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from unigpu._io.poll import STATE_PACE
from unigpu.driver import Driver, Io, Pace, Paced
from unigpu.errors import DeadlineExceeded

T = TypeVar("T")


def state_pace(driver: Driver) -> Pace:
    """The pace of looking at a deployment's state: the driver's own where looking costs nothing."""
    return driver.state_pace if isinstance(driver, Paced) else STATE_PACE


async def shielded(io: Io, work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """`Io.shield`, whose own time limit ends in an error of ours.

    Raises:
        DeadlineExceeded: *work* did not end within *seconds*.
    """
    try:
        return await io.shield(work, seconds=seconds)
    except DeadlineExceeded:
        raise
    except TimeoutError:
        raise DeadlineExceeded(f"not done within {seconds:.3g} s", stop_reason="deadline") from None
