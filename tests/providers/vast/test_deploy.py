"""Deploying, changing and ending: what is refused, what is asked for, and that nothing goes on being billed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from vast_world import FIELDS, KEY, Account

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.emulator.apis.vast.emulator import Quirks
from unigpu.errors import (
    AuthenticationError,
    ConfigurationError,
    InsufficientBalanceError,
    InvalidResponseError,
    QuotaExceededError,
    TeardownIncomplete,
    TransportError,
    UnsupportedError,
)
from unigpu.models import State


def answer(request: httpx.Request, status: int, body: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body), headers=headers, request=request)


def when(method: str, path: str, status: int, body: Any, **headers: str) -> Callable[[httpx.Request], Any]:
    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == method and request.url.path.rstrip("/") == path.rstrip("/"):
            return answer(request, status, body, **headers)
        return None

    return before


# -- what is refused before anything is sent --


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"workers": (2, 5)}, "load, not a number of hot workers"),
        ({"idle_timeout": 0}, "1 s is the least"),
        ({"secrets": {"TOKEN": "x"}, "accept": []}, "host that runs a worker can read"),
        ({"env": {"PROMPT": "say 'hello' now"}}, "no blanks, quotes"),
        ({"env": {"A": "x\n-e B=1"}}, "no blanks, quotes"),
        ({"command": ["sh", "-c", "serve --all"], "handler": None}, "no blanks or quotes"),
        ({"gpu": ["RTX 4090", "24GB"]}, "by names or by memory"),
        ({"gpu": ["RTX 4090", "L40S:2"]}, "one number of GPUs"),
        ({"gpu": ["A100 SXM 40GB", "RTX 4090"]}, "shares its name"),
        ({"max_price": None}, "say the most"),
        ({"gpu": None}, "say which are acceptable"),
        ({"volumes": [{"name": "models", "size_gb": 20}]}, "has none"),
        ({"provider_options": {"vast": {"tls": False}}}, "http_workers"),
        ({"provider_options": {"vast": {"cold_workers": 9}}}, "more than the 1 workers"),
        ({"provider_options": {"vast": {"search": "dph_total<=99"}}}, "max_price"),
        ({"provider_options": {"vast": {"target_queue_time": 60.0}}}, "target_queue_time"),
    ],
)
def test_what_vast_cannot_do_is_refused_before_anything_changes(
    client: Client, account: Account, fields: dict[str, Any], says: str
) -> None:
    asked = {key: value for key, value in {**FIELDS, **fields}.items() if value is not None}
    with pytest.raises((UnsupportedError, ConfigurationError), match=says):
        client.deploy(**asked)
    writes = [one for one in account.sent if one.method != "GET" and not one.url.path.startswith("/api/v0/bundles")]
    assert writes == []


def test_more_hot_workers_become_one_where_that_will_do(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, workers=(3, 5), on_unsupported="adapt", wait=False)
    assert app.info.workers == (1, 5)
    assert any(one.field == "workers" and "one hot worker" in one.got for one in app.adaptations)
    assert account.puts("min_load")[-1]["min_load"] == 1.0
    with pytest.raises(UnsupportedError, match="cannot be promised"):
        client.scale(app, (2, 5))


# -- what is asked for --


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        ("RTX 4090", "gpu_name=RTX_4090"),
        (["RTX 4090", "L40S"], "gpu_name in [RTX_4090,L40S]"),
        ("H100 SXM:2", "num_gpus=2 gpu_name=H100_SXM"),
        ("A100 SXM 80GB", "gpu_name in [A100_SXM4,A100_SXM] gpu_ram>=79"),
        ("A100 SXM 40GB", "gpu_name in [A100_SXM4,A100_SXM] gpu_ram<=46"),
        ("24GB", "num_gpus=1 gpu_ram>=23"),
        ("RTX 6000 Ada", "gpu_name=RTX_6000Ada"),
    ],
)
def test_gpus_are_asked_for_as_vast_spells_them(client: Client, account: Account, gpu: Any, says: str) -> None:
    client.deploy(**{**FIELDS, "gpu": gpu, "max_price": 9.0}, wait=False)
    (group,) = account.bodies("POST", "/api/v0/workergroups/")
    assert says in group["search_params"]


def test_where_and_on_what_it_may_run_is_in_the_search(client: Client, account: Account) -> None:
    options = {"datacenter": True, "reliability": 0.99, "min_inet_down": 500.0, "max_inet_cost": 0.01,
               "min_cuda": "12.4", "search": "cpu_ram>=32"}  # fmt: skip
    client.deploy(**FIELDS, regions=["US", "APAC"], disk=64, provider_options={"vast": options}, wait=False)
    (group,) = account.bodies("POST", "/api/v0/workergroups/")
    for words in ("datacenter=True", "reliability>=0.99", "geolocation in [US,AU,HK,", "inet_down>=500",
                  "inet_down_cost<=0.01", "inet_up_cost<=0.01", "cuda_max_good>=12.4", "disk_space>=64"):  # fmt: skip
        assert words in group["search_params"]
    assert group["search_params"].endswith(" cpu_ram>=32")


def test_machines_that_are_kept_are_asked_for_by_name_and_said_to_cost(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, workers=(0, 3), provider_options={"vast": {"cold_workers": 1}}, wait=False)
    assert account.puts("cold_workers")[-1]["cold_workers"] == 1
    assert app.rate.idle_per_hour is None  # their storage, at each host's own price
    assert any("storage is billed" in one.got for one in app.adaptations)


def test_a_price_that_vast_understood_otherwise_rents_nothing(client: Client, account: Account) -> None:
    """The units of a search's text are the server's: what it made of them is read before anything is warm."""

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET" and request.url.path.rstrip("/") == "/api/v0/workergroups":
            reply = account._inner.handle_request(request)
            body = json.loads(reply.read())
            for row in body["results"]:
                row["search_query"] = {"dph_total": {"lte": 1000.0}}
            return answer(request, 200, body)
        return None

    account.before = before
    with pytest.raises(InvalidResponseError, match="max_price"):
        client.deploy(**FIELDS, workers=(1, 2))
    assert account.puts("min_load") == []
    account.before = lambda request: None
    assert list(client.deployments()) == []
    assert len(account.of("DELETE", "/api/v0/template/")) == 1


# -- the account --


def test_a_key_that_vast_does_not_know_is_one_by_404_too(client: Client, account: Account) -> None:
    account.before = when("GET", "/api/v0/endptjobs/", 404, {"success": False, "msg": "Invalid user key"})
    with pytest.raises(AuthenticationError):
        client.deployments(provider="vast")


def test_no_endpoints_is_an_empty_list_and_any_other_400_an_error(client: Client, account: Account) -> None:
    account.before = when("GET", "/api/v0/endptjobs/", 400, {"success": False, "msg": "no endpoints for user"})
    assert list(client.deployments()) == []
    account.before = when("GET", "/api/v0/endptjobs/", 400, {"success": False, "msg": "invalid_request"})
    assert "vast" in client.deployments(provider=["vast"]).unreadable
    account.before = when("GET", "/api/v0/endptjobs/", 200, {"success": False, "msg": "try later"})
    assert "vast" in client.deployments(provider=["vast"]).unreadable


def test_a_used_up_search_quota_says_when_it_ends_and_is_not_asked_again(client: Client, account: Account) -> None:
    body = {"success": False, "error": "search_quota_exceeded", "msg": "search_quota_exceeded"}
    headers = {"x-ratelimit-reset": "1800003600", "date": "Fri, 15 Jan 2027 08:00:00 GMT"}
    account.before = when("POST", "/api/v0/bundles/", 429, body, **headers)
    error = client.offers(provider=["vast"], gpu="RTX 4090").unreadable["vast"]
    assert isinstance(error, QuotaExceededError)
    assert error.retry_after == 3600.0
    assert len(account.of("POST", "/api/v0/bundles/")) == 1


def test_an_account_without_money_says_so(client: Client, account: Account) -> None:
    account.before = when("POST", "/api/v0/endptjobs/", 400, {"success": False, "error": "missing_billing"})
    with pytest.raises(InsufficientBalanceError):
        client.deploy(**FIELDS)
    account.before = lambda request: None
    assert list(client.deployments()) == []


# -- changing --


def test_an_update_changes_the_template_and_rolls_the_workers(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, wait="worker")
    changed = client.update(app, env={"MODE": "b"}, gpu=["RTX 4090", "L40S"])
    assert (changed.change, changed.id) == ("updated", app.id)
    (template,) = account.bodies("PUT", "/api/v1/template/")
    assert "-e MODE=b" in template["env"]
    assert {"id", "hash_id", "image", "name"} <= template.keys()
    group = next(
        json.loads(one.content) for one in account.sent if one.method == "PUT" and "workergroups" in one.url.path
    )
    assert "[RTX_4090,L40S]" in group["search_params"]
    assert group["endpoint_id"] == int(app.id)
    assert len(account.of("POST", "/update_workers/")) == 1
    assert client.invoke(app, {"n": 1}).output == {"got": {"n": 1}}
    assert client.get("summarize").info.spec_hash == changed.info.spec_hash


def test_an_update_that_stopped_half_way_is_not_taken_for_done(
    client: Client, connect: Callable[..., Client], account: Account
) -> None:
    app = client.deploy(**FIELDS)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/workergroups/" in request.url.path:
            return answer(request, 403, {"success": False, "msg": "scope"})
        return None

    account.before = before
    with pytest.raises(Exception, match="scope"):
        client.update(app, env={"MODE": "b"})
    account.before = lambda request: None
    assert client.get("summarize").info.spec_hash is None
    done = client.deploy(**FIELDS, env={"MODE": "b"}, if_exists="replace")
    assert done.change == "updated"
    assert done.info.spec_hash


def test_an_update_whose_answers_are_lost_half_way_is_not_taken_for_done(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "PUT" and "/workergroups/" in request.url.path:
            raise httpx.ReadError("lost", request=request)
        return None

    account.before = before
    with pytest.raises(TransportError):
        client.update(app, env={"MODE": "b"})
    account.before = lambda request: None
    assert client.get("summarize").info.spec_hash is None


def test_scaling_keeps_what_it_was_not_asked_for(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, workers=(0, 3), wait=False)
    client.scale(app, (1, 2))
    assert account.puts("max_workers")[-1] == {"min_load": 1.0, "max_workers": 2}
    assert client.scale(app, (0, 2)).info.workers == (0, 2)


def test_pausing_keeps_the_disks_and_says_so(client: Client, account: Account) -> None:
    app = client.deploy(**FIELDS, wait="worker")
    stopped = client.stop(app)
    assert stopped.state is State.STOPPED
    assert "storage" in (stopped.info.bills or "")
    assert client.start(app).state in (State.READY, State.COLD, State.STARTING)


# -- ending --


def test_a_machine_that_outlives_its_endpoint_is_found_and_destroyed(client: Client, account: Account) -> None:
    """Vast's documents tell in three ways whether a delete takes every machine along."""
    app = client.deploy(**FIELDS, wait="worker")
    (worker,) = client.workers(app)
    left = {"id": int(worker.id), "actual_status": "running", "label": None}
    destroyed: list[str] = []

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "GET" and request.url.path.rstrip("/") == "/api/v1/instances":
            return answer(request, 200, {"instances": [] if destroyed else [left], "next_token": None})
        if request.method == "DELETE" and request.url.path.rstrip("/").endswith(f"/instances/{worker.id}"):
            destroyed.append(worker.id)
            return answer(request, 200, {"success": True})
        return None

    account.before = before
    client.teardown(app)
    assert destroyed == [worker.id]


def test_a_machine_that_cannot_be_ended_is_named(client: Client, account: Account, clock: InstantClock) -> None:
    app = client.deploy(**FIELDS, wait="worker")
    (worker,) = client.workers(app)
    rows = [{"id": int(worker.id), "actual_status": "running", "label": None}]

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.url.path.rstrip("/") == "/api/v1/instances":
            return answer(request, 200, {"instances": rows, "next_token": None})
        if request.method == "DELETE" and "/instances/" in request.url.path:
            return answer(request, 200, {"success": True})
        return None

    account.before = before
    with pytest.raises(TeardownIncomplete) as caught:
        client.teardown(app, timeout=120)
    assert caught.value.may_bill


@pytest.mark.parametrize("status", [400, 404])
def test_a_second_delete_is_success_in_both_of_vasts_ways(
    connect: Callable[..., Client], clock: InstantClock, status: int
) -> None:
    account = Account(Quirks(gone_endpoint=status), clock=clock)
    client = connect(account)
    app = client.deploy(**FIELDS)
    for _ in range(2):
        client.teardown(app)
    assert list(client.deployments()) == []


def test_strangers_endpoints_are_shown_and_never_touched(client: Client, account: Account) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    body = {"endpoint_name": "somebodys", "max_workers": 1, "min_load": 0, "cold_workers": 0}
    httpx.Client(transport=account).request(
        "POST", "https://console.vast.ai/api/v0/endptjobs/", json=body, headers={**headers}
    )
    app = client.deploy(**FIELDS)
    seen = {one.name: one.owner for one in client.inventory() if one.kind == "endpoint"}
    assert seen == {"somebodys": "foreign", "summarize": "ours"}
    client.teardown(app)
    client.gc(delete=True)
    assert [one.name for one in client.inventory()] == ["somebodys"]


def test_a_template_that_somebody_deleted_is_made_anew_and_named_by_its_workergroup(
    client: Client, connect: Callable[..., Client], account: Account
) -> None:
    app = client.deploy(**FIELDS)
    gone = int(app.info.ids["template"])
    httpx.Client(transport=account, headers={"authorization": f"Bearer {KEY}"}).request(
        "DELETE", "https://console.vast.ai/api/v0/template/", json={"template_id": gone}
    )
    again = connect(account, state="elsewhere").deploy(**FIELDS)
    assert (again.change, again.id, again.info.name) == ("reused", app.id, "summarize")
    now = client.get("summarize").info
    assert now.ids["template"] != str(gone)
    assert now.spec_hash == app.info.spec_hash
    (group,) = [
        json.loads(one.content) for one in account.sent if one.method == "PUT" and "workergroups" in one.url.path
    ]
    assert group["template_id"] == int(now.ids["template"])
    assert client.invoke("summarize", {"n": 1}).output == {"got": {"n": 1}}
    client.teardown("summarize")
    assert list(client.inventory()) == []
