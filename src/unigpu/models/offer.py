"""GPUs at a price, not yet rented."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from pydantic import Field

from ..errors import UniGPUError
from ._model_kinds import Data
from .deployment import Kind, usd
from .plan import table


class Offer(Data):
    """One kind of worker that could be had now.

    Attributes:
        gpu: The canonical name, or the platform's where there is none; ``None``: no GPU.
        count: GPUs in one worker.
        memory_gb: Of one GPU.
        price_per_hour: USD of one worker-hour, all its GPUs; ``None``: unknown.
        region: An ISO country code, where the platform tells.
        available: How many there are, or the platform's word for it; ``None``: it does not tell.
        interruptible: It may be taken back.
        id: What the platform calls the offer.
        source: Where the price comes from, with its date.
        details: What else the platform tells, by its words.
    """

    provider: str
    gpu: str | None = None
    count: int = 1
    memory_gb: float | None = None
    price_per_hour: float | None = None
    region: str | None = None
    kind: Kind = "serverless"
    available: int | str | None = None
    interruptible: bool = False
    id: str | None = None
    source: str | None = None
    details: Mapping[str, Any] = Field(default_factory=dict)

    def __str__(self) -> str:
        gpu = self.gpu or "no GPU"
        count = f"{self.count} × " if self.count != 1 else ""
        where = f" in {self.region}" if self.region else ""
        price = usd(self.price_per_hour, unknown="–")
        return f"{count}{gpu} at {price}/h on {self.provider}{where}"


class Offers(Sequence[Offer]):
    """What is offered, the cheapest first; unknown prices last.

    Attributes:
        unreadable: Provider → why it could not be read. What it offers is not known, so it is never left out.
    """

    def __init__(self, offers: Sequence[Offer], unreadable: Mapping[str, UniGPUError]) -> None:
        self._offers = tuple(sorted(offers, key=_order))
        self.unreadable = dict(unreadable)

    @overload
    def __getitem__(self, index: int) -> Offer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Offer]: ...
    def __getitem__(self, index: int | slice) -> Offer | Sequence[Offer]:
        return self._offers[index]

    def __len__(self) -> int:
        return len(self._offers)

    def __iter__(self) -> Iterator[Offer]:
        return iter(self._offers)

    def __str__(self) -> str:
        rows = [("PROVIDER", "GPU", "COUNT", "MEMORY", "$/H", "REGION", "AVAILABLE")]
        for one in self._offers:
            memory = "–" if one.memory_gb is None else f"{one.memory_gb:g} GB"
            there = "–" if one.available is None else str(one.available)
            price = usd(one.price_per_hour, unknown="–")
            gpus = "–" if one.gpu is None else str(one.count)
            rows.append((one.provider, one.gpu or "none", gpus, memory, price, one.region or "–", there))
        rows += [(name, "–", "–", "–", "–", "–", str(exc)) for name, exc in sorted(self.unreadable.items())]
        return table(rows)

    def __repr__(self) -> str:
        lost = f", unreadable: {', '.join(sorted(self.unreadable))}" if self.unreadable else ""
        return f"<Offers {len(self._offers)}{lost}>"


def _order(offer: Offer) -> tuple[bool, float, str, str]:
    price = offer.price_per_hour
    return price is None, price or 0.0, offer.provider, offer.gpu or ""
