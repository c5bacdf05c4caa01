"""Facts and flags: what a fact file must hold, and how flags are read."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import pytest

from unigpu.elasticity.capabilities import FLAGS, VERBS, Capabilities, load, refuse, require
from unigpu.elasticity.fact import Fact, Status, read_facts
from unigpu.errors import ConfigurationError, UnsupportedError
from unigpu.models import Interface, Kind

FACTS = resources.files("unigpu.elasticity").joinpath("facts")
PROVIDERS = sorted(file.name.removesuffix(".toml") for file in FACTS.iterdir() if file.name.endswith(".toml"))
INTERFACES: tuple[Interface, ...] = ("function", "http")
KINDS: tuple[Kind, ...] = ("serverless", "pod")
ROOT = Path(__file__).parents[3]

# What the documents of this project name, by the flag that says it.
NAMED = {
    "gpu_order", "worker_exit", "public_endpoint", "volumes", "cancel", "streaming", "submit", "request", "wake",
    "stop", "scale_to_zero", "empty_input", "host_trust", "websocket", "elasticity_model", "autoscaling_signals",
    "min_workers", "max_workers", "wakes_on_request", "exact_replicas", "cold_start", "billing_unit", "bills_loading",
    "bills_idle", "bills_stopped", "storage_billing", "bandwidth_billing", "inventory", "preemption",
    "foreign_images", "ttl_enforced_by", "max_price", "queue_durability", "job_persistence", "result_retention",
    "delivery", "webhooks", "sessions", "max_payload", "max_request_time", "max_execution_timeout", "rate_limits",
    "regions", "sla",
}  # fmt: skip


def whole(provider: str = "local") -> dict[str, Any]:
    return copy.deepcopy(dict(read_facts(provider, None)))


def deployments(provider: str) -> list[tuple[Interface, Kind]]:
    has = whole(provider)["has"]
    return [(i, k) for i in INTERFACES for k in KINDS if f"{i}/{k}" in has]


def test_every_flag_is_there_and_says_what_it_means() -> None:
    assert set(FLAGS) >= NAMED
    assert all(FLAGS.values())
    assert set(VERBS.values()) <= set(FLAGS)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_fact_has_a_value_a_status_a_source_and_a_date(provider: str) -> None:
    for interface, kind in deployments(provider):
        caps = load(provider, interface=interface, kind=kind)
        for flag, fact in caps.facts():
            assert fact.status in get_args(Status), flag
            assert fact.source.startswith("https://"), flag
            assert fact.retrieved is not None, flag
            assert datetime.date(2026, 1, 1) <= fact.retrieved, flag
            if (
                isinstance(fact.value, int | float | tuple)
                and not isinstance(fact.value, bool)
                and flag == "cold_start"
            ):
                assert fact.unit == "s"


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_fact_that_cites_our_own_manual_cites_a_heading_that_is_there(provider: str) -> None:
    ours = "https://github.com/unigpu/unigpu/blob/main/"
    for interface, kind in deployments(provider):
        for flag, fact in load(provider, interface=interface, kind=kind).facts():
            if fact.source.startswith(ours):
                path, _, anchor = fact.source.removeprefix(ours).partition("#")
                text = (ROOT / path).read_text(encoding="utf-8")
                headings = [line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")]
                assert anchor in headings, (flag, fact.source)


def test_local_says_what_it_is() -> None:
    caps = load("local")
    assert (caps.bills.value, caps.inventory.value, caps.scale_to_zero.value) == (False, "this_machine", "automatic")
    assert caps.cold_start.value == (0.2, 60.0)
    assert caps.supports("submit")
    assert not caps.supports("request")
    http = load("local", interface="http")
    assert http.supports("request")
    assert not http.supports("invoke")
    pod = load("local", kind="pod")
    assert (pod.scale_to_zero.value, pod.min_workers.value, pod.max_workers.value) == ("none", 1, 1)
    assert not pod.supports("scale")


@pytest.mark.parametrize(
    ("value", "yes"),
    [("running", True), ("queued", True), ("disconnect", True), ("none", False)],
)
def test_a_flag_is_also_yes_or_no(cloud: Callable[..., Capabilities], value: str, yes: bool) -> None:
    assert cloud(cancel=value).supports("cancel") is yes


def test_unknown_and_nobody_and_nothing_are_no(cloud: Callable[..., Capabilities]) -> None:
    caps = cloud(
        cold_start="unknown", ttl_enforced_by="nobody", bills_idle="nothing", autoscaling_signals=[], min_workers=0
    )
    for flag in ("cold_start", "ttl_enforced_by", "bills_idle", "autoscaling_signals", "min_workers"):
        assert not caps.supports(flag)


def test_a_flag_that_is_not_there_gets_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match="no flag 'cancle'; did you mean 'cancel'"):
        load("local").supports("cancle")


def test_capabilities_print_as_a_table_of_every_flag() -> None:
    caps = load("local")
    lines = repr(caps).splitlines()
    assert lines[0] == "local: function, serverless"
    assert [line.split()[0] for line in lines[1:]] == list(FLAGS)
    assert any(line.split()[:4] == ["cold_start", "0.2", "to", "60"] for line in lines)
    assert str(caps) == repr(caps)


def test_narrower_tables_win(cloud: Callable[..., Capabilities]) -> None:
    facts = whole()
    fact = {
        "value": True,
        "status": "observed",
        "source": "https://a.example",
        "retrieved": datetime.date(2026, 11, 24),
    }
    facts["*"]["sla"] = {**fact, "value": "widest"}
    facts["function/*"]["sla"] = {**fact, "value": "interface"}
    assert load("x", facts=facts).sla.value == "interface"
    facts["*/serverless"] = {"sla": {**fact, "value": "kind"}}
    assert load("x", facts=facts).sla.value == "kind"
    assert load("x", facts=facts, kind="pod").sla.value == "interface"
    facts["function/serverless"] = {"sla": {**fact, "value": "exact"}}
    assert load("x", facts=facts).sla.value == "exact"


def test_a_driver_from_outside_brings_a_mapping_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "facts.toml"
    file.write_text(FACTS.joinpath("local.toml").read_text(encoding="utf-8"), encoding="utf-8")
    assert load("mine", facts=file).sla == load("mine", facts=whole()).sla
    assert load("mine", facts=file).provider == "mine"


def test_of_a_driver_without_facts_everything_is_unknown_and_shown_as_such() -> None:
    for interface in INTERFACES:
        caps = load("elsewhere", interface=interface)
        assert {fact.value for _, fact in caps.facts()} == {"unknown"}
        assert {fact.status for _, fact in caps.facts()} == {"unknown"}
        assert str(caps.cancel) == "unknown"
        assert not any(caps.supports(flag) for flag in FLAGS)
        for flag in VERBS.values():
            require(caps, flag, doing="it")  # what is unknown refuses nothing


def test_facts_that_a_driver_names_must_be_readable(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="facts of elsewhere: the file cannot be read"):
        load("elsewhere", facts=tmp_path / "no.toml")
    for content in (b"a = = b", b"\xff\xfe"):
        broken = tmp_path / "broken.toml"
        broken.write_bytes(content)
        with pytest.raises(ConfigurationError, match="they are not TOML"):
            load("elsewhere", facts=broken)


def test_a_kind_of_deployment_that_a_provider_lacks_is_unsupported() -> None:
    facts = {**whole(), "has": ["function/serverless"]}
    with pytest.raises(
        UnsupportedError, match=r"mine has no http deployments of the kind 'pod'; it has: function/serverless"
    ):
        load("mine", interface="http", kind="pod", facts=facts)


def broken(change: Callable[[dict[str, Any]], None]) -> str:
    facts = whole()
    change(facts)
    with pytest.raises(ConfigurationError) as caught:
        load("mine", facts=facts)
    assert str(caught.value).startswith("facts of mine")
    return str(caught.value)


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_a_flag_that_a_file_leaves_out_is_unknown(flag: str) -> None:
    facts = whole()
    for table in ("*", "function/*"):
        facts[table].pop(flag, None)
    caps = load("mine", facts=facts)
    assert (caps.fact(flag).value, caps.fact(flag).source) == ("unknown", "")
    assert [name for name, fact in caps.facts() if fact.status == "unknown"] == [flag]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda f: f["*"].update(cancell=f["*"]["cancel"]), "cancell: there is no such field; did you mean 'cancel'?"),
        (lambda f: f["*"]["sla"].pop("source"), "sla.source: this field is required"),
        (lambda f: f.pop("retrieved"), "retrieved: this field is required"),
        (lambda f: f["*"]["sla"].pop("status"), "sla.status: this field is required"),
        (lambda f: f["*"]["sla"].pop("value"), "sla.value: this field is required"),
        (lambda f: f["*"]["sla"].update(status="rumoured"), "sla.status: Input should be 'documented'"),
        (lambda f: f["*"]["sla"].update(note=3), "sla.note: "),
        (lambda f: f["*"]["sla"].update(sauce="x"), "sla.sauce: there is no such field; did you mean 'source'?"),
        (lambda f: f["*"]["sla"].update(source="elsewhere#x"), "[sources] has no 'elsewhere'"),
        (lambda f: f["*"]["sla"].update(source="ftp://a.example"), "sla.source: "),
        (lambda f: f["*"]["bills"].update(value="yes"), "bills.value: "),
        (lambda f: f["*"]["bills"].update(value=0), "bills.value: "),
        (lambda f: f["*"]["max_workers"].update(value=True), "max_workers.value"),
        (lambda f: f["*"]["cold_start"].update(value=[1]), "cold_start.value"),
        (lambda f: f["*"]["inventory"].update(value="heaven"), "inventory.value: "),
        (lambda f: f["*"].update(sla="none"), "sla: a fact is a table with value, status and source"),
        (lambda f: f.update({"functoin/*": {}}), "there is no table 'functoin/*'; did you mean 'function/*'?"),
        (lambda f: f.update({"http/*": []}), "'http/*' is a table"),
        (lambda f: f.pop("has"), "`has` lists one or more of"),
        (lambda f: f.update(has=["function"]), "`has` lists one or more of"),
        (lambda f: f["*"].update(provider=f["*"]["sla"]), "provider is no flag"),
    ],
)  # fmt: skip
def test_a_broken_file_says_where(change: Callable[[dict[str, Any]], None], text: str) -> None:
    assert text in broken(change)


def test_a_refusal_names_the_flag_the_fact_its_source_and_what_to_do(cloud: Callable[..., Capabilities]) -> None:
    caps = cloud(streaming="none")
    exc = refuse(caps, "streaming", doing="stream()")
    assert exc.capability == "streaming"
    assert exc.fact == "streaming = none (documented, 2026-11-24)"
    assert exc.source == "https://docs.cloud.example/page"
    assert exc.provider == "cloud"
    assert str(exc) == (
        "stream() is not possible on cloud (function, serverless): so the cloud says of streaming. Use invoke(), which "
        "returns the whole. [streaming = none (documented, 2026-11-24), https://docs.cloud.example/page]"
    )
    assert "Do that." in str(refuse(caps, "streaming", doing="stream()", instead="Do that."))
    require(caps, "submit", doing="submit()")
    with pytest.raises(UnsupportedError, match="stream"):
        require(caps, "streaming", doing="stream()")


def test_a_verb_of_the_other_interface_names_the_right_one() -> None:
    assert "request() or openai()" in str(refuse(load("local", interface="http"), "invoke", doing="invoke()"))
    assert "request(..., stream=True)" in str(refuse(load("local", interface="http"), "streaming", doing="stream()"))
    assert "invoke(), submit(), stream() or map()" in str(refuse(load("local"), "request", doing="request()"))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(True, None, "yes"), (False, None, "no"), (3600, "s", "3600 s"), (2.5, "s", "2.5 s"),
     ((1.0, 60.0), "s", "1 to 60 s"), (("requests", "load"), None, "requests, load"), ((), None, "none"),
     ("unknown", "s", "unknown")],
)  # fmt: skip
def test_a_fact_is_shown_with_its_unit(value: Any, unit: str | None, text: str) -> None:
    fact = Fact[Any](
        value=value, unit=unit, status="documented", source="https://a.example", retrieved=datetime.date(2026, 1, 2)
    )
    assert fact.shown == text
    assert str(fact) == f"{text} (documented, 2026-01-02)"
