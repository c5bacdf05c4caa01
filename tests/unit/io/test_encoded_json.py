"""An input is encoded once: its bytes go into every body as they are."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu._io.contract import EncodedJSON
from unigpu._io.http.prepare import encode_json
from unigpu.errors import InvalidInput

TEXT = '{"text":"grün \\"quoted\\"","n":1}'
INPUT = EncodedJSON(TEXT.encode())

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aä"\\\0€'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


def test_alone_it_is_the_body() -> None:
    assert encode_json(INPUT) is INPUT.data


def test_in_an_envelope_its_bytes_are_put_in_as_they_are() -> None:
    assert encode_json({"input": INPUT, "policy": {"ttl": 1}}) == b'{"input":' + INPUT.data + b',"policy":{"ttl":1}}'
    assert encode_json([INPUT, {"input": {"input": INPUT}}, INPUT]).count(INPUT.data) == 3


@given(inner=st.dictionaries(st.text(max_size=3), values, max_size=3), beside=values)
def test_a_body_is_the_same_as_if_all_of_it_were_encoded_at_once(inner: dict[str, object], beside: object) -> None:
    held = EncodedJSON(encode_json(inner))
    assert encode_json({"a": beside, "in": [held, beside]}) == encode_json({"a": beside, "in": [inner, beside]})
    assert held == inner


def test_it_reads_like_the_object_that_it_stands_for() -> None:
    assert json.loads(TEXT) == INPUT
    assert (len(INPUT), list(INPUT), INPUT["n"], INPUT.get("x", 2)) == (2, ["text", "n"], 1, 2)
    assert {**INPUT, "n": 2} == {"text": 'grün "quoted"', "n": 2}
    assert INPUT
    assert not EncodedJSON(b"{}")


def test_it_shows_nothing_of_the_input() -> None:
    assert repr(INPUT) == f"EncodedJSON({len(INPUT.data)} bytes)"


def test_any_mapping_can_be_sent_and_nothing_else_that_is_not_json() -> None:
    assert encode_json({"input": MappingProxyType({"n": 1})}) == b'{"input":{"n":1}}'
    with pytest.raises(InvalidInput, match="TypeError"):
        encode_json({"input": INPUT, "x": {1}})
