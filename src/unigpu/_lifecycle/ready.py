"""Wait until a deployment serves calls, or say early why it will not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from unigpu.driver import DeploymentInfo, Pauses, State, Wakes, Worker, WorkerState, poll
from unigpu.errors import (
    ConflictError,
    DeadlineExceeded,
    NoCapacityError,
    NoWorkerReady,
    UnsupportedError,
)
from unigpu.models import Progress

from .consistency.absence import gone, reads_to_believe
from .diagnose import Diagnosis
from .scope import Scope

_WAKES: Final = 5
"""How often a wait wakes a deployment that scales to zero again before it is ready."""


async def wait_ready(
    scope: Scope,
    info: DeploymentInfo,
    *,
    wake: bool,
    need_worker: bool,
    deadline: float,
    between: Callable[[DeploymentInfo], Awaitable[None]] | None = None,
) -> DeploymentInfo:
    """Wait for READY, or for COLD where the minimum is no worker and *need_worker* is false.

    Args:
        between: Called before each step, with the deployment as last seen: it makes the checks that are due.

    Raises:
        WorkerFailed: a worker cannot start; raised before the deadline, with the last lines of its log.
        NoWorkerReady: it is stopped (at once, unless *wake*).
        DeadlineExceeded: it is not ready by *deadline*; it is kept.
        DeploymentGone: it does not exist any more.
    """
    wait = _Wait(scope, info, wake=wake, need_worker=need_worker, deadline=deadline, between=between)
    return await wait.run()


class _Wait:
    def __init__(
        self,
        scope: Scope,
        info: DeploymentInfo,
        *,
        wake: bool,
        need_worker: bool,
        deadline: float,
        between: Callable[[DeploymentInfo], Awaitable[None]] | None,
    ) -> None:
        self.scope = scope
        self.info = info
        self.wake = wake
        self.need_worker = need_worker
        self.deadline = deadline
        self.between = between
        self.began = scope.io.now()
        self.woken = 0
        self.cold = 0
        self.absent = 0
        self.diagnosis = Diagnosis(scope, info)

    async def run(self) -> DeploymentInfo:
        try:
            return await poll(
                self.scope.io,
                self._step,
                deadline=self.deadline,
                pace=self.scope.driver.state_pace,
                what=f"a ready worker of {self.info.name or self.info.provider_name}",
                provider=self.scope.provider,
                deployment=self.info.name,
            )
        except DeadlineExceeded as exc:
            if isinstance(exc, NoWorkerReady):
                raise
            raise self._late() from exc

    async def _step(self) -> DeploymentInfo | None:
        scope = self.scope
        if self.between is not None:
            await self.between(self.info)
        now = await scope.driver.read(scope.io, self.info, deadline=self.deadline)
        if now is None:
            self.absent += 1
            if self.absent >= reads_to_believe(scope, self.info):
                raise gone(scope, self.info)
            return None
        if now.state is State.GONE:
            raise gone(scope, self.info)
        self.info, self.absent = now, 0
        if now.state is State.READY:
            self._report("ready")
            return now
        if now.state is State.COLD and not self.need_worker and (now.workers is None or now.workers[0] == 0):
            self._report("ready")
            return now
        self.cold = self.cold + 1 if now.state is State.COLD else 0
        # A deployment that should have a worker and stays cold lost it with its host. The user pays for one anyway.
        overdue = self.cold > 1 and now.workers is not None and now.workers[0] > 0 and isinstance(scope.driver, Wakes)
        if now.state is State.STOPPED or (now.state is State.COLD and (self.wake or overdue)):
            await self._wake(now)
        workers: Sequence[Worker] = ()
        if now.state not in (State.COLD, State.STOPPED):
            workers = await scope.driver.workers(scope.io, now, deadline=self.deadline)
            await self.diagnosis.observe(now, workers)
        self._report(phase_of(now, workers))
        return None

    async def _wake(self, now: DeploymentInfo) -> None:
        if now.state is State.STOPPED and not self.wake:
            raise is_stopped(self.scope, now)
        if self.woken >= _WAKES:
            return
        self.woken += 1
        await wake_once(self.scope, now, deadline=self.deadline)

    def _report(self, phase: str) -> None:
        elapsed = self.scope.io.now() - self.began
        rate = worker_rate(self.info)
        self.scope.report(
            Progress(
                deployment=self.info.name or self.info.provider_name,
                provider=self.scope.provider,
                phase=phase,
                elapsed=elapsed,
                expected=self.scope.expected,
                rate=rate,
                spent=None if rate is None else rate * elapsed / 3600,
                message=self.info.reason,
            )
        )

    def _late(self) -> DeadlineExceeded:
        name = self.info.name or self.info.provider_name
        waited = self.scope.io.now() - self.began
        return DeadlineExceeded(
            f"{name} on {self.scope.provider} was not ready within {waited:.0f} s"
            f" (it is {self.info.state}{': ' + self.info.reason if self.info.reason else ''})",
            provider=self.scope.provider,
            deployment=self.info.name,
            maybe_executed=True,
            may_bill=(bills(self.info),),
            hint="It was kept: wait_ready() or deploy() of the same name waits again, teardown() deletes it.",
            stop_reason="deadline",
        )


async def wake_once(scope: Scope, info: DeploymentInfo, *, deadline: float) -> None:
    """Start one worker of a cold deployment, or start a stopped deployment. "Already started" is success.

    Raises:
        UnsupportedError: the platform cannot start a worker without a call.
    """
    driver = scope.driver
    if info.state is State.STOPPED:
        await start_once(scope, info, deadline=deadline)
    elif isinstance(driver, Wakes):
        await driver.wake(scope.io, info, deadline=deadline)
        scope.event("worker.woken", deployment=info.name)
    else:
        raise UnsupportedError(
            f"{driver.name} starts a worker only for a call",
            provider=driver.name,
            deployment=info.name,
            capability="wake",
            hint="Send a call, or scale the minimum number of workers to 1.",
        )


async def start_once(scope: Scope, info: DeploymentInfo, *, deadline: float) -> None:
    """Start a stopped deployment. Where the client lets many callers share one start, use that.

    Raises:
        NoCapacityError: its GPU is not available any more; ``may_bill`` says what the stopped deployment costs.
    """
    driver = scope.driver
    if scope.start is not None:
        await scope.start(info, deadline)
        return
    if not isinstance(driver, Pauses):
        raise UnsupportedError(
            f"{driver.name} cannot start a stopped deployment",
            provider=driver.name,
            deployment=info.name,
            capability="stop",
            hint="Tear it down and deploy it again.",
        )
    try:
        await driver.start(scope.io, info, deadline=deadline)
    except ConflictError:  # it is stopping, or starting already: the next read shows which
        return
    except NoCapacityError as exc:
        exc.deployment = exc.deployment or info.name
        exc.may_bill = (bills(info),) if info.bills else ()
        exc.hint = "It stays stopped. Try again later, or tear it down (this deletes its disk) and deploy it again."
        raise
    scope.event("worker.woken", deployment=info.name)


def phase_of(info: DeploymentInfo, workers: Sequence[Worker]) -> str:
    """The phase of a start: ``placing``, ``pulling``, ``starting``, ``loading`` or ``ready``."""
    if any(w.state.is_ready for w in workers):
        return "ready"
    coming = [w for w in workers if w.state in (WorkerState.PLACING, WorkerState.STARTING)]
    words = " ".join((w.raw_state or w.reason or "").lower() for w in coming) or (info.raw_state or "").lower()
    if "pull" in words or "image" in words:
        return "pulling"
    if "load" in words:
        return "loading"
    return "starting" if any(w.state is WorkerState.STARTING for w in coming) else "placing"


def worker_rate(info: DeploymentInfo) -> float | None:
    """USD per hour of one worker; ``None``: not known."""
    most = info.rate.max_per_hour
    return None if most is None else most / max(1, info.workers[1] if info.workers else 1)


def bills(info: DeploymentInfo) -> str:
    """What a deployment may cost while no call waits for it, in words."""
    name = info.name or info.provider_name
    if info.state is State.STOPPED:
        return f"{name} ({info.bills})" if info.bills else f"{name} (stopped)"
    if info.rate.idle_per_hour is None and info.rate.max_per_hour is None:
        return f"{name} on {info.provider} (rate unknown)"
    return f"{name} on {info.provider} ({info.rate})"


def is_stopped(scope: Scope, info: DeploymentInfo) -> NoWorkerReady:
    """The error of a call that may not start a worker."""
    stopped = info.state is State.STOPPED
    return NoWorkerReady(
        f"{info.name or info.provider_name} on {scope.provider} is "
        + ("stopped" if stopped else "cold: no worker is running")
        + ", and this call may not start one",
        provider=scope.provider,
        deployment=info.name,
        state=str(info.state),
        reason=info.reason or ("stopped" if stopped else "scaled to zero"),
        maybe_executed=False,
        retry_after=scope.expected[1] if scope.expected else None,
        hint=f"client.{'start' if stopped else 'wake'}({info.name or info.provider_name!r}) starts it; "
        "wake=True lets a call do so.",
    )
