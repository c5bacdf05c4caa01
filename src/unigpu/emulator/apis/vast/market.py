"""The marketplace that the emulator offers: a few machines, the two query languages, and docker's flags as texts.

Sources: https://docs.vast.ai/api-reference/search/search-offers.md (fields, operators), vastai 1.9.1 ``api/query.py``
(the text form, its aliases and its units: GB and days, where the JSON form has MB and seconds) and ``data/query.py``
(virtual fields).
"""

from __future__ import annotations

import operator
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

JSON = Any
Filters = Mapping[str, Mapping[str, JSON]]


def _among(have: JSON, want: JSON) -> bool:
    return have in want


def _not_among(have: JSON, want: JSON) -> bool:
    return have not in want


_MACHINES: Final[Sequence[tuple[str, int, int, float, str, bool, float]]] = (
    # GPU, how many, MB each, USD an hour, where, datacenter, reliability
    ("RTX 4090", 1, 24564, 0.36, "Texas, US", False, 0.995),
    ("RTX 4090", 1, 24564, 0.44, "Quebec, CA", True, 0.999),
    ("RTX 4090", 2, 24564, 0.78, "Sweden, SE", False, 0.991),
    ("RTX 3090", 1, 24576, 0.19, "Bulgaria, BG", False, 0.982),
    ("RTX 5090", 1, 32607, 0.62, "Norway, NO", True, 0.998),
    ("RTX 6000Ada", 1, 49140, 0.74, "Oregon, US", True, 0.997),
    ("RTX A6000", 1, 49140, 0.45, "Czechia, CZ", False, 0.99),
    ("L4", 1, 23034, 0.32, "Iowa, US", True, 0.999),
    ("L40S", 1, 46068, 0.66, "Virginia, US", True, 0.998),
    ("A100 SXM4", 1, 40960, 0.79, "Utah, US", True, 0.998),
    ("A100 SXM4", 1, 81920, 1.02, "Netherlands, NL", True, 0.999),
    ("A100 PCIE", 1, 81920, 0.94, "Finland, FI", True, 0.997),
    ("H100 SXM", 1, 81559, 1.87, "California, US", True, 0.999),
    ("H100 SXM", 2, 81559, 3.71, "California, US", True, 0.999),
    ("H100 SXM", 8, 81559, 15.2, "California, US", True, 0.999),
    ("H200", 1, 143771, 2.38, "Iceland, IS", True, 0.998),
    ("RTX 4090", 1, 24564, 0.31, "Hungary, HU", False, 0.962),
)
_STORAGE_PER_GB_MONTH: Final = 0.15
_HOURS_A_MONTH: Final = 730.0
_LONGEST_S: Final = 90 * 86400.0
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "eq": operator.eq,
    "neq": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
    "in": _among,
    "notin": _not_among,
}
_SIGNS: Final = {
    "==": "eq", "=": "eq", "!=": "neq", ">=": "gte", ">": "gt", "<=": "lte", "<": "lt", "in": "in", "notin": "notin",
    "nin": "notin", "eq": "eq", "neq": "neq", "gte": "gte", "gt": "gt", "lte": "lte", "lt": "lt",
}  # fmt: skip
_ALIASES: Final = {
    "cuda_vers": "cuda_max_good",
    "dph": "dph_total",
    "dlperf_usd": "dlperf_per_dphtotal",
    "flops_usd": "flops_per_dphtotal",
    "display_active": "gpu_display_active",
    "reliability2": "reliability",
}
_TEXT_UNITS: Final = {"gpu_ram": 1000.0, "cpu_ram": 1000.0, "gpu_total_ram": 1000.0, "duration": 86400.0}
_TERM: Final = re.compile(
    r"([a-zA-Z0-9_]+)\s*(==|!=|>=|<=|=|>|<|\s(?:in|notin|nin|eq|neq|gte|gt|lte|lt)\s)\s*(\[[^\]]*\]|\"[^\"]*\"|[^\s]+)"
)
_CONTROLS: Final = frozenset(
    {"order", "type", "limit", "allocated_storage", "disable_bundling", "resource_type", "select_cols", "client_id"}
)


class BadQuery(Exception):
    """A filter that cannot be read."""


def offers(*, now: float, disk_gb: float, taken: frozenset[int]) -> list[dict[str, JSON]]:
    """Every machine that is free, with the price of that much disk in ``dph_total``."""
    rows: list[dict[str, JSON]] = []
    for number, (gpu, count, memory, price, place, datacenter, reliability) in enumerate(_MACHINES):
        id = 7_100_000 + number
        storage = disk_gb * _STORAGE_PER_GB_MONTH / _HOURS_A_MONTH
        total = round(price + storage, 6)
        rows.append(
            {
                "id": id,
                "ask_contract_id": id,
                "bundle_id": 5_000_000 + number,
                "machine_id": 20_000 + number,
                "host_id": 60_000 + number,
                "gpu_name": gpu,
                "num_gpus": count,
                "gpu_ram": memory,
                "gpu_total_ram": memory * count,
                "gpu_frac": 1.0,
                "gpu_display_active": False,
                "gpu_mem_bw": 900.0,
                "compute_cap": 890,
                "cuda_max_good": 12.8,
                "driver_version": "570.86.10",
                "cpu_arch": "amd64",
                "cpu_cores_effective": 16.0 * count,
                "cpu_ram": 64_000 * count,
                "disk_space": 500.0,
                "disk_bw": 2500.0,
                "dph_base": price,
                "dph_total": total,
                "discounted_dph_total": total,
                "min_bid": round(price * 0.55, 4),
                "storage_cost": _STORAGE_PER_GB_MONTH,
                "storage_total_cost": round(storage, 6),
                "inet_up": 800.0,
                "inet_down": 900.0,
                "inet_up_cost": 0.0 if datacenter else 0.01,
                "inet_down_cost": 0.0 if datacenter else 0.01,
                "dlperf": 90.0 * count,
                "dlperf_per_dphtotal": round(90.0 * count / total, 3),
                "reliability": reliability,
                "reliability2": reliability,
                "verification": "verified" if reliability > 0.97 else "unverified",
                "verified": reliability > 0.97,
                "hosting_type": 1 if datacenter else 0,
                "datacenter": datacenter,
                "geolocation": place,
                "static_ip": datacenter,
                "public_ipaddr": f"203.0.113.{200 + number}",
                "direct_port_count": 64 if datacenter else 16,
                "duration": _LONGEST_S,
                "end_date": now + _LONGEST_S,
                "rentable": id not in taken,
                "rented": id in taken,
                "external": False,
                "is_bid": False,
                "score": round(100.0 / total, 2),
            }
        )
    return rows


def select(rows: Sequence[Mapping[str, JSON]], body: Mapping[str, JSON]) -> list[Mapping[str, JSON]]:
    """The offers that fit a flat body of filters and controls, in the order it asks for."""
    filters = {key: value for key, value in body.items() if key not in _CONTROLS}
    found = [row for row in rows if fits(row, filters)]
    order: object = body.get("order") or [["score", "desc"]]
    for column, direction in reversed(cast("list[list[str]]", order)):
        found.sort(key=_by(column), reverse=direction == "desc")
    limit = body.get("limit")
    return found[: int(limit)] if isinstance(limit, int | float | str) and limit else found


def fits(row: Mapping[str, JSON], filters: Mapping[str, JSON]) -> bool:
    """Whether an offer passes all of them.

    Raises:
        BadQuery: an operator that there is not, or a filter that is no object.
    """
    for name, tests in filters.items():
        if not isinstance(tests, Mapping):
            raise BadQuery(f"{name}: a filter is an object of operators")
        have = (
            row["geolocation"].rpartition(",")[2].strip()
            if name == "geolocation"
            else row.get(_ALIASES.get(name, name))
        )
        for sign, want in cast("Mapping[str, JSON]", tests).items():
            if sign not in _OPERATORS:
                raise BadQuery(f"{name}: there is no operator {sign!r}")
            if have is None:
                continue  # a field that this market does not have
            try:
                if not _OPERATORS[sign](have, _like(have, want)):
                    return False
            except (TypeError, ValueError):
                raise BadQuery(f"{name}: {want!r} cannot be compared") from None
    return True


def _like(have: JSON, want: JSON) -> JSON:
    """A value as the field's own kind: the official client sends numbers of a text query as texts."""
    given: object = want
    if isinstance(given, list):
        return [_like(have, each) for each in cast("Sequence[JSON]", given)]
    if not isinstance(want, str) or isinstance(have, str):
        return want
    return want.lower() == "true" if isinstance(have, bool) else float(want)


def _by(column: str) -> Callable[[Mapping[str, JSON]], tuple[bool, JSON]]:
    return lambda row: (row.get(column) is None, row.get(column))


def parse_query(text: str) -> dict[str, dict[str, JSON]]:
    """Filters of the text form, as the engine keeps them (JSON form, its units).

    Raises:
        BadQuery: it cannot be read.
    """
    found: dict[str, dict[str, JSON]] = {}
    rest = text
    for match in _TERM.finditer(text):
        name, sign, value = match.group(1), match.group(2).strip(), match.group(3)
        name = _ALIASES.get(name, name)
        rest = rest.replace(match.group(0), " ", 1)
        if value in ("any", "*"):
            continue
        found.setdefault(name, {})[_SIGNS[sign]] = _value(name, value)
    if rest.strip():
        raise BadQuery(f"the query cannot be read at {rest.strip()[:40]!r}")
    return found


def filters_of(value: JSON) -> dict[str, dict[str, JSON]]:
    """``search_params`` in either form.

    Raises:
        BadQuery: it is neither, or cannot be read.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        return parse_query(value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, JSON]", value)
        return {
            name: dict(cast("Mapping[str, JSON]", tests)) for name, tests in pairs.items() if isinstance(tests, Mapping)
        }
    raise BadQuery("search_params: a text or an object is needed")


def docker_flags(text: str) -> tuple[dict[str, str], list[str]]:
    """Variables and ports of ``-e K=V -p 3000:3000``.

    Raises:
        BadQuery: quotes that do not end.
    """
    env: dict[str, str] = {}
    ports: list[str] = []
    try:
        words = shlex.split(text)
    except ValueError as exc:
        raise BadQuery(f"env: {exc}") from None
    position = 0
    while position < len(words):
        word = words[position]
        flag, glued = (word[:2], word[2:]) if word[:2] in ("-e", "-p") else (word, "")
        if flag in ("-e", "-p", "--env", "--publish"):
            value = glued or (words[position + 1] if position + 1 < len(words) else "")
            position += 1 if glued else 2
            if flag in ("-e", "--env"):
                name, _, text_value = value.partition("=")
                env[name] = text_value
            else:
                ports.append(value)
        else:
            position += 1
    return env, ports


def _value(name: str, text: str) -> JSON:
    if text.startswith("["):
        return [_value(name, part.strip()) for part in text[1:-1].split(",") if part.strip()]
    text = text.strip('"')
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text) * _TEXT_UNITS.get(name, 1.0)
    except ValueError:
        return text.replace("_", " ")
