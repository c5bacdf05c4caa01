"""The HTTP mode: listen, load, serve, drain on a signal, leave.

The server has a thread of its own; the handler has the main thread, where libraries expect to be (many set signal
handlers when they are imported, and Python allows that nowhere else).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Coroutine, Generator, Mapping
from typing import Any, Protocol

import uvicorn
from starlette.types import ASGIApp

from unigpu.errors import ConfigurationError
from unigpu.worker._executors import Lane
from unigpu.worker._exit_codes import CANNOT_LOAD, OK, STUCK, End, leave_now
from unigpu.worker._handler import Target
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker._signals import Signals, StopRequest
from unigpu.worker.http_app import app

log = logging.getLogger("unigpu.worker")

# Clients drop a connection that idled for some seconds before a call that must not repeat. We keep it much longer, so
# that it is never this side that closes one in the moment it is used.
_KEEP_ALIVE = 75
_BACKLOG = 2048
_LEAST_DELIVERY = 2  # seconds that the last replies may take to leave, even when the drain time is used up


def here(environ: Mapping[str, str]) -> bool:
    """HTTP is everywhere."""
    return True


class PlatformAdapter(Protocol):
    """What a platform puts before this server: how calls are read, and a program that runs beside it.

    Attributes:
        last_words: Seconds that the program gets to tell that the handler cannot be loaded.
    """

    last_words: float

    def app(self, worker: WorkerServer) -> ASGIApp: ...

    async def beside(self, worker: WorkerServer, port: int) -> str:
        """Runs until the server has stopped, when it is cancelled; one that returns says why it could not go on."""
        ...


class _Alone:
    """Callers reach this server directly."""

    last_words = 0.0

    def app(self, worker: WorkerServer) -> ASGIApp:
        return app(worker)

    async def beside(self, worker: WorkerServer, port: int) -> str:
        await asyncio.Event().wait()
        return ""


def run(target: Target, settings: Settings, *, front: PlatformAdapter | None = None) -> End:
    """Serve until a signal, a failure to load, or the end of the deployment's ttl.

    Does not return when a handler that cannot be ended holds this thread: the process ends there.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    lane = Lane()
    signals = Signals()
    ends: list[End] = []
    back = threading.Event()

    def serve() -> None:
        try:
            end = asyncio.run(_run(target, settings, listener, lane, signals, front or _Alone()))
        except BaseException as error:  # a fault of ours must end the process, not only this thread
            log.critical("the server failed", exc_info=True)
            end = End(STUCK, f"the server failed: {type(error).__name__}", abandoned=True)
        ends.append(end)
        lane.close()
        if end.abandoned or not back.wait(settings.patience):
            leave_now(end)

    with contextlib.closing(_listen(settings)) as listener, signals.caught():
        server = threading.Thread(target=serve, name="unigpu-server", daemon=True)
        server.start()
        try:
            lane.run()
        except BaseException as error:  # a handler can stop the event loop it runs on, or raise from a signal handler
            log.critical("the handler's thread was broken", exc_info=True)
            leave_now(End(STUCK, f"the handler broke the thread it runs in: {type(error).__name__}: {error}"))
        back.set()
        server.join()
    return ends[0]


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield  # ours: /ping must answer 503 while the worker drains, so the listener outlives the signal


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is said, not left at 0 as `socket.create_server` does: asyncio turns Nagle's delay off only for
    # sockets that say TCP, and each reply took 40 ms longer (measured).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        if not settings.pushed:
            listener.listen(_BACKLOG)
    except (OSError, UnicodeError) as error:
        listener.close()
        raise ConfigurationError(
            f"Cannot listen on {settings.host} port {settings.port}: {getattr(error, 'strerror', None) or error}. "
            "Free it, or say another one with --port or UNIGPU_PORT."
        ) from None
    return listener


async def _run(
    target: Target, settings: Settings, listener: socket.socket, lane: Lane, signals: Signals, front: PlatformAdapter
) -> End:
    worker = WorkerServer(target, settings, lane=lane)
    config = uvicorn.Config(
        front.app(worker),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    config.load()  # its imports are done before the handler's thread begins with its own
    server = _Server(config)
    host, port = listener.getsockname()[:2]
    at = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    asked = signals.attach()
    beside = asyncio.create_task(front.beside(worker, port))
    try:
        if settings.pushed:
            log.info("loading %s; port %d opens when it is loaded", worker.name, port)
            worker.start()
            await _first(worker.loaded.wait(), asked.once.wait(), asyncio.shield(beside))
        if worker.error is None and not (settings.pushed and asked.once.is_set()):
            listener.listen(_BACKLOG)
            log.info("listening on %s, %s %s", at, "serving" if settings.pushed else "loading", worker.name)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
        else:  # the port stays closed
            serving = asyncio.create_task(asyncio.sleep(0))
        if not settings.pushed:
            worker.start()
        await _first(worker.over.wait(), asked.once.wait(), asyncio.shield(serving), asyncio.shield(beside))
        if worker.error is not None:
            await _first(asyncio.sleep(front.last_words), asked.once.wait(), asyncio.shield(beside))
        if settings.pushed and asked.once.is_set():  # an open port would still be taken for a ready worker
            for one in getattr(server, "servers", ()):  # uvicorn makes the list when it begins to serve
                one.close()
        left = await _drain(worker, asked) if worker.error is None else 0.0
        # A reply that is on its way to a slow reader belongs to the drain as well.
        config.timeout_graceful_shutdown = max(_LEAST_DELIVERY, int(left))
        server.should_exit = True
        await _first(asyncio.shield(serving), asked.again.wait())
        server.force_exit = True
        await serving
    finally:
        signals.detach()
        worker.close()
        ended = beside.result() if beside.done() and not beside.cancelled() else None
        beside.cancel()
        await asyncio.wait({beside})
    if worker.error is not None:
        return End(CANNOT_LOAD, str(worker.error), patience=settings.patience)
    if worker.stuck is not None:
        return End(STUCK, worker.stuck, abandoned=True)
    if ended is not None:
        return End(STUCK, ended, abandoned=worker.abandoned)
    log.info("stopped")
    return End(OK, abandoned=worker.abandoned, patience=settings.patience)


async def _drain(worker: WorkerServer, asked: StopRequest) -> float:
    """Drain, or stop at once when asked again; the seconds of the drain time that are left."""
    until = time.monotonic() + worker.settings.drain
    drain = asyncio.create_task(worker.drain(worker.settings.drain))
    await _first(asyncio.shield(drain), asked.again.wait())
    if not drain.done():
        drain.cancel()
        await worker.drain(0)
        return 0.0
    return until - time.monotonic()


async def _first(*waits: asyncio.Future[object] | Coroutine[Any, Any, object]) -> None:
    """Wait for the first of them; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
