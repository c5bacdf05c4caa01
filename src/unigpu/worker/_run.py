"""What `serve` and ``python -m unigpu.worker`` share: settings, the mode, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import os

from unigpu.errors import ConfigurationError, WorkerFailed
from unigpu.worker._exit import OK, End
from unigpu.worker._handler import Target
from unigpu.worker._mode import find_mode
from unigpu.worker._settings import read_settings

INSTALL = 'pip install "unigpu[worker]"'


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
