"""Whatever Vast answers, what comes is data or an error of ours; and nothing is taken for gone that was not said so."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vast_world import FIELDS, KEY, Account

from unigpu import Client
from unigpu._io.clock import InstantClock, use_clock
from unigpu.errors import UniGPUError
from unigpu.providers.vast import translate
from unigpu.providers.vast.wire import EndpointWire

VALUES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8)
NAMES = st.sampled_from(
    [
        "id",
        "results",
        "result",
        "success",
        "templates",
        "offers",
        "instances",
        "workers",
        "url",
        "status",
        "name",
        "env",
        "endpoint_name",
        "endpoint_id",
        "max_workers",
        "min_load",
        "template_id",
        "hash_id",
        "new_contract",
        "request_idx",
        "error_msg",
        "msg",
        "output",
        "error",
        "execution_s",
        "result_url",
        "next_token",
        "gpu_name",
        "num_gpus",
        "dph_total",
        "actual_status",
        "ports",
        "public_ipaddr",
        "extra_env",
        "label",
        "search_query",
        "created_at",
    ]
)
JSON = st.recursive(VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6))
PATHS = (
    "/api/v0/endptjobs", "/api/v0/endptjobs/ID", "/api/v0/workergroups", "/api/v0/template", "/api/v1/instances",
    "/get_endpoint_workers", "/route", "/api/v0/bundles", "/api/v0/volumes", "/get_endpoint_logs", "worker",
)  # fmt: skip


def path_of(request: httpx.Request) -> str:
    if request.url.host not in ("console.vast.ai", "run.vast.ai"):
        return "worker"
    return "/".join("ID" if part.isdigit() else part for part in request.url.path.rstrip("/").split("/"))


CALLS: dict[str, Callable[[Client], object]] = {
    "deployments": lambda client: list(client.deployments(provider="vast")),
    "get": lambda client: client.get("summarize"),
    "workers": lambda client: client.workers("summarize"),
    "invoke": lambda client: client.invoke("summarize", {"n": 1}, timeout=20),
    "logs": lambda client: list(client.logs("summarize")),
    "offers": lambda client: list(client.offers(provider="vast", gpu="RTX 4090")),
    "inventory": lambda client: list(client.inventory(provider="vast")),
    "deploy": lambda client: client.deploy(**FIELDS, timeout=120),
}


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from(PATHS), body=JSON, status=st.sampled_from([200, 200, 200, 400, 404, 500]))
@pytest.mark.parametrize("what", CALLS)
def test_any_reply_is_data_or_an_error_of_ours(what: str, path: str, body: Any, status: int, tmp_path: Path) -> None:
    config = tmp_path / "unigpu.toml"
    config.touch()
    if status == 404 and path.endswith("/ID"):
        return  # that does say that it is gone
    clock = InstantClock(1000.0, epoch=1.8e9)
    with use_clock(clock):
        account = Account(clock=clock)
        with Client("vast", api_key=KEY, config=config, state_dir=None, transport=account) as client:
            app = client.deploy(**FIELDS, wait=False)
            text = json.dumps(body)

            def before(request: httpx.Request) -> httpx.Response | None:
                return httpx.Response(status, content=text, request=request) if path_of(request) == path else None

            account.before = before
            with contextlib.suppress(UniGPUError):
                CALLS[what](client)
            account.before = lambda request: None
            now = client.get("summarize")
            assert now.id == app.id  # nothing was lost or made twice
            assert len(list(client.deployments(provider="vast"))) == 1


def test_a_time_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        wire = EndpointWire(id=1, endpoint_name="x", max_workers=1, created_at="2026-01-02T03:04:05")
        info = translate.endpoint_info(wire, template=None, group=None)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert info.created_at == 1767323045.0
