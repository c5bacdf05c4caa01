"""What a provider says of its own rates in a reply's headers: is a window used up, and for how long?

Three dialects, each read with care, because a header is a stranger's text:

* ``RateLimit: "minute";r=0;t=12, "hour";r=2800;t=1812`` with ``RateLimit-Policy: "minute";q=60;w=60`` (the IETF draft's
  structured form; RunPod). Names quoted or bare, parameters in any order, ``t`` may be missing.
* ``RateLimit: limit=100, remaining=0, reset=12`` (an earlier draft).
* ``RateLimit-Remaining`` and ``RateLimit-Reset``, also with ``X-``; a reset is seconds, or a moment of the epoch.
"""

from __future__ import annotations

import re
from typing import Final

from ..contract import Headers

__all__ = ["closed_for"]

_MOST: Final = 86_400.0  # seconds: the longest window there is, a day; what is longer is no rate but a mistake
_LONG: Final = 4_096  # characters that are read
_EPOCH: Final = 1e9  # a reset above this is a moment, not a pause
_NUMBER: Final = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?", re.ASCII)


def closed_for(headers: Headers, *, wall: float) -> float:
    """Seconds until every window that is used up opens again; 0: none is, or none says when."""
    if not any("ratelimit" in name for name in headers):
        return 0.0
    waits = [0.0]
    policies = dict(_items(headers.getall("ratelimit-policy")))
    flat: dict[str, str] = {}
    for name, fields in _items(headers.getall("ratelimit")):
        if "=" in name:
            key, _, value = name.partition("=")
            flat[key.strip().lower()] = value.strip()
        elif _number(fields.get("r")) == 0:
            reset = _number(fields.get("t"))
            if reset is None:  # not said when: at the end of a whole window at the latest
                reset = _number(policies.get(name, {}).get("w"))
            waits.append(reset or 0.0)
    if _number(flat.get("remaining")) == 0:
        waits.append(_pause(flat.get("reset"), wall))
    waits.extend(
        _pause(headers.get(f"{prefix}-reset"), wall)
        for prefix in ("ratelimit", "x-ratelimit")
        if _number(headers.get(f"{prefix}-remaining")) == 0
    )
    return max(wait for wait in waits if wait <= _MOST)


def _pause(text: str | None, wall: float) -> float:
    reset = _number(text)
    if reset is None:
        return 0.0
    return max(0.0, reset - wall) if reset > _EPOCH else reset


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    return float(text) if _NUMBER.fullmatch(text) else None


def _items(values: list[str]) -> list[tuple[str, dict[str, str]]]:
    """``name;key=value;…`` of a list: names without quotes, keys in lower case."""
    found: list[tuple[str, dict[str, str]]] = []
    for item in _split(", ".join(values)[:_LONG], ","):
        name, *parameters = _split(item, ";")
        fields: dict[str, str] = {}
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            fields[key.strip().lower()] = value.strip().strip('"')
        if name.strip():
            found.append((name.strip().strip('"').lower(), fields))
    return found


def _split(text: str, separator: str) -> list[str]:
    """*text* at each *separator* outside of quotes."""
    parts, quoted, start = list[str](), False, 0
    for place, char in enumerate(text):
        if char == '"':
            quoted = not quoted
        elif char == separator and not quoted:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    return parts
