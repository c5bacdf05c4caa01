"""From `async def` to plain calls: one source, run without a loop or a thread.

A coroutine over a synchronous `Io` never suspends, so one ``send(None)`` runs it to its end in the caller's thread.
An interrupt (Ctrl-C) is raised inside the coroutine, where it happened: its ``except`` and ``finally`` work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = object()


def run_sync(coro: Coroutine[Any, Any, T]) -> T:
    """Run *coro* to its end, now, in this thread.

    Raises:
        RuntimeError: *coro* awaited something other than its `Io`. That is a mistake in a driver.
    """
    try:
        coro.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        coro.close()
    name = getattr(coro, "__qualname__", repr(coro))
    raise RuntimeError(f"{name} awaited something other than its Io, so it cannot run in a synchronous client")


def iter_sync(source: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over *source* without a loop. Leaving early closes it.

    Raises:
        RuntimeError: as `run_sync`.
    """
    try:
        while True:
            item = run_sync(_next(source))
            if item is _END:
                return
            yield item
    finally:
        aclose = getattr(source, "aclose", None)
        if aclose is not None:
            run_sync(_call(aclose))


async def _next(source: AsyncIterator[T]) -> Any:
    try:
        return await source.__anext__()
    except StopAsyncIteration:
        return _END


async def _call(function: Any) -> None:
    await function()
