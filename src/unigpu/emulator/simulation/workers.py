"""Simulated workers on virtual time: they start, work, crash and hang as they are told. No process, no socket."""

from __future__ import annotations

import heapq
import inspect
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal, cast

from ..contract import (
    JSON,
    CancelPush,
    Chunk,
    Event,
    Forward,
    ForwardDone,
    HttpCall,
    JobDone,
    Push,
    Reply,
    StartWorker,
    StopWorker,
    WorkerExited,
    WorkerLog,
    WorkerReady,
    WorkerStarted,
)
from .worker_http import SimulatedCall, of_call, of_push

_ONLY_WAKES: Final = {"__unigpu_wake__": True}
"""A job for which a portable worker does not call its handler (``unigpu.worker.runpod_loop``)."""
StartMode = Literal["ready", "crash", "hang"]
JobMode = Literal["answer", "crash", "hang", "busy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Behavior:
    """How the workers of a deployment behave. Seconds of virtual time.

    Attributes:
        run: The handler: sync, async, or a generator of either kind; ``None``: it echoes its input. An async one may
            not wait for anything real.
        http: Answers forwarded requests; ``None``: it echoes method, path and body.
        cold_start: From start to ready (or to the crash).
        duration: What one call takes; of a stream: the whole, evenly.
        start: What becomes of the n-th start (from 0).
        job: What becomes of a call.
        stop: How long it takes to end when it is told to; above the grace it is killed then.
        lines: What a worker writes to its log when it starts.
        code: Its exit code when it crashes.
        reason, cause: The words and the cause of a crash, as in `WorkerExited`.
    """

    run: Callable[[Any], Any] | None = None
    http: Callable[[HttpCall], Reply] | None = None
    cold_start: float = 1.0
    duration: float | Callable[[JSON], float] = 0.1
    start: StartMode | Callable[[int], StartMode] = "ready"
    job: JobMode | Callable[[JSON], JobMode] = "answer"
    stop: float = 0.0
    lines: tuple[str, ...] = ()
    code: int = 1
    reason: str | None = None
    cause: str | None = None


@dataclass(slots=True)
class _Simulated:
    id: str
    behavior: Behavior
    jobs: dict[str, int] = field(default_factory=dict[str, int])
    hung: set[str] = field(default_factory=set[str])


class Simulation:
    """All simulated workers, and what they will do. ``emit`` reports to the engine."""

    def __init__(self, emit: Callable[[Event, float], None], behavior_of: Callable[[str], Behavior]) -> None:
        self._emit = emit
        self._behavior_of = behavior_of
        self._workers: dict[str, _Simulated] = {}
        self._starts: dict[str, int] = {}
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = itertools.count()

    def next_due(self) -> float | None:
        return self._due[0][0] if self._due else None

    def step(self, now: float) -> bool:
        """Let happen what is due. Whether anything was."""
        happened = False
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2](now)
            happened = True
        return happened

    def carry_out(self, effect: StartWorker | StopWorker | Push | CancelPush, now: float) -> None:
        match effect:
            case StartWorker():
                self._start(effect, now)
            case StopWorker():
                self._stop(effect, now)
            case Push():
                self._push(effect, now)
            case CancelPush():
                self._cancel(effect, now)

    def crash(self, worker_id: str, now: float, *, reason: str = "killed by SIGKILL", cause: str | None = None) -> None:
        """A worker is gone, at once."""
        if self._workers.pop(worker_id, None) is not None:
            self._emit(WorkerExited(worker_id=worker_id, code=-9, reason=reason, cause=cause), now)

    def forget(self, worker_id: str) -> None:
        """A worker is gone, and nobody says so: its driver lost sight of it."""
        self._workers.pop(worker_id, None)

    def forward(self, forward: Forward, now: float, answer: Callable[[Reply], None]) -> None:
        """Let a worker answer a request; one that is gone is a 502 of ours."""
        worker = self._workers.get(forward.worker_id)
        if worker is None:
            answer(_lost())
            return
        behavior = worker.behavior
        call = forward.call
        mode = behavior.job(call.body) if callable(behavior.job) else behavior.job
        if mode == "hang":
            return

        # A handler behind a gateway answers on the portable worker's own route.
        ask = of_call(call) if behavior.http is None else None
        seconds = _duration(behavior, None if ask is None else ask.value)

        def end(then: float) -> None:
            alive = self._workers.get(worker.id) is worker
            if alive and mode == "crash":
                self._exit(worker, then)
                alive = False
            if not alive:
                answer(_lost())
                self._emit(ForwardDone(worker_id=worker.id, lease=forward.lease), then)
                return
            if ask is not None:
                reply = ask.reply(_late(ask)) if seconds > ask.timeout else ask.reply(*_run(behavior, ask, seconds))
            else:
                reply = behavior.http(call) if behavior.http is not None else _echo(call)
            answer(replace(reply, headers=(*reply.headers, *forward.marks)) if forward.marks else reply)
            self._emit(ForwardDone(worker_id=worker.id, lease=forward.lease, status=reply.status), then)

        self._at(now + (seconds if ask is None else min(seconds, ask.timeout)), end)

    def _at(self, due: float, do: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (due, next(self._order), do))

    def _start(self, effect: StartWorker, now: float) -> None:
        behavior = self._behavior_of(effect.deployment_id)
        number = self._starts.get(effect.deployment_id, 0)
        self._starts[effect.deployment_id] = number + 1
        worker = self._workers[effect.worker_id] = _Simulated(effect.worker_id, behavior)
        mode = behavior.start(number) if callable(behavior.start) else behavior.start

        def begun(then: float) -> None:
            self._emit(WorkerStarted(worker_id=worker.id), then)
            for line in behavior.lines:
                self._emit(WorkerLog(worker_id=worker.id, text=line), then)

        def end(then: float) -> None:
            if self._workers.get(worker.id) is not worker:
                return
            if mode == "crash":
                self._exit(worker, then)
            else:
                self._emit(WorkerReady(worker_id=worker.id), then)

        self._at(now, begun)
        if mode != "hang":
            self._at(now + behavior.cold_start, end)

    def _stop(self, effect: StopWorker, now: float) -> None:
        worker = self._workers.get(effect.worker_id)
        if worker is None:
            return

        def end(then: float) -> None:
            if self._workers.pop(worker.id, None) is not None:
                self._emit(WorkerExited(worker_id=worker.id, code=0, reason="stopped"), then)

        self._at(now + min(worker.behavior.stop, effect.grace), end)

    def _exit(self, worker: _Simulated, now: float) -> None:
        if self._workers.pop(worker.id, None) is not None:
            behavior = worker.behavior
            event = WorkerExited(worker_id=worker.id, code=behavior.code, reason=behavior.reason, cause=behavior.cause)
            self._emit(event, now)

    def _push(self, push: Push, now: float) -> None:
        worker = self._workers.get(push.worker_id)
        if worker is None:
            return  # its exit has been reported
        behavior = worker.behavior
        run = worker.jobs[push.job_id] = next(self._order)

        def still() -> bool:
            return self._workers.get(worker.id) is worker and worker.jobs.get(push.job_id) == run

        def report(then: float, **result: Any) -> None:
            del worker.jobs[push.job_id]
            self._emit(JobDone(worker_id=worker.id, job_id=push.job_id, **result), then)

        ask = of_push(push)
        if ask.value == _ONLY_WAKES:
            self._at(now, lambda then: report(then, output={"woken": True}) if still() else None)
            return
        mode = behavior.job(ask.value) if callable(behavior.job) else behavior.job
        seconds = _duration(behavior, ask.value)
        if mode == "busy":
            self._at(now, lambda then: report(then, busy=True) if still() else None)
            return
        if mode == "hang":
            worker.hung.add(push.job_id)
            return
        if mode == "crash":
            self._at(now + seconds, lambda then: self._exit(worker, then) if still() else None)
            return
        if seconds > ask.timeout:
            late = _late(ask)
            self._at(now + ask.timeout, lambda then: report(then, **late) if still() else None)
            return

        def answer(then: float) -> None:
            if still():
                report(then, **_run(behavior, ask, seconds)[0])

        if push.stream and behavior.run is not None and _is_generator(behavior.run):
            self._stream(worker, push, now, seconds, still, report)
        else:
            self._at(now + seconds, answer)

    def _stream(
        self,
        worker: _Simulated,
        push: Push,
        now: float,
        seconds: float,
        still: Callable[[], bool],
        report: Callable[..., None],
    ) -> None:
        chunks = cast("Iterator[JSON]", _call(worker.behavior.run, push.input))
        every = seconds / 4

        def one(then: float) -> None:
            if not still():
                return
            try:
                value = next(chunks)
            except StopIteration:
                report(then, execution_s=then - now)
                return
            except Exception as exc:  # as above
                report(then, error={"type": type(exc).__name__, "message": str(exc)}, execution_s=then - now)
                return
            self._emit(Chunk(worker_id=worker.id, job_id=push.job_id, value=value), then)
            self._at(then + every, one)

        self._at(now + every, one)

    def _cancel(self, effect: CancelPush, now: float) -> None:
        worker = self._workers.get(effect.worker_id)
        if worker is None or effect.job_id not in worker.jobs or effect.job_id in worker.hung:
            return

        def end(then: float) -> None:
            if self._workers.get(worker.id) is worker and worker.jobs.pop(effect.job_id, None) is not None:
                error = {"type": "Cancelled", "message": "cancelled"}
                self._emit(JobDone(worker_id=worker.id, job_id=effect.job_id, error=error), then)

        self._at(now, end)


def _run(behavior: Behavior, ask: SimulatedCall, seconds: float) -> tuple[dict[str, Any], list[JSON] | None]:
    """What comes of a call, and the chunks that a generator gave, also before it failed."""
    chunks: list[JSON] | None = None
    try:
        found = _call(behavior.run, ask.value)
        if hasattr(found, "__next__"):
            chunks = []
            chunks.extend(found)
            found = chunks
    except Exception as exc:  # the handler is the user's: what it raises is its answer
        return ask.failed(type(exc).__name__, str(exc), seconds), chunks
    return ask.done(found, seconds), chunks


def _late(ask: SimulatedCall) -> dict[str, Any]:
    message = f"The call ran longer than its execution timeout of {ask.timeout:g} s."
    return ask.failed("ExecutionTimeout", message, None)


def _duration(behavior: Behavior, input: JSON) -> float:
    return behavior.duration(input) if callable(behavior.duration) else behavior.duration


def _is_generator(run: Callable[[Any], Any]) -> bool:
    call = run if inspect.isroutine(run) else type(run).__call__
    return inspect.isgeneratorfunction(call) or inspect.isasyncgenfunction(call)


def _call(run: Callable[[Any], Any] | None, input: JSON) -> JSON:
    """What a handler gives; a generator of either kind as an iterator."""
    if run is None:
        return input
    found: Any = run(input)
    if inspect.iscoroutine(found):
        return _finish(cast("Coroutine[Any, Any, Any]", found))
    if inspect.isasyncgen(found):
        return _iterate(cast("AsyncIterator[Any]", found))
    return found


def _iterate(chunks: AsyncIterator[Any]) -> Iterator[Any]:
    while True:
        try:
            yield _finish(cast("Coroutine[Any, Any, Any]", anext(chunks)))
        except StopAsyncIteration:
            return


def _finish(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    if inspect.iscoroutine(work):
        work.close()
    raise RuntimeError("a simulated worker cannot run a handler that waits for something real")


def _echo(call: HttpCall) -> Reply:
    return Reply.json({"method": call.method, "path": call.path, "body": call.body.decode("utf-8", "replace")})


def _lost() -> Reply:
    error = {"type": "worker_lost", "message": "the worker ended before it answered"}
    return Reply.json({"error": error}, status=502, headers=(("x-unigpu-error", "worker_lost"),))
