"""RunPod in the matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matrix_entry import NAME, POD_SPECS, Platform, start, stop, stop_and_start

from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine


def _runpod_face(engine: Engine, key: str, seed: int, page: int) -> EmulatedAPI:
    from unigpu.emulator.apis.runpod.emulator import RunPodEmulator

    return RunPodEmulator(engine, key=key, seed=seed, page=page)


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

RUNPOD_POD = replace(
    RUNPOD,
    name="runpod-pod",
    fields={
        "name": NAME,
        "kind": "pod",
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": ["RTX 4090", "L40S"],
        "ttl": None,
        "auth": "none",
    },
    kinds=("pod",),
    main="pod",
    changed=stop_and_start,
    changes=(stop, start),
    specs=POD_SPECS,
    share=0.1,
    pairs=120,
    raced={},
    lists=("runpod.pod.list", "runpod.endpoint.list"),
    creates=("runpod.pod.create",),
    deletes=("runpod.pod.delete",),
    empty_list=lambda operation, body: {("pods" if "pods" in body else "endpoints"): []},
    half_list=lambda operation, body: {
        name: rows[: len(rows) // 2] for name, rows in body.items() if name != "pagination"
    },
    missing=("name", "status", "id"),
)
"""One machine, called by our worker's HTTP through RunPod's public proxy."""
