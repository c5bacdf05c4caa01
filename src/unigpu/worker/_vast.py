"""Vast's serverless mode: our HTTP server on loopback, and Vast's PyWorker as a process beside it.

PyWorker talks to the platform, checks signatures and takes the callers' connections; it hands the payload of each call
to ``POST /invoke`` here (`unigpu.worker.pyworker` says what a payload may hold). It passes no header on, so what is
elsewhere a header is a field here. Calls above the concurrency wait here, in order: PyWorker has counted them already.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
from collections import deque
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, cast

from starlette.types import Message, Receive, Scope, Send

from unigpu.errors import ConfigurationError
from unigpu.worker import _http_server, pyworker
from unigpu.worker._exit_codes import End
from unigpu.worker._handler import Target
from unigpu.worker._lifetime import WorkerServer
from unigpu.worker._settings import Settings
from unigpu.worker.http_app import app

PYTHON: Final = "/opt/pyworker/bin/python"
HEALTH: Final = "/unigpu/health"
_FIELDS: Final = frozenset({"input", "stream", "timeout", "job"})
_STOP_S: Final = 5.0


def here(environ: Mapping[str, str]) -> bool:
    """Whether this is a serverless worker of Vast's: its engine gives each of them a token (an instance has none).

    Source: https://github.com/vast-ai/base-image, ``ROOT/etc/vast_boot.d/01-detect-serverless.sh``. Where that does not
    hold, ``UNIGPU_VAST=serverless`` says so, and ``UNIGPU_VAST=instance`` the opposite.
    """
    said = environ.get("UNIGPU_VAST")
    return said == "serverless" if said else bool(environ.get("MASTER_TOKEN") and environ.get("CONTAINER_ID"))


def run(target: Target, settings: Settings) -> End:
    """Serve until the end.

    Raises:
        ConfigurationError: PyWorker's environment is missing.
    """
    python = os.environ.get("UNIGPU_PYWORKER_PYTHON") or PYTHON
    if shutil.which(python) is None:
        raise ConfigurationError(
            f"Vast's worker program is not installed: there is no {python}.",
            hint="The image needs it in an environment of its own: python -m venv /opt/pyworker && "
            "/opt/pyworker/bin/pip install vastai==1.9.1. UNIGPU_PYWORKER_PYTHON says where it is, if elsewhere.",
        )
    # Only PyWorker is to reach the handler: a port of loopback that nobody else is told.
    own = settings.alone_on("127.0.0.1", 0)
    return _http_server.run(target, own, front=VastAdapter(own, python))


class VastAdapter:
    """What stands before the handler's server here: PyWorker, and the app that reads its payloads."""

    last_words = 15.0  # it may still be starting itself

    def __init__(self, settings: Settings, python: str) -> None:
        self._settings = settings
        self._python = python

    def app(self, worker: WorkerServer) -> App:
        return App(worker)

    async def beside(self, worker: WorkerServer, port: int) -> str:
        """Run PyWorker until it ends, and say how it ended. Cancelled, it ends PyWorker."""
        with tempfile.TemporaryDirectory(prefix="unigpu-vast-") as folder:
            log = Path(folder) / "worker.log"
            log.touch()
            process = await asyncio.create_subprocess_exec(
                self._python,
                "-I",  # the files beside it are not to be found instead of the standard library's
                str(Path(pyworker.__file__)),
                stdin=asyncio.subprocess.PIPE,
                cwd=folder,
                env=self._environment(port, log),
            )
            marking = asyncio.create_task(_mark(worker, log))
            try:
                return f"PyWorker ended with code {await process.wait()}"
            finally:
                marking.cancel()
                await _end(process)

    def _environment(self, port: int, log: Path) -> dict[str, str]:
        own = {
            "UNIGPU_INTERFACE": "function",
            "UNIGPU_PORT": str(port),
            "PYWORKER_HEALTH": HEALTH,
            "UNIGPU_CONCURRENCY": str(self._settings.concurrency),
            "UNIGPU_PYWORKER_LOG": str(log),
        }
        # The app's packages are not PyWorker's.
        left_out = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        return {name: value for name, value in os.environ.items() if name not in left_out} | own


class App:
    """Reads PyWorker's payloads, and lets calls wait for a slot. ASGI 3."""

    def __init__(self, worker: WorkerServer) -> None:
        self._worker = worker
        self._inner = app(worker)
        self._free = worker.settings.concurrency
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == HEALTH:
            # A worker that drains or whose time is over is well: an error here would have it replaced, and paid again.
            status = 503 if self._worker.over.is_set() and self._worker.state != "expired" else 200
            await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
            return
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] != "/invoke":
            await self._inner(scope, receive, send)
            return
        body = await _read(receive)
        if body is None or not await self._turn(receive):
            return
        try:
            headers, content = self._plain(body)
            replayed = _Replay(content, receive)
            await self._inner({**scope, "headers": _merged(scope, headers, len(content))}, replayed, send)
        finally:
            self._next()

    def _plain(self, body: bytes) -> tuple[dict[str, str], bytes]:
        """The headers that a payload stands for, and the body without them."""
        headers: dict[str, str] = {}
        if self._worker.settings.token is not None:  # callers were checked by their signature
            headers["authorization"] = f"Bearer {self._worker.settings.token}"
        try:
            found: object = json.loads(body)
        except (ValueError, RecursionError):
            return headers, body
        if not isinstance(found, dict) or not _FIELDS.issuperset(cast("dict[str, Any]", found)):
            return headers, body
        payload = cast("dict[str, Any]", found)
        if payload.get("stream") is True:
            headers["accept"] = "application/x-ndjson"
        if isinstance(seconds := payload.get("timeout"), int | float) and not isinstance(seconds, bool):
            headers["x-unigpu-timeout"] = repr(seconds)
        if isinstance(job := payload.get("job"), str) and job.isascii() and job.isprintable():
            headers["x-unigpu-job"] = job
        return headers, json.dumps({"input": payload.get("input")}).encode()

    async def _turn(self, receive: Receive) -> bool:
        """Wait for a slot; false where the caller left first."""
        if self._free > 0:
            self._free -= 1
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        gone = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({turn, gone}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._give_up(turn)
            raise
        finally:
            gone.cancel()
        if not turn.done():
            self._give_up(turn)
            return False
        return True

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done():
            self._next()
        else:
            self._waiting.remove(turn)

    def _next(self) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(None)
        else:
            self._free += 1


class _Replay:
    """The body that was read, and then what still comes: the caller's leaving."""

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        return await self._receive()


async def _mark(worker: WorkerServer, log: Path) -> None:
    """Tell PyWorker by its log file when the handler is loaded, or cannot be."""
    await worker.loaded.wait()
    line = f"{pyworker.FAILED}: {worker.error}" if worker.error is not None else pyworker.READY
    with log.open("a", encoding="utf-8") as file:
        file.write(line.replace("\n", " ") + "\n")


async def _end(process: asyncio.subprocess.Process) -> None:
    """It ends when its input does."""
    if process.returncode is not None:
        return
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await process.wait()
            return
    process.kill()
    await process.wait()


async def _read(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(cast("bytes", message.get("body", b"")))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _merged(scope: MutableMapping[str, Any], headers: Mapping[str, str], size: int) -> list[tuple[bytes, bytes]]:
    own = {name.encode(): value.encode() for name, value in headers.items()} | {b"content-length": str(size).encode()}
    kept = [(name, value) for name, value in scope["headers"] if name not in own]
    return [*kept, *own.items()]
