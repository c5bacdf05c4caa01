"""Every request of a life, held to Vast's own OpenAPI file. Where the file is behind the service, it is said here by
name, with the source.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openapi import OpenAPI
from vast_world import ENGINE, FIELDS, Account

from unigpu import Client
from unigpu.models.spec import BearerToken

GENERATED = "https://github.com/vast-ai/docs/pull/915: Vast's specification made from its code, newer than the file"
SDK = "vastai 1.9.1 on PyPI"

DEVIATIONS: dict[tuple[str, str], dict[str, str]] = {
    ("POST", "/api/v0/endptjobs"): {
        "min_cold_load": f"{SDK}, data/endpoint.py; {GENERATED}",
        "max_queue_time": f"{SDK}, data/endpoint.py; {GENERATED}",
        "target_queue_time": f"{SDK}, data/endpoint.py; {GENERATED}",
        "inactivity_timeout": f"{SDK}, data/endpoint.py; {GENERATED}",
    },
    ("PUT", "/api/v0/endptjobs/{id}"): {
        "min_cold_load": f"{SDK}, data/endpoint.py; {GENERATED}",
        "max_queue_time": f"{SDK}, data/endpoint.py; {GENERATED}",
        "target_queue_time": f"{SDK}, data/endpoint.py; {GENERATED}",
        "inactivity_timeout": f"{SDK}, data/endpoint.py; {GENERATED}",
        "endpoint_state": f"{SDK}, api/endpoints.py; https://docs.vast.ai/guides/serverless/managing-scale",
    },
    ("PUT", "/api/v0/workergroups/{id}"): {
        "cold_workers": "sent at create, where the file has it; at update a newer service ignores it",
        "max_workers": "sent at create, where the file has it; at update a newer service ignores it",
    },
    ("POST", "/route"): {
        "request_idx": f"{SDK}, serverless/client/client.py; {GENERATED} (post_route)",
        "replay_timeout": f"{SDK}, serverless/client/client.py; {GENERATED} (post_route)",
    },
    ("GET", "/api/v0/instances/{id}"): {"?owner": f"{SDK}, api/instances.py"},
    ("POST", "/get_endpoint_logs"): {
        "id": f"{SDK}, api/endpoints.py: by id, not by name",
        "endpoint": f"{SDK}, api/endpoints.py: by id, not by name",
        "tail": f"{SDK}, api/endpoints.py",
        "the body": "by id, not by name",
    },
    ("PUT", "/api/v0/asks/{id}"): {
        "client_id": f"{SDK}, api/instances.py: always \"me\"",
        "env": f"{SDK}, data/instance.py: a mapping; the file says a text",
    },
    ("POST", "/api/v0/bundles"): {
        "num_gpus.eq": f"{SDK}, api/query.py: any operator; the file has two for this field",
        "order": f"{SDK}, api/query.py: a list of pairs; the file asks for two of them",
        "type": f"{SDK}, api/query.py: \"on-demand\"; the file has \"ondemand\"",
    },
    ("DELETE", "/api/v0/instances/{id}"): {"the body": f"{SDK}, api/instances.py: sends {{}}"},
}  # fmt: skip

NOT_IN_THE_FILE = {
    ("GET", "/api/v0/endptjobs/{id}"): f"{SDK}, serverless/client/client.py; {GENERATED}",
    ("PUT", "/api/v1/template"): f"{SDK}, api/offers.py: newer clients edit by id and hash; {GENERATED}",
    ("POST", "/update_workers"): f"{SDK}, api/endpoints.py",
}


def check(spec: OpenAPI, account: Account) -> int:
    checked = 0
    for request in account.sent:
        if request.url.host not in ("console.vast.ai", ENGINE) or request.url.path.startswith("/instance-logs/"):
            continue
        body = json.loads(request.content) if request.content else None
        try:
            written, _ = spec.route(request.method, str(request.url))
        except AssertionError:
            path = "/".join("{id}" if part.isdigit() else part for part in request.url.path.rstrip("/").split("/"))
            assert (request.method, path) in NOT_IN_THE_FILE, f"{request.method} {path}: in no file, and not named"
            continue
        allow = DEVIATIONS.get((request.method, written.rstrip("/")), {})
        if (request.method, written.rstrip("/")) == ("DELETE", "/api/v0/instances/{id}"):
            body = None
        spec.check_request(request.method, str(request.url), body=body, allow=allow)
        checked += 1
    return checked


@pytest.fixture
def spec() -> OpenAPI:
    return OpenAPI.load("vast.openapi.yaml")


def test_every_request_of_a_serverless_life_is_as_vast_documents_it(
    client: Client, account: Account, spec: OpenAPI
) -> None:
    app = client.deploy(
        **{**FIELDS, "gpu": ["RTX 4090", "L40S"]}, workers=(0, 3), regions=["EU", "US"], env={"MODE": "fast"}, disk=40,
        wait="worker",
    )  # fmt: skip
    assert client.invoke(app, {"n": 1}).output == {"got": {"n": 1}}
    client.scale(app, (1, 4))
    client.update(app, env={"MODE": "slow"})
    list(client.logs(app))
    client.workers(app)
    client.stop(app)
    client.start(app)
    client.deployments()
    client.offers(gpu="RTX 4090")
    client.teardown(app)
    assert check(spec, account) >= 25
    assert account.to_workers


def test_every_request_of_a_pods_life_is_as_vast_documents_it(
    client: Client, account: Account, spec: OpenAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT_TOKEN", "canary-token")
    fields: dict[str, Any] = {
        "name": "chat", "kind": "pod", "interface": "http", "image": "ghcr.io/me/chat:2", "gpu": "RTX 4090",
        "max_price": 1.0, "ttl": None, "auth": BearerToken(env="CHAT_TOKEN"), "command": ["serve", "--port", "8000"],
    }  # fmt: skip
    app = client.deploy(**fields, accept=["secrets_on_shared_hosts"])
    client.stop(app)
    client.start(app)
    list(client.logs(app))
    client.teardown(app)
    assert check(spec, account) >= 8


def test_a_deviation_that_is_named_is_one(client: Client, account: Account, spec: OpenAPI) -> None:
    """What the file has by now is named no longer."""
    for (method, path), source in NOT_IN_THE_FILE.items():
        with pytest.raises(AssertionError):
            spec.route(method, path.replace("{id}", "1"))
        assert source
    assert all(why for named in DEVIATIONS.values() for why in named.values())


def test_nothing_is_left_to_a_default_of_vasts(connect: Callable[..., Client], account: Account) -> None:
    """Omitted limits rent up to twenty machines, and a search without a price rents at any."""
    client = connect(account)
    client.deploy(**FIELDS, workers=(0, 3), idle_timeout=90)
    (endpoint,) = account.bodies("POST", "/api/v0/endptjobs/")
    told = {k: v for k, v in endpoint.items() if k != "endpoint_name"}
    assert told == {
        "min_load": 0.0, "min_cold_load": 0.0, "cold_workers": 0, "cold_mult": 1.0, "target_util": 0.9,
        "max_workers": 3, "max_queue_time": 30.0, "target_queue_time": 10.0, "inactivity_timeout": 90,
    }  # fmt: skip
    (group,) = account.bodies("POST", "/api/v0/workergroups/")
    assert group["search_params"] == (
        "verified=True rentable=True rented=False num_gpus=1 gpu_name=RTX_4090 dph_total<=1 reliability>=0.95 "
        "direct_port_count>=1 disk_space>=10"
    )
    assert (group["cold_workers"], group["max_workers"]) == (0, 3)
    assert "endpoint_name" not in group  # with an unknown name Vast makes an endpoint of its own
    (template,) = account.bodies("POST", "/api/v0/template/")
    assert template["private"] is True
    assert template["args_str"] == "python -m unigpu.worker app:summarize"
