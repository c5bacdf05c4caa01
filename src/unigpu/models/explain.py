"""Why a deployment is not ready, as data."""

from __future__ import annotations

from typing import Literal

from ._model_kinds import Data
from .deployment import LogLine, State, Worker

Cause = Literal[
    "ready", "cold", "creating", "starting", "slow_start", "image_pull", "crash_loop", "probe", "out_of_memory",
    "host_lost", "unknown", "stopped", "deleting", "no_workers_allowed", "no_capacity",
]  # fmt: skip


class Explanation(Data):
    """Why it is not ready (or that it is), with what says so.

    Attributes:
        cause: ``ready``, ``cold`` (a request wakes it), ``creating``, ``starting`` (within the usual time),
            ``slow_start`` (longer than that), ``stopped``, ``deleting``, ``no_workers_allowed``, ``no_capacity`` (no
            host has room for one), or why workers fail: ``image_pull``, ``crash_loop``, ``probe``, ``out_of_memory``,
            ``host_lost``, ``unknown``.
        text: The same, in a sentence.
        evidence: What was seen, a fact a line.
        next_step: What to do.
        logs: The last lines of the worker that failed, or that starts.
    """

    deployment: str
    provider: str
    state: State
    cause: Cause
    text: str
    evidence: tuple[str, ...] = ()
    next_step: str = ""
    workers: tuple[Worker, ...] = ()
    logs: tuple[LogLine, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.deployment} on {self.provider}: {self.text}"]
        lines += [f"  - {one}" for one in self.evidence]
        lines += [f"  | {line}" for line in self.logs]
        return "\n".join([*lines, f"  Next: {self.next_step}"] if self.next_step else lines)
