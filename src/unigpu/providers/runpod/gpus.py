"""Which GPUs: from what a spec accepts to RunPod's pools and types, by its live catalogue.

A serverless endpoint takes *pools*, less excluded *types*; a pod takes one type. Which type is in which pool, and what
it costs, is read from the catalogue each time: a pool's name shows neither (``ADA_80_PRO`` holds H100s).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from unigpu.driver import DeploymentSpec, GPURequest, Io, Offer, canonical, matches, members, parse, pools, worker_hour
from unigpu.errors import NoCapacityError

from .api import RunPodAPI
from .wire import PROVIDER, GpuTypesWire, GpuTypeWire

DISK_GB_MONTH: Final = 0.10
"""USD a month for a gigabyte of container disk: https://docs.runpod.io/serverless/pricing (2026-08)."""
HOURS_A_MONTH: Final = 730.0

LIST_PRICES: Final[Mapping[str, float]] = {
    "AMPERE_16": 0.576, "AMPERE_24": 0.684, "ADA_24": 1.116, "AMPERE_48": 1.224, "ADA_48_PRO": 1.908,
    "AMPERE_80": 2.736, "ADA_80_PRO": 4.176, "BLACKWELL_96": 3.996, "HOPPER_141": 5.58, "BLACKWELL_180": 8.64,
}  # fmt: skip
"""USD per GPU-hour of each pool, where the catalogue cannot be read (a rate before anything is sent).

https://github.com/runpod/docs/blob/main/snippets/serverless-gpu-pricing-table.mdx, August 2026.
"""
LIST_SOURCE: Final = "list price, 2026-08"

# https://europa.eu, and what RunPod's own region words hold; only for turning an area into countries.
AREAS: Final[Mapping[str, tuple[str, ...]]] = {
    "EU": (
        "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV", "LT", "LU",
        "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE",
    ),
    "NA": ("US", "CA", "MX"),
    "APAC": ("AU", "HK", "ID", "IN", "JP", "KR", "MY", "NZ", "PH", "SG", "TH", "TW", "VN"),
}  # fmt: skip

Product = Literal["SERVERLESS", "POD"]
_STOCK: Final = {"HIGH": 0, "MEDIUM": 1, "LOW": 2, "NONE": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What an endpoint may run on.

    Attributes:
        price: USD of the most expensive worker-hour that is possible; ``None`` where one price is unknown.
        places: The data centers that have one of them, where a region was asked for.
    """

    pools: tuple[str, ...]
    excluded: tuple[str, ...]
    count: int
    types: tuple[str, ...]
    price: float | None
    places: tuple[str, ...] = ()

    def body(self, *, min_cuda: str | None = None) -> dict[str, Any]:
        """The ``gpu`` object. Pools and exclusions go together: pools alone would clear the exclusions."""
        body: dict[str, Any] = {"pools": list(self.pools), "excludedTypes": list(self.excluded), "count": self.count}
        if min_cuda is not None:
            body["minCudaVersion"] = min_cuda
        return body

    def as_shown(self) -> dict[str, Any]:
        """The same as RunPod shows it."""
        return {"pools": sorted(self.pools), "excludedTypes": sorted(self.excluded), "count": self.count}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One kind of pod that will do.

    Attributes:
        places: The data centers that have it, where a region was asked for.
    """

    type: str
    count: int
    cloud: str
    price: float | None
    places: tuple[str, ...] = ()


async def catalogue(
    api: RunPodAPI,
    io: Io,
    product: Product,
    *,
    count: int,
    cloud: str | None = None,
    countries: Sequence[str] = (),
    deadline: float,
) -> Sequence[GpuTypeWire]:
    """The live catalogue of GPU types. Its stock is for one product, one count and one cloud at a time."""
    query = [("include", "AVAILABILITY"), ("product", product), ("count", str(count))]
    if cloud is not None:
        query.append(("cloud", cloud))
    if countries:
        query.append(("countryCodes", ",".join(countries)))
    reply = await api.send(io, "GET", "/catalog/gpus", "catalog.gpus.list", params=tuple(query), deadline=deadline)
    return parse(GpuTypesWire, reply).gpus


async def catalogue_of(
    api: RunPodAPI, io: Io, spec: DeploymentSpec, *, cloud: str | None = None, deadline: float
) -> Sequence[GpuTypeWire]:
    """The catalogue for what *spec* asks for."""
    product: Product = "POD" if spec.kind == "pod" else "SERVERLESS"
    return await catalogue(
        api, io, product, count=count_of(spec), cloud=cloud, countries=countries_of(spec.regions), deadline=deadline
    )


def countries_of(regions: Sequence[str] | None) -> tuple[str, ...]:
    """ISO codes of what was asked for: RunPod's filter knows countries, no areas."""
    codes = [code for region in regions or () for code in AREAS.get(region, (region,))]
    return tuple(dict.fromkeys(codes))


def count_of(spec: DeploymentSpec) -> int:
    """GPUs in one worker: one number for all that are acceptable (see `check`)."""
    return spec.gpu[0].count if spec.gpu else 1


def is_wanted(one: GpuTypeWire, request: GPURequest) -> bool:
    """Whether a type of the catalogue satisfies a request; one that our table does not know counts by its memory."""
    name = canonical(PROVIDER, one.id, memory_gb=one.memory)
    if name is not None:
        return matches(name, request)
    return request.name is None and one.memory >= (request.memory_gb or 0)


def choose(spec: DeploymentSpec, types: Sequence[GpuTypeWire]) -> Choice:
    """Pools and exclusions for *spec*: exactly the acceptable types within the price cap.

    Raises:
        NoCapacityError: no acceptable type is in a serverless pool, at that price, in that place.
    """
    count, cap = count_of(spec), spec.max_price
    pooled = [one for one in types if one.pool is not None]
    wanted = [one for one in pooled if any(is_wanted(one, request) for request in spec.gpu or ())]
    prices = {one.id: serverless_price(one, count, spec.disk) for one in wanted}
    kept = [one for one in wanted if cap is None or _within(prices[one.id], cap)]
    if spec.regions is not None:
        kept = [one for one in kept if one.dataCenters]
    if not kept:
        raise _none(spec, list(wanted), prices)
    chosen = tuple(dict.fromkeys(one.pool for one in kept if one.pool is not None))
    ids = {one.id for one in kept}
    known = [prices[one.id] for one in kept]
    places = (place for one in kept for place in _places(one))
    return Choice(
        pools=chosen,
        excluded=tuple(sorted(one.id for one in pooled if one.pool in chosen and one.id not in ids)),
        count=count,
        types=tuple(sorted(ids)),
        price=None if any(price is None for price in known) else max(price or 0.0 for price in known),
        places=tuple(sorted(set(places))) if spec.regions is not None else (),
    )


def serverless_price(one: GpuTypeWire, count: int, disk: float | None = None) -> float | None:
    """USD of one worker-hour: the catalogue's price of one GPU, times the number, and the disk."""
    price = one.price.serverless
    if price is None and one.pool is not None:
        price = LIST_PRICES.get(one.pool)
    return None if price is None else worker_hour(price, count, more=disk_price(disk))


def disk_price(disk: float | None) -> float:
    return (disk or 0) * DISK_GB_MONTH / HOURS_A_MONTH


def candidates(spec: DeploymentSpec, types: Sequence[GpuTypeWire], cloud: str) -> list[Candidate]:
    """Pods that will do in one cloud, in the order in which they are acceptable, the cheapest of each first."""
    out: dict[str, Candidate] = {}
    for request in spec.gpu or ():
        found: list[Candidate] = []
        for one in types:
            there = one.secure if cloud == "SECURE" else one.community
            price = one.price.secure if cloud == "SECURE" else one.price.community
            if not there or one.availability == "NONE" or not is_wanted(one, request):
                continue
            places = _places(one) if spec.regions is not None else ()
            if spec.regions is not None and not places:
                continue
            whole = None if not price else worker_hour(price, request.count, more=disk_price(spec.disk))
            if spec.max_price is None or _within(whole, spec.max_price):
                found.append(Candidate(type=one.id, count=request.count, cloud=cloud, price=whole, places=places))
        for each in sorted(found, key=lambda one: (one.price is None, one.price or 0.0, one.type)):
            out.setdefault(f"{each.type}:{each.count}", each)
    return list(out.values())


def list_price(spec: DeploymentSpec) -> float | None:
    """USD of the most expensive acceptable worker-hour, by the printed table; ``None``: not in the table."""
    count = count_of(spec)
    found: list[float | None] = []
    for request in spec.gpu or ():
        found += [LIST_PRICES.get(pool) for pool in pools(request)] if any(members(request)) else [None]
    known = [worker_hour(price, count, more=disk_price(spec.disk)) for price in found if price is not None]
    if spec.max_price is not None:
        known = [price for price in known if price <= spec.max_price] or [spec.max_price]
    return max(known) if known else None


def offers_of(
    types: Sequence[GpuTypeWire], product: Product, *, count: int, cloud: str | None, source: str
) -> list[Offer]:
    """The catalogue as offers, with stock and data centers."""
    out: list[Offer] = []
    for one in types:
        if product == "SERVERLESS":
            if one.pool is None:
                continue
            price = serverless_price(one, count)
        else:
            if not (one.secure if cloud == "SECURE" else one.community):
                continue
            single = one.price.secure if cloud == "SECURE" else one.price.community
            price = round(single * count, 6) if single else None
        places = {place.id: place.availability for place in one.dataCenters or ()}
        out.append(
            Offer(
                provider=PROVIDER,
                gpu=canonical(PROVIDER, one.id, memory_gb=one.memory) or one.name,
                count=count,
                memory_gb=one.memory,
                price_per_hour=price,
                kind="serverless" if product == "SERVERLESS" else "pod",
                available=one.availability,
                id=one.id,
                source=source,
                details={
                    key: value
                    for key, value in {"pool": one.pool, "cloud": cloud, "data_centers": places}.items()
                    if value
                },
            )
        )
    return out


async def offers(
    api: RunPodAPI,
    io: Io,
    *,
    gpu: tuple[GPURequest, ...] | None,
    regions: tuple[str, ...] | None,
    kind: Literal["serverless", "pod"],
    deadline: float,
) -> Sequence[Offer]:
    """The catalogue: one call for each number of GPUs, and for pods each cloud."""
    product: Product = "POD" if kind == "pod" else "SERVERLESS"
    clouds = ("SECURE", "COMMUNITY") if kind == "pod" else (None,)
    source = f"RunPod's catalogue, {_day(io.wall())}"
    countries = countries_of(regions)
    found: list[Offer] = []
    for count in sorted({one.count for one in gpu or ()} or {1}):
        for cloud in clouds:
            types = await catalogue(api, io, product, count=count, cloud=cloud, countries=countries, deadline=deadline)
            if regions is not None:
                types = [one for one in types if one.dataCenters]
            if gpu is not None:
                wanted = [one for one in gpu if one.count == count]
                types = [one for one in types if any(is_wanted(one, asked) for asked in wanted)]
            found += offers_of(types, product, count=count, cloud=cloud, source=source)
    return found


def _day(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).date().isoformat()


def best_place(types: Sequence[GpuTypeWire], spec: DeploymentSpec, allowed: Sequence[str]) -> str | None:
    """The data center of *allowed* with the best stock of what is acceptable; then by name, so that it is the same."""
    stock: dict[str, int] = {}
    for one in types:
        if not any(is_wanted(one, request) for request in spec.gpu or ()):
            continue
        for place in one.dataCenters or ():
            if place.id in allowed:
                stock[place.id] = min(stock.get(place.id, 9), _STOCK.get(place.availability or "", 3))
    there = {place: rank for place, rank in stock.items() if rank < _STOCK["NONE"]} or dict.fromkeys(allowed, 9)
    return min(there, key=lambda place: (there[place], place), default=None)


def _places(one: GpuTypeWire) -> tuple[str, ...]:
    return tuple(place.id for place in one.dataCenters or () if place.availability != "NONE")


def _within(price: float | None, cap: float) -> bool:
    return price is not None and price <= cap


def _none(spec: DeploymentSpec, wanted: Sequence[GpuTypeWire], prices: Mapping[str, float | None]) -> NoCapacityError:
    asked = ", ".join(str(one) for one in spec.gpu or ())
    known = sorted((price, one.name) for one in wanted if (price := prices[one.id]) is not None)
    if not wanted:
        why = f"RunPod has none of {asked} in a serverless pool"
    elif spec.max_price is not None and not (known and known[0][0] <= spec.max_price):
        cheapest = f"; the cheapest is {known[0][1]} at ${known[0][0]:.2f}" if known else ""
        why = f"none of {asked} is offered at ${spec.max_price:g} a worker-hour or less{cheapest}"
    else:
        why = f"none of {asked} is in {', '.join(spec.regions or ())} now"
    return NoCapacityError(
        f"{why}.",
        provider=PROVIDER,
        operation="runpod.catalog.gpus.list",
        deployment=spec.name,
        retryable=True,
        maybe_executed=False,
        hint="client.offers(provider='runpod') lists what there is; accept more GPUs, a higher price, or more regions.",
    )
