"""Whatever is asked, there is an answer of the platform's own, and never an exception; and GraphQL by hand."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from unigpu.emulator.apis.runpod import emulator as face_module
from unigpu.emulator.apis.runpod.emulator import Quirks, RunPodEmulator
from unigpu.emulator.contract import Dropped, HttpCall, Reply
from unigpu.emulator.simulation.virtual_cloud import VirtualCloud

ENDPOINT = {
    "name": "a",
    "type": "QUEUE",
    "image": "i",
    "gpu": {"pools": ["AMPERE_24"], "count": 1},
    "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
}
POD = {"name": "p", "image": "i", "gpu": {"id": "NVIDIA L4", "count": 1}, "ports": ["80/http"]}
NAMES = (
    "name type image gpu cpu pools count scaling workers min max idleTimeout env args cmd entrypoint ports registry "
    "templateId mounts network input policy ttl size dataCenter value description action output error status query id "
    "vcpuCount"
)
WORDS = st.sampled_from(NAMES.split())
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**7)
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["QUEUE", "LOAD_BALANCER", "QUEUE_DELAY", "AMPERE_24", "NVIDIA L4", "stop", "cpu5c", "80/http"])
)
JSON: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=8,
)
BODIES = st.one_of(
    st.binary(max_size=12),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.builds(
        lambda base, more: json.dumps({**base, **more}).encode(),
        st.sampled_from([ENDPOINT, POD]),
        changes := st.dictionaries(WORDS, JSON, max_size=3),
    ),
    changes.map(lambda value: json.dumps(value).encode()),
)
QUERIES = st.dictionaries(
    st.sampled_from(
        ["cursor", "limit", "wait", "tail", "since", "include", "product", "count", "batch_size", "source"]
    ),
    st.text(max_size=6) | st.integers(-1, 3000).map(str) | st.just("AVAILABILITY") | st.just("POD"),
    max_size=3,
)
ROUTES = [(plane, route.method, route.path) for plane, rows in face_module._TABLES.items() for _, route in rows]
HOSTS = {"control": "api.runpod.io", "jobs": "api.runpod.ai", "worker": "api.runpod.ai", "graphql": "api.runpod.io"}


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_any_request_gets_an_answer_and_never_an_exception(data: st.DataObject) -> None:
    cloud = VirtualCloud()
    face = RunPodEmulator(
        cloud.engine, key="k", quirks=Quirks(rate_limits=(), lb_wait=1.0, stream_wait=1.0, sync_wait=1.0)
    )
    cloud.mount(face)

    def call(method: str, host: str, path: str, body: bytes, query: dict[str, str], key: str = "Bearer k") -> Any:
        headers = {"authorization": key}
        return cloud.call(
            HttpCall(method=method, path=path, query=query, headers=headers, body=body, host=host), patience=700
        )

    made = call("POST", "api.runpod.io", "/v2/serverless", json.dumps(ENDPOINT).encode(), {})
    endpoint = json.loads(made.body)["id"]
    pod = json.loads(call("POST", "api.runpod.io", "/v2/pods", json.dumps(POD).encode(), {}).body)["id"]
    job = json.loads(call("POST", "api.runpod.ai", f"/v2/{endpoint}/run", b'{"input": {"a": 1}}', {}).body)["id"]
    cloud.advance(data.draw(st.sampled_from([0, 0.5, 3])))
    ids = st.sampled_from([endpoint, pod, job, *[one.id for one in cloud.engine.workers(endpoint)], "nobody", "80"])
    for _ in range(4):
        plane, method, pattern = data.draw(st.sampled_from(ROUTES))
        path = pattern
        for group in ("([A-Za-z0-9_-]+)", "([^/]+)", "([0-9]+)", "(.+)", "(/.*)?"):
            while group in path:
                path = path.replace(group, data.draw(ids) if group != "(/.*)?" else "/x", 1)
        method = data.draw(st.sampled_from(["GET", "POST"])) if method == "*" else method
        prefix = {"balancer": "/lb", "proxy": "/proxy", "graphql": ""}.get(plane, "/v2")
        host = HOSTS.get(plane, "127.0.0.1")
        key = face.account.worker_key(endpoint) if plane == "worker" else "Bearer k"
        reply = call(method, host, prefix + path, data.draw(BODIES), data.draw(QUERIES), key)
        assert isinstance(reply, Reply | Dropped)
        if isinstance(reply, Reply):
            assert reply.status != 500 or plane == "jobs"  # OpenAI's route has it for a job that failed
            if reply.status >= 400 and plane == "control":
                assert json.loads(reply.body)["status"] == reply.status


def test_graphql_makes_and_lists_endpoints_as_runpods_package_asks(bench: Any) -> None:
    def ask(query: str) -> Any:
        return bench.call("POST", "/graphql", {"query": query}).body

    said = ask(
        'mutation { saveTemplate( input: { name: "t", imageName: "i:1", dockerArgs: "python -c \\"1\\"", '
        'containerDiskInGb: 10, volumeInGb: 0, ports: "80/http,22/tcp", env: [{ key: "A", value: "b, {c}" }], '
        'isServerless: true, containerRegistryAuthId : "", startSsh: true } ) { id name env { key value } } }'
    )
    template = said["data"]["saveTemplate"]
    assert (template["dockerArgs"], template["ports"]) == ('python -c "1"', "80/http,22/tcp")
    assert template["env"] == [{"key": "A", "value": "b, {c}"}]
    said = ask(
        f'mutation {{ saveEndpoint( input: {{ flashBootType: FLASHBOOT, name: "e", templateId: "{template["id"]}", '
        'gpuIds: "AMPERE_24,-NVIDIA L4", networkVolumeId: "", locations: "", idleTimeout: 5, '
        'scalerType: "QUEUE_DELAY", scalerValue: 4, workersMin: 0, workersMax: 2 } ) { id name } }'
    )
    made = said["data"]["saveEndpoint"]
    shown = bench.call("GET", f"/v2/serverless/{made['id']}").body
    assert (shown["gpu"]["excludedTypes"], shown["env"], shown["flashboot"]) == (
        ["NVIDIA L4"],
        {"A": "b, {c}"},
        "FLASHBOOT",
    )
    listed = ask("query Query { myself { endpoints { id gpuIds } } }")["data"]["myself"]["endpoints"]
    assert [(one["id"], one["gpuIds"]) for one in listed] == [(made["id"], "AMPERE_24,-NVIDIA L4")]
    assert len(ask("query GpuTypes { gpuTypes { id displayName memoryInGb } }")["data"]["gpuTypes"]) > 10
    assert "errors" in ask("mutation { podTerminate(input: {podId: 1}) }")
    assert "errors" in ask("mutation { saveEndpoint(input: {")
