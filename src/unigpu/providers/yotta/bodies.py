"""From a spec to the bodies of Yotta's requests. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import DeploymentSpec, Identity, Interface, Tags

from .gpus import gpu_count
from .options import LEAST_DISK, PORT, Mode, Options, SpecOptions
from .wire import StockWire

_REGISTRIES: Final = (
    ("gcr.io", "GCR"), ("pkg.dev", "GCR"), ("amazonaws.com", "ECR"), ("azurecr.io", "ACR"), ("docker.io", "DOCKER_HUB"),
)  # fmt: skip


def mode_of(interface: Interface, options: SpecOptions) -> Mode:
    """Which product carries it."""
    return options.service_mode or ("QUEUE" if interface == "function" else "ALB")


def placement(
    codes: Sequence[str], count: int, stock: Sequence[StockWire], regions: Sequence[str] | None
) -> list[dict[str, Any]]:
    """``resources[]``: each acceptable GPU in each region that has it now, or in the given ones."""
    if regions is not None:
        places = [(region, code) for code in codes for region in regions]
    else:
        places = [(one.region, row.gpu_type) for code in codes for row in stock if row.gpu_type == code
                  for one in row.regions if one.available]  # fmt: skip
    return [{"region": region, "gpuType": code, "gpuCount": count} for region, code in dict.fromkeys(places)]


def endpoint_body(
    spec: DeploymentSpec,
    identity: Identity,
    places: Sequence[Mapping[str, Any]],
    *,
    options: Options,
    own: SpecOptions,
    credential: str | None,
) -> dict[str, Any]:
    """``POST /v2/serverless``. *credential*: the id of a stored registry login."""
    mode = mode_of(spec.interface, own)
    body: dict[str, Any] = {
        "name": identity.provider_name,
        "image": spec.image,
        "resources": list(places),
        "workers": max(1, spec.workers[0]),
        "containerVolumeInGb": disk(spec),
        "serviceMode": mode,
        **_common(spec, identity, options, own, credential),
    }
    if own.webhook is not None:
        body["webhook"] = own.webhook
    if mode != "CUSTOM" or spec.port is not None:
        body["expose"] = {"port": spec.port or PORT, "protocol": "http"}
    return body


def pod_body(
    spec: DeploymentSpec,
    identity: Identity,
    code: str,
    regions: Sequence[str],
    *,
    options: Options,
    own: SpecOptions,
    credential: str | None,
) -> dict[str, Any]:
    """``POST /v2/pods``: one GPU type, in any of these regions."""
    body: dict[str, Any] = {
        "name": identity.provider_name,
        "image": spec.image,
        "gpuType": code,
        "gpuCount": gpu_count(spec),
        "regions": list(regions),
        "containerVolumeInGb": disk(spec),
        "expose": [{"port": spec.port or PORT, "protocol": "http"}],
        **_common(spec, identity, options, own, credential),
    }
    if credential is not None:
        body["imagePublicType"] = "PRIVATE"
    if own.shm_gb is not None:
        body["shmInGb"] = own.shm_gb
    if own.volumes is not None:
        body["persistentVolumes"] = [
            {"volumeId": one.id, "mountPath": one.path, "needBackup": one.backup} for one in own.volumes
        ]
    return body


def _common(
    spec: DeploymentSpec,
    identity: Identity,
    options: Options,
    own: SpecOptions,
    credential: str | None,
) -> dict[str, Any]:
    body: dict[str, Any] = {}
    env = {**spec.env, **identity.constants}
    if Tags.read(identity.constants).worker_protocol != "foreign":
        env["UNIGPU_PUSHED"] = "1"  # an open port is ready there, and any refusal a failed task
    env |= {name: value.get_secret_value() for name, value in spec.secrets.items() if isinstance(value, SecretStr)}
    port = spec.port or PORT
    env |= {"PORT": str(port), **Tags(port=port).write()}  # Yotta sets no variable for the port itself
    pairs = [{"key": name, "value": value} for name, value in env.items()]
    for key in ("environmentVars", "envVars"):
        if options.env_key in ("both", key):
            body[key] = pairs
    if credential is not None:
        for key in ("containerRegistryAuthId", "credentialId"):
            if options.credential_key in ("both", key):
                body[key] = int(credential) if credential.isdecimal() else credential
    command = spec.command or (() if spec.handler is None else ("python", "-m", "unigpu.worker", spec.handler))
    if command:
        body["initializationCommand"] = shlex.join(command)
    given = {
        "imageRegistry": own.image_registry,
        "minSingleCardVramInGb": own.min_vram_gb,
        "minSingleCardRamInGb": own.min_ram_gb,
        "minSingleCardVcpu": own.min_vcpu,
    }
    return {**body, **{key: value for key, value in given.items() if value is not None}}


def disk(spec: DeploymentSpec) -> int:
    return max(LEAST_DISK, spec.disk or 0)


def credential_body(name: str, spec: DeploymentSpec) -> dict[str, Any]:
    """``POST /v2/container-registry-auths``."""
    if spec.registry is None or spec.image is None:
        raise AssertionError("a login without a registry is never created")
    head = spec.image.split("/", 1)[0]
    host = head if "/" in spec.image and ("." in head or ":" in head or head == "localhost") else "docker.io"
    kind = next((kind for end, kind in _REGISTRIES if host == end or host.endswith(f".{end}")), "PRIVATE")
    login = spec.registry
    return {
        "name": name,
        "type": kind,
        "username": login.username,
        "password": login.password.get_secret_value(),
    }
