"""A plan says what a deploy would do, changes nothing, and is what is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from unigpu import Client, ConfigurationError, Offer, PlanChanged, UnsupportedError, _registry
from unigpu._client import plan as planning
from unigpu._io.clock import InstantClock, use_clock
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud
from unigpu.testing._conformance.transport import CloudTransport
from unigpu.testing.reference import ReferenceDriver, ReferenceEmulator

KEY = "hunter2-account-key"
FIELDS: dict[str, Any] = {"name": "chat", "image": "ghcr.io/me/chat:1", "gpu": ["L40S"], "max_price": 2.0}
CHANGES = ("create", "patch", "delete", "wake")


class Platform:
    """The reference platform in memory, and what clients of it need."""

    def __init__(self, path: Path, clock: InstantClock) -> None:
        self.cloud = VirtualCloud(clock=clock)
        face = ReferenceEmulator(self.cloud.engine, key=KEY)
        self.cloud.mount(face)
        self.transport = CloudTransport(self.cloud, face)
        self.options: dict[str, Any] = {
            "provider": "reference",
            "api_key": KEY,
            "state_dir": path / "state",
            "config": path / "unigpu.toml",
            "transport": self.transport,
        }

    @property
    def changes(self) -> list[str]:
        return [one for one in self.transport.calls if one.endswith(CHANGES)]


class Lister(ReferenceDriver):
    """The reference driver, with a catalogue."""

    async def offers(self, io: Any, **asked: Any) -> list[Offer]:
        prices = {"L40S": 1.08, "RTX 4090": 0.72}
        return [Offer(provider="reference", gpu=g, price_per_hour=p, region="DE") for g, p in prices.items()]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    (tmp_path / "unigpu.toml").write_text("")
    clock = InstantClock()
    with use_clock(clock), _registry.using("reference", Lister):
        yield Platform(tmp_path, clock)


def test_a_plan_of_something_new_shows_each_request_and_sends_none(platform: Platform, flavour: Any) -> None:
    async def workflow(client: Any) -> Any:
        return await client.plan(**FIELDS, provider="reference", secrets={"HF": SecretStr("hf-value-1")})

    (plan,) = flavour.run(workflow, **platform.options)
    assert platform.changes == []
    assert (plan.action, plan.ok, plan.existing) == ("create", True, ())
    sent = [one.operation for one in plan.requests]
    assert sent == ["reference.template.create", "reference.endpoint.create", "reference.endpoint.patch"]
    assert plan.requests[0].body["secret_env"] == {"HF": "***"}
    assert plan.requests[1].body["template_id"] == "new-template"
    assert plan.rate.max_per_hour == 1.08
    text = f"{plan} {plan!r} {plan.model_dump_json()}"
    assert KEY not in text
    assert "hf-value-1" not in text
    assert "***" in dict(plan.requests[0].headers)["authorization"]


def test_a_deploy_of_a_plan_sends_what_the_plan_shows(platform: Platform, flavour: Any) -> None:
    async def workflow(client: Any) -> Any:
        plans = await client.plan(**FIELDS, provider="reference")
        app = await client.deploy(plans[0], progress="off")
        again = await client.plan(**FIELDS, provider="reference")
        return plans[0], app.change, again[0]

    plan, change, again = flavour.run(workflow, **platform.options)
    assert change == "created"
    assert platform.changes[:3] == [one.operation for one in plan.requests]
    assert (again.action, again.requests) == ("reuse", ())


def test_a_plan_that_does_not_hold_any_more_does_nothing(platform: Platform) -> None:
    with Client(**platform.options) as client:
        (plan,) = client.plan(**FIELDS, provider="reference")
        client.deploy(**FIELDS, progress="off")
        before = list(platform.changes)
        with pytest.raises(PlanChanged, match="does not hold any more: it would now be reused"):
            client.deploy(plan)
        (reuse,) = client.plan(**FIELDS, provider="reference")
        client.teardown("chat")
        gone = list(platform.changes)
        with pytest.raises(PlanChanged, match="be created"):
            client.deploy(reuse)
    assert platform.changes == gone
    assert before == gone[: len(before)]


def test_what_another_does_after_the_last_look_is_not_deployed_over(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan was reuse; it is looked at again and holds; then somebody tears it down: nothing is created."""
    hold_to = planning.hold_to
    with Client(**platform.options) as client, Client(**platform.options) as other:
        client.deploy(**FIELDS, progress="off")
        (plan,) = client.plan(**FIELDS, provider="reference")
        assert plan.action == "reuse"

        async def and_then_somebody_is_faster(*args: Any) -> Any:
            held = await hold_to(*args)
            other.teardown("chat")
            return held

        monkeypatch.setattr(planning, "hold_to", and_then_somebody_is_faster)
        with pytest.raises(PlanChanged, match="was not sent") as caught:
            client.deploy(plan, progress="off")
        assert caught.value.maybe_executed is False
        assert not platform.changes[-1].endswith("create")


def test_a_change_is_planned_as_what_it_is(platform: Platform) -> None:
    with Client(**platform.options) as client:
        client.deploy(**FIELDS, progress="off")
        (scaled,) = client.plan(**FIELDS, workers=(0, 3), provider="reference")
        assert (scaled.action, [r.operation for r in scaled.requests]) == ("scale", ["reference.endpoint.patch"])
        (refused,) = client.plan(**{**FIELDS, "image": "ghcr.io/me/chat:2"}, provider="reference")
        assert (refused.action, refused.ok) == ("excluded", False)
        assert "differs in image" in (refused.reason or "")
        (anew,) = client.plan(**{**FIELDS, "image": "ghcr.io/me/chat:2"}, if_exists="replace", provider="reference")
        assert (anew.action, anew.fields) == ("recreate", ("image",))
        assert "downtime" in str(anew)
        assert client.deploy(anew, progress="off").change == "created"


def test_every_provider_with_a_key_is_planned_and_excluded_ones_stay_in_with_the_reason(platform: Platform) -> None:
    with Client(**platform.options) as client:
        plans = client.plan(**FIELDS)
        assert {plan.provider for plan in plans} == {"local", "reference"}
        assert plans.on("reference").ok
        assert not plans.on("local").ok
        assert "containers" in (plans.on("local").reason or "")
        text = str(plans)
        assert text.splitlines()[0].split() == ["PROVIDER", "WHAT", "IDLE/H", "AT", "MOST/H", "REQUESTS", "NOTES"]
        assert "excluded" in text
        with pytest.raises(ConfigurationError, match="cannot be had on local"):
            client.deploy(plans.on("local"))


def test_a_provider_that_cannot_be_read_is_shown_and_one_that_was_asked_for_raises(platform: Platform) -> None:
    options = {**platform.options, "api_key": "wrong"}
    with Client(**options) as client:
        plans = client.plan(**FIELDS)
        assert list(plans.unreadable) == ["reference"]
        assert "unreadable" in str(plans)
        with pytest.raises(type(plans.unreadable["reference"])):
            client.plan(**FIELDS, provider="reference")
        with pytest.raises(ConfigurationError, match="there is no provider"):
            client.plan(**FIELDS, provider="refrence")


def test_a_plan_of_the_local_provider_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text("def f(input):\n    return input\n")
    monkeypatch.setenv("TOKEN", "s3cret-token-value")
    with Client("local") as client:
        (plan,) = client.plan(
            name="chat",
            handler="app.py:f",
            secrets=["TOKEN"],
            volumes=[{"name": "data", "size_gb": 1}],
            provider="local",
        )
    assert (plan.action, plan.requests[0].method) == ("create", "PUT")
    assert "s3cret-token-value" not in plan.model_dump_json()
    assert not (tmp_path / "state").exists(), "no supervisor, no folder, no intent"


def test_a_plan_says_what_is_given_with_it_must_not(platform: Platform) -> None:
    with Client(**platform.options) as client:
        (plan,) = client.plan(**FIELDS, provider="reference")
        for wrong in ({"workers": 2}, {"ephemeral": True}, {"provider": "local"}, {"if_exists": "replace"}):
            with pytest.raises(ConfigurationError, match=r"deploy\(plan\) does what the plan says"):
                client.deploy(plan, **wrong)  # type: ignore[arg-type]  # one of several arguments
    with Client(**platform.options, namespace="other") as other, pytest.raises(ConfigurationError, match="namespace"):
        other.deploy(plan)


def test_offers_are_of_every_provider_and_the_cheapest_first(platform: Platform, flavour: Any) -> None:
    async def workflow(client: Any) -> Any:
        return (
            await client.offers(),
            await client.offers(gpu="24GB", max_price=1.0, regions="DE", provider="reference"),
            await client.offers(regions="US", provider="reference"),
        )

    every, some, none = flavour.run(workflow, **platform.options)
    assert (every[0].provider, every[0].price_per_hour) == ("local", 0.0)
    assert [one.gpu for one in every if one.provider == "reference"] == ["RTX 4090", "L40S"]
    assert [one.gpu for one in some] == ["RTX 4090"]
    assert list(none) == []
    assert "RTX 4090" in str(every)


def test_who_lists_no_offers_says_so(platform: Platform) -> None:
    with _registry.using("reference", ReferenceDriver), Client(**platform.options) as client:
        assert list(client.offers().unreadable) == ["reference"]
        with pytest.raises(UnsupportedError, match="lists no offers"):
            client.offers(provider="reference")
