"""The rates that the drivers keep to, and those that the platforms publish: neither without the other."""

from __future__ import annotations

import re

import pytest

from unigpu import _registry
from unigpu._io.resilience.rate_limit import Limit
from unigpu.elasticity.capabilities import load
from unigpu.models import Interface, Kind

FUNCTION: tuple[Interface, Kind] = ("function", "serverless")


def table(provider: str) -> dict[str, Limit]:
    found = getattr(_registry.load(provider), "limits", {})
    return {key.removeprefix(f"{provider}."): limit for key, limit in found.items()}


def said(provider: str, shape: tuple[Interface, Kind] = FUNCTION) -> str:
    interface, kind = shape
    return str(load(provider, interface=interface, kind=kind).rate_limits.value)


def within(limit: Limit, seconds: float) -> float:
    """The most that is sent in so many seconds."""
    return limit.burst + limit.rate * seconds


def test_runpods_calls_stay_below_the_published_number_in_ten_seconds() -> None:
    published = {name: int(count) for count, name in re.findall(r"(\d+) /(\w+)", said("runpod"))}
    ours = table("runpod")
    assert set(published) == {*ours, "stream"}, "a rate without a limit, or a limit that nobody published"
    published["status"] = min(published["status"], published.pop("stream"))  # one table for both: they may be one
    for name, limit in ours.items():
        assert within(limit, 10) <= published[name], name


def test_yottas_tasks_stay_below_the_published_number_in_a_second() -> None:
    found = re.match(r"tasks: (\d+) creates and (\d+) reads a second", said("yotta"))
    assert found
    creates, reads = (int(text) for text in found.groups())
    submit, read = table("yotta").values()
    assert within(submit, 1) <= creates
    assert within(read, 1) <= reads


def test_vasts_routes_are_asked_as_seldom_as_the_fact_says() -> None:
    found = re.match(r"management: one call of a route every ([\d.]+) to ([\d.]+) s", said("vast"))
    assert found
    waits = [1 / limit.rate for limit in table("vast").values()]
    assert all(limit.burst == 1 for limit in table("vast").values())
    assert (pytest.approx(min(waits)), pytest.approx(max(waits))) == tuple(float(text) for text in found.groups())


def test_where_there_is_no_limit_there_is_no_table() -> None:
    assert said("local") == "none"
    assert not table("local")
