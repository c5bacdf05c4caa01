"""What Yotta replies, in each form that its documents, clients and scripts show; and what nobody has ever seen."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openapi import OpenAPI
from yotta_script import BASE, ENDPOINT, KEY, Scripted, driver, identity, reply, spec

from unigpu import errors
from unigpu.driver import DeploymentInfo, Headers, JobStatus, Response, State, WorkerState, epoch, shaped
from unigpu.errors import InvalidResponseError, UniGPUError
from unigpu.providers.yotta import api, calls, translate
from unigpu.providers.yotta.options import Options
from unigpu.providers.yotta.wire import EndpointWire, PodWire, TaskWire, VolumeWire, WorkerWire

EP = "/v2/serverless/378888638324150969"
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969",
    details={"service_mode": "QUEUE"},
)  # fmt: skip
UNTIL = 1e9
API = api.YottaAPI(base=BASE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)

# -- success and failure


@pytest.mark.parametrize("data", [{"id": "1"}, [], True, None, 5, "x"])
def test_success_is_the_code_and_data_may_be_anything(data: Any) -> None:
    assert API.body_of(API.checked(reply(data))) == data
    assert API.body_of(API.checked(reply(data, code="10000"))) == data  # type: ignore[arg-type]  # as a text, too


MEANT = [
    (10001, errors.InvalidRequestError), (10002, errors.ProviderUnavailableError),
    (10004, errors.PermissionDeniedError),
    (10007, errors.NotFoundError), (11000, errors.NotFoundError), (11001, errors.ConflictError),
    (11002, errors.PermissionDeniedError), (12000, errors.NotFoundError), (12001, errors.ConflictError),
    (13000, errors.NotFoundError), (14000, errors.NotFoundError), (20001, errors.InvalidRequestError),
    (20002, errors.InvalidRequestError), (24000, errors.ProviderUnavailableError), (24001, errors.NotFoundError),
    (24002, errors.ConflictError), (24011, errors.NotFoundError), (25002, errors.ConflictError),
    (429, errors.RateLimitError),
    (40001, errors.InvalidRequestError), (40101, errors.AuthenticationError), (40402, errors.NotFoundError),
    (44003, errors.NotFoundError), (50001, errors.ProviderUnavailableError),
]  # fmt: skip


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize(("code", "kind"), MEANT)
def test_every_code_is_its_error_whatever_the_http_status(code: int, kind: type[UniGPUError], status: int) -> None:
    with pytest.raises(kind) as caught:
        API.checked(reply(code=code, message="said so", status=status), deployment="summarize")
    error = caught.value
    assert isinstance(error, errors.APIStatusError)
    assert error.status == code
    assert f"code {code}: said so" in error.message
    assert error.maybe_executed is (code in (10002, 50001))
    assert error.deployment == "summarize"


def test_every_code_of_the_table_is_tried() -> None:
    assert {code for code, _ in MEANT} == set(api.KINDS)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, errors.AuthenticationError), (403, errors.PermissionDeniedError), (404, errors.NotFoundError),
     (409, errors.ConflictError), (429, errors.RateLimitError), (500, errors.ProviderUnavailableError)],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"denied", b"<html>", b'{"message": "no"}', b'{"code": 77777}'])
def test_a_status_without_a_known_code_is_its_own_error(status: int, kind: type[UniGPUError], content: bytes) -> None:
    with pytest.raises(kind):
        API.checked(Response(status=status, headers=Headers(), content=content))


@pytest.mark.parametrize(
    "content",
    [b"", b"ok", b"[]", b"{}", b'{"something": "else"}', b'{"code": true}', b'{"code": 77777}', b'{"code": null}'],
)
def test_an_http_200_without_a_known_code_is_neither_success_nor_refusal(content: bytes) -> None:
    with pytest.raises(InvalidResponseError) as caught:
        API.checked(Response(status=200, headers=Headers(), content=content))
    assert caught.value.maybe_executed is True


@pytest.mark.parametrize(
    ("words", "kind"),
    [("No available GPU resources", errors.NoCapacityError), ("insufficient stock", errors.NoCapacityError),
     ("sold out", errors.NoCapacityError), ("Insufficient balance", errors.InsufficientBalanceError),
     ("gpu type [X] not supported", errors.InvalidRequestError)],
)  # fmt: skip
def test_no_stock_and_no_money_are_told_by_their_words(words: str, kind: type[UniGPUError]) -> None:
    with pytest.raises(kind):
        API.checked(reply(code=20001, message=words))


def test_a_key_that_is_echoed_is_not_shown(script: Callable[..., Scripted]) -> None:
    cloud = script({f"GET {EP}": reply(code=40101, message=f"bad key {KEY}")})
    with pytest.raises(errors.AuthenticationError) as caught:
        cloud.run(driver().read(cloud.io, INFO, deadline=UNTIL))
    assert KEY not in str(caught.value) + repr(caught.value.__dict__)


@pytest.mark.parametrize(("code", "told"), [(429, 429), (10002, 500), (50001, 500), (24002, 200), (10000, 200)])
def test_what_passes_by_waiting_is_told_to_the_repetition(code: int, told: int) -> None:
    assert API.status_of(reply(code=code)) == told
    assert API.status_of(reply(code=code, status=503)) == 503


# -- shapes


def test_every_documented_example_reply_is_read(script: Callable[..., Scripted]) -> None:
    task = {
        "taskId": "my_task_001", "endpointId": 456, "endpointName": "llama-inference", "status": "SUCCESS",
        "workerUrl": "https://worker.example.com", "webhook": "https://webhook.example.com/callback",
        "deliveryStatus": "SUCCESS", "deliveryAttempts": 1, "error": None, "input": {"prompt": "Hello, world!"},
        "output": {"response": "Hi there!"}, "headers": {"Authorization": "Bearer token123"},
        "createdAt": 1705306200000, "updatedAt": 1705306260000, "deliveredAt": 1705306260000,
    }  # fmt: skip
    pod = {
        "id": 789, "name": "my-pod", "image": "pytorch/pytorch:2.0.0", "imageRegistry": "https://index.docker.io/v1/",
        "gpuType": "NVIDIA_RTX_4090_24G", "gpuDisplayName": "RTX 4090", "gpuCount": 1, "status": "RUNNING",
        "createdAt": 1705306200000, "sshCmd": "ssh root@pod-ip -p 10022",
    }  # fmt: skip
    log = {"timestamp": "2024-01-15T10:30:15.123Z", "log": "Starting inference service...", "offset": 12345}
    logs = {"logs": [log], "hasMore": True, "nextSearchAfterTime": "1705306215123", "nextSearchAfterOffset": "12400"}
    worker = {"workerId": "w-1", "status": "running", "createdAt": 1705306200000}
    stock = [{"gpuType": "NVIDIA_RTX_4090_24G", "regions": [
        {"region": "us-east-1", "regionName": "US East", "available": True, "vmTypeId": 1}]}]  # fmt: skip
    for path, data in {
        EP: ENDPOINT, f"{EP}/tasks/my_task_001": task, "/v2/pods/789": pod, f"{EP}/workers/1/logs": logs,
        f"{EP}/workers": [worker], "/v2/vms/types": stock,
    }.items():  # fmt: skip
        OpenAPI.load("yotta-v2.openapi.yaml").check_reply("GET", BASE + path, 200, json.loads(reply(data).content))
    info = translate.endpoint_info(shaped(EndpointWire, ENDPOINT, "x"), BASE, Options())
    assert (info.state, info.workers, info.ready_workers, info.name, info.attempt) == (
        State.READY,
        (2, 2),
        2,
        None,
        None,
    )
    assert info.interface == "function"
    assert "interface" in info.assumed
    seen = translate.pod_info(shaped(PodWire, pod, "x"), Options())
    assert (seen.id, seen.state, seen.created_at, seen.workers) == ("789", State.READY, 1705306200.0, (1, 1))
    foreign = INFO.model_copy(update={"worker_protocol": "foreign"})
    done = calls.job_of(shaped(TaskWire, task, "x"), foreign)
    assert (done.status, done.output, done.submitted_at) == (JobStatus.DONE, {"response": "Hi there!"}, 1705306200.0)
    one = translate.worker_of(shaped(WorkerWire, worker, "x"))
    assert (one.id, one.state, one.started_at) == ("w-1", WorkerState.IDLE, 1705306200.0)
    cloud = script({f"GET {EP}/workers/1/logs": [reply(logs), reply({"logs": []})]})

    async def read() -> list[str]:
        return [line.text async for line in driver().logs(cloud.io, INFO, worker="1", follow=False, tail=5)]

    assert cloud.run(read()) == ["Starting inference service..."]


@pytest.mark.parametrize(
    "text",
    [1705306200000, 1705306200, 1705306200.0, "1705306200000", "1705306200", "2024-01-15T08:10:00Z",
     "2024-01-15T08:10:00+00:00", "2024-01-15T09:10:00+01:00", "2024-01-15 08:10:00.000", "2024-01-15 08:10:00"],
)  # fmt: skip
def test_every_form_of_a_time_is_read(text: Any) -> None:
    assert epoch(text) == datetime.datetime(2024, 1, 15, 8, 10, tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize("text", [None, "", "yesterday", True, -1, 0, float("nan"), float("inf"), [], {}, "9" * 400])
def test_what_is_no_time_is_none(text: Any) -> None:
    assert epoch(text) is None


@given(value=JSON)
def test_no_reply_breaks_the_reader_but_with_our_error(value: Any) -> None:
    for model in (EndpointWire, PodWire, TaskWire, WorkerWire, VolumeWire):
        with contextlib.suppress(InvalidResponseError):
            shaped(model, value, "x")


@given(extra=st.dictionaries(st.sampled_from(sorted(
    {"cost", "perHourPrice", "perSecondPrice", "domain", "expose", "environmentVars", "envVars", "createdAt",
    "totalWorkers",
     "runningWorkers", "serviceMode", "image", "webhook"})), JSON, max_size=6))  # fmt: skip
def test_an_odd_field_beside_id_name_and_status_never_hides_a_deployment(extra: dict[str, Any]) -> None:
    """One that is not seen would be made twice."""
    row = {"id": 5, "name": "summa-ugabcdefghijkl", "status": "RUNNING", **extra}
    info = translate.endpoint_info(shaped(EndpointWire, row, "x"), BASE, Options())
    assert (info.id, info.provider_name) == ("5", "summa-ugabcdefghijkl")
    pod = translate.pod_info(shaped(PodWire, row, "x"), Options())
    assert (pod.id, pod.provider_name) == ("5", "summa-ugabcdefghijkl")


def test_volumes_of_both_documents_are_read() -> None:
    old = {"id": 7, "name": "data", "storageType": "CEPH", "sizeInGb": 100, "cost": 1.5, "createdAt": 1705306200000}
    new = {
        "id": "7",
        "name": "data",
        "type": "CEPH",
        "status": "active",
        "sizeBytes": "1073741824",
        "sizeInGb": 1,
        "cost": "1.5",
    }
    assert shaped(VolumeWire, old, "x").id == shaped(VolumeWire, new, "x").id == "7"


# -- what a status means


@pytest.mark.parametrize(
    ("status", "running", "state"),
    [("INITIALIZING", 0, State.STARTING), ("RUNNING", 2, State.READY), ("running", 1, State.READY),
     ("RUNNING", 0, State.STARTING),
     ("RUNNING", None, State.READY), ("STOPPING", 1, State.DEGRADED), ("STOPPED", 0, State.STOPPED),
     ("FAILED", 0, State.FAILED),
     ("TERMINATED", 0, State.GONE), ("FROBNICATING", 1, State.UNKNOWN), ("", 0, State.UNKNOWN)],
)  # fmt: skip
def test_an_endpoints_status(status: str, running: int | None, state: State) -> None:
    wire = shaped(EndpointWire, {**ENDPOINT, "status": status, "runningWorkers": running}, "x")
    info = translate.endpoint_info(wire, BASE, Options())
    assert (info.state, info.raw_state) == (state, status)


@pytest.mark.parametrize(
    ("status", "state"),
    [("INITIALIZE", State.STARTING), ("INITIALIZING", State.STARTING), ("RUNNING", State.READY),
     ("PAUSING", State.DEGRADED),
     ("Stopping", State.DEGRADED), ("PAUSED", State.STOPPED), ("STOPPED", State.STOPPED),
     ("TERMINATING", State.DELETING),
     ("TERMINATED", State.GONE), ("FAILED", State.FAILED), ("NEW", State.UNKNOWN)],
)  # fmt: skip
def test_a_pods_status_has_three_names(status: str, state: State) -> None:
    assert translate.pod_info(PodWire(id="1", name="p", status=status), Options()).state is state


@pytest.mark.parametrize(("status", "output", "means"), [
    ("PROCESSING", None, JobStatus.QUEUED), ("DELIVERED", None, JobStatus.RUNNING),
    ("DELIVERED", {"output": 1}, JobStatus.DONE), ("SUCCESS", {"output": 1, "execution_s": 0.5}, JobStatus.DONE),
    ("SUCCESS", '{"output": 1}', JobStatus.DONE), ("success", {"output": None}, JobStatus.DONE),
    ("SUCCESS", {"error": {"type": "ValueError", "message": "no"}}, JobStatus.FAILED),
    ("SUCCESS", None, JobStatus.FAILED),
    ("SUCCESS", [1], JobStatus.FAILED), ("FAILED", None, JobStatus.FAILED), ("QUEUED_AGAIN", None, JobStatus.UNKNOWN),
])  # fmt: skip
def test_a_tasks_status(status: str, output: Any, means: JobStatus) -> None:
    job = calls.job_of(TaskWire(task_id="t", status=status, output=output), INFO)
    assert (job.status, job.raw_status) == (means, status)


def test_a_handlers_failure_is_the_handlers_and_a_failed_task_was_lost_by_its_worker() -> None:
    failed = {"error": {"type": "ValueError", "message": "no such page"}, "execution_s": 0.25}
    mine = calls.job_of(TaskWire(task_id="t", status="SUCCESS", output=failed), INFO)
    assert mine.error is not None
    assert (mine.error.type, mine.error.message, mine.lost) == ("ValueError", "no such page", False)
    assert (mine.timing.execution, mine.timing.queue) == (0.25, None)
    lost = calls.job_of(TaskWire(task_id="t", status="FAILED", error="connection reset"), INFO)
    assert lost.error is not None
    assert (lost.lost, lost.error.message) == (True, "connection reset")
    stored = TaskWire(task_id="t", status="FAILED", output={"error": "connection reset"})  # the platform's own words
    assert calls.job_of(stored, INFO).lost
    foreign = INFO.model_copy(update={"worker_protocol": "foreign"})
    assert not calls.job_of(TaskWire(task_id="t", status="FAILED", error="500"), foreign).lost
    busy = calls.job_of(
        TaskWire(task_id="t", status="FAILED", output={"error": {"type": "busy", "message": "x"}}), INFO
    )
    assert busy.lost


# -- what the environment tells, where it is shown


def test_a_shown_environment_tells_everything_and_a_hidden_one_is_said_to_be_assumed() -> None:
    wanted = spec(execution_timeout=30, concurrency=4, idempotent=True)
    constants = identity(wanted, attempt="b" * 32, expires_at=5e9).constants
    for key in ("environmentVars", "envVars"):
        pairs = [{"key": name, "value": value} for name, value in constants.items()]
        info = translate.endpoint_info(shaped(EndpointWire, {**ENDPOINT, key: pairs}, "x"), BASE, Options())
        assert (info.name, info.namespace, info.attempt, info.expires_at) == ("summarize", "default", "b" * 32, 5e9)
        assert (info.execution_timeout, info.concurrency, info.idempotent, info.assumed) == (30.0, 4, True, ())
    hidden = translate.endpoint_info(shaped(EndpointWire, ENDPOINT, "x"), BASE, Options())
    assert (hidden.name, hidden.attempt, hidden.expires_at, hidden.port) == (None, None, None, 8000)
    assert set(hidden.assumed) == {
        "interface", "port", "route", "execution_timeout", "concurrency", "idempotent", "worker_protocol"
    }  # fmt: skip


@pytest.mark.parametrize("value", ["junk", "", "HTTP", "nan"])
def test_a_constant_that_a_user_overwrote_hides_no_deployment(script: Callable[..., Scripted], value: str) -> None:
    constants = {**identity(spec()).constants, "UNIGPU_INTERFACE": value, "UNIGPU_CONCURRENCY": value}
    row = {**ENDPOINT, "envVars": [{"key": key, "value": text} for key, text in constants.items()]}
    cloud = script({"GET /v2/serverless": reply([row, ENDPOINT]), "GET /v2/pods": reply([row])})
    odd, other, pod = cloud.run(driver().deployments(cloud.io, deadline=UNTIL))
    assert (odd.name, odd.interface, odd.concurrency) == ("summarize", "function", 1)
    assert (pod.name, pod.interface, other.name) == ("summarize", "http", None)


def test_what_a_handle_knows_is_kept_by_a_look_that_tells_less(script: Callable[..., Scripted]) -> None:
    info = INFO.model_copy(
        update={
            "interface": "http",
            "port": 9000,
            "execution_timeout": 30.0,
            "route": "/x",
            "expires_at": 5.0,
            "namespace": "n",
        }
    )
    cloud = script({f"GET {EP}": reply({**ENDPOINT, "serviceMode": "ALB"})})
    now = cloud.run(driver().read(cloud.io, info, deadline=UNTIL))
    assert now is not None
    assert (now.interface, now.port, now.execution_timeout, now.route) == ("http", 9000, 30.0, "/x")
    assert (now.expires_at, now.name, now.namespace, now.state) == (5.0, "summarize", "n", State.READY)


@pytest.mark.parametrize("domain", [
    "39q67x443xvy.yottadeos.com", "https://39q67x443xvy.yottadeos.com", "39q67x443xvy.yottadeos.com/",
])  # fmt: skip
def test_the_gateways_origin_is_what_the_control_plane_named(domain: str) -> None:
    assert translate.origin(domain, BASE) == "https://39q67x443xvy.yottadeos.com"


@pytest.mark.parametrize("domain", [
    "", "http://a.com", "ftp://a.com", "user@a.com", "a.com/path", "a.com?x=1", "a.com#x", "a.com:0",
    "a.com:99999", "a b.com",
    "a\n.com", "a\\b.com", "https://", "ａ.com",
])  # fmt: skip
def test_a_domain_of_another_form_is_none(domain: str) -> None:
    assert translate.origin(domain, BASE) is None


def test_beside_a_control_plane_on_this_machine_the_gateway_may_be_http() -> None:
    home = "http://127.0.0.1:8080"
    assert translate.origin("127.0.0.1:8080/alb/5", home) == "http://127.0.0.1:8080/alb/5"
    assert translate.origin("x.localhost:8080", home) == "http://x.localhost:8080"
