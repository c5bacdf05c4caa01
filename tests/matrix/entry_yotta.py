"""Yotta Labs in the matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from matrix_entry import NAME, POD_SPECS, Account, Platform, start, stop, stop_and_start, to

from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine


def _yotta_face(engine: Engine, key: str, seed: int, page: int) -> EmulatedAPI:
    from unigpu.emulator.apis.yotta.emulator import YottaEmulator

    return YottaEmulator(engine, token=key, seed=seed)


_PLATFORMS = {"endpoint": "yotta", "pod": "yotta.pod"}
"""What the engine calls a kind."""


def _yotta_existing(world: Account, platform: Platform, kind: str, name: str) -> list[str]:
    engine = world.cloud.engine
    rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
    return [r.id for r in rows if r.platform == _PLATFORMS[kind] and r.terms.data["name"] == name]


def _yotta_rows(body: Any) -> list[Any]:
    data = body.get("data") if isinstance(body, dict) else None
    return data if isinstance(data, list) else [data] if isinstance(data, dict) else []


YOTTA = Platform(
    name="yotta",
    settle=120.0,
    key=("YOTTA_API_KEY", "yotta-key"),
    face=_yotta_face,
    fields={
        "name": NAME,
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": "RTX 4090",
        "workers": 1,
        "ttl": None,
    },
    changed=to(2, 2),
    raced={"workers": 2},
    kinds=("endpoint",),
    main="endpoint",
    existing=_yotta_existing,
    lists=("yotta.endpoint.list",),
    creates=("yotta.endpoint.create",),
    deletes=("yotta.endpoint.delete",),
    empty_list=lambda operation, body: {**body, "data": []},
    rows=_yotta_rows,
    missing=("id", "name", "status"),
    delete_reply=(200, b'{"code": 10000, "message": "success", "data": true}'),
)


async def _called_pod(client: Any, one: Any, value: Mapping[str, Any], timeout: float | None) -> Any:
    """By its name Yotta does not tell that it is a function."""
    found = await client.get(one, provider="yotta", interface="function") if isinstance(one, str) else one
    return (await client.invoke(found, value, timeout=timeout)).output


YOTTA_POD = replace(
    YOTTA,
    name="yotta-pod",
    fields={
        "name": NAME,
        "kind": "pod",
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": ["RTX 4090", "H100 SXM"],
        "ttl": None,
        "auth": "none",
    },
    kinds=("pod",),
    main="pod",
    call=_called_pod,
    changed=stop_and_start,
    changes=(stop, start),
    specs=POD_SPECS,
    share=0.1,
    pairs=120,
    raced={},
    lists=("yotta.pod.list", "yotta.endpoint.list"),
    creates=("yotta.pod.create",),
    deletes=("yotta.pod.delete",),
)
"""One machine, called at its own address."""
