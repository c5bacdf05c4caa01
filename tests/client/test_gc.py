"""gc deletes for three reasons only, shows the rest, and never what another machine stands behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_listed import FIELDS, ListedWorld

from unigpu import _registry
from unigpu._io.clock import InstantClock
from unigpu.errors import APIStatusError, UniGPUError
from unigpu.models.gc import GcReport
from unigpu.testing.reference import ReferenceDriver

Make = Callable[..., ListedWorld]


class Killed(BaseException):
    """The process dies."""


@pytest.fixture
def make(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setenv("REFERENCE_API_KEY", "reference-key")
    with _registry.using("reference", ReferenceDriver):
        yield lambda **settings: ListedWorld(tmp_path, instant, **settings)


def deploy(client: Any, **more: Any) -> Any:
    return client.deploy(progress="off", **{**FIELDS, **more})


def killed_at(world: ListedWorld, operation: str, machine: str = "a", **more: Any) -> None:
    """A deploy whose process dies when *operation* has acted: nothing after it has any effect."""
    dead = [False]

    def die(when: str, what: str) -> None:
        if dead[0] or (when == "after" and what == f"reference.{operation}"):
            dead[0] = True
            raise Killed

    world.transport.on_call = die
    client = world.client(machine)
    with pytest.raises(Killed):
        deploy(client, **more)
    world.transport.on_call = None


def reasons(report: GcReport) -> dict[str, str]:
    return {row.id: row.reason for row in report}


def test_what_a_killed_deploy_left_half_is_shown_and_then_deleted(make: Make) -> None:
    world = make()
    killed_at(world, "template.create")
    (template,) = world.all()
    world.clock.advance(200.0)
    with world.client() as client:
        shown = client.gc(provider="reference")
        assert reasons(shown) == {template: "abandoned"}
        assert shown[0].deletable
        assert shown[0].age is not None
        assert shown[0].age >= 200
        assert world.all() == [template]
        done = client.gc(provider="reference", delete=True)
        assert [row.deleted for row in done] == [True]
    assert (world.all(), world.intents()) == ([], [])


@pytest.mark.parametrize("reused", [True, False], ids=["reused elsewhere since", "nobody's"])
def test_what_a_killed_deploy_left_whole_is_shown_and_left_for_it_may_be_reused(make: Make, reused: bool) -> None:
    world = make()
    killed_at(world, "endpoint.patch", workers=(1, 2))
    (endpoint,) = world.live()
    if reused:
        with world.client("b") as b:
            assert deploy(b, workers=(1, 2)).id == endpoint
    world.clock.advance(200.0)
    with world.client() as client:
        for delete in (False, True):
            (row,) = client.gc(provider="reference", delete=delete)
            assert (row.id, row.reason, row.deletable, row.deleted) == (endpoint, "abandoned", False, False)
            assert row.per_hour == pytest.approx(0.72)
        assert world.live() == [endpoint]
        client.teardown("summarize")
        client.gc(provider="reference", delete=True)
    assert (world.all(), world.intents()) == ([], [])


def test_another_machines_healthy_deployments_survive_any_gc(make: Make) -> None:
    world = make()
    with world.client("b") as b:
        theirs = [deploy(b, name=name) for name in ("one", "two")]
    with world.client("a") as a:
        mine = deploy(a, name="three")
        killed_at(world, "template.create", name="four")
        there = set(world.all())
        report = a.gc(provider="reference", delete=True)
        assert {id for id, reason in reasons(report).items() if reason == "unclaimed"} == {one.id for one in theirs}
        assert {row.reason for row in report.deleted} == {"abandoned"}
        assert there - set(world.all()) == {row.id for row in report.deleted}
        assert mine.id in world.all()
        for one in theirs:
            assert a.invoke(one.name, {"n": 1}).output == {"n": 1}


def test_of_several_of_one_name_all_but_the_oldest_are_deleted_whoever_made_them(make: Make) -> None:
    world = make()
    with world.client("a") as a:
        mine = deploy(a)
        world.clock.advance(5.0)
        late = world.double()
        report = a.gc(provider="reference")
        assert reasons(report)[late] == "duplicate"
        assert a.gc(provider="reference", delete=True).deleted
    assert world.live() == [mine.id]
    assert len(world.live("template")) == 1


def test_other_namespaces_and_strangers_are_shown_when_asked_and_never_deleted(make: Make) -> None:
    world = make()
    with world.client("b", namespace="team-b") as b:
        theirs = deploy(b, ttl=30)
    stranger = world.face._make_template({"name": "somebodys", "image": "i", "env": {}}, world.clock.now()).id
    world.cloud.step(world.clock.now())
    world.clock.advance(100.0)
    with world.client("a") as a:
        assert list(a.gc(provider="reference", delete=True)) == []
        (row,) = a.gc(provider="reference", delete=True, all_namespaces=True)
        assert (row.id, row.reason, row.namespace, row.deleted) == (theirs.id, "unclaimed", "team-b", False)
    assert {theirs.id, stranger} <= set(world.all())


def test_what_has_expired_is_deleted_whoever_made_it(make: Make) -> None:
    world = make()
    with world.client("b") as b:
        deploy(b, ttl=60)
    world.clock.advance(61.0)
    with world.client("a") as a:
        assert {row.reason for row in a.gc(provider="reference")} == {"expired"}
        assert len(world.all()) == 2
        assert len(a.gc(provider="reference", delete=True).deleted) >= 1
    assert world.all() == []


@pytest.mark.parametrize("act", ["scale another", "list", "get another", "wait for another"])
def test_the_next_control_call_of_the_namespace_ends_what_has_expired(make: Make, act: str) -> None:
    world = make()
    with world.client("b") as b:
        b.deploy(progress="off", **{**FIELDS, "name": "short", "ttl": 60})
    with world.client("a") as a:
        other = deploy(a, name="other")
        assert other.ttl_enforced_by is None
        world.clock.advance(61.0)
        assert len(world.live(name="short")) == 1
        if act == "list":
            assert [one.name for one in a.deployments(provider="reference")] == ["other"]
        elif act == "get another":
            a.get("other")
        else:
            with world.client("b") as again:  # its own machine knows by its intents, without a list
                verb = again.scale if act == "scale another" else again.wait_ready
                verb(again.get("other"), **({"workers": (0, 2)} if act == "scale another" else {"progress": "off"}))
        assert world.live(name="short") == []
        assert world.live(name="other") == [other.id]


def test_who_ends_it_is_told(make: Make) -> None:
    world = make()
    with world.client() as client:
        one = deploy(client, ttl="1h")
        assert one.ttl_enforced_by == "client"
        assert one.expires_at is not None


def test_nothing_is_deleted_when_any_list_failed(make: Make, cloud: Any) -> None:
    world = make()
    killed_at(world, "template.create")
    cloud.fail_lists = APIStatusError("the list is broken", provider="fake", status=500)
    with world.client() as client:
        report = client.gc(provider=["reference", "fake"], delete=True)
        assert set(report.unreadable) == {"fake"}
        assert report.refused
        assert report.deleted == ()
        assert len(report) == 1
        assert len(world.all()) == 1
        with pytest.raises(UniGPUError):
            client.gc(provider="fake", delete=True)
        cloud.fail_lists = None
        assert client.gc(provider=["reference", "fake"], delete=True).deleted
    assert world.all() == []


def test_intents_of_another_base_url_are_not_judged(make: Make) -> None:
    world = make()
    killed_at(world, "template.create")
    other = {"reference": {"base_url": "https://mirror.reference.test/v1"}}
    with world.client(driver_options=other) as client:
        world.face.hosts = (*world.face.hosts, "mirror.reference.test")
        assert [row.deleted for row in client.gc(provider="reference", delete=True)] == []
    assert len(world.all()) == 1
    assert len(world.intents()) == 1


def test_a_deploy_that_is_under_way_is_left_alone(make: Make) -> None:
    world = make()
    seen: list[GcReport] = []

    def meanwhile(when: str, operation: str) -> None:
        if (when, operation) == ("after", "reference.endpoint.create"):
            world.transport.on_call = None
            with world.client() as other:
                seen.append(other.gc(provider="reference", delete=True))

    world.transport.on_call = meanwhile
    with world.client() as client:
        one = deploy(client)
    assert [list(report) for report in seen] == [[]]
    assert world.live() == [one.id]


def test_gc_of_nothing_asks_and_says_nothing(make: Make) -> None:
    world = make()
    with world.client() as client:
        report = client.gc(delete=True)
    assert (len(report), report.deletable, report.refused) == (0, (), False)


# -- inventory


def test_the_inventory_shows_ours_and_others_with_what_they_cost_now(make: Make) -> None:
    world = make()
    body: dict[str, Any] = {"name": "their-server", "image": "i", "env": {}}
    template = world.face._make_template(body, world.clock.now())
    body = {**body, "template_id": template.id, "gpus": ["H100 SXM"], "workers": {"min": 1, "max": 1}}
    world.face._make_endpoint(body, world.clock.now())
    with world.client() as client:
        deploy(client, workers=(0, 2))
        found = {item.name: item for item in client.inventory(provider="reference")}
        assert found["summarize"].owner == "ours"
        assert found["summarize"].per_hour == 0.0
        assert found["their-server"].owner == "foreign"
        assert found["their-server"].per_hour == pytest.approx(3.6)
        client.invoke("summarize", {"n": 1})
        now = {item.name: item.per_hour for item in client.inventory(provider="reference")}
        assert now["summarize"] == pytest.approx(0.72)  # a worker of it runs


def test_a_provider_that_cannot_be_read_is_shown_and_hides_no_other(make: Make, cloud: Any) -> None:
    world = make()
    cloud.fail_lists = APIStatusError("the list is broken", provider="fake", status=500)
    with world.client() as client:
        deploy(client)
        found = client.inventory(provider=["reference", "fake"])
        assert [item.name for item in found] == ["summarize"]
        assert set(found.unreadable) == {"fake"}
        assert found.per_hour is None  # a total that leaves one out would be a lie
        with pytest.raises(APIStatusError):
            client.inventory(provider="fake")
