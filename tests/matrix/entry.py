"""What the matrix must know of a platform: how it is served, what is deployed there, and what its lists look like."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from unigpu._io.contract import Request
from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine
from unigpu.errors import InvalidResponseError

NAME = "summarize"
Change = Callable[[Any, Any], Awaitable[object]]


class Account(Protocol):
    """The account of a world, below the wire."""

    cloud: Any


def _kept_by_the_engine(world: Account, platform: Platform, kind: str, name: str) -> list[str]:
    engine = world.cloud.engine
    rows = [engine._core.deployments[id] for id in engine.deployment_ids()]
    return [r.id for r in rows if r.platform == f"{platform.provider}.{kind}" and r.terms.data["name"] == name]


def _by_the_engine(world: Account, id: str) -> None:
    world.cloud.engine.deployments.delete(id, world.cloud.clock.now())


def last_of_the_path(request: Request) -> str:
    return request.url.partition("?")[0].rstrip("/").rpartition("/")[2]


async def _invoke(client: Any, one: Any, value: Mapping[str, Any], timeout: float | None) -> Any:
    return (await client.invoke(one, value, timeout=timeout)).output


async def request_echo(client: Any, one: Any, value: Mapping[str, Any], timeout: float | None) -> Any:
    """A call of a user's own server, which says what it was sent."""
    reply = await client.request(one, "POST", "/echo", json=dict(value), timeout=timeout)
    told = reply.json() if reply.ok else None
    if not isinstance(told, dict) or "body" not in told:
        raise InvalidResponseError(f"another server's answer: HTTP {reply.status}", maybe_executed=True)
    return json.loads(told["body"])


def to(least: int, most: int) -> Change:
    """Limits that `scale` gives."""

    async def scale(client: Any, one: Any) -> None:
        await client.scale(one, (least, most))

    return scale


async def stop(client: Any, one: Any) -> None:
    await client.stop(one, timeout=300)


async def start(client: Any, one: Any) -> None:
    await client.start(one, timeout=300)


async def stop_and_start(client: Any, one: Any) -> None:
    """What a pod has where others have `scale`."""
    await stop(client, one)
    await start(client, one)


_MORE, _CHANGES = to(0, 3), (to(0, 1), to(1, 3))
POD_SPECS: Sequence[Mapping[str, Any]] = ({}, {"disk": 60}, {"env": {"A": "1"}}, {"ttl": 600})


def _no_change(operation: str, body: Any) -> Any:
    return body


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One platform of the matrix.

    Attributes:
        name: Of the entry: the provider's, and for its pods ``-pod`` after it.
        key: The environment variable of its key, and the key that the emulator takes.
        emulator: Makes its emulated API: engine, key, seed, and rows a page of its lists (where they have pages).
        fields: What is deployed, as spec fields.
        kinds: The resources of a deployment, in the order of creation.
        main: The kind that is called.
        call: Calls it with an input, and gives what came back.
        changed, changes: How a life changes it, and what any order of things may do to it.
        specs: What a deploy in any order of things may ask for besides.
        raced: With what the race deploys.
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
    emulator: Callable[[Engine, str, int, int], EmulatedAPI]
    fields: Mapping[str, Any]
    kinds: tuple[str, ...]
    main: str
    call: Callable[[Any, Any, Mapping[str, Any], float | None], Awaitable[Any]] = _invoke
    changed: Change = _MORE
    changes: tuple[Change, Change] = _CHANGES
    specs: Sequence[Mapping[str, Any]] = (
        {},
        {"workers": (1, 2)},
        {"env": {"A": "1"}},
        {"idle_timeout": 5, "ttl": 600},
    )
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

    @property
    def provider(self) -> str:
        return self.name.removesuffix("-pod")

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
