"""Which machines may be rented: one set of conditions, in both of Vast's languages; and what is on offer.

The console's offers take JSON (``{"gpu_ram": {"gte": 23000}}``: megabytes); a workergroup takes a text
(``gpu_ram>=23``: gigabytes). That the server reads the text's units as Vast's own client does is unverified; so what
it made of them is read back (`contradicts`). vastai 1.9.1, ``api/query.py``; https://docs.vast.ai/search-offers.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from unigpu.driver import (
    GPU,
    DeploymentSpec,
    GPURequest,
    Io,
    Offer,
    canonical,
    gpu_table,
    is_shared,
    mapping,
    members,
    rows,
    rows_in,
    spelling,
)

from .api import VastAPI
from .options import SpecOptions
from .wire import PROVIDER, OfferWire

# https://european-union.europa.eu/principles-countries-history/eu-countries; only for turning an area into countries.
AREAS: Final[Mapping[str, tuple[str, ...]]] = {
    "EU": (
        "AT", "BE", "BG", "HR", "CY", "CZ", "DK", "EE", "FI", "FR", "DE", "GR", "HU", "IE", "IT", "LV", "LT", "LU",
        "MT", "NL", "PL", "PT", "RO", "SK", "SI", "ES", "SE",
    ),
    "NA": ("US", "CA", "MX"),
    "APAC": ("AU", "HK", "ID", "IN", "JP", "KR", "MY", "NZ", "PH", "SG", "TH", "TW", "VN"),
}  # fmt: skip
LEAST_DISK: Final = 10
"""Gigabytes where nothing is asked: Vast's least is 8, and an image must fit."""
_MOST: Final = 64
_SIGNS: Final = {"eq": "=", "gte": ">=", "lte": "<="}
_THOUSANDS: Final = frozenset({"gpu_ram"})


@dataclass(frozen=True, slots=True)
class Condition:
    """One: a field, an operator of the JSON form, and a value in the JSON form's units."""

    field: str
    op: str
    value: Any


def countries_of(regions: Sequence[str] | None) -> tuple[str, ...]:
    """ISO codes of what was asked for: Vast's filter knows countries, no areas."""
    codes = [code for region in regions or () for code in AREAS.get(region, (region,))]
    return tuple(dict.fromkeys(codes))


def count_of(gpu: Sequence[GPURequest] | None) -> int:
    return gpu[0].count if gpu else 1


def disk_of(spec: DeploymentSpec) -> int:
    return max(LEAST_DISK, spec.disk or 0)


def machines(
    gpu: Sequence[GPURequest] | None, *, max_price: float | None, regions: Sequence[str] | None, options: SpecOptions
) -> list[Condition]:
    """What a machine must be like, for an offer of one and for a workergroup."""
    out = [Condition("verified", "eq", True)] if options.verified else []
    out += [Condition("rentable", "eq", True), Condition("rented", "eq", False)]
    out += gpus(gpu)
    if max_price is not None:
        out.append(Condition("dph_total", "lte", max_price))
    if options.datacenter:
        out.append(Condition("datacenter", "eq", True))
    if options.reliability is not None:
        out.append(Condition("reliability", "gte", options.reliability))
    if regions:
        out.append(Condition("geolocation", "in", list(countries_of(regions))))
    if options.min_inet_down is not None:
        out.append(Condition("inet_down", "gte", options.min_inet_down))
    if options.max_inet_cost is not None:
        out.append(Condition("inet_down_cost", "lte", options.max_inet_cost))
        out.append(Condition("inet_up_cost", "lte", options.max_inet_cost))
    if options.min_cuda is not None:
        out.append(Condition("cuda_max_good", "gte", float(options.min_cuda)))
    out.append(Condition("direct_port_count", "gte", 1))
    return out


def of_spec(spec: DeploymentSpec, options: SpecOptions) -> list[Condition]:
    """The same for a spec, with the disk that it needs."""
    conditions = machines(spec.gpu, max_price=spec.max_price, regions=spec.regions, options=options)
    return [*conditions, Condition("disk_space", "gte", disk_of(spec))]


def gpus(gpu: Sequence[GPURequest] | None) -> list[Condition]:
    """Names, number and memory. Where a name is shared by GPUs of different memory, the memory is asked for, too."""
    if not gpu:
        return []
    out = [Condition("num_gpus", "eq", count_of(gpu))]
    low, high = memory_of(gpu)
    if all(one.name is not None for one in gpu):
        names = [name for one in gpu for name in spelling(one, PROVIDER)]
        out.append(Condition("gpu_name", "in", list(dict.fromkeys(names))))
    if low is not None:
        out.append(Condition("gpu_ram", "gte", (low - 1) * 1000))  # a "24 GB" card reports 24,564 MB, or a little less
    if high is not None:
        out.append(Condition("gpu_ram", "lte", (high + 6) * 1000))
    return out


def memory_of(gpu: Sequence[GPURequest]) -> tuple[int | None, int | None]:
    """The least and the most memory in GB that must be asked for; ``None``: the names say enough."""
    sizes = [one.memory_gb for one in gpu if one.memory_gb is not None]
    if sizes:
        return min(sizes), None
    shared = [
        one
        for request in gpu
        for one in members(request)
        if any(is_shared(PROVIDER, name) for name in one.spellings.get(PROVIDER, ()))
    ]
    if not shared:
        return None, None
    asked = {one.name for request in gpu for one in members(request)}
    known = {name for one in shared for name in one.spellings.get(PROVIDER, ())}
    twins = [one for one in _sharing(known) if one.name not in asked]
    low, high = min(one.memory_gb for one in shared), max(one.memory_gb for one in shared)
    return (
        low if any(one.memory_gb < low for one in twins) else None,
        high if any(one.memory_gb > high for one in twins) else None,
    )


def _sharing(names: set[str]) -> list[GPU]:
    return [one for one in gpu_table().gpus.values() if names & set(one.spellings.get(PROVIDER, ()))]


def as_json(conditions: Sequence[Condition]) -> dict[str, Any]:
    """For ``/bundles/``."""
    out: dict[str, Any] = {}
    for one in conditions:
        out.setdefault(one.field, {})[one.op] = one.value
    return out


def as_text(conditions: Sequence[Condition], more: str | None = None) -> str:
    """For ``search_params``."""
    words = [_word(one) for one in conditions]
    return " ".join((*words, *([more.strip()] if more and more.strip() else [])))


def _word(one: Condition) -> str:
    value: Any = one.value
    if one.field in _THOUSANDS:
        value = value / 1000
    if one.op == "in":
        items = [_text(item) for item in value]
        return f"{one.field} in [{','.join(items)}]" if len(items) != 1 else f"{one.field}={items[0]}"
    return f"{one.field}{_SIGNS[one.op]}{_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, float | int):
        return f"{value:g}" if abs(value) < 1e15 else str(value)
    return str(value).replace(" ", "_")


def contradicts(read_back: Mapping[str, Any] | str | None, conditions: Sequence[Condition]) -> str | None:
    """How Vast's reading of a search allows more expensive machines than asked, in words. ``None``: it does not, or
    Vast does not show its reading."""
    shown = mapping(read_back)
    if not shown:
        return None
    cap = next((one.value for one in conditions if one.field == "dph_total"), None)
    if cap is None:
        return None
    price = mapping(shown.get("dph_total"))
    most = price.get("lte", price.get("lt"))
    if not isinstance(most, int | float) or isinstance(most, bool) or not math.isclose(most, cap, rel_tol=1e-6):
        return f"max_price is ${cap:g} a worker-hour, and Vast understood {dict(price)}"
    return None


# -- what there is, and what it costs ----------------------------------------------------------------------------------


async def search(
    api: VastAPI, io: Io, conditions: Mapping[str, Any], *, disk: int, limit: int, deadline: float
) -> list[OfferWire]:
    """Offers on demand, the cheapest first; with the storage of *disk* GB in their price."""
    body = {
        **conditions,
        "order": [["dph_total", "asc"]],
        "type": "on-demand",
        "allocated_storage": disk,
        "limit": min(limit, _MOST),
    }
    reply = await api.send(io, "POST", "/api/v0/bundles/", "offers.search", json=body, deadline=deadline)
    found = rows(OfferWire, rows_in(reply.json(), "offers", reply.operation), reply.operation)
    return sorted(found, key=lambda one: (one.dph_total, one.id))


async def offers(
    api: VastAPI,
    io: Io,
    *,
    gpu: tuple[GPURequest, ...] | None,
    max_price: float | None,
    regions: tuple[str, ...] | None,
    kind: Literal["serverless", "pod"],
    deadline: float,
) -> list[Offer]:
    """Machines that could be rented now, by the filters that a deployment would have: one search for each GPU. The
    price covers GPU and disk; traffic is billed by the byte on top, and its price is in `Offer.details`."""
    asked: list[tuple[GPURequest, ...] | None] = [None] if gpu is None else [(one,) for one in gpu]
    found: dict[int, OfferWire] = {}
    for one in asked:
        filters = as_json(machines(one, max_price=max_price, regions=regions, options=SpecOptions()))
        for wire in await search(api, io, filters, disk=LEAST_DISK, limit=_MOST, deadline=deadline):
            found[wire.id] = wire
    source = f"Vast's offers, {datetime.fromtimestamp(io.wall(), UTC).date().isoformat()}"
    return [_offer(one, kind, source) for one in found.values()]


def country(place: str | None) -> str | None:
    """``"Texas, US"``, also ``", US"``: the last word."""
    code = (place or "").rpartition(",")[2].strip().upper()
    return code if re.fullmatch(r"[A-Z]{2}", code) else None


def _offer(wire: OfferWire, kind: Literal["serverless", "pod"], source: str) -> Offer:
    memory = None if wire.gpu_ram is None else round(wire.gpu_ram / 1000, 1)
    more = {
        "machine_id": wire.machine_id,
        "reliability": wire.reliability if wire.reliability is not None else wire.reliability2,
        "verification": wire.verification,
        "datacenter": None if wire.hosting_type is None else wire.hosting_type == 1,
        "inet_down": wire.inet_down,
        "inet_down_cost": wire.inet_down_cost,
        "inet_up_cost": wire.inet_up_cost,
        "storage_cost": wire.storage_cost,
        "longest_s": wire.duration,
    }
    return Offer(
        provider=PROVIDER,
        gpu=canonical(PROVIDER, wire.gpu_name, memory_gb=memory) or wire.gpu_name,
        count=wire.num_gpus,
        memory_gb=memory,
        price_per_hour=wire.dph_total,
        region=country(wire.geolocation),
        kind=kind,
        available=1,
        interruptible=bool(wire.is_bid),
        id=str(wire.id),
        source=source,
        details={name: value for name, value in more.items() if value is not None},
    )
