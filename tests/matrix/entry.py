"""What the matrix must know of a platform: how it is served, what is deployed there, and what its lists look like."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from unigpu._io.contract import Request
from unigpu.cloud.contract import Face
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


def last_of_the_path(request: Request) -> str:
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
        pairs: How many pairs of faults the whole matrix takes, drawn by seed; ``None``: all.
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
    deleted: Callable[[Request], str] = last_of_the_path
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
    pairs: int | None = 500
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
