"""RunPod's own examples: each documented reply is read by our shapes."""

from __future__ import annotations

from typing import Any

import pytest
from openapi import OpenAPI

from unigpu.driver import shaped
from unigpu.models import JobStatus, State
from unigpu.providers.runpod import calls, pods, translate
from unigpu.providers.runpod.options import LB_URL, PROXY_URL
from unigpu.providers.runpod.wire import (
    BalanceWire,
    DataCentersWire,
    EndpointWire,
    GpuTypesWire,
    GpuTypeWire,
    HealthWire,
    JobWire,
    PodWire,
    RegistryWire,
    SecretWire,
    StreamWire,
    VolumeWire,
    WorkerListWire,
)


def _each(key: str, shape: Any) -> Any:
    return lambda value: [shaped(shape, one, "test") for one in value[key]]


READ: dict[str, Any] = {
    "/v2/serverless": _each("endpoints", EndpointWire),
    "/v2/serverless/{id}": lambda value: shaped(EndpointWire, value, "test"),
    "/v2/serverless/{id}/workers": lambda value: shaped(WorkerListWire, value, "test"),
    "/v2/pods": _each("pods", PodWire),
    "/v2/pods/{id}": lambda value: shaped(PodWire, value, "test"),
    "/v2/pods/{id}/action": lambda value: shaped(PodWire, value, "test"),
    "/v2/network-volumes": _each("networkVolumes", VolumeWire),
    "/v2/network-volumes/{id}": lambda value: shaped(VolumeWire, value, "test"),
    "/v2/registries": _each("registries", RegistryWire),
    "/v2/registries/{id}": lambda value: shaped(RegistryWire, value, "test"),
    "/v2/catalog/gpus": lambda value: shaped(GpuTypesWire, value, "test"),
    "/v2/catalog/gpus/{id}": lambda value: shaped(GpuTypeWire, value, "test"),
    "/v2/catalog/datacenters": lambda value: shaped(DataCentersWire, value, "test"),
}


def test_every_documented_example_reply_is_read() -> None:
    spec = OpenAPI.load("runpod-v2.openapi.json")
    read: dict[str, int] = {}
    for example in spec.examples():
        if example.status is None or not example.status.startswith("2") or example.path not in READ:
            continue
        value = example.value
        if isinstance(value, dict) and example.method == "POST" and example.path in ("/v2/serverless", "/v2/pods"):
            shaped(EndpointWire if "serverless" in example.path else PodWire, value, "test")
        elif example.method == "POST" and example.path in ("/v2/network-volumes", "/v2/registries"):
            shaped(VolumeWire if "volumes" in example.path else RegistryWire, value, "test")
        else:
            READ[example.path](value)
        read[example.path] = read.get(example.path, 0) + 1
    assert len(read) >= 8, read
    print(f"documented examples read: {sum(read.values())} of {len(read)} routes")


def test_every_example_endpoint_and_pod_becomes_a_deployment() -> None:
    spec = OpenAPI.load("runpod-v2.openapi.json")
    for example in spec.examples():
        if example.status not in ("200", "201") or not isinstance(example.value, dict):
            continue
        if example.path == "/v2/serverless/{id}":
            info = translate.endpoint_info(shaped(EndpointWire, example.value, "test"), lb_url=LB_URL)
            assert not info.ours
            assert info.created_at
        if example.path == "/v2/pods/{id}":
            assert pods.pod_info(shaped(PodWire, example.value, "test"), proxy_url=PROXY_URL).kind == "pod"


# From the manual's pages and from what RunPod's staff wrote that they saw; the job service has no OpenAPI file.
HEALTH = {
    "jobs": {"completed": 31, "failed": 0, "inProgress": 1, "inQueue": 0, "retried": 0},
    "workers": {"idle": 0, "initializing": 1, "ready": 0, "running": 1, "throttled": 0, "unhealthy": 0},
}


def test_the_job_services_replies_are_read_in_both_documented_forms() -> None:
    health = shaped(HealthWire, HEALTH, "test")
    assert translate.state_of((0, 3), health) == (State.READY, None)
    assert shaped(HealthWire, {"jobs": {}, "workers": {"idle": 2, "running": 0}}, "test").workers.idle == 2
    job = {"id": "j-u1", "status": "COMPLETED", "delayTime": 824, "executionTime": 3391, "output": [1], "retries": 1}
    assert calls.job_of(shaped(JobWire, job, "test")).status is JobStatus.DONE
    cancelled = shaped(JobWire, {"id": "j", "status": "CANCELLED"}, "test")  # cancelled in the queue: nothing else
    assert calls.job_of(cancelled).status is JobStatus.CANCELLED
    page = shaped(StreamWire, {"status": "IN_PROGRESS", "stream": [{"output": {"a": 1}}]}, "test")
    assert calls.page_of(page, 3).after == 4


def test_replies_newer_than_the_file_are_read() -> None:
    shaped(BalanceWire, {"balanceAmount": 12.34, "billingMode": "PREPAID"}, "test")
    shaped(SecretWire, {"id": "s1", "name": "hf_token", "createdAt": "2026-09-10T00:00:00Z", "description": None}, "t")


@pytest.mark.parametrize(
    ("limits", "workers", "queued", "state"),
    [
        ((0, 3), {}, 0, State.COLD),
        ((0, 3), {}, 2, State.STARTING),
        ((1, 3), {}, 0, State.STARTING),
        ((0, 3), {"initializing": 1}, 1, State.STARTING),
        ((0, 3), {"throttled": 1}, 1, State.STARTING),
        ((0, 3), {"unhealthy": 1}, 1, State.FAILED),
        ((0, 3), {"unhealthy": 1, "initializing": 1}, 1, State.STARTING),  # it is tried again
        ((0, 3), {"unhealthy": 1, "running": 1}, 1, State.READY),
        ((0, 3), {"running": 1}, 0, State.READY),
        ((0, 0), {}, 1, State.DEGRADED),
        ((0, 0), {"running": 1}, 1, State.DEGRADED),  # it finishes, and is the last
    ],
)
def test_the_state_follows_from_limits_workers_and_queue(
    limits: tuple[int, int], workers: dict[str, int], queued: int, state: State
) -> None:
    health = shaped(HealthWire, {"jobs": {"inQueue": queued}, "workers": workers}, "test")
    found, reason = translate.state_of(limits, health)
    assert found is state
    if workers == {"running": 1} and limits[1]:
        assert translate.state_of(limits, health, balanced=True)[0] is State.STARTING  # it runs, and is not routed to
    assert (reason is None) == (state in (State.READY, State.COLD) or workers.get("initializing", 0) > 0)
