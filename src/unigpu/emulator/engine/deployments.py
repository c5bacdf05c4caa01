"""Deployments: put, replaced, patched, paused, deleted; listed with a lag; ended when their time has come; restored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unigpu.elasticity._scaling.policy import Rule
from unigpu.models.deployment import State

from ..contract import JSON, Effect, Persist
from .entities import DeploymentTerms, EngineDeployment, EngineRefused, Ghost
from .jobs import Jobs
from .leases import Leases
from .records import deployment_record, record_id, terms_from
from .state import EngineState
from .workers import Workers

STOPPED = {"type": "stopped", "message": "the deployment is stopped; start it first"}


@dataclass(frozen=True, slots=True)
class _Before:
    """What a deployment was before the record that may yet fail to be written."""

    terms: DeploymentTerms
    stopped: bool
    secrets_lost: tuple[str, ...]


class Deployments:
    """The deployments of one engine."""

    def __init__(self, core: EngineState, workers: Workers, jobs: Jobs, leases: Leases) -> None:
        self._core = core
        self._workers = workers
        self._jobs = jobs
        self._leases = leases
        self._before: dict[str, _Before | EngineDeployment | None] = {}

    # What emulated APIs ask for.

    def create(self, id: str, platform: str, terms: DeploymentTerms, now: float) -> EngineDeployment:
        """Create one, without any worker unless its least says so.

        Raises:
            Refused: ``exists``, also where one of this id is still being deleted.
        """
        core = self._core
        if id in core.deployments:
            raise EngineRefused("exists", f"there is already a deployment {id!r}")
        deployment = EngineDeployment(
            id=id,
            platform=platform,
            terms=terms,
            created_at=now,
            visible_at=now + core.lag(),
            cold_since=now,
        )
        core.deployments[id] = deployment
        self._before[id] = None
        self._changed(deployment)
        self._expire_at(deployment, now)
        return deployment

    def replace(self, id: str, terms: DeploymentTerms, now: float) -> EngineDeployment:
        """Make it another one, in place: queued jobs stay, workers of the old one drain and are replaced."""
        deployment = self._active(id)
        self._remember(deployment)
        if not _same_workers(deployment.terms, terms):
            deployment.version += 1
            deployment.start_failures, deployment.crashes = 0, 0
            deployment.failure, deployment.retry_at = None, now
        deployment.terms, deployment.secrets_lost = terms, ()
        self._changed(deployment)
        self._expire_at(deployment, now)
        return deployment

    def patch(
        self,
        id: str,
        now: float,
        *,
        workers: tuple[int, int] | None = None,
        idle_timeout: float | None = None,
        rule: Rule | None = None,
        data: Mapping[str, JSON] | None = None,
    ) -> EngineDeployment:
        """Change limits; no worker is replaced. What is ``None`` stays."""
        deployment = self._active(id)
        self._remember(deployment)
        terms = deployment.terms
        if workers is not None:
            terms = replace(terms, min_workers=workers[0], max_workers=workers[1])
        if idle_timeout is not None:
            terms = replace(terms, idle_timeout=idle_timeout)
        if rule is not None:
            terms = replace(terms, rule=rule)
        if data is not None:
            terms = replace(terms, data={**terms.data, **data})
        deployment.terms = terms
        self._changed(deployment)
        return deployment

    def delete(self, id: str, now: float, *, why: str = "the deployment was deleted") -> bool:
        """Delete it: jobs are cancelled, workers ended, and then it is gone. Whether there was one."""
        core = self._core
        deployment = core.deployments.get(id)
        if deployment is None or deployment.deleting:
            return deployment is not None
        deployment.deleting = True
        self._before[id] = deployment
        core.effects.append(Persist(kind="deployment_gone", id=id))
        self._jobs.cancel_all(deployment, now, why=why)
        self._leases.fail_waiting(deployment, {"type": "gone", "message": why})
        self._workers.stop_all(deployment, now)
        core.touch(id)
        return True

    def stop(self, id: str, now: float) -> EngineDeployment:
        """Keep it without workers; what waits in its queue goes on waiting."""
        deployment = self._active(id)
        if not deployment.stopped:
            self._remember(deployment)
            deployment.stopped, deployment.woken = True, False
            self._leases.fail_waiting(deployment, STOPPED)
            self._changed(deployment)
        return deployment

    def start(self, id: str, now: float) -> EngineDeployment:
        """Let a stopped one run again."""
        deployment = self._active(id)
        if deployment.stopped:
            self._remember(deployment)
            deployment.stopped = False
            deployment.start_failures, deployment.crashes = 0, 0
            deployment.failure, deployment.retry_at = None, now
            self._changed(deployment)
        return deployment

    def wake(self, id: str, now: float) -> EngineDeployment:
        """See that one worker is there or comes; a ready one is kept for another idle timeout."""
        deployment = self.start(id, now)
        ready = deployment.ready()
        if ready:
            for worker in ready:
                if worker.idle_since is not None:
                    worker.idle_since = now
        elif self._workers.refusal(deployment, now) is None:
            deployment.woken = True
        self._core.touch(id)
        return deployment

    def get(self, id: str, now: float) -> EngineDeployment:
        """It, also while it is being deleted.

        Raises:
            Refused: ``not_found``; with ``read_lag``, also for one too young to be seen.
        """
        found = self._core.deployments.get(id)
        if self._core.settings.read_lag:
            found = next((one for one in self.list(now) if one.id == id), None)
        if found is None:
            raise EngineRefused("not_found", f"there is no deployment {id!r}", what="deployment")
        return found

    def list(self, now: float, *, platform: str | None = None) -> list[EngineDeployment]:
        """What a list shows at this time: it learns late of what was created or deleted."""
        core = self._core
        core.ghosts = [ghost for ghost in core.ghosts if ghost.until > now]
        shown = {one.id: one for one in core.deployments.values() if one.visible_at <= now}
        for ghost in core.ghosts:
            shown.setdefault(ghost.deployment.id, ghost.deployment)
        return [one for one in shown.values() if platform is None or one.platform == platform]

    def state(self, deployment: EngineDeployment, now: float) -> State:
        """Where it is."""
        if deployment.deleting:
            return State.DELETING
        if deployment.stopped:
            return State.STOPPED
        broken = self._workers.broken(deployment)
        if deployment.ready():
            return State.DEGRADED if broken else State.READY
        starting = any(worker.alive for worker in deployment.workers.values())
        if starting:
            return State.STARTING
        if broken:
            return State.FAILED
        waits = deployment.queue or deployment.waiting or deployment.asks
        wanted = waits or deployment.woken or deployment.terms.min_workers
        if wanted and deployment.terms.max_workers and not deployment.secrets_lost:
            return State.STARTING
        return State.COLD

    def reason(self, deployment: EngineDeployment, now: float) -> str | None:
        """Why it is so, where there is something to say."""
        refusal = self._workers.refusal(deployment, now)
        if refusal is not None:
            return str(refusal["message"])
        if deployment.failure is not None and not deployment.stopped and not deployment.deleting:
            return deployment.failure.message
        return None

    # What the engine does at each look.

    def reap(self, deployment: EngineDeployment, now: float) -> None:
        """A deleted deployment is gone with its last worker."""
        if not deployment.deletion_told or deployment.workers:
            return
        core = self._core
        del core.deployments[deployment.id]
        core.effects.extend(Persist(kind="job_gone", id=record_id(job)) for job in deployment.jobs.values())
        if (lag := core.lag()) > 0 and deployment.visible_at <= now + lag:
            core.ghosts.append(Ghost(deployment, now + lag))

    # The journal.

    def told(self, effects: Sequence[Effect]) -> None:
        """These are handed to the driver now: what was handed out before is written, and cannot be taken back."""
        records = [effect for effect in effects if isinstance(effect, Persist) and effect.kind != "job"]
        self._before = {effect.id: self._before[effect.id] for effect in records if effect.id in self._before}
        for effect in records:
            if effect.kind == "deployment_gone":
                deployment = self._core.deployments.get(effect.id)
                if deployment is not None and deployment.deleting:
                    deployment.deletion_told = True
                    self._core.touch(effect.id)

    def restore(self, record: Persist, now: float) -> EngineDeployment:
        """A deployment of the journal, without any worker."""
        core = self._core
        values = record.record
        terms = terms_from(values)
        created = float(values.get("created_at") or core.wall(now))
        deployment = EngineDeployment(
            id=record.id,
            platform=str(values.get("platform", "local")),
            terms=terms,
            created_at=core.monotonic(created),
            visible_at=now,
            stopped=bool(values.get("stopped")),
            secrets_lost=tuple(values.get("secrets_lost") or ()),
            cold_since=now,
        )
        core.deployments[record.id] = deployment
        core.meter.open(record.id, name=str(terms.data.get("name") or record.id), price_per_hour=terms.price_per_hour)
        core.touch(record.id)
        self._expire_at(deployment, now)
        return deployment

    def clock_was_set(self, now: float) -> None:
        """The wall clock was set, or the machine slept: what ends at a time of day is looked at anew."""
        for deployment in self._core.deployments.values():
            self._expire_at(deployment, now)

    def undo_persist(self, record: Persist, now: float) -> None:
        """A deployment's record could not be written: it is again what it was before.

        After a deletion that failed its workers are gone, and its jobs stay cancelled.
        """
        core = self._core
        if record.id not in self._before:
            return
        before = self._before.pop(record.id)
        deployment = core.deployments.get(record.id)
        if isinstance(before, EngineDeployment):  # its deletion
            before.deleting = before.deletion_told = False
            before.cold_since = now if before.cold_since is None else before.cold_since
            core.deployments[record.id] = before
            core.ghosts = [ghost for ghost in core.ghosts if ghost.deployment is not before]
        elif deployment is None:
            return
        elif before is None:  # its creation
            deployment.deleting = deployment.deletion_told = True
            self._jobs.cancel_all(deployment, now, why="the deployment could not be recorded")
            self._workers.stop_all(deployment, now)
        else:
            if not _same_workers(deployment.terms, before.terms):
                deployment.version += 1
            deployment.terms, deployment.stopped = before.terms, before.stopped
            deployment.secrets_lost = before.secrets_lost
            self._expire_at(deployment, now)
        core.touch(record.id)

    # Inside.

    def _active(self, id: str) -> EngineDeployment:
        deployment = self._core.find(id)
        if deployment.deleting:
            raise EngineRefused("not_found", f"deployment {id!r} is being deleted", what="deployment")
        return deployment

    def _remember(self, deployment: EngineDeployment) -> None:
        self._before[deployment.id] = _Before(deployment.terms, deployment.stopped, deployment.secrets_lost)

    def _changed(self, deployment: EngineDeployment) -> None:
        core = self._core
        terms = deployment.terms
        name = str(terms.data.get("name") or deployment.id)
        core.meter.open(deployment.id, name=name, price_per_hour=terms.price_per_hour)
        record = deployment_record(deployment, created_at=core.wall(deployment.created_at))
        core.effects.append(Persist(kind="deployment", id=deployment.id, record=record))
        core.touch(deployment.id)

    def _expire_at(self, deployment: EngineDeployment, now: float) -> None:
        """End it when its time has come, by the wall clock, which may be set meanwhile."""
        core = self._core
        at = deployment.terms.expires_at
        if at is None:
            return

        def check(then: float) -> None:
            current = core.deployments.get(deployment.id)
            if current is not deployment or deployment.deleting or deployment.terms.expires_at != at:
                return
            left = at - core.wall(then)
            if left <= 0:
                self.delete(deployment.id, then, why="the deployment's time has come (ttl)")
            else:
                core.at(then + left, check)

        core.at(max(now, core.monotonic(at)), check)


def _same_workers(old: DeploymentTerms, new: DeploymentTerms) -> bool:
    """Whether workers of the old terms may serve the new ones."""
    return (old.launch, old.interface, old.concurrency, old.kind) == (
        new.launch,
        new.interface,
        new.concurrency,
        new.kind,
    )
