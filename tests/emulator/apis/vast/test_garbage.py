"""Whatever is sent, the emulator answers: never an exception, and a 5xx only where it lacks something on purpose."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from vast_cloud import KEY, Vast

from unigpu.emulator.apis.vast.emulator import _ROUTES
from unigpu.emulator.contract import HttpCall, Reply

FIELDS = sorted(
    {
        "name", "image", "env", "onstart", "args_str", "recommended_disk_space", "extra_filters", "hash_id",
        "template_id",
        "endpoint_name", "endpoint_id", "endpoint", "min_load", "max_workers", "cold_workers", "target_util", "id",
        "inactivity_timeout", "endpoint_state", "template_hash", "search_params", "launch_args", "gpu_ram", "label",
        "state", "disk", "tail", "filter", "cost", "request_idx", "replay_timeout", "order", "limit", "q", "gpu_name",
        "allocated_storage", "price", "mtoken", "worker_id", "requests", "working_request_idxs", "max_perf", "loadtime",
        "error_msg", "url", "workergroup_id", "cancel_unavail", "template_hash_id", "args", "api_key",
    }
)  # fmt: skip
LEAF = st.none() | st.booleans() | st.integers(-5, 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUE = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3))
BODY = st.dictionaries(st.sampled_from(FIELDS), VALUE, max_size=6)


def address(pattern: str, ids: list[int], draw: Any) -> str:
    """A path of a route, with numbers of what there is, or not."""
    path = pattern.replace("v[01]", "v1").replace("\\.", ".")
    path = re.sub(r"\(\?:([^|)]+)\|[^)]*\)", r"\1", path)
    return re.sub(
        r"\(\[\^/\]\+\)", lambda _: str(draw(st.sampled_from([*ids, 5, -1]) | st.text("a1%", min_size=1))), path
    )


@settings(max_examples=100)
@given(st.data())
def test_every_route_answers_whatever_is_sent(data: st.DataObject) -> None:
    vast = Vast()
    vast.spec = None
    endpoint = vast.deployed(min_load=1)
    vast.advance(5.0)
    worker = vast.workers(endpoint)[0]["id"]
    contract = vast.json("PUT", "/api/v0/asks/7100000/", {"image": "x"})["new_contract"]
    for _ in range(3):
        method, pattern, _ = data.draw(st.sampled_from(_ROUTES))
        path = address(pattern.pattern, [endpoint, worker, contract, 7_100_001], data.draw)
        body = data.draw(BODY.map(json.dumps).map(str.encode) | st.binary(max_size=20))
        query = data.draw(st.dictionaries(st.sampled_from(["select_filters", "limit", "after_token"]), st.text()))
        headers = {"authorization": f"Bearer {KEY}"}
        call = HttpCall(method=method, path=path, query=query, headers=headers, body=body, host="console.vast.ai")
        reply = vast.virtual.call(call)
        assert isinstance(reply, Reply)
        assert reply.status < 500 or reply.status == 501, (path, body, reply)
        vast.advance(1.0)


@settings(max_examples=80)
@given(st.data())
def test_every_worker_answers_whatever_is_sent(data: st.DataObject) -> None:
    vast = Vast()
    vast.spec = None
    vast.deployed()
    route = vast.routed()
    payload = data.draw(st.dictionaries(st.sampled_from(["input", "stream", "timeout", "job", "x"]), VALUE))
    changed = data.draw(st.dictionaries(st.sampled_from([*route, "more"]), VALUE, max_size=2))
    envelope: Any = {"auth_data": route | changed, "session_id": data.draw(st.none() | LEAF), "payload": payload}
    if data.draw(st.booleans()):
        envelope = data.draw(VALUE)
    path = data.draw(st.sampled_from(["/invoke", "/other", "/session/create"]))
    found = vast.virtual.call(
        HttpCall(method="POST", path=path, body=json.dumps(envelope).encode(), host=route["url"][8:].partition(":")[0])
    )
    assert isinstance(found, Reply)
    assert found.status in (200, 400, 401, 410, 422, 429, 500, 501)
