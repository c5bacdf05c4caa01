"""Where did this worker wake up? Each mode is a module of its own that drives a `Worker`.

A mode has two functions: ``here(environ)`` says whether this is its platform, and ``run(target, settings)`` serves
until the end and says how it ended. The first that is here is taken; HTTP is everywhere, and last.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Protocol, cast

from unigpu.worker._exit import End
from unigpu.worker._handler import Target
from unigpu.worker._settings import Settings

# In the order of asking. The platforms' own loops are added here, a line each.
MODES = (
    "unigpu.worker._runpod",
    "unigpu.worker._vast",
    "unigpu.worker._serve_http",
)


class Mode(Protocol):
    """What a mode's module has."""

    def here(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment is this platform's."""
        ...

    def run(self, target: Target, settings: Settings) -> End:
        """Serve until the end."""
        ...


def find_mode(environ: Mapping[str, str]) -> Mode:
    """The first mode that is at home in ``environ``."""
    for name in MODES:
        mode = cast("Mode", importlib.import_module(name))
        if mode.here(environ):
            return mode
    raise RuntimeError("HTTP is everywhere")
