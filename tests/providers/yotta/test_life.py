"""Whole lives over Yotta's emulator in memory, through the clients: what a user does, and what is sent for it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import unigpu
from unigpu import errors
from unigpu._io.clock import VirtualClock, use_clock
from unigpu.driver import State
from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.models import Event
from unigpu.testing import FaceBench
from unigpu.testing._conformance.transport import CloudTransport

FIELDS: Mapping[str, Any] = {
    "handler": "app:summarize", "image": "ghcr.io/me/app:1", "gpu": ["RTX 4090", "H100 SXM"], "workers": 1, "ttl": None,
    "progress": "off",
}  # fmt: skip
SERVER: Mapping[str, Any] = {**FIELDS, "handler": None, "interface": "http", "command": ["python", "server.py"]}
ALB: Mapping[str, Any] = {"provider_options": {"yotta": {"service_mode": "ALB"}}}
Make = Callable[..., FaceBench]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes one account's platform, with quirks and a project file."""
    with ExitStack() as stack:

        def made(config: Path | None = None, **quirks: Any) -> FaceBench:
            def face(engine: Engine, key: str) -> EmulatedAPI:
                return YottaEmulator(engine, token=key, quirks=Quirks(**quirks))

            more = {} if config is None else {"config": config}
            bench = stack.enter_context(
                FaceBench(
                    "yotta", face, list_operation="yotta.endpoint.list", options=lambda key: {"api_key": key, **more}
                )
            )
            behaves(bench, lambda given: {"got": given})
            return bench

        yield made


def behaves(bench: FaceBench, run: Callable[[Any], Any], *, cold_start: float = 120.0, duration: float = 0.1) -> None:
    behavior = Behavior(run=run, cold_start=cold_start, duration=duration)
    bench.cloud.simulation._behavior_of = lambda _: behavior


def client(bench: FaceBench, **more: Any) -> unigpu.Client:
    return unigpu.Client(**{**bench.options(), **more})


def sent(bench: FaceBench) -> Counter[str]:
    return Counter(name.removeprefix("yotta.") for name in bench.calls)


# -- queue


def test_a_life_in_queue_mode(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        assert (app.change, app.state, app.info.workers, app.url) == ("created", State.READY, (1, 1), None)
        assert app.rate.idle_per_hour == pytest.approx(0.40)  # as the platform shows it
        assert app.invoke({"n": 1}).output == {"got": {"n": 1}}
        job = app.submit({"n": 2})
        assert job.result().output == {"got": {"n": 2}}
        assert [row.output["got"]["n"] for row in app.map([{"n": n} for n in range(5)], progress="off")] == [*range(5)]
        (worker,) = app.workers()
        assert worker.gpu in ("RTX 4090", "H100 SXM")  # the platform picks: this is where the pooling shows
        assert worker.region in {"us-east-3", "us-east-4", "us-central-7", "eu-2", "eu-3"}
        assert {line.worker_id for line in app.logs(tail=3)} <= {worker.id}
        assert app.explain().cause == "ready"
        app.teardown()
        with pytest.raises(errors.NotFoundError):
            one.get("summarize")
    assert sent(bench)["endpoint.stop"] == sent(bench)["endpoint.delete"] == 1
    assert bench.left() == []


def test_what_must_be_said_is_asked_for_before_anything_is_sent(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        for missing in ("workers", "ttl", "gpu", "image"):
            fields = {name: value for name, value in FIELDS.items() if name != missing}
            with pytest.raises(errors.ConfigurationError, match=missing):
                one.deploy(name="summarize", **fields)
        with pytest.raises(errors.ConfigurationError, match="auth"):
            one.deploy(name="summarize", **{**FIELDS, "kind": "pod"} | {"workers": 1})
        with pytest.raises(errors.UnsupportedError, match="elasticity_model = declared") as caught:
            one.deploy(name="summarize", **{**FIELDS, "workers": (1, 3)})
        assert (caught.value.capability, bool(caught.value.source)) == ("elasticity_model", True)
        with pytest.raises(errors.UnsupportedError, match="own region ids"):
            one.deploy(name="summarize", **FIELDS, regions=["DE"])
    assert not any("create" in name for name in bench.calls)


@pytest.mark.parametrize("said", ["argument", "file"])
def test_a_range_is_taken_as_its_least_where_that_is_said(make: Make, tmp_path: Path, said: str) -> None:
    config = tmp_path / "unigpu.toml"
    config.write_text('[defaults]\non_unsupported = "adapt"\n' if said == "file" else "")
    bench = make(config=config)
    more = {"on_unsupported": "adapt"} if said == "argument" else {}
    with client(bench) as one:
        for asked, got in (((0, 3), 1), ((2, 5), 2)):
            app = one.deploy(name="summarize", **{**FIELDS, "workers": asked}, **more)  # type: ignore[arg-type]  # as told
            assert app.info.workers == (got, got)
            assert [(each.field, each.got) for each in app.adaptations if each.field == "workers"] == [
                ("workers", str(got))
            ]
            app.teardown()
        app = one.deploy(name="summarize", **FIELDS)
        scaled = one.scale(app, (3, 7), **more)  # type: ignore[arg-type]  # as told
        assert scaled.info.workers == (3, 3)
        assert "workers" in [each.field for each in scaled.adaptations]
        app.teardown()


def test_scaling_to_zero_is_a_stop_and_says_so_and_scaling_starts_again(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        stopped = one.scale(app, 0)
        assert stopped.state is State.STOPPED
        assert [(each.asked, each.got) for each in stopped.adaptations] == [("0", "stopped")]
        assert "stop" in str(stopped.adaptations[0])
        assert one.stop(app).state is State.STOPPED
        again = one.scale(app, 2)
        assert again.info.workers == (2, 2)
        assert one.wait_ready(app, progress="off").info.ready_workers == 2
        app.teardown()
    with unigpu.Client("local") as other, pytest.raises(errors.ConfigurationError, match="most is 1 or more"):
        other.deploy(name="x", handler="json:loads", workers=0)


# -- wake and hold


@pytest.mark.parametrize("mode", ["queue", "queue that takes tasks while it starts", "gateway", "request"])
def test_fifty_threads_that_find_it_stopped_send_one_start_and_are_all_answered(make: Make, mode: str) -> None:
    bench = make(accepts_tasks="started") if "while it starts" in mode else make()
    answers: list[Any] = []
    events: list[Event] = []
    with client(bench, on_event=events.append) as one:
        fields = SERVER if mode == "request" else {**FIELDS, **(ALB if mode == "gateway" else {})}
        app = one.deploy(name="summarize", **fields)
        app.stop()
        before = sent(bench)

        def call(n: int) -> None:
            try:
                if mode == "request":
                    answers.append(one.request(app, "POST", "/x", json={"n": n}).status)
                else:
                    answers.append(app.invoke({"n": n}).output["got"]["n"])
            except BaseException as exc:
                answers.append(exc)

        threads = [threading.Thread(target=call, args=(n,)) for n in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        after = sent(bench) - before
        assert after["endpoint.start"] == 1
        if mode == "request":
            assert answers == [200] * 50
        else:
            assert sorted(answers, key=str) == sorted(range(50), key=str), answers
        app.teardown()
    assert bench.left() == []


@pytest.mark.parametrize("mode", ["queue", "gateway", "request"])
def test_fifty_tasks_of_one_loop_send_one_start_and_are_held_until_it_is_ready(tmp_path: Path, mode: str) -> None:
    """On exact virtual time: who is held waits as long as the start takes, and no longer than his own deadline.

    Fifty callers look as one does: a control plane whose rates are not published is not asked fifty times as much.
    """
    fields = {"queue": FIELDS, "gateway": {**FIELDS, **ALB}, "request": SERVER}[mode]
    clock = VirtualClock()
    cloud = VirtualCloud(clock=clock, behavior=Behavior(run=lambda given: given, cold_start=300.0, duration=0.1))
    face = YottaEmulator(cloud.engine, token="key")
    cloud.mount(face)
    transport = CloudTransport(cloud, face)
    done: list[float] = []
    late: list[float] = []
    events: list[str] = []

    async def main() -> None:
        async with unigpu.AsyncClient(
            "yotta", api_key="key", transport=transport, state_dir=tmp_path / "state", config=tmp_path / "none.toml",
            on_event=lambda event: events.append(event.kind),
        ) as one:  # fmt: skip
            app = await one.deploy(name="summarize", **fields)
            await app.stop()
            transport.calls.clear()
            began = clock.now()

            async def asked(n: int, **more: float) -> object:
                if mode == "request":
                    return (await one.request(app, "POST", "/x", json={"n": n}, **more)).status
                return (await app.invoke({"n": n}, **more)).output["n"]

            async def call(n: int) -> None:
                if n % 10 == 0:
                    with pytest.raises(errors.NoWorkerReady) as caught:
                        await asked(n, start_timeout=60)
                    late.append(clock.now() - began)
                    assert caught.value.maybe_executed is False
                    return
                assert await asked(n) == (200 if mode == "request" else n)
                done.append(clock.now() - began)

            async with anyio.create_task_group() as group:
                for n in range(50):
                    group.start_soon(call, n)
            await app.teardown()

    (tmp_path / "none.toml").write_text("")
    with use_clock(clock):
        anyio.run(main)
    seen = Counter(transport.calls)
    assert seen["yotta.endpoint.start"] == 1
    assert seen["yotta.worker.list"] <= 400, seen  # about one a second, whoever waits
    assert seen["yotta.endpoint.get"] <= 1000, seen
    assert seen["yotta.job.submit"] <= 500, seen
    assert events.count("worker.woken") == 1
    assert "call.held" in events  # how long each has waited is told meanwhile
    assert len(late) == 5
    assert all(60 <= seconds < 70 for seconds in late)
    assert len(done) == 45
    assert all(300 <= seconds < 330 for seconds in done), sorted(done)


def test_a_short_task_needs_no_look_at_its_deployment(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        before = sent(bench)
        for n in range(5):
            app.invoke({"n": n})
        assert set(sent(bench) - before) == {"job.submit", "job.get"}
        app.teardown()


def test_who_waits_in_vain_hears_that_no_worker_was_ready(make: Make) -> None:
    """And not that a request was too late to be sent, whichever of the two deadlines comes first."""
    bench = make()
    behaves(bench, lambda given: given, cold_start=900.0)
    with client(bench) as one:
        for name, fields in (("queue", FIELDS), ("gate", {**FIELDS, **ALB}), ("server", SERVER)):
            app = one.deploy(name=name, **fields, wait=False)
            for more in ({"start_timeout": 30.0}, {"timeout": 30.0}, {"start_timeout": 30.0, "timeout": 30.0}):
                asked = partial(one.request, app, "GET", "/") if fields is SERVER else partial(app.invoke, {"n": 1})
                with pytest.raises(errors.NoWorkerReady) as caught:
                    asked(**more)
                assert any(name in each for each in caught.value.may_bill), caught.value.may_bill
            app.teardown()


@pytest.mark.parametrize("fields", [FIELDS, {**FIELDS, **ALB}, SERVER], ids=["queue", "gateway", "request"])
def test_who_may_not_wake_is_told_how_to(make: Make, fields: Mapping[str, Any]) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **fields)
        app.stop()
        before = sent(bench)
        asleep = partial(one.request, app, "GET", "/") if fields is SERVER else partial(one.invoke, app, {"n": 1})
        with pytest.raises(errors.NoWorkerReady, match="start") as caught:
            asleep(wake=False)
        assert caught.value.maybe_executed is False
        assert set(sent(bench) - before) == {"endpoint.get"}
        woken = one.wake(app)
        assert woken.state is State.STARTING
        assert one.wait_ready(app, progress="off").state is State.READY
        app.teardown()


def test_a_start_that_fails_is_told_before_the_deadline(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        app.stop()
        broken = Behavior(start="crash", cold_start=30.0, reason="exited with 1", lines=("no such model",))
        bench.cloud.simulation._behavior_of = lambda _: broken
        with pytest.raises(errors.WorkerFailed) as caught:
            app.invoke({"n": 1}, start_timeout=3600)
        assert caught.value.logs == ("no such model",)
        app.teardown()


# -- the gateway


def test_a_life_behind_the_gateway(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS, **ALB)
        assert app.url is not None
        assert app.url.endswith(".yottadeos.com")
        assert app.invoke({"n": 1}).output == {"got": {"n": 1}}
        with pytest.raises(errors.UnsupportedError, match="has no jobs"):
            app.submit({"n": 1})
        with pytest.raises(errors.UnsupportedError):
            app.invoke({"n": 1}, on_timeout="keep")
        assert [row.output["got"]["n"] for row in app.map([{"n": n} for n in range(5)], progress="off")] == [*range(5)]
        again = one.deploy(name="summarize", **FIELDS, **ALB)
        assert again.change == "reused"
        assert again.invoke({"n": 2}).output == {"got": {"n": 2}}
        app.teardown()
    with client(bench) as one, pytest.raises(errors.NotFoundError):
        one.get("summarize")


def test_openais_own_client_goes_through_the_gateway(make: Make) -> None:
    """Its placeholder of a key is not taken for a header of the user's own."""
    pytest.importorskip("openai")
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="server", **SERVER)
        arguments = one.openai(app)
        with arguments["http_client"] as library:
            placeholder = {"authorization": f"Bearer {arguments['api_key']}"}
            reply = library.get(f"{arguments['base_url']}/models", headers=placeholder)
        assert reply.status_code == 200
        app.teardown()


def test_a_custom_endpoint_lives_and_cannot_be_called(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="puller", **FIELDS, provider_options={"yotta": {"service_mode": "CUSTOM"}})
        assert app.state is State.READY
        with pytest.raises(errors.UnsupportedError, match="CUSTOM"):
            app.invoke({"n": 1})
        app.teardown()
    assert bench.left() == []


def test_a_pod_lives_by_the_same_verbs(make: Make) -> None:
    bench = make()
    fields = {name: value for name, value in FIELDS.items() if name != "workers"}
    with client(bench) as one:
        app = one.deploy(name="notebook", kind="pod", auth="none", **fields)
        assert (app.state, app.info.kind, app.info.workers) == (State.READY, "pod", (1, 1))
        assert app.invoke({"n": 1}).output == {"got": {"n": 1}}
        with pytest.raises(errors.UnsupportedError, match="pod"):
            one.scale(app, 2)
        assert app.stop().state is State.STOPPED
        assert app.invoke({"n": 2}).output == {"got": {"n": 2}}  # it is resumed for the call
        with pytest.raises(errors.NameConflict):
            one.deploy(name="notebook", **FIELDS)
        app.teardown()
    assert bench.left() == []
    assert sent(bench)["pod.resume"] == 1


# -- prices


def test_a_cap_is_held_right_after_the_create_and_what_is_too_dear_is_taken_back(make: Make) -> None:
    for quirks, cap, fits in (({}, 0.5, True), ({}, 0.3, False), ({"shows_prices": False}, 9.0, False)):
        bench = make(**quirks)  # type: ignore[arg-type]  # as told
        with client(bench) as one:
            if fits:
                app = one.deploy(name="summarize", **FIELDS, max_price=cap)
                app.teardown()
            else:
                with pytest.raises(errors.NoCapacityError, match="max_price"):
                    one.deploy(name="summarize", **FIELDS, max_price=cap)
            assert bench.left() == []
            assert len(one.gc(provider="yotta")) == 0


# -- other processes


@pytest.mark.parametrize("shown", ["nothing", "environmentVars", "envVars"])
def test_another_machine_uses_it_by_name(make: Make, shown: str) -> None:
    bench = make(shows_env=shown)
    with client(bench) as one:
        one.deploy(name="summarize", **FIELDS, execution_timeout=30)
        one.deploy(name="server", **SERVER)
        one.deploy(name="gate", **FIELDS, **ALB)
    elsewhere = bench.options(elsewhere=True)
    with unigpu.Client(**elsewhere) as other:
        app = other.get("summarize")
        assert app.info.name == "summarize"
        assert app.info.execution_timeout == (600.0 if shown == "nothing" else 30.0)
        assert bool(app.info.assumed) is (shown == "nothing")
        assert app.invoke({"n": 1}).output == {"got": {"n": 1}}
        assert other.request("server", "POST", "/x", json={"n": 1}).status == 200
        gate = other.get("gate", interface="function")
        assert gate.invoke({"n": 1}).output == {"got": {"n": 1}}
        with pytest.raises(errors.NameConflict) as caught:  # the image is shown, whatever else is
            other.deploy(name="summarize", **{**FIELDS, "image": "ghcr.io/me/other:1"})
        assert "image" in caught.value.fields
        for name in ("summarize", "server", "gate"):
            other.teardown(name)
    assert bench.left() == []


def test_a_server_is_not_reused_over_a_queue_that_has_no_address_for_it(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        one.deploy(name="summarize", **FIELDS)
    with unigpu.Client(**bench.options(elsewhere=True)) as other:
        with pytest.raises(errors.NameConflict) as caught:
            other.deploy(name="summarize", **SERVER)
        assert "interface" in caught.value.fields
        other.teardown("summarize")


def test_one_that_has_ended_by_its_ttl_is_ended_by_the_next_control_call(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **{**FIELDS, "ttl": "1h"})
        assert app.ttl_enforced_by == "client"
        assert any("nobody ends it while no client runs" in each.got for each in app.adaptations)
        bench.cloud.clock.advance(3700)
        one.deployments(provider="yotta")
        assert bench.left() == []


def test_a_private_registrys_login_comes_and_goes_with_its_deployment(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS, registry={"username": "me", "password": "p"})
        assert sent(bench)["credential.create"] == 1
        app.teardown()
    assert sent(bench)["credential.delete"] == 1
    assert bench.left() == []


def test_a_plan_sends_nothing_and_says_what_would_be(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        plan = one.plan(name="summarize", **{n: v for n, v in FIELDS.items() if n != "progress"})
        assert not any("create" in name for name in bench.calls)
        assert "yotta" in str(plan)
        app = one.deploy(plan[0], progress="off")
        assert app.change == "created"
        app.teardown()


def test_a_plan_for_a_stopped_one_with_another_number_is_what_its_deploy_does(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        assert app.stop().rate.idle_per_hour == 0.0
        for workers, changes in ((3, ["start", "scale"]), (3, []), (1, ["scale"])):
            fields = {**{n: v for n, v in FIELDS.items() if n != "progress"}, "workers": workers}
            plan = one.plan(name="summarize", **fields)[0]
            assert [one.operation.removeprefix("yotta.endpoint.") for one in plan.requests] == changes
            assert plan.rate.idle_per_hour == pytest.approx(0.4 * workers)
            before = sent(bench)
            app = one.deploy(plan, progress="off")
            done = sent(bench) - before
            assert [name for name in ("start", "scale") if done[f"endpoint.{name}"]] == changes
            assert (app.state, app.info.workers) == (State.READY, (workers, workers))
        app.teardown()


def test_offers_say_what_is_there_and_no_price(make: Make) -> None:
    bench = make(stock={"NVIDIA_H100_80G": {"eu-2": True, "eu-3": False}})
    with client(bench) as one:
        offers = one.offers(provider="yotta")
        assert [(each.gpu, each.available, each.price_per_hour) for each in offers] == [("H100 SXM", "eu-2", None)]
        with pytest.raises(errors.NoCapacityError):
            one.deploy(name="summarize", **{**FIELDS, "gpu": "RTX 4090"})
        app = one.deploy(name="summarize", **FIELDS)
        assert [worker.region for worker in app.workers()] == ["eu-2"]
        app.teardown()


def test_the_inventory_is_the_whole_account(make: Make) -> None:
    bench = make()
    with client(bench) as one:
        app = one.deploy(name="summarize", **FIELDS)
        items = one.inventory(provider="yotta")
        assert [(each.kind, each.owner, each.name) for each in items] == [("endpoint", "ours", "summarize")]
        app.teardown()
        assert len(one.inventory(provider="yotta")) == 0
