"""Endpoints that unigpu did not create: called by their id, and left as they are until they are adopted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_listed import ListedWorld

from unigpu import Client, ConfigurationError, NotFoundError, UnsupportedError, _registry
from unigpu._io.clock import InstantClock
from unigpu.testing.reference import ReferenceDriver

Make = Callable[..., ListedWorld]
CHANGES: dict[str, Callable[[Client, Any], object]] = {
    "scale()": lambda client, app: client.scale(app, (0, 2)),
    "update()": lambda client, app: client.update(app, env={"A": "1"}),
    "teardown()": lambda client, app: client.teardown(app),
    "stop()": lambda client, app: client.stop(app),
    "start()": lambda client, app: client.start(app),
}


@pytest.fixture
def make(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    monkeypatch.setenv("REFERENCE_API_KEY", "reference-key")
    with _registry.using("reference", ReferenceDriver):
        yield lambda **settings: ListedWorld(tmp_path, instant, **settings)


def stranger(world: Any, name: str = "made-in-the-console") -> str:
    """An endpoint made behind unigpu's back, as in a platform's console. Its id."""
    now = world.clock.now()
    template = world.face._make_template({"name": name, "image": "theirs:1", "env": {}}, now)
    body = {"name": name, "template_id": template.id, "gpus": ["L40S"], "env": {}, "workers": {"min": 0, "max": 1}}
    made = world.face._make_endpoint(body, now)
    world.cloud.step(world.clock.now())
    return str(made.id)


@pytest.mark.parametrize("how", ["id", "name", "address"])
def test_it_is_called_by_its_id_its_name_there_or_its_address(make: Make, how: str) -> None:
    world = make()
    id_ = stranger(world)
    before = world.all()
    with world.client() as client:
        address = f"id:{id_}@reference"
        app = {
            "id": lambda: client.get(id=id_),
            "name": lambda: client.get(id="made-in-the-console", provider="reference"),
            "address": lambda: client.get(address),
        }[how]()
        assert (app.id, app.info.ours, app.address) == (id_, False, address)
        assert client.invoke(app, {"n": 1}).output == client.invoke(address, {"n": 1}).output
        assert client.submit(address, {"n": 2}).result().ok
        assert [one.ok for one in client.map(address, [{"n": n} for n in range(3)])] == [True] * 3
        assert client.explain(app).cause
        assert client.workers(app)
        client.wake(app)
    assert world.all() == before
    writes = {"template.create", "endpoint.create", "endpoint.patch", "endpoint.delete"}
    assert not [one for one in world.transport.calls if one.removeprefix("reference.") in writes]


@pytest.mark.parametrize("doing", sorted(CHANGES))
def test_what_changes_it_is_refused_until_it_is_adopted(make: Make, doing: str) -> None:
    world = make()
    id_ = stranger(world)
    with world.client() as client:
        app = client.get(id=id_)
        for given in (app, app.address):
            with pytest.raises(UnsupportedError, match="unigpu did not create") as refused:
                CHANGES[doing](client, given)
            assert refused.value.capability == "adopt"
            assert "client.adopt(app)" in str(refused.value.hint)
    assert id_ in world.all()


def test_an_adopted_one_is_scaled_and_torn_down_and_nothing_beside_it(make: Make) -> None:
    world = make()
    id_, other = stranger(world), stranger(world)  # two of one name
    with world.client() as client:
        app = client.get(id=id_)
        assert client.adopt(app) is app
        assert client.scale(app, (0, 3)).info.workers == (0, 3)
        with pytest.raises(UnsupportedError):  # for that handle only
            client.scale(app.address, (0, 2))
        client.teardown(app)
        with pytest.raises(NotFoundError):
            client.get(id=id_)
        assert client.get(id=other).id == other
    templates = [one for one in world.all() if one != other]
    assert id_ not in world.all()
    assert len(templates) == 2  # whose they are, nobody knows: they stay


def test_gc_and_leaving_a_block_leave_it_alone_adopted_or_not(make: Make) -> None:
    world = make()
    id_ = stranger(world)
    with world.client() as client:
        with client.get(id=id_) as app:
            client.adopt(app)
        world.clock.advance(100_000.0)
        assert id_ not in {row.id for row in client.gc(provider="reference", delete=True, all_namespaces=True)}
        assert client.get(id=id_).id == id_


def test_one_that_is_not_there_names_what_is(make: Make) -> None:
    world = make()
    id_ = stranger(world, "whisper-large")
    with world.client() as client:
        for wrong in ("whisper-larg", id_[:-1]):
            with pytest.raises(NotFoundError) as missing:
                client.get(id=wrong)
            assert f"{id_} (whisper-large)" in str(missing.value.hint)
        client.invoke(f"id:{id_}@reference", {"n": 1})
        world.cloud.engine.deployments.delete(id_, world.clock.now())
        world.clock.advance(60.0)
        with pytest.raises(NotFoundError):
            client.invoke(f"id:{id_}@reference", {"n": 1})


def test_two_of_one_name_are_told_apart_by_their_ids(make: Make) -> None:
    world = make()
    ids = {stranger(world), stranger(world)}
    with world.client() as client, pytest.raises(Exception, match="several endpoints") as both:
        client.get(id="made-in-the-console")
    assert all(one in str(both.value) for one in ids)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "give a name, or id="),
        ({"name": "summarize", "id": "abc"}, "give a name, or id="),
        ({"id": ""}, "id: give the endpoint's id"),
        ({"id": "a@b"}, "id: give the endpoint's id"),
        ({"name": "id:@reference"}, "id: give the endpoint's id"),
        ({"id": "abc", "route": "generate"}, "route: give a path"),
        ({"id": "abc", "idempotent": "yes"}, "idempotent: give True or False"),
    ],
)
def test_what_names_none_is_said_before_anything_is_sent(make: Make, given: dict[str, Any], said: str) -> None:
    world = make()
    with world.client() as client, pytest.raises(ConfigurationError, match=said):
        client.get(**given)
    assert world.transport.calls == []
