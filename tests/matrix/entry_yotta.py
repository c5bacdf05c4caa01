"""Yotta Labs in the matrix."""

from __future__ import annotations

from typing import Any

from matrix_entry import NAME, Account, Platform

from unigpu.cloud.contract import Face
from unigpu.cloud.engine import Engine


def _yotta_face(engine: Engine, key: str, seed: int, page: int) -> Face:
    from unigpu.cloud.faces.yotta import YottaFace

    return YottaFace(engine, token=key, seed=seed)


def _yotta_existing(world: Account, platform: Platform, kind: str, name: str) -> list[str]:
    engine = world.cloud.engine
    rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
    return [r.id for r in rows if r.platform == "yotta" and r.terms.data["name"] == name]


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
    scaled=(2, 2),
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
