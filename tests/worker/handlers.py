"""Handlers that the tests serve, in this process or in a real worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any


def echo(input: dict[str, Any]) -> dict[str, Any]:
    return input


async def async_echo(input: dict[str, Any]) -> dict[str, Any]:
    await asyncio.sleep(0)
    return input


def count(input: dict[str, Any]) -> Iterator[int]:
    yield from range(input["n"])


async def async_count(input: dict[str, Any]) -> AsyncIterator[int]:
    for i in range(input["n"]):
        await asyncio.sleep(0)
        yield i


class Doubler:
    """Loads once; says in which thread it was loaded, and in which it runs."""

    loads = 0

    def __init__(self) -> None:
        type(self).loads += 1
        self.loaded_in = threading.get_ident()

    def __call__(self, input: dict[str, Any]) -> dict[str, Any]:
        return {
            "y": 2 * input["x"],
            "loads": self.loads,
            "same_thread": self.loaded_in == threading.get_ident(),
        }


class AsyncDoubler:
    async def __call__(self, input: dict[str, Any]) -> int:
        await asyncio.sleep(0)
        return 2 * int(input["x"])


class Counter:
    def __call__(self, input: dict[str, Any]) -> Iterator[int]:
        yield from range(input["n"])


class AsyncCounter:
    async def __call__(self, input: dict[str, Any]) -> AsyncIterator[int]:
        for i in range(input["n"]):
            yield i


def fail(input: dict[str, Any]) -> None:
    raise ValueError("the model says no")


def leave(input: dict[str, Any]) -> None:
    raise SystemExit(7)


def fail_midway(input: dict[str, Any]) -> Iterator[int]:
    yield 1
    raise ValueError("halfway")


def not_json(input: dict[str, Any]) -> Any:
    return {"items": [1, {"when": {2, 3}}]}


def speak(input: dict[str, Any]) -> str:
    print("handler says", input["word"])
    return "spoken"


def wait_for_file(input: dict[str, Any]) -> str:
    """Starts, says so by a file, and runs until another file is there."""
    Path(input["started"]).touch()
    while not Path(input["go"]).exists():
        time.sleep(0.01)
    return "went"


async def wait_forever(input: dict[str, Any]) -> None:
    """Says by files when it has started and when it was cancelled."""
    Path(input["started"]).touch()
    try:
        await asyncio.Event().wait()
    finally:
        Path(input["ended"]).touch()


def stream_forever(input: dict[str, Any]) -> Iterator[str]:
    """Chunks without end; says by a file when it was closed."""
    try:
        while True:
            yield "x" * 1000
    finally:
        Path(input["ended"]).touch()


def stuck(input: dict[str, Any]) -> None:
    threading.Event().wait()


async def async_stuck(input: dict[str, Any]) -> None:
    """Blocks its event loop, as an async handler that calls a model directly does."""
    threading.Event().wait()


class SlowLoader:
    """Loads until a file is there."""

    def __init__(self) -> None:
        import os

        while not Path(os.environ["TEST_GO"]).exists():
            time.sleep(0.01)

    def __call__(self, input: dict[str, Any]) -> str:
        return "loaded"


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no weights at /models")

    def __call__(self, input: dict[str, Any]) -> None: ...
