"""RunPod as a mock serves it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.emulator.contract import EmulatedAPI, HttpCall, Reply
from unigpu.emulator.engine import Engine

from .platforms import MockPlatform

__all__ = ["RUNPOD"]

_NO_CAPACITY: Final = "There are no longer any instances available with the requested specifications."


def _face(engine: Engine) -> EmulatedAPI:
    from unigpu.emulator.apis.runpod.emulator import RunPodEmulator
    from unigpu.emulator.apis.runpod.quirks import WIDE, Quirks

    return RunPodEmulator(engine, quirks=Quirks(rate_limits=WIDE))


def _gpus(call: HttpCall, engine: Engine, now: float) -> Sequence[str]:
    """The cards of the pools that an endpoint selects, or a pod's one; a change without a selection is about none."""
    from unigpu.emulator.apis.runpod.catalogue import TYPES
    from unigpu.emulator.apis.runpod.translate import eligible
    from unigpu.models.gpu import gpu

    try:
        body: Any = json.loads(call.body)
        selection = cast("Mapping[str, Any]", body["gpu"])
        cards = eligible(selection) if "pools" in selection else [TYPES[selection["id"]]]
    except (ValueError, LookupError, TypeError):
        return ()
    return tuple(known.name for card in cards if (known := gpu(card.id)) is not None)


RUNPOD: Final = MockPlatform(
    face=_face,
    keys=("RUNPOD_API_KEY",),
    served={"image": "registry.test/served:1", "gpu": "RTX 4090"},
    adds_workers=("runpod.endpoint.create", "runpod.endpoint.patch", "runpod.pod.create"),
    no_capacity=Reply(
        status=400,
        headers=(("content-type", "application/problem+json"),),
        body=json.dumps({"title": "Bad Request", "status": 400, "detail": _NO_CAPACITY}).encode(),
    ),
    gpus=_gpus,
)
