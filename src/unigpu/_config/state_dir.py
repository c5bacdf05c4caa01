"""What a running mock changes in every client of its process: the state directory, and how long workers start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

_worlds: Final[list[Path]] = []  # state directories of the mocks that run, the innermost last
_starts: Final[list[Callable[[], float]]] = []  # of the same mocks: the longest start of a worker, in seconds


@contextlib.contextmanager
def mocked(folder: Path, longest_start: Callable[[], float]) -> Generator[None]:
    """While the block runs, clients that were made before it keep their state in *folder*, and calls that state no
    ``start_timeout`` wait for starts as long as *longest_start* says."""
    _worlds.append(folder)
    _starts.append(longest_start)
    try:
        yield
    finally:
        _worlds.remove(folder)
        _starts.remove(longest_start)


def world() -> Path | None:
    """The state directory of the innermost mock; ``None``: no mock runs."""
    return _worlds[-1] if _worlds else None


def state_now(own: Path, made_in: Path | None) -> Path:
    """Where a client keeps its state that has *own* and was made in the mock *made_in*."""
    now = world()
    return own if now is None or now == made_in else now


def longest_start() -> float | None:
    """Seconds of the longest start in the mocks that run; ``None``: no mock runs."""
    return max((longest() for longest in _starts), default=None)


def ended(made_in: Path | None) -> bool:
    """Whether that mock is over."""
    return made_in is not None and made_in not in _worlds
