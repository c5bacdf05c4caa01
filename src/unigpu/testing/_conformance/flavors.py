"""One workflow, every flavour: written once as `async def`, run on `Client`, and on `AsyncClient` on both loops.

For `Client` a proxy makes each plain call awaitable: what is awaited has happened by then.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable, Iterator
from typing import Any, Final, Literal, TypeVar, cast

from unigpu._client.async_client import AsyncClient
from unigpu._client.sync_client import Client
from unigpu._io.bridge import run_sync

T = TypeVar("T")
Name = Literal["sync", "asyncio", "trio"]
NAMES: Final[tuple[Name, ...]] = ("sync", "asyncio", "trio")
# Objects whose methods do something: their calls are made awaitable. Everything else is data, or the test's.
_LIVE: Final = ("Client", "Deployment", "Job", "Stream", "HTTPStream", "Results", "Deployments", "generator")


class Flavour:
    """One way to run a workflow."""

    def __init__(self, name: Name) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def run(self, workflow: Callable[[Any], Awaitable[T]], *args: Any, **options: Any) -> T:
        """Run ``await workflow(client)`` with a client of this flavour, closed at the end.

        Args:
            args, options: The client's own.
        """

        async def with_async_client() -> T:
            async with AsyncClient(*args, **options) as client:
                return await workflow(client)

        if self.name == "sync":
            with Client(*args, **options) as client:
                return run_sync(_awaited(workflow, client))
        if self.name == "asyncio":
            return asyncio.run(with_async_client())
        found: T = importlib.import_module("trio").run(with_async_client)
        return found


class Plain:
    """A plain object whose calls can be awaited, iterated with ``async for``, and entered with ``async with``."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, {"aclose": "close"}.get(name, name))
        return _Calls(value) if callable(value) and not isinstance(value, type) else wrap(value)

    def __await__(self) -> Generator[Any, Any, Plain]:
        return _there(self).__await__()

    def __aiter__(self) -> AsyncIterator[Any]:
        return _iterate(self._thing)

    def __iter__(self) -> Iterator[Any]:
        return iter([wrap(one) for one in self._thing])

    def __len__(self) -> int:
        return len(self._thing)

    def __repr__(self) -> str:
        return repr(self._thing)

    async def __aenter__(self) -> Any:
        return wrap(self._thing.__enter__())

    async def __aexit__(self, *exc: Any) -> Any:
        return self._thing.__exit__(*exc)

    async def __anext__(self) -> Any:
        try:
            return next(self._thing)
        except StopIteration:
            raise StopAsyncIteration from None


class _Calls:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any, **options: Any) -> Any:
        value = self._function(*(unwrap(a) for a in args), **{k: unwrap(v) for k, v in options.items()})
        wrapped = wrap(value)
        return wrapped if isinstance(wrapped, Plain) else _Done(wrapped)


class _Done:
    """A value that was there already, and may be awaited all the same."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return _there(self._value).__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)


def wrap(value: Any) -> Any:
    return Plain(value) if type(value).__name__ in _LIVE else value


def unwrap(value: Any) -> Any:
    return object.__getattribute__(value, "_thing") if isinstance(value, Plain) else value


async def _there(value: T) -> T:
    """An await that never suspends."""
    return value


async def _awaited(workflow: Callable[[Any], Awaitable[T]], client: Client) -> T:
    return await workflow(Plain(client))


async def _iterate(thing: object) -> AsyncIterator[Any]:
    for one in cast("Iterable[Any]", thing):
        yield wrap(one)
