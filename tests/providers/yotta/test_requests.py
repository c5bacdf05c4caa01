"""Every request that the driver makes, against Yotta's own OpenAPI file; where the two differ, why and by which source.

The file is the hand-written one of the official Python client (March 2026).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi import OpenAPI
from pydantic import SecretStr
from yotta_script import BASE, ENDPOINT, KEY, STOCK, Scripted, driver, identity, reply, spec

from unigpu.driver import DeploymentInfo, Invocation, Request
from unigpu.models._gpu_table import table
from unigpu.models.gpu import gpu

SPEC = "yotta-v2.openapi.yaml"
GUIDE = "https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless"
CLIENT = "https://github.com/yottalabsai/YottaML/blob/main/src/yottaml/elastic.py"
# What we send and the file does not have. Each is a choice that the driver's options can take back.
EXTRA = {
    "envVars": f"the guide's PATCH sample and the newer tutorials write it so; both are sent ({GUIDE})",
    "credentialId": f"the guide's PATCH and the published reference write it so; both are sent ({GUIDE})",
    "initializationCommand": f"in the client's create and in the published reference, forgotten in the file ({CLIENT})",
    "minSingleCardVramInGb": CLIENT,
    "minSingleCardRamInGb": CLIENT,
    "minSingleCardVcpu": CLIENT,
}
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969", port=8000,
    details={"service_mode": "QUEUE"},
)  # fmt: skip
POD = INFO.model_copy(update={"kind": "pod", "id": "789", "details": {}})
UNTIL = 1e9
FREE = {"GET /v2/vms/types": reply(STOCK), "GET /v2/serverless": reply([]), "GET /v2/pods": reply([])}


def holds(request: Request, **allow: str) -> None:
    """The request is as the file says."""
    url = request.url + ("?" + urlencode(request.params) if request.params else "")
    # Actions: the file declares no body, the official client sends {} (https://pypi.org/project/yottaml/0.2.0/).
    body = request.json if isinstance(request.json, dict) and request.json else None
    OpenAPI.load(SPEC).check_request(request.method, url, body=body, allow=EXTRA | allow)


FULL: dict[str, Any] = {
    "env": {"MODE": "fast"},
    "secrets": {"TOKEN": SecretStr("s")},
    "disk": 40,
    "provider_options": {
        "yotta": {
            "min_vram_gb": 24, "min_ram_gb": 32, "min_vcpu": 8, "webhook": "https://hook.example.com/x",
            "image_registry": "https://ghcr.io", "credential_id": 123,
        }
    },
}  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [
        {},
        FULL,
        {"interface": "http", "handler": None, "command": ["python", "server.py"], "port": 8080},
        {"gpu": "H100 SXM:2"},
    ],
    ids=["function", "everything", "http", "two GPUs"],
)
def test_create_is_as_the_file_says(script: Callable[..., Scripted], fields: dict[str, Any]) -> None:
    cloud = script({**FREE, "POST /v2/serverless": reply(ENDPOINT)})
    wanted = spec(**fields)
    (part,) = driver().resources(wanted, identity(wanted))
    found = cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    assert found.id == ENDPOINT["id"]
    for request in cloud.asked:
        holds(request)
    create = cloud.asked[-1]
    body = create.json
    assert len(body["name"]) <= 20
    assert body["serviceMode"] == ("ALB" if wanted.interface == "http" else "QUEUE")
    assert body["workers"] == 1
    assert body["containerVolumeInGb"] >= 20
    assert body["expose"] == {"port": wanted.port or 8000, "protocol": "http"}
    assert body["environmentVars"] == body["envVars"]
    assert {"key": "UNIGPU_NAME", "value": "summarize"} in body["envVars"]
    assert {"key": "PORT", "value": str(wanted.port or 8000)} in body["envVars"]
    assert create.role == "create"
    assert dict(create.headers) == {"x-api-key": KEY}


def test_a_pod_is_created_as_the_file_says(script: Callable[..., Scripted]) -> None:
    pod = {"id": 789, "name": "p", "status": "INITIALIZING", "createdAt": 1705306200000}
    cloud = script({**FREE, "POST /v2/pods": reply(pod)})
    own = {"shm_gb": 16, "credential_id": 5, "volumes": [{"id": 7, "path": "/data"}]}
    wanted = spec(kind="pod", auth="none", provider_options={"yotta": own})
    (part,) = driver().resources(wanted.without("workers"), identity(wanted))
    found = cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    assert found.id == "789"
    create = cloud.asked[-1]
    holds(create)
    assert create.json["gpuType"] == "NVIDIA_RTX_4090_24G"  # the first acceptable one
    assert create.json["regions"] == ["us-east-3"]
    assert create.json["imagePublicType"] == "PRIVATE"
    assert create.json["persistentVolumes"] == [{"volumeId": 7, "mountPath": "/data", "needBackup": False}]


def test_a_private_registrys_login_is_a_resource_of_its_own(script: Callable[..., Scripted]) -> None:
    login = {"id": 123, "name": "x", "type": "PRIVATE", "createdAt": "2024-01-15T10:30:00Z"}
    cloud = script(
        {
            "POST /v2/container-registry-auths": reply(login),
            **FREE,
            "POST /v2/serverless": reply(ENDPOINT),
        }
    )
    wanted = spec(registry={"username": "me", "password": SecretStr("hidden-word")})
    credential, endpoint = driver().resources(wanted, identity(wanted))
    made = {"credential": cloud.run(credential.create_cold(cloud.io, {}, deadline=UNTIL))}
    cloud.run(endpoint.create_cold(cloud.io, made, deadline=UNTIL))
    for request in cloud.asked:
        holds(request)
    assert cloud.asked[0].json["type"] == "PRIVATE"
    assert len(cloud.asked[0].json["name"]) <= 20
    body = cloud.asked[-1].json
    assert body["containerRegistryAuthId"] == body["credentialId"] == 123
    assert "hidden-word" not in json.dumps(body)


@pytest.mark.parametrize(
    ("image", "kind"),
    [("me/app:1", "DOCKER_HUB"), ("docker.io/me/app", "DOCKER_HUB"), ("ghcr.io/me/app:1", "PRIVATE"),
     ("gcr.io/p/a", "GCR"),
     ("eu-docker.pkg.dev/p/r/a:1", "GCR"), ("1.dkr.ecr.us-east-1.amazonaws.com/a", "ECR"), ("me.azurecr.io/a", "ACR"),
     ("localhost:5000/a", "PRIVATE"), ("evilgcr.io/a", "PRIVATE")],
)  # fmt: skip
def test_a_login_says_which_kind_of_registry_it_is_for(script: Callable[..., Scripted], image: str, kind: str) -> None:
    cloud = script({"POST /v2/container-registry-auths": reply({"id": 1, "name": "x"})})
    wanted = spec(image=image, registry={"username": "me", "password": "p"})
    part = driver().resources(wanted, identity(wanted))[0]
    cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    assert cloud.asked[0].json["type"] == kind


@pytest.mark.parametrize("choice", ["environmentVars", "envVars"])
def test_one_spelling_can_be_chosen(script: Callable[..., Scripted], choice: str) -> None:
    cloud = script({**FREE, "POST /v2/serverless": reply(ENDPOINT)})
    wanted = spec(provider_options={"yotta": {"credential_id": 5}})
    chosen = driver(env_key=choice, credential_key="credentialId")
    (part,) = chosen.resources(wanted, identity(wanted))
    cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    sent = set(cloud.asked[-1].json)
    assert sent & {"environmentVars", "envVars"} == {choice}
    assert sent & {"containerRegistryAuthId", "credentialId"} == {"credentialId"}


def test_regions_are_discovered_and_own_ones_sent_unasked(script: Callable[..., Scripted]) -> None:
    cloud = script({**FREE, "POST /v2/serverless": reply(ENDPOINT)})
    wanted = spec()
    (part,) = driver().resources(wanted, identity(wanted))
    cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    assert cloud.asked[-1].json["resources"] == [
        {"region": "us-east-3", "gpuType": "NVIDIA_RTX_4090_24G", "gpuCount": 1},
        {"region": "eu-2", "gpuType": "NVIDIA_H100_80G", "gpuCount": 1},
    ]
    wanted = spec(provider_options={"yotta": {"regions": ["eu-9"]}})
    (part,) = driver().resources(wanted, identity(wanted))
    cloud.run(part.create_cold(cloud.io, {}, deadline=UNTIL))
    assert cloud.operations[-1:] == ["yotta.endpoint.create"]
    assert cloud.operations.count("yotta.gpu.list") == 1
    assert {place["region"] for place in cloud.asked[-1].json["resources"]} == {"eu-9"}


def test_every_other_request_is_as_the_file_says(script: Callable[..., Scripted]) -> None:
    ep, pod = "/v2/serverless/378888638324150969", "/v2/pods/789"
    stopped = {**ENDPOINT, "status": "STOPPED"}
    paused = {"id": 789, "name": "p", "status": "STOPPED"}
    cloud = script(
        {
            "GET /v2/serverless": reply([ENDPOINT]), "GET /v2/pods": reply([]), f"GET {ep}": reply(stopped),
            f"GET {pod}": reply(paused), f"POST {ep}/start": reply(None), f"POST {ep}/stop": reply(None),
            f"POST {pod}/resume": reply(True), f"POST {pod}/pause": reply(True), f"DELETE {ep}": reply(True),
            f"DELETE {pod}": reply(None), f"GET {ep}/workers": reply([]), f"POST {ep}/tasks": reply({"taskId": "a"}),
            f"GET {ep}/tasks/a": reply({"taskId": "a", "status": "PROCESSING"}), "GET /v2/vms/types": reply(STOCK),
            f"GET {ep}/workers/7/logs": reply({"logs": [], "hasMore": False}),
            "GET /v2/container-registry-auths": reply([]), "GET /v2/vms": reply({"items": [], "total": 0}),
            "GET /v2/volumes": reply({"items": [], "total": 0}),
        }
    )  # fmt: skip
    one, io = driver(), cloud.io
    call = Invocation(input={"n": 1}, job_id="a", deadline=UNTIL, start_deadline=UNTIL, execution_timeout=600)
    cloud.run(one.deployments(io, deadline=UNTIL))
    cloud.run(one.read(io, INFO, deadline=UNTIL))
    cloud.run(one.start(io, INFO, deadline=UNTIL))
    cloud.run(one.start(io, POD, deadline=UNTIL))
    cloud.replies[f"GET {ep}"] = reply(ENDPOINT)
    cloud.replies[f"GET {pod}"] = reply({**paused, "status": "RUNNING"})
    cloud.run(one.stop(io, INFO, deadline=UNTIL))
    cloud.run(one.stop(io, POD, deadline=UNTIL))
    cloud.replies[f"GET {ep}"] = reply(stopped)
    for info in (INFO, POD):
        for part in one.parts(info):
            cloud.run(part.find(io, deadline=UNTIL))
            if part.kind in ("pod" if info is POD else "endpoint"):
                cloud.run(part.delete(io, info.id, deadline=UNTIL))
    cloud.run(one.workers(io, INFO, deadline=UNTIL))
    cloud.run(one.submit(io, INFO, call))
    cloud.run(one.status(io, INFO, "a", deadline=UNTIL))
    cloud.run(one.offers(io, gpu=None, max_price=None, regions=None, kind="serverless", deadline=UNTIL))
    cloud.run(one.inventory(io, deadline=UNTIL))

    async def read_logs() -> None:
        async for _ in one.logs(io, INFO, worker="7", follow=False, tail=50):
            raise AssertionError("there are none")

    cloud.run(read_logs())
    for request in cloud.asked:
        holds(request)
    assert len(set(cloud.operations)) >= 17


def test_scaling_is_where_the_file_is_wrong(script: Callable[..., Scripted]) -> None:
    """The file has ``PUT .../workers/{count}``. The guide, the published reference and the official client send the
    number as a query: https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless"""
    ep = "/v2/serverless/378888638324150969"
    cloud = script({f"GET {ep}": reply(ENDPOINT), f"PUT {ep}/workers": reply(None)})
    cloud.run(driver().scale(cloud.io, INFO, workers=(4, 4), deadline=UNTIL))
    asked = cloud.asked[-1]
    assert (asked.method, asked.params, asked.content) == ("PUT", (("count", "4"),), None)
    with pytest.raises(AssertionError, match="has no such route"):
        holds(asked)
    OpenAPI.load(SPEC).check_request("PUT", f"{BASE}{ep}/workers/4")


def test_every_gpu_that_we_know_yotta_has_is_one_of_its_published_codes() -> None:
    """https://docs.yottalabs.ai/api-and-sdk/api-guides, the table of GPU types."""
    published = {
        "NVIDIA_RTX_4090_24G", "NVIDIA_RTX_5090_32G", "NVIDIA_RTX_A6000_48G", "NVIDIA_RTX_6000_Ada_48G",
        "NVIDIA_A100_PCIe_40G", "NVIDIA_A100_40G", "NVIDIA_A100_PCIe_80G", "NVIDIA_A100_80G", "NVIDIA_H100_PCIe_80G",
        "NVIDIA_H100_80G", "NVIDIA_RTX_PRO_6000_96G", "NVIDIA_H200_141G", "NVIDIA_B200_180G", "NVIDIA_B300_262G",
        "AWS_Trainium_32G", "AMD_MI300X_192G",
    }  # fmt: skip
    ours = {code for one in table().gpus.values() for code in one.spellings.get("yotta", ())}
    ours |= {code for one in table().sets.values() for code in one.spellings.get("yotta", ())}
    assert ours == published
    assert gpu("RTX 4090") is not None
