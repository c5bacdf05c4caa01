"""The handlers of the conformance tests: ``unigpu.testing.handlers:echo``. Every image with unigpu in it has them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


def echo(input: dict[str, Any]) -> dict[str, Any]:
    return {"got": input}


def count(input: dict[str, Any]) -> Iterator[dict[str, int]]:
    for i in range(input["n"]):
        yield {"i": i}


def fail(input: dict[str, Any]) -> None:
    raise ValueError("no such page")


def slow(input: dict[str, Any]) -> dict[str, float]:
    time.sleep(input["s"])
    return {"slept": input["s"]}
