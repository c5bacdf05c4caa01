"""The portable worker: one handler, served on whichever platform it wakes up on.

``python -m unigpu.worker app:summarize`` is a container's command on every platform. Programs call `serve`.
It needs ``pip install "unigpu[worker]"`` and nothing else of unigpu but its errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["serve"]


def serve(handler: str | Callable[..., Any], *, port: int | None = None, host: str | None = None) -> None:
    """Serve ``handler`` in this thread until SIGTERM or SIGINT, then drain and return.

    Call it last, from the main thread: signals reach no other. When a call is stuck, or does not end in the drain
    time, nothing can end its thread: then the process ends here, with the exit codes of ``python -m unigpu.worker``.

    Args:
        handler: A function (sync, async, or a generator), a class (``__init__`` loads the model once, ``__call__``
            handles), or a target such as ``"app:summarize"`` or ``"app.py:summarize"``.
        port: Port to listen on. Default: ``UNIGPU_PORT``, then ``PORT``, then 8000. 0 takes a free one.
        host: Address to listen on. Default: ``UNIGPU_HOST``, then ``0.0.0.0``.

    Raises:
        ConfigurationError: The extra is not installed, a ``UNIGPU_*`` variable is wrong, the port cannot be had, or
            an event loop runs in this thread already.
        WorkerFailed: The handler cannot be loaded.
    """
    from unigpu.worker import _start

    _start.serve(handler, port=port, host=host)
