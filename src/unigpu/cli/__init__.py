"""The command ``unigpu``, also ``python -m unigpu``. It needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: The command's arguments (default: those of this process).

    Returns:
        The exit code: 0 for success, 1 for a failure, 2 for a usage error.
    """
    try:
        from .program import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print('unigpu: the command line needs one more package: pip install "unigpu[cli]"', file=sys.stderr)
        return 2
    return run(argv)
