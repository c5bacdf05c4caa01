from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import SecretStr
from runpod_script import Account, problem

from unigpu import Client
from unigpu.errors import (
    ConfigurationError,
    DeadlineExceeded,
    InsufficientBalanceError,
    JobFailed,
    NameConflict,
    NoCapacityError,
    NoWorkerReady,
    StreamInterrupted,
    UniGPUError,
    UnsupportedError,
    WorkerLost,
)
from unigpu.models import State

POD: dict[str, Any] = {
    "name": "chat", "kind": "pod", "interface": "http", "image": "me/chat:1", "command": "python serve.py",
    "gpu": ["L40S", "RTX 4090"], "ttl": "6h", "port": 8080, "auth": "none",
}  # fmt: skip


def test_a_pod_says_everything_that_runpod_leaves_to_chance(client: Client, account: Account) -> None:
    pod = client.deploy(**POD, disk=40)
    (body,) = account.bodies("POST", "/v2/pods")
    assert body["gpu"] == {"id": "NVIDIA L40S", "count": 1}
    assert body["cloud"] == "SECURE"
    assert body["ports"] == ["8080/http"]
    assert body["env"]["PORT"] == "8080"
    assert (body["entrypoint"], body["cmd"]) == (["python"], ["serve.py"])
    assert body["disk"] == 40
    assert pod.state is State.READY
    assert pod.url == f"https://{pod.id}-8080.proxy.runpod.net"
    assert pod.rate.idle_per_hour == 0.69  # the pod's own cost


def test_what_is_acceptable_is_tried_in_its_order_and_in_each_cloud(client: Client, account: Account) -> None:
    free = "There are no longer any instances available with the requested specifications."
    tried: list[tuple[str, str]] = []

    def before(method: str, path: str) -> Any:
        if (method, path) != ("POST", "/v2/pods"):
            return None
        body = account.bodies("POST", "/v2/pods")[-1]
        tried.append((body["gpu"]["id"], body["cloud"]))
        return (400, problem(400, free)) if len(tried) < 4 else None

    account.before = before
    client.deploy(**POD, provider_options={"runpod": {"cloud": ["SECURE", "COMMUNITY"]}})
    assert tried == [
        ("NVIDIA L40S", "SECURE"), ("NVIDIA GeForce RTX 4090", "SECURE"),
        ("NVIDIA L40S", "COMMUNITY"), ("NVIDIA GeForce RTX 4090", "COMMUNITY"),
    ]  # fmt: skip


def test_nothing_left_is_no_capacity_with_what_was_tried(client: Client, account: Account) -> None:
    account.before = lambda m, p: (400, problem(400, "no longer any instances available")) if m == "POST" else None
    with pytest.raises(NoCapacityError, match="tried 2 kinds") as caught:
        client.deploy(**POD)
    assert caught.value.maybe_executed is False
    assert not account.rows["pods"]


@pytest.mark.parametrize(("status", "error"), [(402, InsufficientBalanceError), (422, Exception)])
def test_what_another_gpu_would_not_help_ends_the_search(
    client: Client, account: Account, status: int, error: type[Exception]
) -> None:
    account.before = lambda m, p: (status, problem(status, "no")) if m == "POST" else None
    with pytest.raises(error):
        client.deploy(**POD)
    assert account.count("POST", "/v2/pods") == 1


def test_dear_ones_are_not_tried(client: Client, account: Account) -> None:
    client.deploy(**POD, max_price=0.7)
    (body,) = account.bodies("POST", "/v2/pods")
    assert body["gpu"]["id"] == "NVIDIA GeForce RTX 4090"


def test_a_pod_must_say_who_may_call_it_and_when_it_ends(client: Client, account: Account) -> None:
    with pytest.raises(ConfigurationError, match="auth"):
        client.deploy(**{key: value for key, value in POD.items() if key != "auth"})
    with pytest.raises(ConfigurationError, match="ttl"):
        client.deploy(**{key: value for key, value in POD.items() if key != "ttl"})
    assert account.count("POST", ".*") == 0


def test_its_token_is_put_into_the_container_as_a_secret_and_sent_by_request(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "very-secret-token")
    pod = client.deploy(**{**POD, "auth": {"env": "CHAT_TOKEN"}})
    (secret,) = account.bodies("POST", "/v2/account/secrets")
    assert secret["value"] == "very-secret-token"
    (body,) = account.bodies("POST", "/v2/pods")
    assert body["env"]["CHAT_TOKEN"].startswith("{{ RUNPOD_SECRET_")
    assert body["env"]["UNIGPU_AUTH"] == "CHAT_TOKEN"
    assert client.request(pod, "GET", "/v1/models").status == 200
    assert account.sent[-1].headers["authorization"] == "Bearer very-secret-token"
    client.teardown(pod)
    assert not account.rows["secrets"]
    assert not account.rows["pods"]


def test_running_is_not_ready_before_its_port_answers(client: Client, account: Account) -> None:
    pod = client.deploy(**POD)
    account.proxy = 502, {}
    assert client.explain(pod).state is State.STARTING
    with pytest.raises(NoWorkerReady):
        client.request(pod, "GET", "/", start_timeout=10)
    account.proxy = 404, {"detail": "no page there"}  # a server answers
    assert client.wait_ready(pod).state is State.READY


def test_it_is_stopped_and_started_and_says_what_it_still_costs(client: Client, account: Account) -> None:
    pod = client.deploy(**POD)
    stopped = client.stop(pod)
    assert stopped.state is State.STOPPED
    assert "volume disk" in str(stopped.info.bills)
    client.stop(pod)  # already so is success
    assert account.count("POST", "/v2/pods/.*/action") == 1
    assert client.start(pod).state is State.READY
    assert account.bodies("POST", "/v2/pods/.*/action") == [{"action": "stop"}, {"action": "start"}]


def test_a_gpu_that_is_gone_at_start_is_no_capacity(client: Client, account: Account) -> None:
    pod = client.deploy(**POD)
    client.stop(pod)
    text = "there are no instances available on its host"
    account.before = lambda m, p: (400, problem(400, text)) if p.endswith("/action") else None
    with pytest.raises(NoCapacityError):
        client.start(pod)


def test_a_pod_is_not_scaled_and_has_its_volume_where_it_is_asked_for(client: Client, account: Account) -> None:
    pod = client.deploy(**POD, volumes=[{"name": "models", "size_gb": 20, "path": "/data"}])
    volume = account.only("network-volumes")
    (body,) = account.bodies("POST", "/v2/pods")
    assert body["mounts"] == {"network": [{"volumeId": volume["id"], "path": "/data"}]}
    with pytest.raises(UnsupportedError):
        client.scale(pod, 2)
    client.teardown(pod)
    assert account.only("network-volumes") is volume


def test_a_volume_is_in_the_secure_cloud_only(client: Client, account: Account) -> None:
    both = {"runpod": {"cloud": ["SECURE", "COMMUNITY"]}}
    with pytest.raises(UnsupportedError, match="SECURE"):
        client.deploy(**POD, volumes=[{"name": "models", "size_gb": 20}], provider_options=both)
    assert not account.sent


FUNCTION: dict[str, Any] = {
    "name": "fn", "kind": "pod", "handler": "app:f", "image": "i:1", "gpu": "L4", "ttl": None, "auth": {"env": "TOK"},
}  # fmt: skip


def test_a_function_on_a_pod_is_called_at_its_worker_with_its_own_token(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOK", "very-secret-token")
    pod = client.deploy(**FUNCTION)
    account.proxy = 200, {"output": {"n": 2}, "execution_s": 0.5}
    result = client.invoke(pod, {"n": 1})
    assert (result.output, result.timing.execution, result.worker_id) == ({"n": 2}, 0.5, pod.id)
    last = account.sent[-1]
    assert str(last.url) == f"https://{pod.id}-8000.proxy.runpod.net/invoke"
    assert last.headers["authorization"] == "Bearer very-secret-token"
    account.proxy = 200, {"error": {"type": "ValueError", "message": "no such page"}}
    with pytest.raises(JobFailed, match="no such page"):
        client.invoke(pod, {"n": 1})
    with pytest.raises(UnsupportedError, match="submit"):
        client.submit(pod, {"n": 1})


@pytest.mark.parametrize(
    ("status", "idempotent", "error"),
    [
        (524, False, WorkerLost),
        (429, False, DeadlineExceeded),
        (503, False, DeadlineExceeded),
        (502, False, WorkerLost),
        (502, True, DeadlineExceeded),
    ],
)
def test_what_the_proxy_says_by_itself_is_told_from_an_answer(
    client: Client,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    idempotent: bool,
    error: type[Exception],
) -> None:
    monkeypatch.setenv("TOK", "t")
    pod = client.deploy(**FUNCTION)
    account.before = lambda m, p: (status, {}) if p == "/invoke" else None
    with pytest.raises(error):
        client.invoke(pod, {"n": 1}, start_timeout=10, timeout=20, idempotent=idempotent)


def test_a_worker_that_dies_with_a_call_does_not_get_it_twice_unless_it_may(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy says 502 for "nobody listens" and for "it died" alike."""
    monkeypatch.setenv("TOK", "t")
    pod = client.deploy(**FUNCTION)
    account.before = lambda m, p: (502, {}) if p == "/invoke" else None
    with pytest.raises(WorkerLost) as caught:
        client.invoke(pod, {"n": 1})
    assert caught.value.maybe_executed is True
    assert account.count("POST", "/invoke") == 1
    monkeypatch.delenv("TOK")
    web = client.deploy(**POD)
    account.before = lambda m, p: (502, {}) if p == "/pay" else None
    with pytest.raises(WorkerLost):
        client.request(web, "POST", "/pay", json={})
    assert account.count("POST", "/pay") == 1


def test_a_call_waits_for_a_pod_that_starts_and_is_sent_once(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOK", "t")
    pod = client.deploy(**FUNCTION)
    looks = iter([(502, {}), (204, None), (503, {})])
    account.before = lambda m, p: next(looks, None) if p == "/ping" else None
    account.proxy = 200, {"output": 2}
    assert client.invoke(pod, {"n": 1}).output == 2
    assert account.count("POST", "/invoke") == 1


def test_a_generator_on_a_pod_streams_and_its_end_is_said(
    client: Client, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOK", "very-secret-token")
    pod = client.deploy(**FUNCTION)
    account.before = lambda m, p: (200, {}) if p == "/ping" else None
    account.proxy = 200, b'{"chunk":1}\n{"chunk":{"two":"\xc3\xa4"}}\n{"done":true,"execution_s":0.5}\n'
    with client.stream(pod, {"n": 2}) as stream:
        assert list(stream) == [1, {"two": "ä"}]
        assert stream.result is not None
        assert stream.result.output == [1, {"two": "ä"}]
    last = account.sent[-1]
    assert last.headers["accept"] == "application/x-ndjson"
    assert last.headers["authorization"] == "Bearer very-secret-token"
    assert json.loads(last.content) == {"input": {"n": 2}}


@pytest.mark.parametrize(
    ("body", "error", "partial"),
    [
        (b'{"chunk":1}\n', StreamInterrupted, (1,)),
        (b'{"chunk":1}\n{"chunk', StreamInterrupted, (1,)),
        (b"<html>oops</html>\n", StreamInterrupted, ()),
        (b'{"chunk":1}\n{"error":{"type":"ValueError","message":"no such page"}}\n', JobFailed, None),
    ],
)
def test_a_stream_of_a_pod_that_breaks_off_says_so_and_is_not_asked_again(
    client: Client,
    account: Account,
    monkeypatch: pytest.MonkeyPatch,
    body: bytes,
    error: type[UniGPUError],
    partial: tuple[int, ...] | None,
) -> None:
    monkeypatch.setenv("TOK", "t")
    pod = client.deploy(**FUNCTION)
    account.before = lambda m, p: (200, {}) if p == "/ping" else None
    account.proxy = 200, body
    with pytest.raises(error) as caught, client.stream(pod, {"n": 2}) as stream:
        list(stream)
    assert account.count("POST", "/invoke") == 1
    if partial is not None:
        assert caught.value.partial == partial


def test_another_program_on_a_pod_does_not_stream(client: Client, account: Account) -> None:
    pod = client.deploy(**{**POD, "interface": "function"}, provider_options={"runpod": {"route": "/run"}})
    with pytest.raises(UnsupportedError, match="invoke"), client.stream(pod, {"n": 2}) as stream:
        list(stream)
    assert account.count("POST", "/run") == 0


def test_a_worker_that_loads_is_not_ready(client: Client, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOK", "t")
    pod = client.deploy(**FUNCTION)
    account.before = lambda m, p: (204, None) if p == "/ping" else None
    assert client.explain(pod).state is State.STARTING


def test_secrets_of_a_pod_are_references_too(client: Client, account: Account) -> None:
    client.deploy(**POD, secrets={"HF_TOKEN": SecretStr("hf_very_secret")})
    assert "hf_very_secret" not in str(account.bodies("POST", "/v2/pods"))


def test_a_name_is_one_deployment_whatever_its_kind(client: Client, account: Account, fields: dict[str, Any]) -> None:
    client.deploy(**POD)
    with pytest.raises(NameConflict, match="as a pod"):
        client.deploy(**{**fields, "name": "chat"})
    client.deploy(**fields)
    with pytest.raises(NameConflict, match="as an endpoint"):
        client.deploy(**{**POD, "name": "summarize"})
    assert (len(account.rows["pods"]), len(account.rows["serverless"])) == (1, 1)


def test_a_pod_stays_in_the_regions_that_were_asked_for(client: Client, account: Account) -> None:
    client.deploy(**POD, regions=["US"])
    (body,) = account.bodies("POST", "/v2/pods")
    assert set(body["dataCenterIds"]) == {"US-KS-2", "EU-RO-1"}  # what the catalogue tells for these countries
    assert {one.url.params["countryCodes"] for one in account.sent if one.url.path == "/v2/catalog/gpus"} == {"US"}
