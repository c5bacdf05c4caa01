"""The reference platform is as unkind as the real ones: no idempotency key, late lists, parts that stand on others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.testing.reference import HOST, ReferenceEmulator
from unigpu.testing.reference.emulator import PRICES
from unigpu.testing.reference.translate import PRICES as DRIVER_PRICES

TEMPLATE = {"name": "t", "image": "i", "env": {"A": "1"}, "secret_env": {"TOKEN": "canary"}}


class Platform:
    def __init__(self, *, page: int = 50, key: str = "k", **settings: Any) -> None:
        self.cloud = VirtualCloud(settings=EngineSettings(**settings), behavior=Behavior(cold_start=5.0, duration=2.0))
        self.cloud.mount(ReferenceEmulator(self.cloud.engine, key="k", page=page))
        self.key = key

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        path, _, query = path.partition("?")
        call = HttpCall(
            method=method,
            path=f"/v1{path}",
            query=dict(pair.split("=") for pair in query.split("&") if pair),
            headers={"authorization": f"Bearer {self.key}"},
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            host=HOST,
        )
        reply = self.cloud.call(call)
        assert isinstance(reply, Reply)
        return reply.status, json.loads(reply.body)

    def endpoint(self, **more: Any) -> dict[str, Any]:
        template = self.ask("POST", "/templates", TEMPLATE)[1]
        body = {"name": "e", "template_id": template["id"], "gpus": ["RTX 4090"], "workers": {"min": 0, "max": 2}}
        status, found = self.ask("POST", "/endpoints", {**body, **more})
        assert status == 201
        return dict(found)


def test_a_create_that_is_sent_twice_makes_two_of_one_name() -> None:
    platform = Platform()
    ids = {platform.ask("POST", "/templates", TEMPLATE)[1]["id"] for _ in range(3)}
    assert len(ids) == 3
    assert {row["id"] for row in platform.ask("GET", "/templates")[1]["items"]} == ids


def test_lists_learn_late_of_what_was_created_and_deleted_and_reads_by_id_do_not() -> None:
    platform = Platform(list_lag=10.0)
    one = platform.endpoint()
    assert platform.ask("GET", "/endpoints")[1]["items"] == []
    assert platform.ask("GET", f"/endpoints/{one['id']}")[0] == 200
    platform.cloud.advance(11.0)
    assert [row["id"] for row in platform.ask("GET", "/endpoints")[1]["items"]] == [one["id"]]
    assert platform.ask("DELETE", f"/endpoints/{one['id']}")[0] == 202
    platform.cloud.advance(1.0)
    assert platform.ask("GET", f"/endpoints/{one['id']}")[0] == 404


def test_a_template_that_an_endpoint_stands_on_cannot_be_deleted() -> None:
    platform = Platform()
    one = platform.endpoint()
    status, body = platform.ask("DELETE", f"/templates/{one['template_id']}")
    assert (status, body["error"]["code"]) == (409, "template_in_use")
    platform.ask("DELETE", f"/endpoints/{one['id']}")
    assert platform.ask("DELETE", f"/templates/{one['template_id']}")[0] == 200


def test_a_secret_is_never_shown_again() -> None:
    platform = Platform()
    one = platform.endpoint()
    told = [platform.ask("GET", path)[1] for path in ("/templates", "/endpoints", f"/templates/{one['template_id']}")]
    assert "canary" not in json.dumps(told)
    assert told[2]["secret_env"] == ["TOKEN"]


@pytest.mark.parametrize("key", ["", "wrong", "k "])
def test_a_wrong_key_gets_nothing(key: str) -> None:
    assert Platform(key=key).ask("GET", "/endpoints")[0] == 401


def test_a_worker_is_billed_from_its_start_until_it_is_gone() -> None:
    platform = Platform()
    one = platform.endpoint(idle_timeout=30)
    platform.ask("POST", f"/endpoints/{one['id']}/jobs", {"input": {}})
    platform.cloud.advance(3600.0)
    bill = platform.cloud.engine.meter.report(platform.cloud.clock.now())["deployments"][one["id"]]
    assert bill["billed_s"] == pytest.approx(5.0 + 2.0 + 30.0, abs=1.0)
    assert bill["cost"] == pytest.approx(bill["billed_s"] * 0.72 / 3600)


def test_the_driver_knows_the_catalogue() -> None:
    assert dict(DRIVER_PRICES) == dict(PRICES)


@given(count=st.integers(0, 9), page=st.integers(1, 4))
def test_the_pages_of_a_list_hold_each_row_once(count: int, page: int) -> None:
    platform = Platform(page=page)
    made = {platform.ask("POST", "/templates", TEMPLATE)[1]["id"] for _ in range(count)}
    seen, after = list[str](), ""
    while True:
        found = platform.ask("GET", f"/templates?after={after}" if after else "/templates")[1]
        seen += [row["id"] for row in found["items"]]
        if found["next"] is None:
            break
        after = found["next"]
    assert sorted(seen) == sorted(made)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from(
    ["name", "image", "command", "env", "secret_env", "template_id", "gpus", "workers", "idle_timeout", "job_timeout",
     "concurrency", "requests_per_worker", "input", "timeout"]
)  # fmt: skip


@given(
    body=st.dictionaries(FIELD, JSON, max_size=6) | st.binary(max_size=12),
    route=st.sampled_from(
        [("POST", "/templates"), ("POST", "/endpoints"), ("PATCH", "/endpoints/ID"), ("POST", "/endpoints/ID/jobs"),
         ("GET", "/endpoints/ID/workers/w/logs?after=x"), ("GET", "/nothing"), ("DELETE", "/endpoints/nobody")]
    ),
)  # fmt: skip
def test_any_request_has_an_answer(body: Any, route: tuple[str, str]) -> None:
    platform = Platform()
    method, path = route
    status, told = platform.ask(method, path.replace("ID", platform.endpoint()["id"]), body)
    assert 200 <= status <= 501
    assert status < 300 or told["error"]["message"]
