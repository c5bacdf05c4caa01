"""What the conformance tests are made of: a platform under test, its flags, and errors that are expected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from unigpu import _registry
from unigpu.driver import Driver
from unigpu.elasticity.capabilities import Capabilities, load
from unigpu.errors import UnsupportedError
from unigpu.models import Interface, Kind, is_in_namespace

from . import handlers

E = TypeVar("E", bound=BaseException)

APP: Final = Path(handlers.__file__).read_text("utf-8")
"""The handlers that a bench must be able to deploy, as a file's text; `unigpu.testing.handlers` is the same."""

SHAPES: tuple[tuple[Interface, Kind], ...] = (
    ("function", "serverless"), ("function", "pod"), ("http", "serverless"), ("http", "pod"),
)  # fmt: skip


class Bench(Protocol):
    """A platform under test.

    Attributes:
        provider: Its name.
    """

    provider: str

    def options(self, *, elsewhere: bool = False) -> Mapping[str, Any]:
        """What a client is made with. *elsewhere*: as another machine has it, with an empty state directory."""
        ...

    def without_permission(self) -> Mapping[str, Any] | None:
        """The same with a wrong key; ``None``: the platform asks for none."""
        ...

    def fields(self, handler: str) -> Mapping[str, Any]:
        """Spec fields, without a name, of a function deployment of one of `APP`'s handlers."""
        ...

    def shape(self, interface: Interface, kind: Kind) -> Mapping[str, Any]:
        """Spec fields of any deployment of this shape."""
        ...


async def caught(kind: type[E] | tuple[type[E], ...], call: Callable[[], Awaitable[object]]) -> E:
    """The error of *kind* that *call* raises; anything else is a failed test."""
    try:
        value = await call()
    except kind as exc:
        return exc
    raise AssertionError(f"nothing was raised, but there came {value!r}")


async def listed(client: Any, bench: Bench) -> list[str | None]:
    """The names of the client's own deployments: an account may hold others."""
    space = bench.options().get("namespace") or "default"
    rows = await client.deployments(provider=bench.provider)
    return [row.name for row in rows if is_in_namespace(row.info.provider_name, space)]


def capabilities(provider: str, interface: Interface, kind: Kind) -> Capabilities | None:
    """What the facts say of one shape; ``None``: the platform has no such deployments."""
    try:
        return load(provider, interface=interface, kind=kind, facts=getattr(_registry.load(provider), "facts", None))
    except UnsupportedError:
        return None


def has(cls: type[Driver], protocol: type) -> bool:
    """Whether a driver's class has all of a protocol's members, attributes of its instances included."""
    names = {name for name in dir(protocol) if not name.startswith("_")}
    return names <= set(dir(cls))


async def first(things: Any) -> object:
    async for one in things:
        return one
    return None


def calls(client: Any, deployed: Any) -> dict[str, Callable[[], Awaitable[object]]]:
    """Each verb that stands on a flag, as a call that would use it."""

    async def streamed() -> object:
        async with client.stream(deployed, {"n": 1}) as stream:
            return await first(stream)

    return {
        "invoke": lambda: client.invoke(deployed, {"n": 1}),
        "submit": lambda: client.submit(deployed, {"n": 1}),
        "stream": streamed,
        "map": lambda: first(client.map(deployed, [{"n": 1}], progress="off")),
        "scale": lambda: client.scale(deployed, (0, 2)),
        "wake": lambda: client.wake(deployed),
        "stop": lambda: client.stop(deployed),
        "start": lambda: client.start(deployed, wait=False),
        "logs": lambda: first(client.logs(deployed)),
    }
