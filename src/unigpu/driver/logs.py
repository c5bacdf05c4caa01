"""The verb ``logs``: the last lines of one worker or all, then what follows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from .._io.contract import Io
from ..errors import DeploymentGone, NotFoundError
from ..models import LogLine

__all__ = ["read_logs"]


async def read_logs(
    io: Io,
    *,
    workers: Callable[[], Awaitable[Sequence[str]]],
    read: Callable[[str, int | None], Awaitable[Sequence[LogLine]]],
    worker: str | None,
    follow: bool,
    tail: int,
    pause: float = 2.0,
) -> AsyncIterator[LogLine]:
    """The last *tail* lines by time, and where *follow* what comes after, in passes with *pause* seconds between them.

    Args:
        workers: The ids of those that have a log now; asked before each pass.
        read: The lines of one: its last ones at first, and with ``None`` those since the last read.
        worker: The one whose lines are wanted; ``None``: all of them.

    Raises:
        NotFoundError: there is no such *worker*. Of all workers, one may have ended meanwhile, and its log with it.
        DeploymentGone: on the first pass; later, the deployment's end is the end of its log.
    """
    amount: int | None = tail
    while True:
        lines: list[LogLine] = []
        try:
            for id in [worker] if worker is not None else await workers():
                try:
                    lines += await read(id, amount)
                except DeploymentGone:
                    raise
                except NotFoundError:
                    if worker is not None:
                        raise
        except DeploymentGone:
            if amount is not None:
                raise
            return
        lines.sort(key=lambda line: line.time or 0.0)
        for line in lines if amount is None else lines[max(0, len(lines) - amount) :]:
            yield line
        if not follow:
            return
        amount = None
        await io.sleep(pause)
