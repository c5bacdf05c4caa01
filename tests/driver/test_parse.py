"""What drivers read out of replies: any form of a number or a time, and no value in an error."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, Field

from unigpu.driver import (
    Count,
    Flag,
    Headers,
    Id,
    Number,
    Pairs,
    Response,
    Text,
    Time,
    WireModel,
    epoch,
    items,
    json_object,
    mapping,
    number,
    object_or_none,
    objects,
    parse,
    rows,
    rows_in,
    shaped,
    whole,
)
from unigpu.errors import InvalidResponseError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (3, 3.0), (0.5, 0.5), ("0.5", 0.5), (" 2 ", 2.0), ("-1e3", -1000.0),
        (True, None), (None, None), ("nan", None), ("inf", None), (math.inf, None), ("1e999", None), (10**400, None),
        ("", None), ("two", None), ([1], None), ({}, None),
    ],
)  # fmt: skip
def test_a_number_is_finite_or_none(value: object, found: float | None) -> None:
    assert number(value) == found


def test_a_whole_number_is_within_its_bounds_or_none() -> None:
    assert [whole(one) for one in ("7", 7, 7.0, "7.5", -1, "1e12", "nan")] == [7, 7, 7, None, None, None, None]
    assert whole("0", least=1) is None
    assert whole(65536, most=65535) is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (1_780_000_000, 1_780_000_000.0), ("1780000000.5", 1_780_000_000.5), (1_780_000_000_000, 1_780_000_000.0),
        ("2026-08-01T12:00:00Z", 1_785_585_600.0), ("2026-08-01T14:00:00+02:00", 1_785_585_600.0),
        ("2026-08-01 12:00:00", 1_785_585_600.0), ("2026-08-01T12:00:00.123456789Z", 1_785_585_600.123456),
        (0, None), (-5, None), ("", None), ("soon", None), (None, None), (math.nan, None), (True, None), ({}, None),
        (1e300, None), ("0001-01-01T00:00:00+14:00", None),
    ],
)  # fmt: skip
def test_a_time_of_any_form_is_epoch_seconds(value: object, found: float | None) -> None:
    assert epoch(value) == pytest.approx(found) if found is not None else epoch(value) is None


@pytest.mark.usefixtures("new_york")
def test_a_time_without_a_zone_is_utc_wherever_we_are() -> None:
    assert epoch("2026-08-01T12:00:00") == epoch("2026-08-01T12:00:00Z") == 1_785_585_600.0


@given(JSON)
def test_no_value_breaks_a_reader(value: Any) -> None:
    for read in (number, whole, epoch, mapping, items, object_or_none, objects):
        read(value)


class Inner(WireModel):
    port: Count = None


class Row(WireModel):
    id: Id
    seen: Time = None
    price: Number = None
    cards: Count = None
    healthy: Flag = None
    image: Text = None
    env: Pairs = Field(default_factory=dict[str, str])
    inner: Annotated[Inner | None, BeforeValidator(object_or_none)] = None
    more: Annotated[tuple[Inner, ...], BeforeValidator(objects)] = ()


def test_a_junk_field_is_none_and_the_row_stays_readable() -> None:
    junk = {
        "seen": "?",
        "price": "free",
        "cards": -1,
        "healthy": "yes",
        "image": 3,
        "env": "A=B",
        "inner": [],
        "more": 1,
    }
    assert shaped(Row, {"id": 7, **junk}, "x.get") == Row(id="7")
    good = shaped(
        Row,
        {
            "id": "a", "seen": 1_780_000_000_000, "price": "0.5", "cards": "2", "healthy": True, "image": "i",
            "env": [{"key": "A", "value": 1}, {"key": "B"}, 3], "inner": {"port": 1}, "more": [{"port": 2}, None],
        },
        "x.get",
    )  # fmt: skip
    assert (good.seen, good.price, good.cards, good.env) == (1_780_000_000.0, 0.5, 2, {"A": "1"})
    assert (good.inner, good.more) == (Inner(port=1), (Inner(port=2),))


@pytest.mark.parametrize("value", [{"id": ""}, {"id": None}, {"id": True}, {}, [], None, "text"])
def test_a_row_without_its_id_is_an_error_that_shows_no_value(value: object) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        shaped(Row, value, "acme.thing.get")
    error = caught.value
    assert error.message.startswith("acme.thing.get: the reply does not have the expected shape (")
    assert (error.provider, error.operation, error.maybe_executed) == ("acme", "acme.thing.get", True)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_body_is_parsed_under_its_own_operation() -> None:
    reply = Response(status=200, headers=Headers(), content=b'{"id": "a"}', operation="acme.thing.get")
    assert parse(Row, reply) == Row(id="a")
    with pytest.raises(InvalidResponseError, match=r"acme.thing.get: .*\(id\)"):
        parse(Row, Response(status=200, headers=Headers(), content=b"{}", operation="acme.thing.get"))


def test_a_list_is_read_whole_or_not_at_all() -> None:
    assert rows(Row, [{"id": 1}, {"id": 2}], "a.list") == [Row(id="1"), Row(id="2")]
    for wrong in ({"items": []}, None, "text", [{"id": 1}, {}]):
        with pytest.raises(InvalidResponseError):
            rows(Row, wrong, "a.list")


def test_the_objects_of_a_list_are_found_under_their_key_or_bare() -> None:
    assert rows_in({"items": [{"a": 1}]}, "items", "a.list") == [{"a": 1}]
    assert rows_in([{"a": 1}], None, "a.list") == [{"a": 1}]
    for value, key in (
        ({"items": {}}, "items"),
        ({"items": [1]}, "items"),
        ([], "items"),
        ({}, "items"),
        ({}, None),
        ("no", "items"),
    ):
        with pytest.raises(InvalidResponseError, match="no list of"):
            rows_in(value, key, "a.list")


def test_text_that_is_no_object_is_an_empty_one() -> None:
    assert json_object(b'{"a": 1}') == {"a": 1}
    for text in (b"", b"[1]", b"\xff", "no", "[" * 100_000):
        assert json_object(text) == {}
