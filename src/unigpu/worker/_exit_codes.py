"""The worker's exit codes; a supervisor explains a death by them."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple, NoReturn

OK = 0  # drained after SIGTERM or SIGINT, or expired where leaving ends billing
USAGE = 2  # wrong arguments or variables, the extra is missing, or the port cannot be had
CANNOT_LOAD = 3  # the last line on stderr names the cause
STUCK = 4  # a call did not end after its timeout and grace; a new worker should take this one's place


class End(NamedTuple):
    """How a worker ended.

    Attributes:
        code: The exit code.
        reason: One line that says why, when it is not the ordinary end.
        patience: Seconds that a handler's leftovers (tasks, threads, exit functions) may hold the exit.
        abandoned: Whether a handler still runs or loads, in a thread that cannot be ended.
    """

    code: int
    reason: str | None = None
    abandoned: bool = False
    patience: float = 5.0


def explain(end: End) -> None:
    """Write the reason as the last line, for whoever has to explain this exit."""
    if end.reason is not None:
        sys.stderr.write(f"unigpu.worker: {end.reason}\n")
    sys.stdout.flush()
    sys.stderr.flush()


def leave_now(end: End) -> NoReturn:
    """End the process without the interpreter's own end.

    That would wait for a handler that still runs, or take the ground away under it, which crashes native code.
    """
    explain(end)
    os._exit(end.code)
