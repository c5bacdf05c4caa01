"""Whatever a client sends, the local emulator answers, and answers as its protocol says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import Dropped, Forward, Hold, HttpCall, Reply
from unigpu.emulator.engine import Engine
from unigpu.models.identity import provider_name

PNAME = provider_name("default", "hello")
FIELDS = [
    "name", "namespace", "attempt", "spec_hash", "interface", "kind", "workers", "idle_timeout", "scaling",
    "execution_timeout", "concurrency", "idempotent", "expires_at", "origin", "constants", "spec", "launch",
    "id", "input", "stream", "wake",
]  # fmt: skip
GOOD: dict[str, Any] = {
    "name": "hello",
    "namespace": "default",
    "attempt": "a1",
    "spec_hash": "1:0",
    "workers": {"min": 0, "max": 2},
    "launch": {"handler": "a:b"},
    "id": "j1",
    "input": {},
}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["min", "max", "signal", "target", "env", "handler", "argv", "auth", "secrets", "x"]), inner
        )
    ),
    max_leaves=6,
)
paths = st.sampled_from(
    ["", f"/{PNAME}", *(f"/{PNAME}{rest}" for rest in
     ("/jobs", "/jobs/j1", "/jobs/j1/stream", "/jobs/j1/cancel", "/http", "/http/a/b", "/workers", "/workers/w/logs",
      "/wake", "/stop", "/start", "/", "//", "/jobs/"))]
)  # fmt: skip


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    method=st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "get", "OPTIONS"]),
    path=paths | st.text(max_size=10).map(lambda text: "/" + text),
    changes=st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=3),
    raw=st.none() | st.binary(max_size=20),
    query=st.dictionaries(st.sampled_from(["wait", "after", "x"]), st.text(max_size=5) | st.just("nan"), max_size=2),
    headers=st.dictionaries(
        st.sampled_from(["if-match", "if-none-match", "x-unigpu-wait", "x-unigpu-wake", "authorization"]),
        st.text(max_size=5) | st.sampled_from(["*", "a1", '"a1"', "1", "inf"]),
        max_size=2,
    ),
    interface=st.sampled_from(["function", "http"]),
)
def test_any_request_gets_an_answer_and_never_an_exception(
    method: str,
    path: str,
    changes: dict[str, Any],
    raw: bytes | None,
    query: dict[str, str],
    headers: dict[str, str],
    interface: str,
) -> None:
    engine = Engine(now=0.0)
    engine.mount(LocalEmulator(engine))
    put = json.dumps({**GOOD, "interface": interface}).encode()
    base = f"/v1/deployments/{PNAME}"
    engine.handle(HttpCall(method="PUT", path=base, body=put, headers={"if-none-match": "*"}, host="localhost"), 0.0)
    engine.tick(0.0)
    body = raw if raw is not None else json.dumps({**GOOD, "interface": interface, **changes}).encode()
    call = HttpCall(
        method=method, path="/v1/deployments" + path, query=query, headers=headers, body=body, host="localhost"
    )
    answer = engine.handle(call, 1.0)
    for effect in engine.tick(1.0):
        json.dumps(getattr(effect, "record", None), allow_nan=False)  # what is kept can be written
    assert not isinstance(answer, Dropped)
    if isinstance(answer, Hold):
        assert answer.until <= 1.0 + 3600
        answer = answer.poll(answer.until)
    if isinstance(answer, Reply):
        assert 200 <= answer.status < 600
        if answer.status >= 400:
            error = json.loads(answer.body)["error"]
            assert error["type"]
            assert error["message"]
    else:
        assert isinstance(answer, Forward)
