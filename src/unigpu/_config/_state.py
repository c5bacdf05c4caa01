"""Whose state directory holds: while a mock runs, its own, also for clients that were made before it."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import Final

_worlds: Final[list[Path]] = []  # state directories of the mocks that run, the innermost last


@contextlib.contextmanager
def keep_state_in(folder: Path) -> Generator[None]:
    """While the block runs, clients that were made before it keep their state in *folder*. For mocks."""
    _worlds.append(folder)
    try:
        yield
    finally:
        _worlds.remove(folder)


def world() -> Path | None:
    """The state directory of the innermost mock; ``None``: no mock runs."""
    return _worlds[-1] if _worlds else None


def state_now(own: Path, made_in: Path | None) -> Path:
    """Where a client keeps its state that has *own* and was made in the mock *made_in*."""
    now = world()
    return own if now is None or now == made_in else now


def ended(made_in: Path | None) -> bool:
    """Whether that mock is over."""
    return made_in is not None and made_in not in _worlds
