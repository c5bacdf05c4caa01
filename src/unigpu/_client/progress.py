"""What a wait tells a person: one line that is rewritten on a terminal or in a notebook, else one record a phase."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Final, Literal

from unigpu.errors import ConfigurationError
from unigpu.models import Progress
from unigpu.models.deployment import usd

ProgressMode = Literal["auto", "off"] | Callable[[Progress], None]

_MODES: Final = ("auto", "off")
_log: Final = logging.getLogger("unigpu.client")


def person_watches() -> bool:
    """Whether stderr is read by a person now: a terminal, or a notebook's cell."""
    if "ipykernel" in sys.modules:
        return True
    try:
        return sys.stderr is not None and sys.stderr.isatty()  # pyright: ignore[reportUnnecessaryComparison] - pythonw
    except ValueError:  # it was closed
        return False


class Reporter:
    """Receives `Progress` and shows it as *mode* says. `close` ends the line, so that what follows starts fresh.

    Raises:
        ConfigurationError: *mode* is neither ``"auto"``, ``"off"`` nor callable.
    """

    def __init__(self, mode: ProgressMode) -> None:
        if not callable(mode) and mode not in _MODES:
            raise ConfigurationError('progress: give "auto", "off", or a function that takes a Progress.')
        self._call = mode if callable(mode) else None
        self._show = mode == "auto" and person_watches()
        self._log = mode == "auto" and not self._show
        self._phase: str | None = None
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        if self._call is not None:
            try:
                self._call(progress)
            except Exception:  # an observer's own fault must not undo a deploy
                _log.exception("the progress function failed, and is not called again")
                self._call = None
        elif self._show:
            line = describe(progress)
            _write("\r" + line.ljust(self._width))
            self._width = len(line)
        elif self._log and progress.phase != self._phase:
            self._phase = progress.phase
            _log.info("%s", describe(progress))

    def listens(self, phase: str) -> bool:
        """Whether a `Progress` of that phase would be shown or recorded now."""
        return self._call is not None or self._show or (self._log and phase != self._phase)

    def close(self) -> None:
        if self._width:
            _write("\n")
            self._width = 0

    def say(self, line: str, *, warn: bool = False) -> None:
        """One whole line: to the person who watches, else to the log."""
        self.close()
        if self._show:
            _write(line + "\n")
        else:
            _log.log(logging.WARNING if warn else logging.INFO, "%s", line)


def describe(progress: Progress) -> str:
    """``summarize on local: starting, 3 s (usually 1–5 s), $1.20/h, $0.00 so far``."""
    text = f"{progress.deployment} on {progress.provider}: {progress.phase}, {progress.elapsed:.0f} s"
    if progress.expected is not None:
        low, high = progress.expected
        text += f" (usually {low:.0f}–{high:.0f} s)"
    if progress.rate is not None:
        text += f", {usd(progress.rate)}/h"
    if progress.spent is not None:
        text += f", ${progress.spent:.2f} so far"
    return text + (f": {progress.message}" if progress.message else "")


def _write(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):  # a line that cannot be shown is no reason to fail a deploy
        _log.debug("stderr cannot be written")
