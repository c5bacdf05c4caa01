"""A resource by description: found in a list, created once, read and deleted by its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from driver_kit import World

from unigpu._io.bridge import run_sync
from unigpu._lifecycle.identity import identity_of
from unigpu.driver import (
    API,
    CallClass,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    ListedResource,
    Resource,
    State,
    Tokens,
    WireModel,
    found_of,
)
from unigpu.errors import ConflictError, InvalidResponseError, NameConflict


class PodWire(WireModel):
    id: str
    name: str
    status: str = "RUNNING"


@dataclass(frozen=True, kw_only=True)
class AcmeAPI(API):
    provider = "acme"


SPEC = DeploymentSpec(name="chat", image="i", gpu="L40S")
WHO = identity_of(SPEC, provider="acme", namespace="n", spec_hash="1:0", attempt="a", expires_at=None)
NAME = WHO.provider_name


def found_pod(wire: PodWire) -> Found:
    state = State.GONE if wire.status == "TERMINATED" else State.READY
    return found_of("pod", DeploymentInfo(provider="acme", provider_name=wire.name, id=wire.id, state=state))


def pod_body(spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found]) -> dict[str, Any]:
    return {"name": identity.provider_name, "image": spec.image, "login": made["login"].id}


def pod(**more: Any) -> ListedResource[PodWire]:
    given: dict[str, Any] = {"spec": SPEC, "identity": WHO, "body": pod_body, "pages": Tokens(), **more}
    return ListedResource(
        api=AcmeAPI(base="https://acme.test"), kind="pod", name=NAME, path="/pods", shape=PodWire, found=found_pod,
        under="pods", **given,
    )  # fmt: skip


def row(id: str, name: Any = NAME, **more: Any) -> dict[str, Any]:
    return {"id": id, "name": name, **more}


def find(world: World, resource: Resource) -> list[str]:
    return [one.id for one in run_sync(resource.find(world.io, deadline=1e12))]


def test_it_is_a_resource_of_the_contract() -> None:
    resource: Resource = pod(optional=True)
    assert (resource.kind, resource.call, resource.optional) == ("pod", CallClass.RECONCILE, True)
    assert (resource.consistency.kind, resource.bills_cold) == ("listed", None)


def test_it_is_found_on_every_page_by_its_whole_name() -> None:
    rows = [row("1"), row("2", f"{NAME}-b"), row("3", "another"), row("4", status="TERMINATED")]
    world = World((200, {"pods": rows, "next": "t"}), (200, {"pods": [row("5")], "next": None}))
    assert find(world, pod()) == ["1", "5"]
    assert world.sent == ["GET https://acme.test/pods"] * 2


def test_a_strangers_odd_row_hides_nothing_and_an_unreadable_one_is_an_error() -> None:
    assert find(World((200, {"pods": [{"name": "another"}, row("1")]})), pod()) == ["1"]
    for odd in ({"name": NAME}, {"id": "1"}, {"id": "1", "name": None}):
        with pytest.raises(InvalidResponseError, match=r"acme\.pod\.list"):
            find(World((200, {"pods": [odd]})), pod())
    with pytest.raises(InvalidResponseError):
        find(World((200, {"pods": [{"name": "another"}]})), pod(tag=None))


def test_it_is_read_by_its_id() -> None:
    def read(answer: Any) -> Found | None:
        world = World(answer)
        found = run_sync(pod().read(world.io, "a/b", deadline=1e12))
        assert world.sent == ["GET https://acme.test/pods/a%2Fb"]
        return found

    found = read((200, row("1")))
    assert found is not None
    assert found.id == "1"
    assert read((404, {})) is None
    assert read((200, row("1", status="TERMINATED"))) is None


def test_it_is_created_from_spec_identity_and_what_was_created_before() -> None:
    world = World((201, row("7")))
    found = run_sync(pod().create_cold(world.io, {"login": Found(kind="login", id="l1", name=NAME)}, deadline=1e12))
    (sent,) = world.requests
    assert found.id == "7"
    assert (sent.method, sent.operation, sent.role, sent.call) == (
        "POST",
        "acme.pod.create",
        "create",
        CallClass.RECONCILE,
    )
    assert (sent.json, sent.deployment) == ({"name": NAME, "image": "i", "login": "l1"}, "chat")


def test_one_that_exists_is_never_created() -> None:
    for more in ({"spec": None}, {"body": None}):
        with pytest.raises(AssertionError):
            run_sync(pod(**more).create_cold(World().io, {}, deadline=1e12))


def test_deleting_one_that_is_gone_is_success() -> None:
    for status in (200, 404):
        world = World((status, {}))
        run_sync(pod().delete(world.io, "1", deadline=1e12))
        assert world.sent == ["DELETE https://acme.test/pods/1"]
    with pytest.raises(ConflictError):
        run_sync(pod().delete(World((409, {})).io, "1", deadline=1e12))


def test_a_name_is_one_deployment_whatever_its_kind() -> None:
    run_sync(pod().must_not_exist(World((200, {"pods": []})).io, deadline=1e12))
    with pytest.raises(NameConflict, match=r"chat exists on acme as a pod \(1\)") as caught:
        run_sync(pod().must_not_exist(World((200, {"pods": [row("1")]})).io, deadline=1e12))
    assert (caught.value.fields, caught.value.maybe_executed) == (("kind",), False)
