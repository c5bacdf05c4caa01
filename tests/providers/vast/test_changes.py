"""Changing what exists: what was asked for is what Vast gets, and what was not asked for stays."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from vast_world import FIELDS, KEY, Account

from unigpu import Client
from unigpu.errors import ConfigurationError, InvalidResponseError
from unigpu.models import Scaling


def endpoint(account: Account) -> dict[str, Any]:
    """The one endpoint, as Vast has it."""
    http = httpx.Client(transport=account, headers={"authorization": f"Bearer {KEY}"})
    (row,) = http.get("https://console.vast.ai/api/v0/endptjobs/").json()["results"]
    return dict(row)


def test_a_least_load_is_changed_by_an_update_and_taken_back_by_another(client: Client, account: Account) -> None:
    """The hint of `scale` says so where more than one hot worker was asked for."""
    app = client.deploy(**FIELDS, workers=(1, 4), wait=False)
    app = client.update(app, provider_options={"vast": {"min_load": 250.0}}, wait=False)
    assert endpoint(account)["min_load"] == 250.0
    client.update(app, provider_options={"vast": {"reliability": 0.9}}, wait=False)
    assert endpoint(account)["min_load"] == 1.0


def test_an_update_of_something_else_starts_nothing_that_was_scaled_down(client: Client, account: Account) -> None:
    options = {"vast": {"min_load": 250.0}}
    app = client.deploy(**FIELDS, workers=(0, 4), provider_options=options, wait=False)
    client.scale(app, (0, 4))
    assert endpoint(account)["min_load"] == 0.0
    client.update(app, env={"MODE": "b"}, wait=False)
    assert endpoint(account)["min_load"] == 0.0


def test_another_scaling_target_keeps_the_longest_wait_that_was_set(client: Client, account: Account) -> None:
    options = {"vast": {"max_queue_time": 90.0}}
    client.deploy(**FIELDS, workers=(0, 4), provider_options=options, wait=False)
    again = {**FIELDS, "workers": (0, 4), "provider_options": options, "wait": False}
    client.deploy(**again, scaling=Scaling(signal="queue_delay", target=5.0))
    now = endpoint(account)
    assert (now["target_queue_time"], now["max_queue_time"]) == (5.0, 90.0)


def test_a_new_price_that_vast_understood_otherwise_is_an_error(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, wait=False)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET" and request.url.path.rstrip("/") == "/api/v0/workergroups":
            body = json.loads(account._inner.handle_request(request).read())
            for row in body["results"]:
                row["search_query"] = {"dph_total": {"lte": 1.0}}  # the old one
            return httpx.Response(200, json=body, request=request)
        return None

    account.before = before
    with pytest.raises(InvalidResponseError, match=r"max_price is \$0.5") as caught:
        client.update(app, max_price=0.5, wait=False)
    assert caught.value.may_bill == (f"endpoint {app.id}",)
    assert account.of("POST", "/update_workers/") == []


@pytest.mark.parametrize("value", ["two words", "x -p 22:22", "it's", "a\nb"])
def test_a_secret_that_would_be_read_as_docker_flags_is_refused_unseen(
    client: Client, account: Account, value: str
) -> None:
    with pytest.raises(ConfigurationError, match="TOKEN") as caught:
        client.deploy(**FIELDS, secrets={"TOKEN": value}, accept="secrets_on_shared_hosts", wait=False)
    assert value not in str(caught.value)
    assert account.of("POST", "/api/v0/template/") == []
    app = client.deploy(**FIELDS, secrets={"TOKEN": "plain"}, accept="secrets_on_shared_hosts", wait=False)
    with pytest.raises(ConfigurationError, match="TOKEN"):
        client.update(app, secrets={"TOKEN": value}, wait=False)
    assert account.of("PUT", "/api/v1/template/") == []


def test_a_secret_that_is_too_long_for_a_pod_is_refused_unseen(client: Client, account: Account) -> None:
    pod = {"name": "chat", "kind": "pod", "interface": "http", "image": "me/chat:1", "gpu": "RTX 4090",
           "max_price": 1.0, "ttl": 3600, "auth": "none", "accept": ["secrets_on_shared_hosts"]}  # fmt: skip
    with pytest.raises(ConfigurationError, match=r"TOKEN.*256"):
        client.deploy(**pod, secrets={"TOKEN": "x" * 300}, wait=False)
    assert [one for one in account.sent if one.method == "PUT"] == []


def test_a_login_that_would_be_read_as_several_words_is_refused_for_a_pod(client: Client, account: Account) -> None:
    pod = {"name": "chat", "kind": "pod", "interface": "http", "image": "me/chat:1", "gpu": "RTX 4090",
           "max_price": 1.0, "ttl": 3600, "auth": "none"}  # fmt: skip
    with pytest.raises(ConfigurationError, match="registry"):
        client.deploy(**pod, registry={"username": "me", "password": "two words"}, wait=False)
    assert [one for one in account.sent if one.method == "PUT"] == []


def test_a_worker_that_loads_is_counted_with_its_gpu(client: Client, account: Account) -> None:
    """https://docs.vast.ai/guides/serverless/pricing: serverless machines bill their GPU while they load."""
    app = client.deploy(**FIELDS, wait="worker")
    (worker,) = client.workers(app)
    row = {"id": int(worker.id), "actual_status": "loading", "label": None, "dph_total": 0.4, "disk_space": 10.0,
           "storage_cost": 0.1}  # fmt: skip
    other = {**row, "id": 1}

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.rstrip("/") == "/api/v1/instances":
            return httpx.Response(200, json={"instances": [row, other], "next_token": None}, request=request)
        return None

    account.before = before
    found = {one.id: one.per_hour for one in client.inventory()}
    assert found[worker.id] == 0.4
    assert found["1"] == 0.0  # a plain instance: not before it runs
