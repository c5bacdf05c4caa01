"""Each verb over scripted replies: what is sent, in which order, and what is made of each answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from yotta_script import ENDPOINT, STOCK, Scripted, driver, identity, reply, spec

from unigpu import errors
from unigpu._io.dry_run import Recorded, RecordingIo
from unigpu.driver import CallClass, DeploymentInfo, Headers, Invocation, Request, Response, State, WorkerState
from unigpu.errors import ConfigurationError
from unigpu.models import GPURequest, JobStatus

EP, PODS = "/v2/serverless/378888638324150969", "/v2/pods/789"
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969", port=8000,
    state=State.READY, raw_state="RUNNING", workers=(2, 2), details={"service_mode": "QUEUE"},
)  # fmt: skip
POD = INFO.model_copy(update={"kind": "pod", "id": "789", "workers": (1, 1), "details": {}})
UNTIL = 1e9
WRONG_STATE = reply(code=24002, message="Elastic action not allowed")
FREE = {"GET /v2/vms/types": reply(STOCK), "GET /v2/serverless": reply([]), "GET /v2/pods": reply([])}


def at(status: str, **more: Any) -> Response:
    return reply({**ENDPOINT, "status": status, **more})


def pod(status: str, **more: Any) -> Response:
    return reply({"id": 789, "name": "p", "status": status, **more})


def call(**more: Any) -> Invocation:
    given: dict[str, Any] = {"job_id": "a" * 32, "deadline": UNTIL, "start_deadline": UNTIL, "execution_timeout": 600}
    return Invocation(**{"input": {"n": 1}, **given, **more})


def endpoint_part(one: Any) -> Any:
    return next(part for part in one.parts(INFO) if part.kind == "endpoint")


# -- the end


def test_a_running_one_is_stopped_waited_for_and_deleted(script: Callable[..., Scripted]) -> None:
    """https://github.com/yottalabsai/YottaML/blob/main/scripts/test_serverless.sh, steps 12 to 14"""
    cloud = script(
        {
            f"GET {EP}": [at("RUNNING"), at("STOPPING"), at("STOPPED")],
            f"POST {EP}/stop": reply(None),
            f"DELETE {EP}": reply(True),
        }
    )
    part = endpoint_part(driver())
    for _ in range(2):
        with pytest.raises(errors.ConflictError) as caught:
            cloud.run(part.delete(cloud.io, INFO.id, deadline=UNTIL))
        assert caught.value.maybe_executed is False
    cloud.run(part.delete(cloud.io, INFO.id, deadline=UNTIL))
    names = [name.removeprefix("yotta.endpoint.") for name in cloud.operations]
    assert names == ["get", "stop", "get", "stop", "get", "delete"]


@pytest.mark.parametrize("code", [14000, 24001, 10007])
@pytest.mark.parametrize("where", [f"GET {EP}", f"DELETE {EP}"])
def test_one_that_is_gone_already_is_deleted(script: Callable[..., Scripted], code: int, where: str) -> None:
    cloud = script({f"GET {EP}": at("STOPPED"), f"DELETE {EP}": reply(True), where: reply(code=code)})
    cloud.run(endpoint_part(driver()).delete(cloud.io, INFO.id, deadline=UNTIL))


def test_a_wrong_state_is_busy_and_never_gone(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": at("STOPPED"), f"DELETE {EP}": WRONG_STATE, f"POST {EP}/stop": WRONG_STATE})
    with pytest.raises(errors.ConflictError):
        cloud.run(endpoint_part(driver()).delete(cloud.io, INFO.id, deadline=UNTIL))


def test_a_not_found_that_is_not_in_yottas_words_is_no_end(script: Callable[..., Scripted]) -> None:
    """A proxy may say so of what exists and bills."""
    proxy = Response(status=404, headers=Headers(), content=b"<html>not found</html>")
    part = endpoint_part(driver())
    cloud = script({f"GET {EP}": proxy, "GET /v2/serverless": reply([ENDPOINT])})
    there = cloud.run(part.read(cloud.io, INFO.id, deadline=UNTIL))
    assert there is not None
    assert there.info.state is State.READY
    cloud = script({f"GET {EP}": proxy, "GET /v2/serverless": reply([])})
    assert cloud.run(part.read(cloud.io, INFO.id, deadline=UNTIL)) is None
    cloud = script({f"GET {EP}": proxy, "GET /v2/serverless": proxy})
    with pytest.raises(errors.InvalidResponseError):
        cloud.run(part.read(cloud.io, INFO.id, deadline=UNTIL))


def test_a_failed_one_that_must_be_stopped_first_is(script: Callable[..., Scripted]) -> None:
    cloud = script(
        {f"GET {EP}": at("FAILED"), f"DELETE {EP}": [WRONG_STATE, reply(True)], f"POST {EP}/stop": reply(None)}
    )
    part = endpoint_part(driver())
    with pytest.raises(errors.ConflictError):
        cloud.run(part.delete(cloud.io, INFO.id, deadline=UNTIL))
    cloud.run(part.delete(cloud.io, INFO.id, deadline=UNTIL))
    assert cloud.operations.count("yotta.endpoint.stop") == 1


def test_a_pod_is_deleted_as_it_is(script: Callable[..., Scripted]) -> None:
    for code in (10000, 12000, 13000):
        cloud = script({f"DELETE {PODS}": reply(None, code=code)})
        (part,) = [one for one in driver().parts(POD) if one.kind == "pod"]
        cloud.run(part.delete(cloud.io, "789", deadline=UNTIL))
        assert cloud.operations == ["yotta.pod.delete"]


def test_a_terminated_one_is_over_and_an_unknown_state_is_not(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": [at("TERMINATED"), at("NEW")]})
    part = endpoint_part(driver())
    assert cloud.run(part.read(cloud.io, INFO.id, deadline=UNTIL)) is None
    there = cloud.run(part.read(cloud.io, INFO.id, deadline=UNTIL))
    assert there is not None
    assert there.info.state is State.UNKNOWN


# -- looking


def test_a_list_is_whole_or_an_error(script: Callable[..., Scripted]) -> None:
    bad = [
        reply(None), reply({}), reply("x"), reply([{"id": 1}]), reply([ENDPOINT, 5]), reply(code=10002),
        reply(code=10004),
        Response(status=404, headers=Headers(), content=b""), Response(status=200, headers=Headers(), content=b"[]"),
    ]  # fmt: skip
    for answer in bad:
        for broken in ("GET /v2/serverless", "GET /v2/pods"):
            cloud = script({"GET /v2/serverless": reply([]), "GET /v2/pods": reply([]), broken: answer})
            with pytest.raises(errors.UniGPUError) as caught:
                cloud.run(driver().deployments(cloud.io, deadline=UNTIL))
            assert not isinstance(caught.value, errors.NotFoundError)


def test_the_deployments_are_endpoints_and_pods_and_not_what_is_over(script: Callable[..., Scripted]) -> None:
    pods = [{"id": 1, "name": "a", "status": "RUNNING"}, {"id": 2, "name": "b", "status": "TERMINATED"}]
    cloud = script({"GET /v2/serverless": reply([ENDPOINT]), "GET /v2/pods": reply(pods)})
    found = cloud.run(driver().deployments(cloud.io, deadline=UNTIL))
    assert [(one.kind, one.id, one.ours) for one in found] == [
        ("serverless", "378888638324150969", False), ("pod", "1", False)
    ]  # fmt: skip


def test_workers_show_where_and_on_what_they_run(script: Callable[..., Scripted]) -> None:
    rows = [
        {"id": 11, "region": "us-east-3", "gpuType": "NVIDIA_RTX_4090_24G", "gpuCount": 2, "status": "RUNNING"},
        {"id": 12, "region": "eu-2", "gpuType": "NVIDIA_H100_80G", "gpuCount": 2, "status": "initializing"},
        {"workerId": "13", "status": "TERMINATED", "createdAt": 1705306200000},
        {"id": 14, "status": "FROBNICATING"},
    ]
    cloud = script({f"GET {EP}/workers": reply(rows)})
    found = cloud.run(driver().workers(cloud.io, INFO, deadline=UNTIL))
    assert [(one.id, one.state, one.region, one.gpu) for one in found] == [
        ("11", WorkerState.IDLE, "us-east-3", "RTX 4090"),
        ("12", WorkerState.STARTING, "eu-2", "H100 SXM"),
        ("13", WorkerState.EXITED, None, None),
        ("14", WorkerState.UNKNOWN, None, None),
    ]


def test_where_there_is_no_list_of_workers_the_numbers_stand_for_them(script: Callable[..., Scripted]) -> None:
    none = Response(status=404, headers=Headers(), content=b"not found")
    cloud = script({f"GET {EP}/workers": none, f"GET {EP}": at("RUNNING", totalWorkers=3, runningWorkers=1)})
    found = cloud.run(driver().workers(cloud.io, INFO, deadline=UNTIL))
    assert [one.state for one in found] == [WorkerState.IDLE, WorkerState.STARTING, WorkerState.STARTING]
    cloud = script({f"GET {EP}/workers": reply(code=24001)})
    with pytest.raises(errors.DeploymentGone):
        cloud.run(driver().workers(cloud.io, INFO, deadline=UNTIL))


def test_a_pods_worker_is_itself(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {PODS}": pod("RUNNING", gpuType="NVIDIA_RTX_4090_24G", gpuCount=1, region="eu-2")})
    (one,) = cloud.run(driver().workers(cloud.io, POD, deadline=UNTIL))
    assert (one.id, one.state, one.gpu, one.region) == ("789", WorkerState.IDLE, "RTX 4090", "eu-2")


# -- offers and inventory


def offers(cloud: Scripted, **asked: Any) -> Any:
    given: dict[str, Any] = {"gpu": None, "max_price": None, "regions": None, "kind": "serverless", "deadline": UNTIL}
    options = asked.pop("options", {})
    return cloud.run(driver(**options).offers(cloud.io, **{**given, **asked}))


def test_offers_tell_availability_and_invent_no_price(script: Callable[..., Scripted]) -> None:
    cloud = script({"GET /v2/vms/types": reply(STOCK)})
    found = offers(cloud)
    assert [(one.gpu, one.available, one.price_per_hour, one.memory_gb) for one in found] == [
        ("RTX 4090", "us-east-3", None, 24), ("H100 SXM", "eu-2", None, 80)
    ]  # fmt: skip
    assert found[0].details["regions"] == {"us-east-3": "US East 3"}
    assert all("no price" in one.source for one in found)
    own = offers(cloud, options={"prices": {"RTX 4090": 0.4}}, gpu=(GPURequest(name="RTX 4090", count=2),))
    assert [(one.count, one.price_per_hour) for one in own] == [(2, 0.8)]
    with pytest.raises(errors.UnsupportedError, match="does not say in which country"):
        offers(cloud, regions=("EU",))


def test_the_inventory_is_everything_whoever_made_it(script: Callable[..., Scripted]) -> None:
    def vms(request: Request) -> Response:
        page = int(dict(request.params)["page"])
        items = [{"id": 100 * page + n, "name": "vm", "status": "running"} for n in range(100 if page == 1 else 5)]
        return reply({"items": items, "page": page, "size": 100, "total": 105, "pages": 2})

    def volumes(request: Request) -> Response:
        kind = dict(request.params)["storageType"]
        items = [{"id": "9", "name": "data", "storageType": kind, "status": "active"}] if kind == "CEPH" else []
        return reply({"items": items, "page": 1, "size": 100, "total": len(items), "pages": 1})

    mine = {**ENDPOINT, "name": "summa-ugabcdefghijkl", "perHourPrice": 0.5}
    cloud = script(
        {
            "GET /v2/serverless": reply([mine, {**ENDPOINT, "id": "5", "status": "STOPPED"}]),
            "GET /v2/pods": reply([]), "GET /v2/vms": vms, "GET /v2/volumes": volumes,
        }
    )  # fmt: skip
    items = cloud.run(driver().inventory(cloud.io, deadline=UNTIL))
    assert [(one.kind, one.owner, one.per_hour) for one in items if one.kind != "vm"] == [
        ("endpoint", "ours", 1.0), ("endpoint", "foreign", 0.0), ("volume", "foreign", None)
    ]  # fmt: skip
    assert sum(one.kind == "vm" for one in items) == 105


def test_a_paged_list_that_does_not_end_is_an_error(script: Callable[..., Scripted]) -> None:
    full = reply({"items": [{"id": n, "status": "running"} for n in range(100)], "total": 10**9})
    cloud = script({**FREE, "GET /v2/vms": full, "GET /v2/volumes": reply({"items": []})})
    with pytest.raises(errors.InvalidResponseError, match="to its end"):
        cloud.run(driver().inventory(cloud.io, deadline=UNTIL))


# -- creating


def create(cloud: Scripted, wanted: Any, **options: Any) -> Any:
    (part,) = driver(**options).resources(wanted, identity(wanted, expires_at=5e9))
    return cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))


def test_a_create_is_never_repeated_blindly_and_is_looked_for_the_longest(script: Callable[..., Scripted]) -> None:
    wanted = spec()
    (part,) = driver().resources(wanted, identity(wanted))
    assert part.call is CallClass.RECONCILE
    assert (part.consistency.kind, part.consistency.settle) == ("listed", 120.0)
    assert "from RUNNING" in (part.bills_cold or "")
    (own,) = driver(settle="5m").resources(wanted, identity(wanted))
    assert own.consistency.settle == 300.0
    cloud = script({**FREE, "POST /v2/serverless": reply(ENDPOINT)})
    create(cloud, wanted)
    assert cloud.asked[-1].call is CallClass.RECONCILE


def test_what_was_created_ends_when_it_was_said(script: Callable[..., Scripted]) -> None:
    cloud = script({**FREE, "POST /v2/serverless": reply({**ENDPOINT, "status": "INITIALIZING"})})
    found = create(cloud, spec())
    assert (found.attempt, found.expires_at, found.info.expires_at) == (None, 5e9, 5e9)
    assert found.info.assumed == ()  # what this call made is what it asked for
    assert (found.info.name, found.info.interface, found.info.state) == ("summarize", "function", State.STARTING)


def test_an_older_answer_with_the_id_alone_is_read(script: Callable[..., Scripted]) -> None:
    made = spec(kind="pod", auth="none").without("workers")
    cloud = script({**FREE, "POST /v2/pods": reply(789), f"GET {PODS}": pod("INITIALIZING")})
    assert create(cloud, made).id == "789"
    cloud = script({**FREE, "POST /v2/pods": reply(789), f"GET {PODS}": reply(code=10002)})
    with pytest.raises(errors.ProviderUnavailableError) as caught:
        create(cloud, made)
    assert caught.value.maybe_executed is True


@pytest.mark.parametrize("answer", [reply({"odd": 1}), reply([]), reply(code=77777), reply(code=10002)])
def test_an_answer_to_a_create_that_makes_no_sense_may_have_made_it(
    script: Callable[..., Scripted], answer: Response
) -> None:
    cloud = script({**FREE, "POST /v2/serverless": answer})
    with pytest.raises(errors.UniGPUError) as caught:
        create(cloud, spec())
    assert caught.value.maybe_executed is True


def test_a_secret_that_is_echoed_is_not_shown(script: Callable[..., Scripted]) -> None:
    """Of the environment as of the registry's login."""
    wanted = spec(secrets={"TOKEN": SecretStr("canary-1")}, registry={"username": "u", "password": "canary-2"})
    said = reply(code=10001, message="bad value canary-1 or canary-2", data={"got": ["canary-1", "canary-2"]})
    cloud = script({**FREE, "POST /v2/serverless": said, "POST /v2/container-registry-auths": said})
    for part in driver().resources(wanted, identity(wanted)):
        with pytest.raises(errors.InvalidRequestError) as caught:
            cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
        assert "canary" not in str(caught.value) + repr(caught.value) + str(caught.value.body)


def test_nothing_is_sent_where_no_acceptable_gpu_is_there(script: Callable[..., Scripted]) -> None:
    cloud = script(FREE)
    with pytest.raises(errors.NoCapacityError, match="it lists: NVIDIA_H100_80G, NVIDIA_RTX_4090_24G"):
        create(cloud, spec(gpu="B200"))
    assert cloud.operations == ["yotta.gpu.list"]


def test_a_pods_gpus_are_tried_in_order(script: Callable[..., Scripted]) -> None:
    none = reply(code=20001, message="no available GPU resources")
    made = spec(kind="pod", auth="none", gpu=["H100 SXM", "RTX 4090"]).without("workers")
    cloud = script({**FREE, "POST /v2/pods": [none, pod("INITIALIZING")]})
    create(cloud, made)
    sent = [request.json["gpuType"] for request in cloud.asked if request.operation == "yotta.pod.create"]
    assert sent == ["NVIDIA_H100_80G", "NVIDIA_RTX_4090_24G"]
    cloud = script({**FREE, "POST /v2/pods": none})
    with pytest.raises(errors.NoCapacityError):
        create(cloud, made)
    cloud = script({**FREE, "POST /v2/pods": reply(code=10002)})  # it may have been made: no other is tried
    with pytest.raises(errors.ProviderUnavailableError):
        create(cloud, made)
    assert cloud.operations.count("yotta.pod.create") == 1


def test_a_name_is_one_deployment_whatever_its_kind(script: Callable[..., Scripted]) -> None:
    wanted = spec()
    name = identity(wanted).provider_name
    cloud = script({**FREE, "GET /v2/pods": reply([{"id": 5, "name": name, "status": "RUNNING"}])})
    with pytest.raises(errors.NameConflict, match="exists on yotta as a pod") as caught:
        create(cloud, wanted)
    assert caught.value.fields == ("kind",)


# -- a cap on the price


def warm(cloud: Scripted, info: DeploymentInfo, cap: float | None, **options: Any) -> None:
    wanted = spec(workers=2) if cap is None else spec(workers=2, max_price=cap)
    cloud.run(driver(**options).warm(cloud.io, info, wanted, deadline=UNTIL))


def seen(cloud: Scripted, **options: Any) -> DeploymentInfo:
    found = cloud.run(driver(**options).read(cloud.io, INFO, deadline=UNTIL))
    assert found is not None
    return found


def test_a_price_above_the_cap_is_no_capacity(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": at("INITIALIZING", perHourPrice="0.69")})
    warm(cloud, seen(cloud), 0.7)
    with pytest.raises(errors.NoCapacityError, match=r"costs \$0\.69/h, more than max_price \(\$0\.50\)"):
        warm(cloud, seen(cloud), 0.5)
    whole = {"price_of": "endpoint"}
    warm(cloud, seen(cloud, **whole), 0.5, **whole)  # it counts both workers then


def test_a_price_comes_late_or_by_the_second_or_not_at_all(script: Callable[..., Scripted]) -> None:
    late = [at("INITIALIZING", perHourPrice=0), at("INITIALIZING"), at("RUNNING", perSecondPrice=0.0001)]
    cloud = script({f"GET {EP}": late})
    warm(cloud, seen(cloud), 0.4)
    cloud = script({f"GET {EP}": at("RUNNING")})
    with pytest.raises(errors.NoCapacityError, match="does not tell what a worker costs"):
        warm(cloud, seen(cloud), 0.4)
    cloud = script({})
    warm(cloud, INFO, None)  # no cap: nothing is asked
    own = {"prices": {"RTX 4090": 0.3, "H100 SXM": 0.4}}
    warm(cloud, INFO, 0.4, **own)  # none that is dearer by them was asked for
    cloud = script({f"GET {EP}": at("RUNNING")})
    with pytest.raises(errors.NoCapacityError, match="does not tell what a worker costs"):
        warm(cloud, seen(cloud), 0.4, prices={"RTX 4090": 0.3})
    cloud = script({f"GET {EP}": at("RUNNING", perHourPrice=0.5)})
    with pytest.raises(errors.NoCapacityError, match="costs"):  # what is told counts
        warm(cloud, seen(cloud, **own), 0.4, **own)


def test_a_price_counts_also_where_the_number_of_workers_is_not_told(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": at("INITIALIZING", perHourPrice=5, totalWorkers=None)})
    assert seen(cloud).rate.max_per_hour is None
    with pytest.raises(errors.NoCapacityError, match=r"costs \$5\.00/h"):
        warm(cloud, seen(cloud), 0.4)


def test_a_stopped_one_costs_nothing(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": at("STOPPED", perHourPrice=0.5)})
    assert (seen(cloud).rate.idle_per_hour, seen(cloud).rate.max_per_hour) == (0.0, 1.0)


# -- scaling, stopping, starting


def test_scaling_is_an_absolute_number(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": at("RUNNING"), f"PUT {EP}/workers": [reply(None), WRONG_STATE]})
    one = driver()
    cloud.run(one.scale(cloud.io, INFO, workers=(3, 3), deadline=UNTIL))
    assert cloud.asked[-1].params == (("count", "3"),)
    with pytest.raises(errors.ConflictError):
        cloud.run(one.scale(cloud.io, INFO, workers=(3, 3), deadline=UNTIL))
    cloud.run(one.scale(cloud.io, INFO, idle_timeout=5.0, deadline=UNTIL))  # there is none: nothing is sent
    assert len(cloud.asked) == 4


def test_zero_is_a_stop_and_a_stopped_one_is_started_first(script: Callable[..., Scripted]) -> None:
    cloud = script(
        {f"GET {EP}": [at("RUNNING"), at("STOPPED")], f"POST {EP}/stop": reply(None), f"POST {EP}/start": reply(None),
         f"PUT {EP}/workers": reply(None)}
    )  # fmt: skip
    cloud.run(driver().scale(cloud.io, INFO, workers=(0, 0), deadline=UNTIL))
    cloud.run(driver().scale(cloud.io, INFO, workers=(4, 4), deadline=UNTIL))
    changes = [name.removeprefix("yotta.endpoint.") for name in cloud.operations if not name.endswith(".get")]
    assert changes == ["stop", "start", "scale"]


def test_stopping_and_starting_are_success_where_it_is_so_already(script: Callable[..., Scripted]) -> None:
    one = driver()
    for status in ("STOPPED", "STOPPING"):
        cloud = script({f"GET {EP}": at(status)})
        cloud.run(one.stop(cloud.io, INFO, deadline=UNTIL))
    cloud = script({f"GET {EP}": at("INITIALIZING"), f"POST {EP}/stop": WRONG_STATE})
    with pytest.raises(errors.ConflictError):  # it runs on and bills: it has to be told again
        cloud.run(one.stop(cloud.io, INFO, deadline=UNTIL))
    for status in ("RUNNING", "INITIALIZING"):
        cloud = script({f"GET {EP}": at(status)})
        cloud.run(one.start(cloud.io, INFO, deadline=UNTIL))
        assert cloud.operations == ["yotta.endpoint.get"]
    cloud = script({f"GET {EP}": at("STOPPING")})
    with pytest.raises(errors.ConflictError, match="still stopping"):
        cloud.run(one.start(cloud.io, INFO, deadline=UNTIL))
    cloud = script({f"GET {PODS}": pod("PAUSED"), f"POST {PODS}/resume": reply(True)})
    cloud.run(one.stop(cloud.io, POD, deadline=UNTIL))
    cloud.run(one.start(cloud.io, POD, deadline=UNTIL))
    assert cloud.operations[-1] == "yotta.pod.resume"


def test_a_rehearsal_notes_the_change_and_asks_for_nothing_that_is_not_there(script: Callable[..., Scripted]) -> None:
    cloud = script({})
    for act in (driver().wake, driver().start):
        with pytest.raises(Recorded) as caught:
            cloud.run(act(RecordingIo(cloud.io), INFO, deadline=UNTIL))
        assert caught.value.request.operation == "yotta.endpoint.start"
    cloud.run(driver().warm(RecordingIo(cloud.io), INFO, spec(workers=2, max_price=1.0), deadline=UNTIL))
    assert cloud.asked == []


# -- tasks


def test_a_task_carries_our_id_our_envelope_and_our_headers(script: Callable[..., Scripted]) -> None:
    cloud = script({f"POST {EP}/tasks": reply({"taskId": "a" * 32})})
    one = driver()
    job = cloud.run(one.submit(cloud.io, INFO, call()))
    assert (job.id, job.status) == ("a" * 32, JobStatus.QUEUED)
    (asked,) = cloud.asked
    assert asked.json == {
        "taskId": "a" * 32, "workerPort": 8000, "processUri": "/invoke", "input": {"input": {"n": 1}},
        "headers": {"X-Unigpu-Job": "a" * 32, "X-Unigpu-Timeout": "600"},
    }  # fmt: skip
    assert (asked.role, asked.call, asked.limit_key) == ("jobs", CallClass.IDEMPOTENT, "yotta.task.submit")
    limit = one.limits["yotta.task.submit"]
    assert limit.rate + limit.burst == 40.0, "40 in any second, also right after a pause"
    assert one.submit_call is CallClass.IDEMPOTENT
    cloud.run(one.submit(cloud.io, INFO, call(input={})))  # in the envelope it is not empty
    foreign = INFO.model_copy(update={"route": "/v1/x", "worker_protocol": "foreign", "port": 9000})
    cloud.run(one.submit(cloud.io, foreign, call()))
    assert cloud.asked[-1].json == {
        "taskId": "a" * 32, "workerPort": 9000, "processUri": "/v1/x", "input": {"n": 1}
    }  # fmt: skip
    with pytest.raises(errors.UnsupportedError, match="empty input"):
        cloud.run(one.submit(cloud.io, foreign, call(input={})))


@pytest.mark.parametrize("code", [24000, 24002])
def test_a_task_that_is_refused_while_nothing_runs_has_not_run(script: Callable[..., Scripted], code: int) -> None:
    cloud = script({f"POST {EP}/tasks": reply(code=code)})
    with pytest.raises(errors.NoWorkerReady) as caught:
        cloud.run(driver().submit(cloud.io, INFO, call()))
    assert caught.value.maybe_executed is False


def test_what_is_not_known_of_a_task_is_told_apart(script: Callable[..., Scripted]) -> None:
    path = f"GET {EP}/tasks/a"
    for code, kind in ((24011, errors.JobExpired), (40402, errors.JobExpired), (24001, errors.DeploymentGone)):
        cloud = script({path: reply(code=code)})
        with pytest.raises(kind):
            cloud.run(driver().status(cloud.io, INFO, "a", deadline=UNTIL))
    cloud = script({f"POST {EP}/tasks": reply(code=10001, message="non-QUEUE endpoint")})
    with pytest.raises(errors.InvalidRequestError):
        cloud.run(driver().submit(cloud.io, INFO, call()))


def test_a_task_cannot_be_cancelled(script: Callable[..., Scripted]) -> None:
    cloud = script({})
    with pytest.raises(errors.UnsupportedError, match="no call for that") as caught:
        cloud.run(driver().cancel(cloud.io, INFO, "a", deadline=UNTIL))
    assert (caught.value.capability, bool(caught.value.source)) == ("cancel", True)
    assert cloud.asked == []


# -- before anything is sent


@pytest.mark.parametrize(("fields", "words"), [
    ({"gpu": "L4"}, "Yotta has none of L4"), ({"gpu": ["H100 SXM:2", "RTX 4090"]}, "the same number"),
    ({"gpu": "H100 SXM:3"}, "power of two"),
    ({"interface": "http", "handler": None, "command": ["x"], "auth": {"env": "T"}}, "gateway of an ALB"),
    ({"registry": {"username": "u", "password": "p"}, "provider_options": {"yotta": {"credential_id": 5}}},
     "one of the two"),
    ({"interface": "http", "handler": None, "command": ["x"], "provider_options": {"yotta": {"service_mode": "QUEUE"}}},
     "no address for requests"),
    ({"provider_options": {"yotta": {"shm_gb": 4}}}, "shm_gb: an endpoint's"),
    ({"provider_options": {"yotta": {"volumes": [{"id": 7, "path": "/data"}]}}}, "volumes: an endpoint cannot"),
    ({"kind": "pod", "auth": "none", "provider_options": {"yotta": {"webhook": "https://x.y"}}}, "a pod sends no"),
    ({"kind": "pod", "auth": "none", "provider_options": {"yotta": {"service_mode": "ALB"}}}, "no service mode"),
    ({"interface": "http", "handler": None, "command": ["x"], "provider_options": {"yotta": {"route": "/v1/x"}}},
     "names its path"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_sent(fields: dict[str, Any], words: str) -> None:
    refused = driver().check(spec(**fields)).refusals
    assert any(words in one.message for one in refused), refused


def test_a_spec_that_can_be_is_not_refused_and_a_small_disk_is_made_larger() -> None:
    told = driver().check(spec(disk=5))
    assert told.refusals == ()
    assert [(one.field, one.got) for one in told.adaptations] == [("disk", "20 GB")]
    assert driver().check(spec(gpu="24GB", max_price=1.0)).refusals == ()


def test_the_users_own_prices_tell_rates_and_caps_beforehand() -> None:
    one = driver(prices={"rtx4090": 0.4, "H100 SXM": 1.85})
    assert one.rate(spec(workers=3)).max_per_hour == pytest.approx(5.55)
    assert driver().rate(spec(workers=3)).max_per_hour is None
    assert any("price table" in refusal.message for refusal in one.check(spec(max_price=0.3)).refusals)
    with pytest.raises(ConfigurationError, match="prices"):
        driver(prices={"RTX 40900": 1.0})


@pytest.mark.parametrize(
    "base", ["http://api.yottalabs.ai", "ftp://x", "https://u@x", "https://x?y=1", "nothing", "https://"]
)
def test_the_control_plane_is_https_but_on_this_machine(base: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        driver(base_url=base)
    with contextlib.suppress(ConfigurationError):
        assert driver(base_url="http://127.0.0.1:8080/").base == "http://127.0.0.1:8080"
