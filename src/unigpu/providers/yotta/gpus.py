"""Which GPUs Yotta has now, and what the user's own price table says that they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Literal

from unigpu.driver import (
    DeploymentSpec,
    GPURequest,
    Io,
    Offer,
    canonical,
    gpu,
    matches,
    members,
    spelling,
    worker_hour,
)
from unigpu.errors import UnsupportedError

from .api import PROVIDER, YottaAPI
from .options import Options
from .wire import PlaceWire, StockWire

_SOURCE: Final = "availability only: Yotta's API tells no price before a deployment exists"
_OWN_PRICE: Final = "your own price table (driver_options)"


def gpu_codes(spec: DeploymentSpec, prices: Mapping[str, float]) -> list[str]:
    """Yotta's codes of the acceptable GPUs, in order; without those that the user's own prices put above the cap."""
    codes: list[str] = []
    for request in spec.gpu or ():
        for code in spelling(request, PROVIDER):
            price = price_in(prices, code)
            if spec.max_price is None or price is None or worker_hour(price, request.count) <= spec.max_price:
                codes.append(code)
    return list(dict.fromkeys(codes))


def gpu_count(spec: DeploymentSpec) -> int:
    """GPUs of one worker: the driver's check has seen that all acceptable ones have the same number."""
    return spec.gpu[0].count if spec.gpu else 1


def price_in(prices: Mapping[str, float], code: str) -> float | None:
    """The user's own price of a GPU, by Yotta's code."""
    name = canonical(PROVIDER, code)
    if name is None:
        return None
    return prices.get(name, next((price for known, price in prices.items() if matches(name, known)), None))


async def stock(api: YottaAPI, io: Io, *, deadline: float) -> Sequence[StockWire]:
    """``GET /v2/vms/types``: nominally the stock of virtual machines, and the one list of GPUs and regions there is."""
    return await api.listed(io, StockWire, "/v2/vms/types", "gpu.list", deadline=deadline)


def offers(
    stock: Sequence[StockWire],
    options: Options,
    *,
    wanted: tuple[GPURequest, ...] | None,
    regions: tuple[str, ...] | None,
    kind: Literal["serverless", "pod"],
) -> Sequence[Offer]:
    """Each GPU, with Yotta's ids of the regions that have it now. No price, and no number: the API tells none.

    Raises:
        UnsupportedError: a place was asked for; Yotta knows only ids of its own, and does not say where they are.
    """
    if regions is not None:
        raise UnsupportedError(
            "regions: yotta knows only its own region ids, and does not say in which country they are.",
            provider=PROVIDER,
            capability="regions",
            hint="Leave regions out; each offer says which of Yotta's regions have it.",
        )
    counts: Mapping[str, Sequence[int]] | None = None
    if wanted is not None:
        asked: dict[str, list[int]] = {}
        for request in wanted:
            for code in spelling(request, PROVIDER):
                asked.setdefault(code, []).append(request.count)
        counts = asked
    return tuple(
        _offer(row.gpu_type, there, count, options, kind)
        for row in stock
        if (there := [place for place in row.regions if place.available])
        for count in ((1,) if counts is None else dict.fromkeys(counts.get(row.gpu_type, ())))
    )


def _offer(
    code: str, there: Sequence[PlaceWire], count: int, options: Options, kind: Literal["serverless", "pod"]
) -> Offer:
    known = canonical(PROVIDER, code)
    one = None if known is None else gpu(known) or min(members(known), key=lambda each: each.memory_gb)
    price = price_in(options.prices, code)
    return Offer(
        provider=PROVIDER,
        gpu=known or code,
        count=count,
        memory_gb=None if one is None else one.memory_gb,
        price_per_hour=None if price is None else round(price * count, 6),
        kind=kind,
        available=", ".join(place.region for place in there),
        id=code,
        source=_SOURCE if price is None else _OWN_PRICE,
        details={"regions": {place.region: place.region_name for place in there}},
    )
