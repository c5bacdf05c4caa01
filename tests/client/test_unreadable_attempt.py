"""A platform that lists late and shows no env: whose create it was cannot be told, so the winner rule alone decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from client_listed import FIELDS, ListedWorld

from unigpu import _registry
from unigpu._io.clock import InstantClock
from unigpu.driver import DeploymentInfo, DeploymentSpec, Found, Identity, Resource
from unigpu.errors import UniGPUError
from unigpu.testing.reference import ReferenceDriver

Make = Callable[..., ListedWorld]


def blind(found: Found | None) -> Found | None:
    """Without what only env would tell."""
    if found is None:
        return None
    info = None if found.info is None else blind_info(found.info)
    return replace(found, attempt=None, spec_hash=None, expires_at=None, info=info)


def blind_info(info: DeploymentInfo) -> DeploymentInfo:
    hidden = {"attempt": None, "spec_hash": None, "name": None, "namespace": None, "expires_at": None}
    return info.model_copy(update=hidden)


class BlindPart:
    """A part whose env is not shown. Its id in the create's answer is all that tells whose it is."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    async def find(self, io: Any, *, deadline: float) -> Sequence[Found]:
        return [one for found in await self._part.find(io, deadline=deadline) if (one := blind(found)) is not None]

    async def read(self, io: Any, id: str, *, deadline: float) -> Found | None:
        return blind(await self._part.read(io, id, deadline=deadline))

    async def create_cold(self, io: Any, made: Any, *, deadline: float) -> Found | None:
        return blind(await self._part.create_cold(io, made, deadline=deadline))


class BlindDriver(ReferenceDriver):
    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        return [BlindPart(part) for part in super().resources(spec, identity)]  # type: ignore[misc]  # by __getattr__

    def parts(self, info: DeploymentInfo) -> Sequence[Resource]:
        return [BlindPart(part) for part in super().parts(info)]  # type: ignore[misc]  # as above

    async def deployments(self, io: Any, *, deadline: float) -> Sequence[DeploymentInfo]:
        return [blind_info(info) for info in await super().deployments(io, deadline=deadline)]

    async def read(self, io: Any, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
        found = await super().read(io, info, deadline=deadline)
        return None if found is None else blind_info(found)


@pytest.fixture
def make(tmp_path: Path, instant: InstantClock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setattr("os.fsync", lambda fd: None)
    with _registry.using("reference", BlindDriver):
        yield lambda **settings: ListedWorld(tmp_path, instant, **settings)


def deploy(client: Any, **more: Any) -> Any:
    return client.deploy(progress="off", **{**FIELDS, **more})


def test_a_life_there(make: Make) -> None:
    world = make()
    with world.client() as client:
        one = deploy(client)
        assert one.change == "created"  # by the id that the create returned
        assert deploy(client).change == "reused"
        assert client.invoke("summarize", {"n": 1}).output == {"n": 1}
        one.teardown()
        assert world.all() == []
        world.clock.advance(130.0)
        client.gc(provider="reference", delete=True)
    assert world.intents() == []


@pytest.mark.parametrize("machines", ["a", "ab"])
def test_what_is_reused_again_and_again_is_never_taken_for_a_leftover(make: Make, machines: str) -> None:
    world = make()
    with world.client("a") as a, world.client("b") as b:
        first = deploy(a)
        for seconds in (1.0, 20.0, 40.0, 130.0, 500.0):
            for machine in [{"a": a, "b": b}[name] for name in machines]:
                assert deploy(machine).change == "reused"
                machine.deployments(provider="reference")
            world.clock.advance(seconds)
            for machine in (a, b):
                machine.deployments(provider="reference")
                machine.gc(provider="reference", delete=True)
            assert world.live() == [first.id]
        assert a.invoke(first, {"n": 1}).output == {"n": 1}
        a.teardown("summarize")
    assert world.all() == []


@pytest.mark.parametrize("lag", [0.0, 6.0])
@pytest.mark.parametrize("operation", ["endpoint.create", "template.create"])
def test_what_appears_after_a_lost_answer_is_reused_and_not_made_twice(make: Make, operation: str, lag: float) -> None:
    world = make(list_lag=lag)
    world.faults.add(f"reference.{operation}", when="after")
    with world.client() as client:
        one = deploy(client)
        assert world.live() == [one.id]
        if operation == "endpoint.create":
            assert one.change == "reused"  # it may be another's: its block does not end it
        client.teardown("summarize")
        world.clock.advance(130.0)
        client.gc(provider="reference", delete=True)
        client.teardown("summarize")
    assert world.all() == []


def test_of_two_machines_one_is_left(make: Make) -> None:
    world = make(list_lag=8.0)
    with world.client("a") as a, world.client("b") as b:
        first = deploy(a)
        world.clock.advance(1.5)
        second = deploy(b)
        world.clock.advance(20.0)
        a.wait_ready(first, progress="off")
        b.wait_ready(second, progress="off")
        assert world.live() == [first.id]
        assert second.id == first.id
        for machine in (a, b):
            world.clock.advance(130.0)
            machine.gc(provider="reference", delete=True)
        assert world.live() == [first.id]
        assert b.invoke(second, {"n": 1}).output == {"n": 1}
        a.teardown("summarize")
    assert world.all() == []


def test_gc_leaves_what_may_be_another_machines(make: Make) -> None:
    world = make()
    with world.client("b") as b:
        theirs = deploy(b)
    world.faults.add("reference.template.create", reply=400)
    with world.client("a") as a:
        with pytest.raises(UniGPUError):
            deploy(a, name="other")
        world.faults.clear()
        report = a.gc(provider="reference", delete=True)
        assert [row.reason for row in report if row.kind == "endpoint"] == ["unclaimed"]
        assert report.deleted == ()
    assert world.live() == [theirs.id]
