"""Let a cleanup finish, whatever cancels or interrupts its caller. One flavour for each way to run.

* threads: in the main thread, Ctrl-C is noted and raised at the end; a second press within the span abandons.
* asyncio: the work is a task of its own, so a native ``task.cancel()`` does not reach it; a third press abandons.
* trio: a shielded scope; a second press abandons, because trio delivers it through the shield in the main task.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import TypeVar

import anyio

from unigpu.errors import DeadlineExceeded

T = TypeVar("T")

__all__ = ["shield_async", "shield_sync"]

_NOTICE = "unigpu: cleaning up; press again to abandon (what was created may still bill)\n"


def _late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"cleaning up was not done within {seconds:g} s", stop_reason="deadline")


async def shield_sync(work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Run *work* with Ctrl-C held back. *seconds* bounds it through the deadlines of its own requests.

    A handler that is not Python's default (a server's own) is left alone, and other threads get no signals.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return await work()
    pressed = 0

    def on_press(_signum: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt
        if sys.stderr is not None:
            sys.stderr.write(_NOTICE)

    signal.signal(signal.SIGINT, on_press)
    try:
        result = await work()
    except BaseException as exc:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if pressed and not isinstance(exc, KeyboardInterrupt):
            interrupt = KeyboardInterrupt()
            interrupt.add_note(f"and the cleanup failed: {type(exc).__name__}: {exc}")
            raise interrupt from exc
        raise
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt
    return result


async def shield_async(work: Callable[[], Awaitable[T]], *, seconds: float) -> T:
    """Run *work* on whichever loop this is, at most *seconds*; a cancellation is raised when it has ended.

    Raises:
        DeadlineExceeded: it did not end in time.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # trio
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds):
            return await work()
        raise _late(seconds) from None
    return await _shield_asyncio(work, seconds)


async def _shield_asyncio(work: Callable[[], Awaitable[T]], seconds: float) -> T:
    async def run() -> T:
        return await work()

    loop = asyncio.get_running_loop()
    task = loop.create_task(run(), name="unigpu cleanup")
    # Documented for task classes of one's own ("Extending asyncio"). Without it the end of `asyncio.run`, which cancels
    # every registered task, would cut a cleanup short.
    asyncio._unregister_task(task)  # noqa: SLF001 - see above
    timer = loop.call_later(seconds, task.cancel)
    cancelled: asyncio.CancelledError | None = None
    try:
        while not task.done():
            try:
                # `wait` never cancels the task. The scope is there because an anyio scope around us cancels again at
                # every turn of the loop: without it the wait would spin at full speed until the work ends.
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({task})
            except asyncio.CancelledError as exc:
                cancelled = exc
    finally:
        timer.cancel()
    error = _late(seconds) if task.cancelled() else task.exception()
    if cancelled is not None:
        if error is not None:
            cancelled.add_note(f"and the cleanup failed: {type(error).__name__}: {error}")
        raise cancelled
    if error is not None:
        raise error
    return task.result()
