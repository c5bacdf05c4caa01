"""What the conformance tests are made of: a platform under test, its flags, and errors that are expected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from unigpu import _registry
from unigpu.driver import CallDriver
from unigpu.elasticity.capabilities import Capabilities, load
from unigpu.errors import UnsupportedError
from unigpu.models import Interface, Kind, is_in_namespace

from .. import handlers

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


class WireBench(Bench, Protocol):
    """A platform in memory, which a test can make fail. Each bench is a platform of its own, empty at first.

    Attributes:
        list_operation: The operation by which deployments are listed.
        calls: Every operation that arrived, in order.
        state_dir: Where the clients of `options` keep their state.
        on_call: Called with ``"before"`` or ``"after"`` and the operation; what it raises, the client gets.
        change_json: Changes each reply's JSON on its way; ``None``: nothing.
        status_names: The names of fields of replies that hold a status.
        cold_start: Seconds that a worker takes to be ready, of what is deployed with `fields` from now on.
        crashes: So many of the next calls kill the worker that runs them.
        runs: How often a worker was given a call.
    """

    list_operation: str
    calls: list[str]
    state_dir: Path
    on_call: Callable[[str, str], object] | None
    change_json: Callable[[str, Any], Any] | None
    status_names: Sequence[str]
    cold_start: float
    crashes: int
    runs: int

    def lose(self, operation: str, when: str, *, times: int | None = 1) -> None:
        """Close the connection without a reply, before or after the platform acted; ``None``: always."""
        ...

    def refuse(self, operation: str, status: int, *, times: int | None = 1) -> None:
        """Answer with this HTTP status instead, before the platform acts."""
        ...

    def heal(self) -> None:
        """No fault any more, and so much later that a client which had stopped sending tries again.

        Every look that a deploy on a platform of lists still owes is due by then: three minutes do for both.
        """
        ...

    def left(self) -> Sequence[str]:
        """What exists on the platform now, by name: deployments, and workers that run."""
        ...

    def seconds(self) -> Mapping[str, float]:
        """Seconds of all workers until now, by what they did: ``loading``, ``idle`` and ``busy``."""
        ...

    def billed(self) -> Mapping[str, float]:
        """Those of `seconds` that cost money."""
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
        return load(provider, interface=interface, kind=kind, facts=_registry.load(provider).facts)
    except UnsupportedError:
        return None


def has(cls: type[CallDriver], protocol: type) -> bool:
    """Whether a driver's class has all of a protocol's members, attributes of its instances included."""
    names = {name for name in dir(protocol) if not name.startswith("_")}
    return names <= set(dir(cls))


def has_status(cls: type[CallDriver]) -> bool:
    """Whether some deployments of the platform have jobs."""
    return cls.status is not CallDriver.status


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
