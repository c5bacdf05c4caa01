"""The small verbs on a deployment that exists: scale, wake, stop, start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from unigpu.driver import DeploymentInfo, Pauses, Scaling, State, Wakes, poll
from unigpu.errors import (
    ConflictError,
    DeadlineExceeded,
    NotFoundError,
    TransportError,
    UniGPUError,
    UnsupportedError,
)

from .consistency.absence import gone, read
from .consistency.lost_answer import may_have_acted
from .ready import bills, start_once, wait_ready, wake_once
from .scope import Scope


async def scale(
    scope: Scope,
    info: DeploymentInfo,
    *,
    workers: tuple[int, int] | None,
    idle_timeout: float | None = None,
    scaling: Scaling | None = None,
    deadline: float,
) -> DeploymentInfo:
    """Set absolute limits, and read the deployment back.

    Raises:
        DeploymentGone: it does not exist any more.
        DeadlineExceeded: the platform was busy with it all the time.
    """
    change = partial(
        scope.deployer.scale,
        scope.io,
        info,
        workers=workers,
        idle_timeout=idle_timeout,
        scaling=scaling,
        deadline=deadline,
    )
    try:
        await retry_while_busy(
            scope, info, change, deadline=deadline, what=f"scaling {info.name or info.provider_name}"
        )
    except UniGPUError as exc:
        if not may_have_acted(exc):
            raise
        now = await _read_if_reachable(scope, info, deadline=deadline)  # the answer is lost: its state decides
        if now is None or not _has_limits(now, workers, idle_timeout) or scaling is not None:
            raise
        return now
    scope.event("scaled", deployment=info.name, workers=workers, idle_timeout=idle_timeout)
    return await read(scope, info, deadline=deadline)


async def wake(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """Start one worker and return at once. A deployment that has a worker, or is starting one, stays as it is.

    Raises:
        UnsupportedError: the platform cannot start a worker without a call.
        DeploymentGone: it does not exist any more.
    """
    now = await read(scope, info, deadline=deadline)
    if now.state not in (State.COLD, State.STOPPED):
        return now
    await wake_once(scope, now, deadline=deadline)
    seen = await read(scope, now, deadline=deadline)
    if now.state is State.STOPPED and seen.state is State.COLD and isinstance(scope.driver, Wakes):
        await wake_once(scope, seen, deadline=deadline)  # it is not stopped any more, but has no worker yet
        seen = await read(scope, now, deadline=deadline)
    return seen


async def stop(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """Stop a deployment, and wait until it is stopped. ``bills`` says what it still costs.

    Raises:
        UnsupportedError: the platform cannot stop it and keep it.
        DeadlineExceeded: it did not stop in time.
    """
    driver = scope.driver
    if not isinstance(driver, Pauses):
        raise UnsupportedError(
            f"{driver.name} cannot stop a deployment and keep it",
            provider=driver.name,
            deployment=info.name,
            capability="stop",
            hint="teardown() deletes it; scale(workers=(0, n)) scales it to zero where the platform can.",
        )
    name, began = info.name or info.provider_name, scope.io.now()
    change = partial(driver.stop, scope.io, info, deadline=deadline)
    try:
        await retry_while_busy(scope, info, change, deadline=deadline, what=f"stopping {name}")
        return await poll(
            scope.io,
            partial(_read_if_stopped, scope, info, deadline=deadline),
            deadline=deadline,
            pace=driver.state_pace,
            what=f"the stop of {name}",
            provider=scope.provider,
            deployment=info.name,
        )
    except DeadlineExceeded as exc:
        raise DeadlineExceeded(
            f"{name} on {scope.provider} was not stopped within {scope.io.now() - began:.0f} s",
            provider=scope.provider,
            deployment=info.name,
            maybe_executed=True,
            may_bill=(bills(info),),
            hint="It may still stop. stop() again waits for it; teardown() deletes it.",
            stop_reason="deadline",
        ) from exc


async def start(scope: Scope, info: DeploymentInfo, *, wait: bool = True, deadline: float) -> DeploymentInfo:
    """Start a stopped deployment. With *wait*, return once it is ready, or cold where it may scale to zero.

    Raises:
        NoCapacityError: its GPU is not available any more.
        UnsupportedError: the platform cannot start it.
    """
    now = await read(scope, info, deadline=deadline)
    if now.state is State.STOPPED:
        await start_once(scope, now, deadline=deadline)
        now = await read(scope, now, deadline=deadline)
    return await wait_ready(scope, now, wake=True, need_worker=False, deadline=deadline) if wait else now


async def retry_while_busy(
    scope: Scope, info: DeploymentInfo, change: Callable[[], Awaitable[None]], *, deadline: float, what: str
) -> None:
    """Make *change*. While the platform is busy with the deployment (a conflict), try again.

    Raises:
        DeadlineExceeded: the platform was busy all the time.
        DeploymentGone: the deployment does not exist any more.
        ConflictError: another create has its name now.
    """
    step = partial(_change_once, scope, info, change, deadline=deadline)
    # The first try is outside of `poll`, which ignores an error of the platform for a while: a change must not.
    if await step() is None:
        await poll(
            scope.io,
            step,
            deadline=deadline,
            pace=scope.driver.state_pace,
            what=what,
            provider=scope.provider,
            deployment=info.name,
        )


async def _change_once(
    scope: Scope, info: DeploymentInfo, change: Callable[[], Awaitable[None]], *, deadline: float
) -> bool | None:
    """``None``: the platform is busy."""
    try:
        await change()
    except ConflictError as exc:
        now = await read(scope, info, deadline=deadline)
        if None not in (now.attempt, info.attempt) and now.attempt != info.attempt:
            raise exc
        return None
    except NotFoundError as exc:
        raise gone(scope, info) from exc
    return True


async def _read_if_stopped(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    now = await read(scope, info, deadline=deadline)
    return now if now.state is State.STOPPED else None


async def _read_if_reachable(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    try:
        return await scope.driver.read(scope.io, info, deadline=deadline)
    except TransportError:
        return None


def _has_limits(now: DeploymentInfo, workers: tuple[int, int] | None, idle_timeout: float | None) -> bool:
    return (workers is None or now.workers == workers) and (idle_timeout is None or now.idle_timeout == idle_timeout)
