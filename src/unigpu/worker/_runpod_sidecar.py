"""RunPod's loop as a program beside our HTTP server, for images whose packages clash with RunPod's."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp

from unigpu.errors import ConfigurationError
from unigpu.worker import _http_server, runpod_loop
from unigpu.worker._exit_codes import End
from unigpu.worker._handler import Target
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker.http_app import app

_LOOK_S: Final = 0.1
_STOP_S: Final = 10.0


def run(target: Target, settings: Settings, python: str) -> End:
    """Serve until the end.

    Raises:
        ConfigurationError: there is no such interpreter.
    """
    if shutil.which(python) is None:
        raise ConfigurationError(
            f"UNIGPU_RUNPOD_PYTHON names {python}, which is not there.",
            hint="The image needs RunPod's package in an environment of its own: python -m venv /opt/runpod && "
            "/opt/runpod/bin/pip install runpod==1.12.0",
        )
    # Only RunPod's loop is to reach the handler.
    own = replace(settings.alone_on("127.0.0.1", 0), token=secrets.token_urlsafe(24))
    return _http_server.run(target, own, front=RunPodAdapter(own, python))


class RunPodAdapter:
    """What runs beside the handler's server here."""

    last_words = 0.0

    def __init__(self, settings: Settings, python: str) -> None:
        self._settings = settings
        self._python = python

    def app(self, worker: WorkerServer) -> ASGIApp:
        return app(worker)

    async def beside(self, worker: WorkerServer, port: int) -> str:
        """Fetch jobs from when the handler is loaded until the server drains; say why, where that ends before."""
        await worker.loaded.wait()
        if worker.error is not None:
            await _for_ever()
        process = await asyncio.create_subprocess_exec(
            self._python, "-I", str(Path(runpod_loop.__file__)), env=self._environment(worker, port)
        )
        watching = asyncio.create_task(_stop_when_draining(worker, process))
        try:
            code = await process.wait()
            if worker.state == "draining":
                await _for_ever()
            return f"RunPod's loop ended with code {code}"
        finally:
            watching.cancel()
            await _end(process)

    def _environment(self, worker: WorkerServer, port: int) -> dict[str, str]:
        streams = worker.handler is not None and worker.handler.yields
        own = {
            "UNIGPU_LOOP_PORT": str(port),
            "UNIGPU_LOOP_TOKEN": self._settings.token or "",
            "UNIGPU_LOOP_STREAMS": "1" if streams else "0",
            "UNIGPU_CONCURRENCY": str(self._settings.concurrency),
            "PYTHONUNBUFFERED": "1",
        }
        # The app's packages are not RunPod's.
        left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        return {name: value for name, value in os.environ.items() if name not in left_out} | own


async def _stop_when_draining(worker: WorkerServer, process: asyncio.subprocess.Process) -> None:
    """The signal came to us alone: the loop must fetch no more, and finish what runs."""
    while worker.state != "draining":  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(_LOOK_S)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)


async def _end(process: asyncio.subprocess.Process) -> None:
    """The server has stopped, so every answer is with the loop: it has a moment to pass the last ones on."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_S):
            await process.wait()
            return
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _for_ever() -> Coroutine[Any, Any, Any]:
    return asyncio.Event().wait()
