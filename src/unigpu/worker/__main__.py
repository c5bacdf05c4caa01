"""``python -m unigpu.worker TARGET``: a container's command on every platform."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from io import TextIOWrapper
from typing import NoReturn

from unigpu.errors import ConfigurationError
from unigpu.worker import _exit
from unigpu.worker._run import run


def main() -> _exit.End:
    """Parse the arguments, serve, and say how it ended."""
    parser = argparse.ArgumentParser(
        prog="python -m unigpu.worker",
        description="Serve one handler.",
        epilog="Exit codes: 0 drained; 2 wrong usage; 3 the handler cannot be loaded; 4 a call got stuck.",
    )
    parser.add_argument("target", help="module:name or file.py:name of a function or a class")
    parser.add_argument("--port", type=int, help="default: UNIGPU_PORT, then PORT, then 8000; 0 takes a free one")
    parser.add_argument("--host", help="default: UNIGPU_HOST, then 0.0.0.0")
    args = parser.parse_args()
    _prepare_output()
    try:
        end = run(args.target, port=args.port, host=args.host)
    except ConfigurationError as error:
        end = _exit.End(_exit.USAGE, str(error))
    if end.reason is not None:  # the last line, for whoever has to explain this exit
        sys.stderr.write(f"unigpu.worker: {end.reason}\n")
    return end


def _prepare_output() -> None:
    # A handler's print() must reach the platform's log when it happens, not when a buffer is full.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s unigpu.worker %(levelname)s %(message)s"))
    logger = logging.getLogger("unigpu.worker")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the handler's module may set up logging of its own


def _leave(end: _exit.End) -> NoReturn:
    # While a handler runs on in a thread, the interpreter's own end would take the ground away under it, which crashes
    # native code. Idle threads end at once, and then everything that was registered for the exit is run.
    until = time.monotonic() + (0.0 if end.abandoned else 1.0)
    for thread in threading.enumerate():
        if thread.name.startswith("unigpu-handler"):
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code)
    sys.exit(end.code)


if __name__ == "__main__":
    _leave(main())
