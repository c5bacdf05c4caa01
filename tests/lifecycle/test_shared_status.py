"""The status that the waiting calls of one client share."""

from __future__ import annotations

from unigpu._lifecycle import SharedStatus
from unigpu.driver import DeploymentInfo, State

INFO = DeploymentInfo(provider="fake", name="a", provider_name="a-ug", id="1", state=State.STARTING)


def test_one_call_checks_and_the_others_use_its_result() -> None:
    status = SharedStatus()
    assert status.newest("a", 10.0, within=1.0) is None  # this caller checks
    other = status.newest("a", 10.5, within=1.0)
    assert other is not None
    assert other.seen is None  # the check has not finished, and no call waits for it
    assert status.latest("a") is None
    status.show("a", 10.0, INFO, ())
    assert status.latest("a") is INFO
    assert status.latest("b") is None
    other = status.newest("a", 10.9, within=1.0)
    assert other is not None
    assert other.seen is INFO
    assert status.newest("b", 10.9, within=1.0) is None  # another deployment
    assert status.newest("a", 11.0, within=1.0) is None  # too old: the next call checks


def test_a_check_that_hangs_is_replaced_and_its_late_result_is_ignored() -> None:
    status = SharedStatus()
    assert status.newest("a", 10.0, within=1.0) is None
    assert status.newest("a", 11.0, within=1.0) is None
    status.show("a", 10.0, INFO, ())
    newest = status.newest("a", 11.5, within=1.0)
    assert newest is not None
    assert newest.seen is None
    status.show("a", 11.0, INFO, ())
    newest = status.newest("a", 11.5, within=1.0)
    assert newest is not None
    assert newest.seen is INFO


def test_a_change_makes_earlier_results_void() -> None:
    status = SharedStatus()
    assert status.newest("a", 10.0, within=1.0) is None
    status.show("a", 10.0, INFO, ())
    status.forget("a", 10.1)
    newest = status.newest("a", 10.2, within=1.0)
    assert newest is not None
    assert newest.seen is None
    assert status.newest("a", 9.0, within=1.0) is None  # a clock that went back, as in a child of a fork
