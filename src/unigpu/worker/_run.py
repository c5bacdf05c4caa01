"""What `serve` and ``python -m unigpu.worker`` share: settings, the mode, and what its end means."""

from __future__ import annotations

import importlib.util
import os

from unigpu.errors import ConfigurationError, WorkerFailed
from unigpu.worker._exit import OK, End
from unigpu.worker._handler import Target
from unigpu.worker._settings import read_settings

INSTALL = 'pip install "unigpu[worker]"'


def run(target: Target, *, port: int | None, host: str | None) -> End:
    """Serve until the end, and say how it ended.

    Raises:
        ConfigurationError: Before anything is served.
    """
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            raise ConfigurationError(f"The worker needs {package}, which is not installed here: {INSTALL}")
    settings = read_settings(os.environ, port=port, host=host)
    from unigpu.worker._mode import find_mode

    return find_mode(os.environ).run(target, settings)


def serve(target: Target, *, port: int | None, host: str | None) -> None:
    """`run`, with a bad end as an error."""
    end = run(target, port=port, host=host)
    if end.code != OK:
        raise WorkerFailed(f"The worker ended: {end.reason}.", next_step="Its log has the traceback.")
