"""Where a call waits for a worker, within two deadlines: one for having a ready worker, one for the whole call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unigpu.driver import DeploymentInfo, Requests, State, Worker, WorkerState
from unigpu.errors import DeadlineExceeded, NoWorkerReady, TransportError

from ..consistency.absence import read
from ..diagnose import Diagnosis
from ..ready import bills, is_stopped, start_once
from ..scope import CallOptions, Scope

_UNREADY_HOLD: Final = 5.0
"""Seconds a check may be held open while no worker is ready: a failing start must not stay unseen for longer."""
_ASK_ANYWAY: Final = 60.0
"""Seconds after which a call that was refused is made again, whatever checks say."""
_NEWS: Final = 0.25
"""Seconds after which a call that waits hears what another one has seen."""


class WorkerWait:
    """How long one call still waits for a worker. Every check of its job feeds it; it ends the wait, and says why.

    ``start_timeout`` counts only what passes while no worker of the deployment is ready: waiting behind other calls
    counts against the whole alone.
    """

    def __init__(self, scope: Scope, info: DeploymentInfo, options: CallOptions, *, began: float) -> None:
        self._scope = scope
        self._options = options
        self._began = began
        self._seen_at = began
        self._looked_at: float | None = None
        self._ready_at: float | None = None
        self._diagnosis = Diagnosis(scope, info)
        self._start_asked = False
        self.info: DeploymentInfo = info
        self._given = info
        self.is_ready = False
        self.unready = 0.0

    @property
    def deadline(self) -> float:
        """The end of the whole, on `Io.now`'s clock; counted from the first ready worker where the options say so."""
        if self._options.timeout_from == "call":
            return self._began + self._options.whole
        if self._ready_at is not None:
            return self._ready_at + self._options.whole
        return self._scope.io.now() + self.start_left + self._options.whole

    @property
    def start_left(self) -> float:
        return max(0.0, self._options.start_timeout - self.unready)

    @property
    def left(self) -> float:
        """Seconds until this call gives up, as things are now."""
        now = self._scope.io.now()
        whole = self.deadline - now
        return max(0.0, whole if self.is_ready else min(whole, self.start_left - (now - self._seen_at)))

    def hold(self, long_poll: float) -> float:
        """How long the next check may be held open."""
        return min(long_poll if self.is_ready else min(long_poll, _UNREADY_HOLD), self.left)

    def check(self) -> None:
        """Where no check succeeds either.

        Raises:
            DeadlineExceeded: the whole is over.
        """
        if self._scope.io.now() >= self.deadline:
            raise self.late()

    async def observe(self, *, started: bool, ready_workers: int | None, queued: bool = False) -> None:
        """Take in what a check showed.

        Args:
            started: A worker has the job now.
            ready_workers: Of the deployment, where the platform told it with the job.
            queued: It is in the platform's queue, so that a short one needs no check of the deployment.

        Raises:
            NoWorkerReady, DeadlineExceeded: it is over.
            WorkerFailed: no worker will become ready.
            DeploymentGone: the deployment does not exist any more.
        """
        scope, now = self._scope, self._scope.io.now()
        if queued and not started and ready_workers is None and self._may_be_short(now):
            return
        if started:
            self.is_ready = True
        elif ready_workers is not None:
            self.is_ready = ready_workers > 0
        if not self.is_ready or (not started and ready_workers is None):
            await self._inspect(now, tells=ready_workers is not None)
        if self.is_ready:
            self._ready_at = now if self._ready_at is None else self._ready_at
        else:
            self.unready += now - self._seen_at
        self._seen_at = now
        if not self.is_ready and self.unready >= self._options.start_timeout:
            raise self.no_worker()
        if scope.io.now() >= self.deadline:
            raise self.late() if self.is_ready else self.no_worker()

    def _may_be_short(self, now: float) -> bool:
        """Whether the deployment, ready when it was last seen, need not be looked at yet for the sake of one job."""
        if self._looked_at is not None or self.info.state is not State.READY:
            return False
        soon = min(self._scope.driver.state_pace.floor, self._options.start_timeout, self._options.whole)
        return now - self._began < soon

    async def _inspect(self, now: float, *, tells: bool) -> None:
        """Check the deployment itself, now and then: is it stopped, failing, or ready after all?"""
        scope = self._scope
        pace = scope.driver.state_pace
        if self._looked_at is not None and now - self._looked_at < pace.delay(now - self._began, scope.io.random()):
            return
        self._looked_at = now
        try:
            seen, workers = await self._seen(now, within=0.75 * pace.floor, tells=tells)
        except TransportError:
            return  # the job's own check decides whether the platform can be reached
        if seen is None:
            return  # another call is checking right now
        self.info = seen
        self.is_ready = self._says_ready(seen, tells=tells)
        if seen.state is State.STOPPED:
            await self._start(seen)
        elif not self.is_ready and seen.state is not State.COLD:
            await self._diagnosis.observe(seen, workers, served=self._ready_at is not None)
            if seen.reason is None:
                said = next((w.reason for w in workers if w.reason and w.state is not WorkerState.EXITED), None)
                self.info = seen.model_copy(update={"reason": said})
        if not self.is_ready:
            scope.event(
                "call.held", deployment=seen.name, state=str(seen.state), reason=self.info.reason,
                waited_s=round(now - self._began, 3), most_s=self._options.start_timeout,
            )  # fmt: skip

    async def _seen(self, now: float, *, within: float, tells: bool) -> tuple[DeploymentInfo | None, Sequence[Worker]]:
        """The deployment, and its workers where they may say why none is ready: as a call of this client has just
        seen it, else by a check of our own."""
        scope, key = self._scope, (self._scope.base, self.info.id)
        newest = None if scope.status is None else scope.status.newest(key, now, within=within)
        if newest is not None:
            return newest.seen, newest.workers
        seen = await read(scope, self.info, deadline=self.deadline)
        workers: Sequence[Worker] = ()
        if seen.state not in (State.COLD, State.STOPPED) and not self._says_ready(seen, tells=tells):
            workers = await scope.driver.workers(scope.io, seen, deadline=self.deadline)
        if scope.status is not None:
            scope.status.show(key, now, seen, workers)
        return seen, workers

    def _says_ready(self, seen: DeploymentInfo, *, tells: bool) -> bool:
        """Whether *seen* has a ready worker; what a job told before (*tells*) counts more."""
        if tells or (seen.ready_workers is None and seen.state is State.UNKNOWN):
            return self.is_ready
        return seen.state is State.READY if seen.ready_workers is None else seen.ready_workers > 0

    async def _start(self, seen: DeploymentInfo) -> None:
        if not self._options.wake:
            raise is_stopped(self._scope, seen)
        if not self._start_asked:
            self._start_asked = True
            await start_once(self._scope, seen, deadline=self.deadline)
            if self._scope.status is not None:
                self._scope.status.forget((self._scope.base, self.info.id), self._scope.io.now())

    async def refused(self, asked: float) -> DeploymentInfo:
        """After a call that no worker took: return when it is worth making again, with the deployment to call.

        A platform that holds no request starts nothing for one either: there it is made again once a worker is ready,
        or after a while, should checks never say so. Elsewhere after a pause. *asked*: when it was made.

        Raises:
            As `observe`.
        """
        io, pace = self._scope.io, self._scope.driver.state_pace
        driver = self._scope.driver
        in_vain = isinstance(driver, Requests) and driver.request_hold == 0
        if await self._finds_ready() or not in_vain:
            pause = pace.delay(io.now() - self._began, io.random())
            if io.now() - asked < pause:
                await io.sleep(min(pause, self.left))
            if self.left <= 0:
                await self._finds_ready()
        else:
            while io.now() - asked < _ASK_ANYWAY:
                await self._rest(min(pace.delay(io.now() - self._began, io.random()), self.left))
                if await self._finds_ready():
                    break
        moved = self.info.url != self._given.url  # a pod has no address while it is stopped, and then another one
        return self.info if in_vain or moved else self._given

    async def _rest(self, seconds: float) -> None:
        """Sleep, until another call of this client has seen a ready worker."""
        io, status = self._scope.io, self._scope.status
        if status is None:
            return await io.sleep(seconds)
        until = io.now() + seconds
        while (left := until - io.now()) > 0:
            await io.sleep(min(left, _NEWS))
            told = status.latest((self._scope.base, self.info.id))
            if told is not None and self._says_ready(told, tells=False):
                self._looked_at = None  # worth a check at once
                return None
        return None

    async def _finds_ready(self) -> bool:
        await self.observe(started=False, ready_workers=None)
        return self.is_ready

    def no_worker(self) -> NoWorkerReady:
        scope, info = self._scope, self.info
        name = info.name or info.provider_name
        waited = scope.io.now() - self._began
        return NoWorkerReady(
            f"no worker of {name} on {scope.provider} was ready within {self._options.start_timeout:g} s"
            f" (it is {info.state}{': ' + info.reason if info.reason else ''})",
            provider=scope.provider,
            deployment=info.name,
            state=str(info.state),
            reason=info.reason,
            retry_after=self._retry_after(waited),
            maybe_executed=False,
            may_bill=() if info.state in (State.COLD, State.STOPPED) else (bills(info),),
            stop_reason="deadline",
        )

    def late(self) -> DeadlineExceeded:
        info = self.info
        return DeadlineExceeded(
            f"the call of {info.name or info.provider_name} on {self._scope.provider} did not end within "
            f"{self._options.whole:g} s",
            provider=self._scope.provider,
            deployment=info.name,
            maybe_executed=True,
            stop_reason="deadline",
        )

    def _retry_after(self, waited: float) -> float | None:
        """When a worker may be ready by the facts; ``None`` where that time is over already."""
        if self._scope.expected is None:
            return None
        left = self._scope.expected[1] - waited
        return left if left > 0 else None
