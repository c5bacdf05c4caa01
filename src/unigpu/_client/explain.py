"""Why a deployment is not ready: its state, its workers and their logs, read once, and what follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from unigpu import _lifecycle
from unigpu._lifecycle import Scope
from unigpu._lifecycle.diagnose import classify, next_step
from unigpu.driver import Logs
from unigpu.errors import UniGPUError
from unigpu.models import DeploymentInfo, LogLine, State, Worker, WorkerState
from unigpu.models._text import seconds, worker_range_text
from unigpu.models.explain import Cause, Explanation

from .context import Context
from .gate import Gate
from .lookup import DeploymentLike, Lookup, Target

_TAIL: Final = 20
_ROOM: Final = "Accept more GPUs or regions (offers() shows what there is now), or wait."
_WAKE: Final = "A request wakes it; wait_ready(wake=True) does so and waits."


async def explain(context: Context, lookup: Lookup, deployment: DeploymentLike) -> Explanation:
    """Read it once, and say.

    Raises:
        DeploymentGone: it does not exist any more.
    """
    context.session.open()
    target = await lookup.control(deployment, context.soon())
    while True:
        try:
            explanation = await _explained(context.gate, target)
            lookup.used(target)
            return explanation
        except UniGPUError as exc:
            target = await lookup.renewed(target, exc)


async def _explained(gate: Gate, target: Target) -> Explanation:
    scope, deadline = target.scope, target.deadline
    target.seen.info = info = await _lifecycle.read(scope, target.info, deadline=deadline)
    workers = tuple(await scope.driver.workers(scope.io, info, deadline=deadline))
    seen, lines = await _last_words(scope, gate, info, _worst(workers))
    return judge(info, workers, lines, seen, expected=scope.expected, wall=scope.io.wall())


def judge(
    info: DeploymentInfo,
    workers: Sequence[Worker],
    logs: Sequence[LogLine],
    notes: Sequence[str] = (),
    *,
    expected: tuple[float, float] | None,
    wall: float,
) -> Explanation:
    """What follows from one reading. Pure.

    Args:
        notes: What else was seen, in words: that a log could not be read.
        expected: Seconds a cold start takes, by the facts.
        wall: Epoch seconds now.
    """
    cause, text, step = _judged(info, workers, expected, wall)
    evidence = [f"state {info.state.value}" + (f" ({info.raw_state})" if info.raw_state else "")]
    if info.reason:
        evidence.append(f"{info.provider} says: {info.reason}")
    if info.workers is not None:
        evidence.append(f"workers {worker_range_text(info.workers)} allowed, {len(workers)} shown")
    evidence += [_worker_line(one, wall) for one in workers]
    evidence += notes
    return Explanation(
        deployment=info.name or info.provider_name,
        provider=info.provider,
        state=info.state,
        cause=cause,
        text=text,
        evidence=tuple(evidence),
        next_step=step,
        workers=tuple(workers),
        logs=tuple(logs)[-_TAIL:],
    )


def _judged(
    info: DeploymentInfo, workers: Sequence[Worker], expected: tuple[float, float] | None, wall: float
) -> tuple[Cause, str, str]:
    ready = sum(one.state.is_ready for one in workers)
    failed = [one for one in workers if one.state is WorkerState.FAILED]
    starting = [one for one in workers if one.state in (WorkerState.PLACING, WorkerState.STARTING)]
    if info.state in (State.DELETING, State.GONE):
        return "deleting", "it is being deleted", "Deploy it again once it is gone."
    if info.state is State.STOPPED:
        costs = f" It still costs: {info.bills}." if info.bills else ""
        return "stopped", "it is stopped", f"start() starts it; teardown() ends it.{costs}"
    if ready or (info.ready_workers and not failed):
        return "ready", f"it is ready: {ready or info.ready_workers} worker(s) take calls", ""
    if failed or info.state is State.FAILED:
        said = next((one.reason for one in failed if one.reason), None) or info.reason
        reason = classify(info.reason, *(one.reason for one in failed))
        text = f"its workers cannot start: {said or 'no reason is given'}"
        return cast("Cause", reason), text, next_step(reason, info)
    if full := _no_room(info, workers):
        return "no_capacity", f"no host has room for a worker: {full}", _ROOM
    if starting:
        return _starting(starting, expected, wall)
    if info.workers is not None and info.workers[1] == 0:
        return "no_workers_allowed", "it may have no worker: its most is 0", "scale(workers=(0, 1)) allows one."
    if info.state is State.COLD:
        return "cold", "it has no worker now, as it should: nothing asked for one lately", _WAKE
    if info.state is State.CREATING:
        return "creating", "it is being created", "wait_ready() waits for it."
    if info.state is State.STARTING:
        why = f": {info.reason}" if info.reason else ""
        return "starting", f"a worker was asked for, and none is placed yet{why}", "wait_ready() waits for it."
    return "unknown", "it has no worker, and the platform gives no reason", next_step("unknown", info)


def _no_room(info: DeploymentInfo, workers: Sequence[Worker]) -> str | None:
    """Where all that is there waits for a host, and the platform says that there is none: its words."""
    if any(one.state is not WorkerState.PLACING for one in workers):
        return None
    said = (info.reason, *(one.reason for one in workers))
    return next((text for text in said if text and text.lower().startswith("no capacity")), None)


def _starting(workers: Sequence[Worker], expected: tuple[float, float] | None, wall: float) -> tuple[Cause, str, str]:
    began = min((one.started_at for one in workers if one.started_at is not None), default=None)
    since = None if began is None else max(0.0, wall - began)
    usual = "" if expected is None else f"; a start here takes {expected[0]:g} to {expected[1]:g} s"
    if since is not None and expected is not None and since > expected[1]:
        return (
            "slow_start",
            f"a worker starts since {since:.0f} s{usual}",
            "Read its log below: a large image or model takes long; a program that waits for something takes for ever.",
        )
    so_far = "" if since is None else f" since {since:.0f} s"
    return "starting", f"a worker starts{so_far}{usual}", "wait_ready() waits for it."


def _worker_line(worker: Worker, wall: float) -> str:
    line = f"worker {worker.id}: {worker.state.value}"
    if worker.started_at is not None and not worker.state.is_ready:
        line += f", began {seconds(round(max(0.0, wall - worker.started_at)))} ago"
    return f"{line}: {worker.reason}" if worker.reason else line


def _worst(workers: Sequence[Worker]) -> Worker | None:
    """Whose log tells most: the last that failed, else one that starts."""
    for states in ((WorkerState.FAILED,), (WorkerState.EXITED,), (WorkerState.STARTING,)):
        found = [one for one in workers if one.state in states]
        if found and not any(one.state.is_ready for one in workers):
            return max(found, key=lambda one: one.started_at or 0.0)
    return None


async def _last_words(
    scope: Scope, gate: Gate, info: DeploymentInfo, worker: Worker | None
) -> tuple[tuple[str, ...], tuple[LogLine, ...]]:
    if worker is None:
        return (), ()
    driver = scope.driver
    if not isinstance(driver, Logs) or gate.of(info).logs.value is False:
        return (f"{info.provider} shows no logs by its API",), ()
    try:
        log = driver.logs(scope.io, info, worker=worker.id, follow=False, tail=_TAIL)
        return (), tuple([line async for line in log])
    except UniGPUError as exc:
        return (f"its log could not be read: {exc}",), ()
