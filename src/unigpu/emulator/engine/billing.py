"""What was billed: seconds of each worker by what it did, and dollars where a price is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from ..contract import JSON

Phase = Literal["loading", "idle", "busy"]
PHASES: Final[tuple[Phase, ...]] = ("loading", "idle", "busy")


@dataclass(slots=True)
class Bill:
    """One deployment's bill, kept also after it is gone.

    Attributes:
        seconds: Seconds by phase, of workers that have ended.
        billed: Which phases cost money on its platform.
        price_per_hour: USD of one worker-hour.
    """

    name: str
    price_per_hour: float | None = None
    billed: frozenset[str] = frozenset(PHASES)
    workers: int = 0
    seconds: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


@dataclass(slots=True)
class _Running:
    account: str
    phase: Phase
    since: float
    seconds: dict[Phase, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


class Meter:
    """The billing meter. A worker is billed from its start until it is gone, by the second."""

    def __init__(self) -> None:
        self._accounts: dict[str, Bill] = {}
        self._running: dict[str, _Running] = {}

    def open(self, id: str, *, name: str, price_per_hour: float | None, billed: frozenset[str] | None = None) -> None:
        """Begin, or change, the account of a deployment."""
        account = self._accounts.setdefault(id, Bill(name=name))
        account.name, account.price_per_hour = name, price_per_hour
        if billed is not None:
            account.billed = billed

    def switch(self, worker_id: str, account: str, phase: Phase, now: float) -> None:
        """From *now* on the worker does this."""
        entry = self._running.get(worker_id)
        if entry is None:
            self._running[worker_id] = _Running(account=account, phase=phase, since=now)
            self._accounts.setdefault(account, Bill(name=account)).workers += 1
        elif entry.phase != phase:
            entry.seconds[entry.phase] += max(0.0, now - entry.since)
            entry.phase, entry.since = phase, now

    def close(self, worker_id: str, now: float) -> None:
        """The worker is gone, and costs nothing from *now* on."""
        entry = self._running.pop(worker_id, None)
        if entry is None:
            return
        entry.seconds[entry.phase] += max(0.0, now - entry.since)
        total = self._accounts[entry.account].seconds
        for phase in PHASES:
            total[phase] += entry.seconds[phase]

    def seconds(self, worker_id: str, now: float) -> dict[Phase, float] | None:
        """A running worker's seconds by phase; ``None`` where it does not run."""
        entry = self._running.get(worker_id)
        if entry is None:
            return None
        found = dict(entry.seconds)
        found[entry.phase] += max(0.0, now - entry.since)
        return found

    def billed(self, seconds: Mapping[Phase, float], account: str) -> float:
        """How many of these seconds cost money."""
        found = self._accounts.get(account)
        return sum(value for phase, value in seconds.items() if found is None or phase in found.billed)

    def report(self, now: float) -> dict[str, JSON]:
        """Everything billed until *now*, by deployment: seconds by phase, their sum, and USD where it is known."""
        rows: dict[str, JSON] = {}
        for id, account in self._accounts.items():
            seconds = dict(account.seconds)
            running = 0
            for worker_id, entry in self._running.items():
                if entry.account == id:
                    running += 1
                    for phase, value in (self.seconds(worker_id, now) or {}).items():
                        seconds[phase] += value
            billed = self.billed(seconds, id)
            price = account.price_per_hour
            rows[id] = {
                "name": account.name,
                "workers_started": account.workers,
                "workers_running": running,
                **{f"{phase}_s": seconds[phase] for phase in PHASES},
                "billed_s": billed,
                "price_per_hour": price,
                "cost": None if price is None else price * billed / 3600.0,
            }
        return {"deployments": rows, "billed_s": sum(row["billed_s"] for row in rows.values())}
