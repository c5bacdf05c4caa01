"""Price arithmetic. Pure.

All prices are in US dollars an hour. They are rounded to millionths when they are put together, once: three GPUs at
$0.10 cost $0.30, and meet a cap of 0.3.
"""

from __future__ import annotations

from typing import Final

_PLACES: Final = 6


def worker_hour(price_of_one: float, gpus: int, *, more: float = 0.0) -> float:
    """What one worker costs: so many GPUs, and what else belongs to it, as its disk."""
    return round(price_of_one * gpus + more, _PLACES)


def workers_hour(workers: int, price: float | None) -> float | None:
    """What so many workers cost; ``None``: unknown. No worker costs nothing, also where the price of one is unknown."""
    if workers == 0:
        return 0.0
    return None if price is None else round(workers * price, _PLACES)
