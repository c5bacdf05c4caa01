"""What `deploy` does when there is already one of this name: every row of the table in the docs."""

from __future__ import annotations

from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, World, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.driver import Scaling
from unigpu.errors import ConfigurationError, NameConflict

FAR = 1e7
BASE: dict[str, Any] = {"workers": (0, 2), "idle_timeout": 30, "env": {"A": "1"}}


def deploy(world: World, wanted: Any, *, driver: FakeDriver | None = None, scope: Any = None, **more: Any) -> Any:
    rest = {"if_exists": "reuse", "wait": True, "deadline": FAR, "on_failure": "teardown", "settle": False, **more}
    return run_sync(life.deploy(scope or world.scope(driver=driver), wanted, **rest))


def the_row(world: World) -> Any:
    (row,) = world.cloud.rows.values()
    return row


def test_nothing_there_is_created_cold_recorded_and_then_warmed(world: World) -> None:
    deployed = deploy(world, spec(**BASE))
    assert deployed.change == "created"
    assert world.cloud.log == ["fake.get", "fake.create", "fake.patch", "fake.get"]
    assert deployed.info.state == "COLD"  # the least is none, so a cold one is ready
    assert (the_row(world).limits, the_row(world).idle_timeout) == ((0, 2), 30)
    (intent,) = world.intents()
    assert intent.endswith(".json")


@pytest.mark.parametrize("if_exists", ["reuse", "replace"])
def test_the_same_spec_is_reused_and_nothing_is_changed(world: World, if_exists: str) -> None:
    first = deploy(world, spec(**BASE))
    world.cloud.log.clear()
    second = deploy(world, spec(**BASE), if_exists=if_exists)
    assert (second.change, second.info.attempt) == ("reused", first.info.attempt)
    assert set(world.cloud.log) == {"fake.get"}


@pytest.mark.parametrize("change", [{}, {"workers": (1, 2)}, {"env": {"A": "2"}}, {"disk": 10}])
def test_error_refuses_whatever_exists(world: World, change: dict[str, Any]) -> None:
    deploy(world, spec(**BASE))
    before = the_row(world)
    with pytest.raises(NameConflict) as caught:
        deploy(world, spec(**{**BASE, **change}), if_exists="error")
    assert caught.value.fields == tuple(change)
    assert the_row(world) is before


@pytest.mark.parametrize("if_exists", ["reuse", "replace"])
@pytest.mark.parametrize(
    "change", [{"workers": (1, 5)}, {"idle_timeout": 99}, {"scaling": Scaling(signal="requests", target=4)}]
)
def test_only_limits_differ_is_reused_and_scaled(world: World, if_exists: str, change: dict[str, Any]) -> None:
    first = deploy(world, spec(**BASE))
    second = deploy(world, spec(**{**BASE, **change}), if_exists=if_exists)
    assert (second.change, second.info.attempt) == ("scaled", first.info.attempt)
    row = the_row(world)
    got = {"workers": row.limits, "idle_timeout": row.idle_timeout, "scaling": row.scaling}
    for name, value in change.items():
        assert got[name] == (value.model_dump() if isinstance(value, Scaling) else value)


@pytest.mark.parametrize("if_exists", ["reuse", "replace"])
def test_only_the_code_differs_is_updated_in_place(world: World, if_exists: str) -> None:
    driver = FakeDriver()
    first = deploy(world, spec(**BASE), driver=driver)
    driver.code = "v2"
    second = deploy(world, spec(**BASE), driver=driver, if_exists=if_exists)
    assert (second.change, second.info.attempt) == ("updated", first.info.attempt)
    assert second.info.spec_hash != first.info.spec_hash
    again = deploy(world, spec(**BASE), driver=driver)
    assert again.change == "reused"
    assert the_row(world).spec_hash == second.info.spec_hash


def test_edited_code_and_other_limits_are_one_update(world: World) -> None:
    driver = FakeDriver()
    deploy(world, spec(**BASE), driver=driver)
    driver.code = "v2"
    second = deploy(world, spec(**{**BASE, "workers": (1, 1)}), driver=driver)
    assert second.change == "updated"
    assert the_row(world).limits == (1, 1)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"env": {"A": "2"}}, ("env",)),
        ({"disk": 10}, ("disk",)),
        ({"image": "x:2", "env": {}}, ("env", "image")),
        ({"concurrency": 4, "workers": (1, 1)}, ("concurrency",)),
    ],
)
def test_reuse_refuses_anything_else_and_names_the_fields(
    world: World, change: dict[str, Any], fields: tuple[str, ...]
) -> None:
    deploy(world, spec(**BASE))
    world.cloud.log.clear()
    with pytest.raises(NameConflict) as caught:
        deploy(world, spec(**{**BASE, **change}))
    assert caught.value.fields == fields
    for field in fields:
        assert field in str(caught.value)
    assert 'if_exists="replace"' in str(caught.value)
    assert set(world.cloud.log) == {"fake.get"}  # nothing was touched


def test_replace_changes_in_place_where_the_platform_can(world: World) -> None:
    first = deploy(world, spec(**BASE))
    second = deploy(world, spec(**{**BASE, "env": {"A": "2"}}), if_exists="replace")
    assert (second.change, second.adaptations) == ("updated", ())
    assert second.info.attempt == first.info.attempt


def test_replace_recreates_where_it_cannot_and_says_downtime(world: World) -> None:
    first = deploy(world, spec(**BASE))
    world.cloud.log.clear()
    second = deploy(world, spec(**{**BASE, "disk": 10}), if_exists="replace")
    assert second.change == "created"
    assert second.info.attempt != first.info.attempt
    (adaptation,) = second.adaptations
    assert "downtime" in adaptation.got
    assert "URL" in adaptation.got
    log = [entry for entry in world.cloud.log if entry != "fake.get"]
    assert log == ["fake.delete", "fake.create", "fake.patch"]
    assert len(world.intents()) == 1


def test_a_replacement_waits_until_the_old_one_is_really_gone(world: World) -> None:
    deploy(world, spec(**BASE))
    world.cloud.delete_takes = 30.0
    second = deploy(world, spec(**{**BASE, "disk": 10}), if_exists="replace")
    assert second.change == "created"


def test_a_default_never_changes_what_exists(world: World) -> None:
    deploy(world, spec(workers=(2, 5), idle_timeout=900, concurrency=8, env={"A": "1"}))
    second = deploy(world, spec())
    assert second.change == "reused"
    assert (the_row(world).limits, the_row(world).idle_timeout) == ((2, 5), 900)


def test_a_stated_default_is_a_demand(world: World) -> None:
    deploy(world, spec(concurrency=8))
    with pytest.raises(NameConflict) as caught:
        deploy(world, spec(concurrency=1))
    assert caught.value.fields == ("concurrency",)


def test_another_folder_is_another_deployment_and_both_are_named(world: World) -> None:
    driver = FakeDriver()
    driver.origin = "/home/a/app"
    deploy(world, spec(**BASE), driver=driver)
    driver.origin = "/home/b/app"
    with pytest.raises(NameConflict) as caught:
        deploy(world, spec(**BASE), driver=driver)
    for text in ("/home/a/app", "/home/b/app", "namespace="):
        assert text in str(caught.value)
    assert deploy(world, spec(**BASE), driver=driver, if_exists="replace").change in ("updated", "created")


def test_two_namespaces_have_one_each(world: World) -> None:
    deploy(world, spec(**BASE))
    other = deploy(world, spec(**{**BASE, "disk": 10}), scope=world.scope(namespace="other"))
    assert other.change == "created"
    assert len(world.cloud.rows) == 2


def test_what_has_expired_is_torn_down_and_created_anew(world: World) -> None:
    first = deploy(world, spec(**BASE, ttl=600))
    world.clock.advance(601)
    second = deploy(world, spec(**BASE, ttl=600))
    assert second.change == "created"
    assert second.info.attempt != first.info.attempt
    assert any("expired" in warning for warning in second.warnings)


@pytest.mark.parametrize(("ttl", "warns"), [(600, True), (None, True), (100, False)])
def test_reusing_what_ends_earlier_than_asked_warns(world: World, ttl: float | None, warns: bool) -> None:
    deploy(world, spec(**BASE, ttl=600))
    world.clock.advance(60)
    second = deploy(world, spec(**BASE, ttl=ttl))
    assert second.change == "reused"
    assert second.info.expires_at is not None
    assert any("earlier" in warning for warning in second.warnings) == warns


def test_a_ttl_that_was_not_stated_asks_for_nothing(world: World) -> None:
    deploy(world, spec(**BASE, ttl=600))
    assert deploy(world, spec(**BASE)).warnings == ()


def test_one_that_is_being_deleted_is_waited_for_and_never_reused(world: World) -> None:
    first = deploy(world, spec(**BASE))
    world.cloud.delete_takes = 20.0
    row = the_row(world)
    row.deleting_until = world.clock.now() + 20
    second = deploy(world, spec(**BASE))
    assert second.change == "created"
    assert second.info.attempt != first.info.attempt


def test_a_stopped_one_that_is_deployed_again_is_started(world: World) -> None:
    deploy(world, spec(workers=1))
    the_row(world).stopped = True
    the_row(world).started = []
    second = deploy(world, spec(workers=1))
    assert (second.change, second.info.state) == ("reused", "READY")
    assert any("stopped" in warning for warning in second.warnings)


def test_a_name_of_ours_that_stands_for_something_else_is_never_touched(world: World) -> None:
    deploy(world, spec(**BASE))
    the_row(world).body["logical"] = "other"
    for if_exists in ("reuse", "replace", "error"):
        with pytest.raises(NameConflict):
            deploy(world, spec(**{**BASE, "disk": 10}), if_exists=if_exists)
    assert len(world.cloud.rows) == 1


def test_where_the_platform_shows_no_spec_this_machines_intent_is_compared(world: World) -> None:
    deploy(world, spec(**BASE))
    for row in world.cloud.rows.values():
        row.spec_hash = None  # type: ignore[assignment]  # a platform whose env cannot be read back
    with pytest.raises(NameConflict) as caught:
        deploy(world, spec(**{**BASE, "env": {"A": "2"}}))
    assert caught.value.fields == ("env",)


def test_where_nothing_is_known_of_the_spec_that_is_said(world: World, tmp_path: Any) -> None:
    deploy(world, spec(**BASE))
    for row in world.cloud.rows.values():
        row.spec_hash = None  # type: ignore[assignment]  # as above
    second = deploy(world, spec(**BASE), scope=world.scope(state_dir=tmp_path / "elsewhere"))
    assert second.change == "reused"
    assert any("not compared" in warning and "env" in warning for warning in second.warnings)


def test_ephemeral_ones_have_a_name_and_an_end_of_their_own(world: World) -> None:
    deploy(world, spec(**BASE))
    one = deploy(world, spec(**BASE), ephemeral=True)
    two = deploy(world, spec(**BASE, ttl=60), ephemeral=True)
    assert one.change == two.change == "created"
    assert len({"summarize", one.spec.name, two.spec.name}) == 3
    assert one.info.expires_at == pytest.approx(world.clock.wall() + 3600, abs=2)
    assert two.info.expires_at == pytest.approx(world.clock.wall() + 60, abs=2)
    assert len(world.cloud.rows) == 3


def test_a_base_name_that_leaves_no_room_for_the_suffix_is_refused(world: World) -> None:
    assert deploy(world, spec(name="a" * 54), ephemeral=True).spec.name.startswith("a" * 54 + "-")
    with pytest.raises(ConfigurationError, match="54"):
        deploy(world, spec(name="a" * 55), ephemeral=True)


def test_secrets_are_read_after_finding_and_before_the_first_write_and_never_for_a_reuse(world: World) -> None:
    asked: list[list[str]] = []

    def fill(wanted: Any) -> Any:
        asked.append(list(world.cloud.log))
        return wanted.with_changes(secrets=dict.fromkeys(wanted.secrets, "s3cret"))

    wanted = spec(**BASE, secrets=["TOKEN"])
    deploy(world, wanted, scope=world.scope(secrets=fill))
    assert asked == [["fake.get"]]
    assert the_row(world).body["secrets"] == {"TOKEN": "set"}
    assert deploy(world, wanted, scope=world.scope(secrets=fill)).change == "reused"
    assert len(asked) == 1
    for path in (world.state_dir / "intents").iterdir():  # type: ignore[operator]  # there is one
        assert "s3cret" not in path.read_text()


def test_a_missing_secret_stops_before_anything_is_written(world: World) -> None:
    def fill(_: Any) -> Any:
        raise ConfigurationError("TOKEN is not set")

    with pytest.raises(ConfigurationError):
        deploy(world, spec(secrets=["TOKEN"]), scope=world.scope(secrets=fill))
    assert (world.rows, world.intents()) == ([], [])


@pytest.mark.parametrize("wait", [True, False, "worker"])
def test_waits_mean_what_they_say(world: World, wait: Any) -> None:
    deployed = deploy(world, spec(workers=(0, 1)), wait=wait)
    assert deployed.info.state == ("READY" if wait == "worker" else "COLD")
    world.cloud.rows.clear()
    deployed = deploy(world, spec(name="other", workers=(1, 1)), wait=wait)
    assert deployed.info.state == ("STARTING" if wait is False else "READY")
