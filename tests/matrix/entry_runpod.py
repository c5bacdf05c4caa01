"""RunPod in the matrix."""

from __future__ import annotations

from typing import Any

from matrix_entry import NAME, Platform

from unigpu.cloud.contract import Face
from unigpu.cloud.engine import Engine


def _runpod_face(engine: Engine, key: str, seed: int, page: int) -> Face:
    from unigpu.cloud.faces.runpod import RunPodFace

    return RunPodFace(engine, key=key, seed=seed, page=page)


def _runpod_rows(body: Any) -> list[Any]:
    found = next((body[one] for one in ("endpoints", "workers") if one in body), []) if isinstance(body, dict) else []
    return list(found)


RUNPOD = Platform(
    name="runpod",
    key=("RUNPOD_API_KEY", "runpod-key"),
    face=_runpod_face,
    fields={
        "name": NAME,
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": "RTX 4090",
        "workers": (0, 2),
    },
    kinds=("endpoint",),
    main="endpoint",
    lists=("runpod.endpoint.list",),
    creates=("runpod.endpoint.create",),
    deletes=("runpod.endpoint.delete",),
    empty_list=lambda operation, body: {"endpoints": []},
    half_list=lambda operation, body: {"endpoints": body["endpoints"][: len(body["endpoints"]) // 2]},
    rows=_runpod_rows,
    missing=("name", "scaling", "id"),
    delete_reply=(204, b""),
)
