"""Vast.ai in the matrix."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matrix_entry import (
    NAME,
    POD_SPECS,
    Account,
    Platform,
    last_of_the_path,
    request_echo,
    start,
    stop,
    stop_and_start,
)

from unigpu._io.contract import Headers, Request
from unigpu.emulator.contract import EmulatedAPI, HttpCall
from unigpu.emulator.engine import Engine


def _vast_face(engine: Engine, key: str, seed: int, page: int) -> EmulatedAPI:
    from unigpu.emulator.apis.vast.emulator import VastEmulator

    return VastEmulator(engine, token=key, seed=seed)


def _vast_existing(world: Account, platform: Platform, kind: str, name: str) -> list[str]:
    """By their numbers. An endpoint's name carries its create's attempt too; a group has no name of its own."""
    engine = world.cloud.engine
    rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
    named = {
        _number(r.id): r.platform
        for r in rows
        if str(r.terms.data.get("name")) == name or str(r.terms.data.get("name")).startswith(f"{name}-")
    }
    if kind != "workergroup":
        return [number for number, platform in named.items() if platform == f"vast.{kind}"]
    groups = [r for r in rows if r.platform == "vast.workergroup"]
    return [_number(r.id) for r in groups if str(r.terms.data["endpoint_id"]) in named]


def _vast_removed(world: Account, id: str) -> None:
    """By the console's own call: its workergroups go along."""
    headers = (("authorization", "Bearer vast-key"),)
    call = HttpCall(method="DELETE", host="console.vast.ai", path=f"/api/v0/endptjobs/{id}/", headers=Headers(headers))
    reply = world.cloud.call(call)
    assert reply.status == 200, reply


def _number(id: str) -> str:
    return id.rpartition("-")[2]


def _vast_deleted(request: Request) -> str:
    kind = request.operation.split(".")[1]
    number = request.json["template_id"] if kind == "template" else last_of_the_path(request)
    return f"vast.{kind}-{number}"


def _vast_rows(body: Any) -> list[Any]:
    if not isinstance(body, dict):
        return list(body) if isinstance(body, list) else []
    found = next((body[one] for one in ("results", "templates", "instances", "workergroups") if one in body), [])
    return list(found) if isinstance(found, list) else []


VAST = Platform(
    name="vast",
    settle=60.0,
    key=("VAST_API_KEY", "vast-key"),
    face=_vast_face,
    fields={
        "name": NAME,
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": "RTX 4090",
        "workers": (0, 2),
        "max_price": 1.0,
    },
    kinds=("template", "endpoint", "workergroup"),
    main="endpoint",
    existing=_vast_existing,
    deleted=_vast_deleted,
    removed=_vast_removed,
    lists=("vast.template.search", "vast.endpoint.list", "vast.workergroup.list"),
    creates=("vast.template.create", "vast.endpoint.create", "vast.workergroup.create"),
    deletes=("vast.template.delete", "vast.endpoint.delete", "vast.workergroup.delete"),
    rows=_vast_rows,
    empty_list=lambda operation, body: {**body, ("templates" if "templates" in body else "results"): []},
    status_fields=("status", "endpoint_state"),
    missing=("id", "endpoint_name", "name"),
    delete_reply=(200, b'{"success": true}'),
)

VAST_POD = replace(
    VAST,
    name="vast-pod",
    fields={
        "name": NAME,
        "kind": "pod",
        "interface": "http",
        "image": "ghcr.io/me/app:1",
        "command": ["serve"],
        "gpu": ["RTX 4090", "RTX 3090", "RTX 5090", "RTX 6000 Ada", "A6000", "L40S", "H100 SXM"],
        "max_price": 2.0,
        "ttl": None,
        "auth": "none",
    },
    kinds=("instance",),
    main="instance",
    call=request_echo,
    changed=stop_and_start,
    changes=(stop, start),
    specs=POD_SPECS,
    share=0.1,
    pairs=120,
    raced={},
    removed=lambda world, id: world.cloud.engine.deployments.delete(f"vast.instance-{id}", world.cloud.clock.now()),
    lists=("vast.instance.list", "vast.endpoint.list"),
    creates=("vast.instance.create",),
    deletes=("vast.instance.delete",),
    empty_list=lambda operation, body: {**body, ("instances" if "instances" in body else "results"): []},
    status_fields=("actual_status", "intended_status"),
    missing=("id", "label", "actual_status"),
)
"""One rented machine, called at its public port."""
