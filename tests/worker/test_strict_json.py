"""What comes in goes out the same; what cannot be JSON is named by its place."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import enum
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.worker._strict_json import BadJSON, OutputNotJSON, decode, encode

# Surrogates too: JSON text can carry half a pair, and what carries it must come back.
texts = st.text(st.characters(), max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda v: st.lists(v, max_size=4) | st.dictionaries(texts, v, max_size=4), max_leaves=25)
objects = st.dictionaries(texts, values, max_size=5)

BAD: list[Any] = [math.nan, math.inf, -math.inf, b"bytes", {1, 2}, object(), datetime.date(2026, 1, 1), 1j, Ellipsis]


@given(inputs=st.lists(objects, min_size=1, max_size=5))
def test_any_json_object_comes_back_the_same_through_a_handler(inputs: list[dict[str, Any]], local: Any) -> None:
    async def go() -> None:
        async with local(lambda input: input) as worker:
            for value in inputs:
                reply = await worker.invoke(value)
                assert reply.status == 200
                assert reply.json()["output"] == value
                chunk, _ = await worker.stream(value)
                assert chunk == {"chunk": value}

    asyncio.run(go())


@given(values)
def test_a_line_of_a_stream_is_one_line_to_every_reader(value: Any) -> None:
    text = encode(value).decode("ascii")
    assert len(text.splitlines()) == 1
    assert json.loads(text) == value


@given(st.data())
def test_an_output_that_is_not_json_is_named_by_its_path(data: st.DataObject) -> None:
    steps = data.draw(st.lists(st.integers(0, 3) | st.from_regex(r"[a-z]{1,8}", fullmatch=True), max_size=5))
    value: Any = data.draw(st.sampled_from(BAD))
    path = "$"
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    for step in reversed(steps):
        value = [0] * step + [value, 1] if isinstance(step, int) else {"_a": 1, step: value, "_z": [2]}
    with pytest.raises(OutputNotJSON) as caught:
        encode(value)
    assert caught.value.path == path
    assert path in str(caught.value)


@pytest.mark.parametrize("key", [1, 1.5, None, True, (1, 2), b"k"])
def test_a_key_that_is_not_text_is_refused_rather_than_changed(key: Any) -> None:
    with pytest.raises(OutputNotJSON, match="key") as caught:
        encode({"a": [{"b": 1}, {key: 2}]})
    assert caught.value.path == "$.a[1]"


def test_an_output_that_holds_itself_is_an_error_and_not_a_hang() -> None:
    loop: dict[str, Any] = {}
    loop["me"] = [loop]
    with pytest.raises(OutputNotJSON, match="Circular"):
        encode(loop)


def test_an_output_too_deep_or_a_number_too_long_is_an_error() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(OutputNotJSON, match="deep"):
        encode(deep)
    with pytest.raises(OutputNotJSON):
        encode({"n": 10**5000})


def test_an_array_is_told_how_to_become_a_list_and_values_are_never_shown() -> None:
    class Array:
        def tolist(self) -> list[int]:
            return []

        def __repr__(self) -> str:
            return "private"

    with pytest.raises(OutputNotJSON, match=r"\$\.vec.*Array.*tolist") as caught:
        encode({"vec": Array()})
    assert "private" not in str(caught.value)


def test_tuples_and_text_enums_are_taken() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    assert encode({"a": (1, (2,)), Colour.RED: Colour.RED}) == b'{"a":[1,[2]],"red":"red"}'


@given(st.binary(max_size=40))
def test_no_body_makes_the_reader_raise_anything_else(body: bytes) -> None:
    with contextlib.suppress(BadJSON):
        decode(body)


def test_the_reply_names_the_path_too(local: Any, handlers: Any) -> None:
    async def go() -> None:
        async with local(handlers.not_json) as worker:
            error = (await worker.invoke({})).json()["error"]
            assert error["type"] == "OutputNotJSON"
            assert "$.items[1].when" in error["message"]
            assert "set" in error["message"]
        async with local(lambda input: iter([1, {2}])) as worker:
            chunk, last = await worker.stream({})
            assert chunk == {"chunk": 1}
            assert "chunk 1" in last["error"]["message"]

    asyncio.run(go())
