"""Between unigpu's models and Yotta's endpoints and pods, both ways. Pure: no request is made here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from unigpu.driver import (
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Rate,
    State,
    Worker,
    WorkerState,
    canonical,
    is_ours,
    matches,
    spelling,
    worker_hour,
    workers_hour,
)

from . import _known
from ._codes import PROVIDER
from .options import LEAST_DISK, PORT, Options, SpecOptions
from .wire import EndpointWire, PodWire, StockWire, WorkerWire

ENDPOINT: Final = "endpoint"
POD: Final = "pod"
CREDENTIAL: Final = "credential"
WORKER_PRICE: Final = "worker_price_per_hour"
"""In `DeploymentInfo.details`: USD of one worker-hour, as told."""

_ENDPOINT_STATES: Final[Mapping[str, State]] = {
    "INITIALIZING": State.STARTING,
    "RUNNING": State.READY,
    "STOPPING": State.DEGRADED,
    "STOPPED": State.STOPPED,
    "FAILED": State.FAILED,
    "TERMINATED": State.GONE,
}
# The documents, the official script and the older clients have three names for the same pod states.
_POD_STATES: Final[Mapping[str, State]] = {
    "INITIALIZE": State.STARTING,
    "INITIALIZING": State.STARTING,
    "RUNNING": State.READY,
    "PAUSING": State.DEGRADED,
    "STOPPING": State.DEGRADED,
    "PAUSED": State.STOPPED,
    "STOPPED": State.STOPPED,
    "TERMINATING": State.DELETING,
    "TERMINATED": State.GONE,
    "FAILED": State.FAILED,
}
_WORKER_STATES: Final[Mapping[str, WorkerState]] = {
    "INITIALIZE": WorkerState.STARTING,
    "INITIALIZING": WorkerState.STARTING,
    "RUNNING": WorkerState.IDLE,  # whether it is busy is not told
    "STOPPING": WorkerState.DRAINING,
    "TERMINATING": WorkerState.DRAINING,
    "STOPPED": WorkerState.STOPPED,
    "TERMINATED": WorkerState.EXITED,
    "FAILED": WorkerState.FAILED,
}
_STOPS: Final = "it is stopping"
_REGISTRIES: Final = (
    ("gcr.io", "GCR"), ("pkg.dev", "GCR"), ("amazonaws.com", "ECR"), ("azurecr.io", "ACR"), ("docker.io", "DOCKER_HUB"),
)  # fmt: skip

# What is sent.


def gpu_codes(spec: DeploymentSpec, prices: Mapping[str, float]) -> list[str]:
    """Yotta's codes of the acceptable GPUs, in order; without those that are known to be too dear."""
    codes: list[str] = []
    for request in spec.gpu or ():
        for code in spelling(request, PROVIDER):
            price = price_in(prices, code)
            if spec.max_price is None or price is None or worker_hour(price, request.count) <= spec.max_price:
                codes.append(code)
    return list(dict.fromkeys(codes))


def gpu_count(spec: DeploymentSpec) -> int:
    """GPUs of one worker: the driver's check has seen that all acceptable ones have the same number."""
    return spec.gpu[0].count if spec.gpu else 1


def price_in(prices: Mapping[str, float], code: str) -> float | None:
    """The user's own price of a GPU, by Yotta's code."""
    name = canonical(PROVIDER, code)
    if name is None:
        return None
    return prices.get(name, next((price for known, price in prices.items() if matches(name, known)), None))


def resources(
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
    placement: Sequence[Mapping[str, Any]],
    *,
    options: Options,
    own: SpecOptions,
    credential: str | None,
) -> dict[str, Any]:
    """``POST /v2/serverless``. *credential*: the id of a stored registry login."""
    mode = _known.mode_of(spec.interface, own)
    body: dict[str, Any] = {
        "name": identity.provider_name,
        "image": spec.image,
        "resources": list(placement),
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
    if identity.constants["UNIGPU_WORKER"] != "foreign":
        env["UNIGPU_PUSHED"] = "1"  # an open port is ready there, and any refusal a failed task
    env |= {name: value.get_secret_value() for name, value in spec.secrets.items() if isinstance(value, SecretStr)}
    env["PORT"] = env["UNIGPU_PORT"] = str(spec.port or PORT)  # nobody else tells a server where to listen
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


# What is told.


def found_endpoint(wire: EndpointWire, base: str, options: Options, known: _known.Known = _known.NOTHING) -> Found:
    info = endpoint_info(wire, base, options, known)
    return _found(ENDPOINT, info)


def found_pod(wire: PodWire, options: Options, known: _known.Known = _known.NOTHING) -> Found:
    return _found(POD, pod_info(wire, options, known))


def _found(kind: str, info: DeploymentInfo) -> Found:
    return Found(
        kind=kind,
        id=info.id,
        name=info.provider_name,
        attempt=info.attempt,
        spec_hash=info.spec_hash,
        created_at=info.created_at,
        expires_at=info.expires_at,
        info=info,
        shown=_shown(info),
    )


def _shown(info: DeploymentInfo) -> dict[str, Any]:
    """Spec fields that can be read back as they were given: the image; of a QUEUE endpoint that it is no http one."""
    shown = {"image": info.details["image"]} if "image" in info.details else {}
    return {**shown, "interface": "function"} if info.details.get("service_mode") == "QUEUE" else shown


def endpoint_info(
    wire: EndpointWire, base: str, options: Options, known: _known.Known = _known.NOTHING
) -> DeploymentInfo:
    """The deployment, as users see it."""
    status = wire.status.upper()
    state = _ENDPOINT_STATES.get(status, State.UNKNOWN)
    ready = wire.running_workers
    if state is State.READY and ready == 0 and wire.total_workers:
        state = State.STARTING
    price = worker_price(wire, options)
    port = None if wire.expose is None else wire.expose.port
    shown = wire.environment_vars or wire.env_vars
    mode = None if wire.service_mode is None else wire.service_mode.upper()
    details = {
        "service_mode": mode, "domain": wire.domain, "cost": wire.cost, "image": wire.image, WORKER_PRICE: price
    }  # fmt: skip
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=wire.name,
        id=wire.id,
        ids={ENDPOINT: wire.id},
        state=state,
        raw_state=wire.status,
        reason=_STOPS if status == "STOPPING" else None,
        kind="serverless",
        workers=(wire.total_workers, wire.total_workers) if wire.total_workers else None,
        ready_workers=0 if state in (State.STOPPED, State.GONE) else ready,
        url=None if mode != "ALB" or wire.domain is None else origin(wire.domain, base),
        created_at=wire.created_at,
        rate=rate_of(price, wire.total_workers, stopped=state is State.STOPPED),
        ours=is_ours(wire.name),
        details={name: value for name, value in details.items() if value is not None},
        **_known.fields(shown, known, mode=mode, kind="serverless", port=port),
    )


def pod_info(wire: PodWire, options: Options, known: _known.Known = _known.NOTHING) -> DeploymentInfo:
    """A pod, as users see it: one worker, reached at the address of its port."""
    status = wire.status.upper()
    state = _POD_STATES.get(status, State.UNKNOWN)
    door = next((one for one in wire.expose if one.ingress_url and (one.protocol or "http").lower() == "http"), None)
    if state is State.READY and door is not None and door.healthy is False:
        state = State.STARTING
    price = None if not wire.single_card_price else wire.single_card_price * (wire.gpu_count or 1)
    if price is None and wire.gpu_type is not None:
        own = price_in(options.prices, wire.gpu_type)
        price = None if own is None else own * (wire.gpu_count or 1)
    details = {"gpu": wire.gpu_type, "region": wire.region, "image": wire.image, WORKER_PRICE: price}
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=wire.name,
        id=wire.id,
        ids={POD: wire.id},
        state=state,
        raw_state=wire.status,
        reason=_STOPS if state is State.DEGRADED else None,
        kind="pod",
        workers=(1, 1),
        ready_workers=None if state is State.UNKNOWN else int(state is State.READY),
        url=None if door is None else door.ingress_url,
        created_at=wire.created_at,
        rate=rate_of(price, 1),
        bills="its volumes, while it is paused",
        ours=is_ours(wire.name),
        details={name: value for name, value in details.items() if value is not None},
        **_known.fields(
            wire.environment_vars or wire.env_vars,
            known,
            mode=None,
            kind="pod",
            port=None if door is None else door.port,
        ),
    )


def worker_of(wire: WorkerWire) -> Worker:
    state = _WORKER_STATES.get(wire.status.upper(), WorkerState.UNKNOWN)
    gpu = None if wire.gpu_type is None else canonical(PROVIDER, wire.gpu_type)
    return Worker(
        id=wire.id or wire.worker_id or "unknown",
        state=state,
        raw_state=wire.status,
        gpu=gpu or wire.gpu_type or wire.gpu_display_name,
        gpu_count=wire.gpu_count,
        region=wire.region,
        started_at=wire.created_at,
    )


def worker_price(wire: EndpointWire, options: Options) -> float | None:
    """USD of one worker-hour; ``None``: not told. Zero is what an endpoint shows before it is placed."""
    told = wire.per_hour_price or (wire.per_second_price or 0.0) * 3600
    if not told:
        return None
    workers = max(1, wire.total_workers or 1) if options.price_of == "endpoint" else 1
    return worker_hour(told / workers, 1)


def rate_of(price: float | None, workers: int | None, *, stopped: bool = False) -> Rate:
    """What that many workers cost; unknown where their number is not told. A stopped endpoint costs nothing."""
    if price is None or workers is None:
        return Rate()
    total = workers_hour(workers, price)
    return Rate(idle_per_hour=0.0 if stopped else total, max_per_hour=total, source="as Yotta shows it")


def origin(named: str, base: str) -> str | None:
    """The gateway's address from the ``domain`` that the control plane named; ``None``: it is none.

    It is https; only beside a control plane on this machine (an emulator) it may be http, and have a path.
    """
    home = urlsplit(base)
    local = home.scheme == "http"
    if any(ord(mark) < 33 or ord(mark) > 126 for mark in named) or "@" in named or "\\" in named:
        return None
    parts = urlsplit(named if "://" in named else f"{home.scheme if local else 'https'}://{named}")
    try:
        bad = not parts.hostname or parts.port == 0
    except ValueError:
        return None
    if bad or parts.query or parts.fragment or parts.scheme not in (("http", "https") if local else ("https",)):
        return None
    if parts.path.strip("/") and not local:
        return None
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
