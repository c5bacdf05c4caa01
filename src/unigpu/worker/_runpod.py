"""RunPod's mode: the official ``runpod`` package fetches jobs and reports results; our worker runs the handler.

The package keeps the main thread, because it sets signal handlers; the handler has a thread of its own, as in the other
modes, so that one that blocks never keeps the heartbeat or a stop signal from being heard. On SIGTERM the package takes
no more jobs and finishes those that run; how long it may take is the platform's affair.

Where the user's packages clash with it, it runs in an environment of its own (``UNIGPU_RUNPOD_PYTHON``), as a program
beside our HTTP server: `runpod_loop`.

An endpoint without a queue, and a pod, set no ``RUNPOD_WEBHOOK_GET_JOB``: there the worker serves HTTP.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import importlib
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any, Protocol, TypeVar, cast

from unigpu.errors import ConfigurationError
from unigpu.worker._call import Call, Chunk, Failed, Outcome
from unigpu.worker._exit_codes import CANNOT_LOAD, OK, STUCK, End, leave_now
from unigpu.worker._handler import Target
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker.runpod_loop import error_text, only_wakes, whole

log = logging.getLogger("unigpu.worker")

INSTALL = 'pip install "unigpu[worker-runpod]"'
T = TypeVar("T")
_GONE = Failed("Cancelled", "RunPod stopped the job.")


def here(environ: Mapping[str, str]) -> bool:
    """RunPod tells a worker of a queue endpoint where its jobs come from."""
    return bool(environ.get("RUNPOD_WEBHOOK_GET_JOB"))


def run(target: Target, settings: Settings) -> End:
    """Run RunPod's loop until a signal, or a failure to load.

    Raises:
        ConfigurationError: The extra is not installed, or ``UNIGPU_RUNPOD_PYTHON`` names no interpreter.
    """
    if python := os.environ.get("UNIGPU_RUNPOD_PYTHON"):
        return _run_beside(target, settings, python)
    host = _Host(target, settings)
    host.start()
    try:
        serverless = _package()  # imported while the handler loads
        error = host.wait_loaded()
        if error is not None:
            return End(CANNOT_LOAD, error, patience=settings.patience)
        with contextlib.suppress(SystemExit):  # what it does on SIGINT
            serverless.start(
                {
                    "handler": host.stream if host.streams else host.single,
                    "concurrency_modifier": host.concurrency,
                    "return_aggregate_stream": True,
                }
            )
        return End(OK, abandoned=host.abandoned, patience=settings.patience)
    finally:
        host.close()


def _run_beside(target: Target, settings: Settings, python: str) -> End:
    """With RunPod's package in an environment of its own: this process serves HTTP, and that one fetches jobs."""
    from unigpu.worker import _runpod_sidecar

    return _runpod_sidecar.run(target, settings, python)


class _Serverless(Protocol):
    """What is used of ``runpod.serverless``; the package has no types."""

    def start(self, config: dict[str, Any]) -> None: ...


def _package() -> _Serverless:
    try:
        return cast("_Serverless", importlib.import_module("runpod.serverless"))
    except ImportError as error:
        raise ConfigurationError(
            f"On RunPod the worker needs {error.name or 'runpod'}, which is not installed here: {INSTALL}"
        ) from None


class _Host:
    """A `WorkerServer` on an event loop in a thread of its own. `single` and `stream` are called on RunPod's loop."""

    def __init__(self, target: Target, settings: Settings) -> None:
        self._target = target
        self._settings = settings
        self._running = threading.Event()
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unigpu-server", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._error: str | None = None
        self.streams = False
        self.abandoned = False

    def start(self) -> None:
        """Begin to load the handler; returns when the loop runs."""
        self._thread.start()
        self._running.wait()

    def wait_loaded(self) -> str | None:
        """Why the handler cannot be loaded, once that is known."""
        self._loaded.wait()
        return self._error

    def close(self) -> None:
        """End the thread."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                self._loop.call_soon_threadsafe(self._closing.set)
            self._thread.join(self._settings.patience)

    # -- on the thread's own loop

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # a fault of ours must end the process, not only this thread
            log.critical("the worker failed", exc_info=True)
            leave_now(End(STUCK, f"the worker failed: {type(error).__name__}", abandoned=True))

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closing = asyncio.Event()
        self._slots = asyncio.Semaphore(self._settings.concurrency)
        self._running.set()
        worker = self._worker = WorkerServer(self._target, self._settings)
        try:
            worker.start()
            await worker.loaded.wait()
            if worker.error is not None:
                self._error = str(worker.error)
            elif worker.handler is not None:
                self.streams = worker.handler.yields
            self._loaded.set()
            if worker.error is None:
                await self._until_over(worker)
            self.abandoned = worker.abandoned
        finally:
            worker.close()

    async def _until_over(self, worker: WorkerServer) -> None:
        closing = asyncio.ensure_future(self._closing.wait())
        over = asyncio.ensure_future(worker.over.wait())
        await asyncio.wait({closing, over}, return_when=asyncio.FIRST_COMPLETED)
        if worker.stuck is not None:
            leave_now(End(STUCK, worker.stuck, abandoned=True))
        # Past its ttl it stays, and refuses each job: RunPod starts a worker that left again, for as long as jobs wait.
        await closing

    async def _begin(self, job: Mapping[str, Any], *, stream: bool) -> Call | Failed:
        """Run the handler on a job, as soon as a slot is free: one that was told to stop may keep its own a while."""
        await self._slots.acquire()
        if (refusal := self._worker.refusal()) is not None:
            self._slots.release()
            return refusal
        value: object = job.get("input")
        if not isinstance(value, dict):
            self._slots.release()
            return Failed("bad_request", "The input must be a JSON object.")
        call = self._worker.call(cast("dict[str, Any]", value), job=str(job.get("id", "-"))[:128], stream=stream)
        task = self._loop.create_task(self._free(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return call

    async def _free(self, call: Call) -> None:
        await call.ended.wait()
        self._slots.release()

    async def _one(self, job: Mapping[str, Any]) -> Outcome:
        call = await self._begin(job, stream=False)
        if isinstance(call, Failed):
            return call
        try:
            return cast("Outcome", await call.next())
        finally:
            call.stop(_GONE)

    # -- on RunPod's loop

    def concurrency(self, current: int) -> int:
        """How many jobs RunPod's loop may fetch at a time."""
        return self._settings.concurrency

    async def single(self, job: Mapping[str, Any]) -> object:
        """RunPod's handler, where ours gives one value."""
        if only_wakes(job):
            return {"woken": True}
        outcome = await self._cross(self._one(job))
        if isinstance(outcome, Failed):
            return _failed(outcome)
        return whole(json.loads(outcome.output or b"null"))

    async def stream(self, job: Mapping[str, Any]) -> AsyncIterator[object]:
        """RunPod's handler, where ours yields."""
        if only_wakes(job):
            return
        call = await self._cross(self._begin(job, stream=True))
        if isinstance(call, Failed):
            yield _failed(call)
            return
        try:
            while isinstance(event := await self._cross(call.next()), Chunk):
                yield whole(json.loads(event.json))
            if isinstance(event, Failed):
                yield _failed(event)
        finally:
            self._loop.call_soon_threadsafe(call.stop, _GONE)

    async def _cross(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something of the other loop; a cancellation here is one there."""
        future: concurrent.futures.Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return await asyncio.wrap_future(future)


def _failed(failed: Failed) -> dict[str, str]:
    return {"error": error_text(failed.type, failed.message, failed.traceback)}
