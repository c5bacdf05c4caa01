"""What a mock must know of Yotta Labs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from unigpu.emulator.contract import EmulatedAPI, HttpCall, Reply
from unigpu.emulator.engine import Engine
from unigpu.models.gpu import canonical

from .platforms import MockPlatform


def _face(engine: Engine) -> EmulatedAPI:
    from unigpu.emulator.apis.yotta.emulator import YottaEmulator

    return YottaEmulator(engine)


def _gpus(call: HttpCall, engine: Engine, now: float) -> Sequence[str]:
    """What a create would take; later what the endpoint takes."""
    parts = call.path.strip("/").split("/")
    if len(parts) > 2:
        for id in engine.deployment_ids():
            if id == parts[2]:
                return _named(engine.deployments.get(id, now).terms.data)
        return ()
    try:
        body: object = json.loads(call.body)
    except ValueError:
        return ()
    return _named(cast("Mapping[str, Any]", body)) if isinstance(body, dict) else ()


def _named(of: Mapping[str, Any]) -> Sequence[str]:
    rows: Iterable[object] = of.get("resources") or [of]  # a pod has one type, and says it by itself
    codes = [str(cast("Mapping[str, Any]", row).get("gpuType")) for row in rows if isinstance(row, Mapping)]
    return [name for name in (canonical("yotta", code) for code in codes) if name is not None]


YOTTA: Final = MockPlatform(
    face=_face,
    keys=("YOTTA_API_KEY",),
    # Nothing there scales to zero, so that workers and an end must be stated.
    served={"image": "registry.test/served:1", "gpu": "RTX 4090", "workers": (1, 1), "ttl": None},
    adds_workers=(
        "yotta.endpoint.create",
        "yotta.endpoint.scale",
        "yotta.endpoint.start",
        "yotta.pod.create",
        "yotta.pod.resume",
    ),
    # No code for it is documented: creating fails (20001), and the words say why.
    no_capacity=Reply.json(
        {
            "message": "create deployment failed: no available resource for the requested GPU",
            "code": 20001,
            "data": None,
        }
    ),
    verbs={"wake": (".start", ".resume")},
    gpus=_gpus,
)
