"""What the matrix must know of a platform: how it is served, what is deployed there, and what its lists look like.

A platform joins with one entry of `PLATFORMS`; every test of this folder then runs on it too. ``UNIGPU_MATRIX=runpod``
keeps to some.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from unigpu import _registry
from unigpu._io.contract import Headers, Request
from unigpu.cloud.contract import Face, HttpCall
from unigpu.cloud.engine import Engine

NAME = "summarize"


class Account(Protocol):
    """The account of a world, below the wire."""

    cloud: Any


def _kept_by_the_engine(world: Account, platform: Platform, kind: str, name: str) -> list[str]:
    engine = world.cloud.engine
    rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
    return [r.id for r in rows if r.platform == f"{platform.name}.{kind}" and r.terms.data["name"] == name]


def _by_the_engine(world: Account, id: str) -> None:
    world.cloud.engine.deployments.delete(id, world.cloud.clock.now())


def _last_of_the_path(request: Request) -> str:
    return request.url.partition("?")[0].rstrip("/").rpartition("/")[2]


def _no_change(operation: str, body: Any) -> Any:
    return body


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One platform of the matrix.

    Attributes:
        key: The environment variable of its key, and the key that the face takes.
        face: Makes its face: engine, key, seed, and rows a page of its lists (where they have pages).
        fields: What is deployed, as spec fields.
        kinds: The resources of a deployment, in the order of creation.
        main: The kind that is called.
        scaled, looked: Limits that `scale` gives, and with which the race deploys.
        existing: The ids of one kind under one platform's name that really exist, whatever lists show.
        deleted: The id that a delete names, as the engine knows it.
        removed: Takes what is called away, as its user does in the platform's console.
        lists, creates, deletes: Its operations; `lists` are those by which our resources are found.
        empty_list, half_list: A list's body, of an operation, as if nothing were there, or as if another page came
            that says nothing; ``None``: its lists have no pages.
        rows: The rows of a reply, each with its status.
        missing: Fields that are needed; the first that a row has is lost.
        delete_reply: What it answers to a delete that happens later.
        status_fields: The names of fields that hold a status.
        entered: A context around each world.
        share: Which part of the drawn cases the whole matrix takes here: what is not the platform's own
            (the lifecycle's) is proved whole on the reference platform.
        pairs: How many pairs of faults the whole matrix takes.
        options: The driver's.
        settle: For how long its driver looks for a create without an answer.
    """

    name: str
    key: tuple[str, str]
    face: Callable[[Engine, str, int, int], Face]
    fields: Mapping[str, Any]
    kinds: tuple[str, ...]
    main: str
    scaled: tuple[int, int] = (0, 3)
    raced: Mapping[str, Any] = field(default_factory=lambda: {"workers": (1, 2)})
    existing: Callable[[Account, Platform, str, str], list[str]] = _kept_by_the_engine
    deleted: Callable[[Request], str] = _last_of_the_path
    removed: Callable[[Account, str], object] = _by_the_engine
    lists: tuple[str, ...]
    creates: tuple[str, ...]
    deletes: tuple[str, ...]
    empty_list: Callable[[str, Any], Any] = _no_change
    half_list: Callable[[str, Any], Any] | None = None
    rows: Callable[[Any], list[Any]] = lambda body: [body]
    status_fields: tuple[str, ...] = ("status",)
    missing: tuple[str, ...] = ("status", "name", "next")
    delete_reply: tuple[int, bytes] = (202, b"{}")
    entered: Callable[[], AbstractContextManager[object]] = nullcontext
    share: float = 0.3
    pairs: int = 500
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    settle: float = 15.0

    def is_list(self, operation: str) -> bool:
        return operation in self.lists

    def has_half_lists(self, operation: str) -> bool:
        return self.is_list(operation) and self.half_list is not None

    def is_create(self, operation: str) -> bool:
        return operation in self.creates

    def is_delete(self, operation: str) -> bool:
        return operation in self.deletes

    def make_empty(self, operation: str, content: bytes) -> bytes:
        return json.dumps(self.empty_list(operation, json.loads(content))).encode()

    def make_half(self, operation: str, content: bytes) -> bytes:
        assert self.half_list is not None
        return json.dumps(self.half_list(operation, json.loads(content))).encode()

    def lose_a_field(self, content: bytes) -> bytes:
        """Without a field that is needed, in the first row of a list or in the whole."""
        body = json.loads(content)
        row = next(iter(self.rows(body)), body)
        for one in self.missing:
            if isinstance(row, dict) and one in row:
                del row[one]
                break
        return json.dumps(body).encode()

    def frobnicate(self, content: bytes) -> bytes:
        """Every status is one that nobody knows."""
        body = json.loads(content)
        for row in [body, *self.rows(body)]:
            for one in self.status_fields:
                if isinstance(row, dict) and isinstance(row.get(one), str):
                    row[one] = "FROBNICATING"
        return json.dumps(body).encode()


# -- the reference platform -------------------------------------------------------------------------------------------


def _reference_face(engine: Engine, key: str, seed: int, page: int) -> Face:
    from unigpu.testing.reference import ReferenceFace

    return ReferenceFace(engine, key=key, seed=seed, page=page)


def _reference_driver() -> AbstractContextManager[object]:
    from unigpu.testing.reference import ReferenceDriver

    return _registry.using("reference", ReferenceDriver)  # a platform of tests is no entry point


def _rows(body: Any) -> list[Any]:
    return list(body.get("items") or []) if isinstance(body, dict) else []


_REFERENCE = Platform(
    name="reference",
    key=("REFERENCE_API_KEY", "reference-key"),
    face=_reference_face,
    fields={
        "name": NAME,
        "handler": "app:summarize",
        "image": "ghcr.io/me/app:1",
        "gpu": "RTX 4090",
        "workers": (0, 2),
    },
    kinds=("template", "endpoint"),
    main="endpoint",
    lists=("reference.template.list", "reference.endpoint.list"),
    creates=("reference.template.create", "reference.endpoint.create"),
    deletes=("reference.template.delete", "reference.endpoint.delete"),
    empty_list=lambda operation, body: {"items": [], "next": None},
    half_list=lambda operation, body: {"items": body["items"][: len(body["items"]) // 2], "next": "zzz"},
    rows=_rows,
    entered=_reference_driver,
    share=1.0,
    pairs=2000,
)


# -- RunPod -----------------------------------------------------------------------------------------------------------


def _runpod_face(engine: Engine, key: str, seed: int, page: int) -> Face:
    from unigpu.cloud.faces.runpod import RunPodFace

    return RunPodFace(engine, key=key, seed=seed, page=page)


def _runpod_rows(body: Any) -> list[Any]:
    found = next((body[one] for one in ("endpoints", "workers") if one in body), []) if isinstance(body, dict) else []
    return list(found)


_RUNPOD = Platform(
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

# -- Yotta Labs -------------------------------------------------------------------------------------------------------


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


_YOTTA = Platform(
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

# -- Vast.ai ----------------------------------------------------------------------------------------------------------


def _vast_face(engine: Engine, key: str, seed: int, page: int) -> Face:
    from unigpu.cloud.faces.vast import VastFace

    return VastFace(engine, token=key, seed=seed)


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
    number = request.json["template_id"] if kind == "template" else _last_of_the_path(request)
    return f"vast.{kind}-{number}"


def _vast_rows(body: Any) -> list[Any]:
    if not isinstance(body, dict):
        return list(body) if isinstance(body, list) else []
    found = next((body[one] for one in ("results", "templates", "instances", "workergroups") if one in body), [])
    return list(found) if isinstance(found, list) else []


_VAST = Platform(
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

_ALL = (_REFERENCE, _RUNPOD, _VAST, _YOTTA)
_WANTED = os.environ.get("UNIGPU_MATRIX", "").replace(",", " ").split()
PLATFORMS: Sequence[Platform] = tuple(one for one in _ALL if not _WANTED or one.name in _WANTED)
"""Those of this run."""
