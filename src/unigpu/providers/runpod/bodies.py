"""From a spec to what RunPod is sent. Pure. Each of RunPod's quiet defaults is stated.

https://github.com/runpod/docs (api-reference-v2/openapi.json): CreateEndpointRequest, UpdateEndpointRequest,
CreatePodRequest. ``entrypoint`` and ``cmd`` are in later revisions of that file (September 2026).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final

from unigpu.driver import DEFAULT_PORT, BearerToken, DeploymentSpec, Found, Identity, Scaling, SecretRef, Tags

from .gpus import Candidate, Choice
from .options import SpecOptions
from .wire import PROVIDER, EndpointWire

MOUNT: Final = "/runpod-volume"
"""Where RunPod mounts a network volume in serverless workers: https://docs.runpod.io/storage/network-volumes."""
QUEUE_DELAY: Final = 4.0
"""Seconds: the old server's default (https://docs.runpod.io/serverless/endpoints/endpoint-configurations)."""
SHORTEST_RUN: Final = 5.0
LONGEST_RUN: Final = 7 * 86400.0
SHORTEST_IDLE: Final = 1.0
LONGEST_IDLE: Final = 3600.0
LEAST_DELAY: Final = 0.5
DEFAULT_TTL: Final = 86400.0
"""Seconds for which a job lives, its run included, unless its policy says otherwise."""

GROUP: Final = re.compile(r"([a-z][a-z0-9_]{0,4}_ug[a-z2-7]{12}_[0-9a-f]{32})_")
"""How the name of an account secret of ours begins: whose it is, and of which create."""
_VOLUME: Final = re.compile(r"\$\{volume\.[^}]*\}")


def options_of(spec: DeploymentSpec) -> SpecOptions:
    """The checked ``provider_options["runpod"]``."""
    return SpecOptions.model_validate(dict(spec.options(PROVIDER)))


def type_of(spec: DeploymentSpec) -> str:
    """``QUEUE`` or ``LOAD_BALANCER``."""
    return options_of(spec).endpoint_type or ("QUEUE" if spec.interface == "function" else "LOAD_BALANCER")


def loose_tag(image: str | None) -> bool:
    """Whether an image is named without a version: RunPod's hosts keep what they once pulled under such a name."""
    if image is None or "@" in image:
        return False
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag in ("", "latest")


def port_of(spec: DeploymentSpec) -> int:
    return spec.port or DEFAULT_PORT


def mount_of(spec: DeploymentSpec) -> str:
    """Where the spec's volume is mounted."""
    if spec.kind == "serverless":
        return MOUNT
    own = spec.volumes[0].path if spec.volumes else None
    return own or options_of(spec).mount_path


def secret_names(spec: DeploymentSpec) -> tuple[str, ...]:
    """The variables whose values become account secrets. A reference is the user's own secret, and not made."""
    names = [name for name, value in spec.secrets.items() if not isinstance(value, SecretRef)]
    if isinstance(spec.auth, BearerToken) and spec.auth.env not in spec.secrets:
        names.append(spec.auth.env)
    return tuple(names)


def secret_group(identity: Identity) -> str:
    """What the names of a deployment's account secrets begin with: whose they are, and of which create call."""
    return f"{identity.provider_name.replace('-', '_')}_{identity.attempt}"


def secret_reference(name: str) -> str:
    """What an environment value must be for RunPod to put a secret there, when a worker boots."""
    return "{{ RUNPOD_SECRET_" + name + " }}"


def env_of(spec: DeploymentSpec, identity: Identity, *, price: float | None = None) -> dict[str, str]:
    """The environment: the user's, references to secrets, the constants, and where to listen.

    Args:
        price: USD of the most expensive worker-hour: kept there, because an endpoint does not show what it costs.
    """
    mount = mount_of(spec)
    env = {name: _VOLUME.sub(mount, text) for name, text in spec.env.items()}
    for name, value in spec.secrets.items():
        if isinstance(value, SecretRef):
            env[name] = secret_reference(value.name)
    group = secret_group(identity)
    env |= {name: secret_reference(f"{group}_{name}") for name in secret_names(spec)}
    most = spec.workers[1] if spec.kind == "serverless" else None
    env |= {**identity.constants, **Tags(price=price, max_price=spec.max_price, max_workers=most).write()}
    if spec.kind == "pod" or type_of(spec) == "LOAD_BALANCER":
        # Set together: where one is left to RunPod its documents disagree on the default, and workers stay unready.
        env["PORT"] = env["UNIGPU_PORT"] = str(port_of(spec))
        if spec.kind == "serverless":
            env |= {"PORT_HEALTH": str(port_of(spec)), "HEALTH_CHECK_PATH": options_of(spec).health_path}
    return env


def command_of(spec: DeploymentSpec) -> dict[str, list[str]]:
    """``entrypoint`` and ``cmd``; nothing where the image's own command runs."""
    words: list[str] = []
    if spec.handler is not None:
        words = ["python", "-m", "unigpu.worker", spec.handler]
    elif spec.command is not None:
        words = [_VOLUME.sub(mount_of(spec), word) for word in spec.command]
    return {"entrypoint": words[:1], "cmd": words[1:]} if words else {}


def scaling_body(endpoint_type: str, scaling: Scaling | None, concurrency: int = 1) -> dict[str, Any]:
    """The scaler: RunPod's queue delay of 4 s by default; a load balancer counts requests only."""
    if endpoint_type == "LOAD_BALANCER" or (scaling is not None and scaling.signal == "requests"):
        target = concurrency if scaling is None else scaling.target
        return {"type": "REQUEST_COUNT", "requestCount": max(1, math.ceil(target))}
    return {"type": "QUEUE_DELAY", "queueDelay": max(LEAST_DELAY, QUEUE_DELAY if scaling is None else scaling.target)}


def has_idle_timeout(endpoint_type: str, scaling: Mapping[str, Any]) -> bool:
    """RunPod refuses an idle timeout (422) on a queue that is scaled by requests."""
    return not (endpoint_type == "QUEUE" and scaling["type"] == "REQUEST_COUNT")


def idle_seconds(seconds: float) -> int:
    return int(min(LONGEST_IDLE, max(SHORTEST_IDLE, math.ceil(seconds))))


def workers_body(workers: tuple[int, int], idle_timeout: float | None) -> dict[str, Any]:
    body: dict[str, Any] = {"min": workers[0], "max": workers[1]}
    if idle_timeout is not None:
        body["idleTimeout"] = idle_seconds(idle_timeout)
    return body


def limits_body(spec: DeploymentSpec) -> dict[str, Any]:
    """``workers`` and ``scaling`` as the spec says."""
    kind = type_of(spec)
    scaling = scaling_body(kind, spec.scaling, spec.concurrency)
    idle = spec.idle_timeout if has_idle_timeout(kind, scaling) else None
    return {"workers": workers_body(spec.workers, idle), "scaling": scaling}


def endpoint_body(
    spec: DeploymentSpec,
    identity: Identity,
    choice: Choice,
    *,
    registry: str | None = None,
    volume: str | None = None,
) -> dict[str, Any]:
    """The body of ``POST /v2/serverless``. Without a least number of workers: nothing runs before its id is kept."""
    limits = limits_body(spec)
    limits["workers"]["min"] = 0
    body = {
        "name": identity.provider_name,
        "type": type_of(spec),
        **content_body(spec, identity, choice),
        **limits,
    }
    volumes = [*([volume] if volume else []), *options_of(spec).network_volumes]
    if volumes:
        body["networkVolumes"] = volumes
    if registry is not None:
        body["registry"] = registry
    return body


def content_patch(spec: DeploymentSpec, identity: Identity, choice: Choice, *, min_cuda: str | None) -> dict[str, Any]:
    """The body of a PATCH to *spec*: RunPod keeps absent fields, so those that *spec* does not have are cleared.

    Args:
        min_cuda: The floor that the endpoint has now; ``""`` clears one.
    """
    cleared: dict[str, Any] = {"entrypoint": [], "cmd": []}
    body = cleared | content_body(spec, identity, choice)
    if min_cuda:
        body["gpu"].setdefault("minCudaVersion", "")
    return body


def content_body(spec: DeploymentSpec, identity: Identity, choice: Choice) -> dict[str, Any]:
    """What an endpoint runs, and on what: the same in create and in PATCH."""
    options = options_of(spec)
    body: dict[str, Any] = {
        "image": spec.image,
        "gpu": choice.body(min_cuda=options.min_cuda),
        "timeout": run_milliseconds(spec.execution_timeout),
        "flashboot": options.flashboot,
        "env": env_of(spec, identity, price=choice.price),
        **command_of(spec),
    }
    body["dataCenterIds"] = list(options.data_centers or choice.places)
    if spec.disk is not None:
        body["disk"] = spec.disk
    if type_of(spec) == "LOAD_BALANCER":
        body["ports"] = [f"{port_of(spec)}/http"]
    return body


def run_milliseconds(seconds: float) -> int:
    """RunPod's execution timeout: whole milliseconds, from 5 s to 7 days."""
    return round(min(LONGEST_RUN, max(SHORTEST_RUN, seconds)) * 1000)


def limits_patch(
    now: EndpointWire,
    *,
    workers: tuple[int, int] | None,
    idle_timeout: float | None,
    scaling: Scaling | None,
) -> dict[str, Any]:
    """The body of a scaling PATCH: limits only, and whole, so that the others stay as they are."""
    kind = now.type or "QUEUE"
    body: dict[str, Any] = {}
    wanted = scaling_as_is(now) if scaling is None else scaling_body(kind, scaling)
    if workers is not None or idle_timeout is not None or scaling is not None:
        idle = now.workers.idleTimeout if idle_timeout is None else idle_timeout
        pair = (now.workers.min, now.workers.max) if workers is None else workers
        body["workers"] = workers_body(pair, idle if has_idle_timeout(kind, wanted) else None)
    if scaling is not None:
        body["scaling"] = wanted
    return body


def scaling_as_is(now: EndpointWire) -> dict[str, Any]:
    if now.scaling.type == "REQUEST_COUNT":
        return {"type": "REQUEST_COUNT", "requestCount": int(now.scaling.requestCount or 1)}
    return {"type": now.scaling.type, "queueDelay": now.scaling.queueDelay}


def pod_body(
    spec: DeploymentSpec,
    identity: Identity,
    candidate: Candidate,
    *,
    registry: str | None = None,
    volume: str | None = None,
) -> dict[str, Any]:
    """The body of ``POST /v2/pods``. ``gpu.count`` is always sent: without it no machine was seen to match."""
    options = options_of(spec)
    gpu: dict[str, Any] = {"id": candidate.type, "count": candidate.count}
    if options.min_cuda is not None:
        gpu["minCudaVersion"] = options.min_cuda
    body: dict[str, Any] = {
        "name": identity.provider_name,
        "image": spec.image,
        "cloud": candidate.cloud,
        "gpu": gpu,
        "env": env_of(spec, identity, price=candidate.price),
        "ports": [f"{port_of(spec)}/http"],
        **command_of(spec),
    }
    if options.data_centers or candidate.places:
        body["dataCenterIds"] = list(options.data_centers or candidate.places)
    if spec.disk is not None:
        body["disk"] = spec.disk
    mounted = volume or next(iter(options.network_volumes), None)
    if mounted is not None:
        body["mounts"] = {"network": [{"volumeId": mounted, "path": mount_of(spec)}]}
    if registry is not None:
        body["registry"] = registry
    return body


def registry_body(spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found]) -> dict[str, Any]:
    """The body of ``POST /v2/registries``."""
    if spec.registry is None:
        raise AssertionError("a registry login is created only where the spec has one")
    return {
        "name": f"{identity.provider_name}-{identity.attempt}",
        "username": spec.registry.username,
        "password": spec.registry.password.get_secret_value(),
    }
