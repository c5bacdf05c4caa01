"""What `serve` and ``python -m unigpu.worker`` share: settings, the platform that this worker woke up on, and its end.

A mode is a module that serves on one platform. It has two functions: ``here(environ)`` says whether this is its
platform, and ``run(target, settings)`` serves until the end and says how it ended. The first that is here is taken;
HTTP is everywhere, and last.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import Mapping
from typing import Protocol, cast

from unigpu.errors import ConfigurationError, WorkerFailed
from unigpu.worker._exit_codes import OK, End
from unigpu.worker._handler import Target
from unigpu.worker._settings import Settings, read_settings

INSTALL = 'pip install "unigpu[worker]"'

# In the order of asking. The platforms' own loops are added here, a line each.
MODES = (
    "unigpu.worker._runpod",
    "unigpu.worker._vast",
    "unigpu.worker._http_server",
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


def run(target: Target, *, port: int | None, host: str | None) -> End:
    """Serve until the end, and say how it ended.

    Raises:
        ConfigurationError: Before anything is served.
    """
    with contextlib.suppress(RuntimeError):
        asyncio.get_running_loop()
        raise ConfigurationError("serve() runs an event loop of its own: call it from plain code, not from async code.")
    settings = read_settings(os.environ, port=port, host=host)
    try:
        mode = find_mode(os.environ)
    except ImportError as error:
        needed = error.name or "a package"
        raise ConfigurationError(f"The worker needs {needed}, which is not installed here: {INSTALL}") from None
    return mode.run(target, settings)


def serve(target: Target, *, port: int | None, host: str | None) -> None:
    """`run`, with a bad end as an error."""
    end = run(target, port=port, host=host)
    if end.code != OK:
        raise WorkerFailed(f"The worker ended: {end.reason}.", next_step="Its log has the traceback.")
