"""The small verbs on a deployment that exists: resolve, scale, wake, stop, start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from unigpu.driver import DeploymentInfo, Pauses, Scaling, State, Wakes, poll, provider_name
from unigpu.errors import (
    ConflictError,
    DeadlineExceeded,
    NotFoundError,
    TransportError,
    UniGPUError,
    UnsupportedError,
)

from ._pace import state_pace
from .consistency.survey import any_listed, survey
from .create import may_have_acted
from .ready import bills, gone, read, start_once, wait_ready, wake_once
from .scope import Scope


async def listing(scope: Scope, *, deadline: float) -> Sequence[DeploymentInfo]:
    """The deployments of this namespace, by name. A list that cannot be read whole raises."""
    seen = await scope.driver.deployments(scope.io, deadline=deadline)
    mine = [d for d in seen if d.ours and d.namespace in (None, scope.namespace) and d.state is not State.GONE]
    if any(one.name is None for one in mine):
        mine = _named(scope, mine)
    return sorted(mine, key=lambda d: (d.name or "", d.provider_name, d.created_at or 0.0, d.id))


def names_here(scope: Scope) -> Mapping[str, str]:
    """The platform's name → ours, of what this machine deployed: for platforms that do not tell ours."""
    if scope.store is None:
        return {}
    here = (scope.provider, scope.base, scope.namespace)
    return {i.provider_name: i.name for i in scope.store.load() if (i.provider, i.base, i.namespace) == here}


def _named(scope: Scope, infos: Sequence[DeploymentInfo]) -> list[DeploymentInfo]:
    known = names_here(scope)
    return [
        one.model_copy(update={"name": known[one.provider_name], "namespace": scope.namespace})
        if one.name is None and one.provider_name in known
        else one
        for one in infos
    ]


async def resolve(scope: Scope, name: str, *, deadline: float) -> DeploymentInfo | None:
    """A deployment by its logical name, by one list call; ``None`` where there is none."""
    wanted = provider_name(scope.namespace, name)
    for seen in await listing(scope, deadline=deadline):  # sorted: of several the oldest, a fixed winner
        if seen.provider_name == wanted and seen.name in (None, name):
            return seen.model_copy(update={"name": name, "namespace": scope.namespace})
    return None


async def find(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    """What counts now of the name of *info*, whose id is gone; ``None`` where there is none, or a name is one thing."""
    parts = scope.driver.parts(info)
    if not any_listed(parts):
        return None
    now = (await survey(scope, parts, deadline=deadline)).info
    if now is None or now.id == info.id or now.name not in (None, info.name):
        return None
    return now.model_copy(update={"name": info.name, "namespace": info.namespace})


async def scale(
    scope: Scope,
    info: DeploymentInfo,
    *,
    workers: tuple[int, int] | None,
    idle_timeout: float | None = None,
    scaling: Scaling | None = None,
    deadline: float,
) -> DeploymentInfo:
    """Set absolute limits, and read back what is so.

    Raises:
        DeploymentGone: it does not exist any more.
        DeadlineExceeded: the platform was busy with it all the time.
    """

    async def act() -> None:
        await scope.driver.scale(
            scope.io, info, workers=workers, idle_timeout=idle_timeout, scaling=scaling, deadline=deadline
        )

    try:
        await settled(scope, info, act, deadline=deadline, what=f"scaling {info.name or info.provider_name}")
    except UniGPUError as exc:
        if not may_have_acted(exc):
            raise
        now = await _peek(scope, info, deadline=deadline)  # the answer is lost: what is so decides
        if now is None or not _is_so(now, workers, idle_timeout) or scaling is not None:
            raise
        return now
    scope.event("scaled", deployment=info.name, workers=workers, idle_timeout=idle_timeout)
    return await read(scope, info, deadline=deadline)


async def wake(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """Start one worker and return at once. One that has a worker, or is starting one, is left as it is.

    Raises:
        UnsupportedError: the platform cannot.
        DeploymentGone: it does not exist any more.
    """
    now = await read(scope, info, deadline=deadline)
    if now.state not in (State.COLD, State.STOPPED):
        return now
    await wake_once(scope, now, deadline=deadline)
    seen = await read(scope, now, deadline=deadline)
    if now.state is State.STOPPED and seen.state is State.COLD and isinstance(scope.driver, Wakes):
        await wake_once(scope, seen, deadline=deadline)  # it runs again, and without any worker
        seen = await read(scope, now, deadline=deadline)
    return seen


async def stop(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """Stop it, and wait until it is stopped. ``bills`` says what it still costs.

    Raises:
        UnsupportedError: the platform cannot pause it.
        DeadlineExceeded: it was not stopped in time.
    """
    driver = scope.driver
    if not isinstance(driver, Pauses):
        raise UnsupportedError(
            f"{driver.name} cannot stop a deployment and keep it",
            provider=driver.name,
            deployment=info.name,
            capability="stop",
            hint="teardown() ends it; scale(workers=(0, n)) lets it go to zero where the platform can.",
        )

    async def act() -> None:
        await driver.stop(scope.io, info, deadline=deadline)

    async def tick() -> DeploymentInfo | None:
        now = await read(scope, info, deadline=deadline)
        return now if now.state is State.STOPPED else None

    name, began = info.name or info.provider_name, scope.io.now()
    try:
        await settled(scope, info, act, deadline=deadline, what=f"stopping {name}")
        return await poll(
            scope.io,
            tick,
            deadline=deadline,
            pace=state_pace(driver),
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
            hint="It may still stop. stop() again waits for it; teardown() ends it.",
            stop_reason="deadline",
        ) from exc


async def start(scope: Scope, info: DeploymentInfo, *, wait: bool = True, deadline: float) -> DeploymentInfo:
    """Start a stopped one; with *wait* until it is ready, or cold where it may scale to zero.

    Raises:
        NoCapacityError: its GPU is gone.
        UnsupportedError: the platform cannot.
    """
    now = await read(scope, info, deadline=deadline)
    if now.state is State.STOPPED:
        await start_once(scope, now, deadline=deadline)
        now = await read(scope, now, deadline=deadline)
    return await wait_ready(scope, now, wake=True, need_worker=False, deadline=deadline) if wait else now


async def settled(
    scope: Scope, info: DeploymentInfo, act: Callable[[], Awaitable[None]], *, deadline: float, what: str
) -> None:
    """Do *act*; where the deployment is busy (a conflict), do it again as soon as it is not.

    Raises:
        DeadlineExceeded: it was busy all the time.
        DeploymentGone: it does not exist any more.
        ConflictError: another create has its name now.
    """

    async def tick() -> bool | None:
        try:
            await act()
        except ConflictError as exc:
            now = await read(scope, info, deadline=deadline)
            if None not in (now.attempt, info.attempt) and now.attempt != info.attempt:
                raise exc
            return None
        except NotFoundError as exc:
            raise gone(scope, info) from exc
        return True

    # One try outside: a failed change is never "no news", only a busy one is asked again.
    if await tick() is None:
        await poll(
            scope.io,
            tick,
            deadline=deadline,
            pace=state_pace(scope.driver),
            what=what,
            provider=scope.provider,
            deployment=info.name,
        )


async def _peek(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    try:
        return await scope.driver.read(scope.io, info, deadline=deadline)
    except TransportError:
        return None


def _is_so(now: DeploymentInfo, workers: tuple[int, int] | None, idle_timeout: float | None) -> bool:
    return (workers is None or now.workers == workers) and (idle_timeout is None or now.idle_timeout == idle_timeout)
