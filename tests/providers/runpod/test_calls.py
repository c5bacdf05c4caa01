from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from runpod_script import Account, problem
from runpod_script import pod as pod_row

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.errors import (
    ConfigurationError,
    DeadlineExceeded,
    DeploymentGone,
    InvalidInput,
    JobExpired,
    JobFailed,
    NoWorkerReady,
    PayloadTooLarge,
    ResultUnknown,
    StreamInterrupted,
    UnsupportedError,
    WorkerFailed,
)
from unigpu.models import JobStatus
from unigpu.providers.runpod import calls
from unigpu.providers.runpod.wire import JobWire


@pytest.fixture
def app(client: Client, account: Account, fields: dict[str, Any]) -> Any:
    account.health = {"workers": {"idle": 1, "ready": 1}}
    return client.deploy(**fields)


def job_calls(account: Account) -> list[str]:
    return [f"{one.method} {one.url.path.split('/')[3]}" for one in account.sent if one.url.host == "api.runpod.ai"]


def test_a_call_is_a_job_and_is_polled(client: Client, account: Account, app: Any) -> None:
    account.sent.clear()
    account.next_job = [
        {"status": "IN_QUEUE"},
        {"status": "IN_PROGRESS", "output": "50 %", "workerId": "w1"},  # progress is no result
        {"status": "COMPLETED", "output": {"n": 2}, "workerId": "w1", "delayTime": 824, "executionTime": 3391},
    ]
    result = client.invoke(app, {"n": 1})
    assert result.output == {"n": 2}
    assert result.worker_id == "w1"
    assert result.timing.execution == 3.391
    assert result.timing.queue is None  # delayTime is queue and cold start together
    assert [c for c in job_calls(account) if "health" not in c] == ["POST run", *["GET status"] * 3]
    (body,) = account.bodies("POST", "/v2/.*/run")
    assert body == {"input": {"n": 1}, "policy": {"executionTimeout": 600_000}}


def test_an_idempotent_call_is_one_exchange(client: Client, account: Account, app: Any) -> None:
    account.sent.clear()
    assert client.invoke(app, {"n": 1}, idempotent=True).output == {"ok": True}
    assert job_calls(account) == ["POST runsync"]
    assert account.sent[0].url.params["wait"] == "5000"


def test_an_idempotent_call_that_takes_longer_is_polled_by_its_id(client: Client, account: Account, app: Any) -> None:
    account.sent.clear()
    account.next_job = [{"status": "IN_PROGRESS"}, {"status": "COMPLETED", "output": 7}]
    result = client.invoke(app, {"n": 1}, idempotent=True)
    assert result.output == 7
    assert result.job_id is not None
    assert result.job_id.startswith("sync-")
    assert job_calls(account)[:2] == ["POST runsync", "GET status"]


def test_a_submit_returns_at_once_also_where_it_may_run_twice(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    account.health = {"workers": {"idle": 1}}
    app = client.deploy(**fields, idempotent=True)
    account.next_job = [{"status": "IN_QUEUE"}, {"status": "COMPLETED", "output": 1}]
    job = client.submit(app, {"n": 1})
    assert account.count("POST", "/v2/.*/run") == 1
    assert job.result().output == 1
    assert job.status() is JobStatus.DONE


def test_a_lost_answer_of_a_submit_is_told_and_never_repeated(client: Client, account: Account, app: Any) -> None:
    account.before = lambda m, p: httpx.ReadError("reset") if p.endswith("/run") else None
    with pytest.raises(ResultUnknown):
        client.invoke(app, {"n": 1})
    assert account.count("POST", "/v2/.*/run") == 1


def test_a_lost_connection_while_polling_loses_nothing(client: Client, account: Account, app: Any) -> None:
    broken: list[int] = []

    def before(method: str, path: str) -> Any:
        if "/status/" in path and len(broken) < 3:
            broken.append(1)
            return httpx.ReadError("reset")
        return None

    account.before = before
    assert client.invoke(app, {"n": 1}).output == {"ok": True}
    assert account.count("POST", "/v2/.*/run") == 1


def test_a_call_that_is_out_of_time_cancels_its_job(client: Client, account: Account, app: Any) -> None:
    account.next_job = [{"status": "IN_PROGRESS"}]
    with pytest.raises(DeadlineExceeded) as caught:
        client.invoke(app, {"n": 1}, timeout=5)
    assert account.count("POST", "/v2/.*/cancel/.*") == 1
    assert caught.value.job_id in account.jobs


def test_a_worker_error_is_parsed(client: Client, account: Account, app: Any) -> None:
    said = {
        "error_type": "<class 'app.PageMissing'>", "error_message": "no such page",
        "error_traceback": "Traceback …", "hostname": "h", "worker_id": "w1", "runpod_version": "1.12.0",
    }  # fmt: skip
    account.next_job = [{"status": "FAILED", "error": json.dumps(said)}]
    with pytest.raises(JobFailed, match="no such page") as caught:
        client.invoke(app, {"n": 1})
    assert (caught.value.error_type, caught.value.traceback) == ("PageMissing", "Traceback …")


@pytest.mark.parametrize(
    ("said", "type", "message"),
    [
        ("job timed out after 1 retries", "Error", "job timed out after 1 retries"),
        ('{"error_type": "<class \'ValueError\'>", "error_message": "m"}', "ValueError", "m"),
        ({"type": "ValueError", "message": "m"}, "ValueError", "m"),
        ("[1, 2]", "Error", "[1, 2]"),
        (None, "Error", ""),
        (17, "Error", "17"),
    ],
)
def test_every_form_of_an_error_is_read(said: object, type: str, message: str) -> None:
    job = calls.job_of(JobWire(id="j", status="FAILED", error=said))
    assert job.error is not None
    assert (job.error.type, job.error.message) == (type, message)


def test_a_job_past_its_timeout_failed(client: Client, account: Account, app: Any) -> None:
    account.next_job = [{"status": "TIMED_OUT"}]
    with pytest.raises(JobFailed) as caught:
        client.invoke(app, {"n": 1})
    assert caught.value.error_type == "ExecutionTimeout"


def test_a_status_that_we_do_not_know_is_no_end(client: Client, account: Account, app: Any) -> None:
    account.next_job = [{"status": "REHYDRATING"}, {"status": "COMPLETED", "output": 1}]
    assert client.invoke(app, {"n": 1}).output == 1


def test_a_result_that_is_kept_no_more_is_told_after_three_looks(client: Client, account: Account, app: Any) -> None:
    job = client.submit(app, {"n": 1})
    del account.jobs[job.id]
    account.sent.clear()
    with pytest.raises(JobExpired, match="30 minutes"):
        job.result()
    assert account.count("GET", "/v2/.*/status/.*") == 3


def test_a_job_of_an_endpoint_that_is_gone_is_told_as_that(client: Client, account: Account, app: Any) -> None:
    job = client.submit(app, {"n": 1})
    account.rows["serverless"].clear()
    with pytest.raises(DeploymentGone):
        job.result()
    with pytest.raises(DeploymentGone):
        client.invoke(app, {"n": 1})


@pytest.mark.parametrize(
    ("input", "error"),
    [
        ({}, UnsupportedError),
        ({"text": "x" * 10_000_001}, PayloadTooLarge),
        ({"now": object()}, InvalidInput),
        ({"n": float("nan")}, InvalidInput),
    ],
)
def test_an_input_that_runpod_would_lose_is_refused_before_it_is_sent(
    client: Client, account: Account, app: Any, input: Any, error: type
) -> None:
    account.sent.clear()
    with pytest.raises(error):
        client.invoke(app, input)
    assert not account.sent


def test_a_long_run_gets_a_life_that_is_long_enough(client: Client, account: Account, fields: dict[str, Any]) -> None:
    account.health = {"workers": {"idle": 1}}
    client.invoke(client.deploy(**fields, execution_timeout="2d"), {"n": 1})
    (body,) = account.bodies("POST", "/v2/.*/run")
    assert body["policy"] == {"executionTimeout": 172_800_000, "ttl": 259_200_000}


def test_a_stream_is_drained_to_its_end(client: Client, account: Account, app: Any) -> None:
    account.next_job = [{"status": "COMPLETED", "output": [0, 1, 2, 3]}]
    pages = [
        {"status": "IN_QUEUE", "stream": []},
        {"status": "IN_PROGRESS", "stream": [{"output": 0}, {"output": 1}]},
        {"status": "COMPLETED", "stream": [{"output": 2}, {"output": 3}]},  # the last chunks ride with the end
        {"status": "COMPLETED", "stream": []},
    ]
    made: list[str] = []

    def before(method: str, path: str) -> Any:
        if "/stream/" in path and path not in made:
            made.append(path)
            account.streams[path.rpartition("/")[2]] = pages
        return None

    account.before = before
    with client.stream(app, {"n": 4}) as stream:
        assert list(stream) == [0, 1, 2, 3]
    assert stream.result is not None


def lose_the_second_page(account: Account, error: Any) -> list[int]:
    seen: list[int] = []

    def before(method: str, path: str) -> Any:
        if "/stream/" not in path:
            return None
        seen.append(1)
        page = {"status": "IN_PROGRESS", "stream": [{"output": len(seen)}]}
        return error if len(seen) == 2 else (200, page)

    account.before = before
    return seen


@pytest.mark.parametrize("error", [httpx.ReadError("reset"), (502, {}), (200, {"stream": "cut"})])
def test_a_part_of_a_stream_that_is_lost_is_taken_from_the_whole(
    client: Client, account: Account, app: Any, error: Any
) -> None:
    account.next_job = [{"status": "IN_PROGRESS"}, {"status": "COMPLETED", "output": [1, 2, 3, 4]}]
    seen = lose_the_second_page(account, error)
    with client.stream(app, {"n": 4}) as stream:
        assert list(stream) == [1, 2, 3, 4]
    assert len(seen) == 2


@pytest.mark.parametrize("output", [None, [], {"of": "another kind"}])
def test_a_part_that_is_lost_for_good_is_told_and_never_passed_over(
    client: Client, account: Account, app: Any, output: Any
) -> None:
    account.next_job = [{"status": "IN_PROGRESS"}, {"status": "COMPLETED", "output": output}]
    seen = lose_the_second_page(account, httpx.ReadError("reset"))
    got: list[Any] = []
    with pytest.raises(StreamInterrupted) as caught, client.stream(app, {"n": 4}) as stream:
        got += stream  # what came before the break
    assert caught.value.partial == (1,)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("health", "cause"),
    [
        ({"workers": {}}, "cold"),
        ({"workers": {"initializing": 1}}, "starting"),
        ({"workers": {"throttled": 2}}, "no_capacity"),
        ({"jobs": {"inQueue": 1}, "workers": {}}, "starting"),
        ({"workers": {"unhealthy": 1}}, "crash_loop"),
        ({"workers": {"ready": 1, "idle": 1}}, "ready"),
    ],
)
def test_explain_tells_cold_from_starting_from_full_from_crashing(
    client: Client, account: Account, app: Any, health: Any, cause: str
) -> None:
    account.health = health
    kinds = {"initializing": "INITIALIZING", "throttled": "THROTTLED", "unhealthy": "UNHEALTHY", "ready": "IDLE"}
    account.workers = [
        {"id": f"w{i}", "status": kinds[name], "gpuCount": 1, "isStale": False}
        for name, count in health["workers"].items()
        for i in range(count)
        if name in kinds
    ]
    account.log = 'id: 2026-11-24T00:00:00Z\ndata: {"source":"container","line":"boom","ts":"2026-11-24T00:00:00Z"}\n\n'
    told = client.explain(app)
    assert told.cause == cause
    if "throttled" in health["workers"]:
        assert "no capacity" in str(told)
    if cause == "crash_loop":
        assert [line.text for line in told.logs] == ["boom"]


def test_a_start_that_the_account_does_not_allow_is_explained(client: Client, account: Account, app: Any) -> None:
    account.health = {"jobs": {"inQueue": 1}, "workers": {}}
    account.next_job = [{"status": "IN_QUEUE"}]
    account.limits = 200, {"spendRate": {"limit": 80, "current": 80}, "serverlessWorkers": {"limit": 5, "used": 1}}
    with pytest.raises(NoWorkerReady, match="spending limit"):
        client.invoke(app, {"n": 1}, start_timeout=20)
    account.limits = 403, problem(403, "scope")
    account.balance = 200, {"balanceAmount": 0, "billingMode": "PREPAID"}
    with pytest.raises(NoWorkerReady, match="prepaid"):
        client.invoke(app, {"n": 1}, start_timeout=20)


def test_a_crash_loop_ends_a_call_early_and_shows_the_log(client: Client, account: Account, app: Any) -> None:
    account.next_job = [{"status": "IN_QUEUE"}]
    account.health = {"jobs": {"inQueue": 1}, "workers": {"unhealthy": 1}}
    account.workers = [{"id": "w1", "status": "UNHEALTHY", "gpuCount": 1, "isStale": False}]
    account.log = 'data: {"source":"container","line":"ImportError: torch"}\n\n'
    with pytest.raises(WorkerFailed) as caught:
        client.invoke(app, {"n": 1}, start_timeout=600)
    assert caught.value.reason == "crash_loop"
    assert caught.value.logs == ("ImportError: torch",)


def test_logs_come_from_every_worker_in_the_order_of_their_time(client: Client, account: Account, app: Any) -> None:
    account.workers = [{"id": f"w{i}", "status": "RUNNING", "gpuCount": 1, "isStale": False} for i in (1, 2)]
    account.log = (
        'id: 1\ndata: {"source":"container","line":"one","ts":"2026-11-24T00:00:01Z"}\n\n'
        'id: 2\r\ndata: {"source":"system","line":"two","ts":"2026-11-24T00:00:02Z"}\r\n\r\n'
        ": a comment\n\ndata: not json\n\n"
    )
    lines = list(client.logs(app, tail=100))
    assert [line.text for line in lines] == ["not json", "not json", "one", "one", "two", "two"]
    assert {line.worker_id for line in lines} == {"w1", "w2"}
    asked = [one for one in account.sent if one.url.path.endswith("/logs")]
    assert {one.url.params["tail"] for one in asked} == {"100"}
    assert {one.headers["accept"] for one in asked} == {"text/event-stream"}


def test_offers_are_the_catalogue_with_stock_price_and_places(client: Client, account: Account) -> None:
    offers = client.offers(gpu=["L40S", "L4"])
    assert [(one.gpu, one.price_per_hour) for one in offers] == [("L4", 0.68), ("L40S", 1.9)]
    assert offers[0].available == "HIGH"
    assert offers[0].details["data_centers"] == {"US-KS-2": "HIGH", "EU-RO-1": "LOW"}
    pods = client.offers(gpu="L4", kind="pod")
    assert {(one.details["cloud"], one.price_per_hour) for one in pods} == {("SECURE", 0.39), ("COMMUNITY", 0.2)}


def test_a_limit_that_is_used_up_is_waited_for_before_it_is_hit(
    client: Client, account: Account, clock: InstantClock, fields: dict[str, Any]
) -> None:
    answer = account.handle_request

    def limited(request: httpx.Request) -> httpx.Response:
        reply = answer(request)
        if request.url.host == "api.runpod.io":
            reply.headers["ratelimit"] = '"minute";r=0;t=12, "hour";r=2800;t=1812'
            reply.headers["ratelimit-policy"] = '"minute";q=60;w=60, "hour";q=3000;w=3600'
        return reply

    account.handle_request = limited  # type: ignore[method-assign]  # one more header on each reply
    list(client.deployments())
    before = clock.now()
    list(client.deployments())
    assert clock.now() - before >= 12


# -- http ------------------------------------------------------------------------------------------


@pytest.fixture
def web(client: Client, account: Account) -> Any:
    account.health = {"workers": {"ready": 1, "running": 1}}
    return client.deploy(name="web", interface="http", image="me/web:1", command="serve", gpu="L4", port=5000)


def test_a_request_goes_to_the_endpoints_own_host_with_the_accounts_key(
    client: Client, account: Account, web: Any
) -> None:
    reply = client.request(web, "POST", "/v1/generate?x=1", json={"q": 1})
    assert reply.json() == {"served": True}
    last = account.sent[-1]
    assert str(last.url) == f"https://{web.id}.api.runpod.ai/v1/generate?x=1"
    assert web.url == f"https://{web.id}.api.runpod.ai"


def test_the_servers_own_errors_are_its_answers(client: Client, account: Account, web: Any) -> None:
    for status, body in ((404, {"detail": "no page"}), (400, {"error": "no workers available"}), (502, {})):
        account.edge = status, body, {"x-runpod-worker-id": "w1"}
        assert client.request(web, "GET", "/x").status == status


@pytest.mark.parametrize(
    ("status", "body"),
    [(503, {"error": "no workers available"}), (400, {"error": "timed out waiting for worker"})],
)
def test_no_worker_is_waited_for_and_then_told(
    client: Client, account: Account, web: Any, status: int, body: dict[str, str]
) -> None:
    account.health = {"workers": {"initializing": 1}}
    account.edge = status, body, {}
    with pytest.raises(NoWorkerReady):
        client.request(web, "GET", "/x", start_timeout=30)
    tries = len([one for one in account.sent if one.url.host.startswith(str(web.id))])
    assert 2 <= tries <= 30


def test_the_edges_word_on_the_key_is_an_error_of_the_key(client: Client, account: Account, web: Any) -> None:
    account.edge = 401, {"status": 401, "title": "Unauthorized", "detail": "invalid api key"}, {}
    with pytest.raises(Exception, match="invalid api key") as caught:
        client.request(web, "GET", "/x")
    assert type(caught.value).__name__ == "AuthenticationError"


def test_a_callers_own_token_is_refused_where_the_key_must_be(client: Client, account: Account, web: Any) -> None:
    with pytest.raises(ConfigurationError, match="Authorization"):
        client.request(web, "GET", "/x", headers={"authorization": "Bearer mine"})


def test_a_queue_workers_openai_route_is_an_http_deployment_on_a_queue(client: Client, account: Account) -> None:
    account.health = {"workers": {"idle": 1}}
    app = client.deploy(
        name="llm", interface="http", image="runpod/worker-v1-vllm:v2", gpu="L4",
        provider_options={"runpod": {"endpoint_type": "QUEUE"}},
    )  # fmt: skip
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["type"] == "QUEUE"
    assert "ports" not in body
    reply = client.request(app, "POST", "/v1/chat/completions", json={"model": "m"})
    assert reply.json() == {"openai": "/v1/chat/completions"}
    assert account.sent[-1].url.path == f"/v2/{app.id}/openai/v1/chat/completions"


# -- what costs money ------------------------------------------------------------------------------


def test_the_inventory_counts_workers_that_start_disks_that_stay_and_machines_of_clusters(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    client.deploy(**fields, workers=(0, 3))
    account.health = {"workers": {"running": 1, "ready": 1, "initializing": 1}}
    gpu = {"id": "NVIDIA L4", "count": 1}
    body = {"env": {}, "ports": [], "image": "i", "cloud": "SECURE", "gpu": gpu, "disk": 50}
    disks = {"mounts": {"persistent": {"size": 100, "path": "/workspace"}}}
    account.rows["pods"] = {
        "p1": {**pod_row(body), **disks, "id": "p1", "name": "runs", "cost": 0.5},
        "p2": {**pod_row(body), **disks, "id": "p2", "name": "stopped", "status": "EXITED", "cost": 0.0},
    }
    items = {one.name: one for one in client.inventory(provider="runpod")}
    assert items["summarize"].per_hour == pytest.approx(2.2)
    assert (items["runs"].per_hour, items["runs"].per_month) == (0.5, 15.0)
    assert (items["stopped"].per_hour, items["stopped"].per_month) == (0.0, 20.0)
    (listed,) = [one for one in account.sent if "includeClusterPods=true" in str(one.url)]
    assert listed.url.path == "/v2/pods"


def test_the_inventory_shows_endpoints_pods_and_volumes_whoever_made_them(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    client.deploy(**fields, workers=(0, 2), volumes=[{"name": "models", "size_gb": 100}])
    account.rows["network-volumes"]["v9"] = {
        "id": "v9", "name": "theirs", "size": 2000, "dataCenter": "EU-RO-1", "type": "STANDARD",
    }  # fmt: skip
    account.rows["network-volumes"]["v8"] = {
        "id": "v8", "name": "fast", "size": 100, "dataCenter": "EU-RO-1", "type": "HIGH_PERFORMANCE",
    }  # fmt: skip
    account.health = {"workers": {"running": 1, "ready": 1}}
    items = {(one.kind, one.owner): one for one in client.inventory(provider="runpod")}
    assert items["endpoint", "ours"].per_hour == pytest.approx(1.1)
    assert items["volume", "ours"].per_month == pytest.approx(7.0)
    kept = {one.name: one.per_month for one in client.inventory(provider="runpod") if one.kind == "volume"}
    assert kept["theirs"] == pytest.approx(70.0 + 50.0)  # the first 1000 GB, and what is above them
    assert kept["fast"] == pytest.approx(14.0)
