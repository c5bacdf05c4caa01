"""The HTTP mode: listen, load, serve, drain on a signal, leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Generator, Mapping

import uvicorn

from unigpu.errors import ConfigurationError
from unigpu.worker._exit import CANNOT_LOAD, OK, STUCK, End
from unigpu.worker._handler import Target
from unigpu.worker._settings import Settings
from unigpu.worker._worker import Worker
from unigpu.worker.http import app

log = logging.getLogger("unigpu.worker")

# Clients drop a connection that idled for some seconds before a call that must not repeat. We keep it much longer, so
# that it is never this side that closes one in the moment it is used.
_KEEP_ALIVE = 75
_BACKLOG = 2048


def here(environ: Mapping[str, str]) -> bool:
    """HTTP is everywhere."""
    return True


def run(target: Target, settings: Settings) -> End:
    """Serve until a signal, a failure to load, or the end of the deployment's ttl.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    listener = _listen(settings)
    try:
        return asyncio.run(_run(target, settings, listener))
    finally:
        listener.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # ours: /ping must answer 503 while the worker drains, so the listener outlives the signal


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {error.strerror or error}. "
            "Free it, or say another one with --port or UNIGPU_PORT."
        ) from None


async def _run(target: Target, settings: Settings, listener: socket.socket) -> End:
    worker = Worker(target, settings)
    config = uvicorn.Config(
        app(worker),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d, loading %s", f"[{host}]" if ":" in host else host, port, worker.name)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    with _signals() as asked:
        worker.start()
        leave = asyncio.create_task(_until_asked(worker, asked))
        await asyncio.wait({leave, serving}, return_when=asyncio.FIRST_COMPLETED)
        leave.cancel()
        if worker.error is None:
            hurry = asyncio.create_task(asked.again.wait())
            drain = asyncio.create_task(worker.drain(settings.drain))
            await asyncio.wait({drain, hurry}, return_when=asyncio.FIRST_COMPLETED)
            hurry.cancel()
            if not drain.done():
                drain.cancel()
                await worker.drain(0)
        server.should_exit = True
        await serving
    worker.close()
    if worker.error is not None:
        return End(CANNOT_LOAD, str(worker.error))
    if worker.stuck is not None:
        return End(STUCK, worker.stuck, abandoned=True)
    log.info("stopped")
    return End(OK, abandoned=worker.abandoned)


async def _until_asked(worker: Worker, asked: _Asked) -> None:
    waits = {asyncio.create_task(worker.over.wait()), asyncio.create_task(asked.once.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()


class _Asked:
    """Once: drain. Again: now."""

    def __init__(self) -> None:
        self.once = asyncio.Event()
        self.again = asyncio.Event()

    def on_signal(self, name: str) -> None:
        log.info("%s received", name)
        (self.again if self.once.is_set() else self.once).set()


@contextlib.contextmanager
def _signals() -> Generator[_Asked]:
    asked = _Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    loop = asyncio.get_running_loop()
    caught = (signal.SIGTERM, signal.SIGINT)
    for number in caught:
        loop.add_signal_handler(number, asked.on_signal, number.name)
    try:
        yield asked
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
