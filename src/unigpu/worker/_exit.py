"""The worker's exit codes; a supervisor explains a death by them."""

from __future__ import annotations

from typing import NamedTuple

OK = 0  # drained after SIGTERM or SIGINT, or expired where leaving ends billing
USAGE = 2  # wrong arguments or variables, the extra is missing, or the port cannot be had
CANNOT_LOAD = 3  # the last line on stderr names the cause
STUCK = 4  # a call did not end after its timeout and grace; a new worker should take this one's place


class End(NamedTuple):
    """How a worker ended.

    Attributes:
        code: The exit code.
        reason: One line that says why, when it is not the ordinary end.
        abandoned: Whether a handler still runs (or loads) in a thread, which cannot be ended.
    """

    code: int
    reason: str | None = None
    abandoned: bool = False
