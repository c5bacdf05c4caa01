"""What a platform's flags refuse of a spec, in which words, and what adapting makes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from unigpu.driver import Refusal
from unigpu.elasticity.capabilities import Capabilities, load
from unigpu.elasticity.compatibility import (
    Unmet,
    adapt,
    check_workers,
    demands,
    error,
    notes,
    provider_options,
    ttl_enforcer,
)
from unigpu.errors import ConfigurationError, UnsupportedError
from unigpu.models import BearerToken, DeploymentSpec, InputModel, Interface, Kind, Scaling, SecretRef, Volume

Cloud = Callable[..., Capabilities]
RUNS: dict[str, Any] = {"image": "ghcr.io/me/app:1", "handler": "app:f", "gpu": "L40S"}

PER_WORKER = {"signal": "requests", "target": 2}


def spec(**fields: Any) -> DeploymentSpec:
    return DeploymentSpec.model_validate({"name": "chat", **fields})


def one(found: Sequence[Unmet]) -> Unmet:
    assert len(found) == 1, found
    return found[0]


def test_nothing_is_refused_where_everything_is_said(cloud: Cloud) -> None:
    assert demands(spec(**RUNS), cloud()) == ()
    assert notes(spec(**RUNS), cloud()) == ()


def test_the_same_spec_runs_on_local_with_all_its_placement() -> None:
    made = spec(
        **RUNS,
        workers=(0, 3),
        idle_timeout=5,
        execution_timeout=60,
        concurrency=4,
        regions=["EU"],
        max_price=1.2,
        ttl="6h",
        disk=40,
        secrets=["HF_TOKEN"],
        volumes=[Volume(name="cache", size_gb=10)],
        registry={"username": "me", "password": "x"},
        scaling=Scaling(signal="queue_delay", target=4),
        provider_options={"runpod": {"anything": 1}},
    )
    assert demands(made, load("local")) == ()
    assert notes(made, load("local")) == ()
    assert ttl_enforcer(made, load("local")) == "platform"


@pytest.mark.parametrize("interface", ["function", "http"])
@pytest.mark.parametrize("kind", ["serverless", "pod"])
def test_local_asks_for_nothing_but_what_runs(interface: Interface, kind: Kind) -> None:
    runs = {"handler": "app:f"} if interface == "function" else {"command": ["serve"]}
    caps = load("local", interface=interface, kind=kind)
    assert demands(spec(interface=interface, kind=kind, **runs), caps) == ()
    nothing = one(demands(spec(interface=interface, kind=kind), caps))
    assert nothing.must_say
    assert ("handler=" if interface == "function" else "command=") in nothing.message


def test_local_refuses_an_image_alone() -> None:
    refused = one(demands(spec(image="me/app"), load("local")))
    exc = error([refused], load("local"))
    assert isinstance(exc, UnsupportedError)
    assert "local runs processes, not containers" in str(exc)
    assert exc.capability == "images"
    assert "docs/providers/local.md#placement" in (exc.source or "")
    with pytest.raises(UnsupportedError):
        adapt(spec(image="me/app"), [refused], load("local"))


def test_without_scale_to_zero_the_end_must_be_stated(cloud: Cloud) -> None:
    caps = cloud("yotta", scale_to_zero="manual", elasticity_model="declared", min_workers=1)
    refused = one(demands(spec(**RUNS, workers=1), caps))
    assert refused.message == (
        "chat on yotta never scales to zero: 1 worker bills from RUNNING until teardown. "
        'Say ttl="6h", or ttl=None to mean for ever.'
    )
    exc = error([refused], caps)
    assert type(exc) is ConfigurationError
    assert "2 workers bill from RUNNING until teardown" in one(demands(spec(**RUNS, workers=2), caps)).message
    assert demands(spec(**RUNS, workers=1, ttl=None), caps) == ()
    assert demands(spec(**RUNS, workers=1, ttl="6h"), caps) == ()
    with pytest.raises(ConfigurationError, match="never scales to zero"):
        adapt(spec(**RUNS, workers=1), [refused], caps)


def test_without_scale_to_zero_the_workers_must_be_stated(cloud: Cloud) -> None:
    caps = cloud("yotta", scale_to_zero="manual", elasticity_model="declared", min_workers=1)
    refused = one(demands(spec(**RUNS, ttl="6h"), caps))
    assert refused.must_say
    assert "chat on yotta never scales to zero, so say how many workers it has" in refused.message


def test_a_pod_that_bills_needs_an_end_but_no_number_of_workers(cloud: Cloud) -> None:
    caps = cloud("runpod", kind="pod", scale_to_zero="none", elasticity_model="fixed", min_workers=1, max_workers=1)
    assert one(demands(spec(**RUNS, kind="pod"), caps)).field == "ttl"
    assert demands(spec(**RUNS, kind="pod", ttl="1h"), caps) == ()


def test_a_handler_without_an_image_says_what_the_image_must_hold(cloud: Cloud) -> None:
    refused = one(demands(spec(handler="app:f", gpu="L40S"), cloud()))
    assert refused.must_say
    assert "your code, unigpu[worker] and Python 3.11 or newer" in refused.message
    assert "python -m unigpu image dockerfile app:f" in refused.message
    assert "cloud runs container images; give image=." in one(demands(spec(gpu="L40S"), cloud())).message


def test_the_gpu_must_be_said_where_it_is_billed(cloud: Cloud) -> None:
    refused = one(demands(spec(image="me/app"), cloud()))
    assert (refused.field, refused.must_say) == ("gpu", True)


def test_a_price_cap_must_be_said_where_prices_are_open(cloud: Cloud) -> None:
    caps = cloud(max_price_required=True, max_price="search")
    refused = one(demands(spec(**RUNS), caps))
    assert (refused.field, refused.must_say) == ("max_price", True)
    assert demands(spec(**RUNS, max_price=1), caps) == ()


def test_secrets_are_refused_where_the_host_can_read_them(cloud: Cloud) -> None:
    caps = cloud("vast", host_trust="host")
    made = spec(**RUNS, secrets={"HF_TOKEN": SecretStr("canary-value")})
    refused = one(demands(made, caps))
    exc = error([refused], caps)
    assert isinstance(exc, UnsupportedError)
    assert "the host that runs a worker can read its disk and environment" in str(exc)
    assert 'accept=["secrets_on_shared_hosts"]' in str(exc)
    assert "host_trust = host" in (exc.fact or "")
    assert exc.source
    assert "canary-value" not in repr(exc) + str(exc) + repr(refused)
    assert demands(made.with_changes(accept=["secrets_on_shared_hosts"]), caps) == ()
    assert demands(spec(**RUNS), caps) == ()


def test_a_reference_to_a_stored_secret_needs_a_store(cloud: Cloud) -> None:
    made = spec(**RUNS, secrets={"A": SecretRef(name="mine")})
    assert one(demands(made, cloud(secret_store=False))).capability == "secret_store"
    assert demands(made, cloud()) == ()


def test_a_public_port_needs_a_word_about_who_may_call(cloud: Cloud) -> None:
    caps = cloud("runpod", public_endpoint=True)
    refused = one(demands(spec(**RUNS), caps))
    assert refused.must_say
    assert "runpod opens the port of chat to the internet" in refused.message
    assert one(demands(spec(**RUNS, auth=None), caps)) == refused
    assert demands(spec(**RUNS, auth="none"), caps) == ()
    assert demands(spec(**RUNS, auth=BearerToken(env="TOKEN")), caps) == ()


@pytest.mark.parametrize(
    ("flags", "fields", "field", "nearest", "got"),
    [
        ({"regions": "none"}, {"regions": "DE"}, "regions", None, "any region"),
        ({"regions": "own_ids"}, {"regions": "DE"}, "regions", None, "any region"),
        ({"max_price": "none"}, {"max_price": 2}, "max_price", None, "no cap"),
        ({"volumes": "none"}, {"volumes": [{"name": "a", "size_gb": 1}]}, "volumes", (), "no volume"),
        ({"idle_timeout": False}, {"idle_timeout": 5}, "idle_timeout", 60.0, "no idle stop"),
        ({"autoscaling_signals": ["load"]}, {"scaling": PER_WORKER}, "scaling", None, "the platform's own rule"),
        ({"concurrency": "none"}, {"concurrency": 8}, "concurrency", 1, "1"),
        ({"max_execution_timeout": 3600}, {"execution_timeout": "2h"}, "execution_timeout", 3600.0, "1 h"),
        ({"max_workers": 5}, {"workers": (0, 9)}, "workers", (0, 5), "0–5"),
        ({"min_workers": 1}, {"workers": (0, 9)}, "workers", (1, 9), "1–9"),
        ({"elasticity_model": "declared"}, {"workers": (1, 9)}, "workers", (1, 1), "1"),
        ({"elasticity_model": "declared", "min_workers": 1}, {"workers": (0, 9)}, "workers", (1, 1), "1"),
    ],
)  # fmt: skip
def test_a_demand_that_cannot_be_met_is_refused_or_becomes_the_nearest(
    cloud: Cloud, flags: dict[str, Any], fields: dict[str, Any], field: str, nearest: Any, got: str
) -> None:
    caps = cloud(**flags)
    made = spec(**RUNS, **fields)
    refused = one(demands(made, caps))
    assert (refused.field, refused.must_say, refused.got) == (field, False, got)
    exc = error([refused], caps)
    assert isinstance(exc, UnsupportedError)
    assert exc.capability in flags
    assert exc.fact
    assert exc.source == "https://docs.cloud.example/page"
    assert 'on_unsupported="adapt"' in str(exc)
    adapted, changes = adapt(made, [refused], caps)
    assert getattr(adapted, field) == nearest
    assert [(change.field, change.got, change.source) for change in changes] == [(field, got, exc.source)]
    assert demands(adapted, caps) == (), "what was adapted is not refused again"
    assert adapted.stated <= made.stated


def test_what_was_asked_is_told_as_it_is_said(cloud: Cloud) -> None:
    caps = cloud(idle_timeout=False, max_execution_timeout=3600, elasticity_model="declared")
    made = spec(**RUNS, idle_timeout=90, execution_timeout="2h", workers=(0, 3))
    _, changes = adapt(made, demands(made, caps), caps)
    told = {change.field: change.asked for change in changes}
    assert told == {"idle_timeout": "90 s", "execution_timeout": "2 h", "workers": "0–3"}


def test_a_default_is_no_demand(cloud: Cloud) -> None:
    caps = cloud(idle_timeout=False, max_workers=1, concurrency="none", max_execution_timeout=60, min_workers=1)
    assert demands(spec(**RUNS), caps) == ()
    assert [(note.field, note.asked, note.got) for note in notes(spec(**RUNS), caps)] == [
        ("idle_timeout", "1 min (the default)", "no idle stop")
    ]


def test_a_volume_of_one_machine_is_adapted_to_what_it_is(cloud: Cloud) -> None:
    caps = cloud(volumes="worker_disk")
    made = spec(**RUNS, volumes=[{"name": "cache", "size_gb": 10}])
    adapted, changes = adapt(made, demands(made, caps), caps)
    assert adapted == made
    assert changes[0].asked == "name cache, size_gb 10"
    assert changes[0].got == "a folder on each worker's own disk"


def test_a_volume_that_is_named_in_env_cannot_be_left_out(cloud: Cloud) -> None:
    caps = cloud(volumes="none")
    made = spec(**RUNS, volumes=[{"name": "cache", "size_gb": 10}], env={"HF_HOME": "${volume.cache}"})
    with pytest.raises(UnsupportedError) as caught:
        adapt(made, demands(made, caps), caps)
    assert "adapt" not in str(caught.value)


def test_what_must_be_said_comes_first_and_is_told_at_once(cloud: Cloud) -> None:
    caps = cloud("yotta", scale_to_zero="manual", min_workers=1, regions="none", public_endpoint=True)
    found = demands(spec(image="me/app", regions="DE"), caps)
    assert [one.must_say for one in found] == [True, True, True, True, False]
    exc = error([found[-1], *found[:-1]], caps)
    assert type(exc) is ConfigurationError
    for word in ("gpu:", "workers=1", 'ttl="6h"', "auth:"):
        assert word in str(exc)
    assert "regions" not in str(exc)


def test_a_drivers_own_refusals_are_told_beside_the_flags(cloud: Cloud) -> None:
    caps = cloud(regions="none")
    own = Refusal(
        field="disk", capability="disk", message="disk: the largest is 10 GB.", nearest={"disk": 10}, got="10 GB"
    )
    made = spec(**RUNS, regions="DE", disk=20)
    exc = error([*demands(made, caps), own], caps)
    assert isinstance(exc, UnsupportedError)
    assert "disk: the largest is 10 GB." in str(exc)
    adapted, changes = adapt(made, [*demands(made, caps), own], caps)
    assert (adapted.disk, adapted.regions) == (10, None)
    assert [str(change.field) for change in changes] == ["regions", "disk"]
    only = error([own], caps)
    assert isinstance(only, UnsupportedError)
    assert (only.capability, only.fact) == ("disk", None)


def test_a_timeout_that_nobody_holds_is_listed(cloud: Cloud) -> None:
    foreign = spec(image="vllm/vllm", gpu="L40S", interface="http", execution_timeout=30)
    note = notes(foreign, cloud(execution_timeout="worker"))[0]
    assert (note.field, note.asked, note.got) == ("execution_timeout", "30 s", "not enforced")
    assert notes(spec(**RUNS), cloud(execution_timeout="worker")) == ()
    assert notes(spec(**RUNS), cloud(execution_timeout="none"))[0].asked == "10 min (the default)"


@pytest.mark.parametrize(
    ("told", "at_exit", "fields", "who"),
    [
        ("worker", "ends_billing", RUNS, "worker"),
        ("worker", "replaced", RUNS, "client"),
        ("worker", "unknown", RUNS, "client"),
        ("worker", "ends_billing", {"image": "vllm/vllm", "gpu": "L40S", "interface": "http"}, "client"),
        ("client", "replaced", RUNS, "client"),
        ("platform", "replaced", RUNS, "platform"),
        ("nobody", "replaced", RUNS, "nobody"),
    ],
)
def test_a_worker_ends_a_deployment_only_where_its_exit_ends_the_billing(
    cloud: Cloud, told: str, at_exit: str, fields: dict[str, Any], who: str
) -> None:
    caps = cloud(ttl_enforced_by=told, worker_exit=at_exit)
    made = spec(**fields, ttl="6h")
    assert ttl_enforcer(made, caps) == who
    listed = [note.field for note in notes(made, caps)]
    assert ("ttl" in listed) is (who in ("client", "nobody"))


class Options(InputModel):
    cold_workers: int = 0
    flash_boot: bool = False


def test_an_unknown_option_of_the_own_provider_is_an_error_and_others_are_not_read() -> None:
    made = spec(provider_options={"vast": {"cold_wokers": 1}, "runpod": {"nonsense": []}})
    with pytest.raises(ConfigurationError, match=r"provider_options\.vast\.cold_wokers: .*did you mean 'cold_workers'"):
        provider_options(made, "vast", Options)
    assert provider_options(made, "local", Options) == Options()
    good = spec(provider_options={"vast": {"cold_workers": 2}})
    assert provider_options(good, "vast", Options) == Options(cold_workers=2)


@given(
    least=st.integers(0, 20),
    extra=st.integers(0, 20),
    low=st.integers(0, 3),
    span=st.integers(0, 20),
    fixed=st.booleans(),
)
def test_the_nearest_range_of_workers_can_be_met_and_is_not_refused_again(
    cloud: Cloud, least: int, extra: int, low: int, span: int, fixed: bool
) -> None:
    model = "declared" if fixed else "autoscaled"
    caps = cloud(min_workers=low, max_workers=max(1, low + span), elasticity_model=model)
    asked = (least, max(1, least + extra))
    refused = check_workers(asked, caps)
    if refused is None:
        return
    holds = {
        "min_workers": asked[0] < low,
        "max_workers": asked[1] > max(1, low + span),
        "elasticity_model": fixed and asked[0] != asked[1],
    }
    assert holds[refused.capability], "the flag that is named is not why"
    assert refused.nearest is not None
    low_got, high_got = refused.nearest["workers"]
    assert low <= low_got <= high_got <= max(1, low + span)
    assert high_got > 0, "a deployment without any worker cannot answer"
    assert check_workers((low_got, high_got), caps) is None
