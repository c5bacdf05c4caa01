"""Rate limits of the Vast emulator: a least interval by call, where the quirk is on.

The numbers are those of the specification that Vast generates (https://github.com/vast-ai/docs/pull/915,
``x-rateLimit``); its maintainers call them unpublished and movable (vast-ai/docs, pull request 61).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from unigpu.emulator.contract import HttpCall, Reply

from .state import Quirks

INTERVALS: Final[Mapping[str, float]] = {
    "endpoint.create": 4.0,
    "endpoint.list": 3.0,
    "endpoint.put": 2.0,
    "endpoint.delete": 3.0,
    "workergroup.create": 2.0,
    "workergroup.list": 2.0,
    "workergroup.put": 2.0,
    "workergroup.delete": 2.0,
    "template.create": 1.9,
    "template.list": 1.9,
    "template.edit": 1.9,
    "template.delete": 1.9,
    "offer.search": 2.0,
    "instance.create": 4.5,
    "instance.get": 2.0,
    "instance.list": 1.0,
    "instance.put": 1.0,
    "instance.reboot": 1.0,
    "instance.delete": 3.0,
}
"""Seconds between two calls of one kind."""


class RateLimits:
    """When which call came last, by whoever sent it."""

    def __init__(self, quirks: Quirks) -> None:
        self._quirks = quirks
        self._last: dict[tuple[str, str], float] = {}

    def refused(self, operation: str, call: HttpCall, now: float) -> Reply | None:
        """The 429 for a call that came too soon."""
        least = INTERVALS.get(operation)
        if not self._quirks.limits or least is None:
            return None
        who = (call.headers.get("authorization", ""), operation)
        last = self._last.get(who)
        if last is not None and now < last + least:
            headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
            if self._quirks.retry_after:
                headers += (("retry-after", str(math.ceil(last + least - now))),)
            detail = f"API requests too frequent endpoint threshold={least}"
            return Reply(status=429, headers=headers, body=json.dumps({"detail": detail}).encode())
        self._last[who] = now
        return None
