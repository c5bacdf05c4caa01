"""``python -m unigpu.worker TARGET``: a container's command on every platform."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
import time
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from unigpu.errors import ConfigurationError
from unigpu.worker._exit_codes import OK, USAGE, End, explain, leave_now


def main() -> End:
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
    from unigpu.worker._start import run  # after the first signal handler, because this takes a while

    try:
        return run(args.target, port=args.port, host=args.host)
    except ConfigurationError as error:
        return End(USAGE, str(error))


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


def _leave(end: End) -> NoReturn:
    explain(end)

    # A thread that a handler left behind, or an exit function of its libraries, may take a moment, not for ever.
    def insist() -> None:
        time.sleep(end.patience)
        leave_now(End(end.code))

    threading.Thread(target=insist, name="unigpu-exit", daemon=True).start()
    sys.exit(end.code)


def _too_early(number: int, frame: FrameType | None) -> NoReturn:
    leave_now(End(OK))


if __name__ == "__main__":
    for _number in (signal.SIGTERM, signal.SIGINT):  # a container's first process ignores what it has no handler for
        signal.signal(_number, _too_early)
    _leave(main())
