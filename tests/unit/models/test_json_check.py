"""Where a value is not JSON."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.models import json_path

plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(st.characters(codec="utf-8")),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(plain)
def test_what_json_can_carry_is_json(value: Any) -> None:
    assert json_path(value) is None
    assert json.loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"items": [1, 2, 3, {"when": datetime.date(2026, 1, 1)}]}, "$.items[3].when: date is not JSON"),
        ({"a": float("nan")}, "$.a: nan is not JSON"),
        ({"a": {1: 2}}, "$.a: keys are text"),
        ([b"x"], "$[0]: bytes is not JSON"),
        ({"a": {"b"}}, "$.a: set is not JSON"),
        ("\ud800", "$: the text has half of a surrogate pair, which is not Unicode"),
    ],
)
def test_the_place_of_what_is_not_json_is_told(value: Any, where: str) -> None:
    assert json_path(value) == where


def test_a_value_that_holds_itself_is_told_and_does_not_run_for_ever() -> None:
    loop: list[Any] = [1]
    loop += [loop, loop]
    assert "holding itself" in (json_path(loop) or "")
    deep: Any = 1
    for _ in range(99):
        deep = {"a": deep}
    assert json_path(deep) is None
