from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from runpod_script import Account, problem

from unigpu import Client
from unigpu._io.clock import InstantClock
from unigpu.errors import (
    ConfigurationError,
    InsufficientBalanceError,
    InvalidResponseError,
    NameConflict,
    NoCapacityError,
    PayloadTooLarge,
    UnsupportedError,
)
from unigpu.models import SecretRef, State, provider_name


def test_a_queue_endpoint_is_one_call_with_every_quiet_default_said(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields, workers=(0, 3), env={"MODE": "fast"}, disk=30)
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["name"] == provider_name("default", "summarize")
    assert body["type"] == "QUEUE"
    assert body["image"] == "ghcr.io/me/app:1.2"
    assert (body["entrypoint"], body["cmd"]) == (["python"], ["-m", "unigpu.worker", "app:summarize"])
    assert body["gpu"] == {"pools": ["ADA_24"], "excludedTypes": [], "count": 1}
    assert body["workers"] == {"min": 0, "max": 3, "idleTimeout": 60}
    assert body["scaling"] == {"type": "QUEUE_DELAY", "queueDelay": 4.0}
    assert body["timeout"] == 600_000
    assert body["flashboot"] == "FLASHBOOT"
    assert body["disk"] == 30
    assert body["env"]["MODE"] == "fast"
    assert body["env"]["UNIGPU_NAME"] == "summarize"
    assert account.count("PATCH", "/v2/serverless/.*") == 0
    assert app.state is State.COLD
    assert app.info.workers == (0, 3)
    assert app.rate.max_per_hour == pytest.approx(3 * (1.1 + 30 * 0.10 / 730), abs=1e-3)


def test_it_is_created_cold_and_warmed_when_its_id_is_kept(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    account.health = {"workers": {"ready": 1}}
    app = client.deploy(**fields, workers=(1, 2))
    assert account.bodies("POST", "/v2/serverless")[0]["workers"]["min"] == 0
    assert account.bodies("PATCH", "/v2/serverless/.*") == [{"workers": {"min": 1, "max": 2, "idleTimeout": 60}}]
    assert app.state is State.READY
    assert app.info.workers == (1, 2)


def test_acceptable_gpus_become_pools_less_what_is_not_acceptable(client: Client, account: Account) -> None:
    client.deploy(name="a", handler="app:f", image="i:1", gpu=["L40S", "RTX A5000"])
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["gpu"]["pools"] == ["AMPERE_24", "ADA_48_PRO"]
    assert body["gpu"]["excludedTypes"] == ["NVIDIA L4", "NVIDIA L40"]


def test_memory_with_a_price_takes_all_that_are_large_and_cheap_enough(client: Client, account: Account) -> None:
    client.deploy(name="a", handler="app:f", image="i:1", gpu="24GB:2", max_price=1.5)
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["gpu"] == {"pools": ["AMPERE_24"], "excludedTypes": [], "count": 2}  # 2 × 0.69; 2 × 1.1 is too dear
    assert float(body["env"]["UNIGPU_PRICE"]) == pytest.approx(1.38)


def test_nothing_at_that_price_says_what_the_cheapest_is(client: Client, account: Account) -> None:
    with pytest.raises(NoCapacityError, match=r"RTX 4090 at \$1\.10"):
        client.deploy(name="a", handler="app:f", image="i:1", gpu="RTX 4090", max_price=0.5)
    assert account.count("POST", "/v2/serverless") == 0


def test_regions_become_the_data_centres_that_have_such_a_gpu(client: Client, account: Account) -> None:
    client.deploy(name="a", handler="app:f", image="i:1", gpu="L4", regions=["EU", "US"])
    (query,) = {one.url.params["countryCodes"] for one in account.sent if one.url.path == "/v2/catalog/gpus"}
    assert {"DE", "RO", "US"} <= set(query.split(","))
    assert account.bodies("POST", "/v2/serverless")[0]["dataCenterIds"] == ["EU-RO-1", "US-KS-2"]


def test_a_load_balancer_is_told_port_health_and_scaler_together(client: Client, account: Account) -> None:
    client.deploy(
        name="web", interface="http", image="me/web:1", command="python serve.py", gpu="L4", port=5000, concurrency=8,
        provider_options={"runpod": {"health_path": "/health"}},
    )  # fmt: skip
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["type"] == "LOAD_BALANCER"
    assert body["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 8}
    assert body["ports"] == ["5000/http"]
    env = body["env"]
    assert (env["PORT"], env["PORT_HEALTH"], env["HEALTH_CHECK_PATH"]) == ("5000", "5000", "/health")
    assert (body["entrypoint"], body["cmd"]) == (["python"], ["serve.py"])


def test_a_queue_that_is_scaled_by_requests_has_no_idle_timeout(client: Client, account: Account) -> None:
    fields = {"handler": "app:f", "image": "i:1", "gpu": "L4", "scaling": {"signal": "requests", "target": 2}}
    client.deploy(name="a", **fields)
    (body,) = account.bodies("POST", "/v2/serverless")
    assert "idleTimeout" not in body["workers"]
    assert body["scaling"] == {"type": "REQUEST_COUNT", "requestCount": 2}
    with pytest.raises(UnsupportedError, match="idle_timeout"):
        client.deploy(name="b", idle_timeout=30, **fields)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"env": {"X": "{{ RUNPOD_SECRET_mine }}"}}, UnsupportedError, "SecretRef"),
        ({"gpu": ["L4", "L40S:2"]}, UnsupportedError, "one number of GPUs"),
        ({"idle_timeout": 7200}, UnsupportedError, "3600"),
        ({"scaling": {"signal": "queue_delay", "target": 0.1}}, UnsupportedError, "0.5"),
        ({"volumes": [{"name": "a", "size_gb": 5}]}, UnsupportedError, "10 to 4096"),
        ({"volumes": [{"name": "a", "size_gb": 10, "path": "/data"}]}, UnsupportedError, "/runpod-volume"),
        ({"provider_options": {"runpod": {"flashbot": "OFF"}}}, ConfigurationError, "flashboot"),
        ({"provider_options": {"runpod": {"endpoint_type": "LOAD_BALANCER"}}}, UnsupportedError, "http"),
        ({"gpu": None}, ConfigurationError, "gpu"),
        ({"execution_timeout": "8d"}, UnsupportedError, "execution_timeout"),
    ],
)
def test_what_runpod_cannot_do_is_refused_before_anything_is_sent(
    client: Client, account: Account, fields: dict[str, Any], wrong: dict[str, Any], error: type, said: str
) -> None:
    with pytest.raises(error, match=said):
        client.deploy(**{**fields, **wrong})
    assert account.count("POST", ".*") == 0


def test_secrets_are_account_secrets_and_the_body_holds_references_only(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    secrets = {"HF_TOKEN": SecretStr("hf_very_secret"), "OTHER": SecretRef(name="my_own")}
    app = client.deploy(**fields, secrets=secrets)
    (made,) = account.bodies("POST", "/v2/account/secrets")
    assert made["value"] == "hf_very_secret"
    assert made["name"].endswith("_HF_TOKEN")
    assert made["name"].startswith(provider_name("default", "summarize").replace("-", "_"))
    (body,) = account.bodies("POST", "/v2/serverless")
    assert body["env"]["HF_TOKEN"] == "{{ RUNPOD_SECRET_" + made["name"] + " }}"
    assert body["env"]["OTHER"] == "{{ RUNPOD_SECRET_my_own }}"
    assert "hf_very_secret" not in str(body)
    client.teardown(app)
    assert not account.rows["secrets"]
    assert not account.rows["serverless"]


def test_a_changed_secret_is_written_into_the_same_one(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields, secrets={"HF_TOKEN": SecretStr("one")})
    client.update(app, secrets={"HF_TOKEN": SecretStr("two")})
    assert account.count("POST", "/v2/account/secrets") == 1
    assert account.bodies("PATCH", "/v2/account/secrets/.*") == [{"value": "two"}]


def test_a_failed_deploy_takes_its_secrets_back(client: Client, account: Account, fields: dict[str, Any]) -> None:
    account.before = lambda m, p: (422, problem(422, "$: no")) if (m, p) == ("POST", "/v2/serverless") else None
    with pytest.raises(Exception, match="no"):
        client.deploy(**fields, secrets={"HF_TOKEN": SecretStr("one")})
    assert account.count("POST", "/v2/account/secrets") == 1
    assert not account.rows["secrets"]


def test_a_registry_login_is_stored_named_and_deleted_with_the_deployment(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields, registry={"username": "me", "password": SecretStr("pass")})
    (login,) = account.rows["registries"].values()
    assert account.only("serverless")["registry"] == login["id"]
    client.teardown("summarize")
    assert not account.rows["registries"]
    assert app.info.ids["registry"] == login["id"]


def test_a_volume_is_made_once_shared_and_kept(
    client: Client, account: Account, fields: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    volume = {"volumes": [{"name": "models", "size_gb": 50}], "env": {"CACHE": "${volume.models}/hf"}}
    assert client.plan(provider="runpod", **fields, **volume)[0].rate.storage_per_month == 3.5
    first = client.deploy(**fields, **volume)
    second = client.deploy(**{**fields, "name": "other"}, **volume)
    assert account.bodies("POST", "/v2/network-volumes") == [
        {"name": provider_name("default", "models"), "size": 50, "dataCenter": "US-KS-2"}  # the best stock
    ]
    volume_id = account.only("network-volumes")["id"]
    bodies = account.bodies("POST", "/v2/serverless")
    assert [body["networkVolumes"] for body in bodies] == [[volume_id]] * 2
    assert bodies[0]["env"]["CACHE"] == "/runpod-volume/hf"
    assert any("one data centre" in one.got for one in first.adaptations)
    client.deploy(
        **{**fields, "registry": {"username": "u", "password": SecretStr("p")}}, **volume, if_exists="replace"
    )
    assert list(account.rows["network-volumes"]) == [volume_id]  # made anew, and the data is still there
    with caplog.at_level("INFO", logger="unigpu"):
        client.teardown("summarize")
    assert f"its volume {volume_id} on runpod is kept, and may bill" in caplog.records[-1].getMessage()
    assert list(account.rows["network-volumes"]) == [volume_id]
    client.teardown(second, volumes=True)
    assert not account.rows["network-volumes"]


def test_your_own_volume_is_attached_and_never_deleted(client: Client, account: Account) -> None:
    account.rows["network-volumes"]["vol_mine"] = {
        "id": "vol_mine", "name": "my-dataset", "size": 100, "dataCenter": "EU-RO-1", "type": "STANDARD",
    }  # fmt: skip
    options = {"runpod": {"network_volumes": ["vol_mine"]}}
    app = client.deploy(name="a", handler="app:f", image="i:1", gpu="L4", provider_options=options)
    assert account.only("serverless")["networkVolumes"] == ["vol_mine"]
    client.teardown(app, volumes=True)
    assert "vol_mine" in account.rows["network-volumes"]


def test_a_changed_image_is_rolled_in_place_with_the_whole_gpu_selection(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    first = client.deploy(**{**fields, "gpu": "L40S"})
    with pytest.raises(NameConflict, match="image"):
        client.deploy(**{**fields, "gpu": "L40S", "image": "me/app:2"})
    again = client.deploy(**{**fields, "gpu": "L40S", "image": "me/app:2"}, if_exists="replace")
    assert (again.change, again.id) == ("updated", first.id)
    (patch,) = account.bodies("PATCH", "/v2/serverless/.*")
    assert patch["image"] == "me/app:2"
    assert (patch["gpu"]["pools"], patch["gpu"]["excludedTypes"]) == (["ADA_48_PRO"], ["NVIDIA L40"])
    assert "workers" not in patch
    assert patch["env"]["UNIGPU_ATTEMPT"] == first.info.attempt


def test_scaling_sends_limits_only_and_whole(client: Client, account: Account, fields: dict[str, Any]) -> None:
    app = client.deploy(**fields, workers=(0, 3))
    client.scale(app, (0, 5))
    assert account.bodies("PATCH", "/v2/serverless/.*") == [{"workers": {"min": 0, "max": 5, "idleTimeout": 60}}]
    client.deploy(**fields, scaling={"signal": "queue_delay", "target": 2}, idle_timeout=30)
    assert account.bodies("PATCH", "/v2/serverless/.*")[-1] == {
        "workers": {"min": 0, "max": 5, "idleTimeout": 30},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 2.0},
    }


def test_a_patch_that_wipes_the_excluded_gpus_is_seen_and_put_right(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**{**fields, "gpu": "L40S"})
    row = account.only("serverless")
    wiped: list[int] = []

    def wipe(method: str, path: str) -> None:
        if method == "PATCH" and not wiped:
            wiped.append(1)
            row["gpu"]["excludedTypes"] = []

    account.before = wipe
    client.scale(app, (0, 2))
    assert account.bodies("PATCH", "/v2/serverless/.*")[1] == {
        "gpu": {"pools": ["ADA_48_PRO"], "excludedTypes": ["NVIDIA L40"], "count": 1}
    }
    assert row["gpu"]["excludedTypes"] == ["NVIDIA L40"]

    def always(method: str, path: str) -> Any:
        if method != "PATCH":
            return None
        return 200, {**row, "gpu": {**row["gpu"], "excludedTypes": []}}

    account.before = always
    with pytest.raises(InvalidResponseError, match="other GPUs"):
        client.scale(app, (0, 4))


def test_more_workers_are_not_allowed_when_the_price_has_risen_above_the_cap(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields, max_price=1.2)
    account.gpus[0]["price"]["serverless"] = 1.5
    with pytest.raises(NoCapacityError, match=r"max_price of \$1\.2"):
        client.scale(app, (0, 4))
    assert account.count("PATCH", ".*") == 0
    client.scale(app, 1)  # not more than before
    assert account.count("PATCH", ".*") == 1


def test_secrets_do_not_go_to_strangers_hosts_unless_the_spec_says_so(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    pod = {**fields, "kind": "pod", "ttl": None, "auth": "none", "wait": False, "secrets": {"TOKEN": "value"}}
    strangers = {"provider_options": {"runpod": {"cloud": ["SECURE", "COMMUNITY"]}}}
    with pytest.raises(UnsupportedError, match="stranger") as refused:
        client.deploy(**pod, **strangers)
    assert refused.value.capability == "host_trust"
    assert account.count("POST", ".*") == 0
    client.deploy(**pod, **strangers, accept=["secrets_on_shared_hosts"])
    client.deploy(**{**pod, "name": "other"})


def test_a_cap_is_read_back_to_the_last_digit(client: Client, account: Account, fields: dict[str, Any]) -> None:
    account.gpus[0]["price"]["serverless"] = 1.234564  # six digits of it are 1.23456: less than the price
    app = client.deploy(**fields, max_price=1.234564)
    assert client.scale(app, (0, 4)).info.workers == (0, 4)


def test_the_disk_counts_when_prices_have_risen(client: Client, account: Account, fields: dict[str, Any]) -> None:
    price = account.gpus[0]["price"]["serverless"]
    app = client.deploy(**fields, disk=730, max_price=price + 0.15)  # the disk costs $0.10 an hour
    account.gpus[0]["price"]["serverless"] = price + 0.1
    with pytest.raises(NoCapacityError, match="max_price"):
        client.scale(app, (0, 4))


def test_lists_are_walked_to_their_end(client: Client, account: Account, fields: dict[str, Any]) -> None:
    account.page = 1
    for name in ("one", "two", "three"):
        client.deploy(**{**fields, "name": name})
    assert sorted(one.name for one in client.deployments()) == ["one", "three", "two"]
    assert client.get("three").info.name == "three"


def test_a_list_that_breaks_off_is_an_error_and_never_empty(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    account.page = 1
    for name in ("one", "two"):
        client.deploy(**{**fields, "name": name})
    account.before = lambda m, p: (404, problem(404, "gone")) if (m, p) == ("GET", "/v2/serverless") else None
    with pytest.raises(InvalidResponseError):
        client.get("two")
    account.before = lambda m, p: (200, {"endpoints": [], "pagination": {"hasNextPage": True}}) if m == "GET" else None
    with pytest.raises(InvalidResponseError):
        client.get("two")


def test_an_empty_prepaid_account_is_told_before_anything_is_created(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    account.balance = 200, {"balanceAmount": -0.2, "billingMode": "PREPAID"}
    with pytest.raises(InsufficientBalanceError, match="prepaid"):
        client.deploy(**fields)
    assert account.count("POST", ".*") == 0
    account.balance = 200, {"balanceAmount": -50, "billingMode": "POSTPAID"}
    client.deploy(**fields)


@pytest.mark.parametrize("status", [403, 404])
def test_a_key_that_may_not_read_the_balance_is_no_error(
    client: Client, account: Account, fields: dict[str, Any], status: int
) -> None:
    account.balance = status, problem(status, "no")
    assert client.deploy(**fields).change == "created"


def test_no_capacity_is_told_from_a_bad_request_by_its_words(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    text = "There are no longer any instances available with the requested specifications."
    account.before = lambda m, p: (400, problem(400, text)) if m == "POST" else None
    with pytest.raises(NoCapacityError, match="no longer any instances"):
        client.deploy(**fields)
    account.before = lambda m, p: (400, problem(400, "gpu and cpu")) if m == "POST" else None
    with pytest.raises(Exception, match="gpu and cpu") as caught:
        client.deploy(**fields)
    assert not isinstance(caught.value, NoCapacityError)


def test_another_process_finds_all_it_needs_on_the_platform(
    make: Callable[..., Client], account: Account, fields: dict[str, Any]
) -> None:
    first = make("a").deploy(**fields, execution_timeout=90, idempotent=True, ttl="6h")
    seen = make("b").get("summarize").info
    assert (seen.id, seen.execution_timeout, seen.idempotent) == (first.id, 90, True)
    assert seen.expires_at == first.info.expires_at
    again = make("b").deploy(**fields, execution_timeout=90, idempotent=True, ttl="6h")
    assert again.change == "reused"


def test_the_plan_shows_each_request_and_no_value_of_a_secret(
    client: Client, account: Account, fields: dict[str, Any], clock: InstantClock, tmp_path: Path
) -> None:
    spec = {
        **fields,
        "volumes": [{"name": "models", "size_gb": 10}],
        "secrets": {"HF_TOKEN": SecretStr("hf_very_secret")},
        "workers": (1, 2),
    }
    (plan,) = client.plan(provider="runpod", **spec)
    assert [one.operation for one in plan.requests] == [
        "runpod.volume.create", "runpod.secret.create", "runpod.endpoint.create", "runpod.endpoint.patch",
    ]  # fmt: skip
    assert "hf_very_secret" not in str(plan) + repr(plan) + plan.model_dump_json()
    assert account.count("POST", ".*") == 0
    assert any("one data centre" in one.got for one in plan.adaptations)
    account.health = {"workers": {"ready": 1}}
    assert client.deploy(plan).change == "created"


def test_teardown_deletes_and_reads_that_it_is_gone(client: Client, account: Account, fields: dict[str, Any]) -> None:
    app = client.deploy(**fields)
    client.teardown(app)
    client.teardown(app)
    assert not account.rows["serverless"]
    assert account.count("PATCH", ".*") == 0  # workers need not be set to none before


def test_a_volume_that_is_there_already_must_be_as_large_and_where_workers_may_be(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    at = {"runpod": {"data_centers": ["EU-RO-1"]}}
    client.teardown(client.deploy(**fields, volumes=[{"name": "models", "size_gb": 20}], provider_options=at))
    with pytest.raises(NameConflict, match="with 20 GB, and 50 are asked for"):
        client.deploy(**fields, volumes=[{"name": "models", "size_gb": 50}])
    elsewhere = {"runpod": {"data_centers": ["US-KS-2"]}}
    with pytest.raises(NoCapacityError, match="is in EU-RO-1") as caught:
        client.deploy(**fields, volumes=[{"name": "models", "size_gb": 20}], provider_options=elsewhere)
    assert caught.value.may_bill == ()
    assert not account.rows["serverless"]
    assert client.deploy(**fields, volumes=[{"name": "models", "size_gb": 10}]).change == "created"


def test_two_workers_of_five_are_told_and_the_next_deploy_raises_them(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields, workers=(0, 5))
    assert not any("lowers it" in line for line in client.explain(app).evidence)
    account.only("serverless")["workers"]["max"] = 2
    assert any("deployed with 5: RunPod itself lowers it" in line for line in client.explain(app).evidence)
    assert client.deploy(**fields, workers=(0, 5)).change == "scaled"
    assert account.only("serverless")["workers"]["max"] == 5


def test_max_workers_that_runpod_lowered_itself_are_told(
    client: Client, account: Account, fields: dict[str, Any]
) -> None:
    app = client.deploy(**fields)
    account.only("serverless")["workers"]["max"] = 0
    told = client.explain(app)
    assert told.cause == "no_workers_allowed"
    assert "lowers it after a week" in str(told)


def test_an_image_without_a_version_is_told(client: Client, fields: dict[str, Any], caplog: Any) -> None:
    for image, told in (
        ("me/app", True),
        ("me/app:latest", True),
        ("host:5000/me/app:1", False),
        ("a@sha256:0", False),
    ):
        caplog.clear()
        client.deploy(**{**fields, "name": f"a{len(image)}", "image": image})
        assert ("name a version" in caplog.text) is told, image


def test_more_than_runpod_takes_is_not_sent(client: Client, account: Account, fields: dict[str, Any]) -> None:
    with pytest.raises(PayloadTooLarge, match="env is too large"):
        client.deploy(**fields, env={"BIG": "x" * 110_000})
    assert account.count("POST", ".*") == 0
