"""Looks that the waiting calls of one client share."""

from __future__ import annotations

from unigpu._lifecycle import SharedStatus
from unigpu.driver import DeploymentInfo, State

INFO = DeploymentInfo(provider="fake", name="a", provider_name="a-ug", id="1", state=State.STARTING)


def test_one_looks_and_the_others_take_what_it_shows() -> None:
    looks = SharedStatus()
    assert looks.newest("a", 10.0, within=1.0) is None  # this caller is to look
    other = looks.newest("a", 10.5, within=1.0)
    assert other is not None
    assert other.seen is None  # it has not come back: nobody waits for it
    assert looks.latest("a") is None
    looks.show("a", 10.0, INFO, ())
    assert looks.latest("a") is INFO
    assert looks.latest("b") is None
    other = looks.newest("a", 10.9, within=1.0)
    assert other is not None
    assert other.seen is INFO
    assert looks.newest("b", 10.9, within=1.0) is None  # another deployment
    assert looks.newest("a", 11.0, within=1.0) is None  # too old: the next one looks


def test_a_look_that_hangs_or_fails_is_taken_over_and_its_late_news_are_none() -> None:
    looks = SharedStatus()
    assert looks.newest("a", 10.0, within=1.0) is None
    assert looks.newest("a", 11.0, within=1.0) is None
    looks.show("a", 10.0, INFO, ())
    newest = looks.newest("a", 11.5, within=1.0)
    assert newest is not None
    assert newest.seen is None
    looks.show("a", 11.0, INFO, ())
    newest = looks.newest("a", 11.5, within=1.0)
    assert newest is not None
    assert newest.seen is INFO


def test_what_was_changed_is_not_as_it_was_seen() -> None:
    looks = SharedStatus()
    assert looks.newest("a", 10.0, within=1.0) is None
    looks.show("a", 10.0, INFO, ())
    looks.forget("a", 10.1)
    newest = looks.newest("a", 10.2, within=1.0)
    assert newest is not None
    assert newest.seen is None
    assert looks.newest("a", 9.0, within=1.0) is None  # a clock that went back, as in a child of a fork
