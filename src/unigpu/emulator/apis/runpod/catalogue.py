"""RunPod's catalogue: GPU types with pools and prices, CPU types, data centres.

Types and pools: https://docs.runpod.io/references/gpu-types. Serverless prices: the table of
https://docs.runpod.io/serverless/pricing of August 2026 (USD per second, times 3600). Pod prices are examples of ours:
they change daily. Where a GPU is to be had is an example, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from unigpu.emulator.contract import JSON, HttpCall, Reply

from .state import Route, RunPodAccount, RunPodProblem, int_of

_LEVELS: Final = ("NONE", "LOW", "MEDIUM", "HIGH")


@dataclass(frozen=True, slots=True)
class GpuType:
    """One card. Prices are USD per hour of one; ``serverless`` is ``None`` outside every pool."""

    id: str
    name: str
    memory: int
    pool: str | None
    secure: float
    community: float
    serverless: float | None
    level: int = 3


def _rows(pool: str | None, serverless: float | None, *rows: tuple[str, int, float]) -> list[GpuType]:
    return [
        GpuType(id, _short(id), memory, pool, price, round(price * 0.75, 3), serverless) for id, memory, price in rows
    ]


def _short(id: str) -> str:
    name = id.removeprefix("NVIDIA ").removeprefix("GeForce ")
    return name.removesuffix(" Generation").removesuffix(" Edition")


TYPES: Final[Mapping[str, GpuType]] = {
    one.id: one
    for one in [
        *_rows("AMPERE_16", 0.576, ("NVIDIA RTX A4000", 16, 0.25), ("NVIDIA RTX A4500", 20, 0.25)),
        *_rows("AMPERE_16", 0.576, ("NVIDIA RTX 4000 Ada Generation", 20, 0.26)),
        *_rows("AMPERE_16", 0.576, ("NVIDIA RTX 2000 Ada Generation", 16, 0.24)),
        *_rows("AMPERE_24", 0.684, ("NVIDIA L4", 24, 0.39), ("NVIDIA RTX A5000", 24, 0.27)),
        *_rows("AMPERE_24", 0.684, ("NVIDIA GeForce RTX 3090", 24, 0.46)),
        *_rows("ADA_24", 1.116, ("NVIDIA GeForce RTX 4090", 24, 0.69)),
        *_rows("ADA_32_PRO", 1.58, ("NVIDIA GeForce RTX 5090", 32, 0.94)),
        *_rows("AMPERE_48", 1.224, ("NVIDIA A40", 48, 0.4), ("NVIDIA RTX A6000", 48, 0.49)),
        *_rows("ADA_48_PRO", 1.908, ("NVIDIA L40", 48, 0.99), ("NVIDIA L40S", 48, 0.86)),
        *_rows("ADA_48_PRO", 1.908, ("NVIDIA RTX 6000 Ada Generation", 48, 0.77)),
        *_rows("AMPERE_80", 2.736, ("NVIDIA A100 80GB PCIe", 80, 1.64), ("NVIDIA A100-SXM4-80GB", 80, 1.74)),
        *_rows("ADA_80_PRO", 4.176, ("NVIDIA H100 PCIe", 80, 2.39), ("NVIDIA H100 80GB HBM3", 80, 2.99)),
        *_rows("ADA_80_PRO", 4.176, ("NVIDIA H100 NVL", 94, 2.79)),
        *_rows("BLACKWELL_96", 3.996, ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 96, 1.79)),
        *_rows("BLACKWELL_96", 3.996, ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96, 1.79)),
        *_rows("HOPPER_141", 5.58, ("NVIDIA H200", 141, 3.59)),
        *_rows("BLACKWELL_180", 8.64, ("NVIDIA B200", 180, 5.98)),
        *_rows(None, None, ("NVIDIA GeForce RTX 3070", 8, 0.14), ("NVIDIA RTX A2000", 6, 0.12)),
        *_rows(None, None, ("NVIDIA RTX 5000 Ada Generation", 32, 0.69), ("Tesla V100-SXM2-32GB", 32, 0.49)),
    ]
}
"""By id. A40 and V100 are cards of earlier families; a type without a pool cannot be used by endpoints."""

CENTERS: Final[Mapping[str, tuple[str, str, str]]] = {
    "EU-RO-1": ("EU Romania 1", "EUROPE", "RO"),
    "EU-FR-1": ("EU France 1", "EUROPE", "FR"),
    "EUR-IS-1": ("EUR Iceland 1", "EUROPE", "IS"),
    "US-KS-2": ("US Kansas 2", "NORTH_AMERICA", "US"),
    "US-TX-3": ("US Texas 3", "NORTH_AMERICA", "US"),
    "CA-MTL-1": ("CA Montreal 1", "NORTH_AMERICA", "CA"),
    "AP-JP-1": ("AP Japan 1", "ASIA", "JP"),
}
"""Id: name, region, country. The country is ours to know: the ids do not tell it."""

_CPUS: Final = {
    "cpu3c": ("Compute-Optimized", 2.0, 0.03),
    "cpu3g": ("General Purpose", 4.0, 0.04),
    "cpu5c": ("5 GHz Compute-Optimized", 2.0, 0.035),
    "cpu5g": ("5 GHz General Purpose", 4.0, 0.05),
}
CPU_MEMORY: Final[Mapping[str, float]] = {id: row[1] for id, row in _CPUS.items()}
"""GB of each vCPU."""


def pool_members(pool: str) -> list[GpuType]:
    return [one for one in TYPES.values() if one.pool == pool]


def available(account: RunPodAccount, gpu: GpuType) -> bool:
    return not {gpu.id, gpu.pool} & account.scarce


def cpu_price(id: str, count: int) -> float:
    return round(_CPUS[id][2] * count, 4) if id in _CPUS else 0.0


# Routes.


def _list_gpus(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    asked = _asked(call)
    rows = [_gpu(account, one, asked) for one in TYPES.values()]
    if asked is not None and asked.countries:
        rows = [row for row in rows if row.get("dataCenters")]
    return Reply.json({"gpus": rows})


def _get_gpu(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = TYPES.get(unquote(ids[0]))
    if found is None:
        raise RunPodProblem(404, "gpu type not found")
    return Reply.json(_gpu(account, found, _asked(call)))


@dataclass(frozen=True, slots=True)
class _Asked:
    products: Sequence[str]
    cloud: str
    countries: Sequence[str]
    cuda: Sequence[str]


def _asked(call: HttpCall) -> _Asked | None:
    """What stock is asked for; ``None``: none is."""
    query = call.query
    include = query.get("include")
    if include is None:
        only = [name for name in ("product", "count", "cloud", "countryCodes", "cudaVersions") if name in query]
        if only:
            raise RunPodProblem(400, f"{only[0]} is valid only with include=AVAILABILITY")
        return None
    if include != "AVAILABILITY":
        raise RunPodProblem(422, "request validation failed", "$.include: value must be AVAILABILITY")
    if not query.get("product"):
        raise RunPodProblem(400, "product is required with include=AVAILABILITY")
    products = query["product"].split(",")
    if wrong := [name for name in products if name not in ("POD", "CLUSTER", "SERVERLESS")]:
        raise RunPodProblem(422, "request validation failed", f"$.product: {wrong[0]!r} is unknown")
    if "cudaVersions" in query and "minCudaVersion" in query:
        raise RunPodProblem(400, "cudaVersions and minCudaVersion are mutually exclusive")
    int_of(query.get("count", "1"), "count", 1, 64)
    countries = [code for code in query.get("countryCodes", "").split(",") if code]
    if bad := [code for code in countries if len(code) != 2 or not code.isupper()]:
        raise RunPodProblem(422, "request validation failed", f"$.countryCodes: {bad[0]!r} is malformed")
    cloud = query.get("cloud", "SECURE")
    if cloud not in ("SECURE", "COMMUNITY"):
        raise RunPodProblem(422, "request validation failed", "$.cloud: value must be SECURE or COMMUNITY")
    return _Asked(products, cloud, countries, [one for one in query.get("cudaVersions", "").split(",") if one])


def _gpu(account: RunPodAccount, one: GpuType, asked: _Asked | None) -> dict[str, JSON]:
    price: dict[str, JSON] = {"secure": one.secure, "community": one.community}
    if one.serverless is not None:
        price["serverless"] = one.serverless
    row: dict[str, JSON] = {
        "id": one.id,
        "name": one.name,
        "pool": one.pool,
        "manufacturer": "NVIDIA",
        "memory": one.memory,
        "secure": True,
        "community": one.community > 0,
        "price": price,
        "maxCount": {"secure": 8, "community": 4},
    }
    if asked is None:
        return row
    level = one.level if available(account, one) else 0
    if asked.products == ["SERVERLESS"] and one.pool is None:
        level = 0
    centers: list[JSON] = [
        {"id": id, "name": name, "availability": _LEVELS[level]}
        for id, (name, _, country) in CENTERS.items()
        if level and (not asked.countries or country in asked.countries)
    ]
    row["availability"] = _LEVELS[level if centers else 0]
    if centers:
        row["dataCenters"] = centers
    versions = asked.cuda or ("12.8", "12.6", "12.4")
    row["cudaVersions"] = [{"version": version, "available": bool(level)} for version in versions]
    return row


def _list_cpus(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    return Reply.json({"cpus": [_cpu(id) for id in _CPUS]})


def _get_cpu(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    if ids[0] not in _CPUS:
        raise RunPodProblem(404, "cpu type not found")
    return Reply.json(_cpu(ids[0]))


def _cpu(id: str) -> dict[str, JSON]:
    group, memory, price = _CPUS[id]
    return {
        "id": id,
        "name": group,
        "group": group,
        "vcpu": {"min": 2, "max": 32},
        "ramGbPerVcpu": memory,
        "price": {"securePerVcpu": price, "serverlessPerVcpu": price},
    }


def _list_centers(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    regions = [one for one in call.query.get("regions", "").split(",") if one]
    rows = [_center(account, id, call) for id, row in CENTERS.items() if not regions or row[1] in regions]
    return Reply.json({"dataCenters": rows})


def _get_center(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    if ids[0] not in CENTERS:
        raise RunPodProblem(404, "data center not found")
    return Reply.json(_center(account, ids[0], call))


def _center(account: RunPodAccount, id: str, call: HttpCall) -> dict[str, JSON]:
    name, region, _ = CENTERS[id]
    row: dict[str, Any] = {
        "id": id,
        "name": name,
        "region": region,
        "networkVolumeTypes": ["STANDARD"],
        "compliance": [],
        "globalNetwork": True,
    }
    if "GPU_AVAILABILITY" in call.query.get("include", "").split(","):
        row["gpuAvailability"] = [
            {"id": one.id, "name": one.name, "availability": _LEVELS[one.level if available(account, one) else 0]}
            for one in TYPES.values()
        ]
    return row


ROUTES: Final = (
    Route("GET", "/catalog/gpus", "catalog.gpus.list", _list_gpus),
    Route("GET", "/catalog/gpus/([^/]+)", "catalog.gpus.get", _get_gpu),
    Route("GET", "/catalog/cpus", "catalog.cpus.list", _list_cpus),
    Route("GET", "/catalog/cpus/([^/]+)", "catalog.cpus.get", _get_cpu),
    Route("GET", "/catalog/datacenters", "catalog.datacenters.list", _list_centers),
    Route("GET", "/catalog/datacenters/([^/]+)", "catalog.datacenters.get", _get_center),
)
