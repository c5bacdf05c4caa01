"""What is rarely so: platforms that only list, clean-ups that take for ever, logs that cannot be read."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lifecycle_fakes import FakeDriver, FakeResource, Fault, World, options, spec

from unigpu import _lifecycle as life
from unigpu._io.bridge import run_sync
from unigpu.driver import CallClass, Consistency, DeploymentInfo, DeploymentSpec, Identity, LogLine, Resource
from unigpu.errors import (
    DeploymentGone,
    DeployOutcomeUnknown,
    NoCapacityError,
    NoWorkerReady,
    PartialDeployError,
    TransportError,
    UniGPUError,
    UnsupportedError,
    WorkerFailed,
)

FAR = 1e7


def deploy(world: World, wanted: Any = None, *, scope: Any = None, **more: Any) -> life.Deployed:
    rest = {"if_exists": "reuse", "wait": True, "deadline": FAR, "on_failure": "teardown", "settle": False, **more}
    return run_sync(life.deploy(scope or world.scope(), wanted or spec(workers=(1, 2)), **rest))


class ListedResource(FakeResource):
    call = CallClass.RECONCILE
    consistency = Consistency(kind="listed", settle=15.0)


class ListedDriver(FakeDriver):
    """A platform that gives create no key: what exists is found by listing."""

    def resources(self, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
        made = super().resources(spec, identity)
        return [ListedResource(self, r.kind, r.name, r.body) for r in made]  # type: ignore[attr-defined]  # the fake's own


def test_where_only_a_list_tells_a_create_that_stays_lost_is_told_and_its_intent_stays(world: World) -> None:
    world.cloud.faults.append(Fault("fake.create", "lost", when="before", times=3))
    began = world.clock.now()
    with pytest.raises(DeployOutcomeUnknown) as caught:
        deploy(world, scope=world.scope(driver=ListedDriver()))
    assert world.cloud.log.count("fake.create") == 3
    assert world.clock.now() - began >= 45  # each was looked for, for the whole of the settle window
    assert caught.value.may_bill
    assert caught.value.maybe_executed is True
    (name,) = world.intents()
    path = world.state_dir / "intents" / name  # type: ignore[operator]  # there is one
    assert json.loads(path.read_text())["state"] == "failed"
    deployed = deploy(world, scope=world.scope(driver=ListedDriver()), settle=True)
    assert len(world.intents()) == 1
    run_sync(life.teardown(world.scope(driver=ListedDriver()), deployed.info, deadline=FAR))
    assert (world.rows, world.intents()) == ([], [])


def test_where_only_a_list_tells_what_it_shows_is_taken(world: World) -> None:
    world.cloud.faults.append(Fault("fake.create", "lost", when="after"))
    assert deploy(world, scope=world.scope(driver=ListedDriver())).change == "created"
    assert len(world.cloud.created) == 1


def test_an_undo_that_cannot_end_is_given_up_and_said(world: World) -> None:
    world.cloud.faults.append(Fault("fake.patch", 400))
    world.cloud.delete_takes = 1e6
    before = world.clock.now()
    with pytest.raises(PartialDeployError) as caught:
        deploy(world)
    assert world.clock.now() < before + 200
    assert caught.value.leaked[0][0] == "deployment"
    world.cloud.delete_takes = 0.0
    world.cloud.rows.clear()
    deploy(world)


def test_an_undo_that_cannot_even_look_is_said(world: World) -> None:
    world.cloud.faults += [
        Fault("fake.create", "lost", when="after", times=9),
        Fault("fake.get", "lost", skip=1, times=99),
    ]
    with pytest.raises(PartialDeployError) as caught:
        deploy(world)
    assert caught.value.leaked
    assert len(world.intents()) == 1
    world.cloud.faults.clear()
    deployed = deploy(world)
    run_sync(life.teardown(world.scope(), deployed.info, deadline=FAR))
    assert (world.rows, world.intents()) == ([], [])


class Mute(FakeDriver):
    async def logs(
        self, io: Any, info: DeploymentInfo, *, worker: str | None, follow: bool, tail: int
    ) -> AsyncIterator[LogLine]:
        raise TransportError("no logs today")
        yield LogLine(text="")


def test_logs_that_cannot_be_read_do_not_hide_the_failure(world: World) -> None:
    world.cloud.start_failure = "crash_loop: exit code 1"
    with pytest.raises(WorkerFailed) as caught:
        deploy(world, scope=world.scope(driver=Mute()))
    assert (caught.value.reason, caught.value.logs) == ("crash_loop", ())


def test_a_stopped_one_on_a_platform_that_cannot_start_it_says_so(world: World) -> None:
    class NoPause(FakeDriver):
        stop = start = None  # type: ignore[assignment]  # not offered here

    info = deploy(world).info
    for row in world.cloud.rows.values():
        row.stopped, row.started = True, []
    with pytest.raises(UnsupportedError):
        run_sync(life.wait_ready(world.scope(driver=NoPause()), info, wake=True, need_worker=True, deadline=FAR))


def test_a_call_on_a_stopped_deployment_that_may_not_wake_it_says_how(world: World) -> None:
    info = deploy(world).info
    for row in world.cloud.rows.values():
        row.stopped, row.started = True, []
    with pytest.raises(NoWorkerReady) as caught:
        run_sync(life.invoke(world.scope(), info, {}, options(wake=False)))
    assert caught.value.state == "STOPPED"
    assert "start" in str(caught.value)


def test_a_call_that_cannot_start_what_is_stopped_leaves_no_job_behind(world: World) -> None:
    info = deploy(world).info
    scope = world.scope()
    job = run_sync(life.submit(scope, info, {"queue": 50}, options()))

    async def sold_out(stopped: DeploymentInfo, deadline: float) -> None:
        raise NoCapacityError("its GPU is gone")

    for row in world.cloud.rows.values():
        row.stopped, row.started = True, []
    with pytest.raises(NoCapacityError):
        run_sync(life.job_result(world.scope(start=sold_out), info, job.id, options()))
    assert world.cloud.jobs[job.id].status == "CANCELLED"


def test_a_deployment_that_ends_while_a_call_waits_is_said_to_be_gone(world: World) -> None:
    world.cloud.cold_start = 50
    info = deploy(world, spec(workers=(0, 1))).info
    began = world.clock.now()
    world.clock.on_jump(lambda now: world.cloud.rows.clear() if now > began + 20 else None)
    with pytest.raises(DeploymentGone):
        run_sync(life.invoke(world.scope(), info, {}, options()))


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_busy_platform_is_asked_again_for_an_update(world: World, when: str) -> None:
    info = deploy(world, spec(workers=(1, 2), env={"A": "1"})).info
    world.cloud.faults.append(Fault("fake.update", 409, when=when, times=2))
    done = run_sync(
        life.update(
            world.scope(),
            info,
            spec(workers=(2, 3), env={"A": "2"}),
            changed=frozenset({"env", "workers"}),
            wait=True,
            deadline=FAR,
        )
    )
    assert (done.change, done.info.workers) == ("updated", (2, 3))


def test_whatever_fails_in_an_update_nothing_that_was_there_is_undone(world: World) -> None:
    info = deploy(world, spec(workers=(1, 2), env={"A": "1"})).info
    for kind in (400, 401, "lost", 503):
        world.cloud.faults.append(Fault("fake.update", kind))
        with pytest.raises(UniGPUError):
            run_sync(
                life.update(
                    world.scope(),
                    info,
                    spec(workers=(1, 2), env={"A": "2"}),
                    changed=frozenset({"env"}),
                    wait=True,
                    deadline=FAR,
                )
            )
        assert len(world.rows) == 1
        assert len(world.intents()) == 1


def test_half_of_another_spec_without_its_main_part_is_cleared_and_made_anew(tmp_path: Path) -> None:
    world = World(tmp_path / "a", kinds=("template", "endpoint"))
    world.cloud.cold_start = 1.0
    info = deploy(world, spec(workers=(1, 2), disk=10)).info
    del world.cloud.rows["endpoint", info.provider_name]
    deployed = deploy(world, scope=world.scope(state_dir=tmp_path / "b"))
    assert deployed.change == "created"
    assert {row.spec_hash for row in world.cloud.rows.values()} == {deployed.info.spec_hash}


def test_a_lost_part_of_one_in_use_is_made_again_and_its_limits_stay(tmp_path: Path) -> None:
    world = World(tmp_path / "a", kinds=("template", "endpoint"))
    world.cloud.cold_start = 1.0
    info = deploy(world, spec(workers=(2, 5))).info
    del world.cloud.rows["template", info.provider_name]
    deployed = deploy(world, spec())
    assert (deployed.change, len(world.rows)) == ("reused", 2)
    assert world.cloud.rows["endpoint", info.provider_name].limits == (2, 5)
