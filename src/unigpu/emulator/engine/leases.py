"""Http requests: each waits in order for a free slot of a worker, then is forwarded, and gives the slot back."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..contract import JSON, Dropped, Forward, Hold, HttpCall, Reply
from .entities import EngineDeployment, EngineWorker, Ticket, WaitingCaller
from .slots import mark_busy, mark_idle, pick
from .state import EngineState

NoWorker = Callable[[EngineDeployment, Mapping[str, JSON]], Reply]


class Leases:
    """Slots of workers that http requests hold."""

    def __init__(self, core: EngineState) -> None:
        self._core = core

    def lease(
        self,
        deployment: EngineDeployment,
        call: HttpCall,
        now: float,
        *,
        wait: float,
        no_worker: NoWorker,
        refusal: Mapping[str, JSON] | None = None,
    ) -> Hold | Forward | Reply:
        """A worker for this request: at once, or held until one is free.

        Args:
            wait: Seconds to hold it.
            no_worker: Makes the answer where none came, from an error as data.
            refusal: Why no worker will come now.
        """
        core = self._core
        if refusal is not None:
            return no_worker(deployment, refusal)
        ticket = Ticket(id=core.new_id("lease"), deployment_id=deployment.id, call=call, since=now)
        deployment.waiting.append(ticket)
        self.assign(deployment, now)
        core.touch(deployment.id)
        if isinstance(ticket.answer, Forward):
            return ticket.answer
        until = now + wait

        def poll(then: float) -> Reply | Forward | Dropped | None:
            if ticket.answer is not None:
                return ticket.answer
            if then < until:
                return None
            self._leave(ticket, then)
            message = f"no worker was ready and free within {wait:g} s"
            ticket.answer = no_worker(deployment, {"type": "no_worker", "message": message})
            return ticket.answer

        def abandoned(then: float) -> None:
            self._leave(ticket, then)
            if isinstance(ticket.answer, Forward):
                self.release(ticket.answer.lease, then)

        ticket.refuse = lambda error: no_worker(deployment, error)
        return Hold(until=until, poll=poll, abandoned=abandoned)

    def assign(self, deployment: EngineDeployment, now: float) -> None:
        """Give free slots to those who wait, in order."""
        while deployment.waiting:
            worker = pick(list(deployment.workers.values()), now, spread=deployment.terms.spread)
            if worker is None:
                return
            ticket = deployment.waiting.popleft()
            ticket.answer = Forward(worker_id=worker.id, lease=ticket.id, call=ticket.call)
            worker.leases.add(ticket.id)
            self._core.leases[ticket.id] = worker.id
            mark_busy(self._core, worker, now)

    def release(self, lease: str, now: float) -> bool:
        """The request ended, or its caller left. Whether it held a slot."""
        worker = self._core.workers.get(self._core.leases.pop(lease, ""))
        if worker is None or lease not in worker.leases:
            return False
        worker.leases.discard(lease)
        mark_idle(self._core, worker, now)
        self._core.touch(worker.deployment_id)
        return True

    def ask(self, deployment: EngineDeployment, key: str, now: float, *, keep: float) -> None:
        """A caller without a worker, who comes back."""
        core = self._core
        known = deployment.asks.get(key)
        mine = deployment.asks[key] = WaitingCaller(since=known.since if known else now, until=now + keep)
        core.touch(deployment.id)

        def forget(_: float) -> None:
            if deployment.asks.get(key) is mine:
                del deployment.asks[key]
                core.touch(deployment.id)

        core.at(mine.until, forget)

    def claim(self, deployment: EngineDeployment, worker_id: str, key: str, now: float, *, keep: float | None) -> bool:
        """A caller was told where this worker is."""
        core = self._core
        deployment.asks.pop(key, None)
        core.touch(deployment.id)
        worker = deployment.workers.get(worker_id)
        if worker is None:
            return False
        until = worker.claims[key] = None if keep is None else now + keep
        mark_busy(core, worker, now)
        if until is not None:

            def over(then: float) -> None:
                if worker.claims.get(key) == until:  # it was not claimed again since
                    self.unclaim(worker_id, key, then)

            core.at(until, over)
        return True

    def unclaim(self, worker_id: str, key: str, now: float) -> None:
        worker = self._core.workers.get(worker_id)
        if worker is not None and key in worker.claims:
            del worker.claims[key]
            mark_idle(self._core, worker, now)
            self._core.touch(worker.deployment_id)

    def drop_all(self, worker: EngineWorker) -> None:
        """The worker is gone, and its requests with it."""
        for lease in worker.leases:
            self._core.leases.pop(lease, None)
        worker.leases.clear()
        worker.claims.clear()

    def fail_waiting(self, deployment: EngineDeployment, error: Mapping[str, JSON]) -> None:
        """No worker will come: everyone who waits is told."""
        while deployment.waiting:
            ticket = deployment.waiting.popleft()
            if ticket.refuse is not None:
                ticket.answer = ticket.refuse(error)

    def _leave(self, ticket: Ticket, now: float) -> None:
        deployment = self._core.deployments.get(ticket.deployment_id)
        if deployment is not None and ticket in deployment.waiting:
            deployment.waiting.remove(ticket)
            self._core.touch(deployment.id)
