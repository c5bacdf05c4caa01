"""SIGTERM and SIGINT, told to the server's loop at once, however busy the main thread is with a handler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Generator
from types import FrameType

log = logging.getLogger("unigpu.worker")
_CAUGHT = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """What signals ask for: `once` is set by the first (drain), `again` by the second (now). On the server's loop."""

    def __init__(self) -> None:
        self.once = asyncio.Event()
        self.again = asyncio.Event()
        self._heard = [0, 0]

    def heard(self, way: int, name: str) -> None:
        """One signal, heard by one of the two ways. Both hear most signals, so the larger count is the truth."""
        before = max(self._heard)
        self._heard[way] += 1
        if max(self._heard) > before:
            log.info("%s received", name)
            (self.again if self.once.is_set() else self.once).set()


class Signals:
    """Made and caught in the main thread, then attached to the server's loop in another.

    Python runs a signal's handler in the main thread, between two of its instructions: never while a handler is deep
    in native code. Its wakeup descriptor is written at once, so that is the first way; the second is there in case a
    handler's library takes the descriptor for itself.
    """

    def __init__(self) -> None:
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)
        self._tell: tuple[asyncio.AbstractEventLoop, StopRequest] | None = None

    @contextlib.contextmanager
    def caught(self) -> Generator[None]:
        """Catch the signals; does nothing outside the main thread, where Python cannot."""
        with self._read, self._write:
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            handlers = {number: signal.signal(number, self._in_main_thread) for number in _CAUGHT}
            before = signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
            try:
                yield
            finally:
                signal.set_wakeup_fd(before)
                for number, handler in handlers.items():
                    signal.signal(number, handler)

    def attach(self) -> StopRequest:
        """Tell the running loop, also of what came before."""
        asked = StopRequest()
        loop = asyncio.get_running_loop()
        self._tell = (loop, asked)
        loop.add_reader(self._read, self._readable, asked)
        return asked

    def detach(self) -> None:
        """Tell it no more."""
        asyncio.get_running_loop().remove_reader(self._read)
        self._tell = None

    def _readable(self, asked: StopRequest) -> None:
        with contextlib.suppress(BlockingIOError):
            for number in self._read.recv(64):
                if number in _CAUGHT:
                    asked.heard(0, signal.Signals(number).name)

    def _in_main_thread(self, number: int, frame: FrameType | None) -> None:
        if (tell := self._tell) is not None:
            loop, asked = tell
            with contextlib.suppress(RuntimeError):  # the loop has just been closed
                loop.call_soon_threadsafe(asked.heard, 1, signal.Signals(number).name)
