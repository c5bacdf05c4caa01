"""On a platform that only lists: lost answers, late acts, races, and the looks that are owed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from client_listed import FIELDS, ListedWorld

from unigpu import _registry
from unigpu._io.clock import InstantClock
from unigpu.emulator.contract import Reply
from unigpu.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeploymentGone,
    DeployOutcomeUnknown,
    InvalidResponseError,
    NameConflict,
    PartialDeployError,
    PermissionDeniedError,
    ResultUnknown,
    StateError,
    UniGPUError,
)
from unigpu.testing.reference import ReferenceDriver

Make = Callable[..., ListedWorld]


@pytest.fixture
def make(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    with _registry.using("reference", ReferenceDriver):
        yield lambda **settings: ListedWorld(tmp_path, instant, **settings)


def deploy(client: Any, **more: Any) -> Any:
    return client.deploy(progress="off", **{**FIELDS, **more})


SILENT: dict[str, Callable[[Any], Any]] = {
    "deploy": lambda client: deploy(client, name="other", timeout=5),
    "teardown": lambda client: client.teardown("summarize", timeout=5),
    "wait_ready": lambda client: client.wait_ready("summarize", timeout=5),
    "update": lambda client: client.update("summarize", image="me/app:2", timeout=5),
    "invoke": lambda client: client.invoke("summarize", {"n": 1}, timeout=5),
    "submit": lambda client: client.submit("summarize", {"n": 1}, timeout=5),
}


@pytest.mark.parametrize("verb", SILENT)
@pytest.mark.parametrize("known", [False, True])
def test_a_time_that_passes_while_a_platform_is_silent_is_a_deadline(make: Make, verb: str, known: bool) -> None:
    world = make()
    with world.client() as client:
        deploy(client)
    with world.client() as client:
        if known:
            client.get("summarize")
        world.faults.add("reference.*", times=None, reply="timeout")
        world.transport.on_call = lambda when, _: world.clock.advance(70.0) if when == "after" else None
        with pytest.raises((DeadlineExceeded, ResultUnknown)) as caught:
            SILENT[verb](client)
        assert isinstance(caught.value, TimeoutError) or caught.value.may_bill
        world.transport.on_call = None


# -- a lost answer


@pytest.mark.parametrize("lag", [0.0, 6.0])
def test_a_create_whose_answer_is_lost_is_found_in_the_list_and_not_repeated(make: Make, lag: float) -> None:
    world = make(list_lag=lag)
    world.faults.add("reference.endpoint.create", when="after")
    with world.client() as client:
        assert deploy(client).change == "created"
    assert world.count("endpoint.create") == 1
    assert len(world.live()) == len(world.live("template")) == 1


def test_a_create_that_never_arrived_is_sent_again_after_the_settle_window(make: Make) -> None:
    world = make()
    world.faults.add("reference.endpoint.create", when="before")
    began = world.clock.now()
    with world.client() as client:
        assert deploy(client).change == "created"
    assert world.clock.now() - began >= 15.0
    assert world.count("endpoint.create") == 2
    assert len(world.live()) == 1


def test_a_list_that_flaps_once_makes_no_second_one(make: Make) -> None:
    world = make()
    world.faults.add("reference.endpoint.create", when="after")
    flaps = iter([True, True])
    world.mangle(
        "endpoint.list", lambda reply: Reply.json({"items": [], "next": None}) if next(flaps, False) else reply
    )
    with world.client() as client:
        deploy(client)
    assert world.count("endpoint.create") == 1
    assert len(world.live()) == 1


def test_three_lost_creates_are_an_error_that_says_so_and_what_acts_late_is_taken_back(make: Make) -> None:
    world = make(list_lag=1000.0)  # everything acts, and nothing is seen in time
    world.faults.add("reference.endpoint.create", when="after", times=3)
    with world.client() as client:
        with pytest.raises(DeployOutcomeUnknown) as caught:
            deploy(client)
        assert caught.value.may_bill
        assert len(world.live()) == 3
        assert len(world.intents()) == 1
    world.clock.advance(2000.0)
    with world.client() as client:
        client.deployments(provider="reference")  # any control call pays what is due
    assert world.live() == []
    with world.client() as client:
        client.gc(provider="reference", delete=True)
    assert (world.all(), world.intents()) == ([], [])


@pytest.mark.parametrize("state", ["kept", "none"])
def test_an_interrupted_deploy_leaves_nothing_where_a_create_acts_late(make: Make, state: str) -> None:
    world = make(list_lag=5.0)
    world.faults.add("reference.endpoint.create", when="after")
    world.transport.on_call = None

    def interrupt(when: str, operation: str) -> None:
        if operation == "reference.endpoint.list" and world.count("endpoint.create") and when == "before":
            world.transport.on_call = None
            raise KeyboardInterrupt

    world.transport.on_call = interrupt
    options = {} if state == "kept" else {"state_dir": None}
    with world.client(**options) as client:
        with pytest.raises(KeyboardInterrupt):
            deploy(client)
        if state == "kept":
            assert len(world.intents()) == 1  # it owes a look
            world.clock.advance(130.0)
            client.deployments(provider="reference")
            assert world.intents() == []
    assert world.live() == []


# -- races and the winner


def test_of_two_machines_the_older_one_stays_and_both_handles_work(make: Make) -> None:
    world = make(list_lag=8.0)
    with world.client("a") as a, world.client("b") as b:
        first = deploy(a)
        world.clock.advance(1.5)
        second = deploy(b)
        assert (first.change, second.change) == ("created", "created")  # no list could tell
        assert len(world.live()) == 2
        world.clock.advance(20.0)
        a.wait_ready(first, progress="off")
        assert len(world.live()) == 2  # the loser is its own machine's to delete
        b.wait_ready(second, progress="off")
        assert world.live() == [first.id]
        assert len(world.live("template")) == 1
        assert second.id == first.id
        assert second.change == "reused"
        assert second.invoke({"n": 1}).output == {"n": 1}
        with second:
            pass  # it is not ours to end any more
        assert world.live() == [first.id]
        a.teardown("summarize")
    assert world.all() == []


@pytest.mark.parametrize("same", [True, False], ids=["the same spec", "another spec"])
def test_a_deploy_that_finds_an_older_one_right_after_its_create_deletes_its_own(make: Make, same: bool) -> None:
    world = make()
    with world.client("b") as b:
        first = deploy(b)
    seen = world.mangle
    lists = {"n": 0}

    def late(reply: Reply) -> Reply:  # the first look does not show it
        lists["n"] += 1
        return Reply.json({"items": [], "next": None}) if lists["n"] <= 1 else reply

    seen("endpoint.list", late)
    world.clock.advance(2.0)
    with world.client("a") as a:
        if same:
            mine = deploy(a)
            assert (mine.change, mine.id) == ("reused", first.id)
        else:
            with pytest.raises(NameConflict):
                deploy(a, env={"A": "1"})
        assert world.live() == [first.id]
        assert len(world.live("template")) == 1
        world.clock.advance(130.0)
        a.deployments(provider="reference")  # a platform may make two of one request: that is looked for as well
    assert world.live() == [first.id]
    assert world.intents("a") == []


def test_settle_pays_every_look_and_returns_the_winner(make: Make) -> None:
    world = make(list_lag=30.0)
    with world.client("a") as a, world.client("b") as b:
        first = deploy(a)
        world.clock.advance(1.5)
        second = deploy(b, settle=True)
        assert (second.change, second.id) == ("reused", first.id)
        assert world.live() == [first.id]
        assert world.intents("b") == []


def test_settle_that_has_no_time_returns_and_warns(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    world = make()
    with world.client() as client:
        deploy(client, settle=True, timeout=60)
    assert "still owed" in caplog.text


def test_a_deploy_owes_three_looks_and_a_later_one_of_them_pays_for_the_earlier(make: Make) -> None:
    world = make()
    with world.client() as client:
        deploy(client)
        before = world.count("template.list")
        client.scale("summarize", (0, 2))  # nothing is due yet
        assert world.count("template.list") == before
        world.clock.advance(130.0)
        client.scale("summarize", (0, 1))
        assert world.count("template.list") > before
        before = world.count("template.list")
        world.clock.advance(130.0)
        client.scale("summarize", (0, 2))
        assert world.count("template.list") == before  # all paid


def test_a_clock_that_was_set_back_delays_no_look(make: Make) -> None:
    world = make()
    with world.client() as client:
        deploy(client)
        world.clock._wall_offset -= 86_400.0
        before = world.count("template.list")
        client.scale("summarize", (0, 2))
        assert world.count("template.list") > before
        before = world.count("template.list")
        client.scale("summarize", (0, 1))
        assert world.count("template.list") == before  # all paid
        began = world.clock.now()
        deploy(client, name="other", settle=True)
        assert world.clock.now() - began < 200.0


def test_closing_a_client_pays_what_is_due_and_waits_for_nothing(make: Make) -> None:
    world = make()
    client = world.client()
    deploy(client)
    world.clock.advance(20.0)
    before, now = world.count("endpoint.list"), world.clock.now()
    client.close()
    assert world.count("endpoint.list") > before
    assert world.clock.now() == now


def test_a_call_is_not_held_up_by_what_is_owed(make: Make) -> None:
    world = make()
    with world.client() as client:
        one = deploy(client)
        world.clock.advance(200.0)
        before = world.count("endpoint.list")
        one.invoke({"n": 1})
        assert world.count("endpoint.list") == before


def test_looks_whose_list_fails_stay_owed_and_delete_nothing(make: Make) -> None:
    world = make(list_lag=8.0)
    with world.client("a") as a, world.client("b") as b:
        deploy(a)
        world.clock.advance(1.5)
        deploy(b)
        world.clock.advance(20.0)
        world.faults.add("reference.endpoint.list", times=None, reply=500)
        b.scale("summarize", (0, 2))
        assert len(world.live()) == 2
        world.faults.clear()
        world.clock.advance(60.0)
        b.scale("summarize", (0, 3))
        assert len(world.live()) == 1


def test_a_handle_whose_deployment_is_gone_and_has_no_heir_says_so(make: Make) -> None:
    world = make()
    with world.client() as client:
        one = deploy(client)
        with world.client() as other:
            other.teardown("summarize")
        for act in (lambda: one.scale((0, 2)), lambda: one.invoke({"n": 1})):
            with pytest.raises(DeploymentGone):
                act()


def test_a_teardown_of_what_the_list_does_not_show_yet_ends_it(make: Make) -> None:
    world = make(list_lag=50.0)
    with world.client() as client:
        one = deploy(client)
        one.teardown()
        assert world.all() == []
        deploy(client)
        client.teardown("summarize")
        assert world.all() == []


def test_a_deleted_one_that_lists_still_show_is_not_reused(make: Make) -> None:
    world = make(list_lag=50.0)
    with world.client() as client:
        first = deploy(client)
        world.clock.advance(60.0)
        first.teardown()
        second = deploy(client)
        assert second.change == "created"
        assert second.id != first.id


def test_the_end_of_one_leaves_another_machines_winner(make: Make) -> None:
    world = make(list_lag=8.0)
    with world.client("a") as a, world.client("b") as b:
        first = deploy(a)
        world.clock.advance(1.5)
        second = deploy(b)
        world.clock.advance(10.0)
        second.teardown()
        assert world.live() == [first.id]


# -- lists fail closed


SHAPES = [
    Reply(status=200, body=b""),
    Reply(status=200, body=b"[]"),
    Reply(status=200, body=b'{"error": {"code": "x", "message": "y"}}'),
    Reply(status=200, body=b'{"items": null}'),
    Reply(status=200, body=b'{"items": [{"id": 1}]}'),
    Reply(status=200, body=b"<html>login</html>"),
    Reply(status=404, body=b"{}"),
]


@pytest.mark.parametrize("shape", range(len(SHAPES)))
@pytest.mark.parametrize("kind", ["template", "endpoint"])
def test_a_list_of_a_wrong_shape_creates_and_deletes_nothing(make: Make, kind: str, shape: int) -> None:
    world = make()
    with world.client("b") as b:
        deploy(b)
    there = world.all()
    world.mangle(f"{kind}.list", lambda _: SHAPES[shape])
    with world.client("a") as a:
        for act in (lambda: deploy(a), lambda: a.gc(provider="reference", delete=True)):
            with pytest.raises(UniGPUError):
                act()
    assert world.all() == there


def test_a_second_page_that_fails_is_no_answer(make: Make) -> None:
    world = make()
    with world.client("b") as b:
        for name in ("one", "two", "three"):
            deploy(b, name=name)
    there = world.all()

    def second(reply: Reply) -> Reply:
        return reply if b'"next":null' not in reply.body else Reply(status=200, body=b"{}")

    world.mangle("endpoint.list", second)
    with world.client("a") as a, pytest.raises(InvalidResponseError):
        deploy(a, name="four")
    assert world.all() == there


# -- undo


def test_an_undo_that_fails_says_what_may_bill_and_the_command_and_is_finished_later(make: Make) -> None:
    world = make()
    world.faults.add("reference.endpoint.patch", times=1, reply=400)
    world.faults.add("reference.endpoint.delete", times=None, reply=400)
    with world.client() as client:
        with pytest.raises(PartialDeployError) as caught:
            deploy(client)
        assert any("endpoint" in one for one in caught.value.may_bill)
        assert "python -m unigpu gc --provider reference --delete" in str(caught.value)
        assert caught.value.leaked
        world.faults.clear()
        report = client.gc(provider="reference")
        assert {row.reason for row in report} == {"failed"}
        assert len(report.deletable) == 2
        assert len(world.all()) == 2
        client.gc(provider="reference", delete=True)
        assert world.all() == []
        world.clock.advance(130.0)
        client.deployments(provider="reference")  # the last look
    assert world.intents() == []


# -- what must be said


def test_a_bare_name_reuses_what_exists_and_creates_nothing(make: Make) -> None:
    world = make()
    with world.client() as client:
        with pytest.raises(ConfigurationError, match="image"):
            client.deploy(name="summarize", progress="off")
        assert (world.all(), world.intents()) == ([], [])
        one = deploy(client, workers=(0, 3))
        again = client.deploy(name="summarize", progress="off")
        assert (again.change, again.id) == ("reused", one.id)
        assert again.info.workers == (0, 3)
        with pytest.raises(ConfigurationError, match="image"):
            client.deploy(name="summarize", env={"A": "1"}, if_exists="replace", progress="off")
        assert world.live() == [one.id]


def test_both_flavours_pay_and_settle(make: Make) -> None:
    world = make(list_lag=30.0)

    async def main() -> None:
        async with world.async_client("a") as a, world.async_client("b") as b:
            first = await a.deploy(progress="off", **FIELDS)
            world.clock.advance(1.5)
            second = await b.deploy(progress="off", settle=True, **FIELDS)
            assert (second.change, second.id) == ("reused", first.id)
            assert [row.reason for row in await b.gc(provider="reference")] == ["unclaimed"]
            world.clock.advance(31.0)  # what was deleted is off the list by now
            assert [item.owner for item in await b.inventory(provider="reference")] == ["ours"]

    anyio.run(main)


# -- reads that flicker


def _not_found(world: ListedWorld, times: int) -> None:
    """The next *times* reads of an endpoint say that it is not there, as after a create that has not spread yet."""
    left = iter(range(times))
    world.mangle("endpoint.get", lambda reply: reply if next(left, None) is None else Reply.json({}, status=404))


@pytest.mark.parametrize("wait", [True, False, "worker"])
def test_a_deployment_that_two_reads_do_not_show_is_not_gone(make: Make, wait: Any) -> None:
    world = make()
    with world.client() as client:
        app = deploy(client)
        _not_found(world, 2)
        assert client.wait_ready(app, progress="off").id == app.id
        _not_found(world, 2)
        assert client.scale(app, (0, 3)).id == app.id
        _not_found(world, 2)
        assert deploy(client, name="second", wait=wait).change == "created"
    assert len(world.live()) == len(world.live(name="second")) == 1


def test_a_deployment_that_three_reads_do_not_show_is_gone(make: Make) -> None:
    world = make()
    with world.client() as client:
        app = deploy(client)
        world.cloud.engine.deployments.delete(app.id, world.clock.now())
        with pytest.raises(DeploymentGone):
            client.wait_ready(app, progress="off")


def test_parts_of_an_unfinished_teardown_are_waited_for_once(make: Make) -> None:
    world = make()
    with world.client() as client:
        first = deploy(client)
        world.clock.advance(200.0)
        world.faults.add("reference.endpoint.delete", reply=403)
        with pytest.raises(UniGPUError):
            client.teardown("summarize", timeout=30)
        began = world.clock.now()
        assert deploy(client).id == first.id
        assert world.clock.now() - began >= 15.0  # the template is in use: it was there all the time
        began = world.clock.now()
        assert deploy(client).id == first.id
        assert world.clock.now() - began < 5.0


def test_a_disk_that_is_full_does_not_hide_what_a_teardown_left(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make()
    with world.client() as client:
        deploy(client)
        world.clock.advance(200.0)
        world.faults.add("reference.endpoint.delete", reply=403)

        def full(self: Any, intent: Any) -> None:
            raise StateError("no space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("unigpu._lifecycle.intents.IntentStore.save", full)
            with pytest.raises(PermissionDeniedError) as caught:
                client.teardown("summarize", timeout=30)
        assert caught.value.may_bill
