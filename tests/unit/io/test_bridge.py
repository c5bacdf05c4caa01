from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from unigpu._io.bridge import iter_sync, run_sync


async def _value() -> int:
    return 7


def test_a_coroutine_that_never_suspends_gives_its_result() -> None:
    assert run_sync(_value()) == 7


def test_an_error_comes_out_as_it_was_raised() -> None:
    async def broken() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_sync(broken())


def test_awaiting_something_else_names_the_coroutine_and_closes_it() -> None:
    closed: list[str] = []

    async def drifting() -> None:
        try:
            await asyncio.sleep(0)
        finally:
            closed.append("closed")

    with pytest.raises(RuntimeError, match=r"drifting awaited something other than its Io"):
        run_sync(drifting())
    assert closed == ["closed"]


def test_an_interrupt_is_raised_inside_the_coroutine() -> None:
    seen: list[str] = []

    async def interrupted() -> None:
        try:
            raise KeyboardInterrupt  # as a signal handler would, in the middle of a call
        except BaseException as exc:
            seen.append(type(exc).__name__)
            raise

    with pytest.raises(KeyboardInterrupt):
        run_sync(interrupted())
    assert seen == ["KeyboardInterrupt"]


async def _count(ended: list[str]) -> AsyncIterator[int]:
    try:
        for number in range(5):
            yield number
    finally:
        ended.append("ended")


def test_iteration_gives_every_item_and_ends() -> None:
    ended: list[str] = []
    assert list(iter_sync(_count(ended))) == [0, 1, 2, 3, 4]
    assert ended == ["ended"]


def test_leaving_early_closes_the_source_at_once() -> None:
    ended: list[str] = []
    items = iter_sync(_count(ended))
    assert next(items) == 0
    items.close()  # type: ignore[attr-defined]  # a generator
    assert ended == ["ended"]


def test_an_error_of_the_source_reaches_the_consumer() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    items = iter_sync(broken())
    assert next(items) == 1
    with pytest.raises(ValueError, match="broken"):
        next(items)
