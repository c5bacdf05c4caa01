"""What a deployment costs by the hour, from the price of one worker. Pure."""

from __future__ import annotations

from typing import Final

from ..models import DeploymentSpec, Rate

HERE: Final = "this machine"


def rate_of(
    spec: DeploymentSpec,
    price_per_hour: float | None,
    source: str | None,
    *,
    idle_price_per_hour: float | None = None,
    storage_per_month: float | None = None,
) -> Rate:
    """The rate of *spec*: idle at its least number of workers, at most with all of them.

    Args:
        price_per_hour: USD for one busy worker, all its GPUs and disk; ``None``: unknown.
        source: Where the price comes from, with its date, as in ``"list price, 2026-11-24"``.
        idle_price_per_hour: USD for one worker that has nothing to do; ``None``: the same.
        storage_per_month: USD for what is kept and billed whatever runs; ``None``: unknown.
    """
    least, most = spec.workers
    idle = price_per_hour if idle_price_per_hour is None else idle_price_per_hour
    return Rate(
        idle_per_hour=_times(least, idle),
        max_per_hour=_times(most, price_per_hour),
        storage_per_month=storage_per_month,
        source=source,
    )


def free(spec: DeploymentSpec) -> Rate:
    """The rate of what runs on this machine: $0, and known."""
    return rate_of(spec, 0.0, HERE, storage_per_month=0.0)


def _times(workers: int, price: float | None) -> float | None:
    """No worker costs nothing, also where the price of one is unknown."""
    if workers == 0:
        return 0.0
    return None if price is None else round(workers * price, 6)
