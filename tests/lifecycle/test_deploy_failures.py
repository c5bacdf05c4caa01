"""A deploy that fails takes back what it made, keeps what the deadline left, and says which."""

from __future__ import annotations

import json
from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, FakeIo, Fault, World, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.errors import (
    AuthenticationError,
    ConfigurationError,
    ConflictError,
    DeadlineExceeded,
    InvalidRequestError,
    PartialDeployError,
    ProviderUnavailableError,
    StateError,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
)

FAR = 1e7
THREE = ("template", "endpoint", "group")


@pytest.fixture
def three(tmp_path: Any) -> World:
    return World(tmp_path / "state", kinds=THREE)


def deploy(world: World, wanted: Any = None, *, scope: Any = None, **more: Any) -> Any:
    rest = {"if_exists": "reuse", "wait": True, "deadline": FAR, "on_failure": "teardown", "settle": False, **more}
    return run_sync(life.deploy(scope or world.scope(), wanted or spec(workers=(1, 2)), **rest))


def nothing_left(world: World) -> None:
    assert (world.rows, world.intents()) == ([], [])


# -- undo -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", [0, 1, 2])
@pytest.mark.parametrize(("status", "error"), [(400, InvalidRequestError), (401, AuthenticationError)])
def test_a_refused_create_undoes_the_earlier_ones_last_first(
    three: World, skip: int, status: int, error: type[UniGPUError]
) -> None:
    three.cloud.faults.append(Fault("fake.create", status, skip=skip))
    with pytest.raises(error):
        deploy(three)
    nothing_left(three)
    assert three.cloud.log.count("fake.delete") == skip


def test_what_was_created_before_is_deleted_in_reverse_order_and_each_is_read(three: World) -> None:
    deleted: list[str] = []
    real = three.cloud.on_delete
    three.cloud.on_delete = lambda url, body: (deleted.append(url.strip("/").split("/")[0]), real(url, body))[1]  # type: ignore[method-assign]  # watches
    three.cloud.faults.append(Fault("fake.patch", 400))
    with pytest.raises(InvalidRequestError) as caught:
        deploy(three)
    assert deleted == ["group", "endpoint", "template"]
    assert "torn down" in str(caught.value)
    for n in (i for i, entry in enumerate(three.cloud.log) if entry == "fake.delete"):
        assert three.cloud.log[n + 1] == "fake.get"
    nothing_left(three)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("skip", [0, 1, 2])
def test_a_lost_answer_of_a_create_is_looked_up_and_makes_one(three: World, when: str, times: int, skip: int) -> None:
    three.cloud.faults.append(Fault("fake.create", "lost", when=when, times=times, skip=skip))
    deployed = deploy(three)
    assert deployed.change == "created"
    assert len(three.rows) == 3
    assert len(three.cloud.created) == 3


@pytest.mark.parametrize("when", ["before", "after"])
def test_answers_that_stay_lost_end_in_an_error_and_nothing_left(three: World, when: str) -> None:
    three.cloud.faults.append(Fault("fake.create", "lost", when="before", times=3, skip=1))
    three.cloud.faults.append(Fault("fake.create", 503, when=when, times=3))
    with pytest.raises((TransportError, ProviderUnavailableError)):
        deploy(three)
    nothing_left(three)


def test_a_create_that_never_left_is_not_looked_for(three: World) -> None:
    three.cloud.faults.append(Fault("fake.create", "refused"))
    with pytest.raises(TransportError):
        deploy(three)
    assert three.cloud.log == ["fake.get"] * 3 + ["fake.create"]
    nothing_left(three)


@pytest.mark.parametrize("operation", ["fake.patch", "fake.get", "fake.workers"])
@pytest.mark.parametrize("kind", [400, 401])
def test_an_error_at_any_later_step_undoes_everything(three: World, operation: str, kind: int) -> None:
    skip = {"fake.get": 3}.get(operation, 0)  # the looks before the create are no later step
    three.cloud.faults.append(Fault(operation, kind, skip=skip))
    with pytest.raises(UniGPUError):
        deploy(three)
    nothing_left(three)


def test_an_undo_that_fails_says_what_is_left_and_the_next_deploy_settles_it(three: World) -> None:
    three.cloud.faults += [Fault("fake.patch", 400), Fault("fake.delete", 401, skip=1)]
    with pytest.raises(PartialDeployError) as caught:
        deploy(three)
    ((kind, id_),) = caught.value.leaked
    assert (kind, id_) == three.rows[0]
    assert caught.value.may_bill == (f"{kind} {id_}",)
    assert isinstance(caught.value.__cause__, InvalidRequestError)
    (intent,) = three.intents()
    path = three.state_dir / "intents" / intent  # type: ignore[operator]  # there is one
    assert json.loads(path.read_text())["state"] == "failed"
    assert deploy(three).change in ("created", "reused")
    run_sync(
        life.teardown(three.scope(), run_sync(life.resolve(three.scope(), "summarize", deadline=FAR)), deadline=FAR)
    )  # type: ignore[arg-type]  # it is there
    nothing_left(three)


def test_a_flaky_delete_does_not_leave_the_undo_half_done(three: World) -> None:
    three.cloud.faults += [
        Fault("fake.patch", 400),
        Fault("fake.delete", "lost", times=2),
        Fault("fake.delete", 503, times=2, when="after"),
    ]
    with pytest.raises(InvalidRequestError):
        deploy(three)
    nothing_left(three)


def test_a_reused_one_is_never_undone(world: World) -> None:
    deploy(world, spec(workers=(0, 2)))
    world.cloud.start_failure = "crash_loop: exit code 1"
    with pytest.raises(WorkerFailed):
        deploy(world, spec(workers=(1, 2)))
    assert len(world.rows) == 1


def test_on_failure_keep_leaves_it_and_says_so(world: World) -> None:
    world.cloud.start_failure = "crash_loop: exit code 1"
    with pytest.raises(WorkerFailed) as caught:
        deploy(world, on_failure="keep")
    assert len(world.rows) == 1
    assert "kept" in str(caught.value)
    assert caught.value.may_bill
    assert deploy_after(world).change == "reused"


def deploy_after(world: World) -> Any:
    world.cloud.start_failure = None
    return deploy(world)


def test_a_deployment_that_vanishes_while_it_is_waited_for_is_said_to_be_gone(world: World) -> None:
    scope = world.scope()

    def vanish(_: Any) -> None:
        world.cloud.rows.clear()

    world.cloud.cold_start = 50
    gone = life.Scope(**{**scope.__dict__, "progress": vanish})
    with pytest.raises(UniGPUError, match="does not exist any more"):
        deploy(world, scope=gone)
    nothing_left(world)


# -- the deadline ---------------------------------------------------------------------------------------------------


def test_past_the_last_create_the_deadline_keeps_what_exists_and_the_next_deploy_goes_on(world: World) -> None:
    world.cloud.cold_start = 300
    with pytest.raises(DeadlineExceeded) as caught:
        deploy(world, deadline=world.clock.now() + 60)
    assert isinstance(caught.value, TimeoutError)
    assert len(world.rows) == 1
    assert "summarize" in caught.value.may_bill[0]
    assert "$2.00/h" in str(caught.value)
    assert "kept" in str(caught.value)
    (intent,) = world.intents()
    path = world.state_dir / "intents" / intent  # type: ignore[operator]  # there is one
    assert json.loads(path.read_text())["state"] == "committed"
    assert deploy(world).change == "reused"
    assert len(world.cloud.created) == 1


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_before_the_last_create_the_deadline_undoes(three: World, skip: int) -> None:
    class SlowIo(FakeIo):
        async def send(self, request: Any) -> Any:
            if request.operation == "fake.create":
                three.clock.advance(40)
            return await super().send(request)

    scope = three.scope(io=SlowIo(three.cloud))
    with pytest.raises(DeadlineExceeded):
        deploy(three, scope=scope, deadline=three.clock.now() + 39 + 40 * skip)
    nothing_left(three) if skip < 2 else None


def test_a_deadline_while_reusing_keeps_and_says_what_bills(world: World) -> None:
    deploy(world, spec(workers=(0, 1)))
    world.cloud.cold_start = 300
    with pytest.raises(DeadlineExceeded) as caught:
        deploy(world, spec(workers=(1, 1)), deadline=world.clock.now() + 30)
    assert caught.value.may_bill
    assert len(world.rows) == 1


# -- workers that cannot start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("crash_loop: exit code 1", "crash_loop"),
        ("image_pull: manifest unknown", "image_pull"),
        ("probe: not ready in time", "probe"),
        ("Out of memory", "out_of_memory"),
        ("the host went away", "host_lost"),
        ("killed by SIGSEGV", "crash_loop"),
        ("something else", "unknown"),
    ],
)
def test_a_worker_that_cannot_start_fails_before_the_deadline_with_reason_logs_and_next_step(
    world: World, said: str, reason: str
) -> None:
    world.cloud.start_failure = said
    before = world.clock.now()
    with pytest.raises(WorkerFailed) as caught:
        deploy(world, deadline=before + 1800)
    error = caught.value
    assert (error.reason, error.retryable) == (reason, False)
    assert said in error.message
    assert any("no module named app" in line for line in error.logs)
    assert error.next_step
    assert world.clock.now() < before + 1800
    assert "torn down" in str(error)
    nothing_left(world)


def test_several_failed_starts_are_enough_where_the_platform_never_gives_up(world: World) -> None:
    world.cloud.start_failure, world.cloud.fails_after = "exit code 137", 10**6
    before = world.clock.now()
    with pytest.raises(WorkerFailed):
        deploy(world, deadline=before + 100_000)
    assert world.clock.now() < before + 1000


# -- the state directory --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["full", "readonly"])
def test_a_state_directory_that_cannot_be_written_stops_before_anything_is_created(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    import errno
    import os

    real = os.write

    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC if kind == "full" else errno.EROFS, "no room")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateError) as caught:
        deploy(world)
    monkeypatch.setattr(os, "write", real)
    assert ("full" in str(caught.value)) == (kind == "full")
    assert "state_dir" in str(caught.value)
    assert world.cloud.created == []
    nothing_left(world)


@pytest.mark.parametrize("at", range(1, 4))
def test_a_disk_that_fills_up_later_undoes_what_was_created(
    three: World, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    import errno
    import os

    real, writes = os.write, [0]

    def full(fd: int, data: Any) -> int:
        writes[0] += 1
        if writes[0] > at:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StateError):
        deploy(three)
    monkeypatch.setattr(os, "write", real)
    nothing_left(three)


def test_a_disk_that_is_full_at_the_very_end_costs_the_record_and_not_the_deployment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real, writes = os.write, [0]

    def full(fd: int, data: Any) -> int:
        writes[0] += 1
        if writes[0] > 2:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", full)
    deployed = deploy(world)
    monkeypatch.setattr(os, "write", real)
    assert (deployed.change, len(world.rows)) == ("created", 1)
    assert any("not recorded" in warning for warning in deployed.warnings)
    assert world.intents() == []  # a pending one would let a later deploy delete it as a leftover
    with pytest.raises(UniGPUError, match="disk"):
        deploy(world, spec(workers=(1, 2), disk=10))


def test_stateless_works_and_keeps_nothing(world: World) -> None:
    scope = world.scope(stateless=True)
    deployed = deploy(world, scope=scope)
    assert deployed.change == "created"
    assert deploy(world, spec(workers=(2, 2)), scope=scope).change == "scaled"
    run_sync(life.teardown(scope, deployed.info, deadline=FAR))
    nothing_left(world)


# -- update ---------------------------------------------------------------------------------------------------------


def update(world: World, info: Any, wanted: Any, changed: set[str], **more: Any) -> Any:
    rest = {"wait": True, "deadline": FAR, **more}
    return run_sync(life.update(world.scope(), info, wanted, changed=frozenset(changed), **rest))


def test_update_sends_a_named_field_even_where_nothing_seems_to_differ(world: World) -> None:
    info = deploy(world, spec(workers=(1, 2), env={"A": "1"})).info
    world.cloud.log.clear()
    updated = update(world, info, spec(workers=(1, 2), env={"A": "1"}), {"env"})
    assert updated.change == "updated"
    assert "fake.update" in world.cloud.log
    assert updated.info.attempt == info.attempt


def test_update_of_limits_is_a_scale(world: World) -> None:
    info = deploy(world).info
    assert update(world, info, spec(workers=(2, 2)), {"workers"}).change == "scaled"


def test_update_that_cannot_be_in_place_recreates_and_says_downtime(world: World) -> None:
    info = deploy(world).info
    updated = update(world, info, spec(workers=(1, 2), disk=5), {"disk"})
    assert updated.change == "created"
    assert updated.adaptations


def test_update_of_what_is_gone_says_so(world: World) -> None:
    info = deploy(world).info
    world.cloud.rows.clear()
    with pytest.raises(UniGPUError, match="does not exist any more"):
        update(world, info, spec(workers=(1, 2), env={"A": "2"}), {"env"})


def test_update_never_touches_another_create_of_the_same_name(world: World) -> None:
    info = deploy(world).info
    run_sync(life.teardown(world.scope(), info, deadline=FAR))
    other = deploy(world).info
    with pytest.raises(UniGPUError, match="does not exist any more"):
        update(world, info, spec(workers=(1, 2), env={"A": "2"}), {"env"})
    assert world.cloud.rows["deployment", other.id].spec_hash == other.spec_hash


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_lost_answer_of_an_update_is_settled_by_reading(world: World, when: str) -> None:
    info = deploy(world).info
    world.cloud.faults.append(Fault("fake.update", "lost", when=when))
    try:
        updated = update(world, info, spec(workers=(1, 2), env={"A": "2"}), {"env"})
    except TransportError:
        assert when == "before"
    else:
        assert updated.info.spec_hash != info.spec_hash


def test_after_an_update_the_intent_knows_the_new_spec(world: World) -> None:
    info = deploy(world, spec(workers=(1, 2), env={"A": "1"})).info
    update(world, info, spec(workers=(1, 2), env={"A": "2"}), {"env"})
    for row in world.cloud.rows.values():
        row.spec_hash = None  # type: ignore[assignment]  # a platform whose env cannot be read back
    driver = FakeDriver()
    assert deploy(world, spec(workers=(1, 2), env={"A": "2"}), scope=world.scope(driver=driver)).change == "reused"


def test_a_missing_secret_is_told_while_the_old_deployment_still_serves(world: World) -> None:
    deploy(world)
    asked = spec(workers=(1, 2), disk=5, secrets=["TOKEN"])

    def fill(_: Any) -> Any:
        raise ConfigurationError("TOKEN is not set")

    with pytest.raises(ConfigurationError):
        deploy(world, asked, scope=world.scope(secrets=fill), if_exists="replace")
    assert "fake.delete" not in world.cloud.log
    assert len(world.rows) == 1


def test_a_ttl_cannot_be_updated_and_that_is_said(world: World) -> None:
    info = deploy(world).info
    with pytest.raises(UnsupportedError, match="fixed"):
        update(world, info, spec(workers=(1, 2), ttl=60), {"ttl"})


def test_a_callback_that_raises_costs_nobody_a_deployment(world: World, caplog: pytest.LogCaptureFixture) -> None:
    def boom(_: Any) -> None:
        raise ValueError("a fault of the caller")

    scope = life.Scope(**{**world.scope().__dict__, "emit": boom, "progress": boom})
    with caplog.at_level("ERROR", logger="unigpu"):
        assert deploy(world, scope=scope).change == "created"
    assert "on_event raised" in caplog.text


def test_one_that_is_deleted_under_a_deploys_hands_is_made_anew_once(world: World) -> None:
    real: Any = world.cloud.on_patch
    deleted = [0]

    def patch(url: str, body: Any) -> Any:
        if deleted[0] < 1:
            deleted[0] += 1
            world.cloud.rows.clear()
        return real(url, body)

    world.cloud.on_patch = patch  # type: ignore[method-assign]  # somebody deletes it between create and warm
    deployed = deploy(world)
    assert (deployed.change, len(world.rows)) == ("created", 1)


@pytest.mark.parametrize("taken", ["template", "endpoint"])
def test_a_deploy_returns_with_all_parts_where_a_teardown_took_an_earlier_one(three: World, taken: str) -> None:
    real: Any = three.cloud.on_create
    took = [0]

    def create(url: str, body: Any) -> Any:
        if body["kind"] == "group" and not took[0]:
            took[0] += 1
            del three.cloud.rows[taken, body["name"]]
        return real(url, body)

    three.cloud.on_create = create  # type: ignore[method-assign]  # somebody ends it while it is made
    deployed = deploy(three)
    assert (deployed.change, len(three.rows)) == ("created", 3)


def test_an_update_of_what_another_call_replaced_meanwhile_is_refused(world: World) -> None:
    info = deploy(world, spec(workers=(1, 2), env={"A": "1"})).info
    real: Any = world.cloud.on_update

    def late(url: str, body: Any) -> Any:
        (row,) = world.cloud.rows.values()
        row.attempt = "another"
        return real(url, body)

    world.cloud.on_update = late  # type: ignore[method-assign]  # replaced at the last moment
    before = world.clock.now()
    with pytest.raises(ConflictError):
        update(world, info, spec(workers=(1, 2), env={"A": "2"}), {"env"})
    assert world.clock.now() < before + 10


def test_an_undo_never_takes_what_another_create_put_in_its_place(world: World) -> None:
    world.cloud.cold_start = 50

    def swap(progress: Any) -> None:
        if progress.elapsed > 5:
            (row,) = world.cloud.rows.values()
            row.attempt = "theirs"
            world.cloud.start_failure = "crash_loop: exit code 1"

    with pytest.raises(WorkerFailed):
        deploy(world, scope=life.Scope(**{**world.scope().__dict__, "progress": swap}))
    (row,) = world.cloud.rows.values()
    assert row.attempt == "theirs"
    assert world.intents() == []


def test_what_another_create_put_in_its_place_is_not_said_to_be_created_here(world: World) -> None:
    world.cloud.cold_start = 50

    def swap(progress: Any) -> None:
        (row,) = world.cloud.rows.values()
        row.attempt = "theirs"

    deployed = deploy(world, scope=life.Scope(**{**world.scope().__dict__, "progress": swap}))
    assert (deployed.change, deployed.info.attempt) == ("reused", "theirs")
    assert world.intents() == []
