"""One workflow, every flavour: a test writes it once, as `async def`, and it runs on `Client` and on `AsyncClient`.

For `Client` a proxy makes each plain call awaitable: what is awaited has happened by then. Load this file by its path
(see ``tests/client/conftest.py``); with importlib import mode there is no package to import it from.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any

import trio

from unigpu import AsyncClient, Client
from unigpu._io.bridge import run_sync

NAMES = ("sync", "asyncio", "trio")
# What is data, or belongs to the test: never wrapped.
_PLAIN = (str, bytes, int, float, bool, type(None), dict)
_LIVE = ("Client", "Deployment", "Job", "Stream", "Results", "Deployments", "generator")


class Flavour:
    """One way to run a workflow."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, workflow: Callable[[Any], Awaitable[Any]], *args: Any, **options: Any) -> Any:
        """Run ``await workflow(client)`` with a client of this flavour, closed at the end."""
        if self.name == "sync":
            with Client(*args, **options) as client:
                return run_sync(self._plain(workflow, client))
        if self.name == "asyncio":
            return asyncio.run(self._async(workflow, args, options))
        return trio.run(self._async, workflow, args, options)

    async def _plain(self, workflow: Callable[[Any], Awaitable[Any]], client: Client) -> Any:
        return await workflow(Plain(client))

    async def _async(
        self, workflow: Callable[[Any], Awaitable[Any]], args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        async with AsyncClient(*args, **options) as client:
            return await workflow(client)


class Plain:
    """A plain object whose calls can be awaited, iterated with ``async for``, and entered with ``async with``."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._thing, {"aclose": "close"}.get(name, name))
        return _Calls(value) if callable(value) and not isinstance(value, type) else wrap(value)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self
        yield  # an await that never suspends

    def __aiter__(self) -> AsyncIterator[Any]:
        return _iterate(self._thing)

    def __iter__(self) -> Any:
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
        return self._value
        yield  # an await that never suspends

    def __getattr__(self, name: str) -> Any:
        return getattr(self._value, name)


async def _iterate(thing: Any) -> AsyncIterator[Any]:
    for one in thing:
        yield wrap(one)


def wrap(value: Any) -> Any:
    return Plain(value) if type(value).__name__ in _LIVE and not isinstance(value, _PLAIN) else value


def unwrap(value: Any) -> Any:
    return value._thing if isinstance(value, Plain) else value
