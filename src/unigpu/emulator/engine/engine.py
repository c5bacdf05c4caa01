"""The emulator's engine: deployments, workers, jobs, faults and the bill, without any I/O.

A driver (`simulation`, `server`, `supervisor`) calls `handle` for each request and `event` for what happens, then
`tick`; it carries out the effects in order, and asks every open `Hold` again. One that fails to write a `Persist`
record calls `undo_persist`, goes on with the other effects, and answers 507. The engine is not thread-safe: one thread,
or one lock, drives it.

Times are seconds on the driver's monotonic clock; ``wall`` tells the epoch time of one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from unigpu.models.deployment import State

from ..contract import (
    JSON,
    Answer,
    CallbackDone,
    Chunk,
    Effect,
    EmulatedAPI,
    Event,
    Forward,
    ForwardDone,
    Hold,
    HttpCall,
    JobDone,
    Persist,
    Reply,
    WorkerExited,
    WorkerLog,
    WorkerReady,
    WorkerStarted,
)
from .billing import Meter
from .deployments import STOPPED, Deployments
from .entities import (
    EngineDeployment,
    EngineJob,
    EngineRefused,
    EngineSettings,
    EngineWorker,
    LogRecord,
)
from .faults import Faults
from .jobs import Jobs
from .leases import Leases, NoWorker
from .state import EngineState
from .webhooks import Callbacks
from .workers import Workers

__all__ = ["Engine"]

log = logging.getLogger("unigpu.cloud.engine")
_MOST_ROUNDS: Final = 1000


class Engine:
    """One emulator.

    Args:
        now: The driver's monotonic time.
        wall: The epoch time of a monotonic one; by default the two are the same.
        seed: Ids and lags are the same in each run of a seed.
    """

    def __init__(
        self,
        *,
        now: float,
        wall: Callable[[float], float] | None = None,
        seed: int = 0,
        settings: EngineSettings | None = None,
    ) -> None:
        self._core = EngineState(now=now, wall=wall or _same, seed=seed, settings=settings or EngineSettings())
        self._leases = Leases(self._core)
        self.jobs: Final = Jobs(self._core)
        self._workers = Workers(self._core, self.jobs, self._leases)
        self.deployments: Final = Deployments(self._core, self._workers, self.jobs, self._leases)
        self.callbacks: Final = Callbacks(self._core)
        self.faults: Final = Faults()
        self.apis: Final[dict[str, EmulatedAPI]] = {}

    @property
    def meter(self) -> Meter:
        return self._core.meter

    @property
    def settings(self) -> EngineSettings:
        return self._core.settings

    @property
    def now(self) -> float:
        """The latest time that the driver told."""
        return self._core.now

    def wall(self, now: float) -> float:
        """The epoch time of a monotonic one."""
        return self._core.wall(now)

    # What a driver calls.

    def mount(self, api: EmulatedAPI) -> None:
        """Let a platform's protocol be spoken: under its hosts, or under the path ``/<its name>/``."""
        self.apis[api.name] = api

    def handle(self, call: HttpCall, now: float) -> Answer:
        """The answer of the emulated API that the call is for. Call `tick` next, also for a `Hold`."""
        now = self._core.advance(now)
        api, call = self._pick(call)
        if api is None:
            return _error(404, "no_face", f"no platform is served at {call.host or 'this address'}{call.path}")
        operation = api.operation(call)
        if operation is None:
            message = f"{api.name} has no route {call.method} {call.path} here"
            return _error(501, "not_implemented", message)
        before = self.faults.strike(operation, "before", call)
        if before is not None:
            return before
        return self.faults.after(operation, call, api.handle(call, now))

    def event(self, event: Event, now: float) -> None:
        """Take note of what happened. Events of workers that are gone are no news."""
        now = self._core.advance(now)
        if isinstance(event, CallbackDone):
            self.callbacks.done(event, now)
            return
        worker = self._core.workers.get(event.worker_id)
        if worker is None:
            self._late(event)
            return
        deployment = self._core.deployments[worker.deployment_id]
        match event:
            case WorkerStarted():
                self._workers.started(worker, event)
            case WorkerReady():
                self._workers.ready(deployment, worker, event, now)
            case WorkerExited():
                self._workers.exited(deployment, worker, event, now)
            case WorkerLog():
                self._core.log(worker, event.text, event.stream)
            case JobDone():
                self.jobs.done(deployment, worker, event, now)
                if not (event.busy or event.lost):
                    self._workers.proved(deployment, now)
            case Chunk():
                self.jobs.chunk(deployment, event, now)
            case ForwardDone():
                self._leases.unclaim(worker.id, event.lease, now)
                if self._leases.release(event.lease, now) and event.status is not None:
                    self._workers.proved(deployment, now)

    def tick(self, now: float) -> list[Effect]:
        """Do what is due, and return what the driver has to do, in this order."""
        core = self._core
        now = core.advance(now)
        for _ in range(_MOST_ROUNDS):
            core.fire(now)
            touched = list(core.take_touched())
            if not touched:
                break
            for deployment in touched:
                self._leases.assign(deployment, now)
                self.jobs.dispatch(deployment, now)
                self._workers.settle(deployment, now)
                self.deployments.reap(deployment, now)
        else:  # a mistake of ours must not hang a server
            log.error("the engine did not come to rest within %d rounds", _MOST_ROUNDS)
        effects, core.effects = core.effects, []
        self.deployments.told(effects)
        return effects

    def next_due(self) -> float | None:
        """When `tick` has something to do although nothing happens; ``None``: never."""
        return self._core.now if self._core.busy else self._core.next_timer()

    def deployment_ids(self) -> list[str]:
        """What is deployed, without what is being deleted."""
        return [one.id for one in self._core.deployments.values() if not one.deleting]

    def has_work(self) -> bool:
        """Whether anybody's job or request waits or runs."""
        return any(
            one.queue
            or one.running
            or one.waiting
            or one.asks
            or any(worker.leases or worker.claims for worker in one.workers.values())
            for one in self._core.deployments.values()
        )

    def restore(self, records: Iterable[Persist], now: float) -> None:
        """Take a journal back: deployments without workers; jobs that were not at their end are FAILED."""
        now = self._core.advance(now)
        for record in sorted(records, key=lambda record: record.kind):  # deployments come before their jobs
            try:
                self._restore(record, now)
            except (KeyError, TypeError, ValueError, AttributeError) as exc:
                log.warning("the record of %s %s cannot be read (%r); it is left out", record.kind, record.id, exc)

    def undo_persist(self, record: Persist, now: float) -> None:
        """A record could not be written: take back what it says. A finished job keeps its result in memory."""
        now = self._core.advance(now)
        if record.kind in ("deployment", "deployment_gone"):
            self.deployments.undo_persist(record, now)

    # What emulated APIs use, beside `deployments` and `jobs`.

    def submit(
        self,
        deployment_id: str,
        input: JSON,
        now: float,
        *,
        id: str | None = None,
        execution_timeout: float | None = None,
        stream: bool = False,
        idempotent: bool | None = None,
        extra: Mapping[str, JSON] | None = None,
        wake: bool = False,
        pin: str | None = None,
        ended: Callable[[EngineJob, float], None] | None = None,
    ) -> EngineJob:
        """Queue a job. Where no worker can come now, it ends at once with the reason. *pin*: only that worker runs it;
        *ended* is called when it is at its end.

        Raises:
            Refused: ``not_found``, ``stopped`` (unless *wake*), and what `Jobs.submit` raises.
        """
        deployment = self._serving(deployment_id, now, wake=wake)
        return self.jobs.submit(
            deployment,
            input,
            now,
            id=id,
            execution_timeout=execution_timeout,
            stream=stream,
            idempotent=idempotent,
            extra=extra,
            refusal=self._workers.refusal(deployment, now),
            pin=pin,
            ended=ended,
        )

    def lease(
        self, deployment_id: str, call: HttpCall, now: float, *, wait: float, no_worker: NoWorker, wake: bool = False
    ) -> Hold | Forward | Reply:
        """Forward *call* to a worker with a free slot, or hold it until there is one, *wait* seconds at most.

        Raises:
            Refused: ``not_found``, ``stopped`` (unless *wake*).
        """
        deployment = self._serving(deployment_id, now, wake=wake)
        refusal = self._workers.refusal(deployment, now)
        return self._leases.lease(deployment, call, now, wait=wait, no_worker=no_worker, refusal=refusal)

    def ask(self, deployment_id: str, key: str, now: float, *, keep: float) -> None:
        """Somebody who got no worker now asks again within *keep* seconds: until then it counts as a waiting call.

        Raises:
            Refused: ``not_found``, ``stopped``.
        """
        self._leases.ask(self._serving(deployment_id, now, wake=False), key, now, keep=keep)

    def claim(self, deployment_id: str, worker_id: str, key: str, now: float, *, keep: float | None) -> bool:
        """Somebody was told where a worker is, and calls it without the engine: it is not idle until `unclaim`.

        Args:
            key: The caller's; it no longer counts as waiting.
            keep: Seconds after which the claim ends by itself; ``None``: never.

        Returns:
            Whether there is such a worker.
        """
        return self._leases.claim(self._core.find(deployment_id), worker_id, key, now, keep=keep)

    def unclaim(self, worker_id: str, key: str, now: float) -> None:
        """That call has ended. One that is not known is no error."""
        self._leases.unclaim(worker_id, key, now)

    def end_worker(self, deployment_id: str, worker_id: str, now: float) -> None:
        """End one worker, whatever it does. The rule may want another one in its place.

        Raises:
            Refused: ``not_found``, also where it has ended.
        """
        deployment = self._core.find(deployment_id)
        if worker_id not in deployment.workers and worker_id not in deployment.shelf:
            raise EngineRefused("not_found", f"there is no worker {worker_id!r} of {deployment_id!r}")
        self._workers.end_one(deployment, worker_id, now)

    def fail_worker(self, deployment_id: str, worker_id: str, reason: str, now: float) -> None:
        """A worker told its platform that it cannot serve: it is ended, and that counts as a failure.

        Raises:
            Refused: ``not_found``.
        """
        worker = self._core.worker(deployment_id, worker_id)
        if not worker.gone:
            self._workers.fail_one(self._core.find(deployment_id), worker, reason, now)

    def take(self, deployment_id: str, worker_id: str, now: float, *, limit: int = 1) -> list[EngineJob]:
        """Jobs for a worker that comes and takes them."""
        deployment = self._core.find(deployment_id)
        worker = deployment.workers.get(worker_id)
        return [] if worker is None else self.jobs.take(deployment, worker, limit, now)

    def cancels(self, worker_id: str) -> list[str]:
        """The jobs that a worker which took them should stop; told once."""
        worker = self._core.workers.get(worker_id)
        if worker is None:
            return []
        told, worker.cancels = worker.cancels, []
        return told

    def workers(self, deployment_id: str) -> list[EngineWorker]:
        """The workers there are, and those that ended lately, oldest first."""
        return self._core.find(deployment_id).everyone()

    def worker(self, deployment_id: str, worker_id: str) -> EngineWorker:
        """One of them.

        Raises:
            Refused: ``not_found``.
        """
        return self._core.worker(deployment_id, worker_id)

    def logs(self, deployment_id: str, worker_id: str, *, after: int = 0) -> list[LogRecord]:
        """A worker's lines after number *after*, as far as they are kept."""
        return [line for line in self.worker(deployment_id, worker_id).log if line.n > after]

    def billed_seconds(self, worker: EngineWorker, now: float) -> float:
        """Seconds that a worker was billed for, until *now* or its end."""
        seconds = worker.seconds if worker.gone else self.meter.seconds(worker.id, now)
        return self.meter.billed(seconds or {}, worker.deployment_id)

    def state(self, deployment: EngineDeployment, now: float) -> State:
        return self.deployments.state(deployment, now)

    # Inside.

    def _restore(self, record: Persist, now: float) -> None:
        if record.kind == "deployment":
            self.deployments.restore(record, now)
        elif record.kind == "job":
            deployment = self._core.deployments.get(str(record.record.get("deployment")))
            if deployment is not None:
                self.jobs.restore(deployment, record.id.removeprefix(f"{deployment.id}/"), record.record, now)
            else:
                self._core.effects.append(Persist(kind="job_gone", id=record.id))

    def _serving(self, deployment_id: str, now: float, *, wake: bool) -> EngineDeployment:
        deployment = self._core.find(deployment_id)
        if deployment.deleting:
            raise EngineRefused("not_found", f"deployment {deployment_id!r} is being deleted", what="deployment")
        if deployment.stopped:
            if not wake:
                raise EngineRefused("stopped", STOPPED["message"])
            self.deployments.start(deployment_id, now)
        return deployment

    def _pick(self, call: HttpCall) -> tuple[EmulatedAPI | None, HttpCall]:
        first = call.path[1:].partition("/")[0]
        if first in self.apis:
            prefix = len(first) + 1
            path = call.path[prefix:] or "/"
            return self.apis[first], replace(call, path=path, target=call.target[prefix:])
        for api in self.apis.values():
            if answers_for(api.hosts, call.host):
                return api, call
        if len(self.apis) == 1:
            return next(iter(self.apis.values())), call
        return None, call

    def _late(
        self, event: WorkerReady | WorkerStarted | WorkerExited | WorkerLog | JobDone | Chunk | ForwardDone
    ) -> None:
        """An event of a worker that is gone: its last lines are still worth keeping."""
        if isinstance(event, WorkerLog):
            for deployment in self._core.deployments.values():
                for worker in deployment.ended:
                    if worker.id == event.worker_id:
                        self._core.log(worker, event.text, event.stream)


def answers_for(hosts: Sequence[str], host: str) -> bool:
    """Whether *host* is one of these. One that begins with a dot stands for all names under it."""
    return host in hosts or any(one.startswith(".") and host.endswith(one) for one in hosts)


def _same(now: float) -> float:
    return now


def _error(status: int, type: str, message: str) -> Reply:
    return Reply.json({"error": {"type": type, "message": message}}, status=status)
