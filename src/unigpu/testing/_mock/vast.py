"""Vast.ai as a mock serves it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.emulator.contract import EmulatedAPI, HttpCall, Reply
from unigpu.emulator.engine import Engine

from .platforms import MockPlatform

__all__ = ["VAST"]


def _face(engine: Engine) -> EmulatedAPI:
    from unigpu.emulator.apis.vast.emulator import VastEmulator

    return VastEmulator(engine, token=None)


def _gpus(call: HttpCall, engine: Engine, now: float) -> Sequence[str]:
    """The GPU of the offer that is to be rented. Serverless machines are found by the platform, out of sight."""
    parts = call.path.strip("/").split("/")
    if parts[2:3] != ["asks"] or not parts[-1].isdigit():
        return ()
    from unigpu.emulator.apis.vast.market import offers
    from unigpu.models.gpu import gpu

    for row in cast("list[Mapping[str, Any]]", offers(now=0.0, disk_gb=8.0, taken=frozenset())):
        if row["id"] == int(parts[-1]):
            name = str(row["gpu_name"])
            known = gpu(name)
            return (name if known is None else known.name,)
    return ()


VAST: Final = MockPlatform(
    face=_face,
    keys=("VAST_API_KEY",),
    served={"image": "registry.test/served:1", "gpu": "RTX 4090", "max_price": 1.0},
    adds_workers=("vast.instance.create",),
    no_capacity=Reply(
        status=410,
        headers=(("content-type", "application/json"),),
        body=json.dumps({"success": False, "error": "no_such_ask", "msg": "the offer is not available"}).encode(),
    ),
    gpus=_gpus,
)
