"""Whatever is sent to the emulator, it answers with an envelope, and never breaks."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from yotta_account import GPU, Account, wanted

from unigpu.emulator.contract import HttpCall, Reply

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = (
    "name", "image", "resources", "workers", "containerVolumeInGb", "serviceMode", "expose", "environmentVars",
    "webhook", "initializationCommand", "credentialId", "gpuType", "gpuCount", "regions", "taskId", "input",
    "workerPort", "processUri", "headers", "webhookAuthKey", "username", "password", "type", "storageType", "sizeInGb",
    "region", "vmTypeId", "isSpot", "userTaskId", "taskData", "header", "shmInGb",
)  # fmt: skip
POSSIBLE: dict[str, Any] = {
    **wanted(), "gpuType": GPU, "gpuCount": 1, "regions": ["eu-2"], "input": {"n": 1}, "workerPort": 8000,
    "processUri": "/run", "username": "u", "password": "p", "storageType": "CEPH", "sizeInGb": 5, "region": "eu-2",
    "vmTypeId": 104, "userTaskId": "old", "taskData": {"n": 1},
}  # fmt: skip
BODY = st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6)
QUERY = st.dictionaries(
    st.sampled_from(
        ("statusList", "count", "page", "size", "pageNumber", "pageSize", "storageType", "status", "regionList",
         "keyword", "startTime", "endTime", "searchAfterOffset", "direction")
    ),
    st.text(max_size=12) | st.sampled_from(("1", "0", "-1", "1e9", "RUNNING", "CEPH", "9" * 30)),
    max_size=3,
)  # fmt: skip
PATHS = (
    "/v2/serverless", "/v2/serverless/{e}", "/v2/serverless/{e}/stop", "/v2/serverless/{e}/start",
    "/v2/serverless/{e}/workers", "/v2/serverless/{e}/workers/{w}/logs", "/v2/serverless/{e}/tasks",
    "/v2/serverless/{e}/tasks/t", "/v2/serverless/{e}/tasks/count", "/v2/pods", "/v2/pods/{p}", "/v2/pods/{p}/pause",
    "/v2/pods/{p}/resume", "/v2/container-registry-auths", "/v2/container-registry-auths/1", "/v2/volumes",
    "/v2/volumes/1/name", "/v2/volumes/1/resize", "/v2/vms", "/v2/vms/1", "/v2/vms/types",
    "/openapi/v1/skywalker/tasks", "/openapi/v1/skywalker/tasks/create", "/openapi/v1/skywalker/tasks/processing/count",
)  # fmt: skip


@given(st.data())
def test_any_calls_in_any_order_are_answered_with_an_envelope(data: st.DataObject) -> None:
    yotta = Account(rate_limits=False)
    endpoint = yotta.running()
    pod = str(yotta.call("POST", "/v2/pods", {**POSSIBLE, "expose": []})["id"])
    names = {"e": endpoint, "p": pod, "w": yotta.workers(endpoint)[0]["id"]}
    for _ in range(data.draw(st.integers(1, 8))):
        changes = data.draw(BODY)
        whole = {**POSSIBLE, **changes} if data.draw(st.booleans()) else changes
        raw = data.draw(
            st.sampled_from((json.dumps(whole).encode(), b"{", b"[]", b"\xff")) if changes else st.just(b"")
        )
        call = HttpCall(
            method=data.draw(st.sampled_from(("GET", "POST", "PUT", "PATCH", "DELETE"))),
            path=data.draw(st.sampled_from(PATHS)).format_map(names),
            query=data.draw(QUERY),
            headers={"x-api-key": "k", "x-endpoint-id": endpoint},
            host="api.yottalabs.ai",
            body=raw,
        )
        reply = yotta.cloud.call(call)
        assert isinstance(reply, Reply)
        if reply.status != 501:  # no such method there
            assert set(json.loads(reply.body)) == {"message", "code", "data"}, call
            assert reply.status == 200, (call, reply)
        yotta.cloud.advance(1)
