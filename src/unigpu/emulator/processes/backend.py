"""What stands behind the engine's effects: real worker processes on this machine.

`ProcessBackend` starts each worker as a process group with a minimal environment and a port of its own, waits until it
is ready, gives it jobs by HTTP, tells its log lines and its end as events, and leaves no process behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..contract import (
    JSON,
    CancelPush,
    Event,
    JobDone,
    Launch,
    Push,
    StartWorker,
    StopWorker,
    WorkerEffect,
    WorkerExited,
    WorkerLog,
    WorkerReady,
    WorkerStarted,
)
from ..http_client import Exchange, UpstreamError
from . import worker_command
from .log_files import LogFile, prune
from .process_group import ProcessGroup, exit_words, oom_kills
from .push import PushTarget, push

log = logging.getLogger("unigpu.cloud.backends")

_PROBE_FIRST: Final = 0.02
_PROBE_CAP: Final = 0.25
_PROBE_S: Final = 5.0
_LOST_S: Final = 0.5  # how long a broken connection waits for the process's own end, which explains more
_LAST_LINES: Final = 20
_OUR_NEWS: Final = " unigpu.worker INFO "  # in lines of our own worker that explain no end


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """How processes are run.

    Attributes:
        start_limit: Seconds a worker may take to become ready; ``None``: the engine alone watches that.
        drain: Seconds a portable worker may finish its calls after SIGTERM.
        log_dir: Where a log file per worker is kept; ``None``: nowhere.
        tag: Marks every process, so that what a crash left can be found.
        umask: What files of the workers are protected by; -1: as those of this process.
    """

    start_limit: float | None = None
    drain: float = 30.0
    log_dir: Path | None = None
    tag: str | None = None
    umask: int = -1
    environ: Mapping[str, str] = field(default_factory=worker_command.own_environment, repr=False)


Note = Callable[[str, Mapping[str, JSON] | None], None]
"""Remembers (or with ``None`` forgets) a worker's process; raises `OSError` where it cannot be written."""


@dataclass(slots=True)
class _Worker:
    id: str
    ours: bool
    target: PushTarget
    group: ProcessGroup
    log: LogFile | None
    oom_before: int | None
    health: str | None = None
    reports: bool = False
    last: deque[str] = field(default_factory=lambda: deque[str](maxlen=_LAST_LINES))
    pushes: dict[str, asyncio.Task[None]] = field(default_factory=dict[str, "asyncio.Task[None]"])
    ready: bool = False
    told: str | None = None  # why we ended it, where we did


class ProcessBackend:
    """Workers as process groups of this machine."""

    def __init__(
        self,
        emit: Callable[[Event], None],
        *,
        settings: ProcessSettings | None = None,
        note: Note | None = None,
    ) -> None:
        self._emit = emit
        self._settings = settings or ProcessSettings()
        self._note: Note = note or _forget
        self._workers: dict[str, _Worker] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def carry_out(self, effect: WorkerEffect) -> None:
        match effect:
            case StartWorker():
                self._start(effect)
            case StopWorker():
                self._stop(effect.worker_id, effect.grace)
            case Push():
                self._push(effect)
            case CancelPush():
                worker = self._workers.get(effect.worker_id)
                task = worker.pushes.get(effect.job_id) if worker else None
                if task is not None:
                    task.cancel()

    def address(self, worker_id: str) -> tuple[str, int] | None:
        worker = self._workers.get(worker_id)
        return (worker.target.host, worker.target.port) if worker is not None and worker.group.alive else None

    async def close(self, *, grace: float) -> None:
        for worker_id in list(self._workers):
            self._stop(worker_id, grace)
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    # -- starting and ending ------------------------------------------------------------------------------------

    def _start(self, effect: StartWorker) -> None:
        worker_id, launch = effect.worker_id, effect.launch
        try:
            worker = self._spawn(worker_id, launch)
        except (OSError, ValueError) as exc:
            reason = f"it cannot be started: {exc.strerror or exc}" if isinstance(exc, OSError) else str(exc)
            if isinstance(exc, OSError) and exc.filename:
                reason += f": {exc.filename}"
            self._log(worker_id, None, "system", reason)
            self._emit(WorkerExited(worker_id=worker_id, reason=reason))
            return
        self._workers[worker_id] = worker
        self._emit(WorkerStarted(worker_id=worker_id, pid=worker.group.pid))
        self._task(self._watch(worker), name=f"watch {worker_id}")

    def _spawn(self, worker_id: str, launch: Launch) -> _Worker:
        settings = self._settings
        argv = worker_command.command(launch)
        taken = frozenset(w.target.port for w in self._workers.values())
        port = worker_command.free_port(taken, stated=worker_command.stated_port(launch))
        env = worker_command.environment(launch, port=port, own=settings.environ, tag=settings.tag, worker_id=worker_id)
        ours = worker_command.is_ours(launch)
        if ours:
            env.setdefault("UNIGPU_DRAIN", f"{settings.drain:g}")
            worker_command.require_token(env)
        file = LogFile(settings.log_dir / f"{worker_id}.log") if settings.log_dir is not None else None

        # Lines can only come in a later turn of the loop, when the worker has its place in the table.
        def on_line(stream: str, text: str) -> None:
            self._on_line(worker_id, stream, text)

        group = ProcessGroup.spawn(argv, env=env, cwd=launch.cwd, on_line=on_line, umask=settings.umask)
        try:
            self._note(worker_id, {"pid": group.pid, "started": group.started})
        except OSError:
            # Not recorded, a crash of ours would leave it running for ever.
            self._task(group.stop(0.0, group=True), name=f"undo {worker_id}")
            raise
        target = worker_command.push_target(launch, env, port)
        health = "/ping" if ours else launch.health
        return _Worker(worker_id, ours, target, group, file, oom_kills(), health, launch.reports)

    async def _watch(self, worker: _Worker) -> None:
        probe = None if worker.reports else asyncio.create_task(self._until_ready(worker))
        try:
            code = await worker.group.wait()
        finally:
            if probe is not None:
                probe.cancel()
        # An answer that left just before the end is still in its socket; the rest breaks off at once.
        if worker.pushes:
            await asyncio.wait(set(worker.pushes.values()), timeout=_LOST_S)
        for task in list(worker.pushes.values()):
            task.cancel()
        self._workers.pop(worker.id, None)
        with contextlib.suppress(OSError):  # a full disk: the next supervisor finds that the process is gone
            self._note(worker.id, None)
        reason, cause = self._explain(worker, code)
        self._log(worker.id, worker, "system", exit_words(code))
        if worker.log is not None and self._settings.log_dir is not None:
            worker.log.close()
            prune(self._settings.log_dir)
        self._emit(WorkerExited(worker_id=worker.id, code=code, reason=reason, cause=cause))

    def _explain(self, worker: _Worker, code: int) -> tuple[str, str | None]:
        words = exit_words(code)
        if worker.told is not None:
            return worker.told, "probe"
        if worker.group.stopping:
            return f"stopped ({words})", None
        before, after = worker.oom_before, oom_kills()
        killed = before is not None and after is not None and after > before
        if worker_command.out_of_memory(code, worker.last, kernel_killed=killed):
            return f"{words}: out of memory", "out_of_memory"
        said = next((line for line in reversed(worker.last) if _OUR_NEWS not in line), None)
        if code and said is not None:
            return f"{words}: {said.strip()[:300]}", None
        return words, None

    async def _until_ready(self, worker: _Worker) -> None:
        pause = _PROBE_FIRST
        limit = self._settings.start_limit
        try:
            async with asyncio.timeout(limit):
                while not await _is_ready(worker):
                    await asyncio.sleep(pause)
                    pause = min(_PROBE_CAP, pause * 1.3)
        except TimeoutError:
            worker.told = f"it was not ready within {limit:g} s"
            self._task(worker.group.stop(0.0, group=True), name=f"kill {worker.id}")
            return
        worker.ready = True
        self._emit(
            WorkerReady(worker_id=worker.id, address=f"{worker.target.host}:{worker.target.port}", pid=worker.group.pid)
        )

    def _stop(self, worker_id: str, grace: float) -> None:
        worker = self._workers.get(worker_id)
        if worker is None:
            return
        if worker.group.stopping and grace > 0:
            return
        # A portable worker tells its own children; a command gets what a terminal's Ctrl-C would reach.
        group = not worker.ours
        self._task(worker.group.stop(grace, group=group), name=f"stop {worker_id}")

    # -- lines ---------------------------------------------------------------------------------------------------

    def _on_line(self, worker_id: str, stream: str, text: str) -> None:
        self._log(worker_id, self._workers.get(worker_id), stream, text)

    def _log(self, worker_id: str, worker: _Worker | None, stream: str, text: str) -> None:
        if worker is not None:
            if text.strip() and stream != "system":
                worker.last.append(text)
            if worker.log is not None:
                worker.log.write(stream, text)
        self._emit(WorkerLog(worker_id=worker_id, text=text, stream=stream))

    # -- jobs ----------------------------------------------------------------------------------------------------

    def _push(self, effect: Push) -> None:
        worker = self._workers.get(effect.worker_id)
        if worker is None or not worker.group.alive:
            # Its `WorkerExited` is on the way; the job never reached it.
            self._emit(JobDone(worker_id=effect.worker_id, job_id=effect.job_id, busy=True))
            return
        task = self._task(self._run_push(worker, effect), name=f"push {effect.job_id}")
        worker.pushes[effect.job_id] = task
        task.add_done_callback(lambda _: worker.pushes.pop(effect.job_id, None))

    async def _run_push(self, worker: _Worker, effect: Push) -> None:
        try:
            await push(worker.target, effect, self._emit)
        except asyncio.CancelledError:
            # The connection is closed: the worker is asked to let go, and takes new work when it has.
            error = {"type": "Cancelled", "message": "the connection was closed"}
            self._emit(JobDone(worker_id=worker.id, job_id=effect.job_id, error=error))
            raise
        except UpstreamError as exc:
            if exc.never_sent:  # it was gone before it got a byte: another one takes the job
                self._emit(JobDone(worker_id=worker.id, job_id=effect.job_id, busy=True))
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOST_S):
                    await worker.group.wait()
                    return  # the process is gone: its `WorkerExited` says why
            error = {"type": "WorkerLost", "message": str(exc)}
            self._emit(JobDone(worker_id=worker.id, job_id=effect.job_id, error=error, lost=True))

    def _task(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)


def _forget(worker_id: str, record: Mapping[str, JSON] | None) -> None:
    """Where nothing outlives the process, there is nothing to remember."""


async def _is_ready(worker: _Worker) -> bool:
    """Whether it takes work: a portable worker says so, and a server that has a path for it; else it listens."""
    if not worker.group.alive:
        return False
    exchange: Exchange | None = None
    try:
        async with asyncio.timeout(_PROBE_S):
            exchange = await Exchange.open(worker.target.host, worker.target.port)
            if worker.health is None:
                return worker.group.alive
            head = await exchange.send("GET", worker.health, [("host", f"{worker.target.host}:{worker.target.port}")])
            return head.status == 200
    except (UpstreamError, TimeoutError):
        return False
    finally:
        if exchange is not None:
            exchange.close()
