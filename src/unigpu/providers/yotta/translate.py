"""From Yotta's replies to unigpu's models. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urlsplit

from unigpu.driver import (
    DeploymentInfo,
    Found,
    Identity,
    Interface,
    Rate,
    State,
    Tags,
    Worker,
    WorkerState,
    canonical,
    found_of,
    is_ours,
    worker_hour,
    workers_hour,
)

from .api import CREDENTIAL, ENDPOINT, POD, PROVIDER
from .gpus import price_in
from .options import PORT, Options
from .wire import CredentialWire, EndpointWire, PodWire, ResourceWire, WorkerWire

UNKNOWN: Final = Tags()
ASSUMED: Final = ("interface", "port", "route", "execution_timeout", "concurrency", "idempotent", "worker_protocol")
"""Fields that are not certain where the environment is not shown."""
WORKER_PRICE: Final = "worker_price_per_hour"
"""In `DeploymentInfo.details`: USD of one worker-hour, as Yotta shows it."""

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
    "RUNNING": WorkerState.IDLE,  # Yotta does not show whether it is busy
    "STOPPING": WorkerState.DRAINING,
    "TERMINATING": WorkerState.DRAINING,
    "STOPPED": WorkerState.STOPPED,
    "TERMINATED": WorkerState.EXITED,
    "FAILED": WorkerState.FAILED,
}
_STOPS: Final = "it is stopping"


def found(
    wire: ResourceWire,
    base: str,
    options: Options,
    known: Tags,
    assumed: tuple[str, ...],
) -> Found:
    """What a row of any list shows."""
    if isinstance(wire, CredentialWire):
        return Found(kind=CREDENTIAL, id=wire.id, name=wire.name, created_at=wire.created_at)
    if isinstance(wire, PodWire):
        info = pod_info(wire, options, known, assumed)
        return found_of(POD, info, shown=_shown(info))
    info = endpoint_info(wire, base, options, known, assumed)
    return found_of(ENDPOINT, info, shown=_shown(info))


def _shown(info: DeploymentInfo) -> dict[str, Any]:
    """Spec fields that can be read back as they were given: the image; of a QUEUE endpoint that it is no http one."""
    shown = {"image": info.details["image"]} if "image" in info.details else {}
    return {**shown, "interface": "function"} if info.details.get("service_mode") == "QUEUE" else shown


def endpoint_info(
    wire: EndpointWire, base: str, options: Options, known: Tags = UNKNOWN, assumed: tuple[str, ...] = ASSUMED
) -> DeploymentInfo:
    """The deployment, as users see it."""
    status = wire.status.upper()
    state = _ENDPOINT_STATES.get(status, State.UNKNOWN)
    ready = wire.running_workers
    if state is State.READY and ready == 0 and wire.total_workers:
        state = State.STARTING
    price = worker_price(wire, options)
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
        **_constants(
            wire,
            known,
            assumed,
            interface="http" if mode == "ALB" else "function",
            port=None if wire.expose is None else wire.expose.port,
        ),
    )


def pod_info(
    wire: PodWire, options: Options, known: Tags = UNKNOWN, assumed: tuple[str, ...] = ASSUMED
) -> DeploymentInfo:
    """A pod, as users see it: one worker, reached at the address of its port."""
    status = wire.status.upper()
    state = _POD_STATES.get(status, State.UNKNOWN)
    exposed = next((one for one in wire.expose if one.ingress_url and (one.protocol or "http").lower() == "http"), None)
    if state is State.READY and exposed is not None and exposed.healthy is False:
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
        url=None if exposed is None else exposed.ingress_url,
        created_at=wire.created_at,
        rate=rate_of(price, 1),
        bills="its volumes, while it is paused",
        ours=is_ours(wire.name),
        details={name: value for name, value in details.items() if value is not None},
        **_constants(wire, known, assumed, interface="http", port=None if exposed is None else exposed.port),
    )


def _constants(
    wire: EndpointWire | PodWire,
    known: Tags,
    assumed: tuple[str, ...],
    *,
    interface: Interface,
    port: int | None,
) -> dict[str, Any]:
    """The fields of a `DeploymentInfo` that our constants hold, and which of them are `DeploymentInfo.assumed`.

    The environment holds our constants, and Yotta does not document whether the API shows an environment (the official
    clients' types have the field, the published samples do not). Where it is not shown, *known* stands in: this call's
    own spec, or what a handle knew before.

    Args:
        assumed: What of *known* is not certain.
        interface: The default.
        port: The exposed port, where it was shown.
    """
    tags = Tags.read(wire.environment_vars or wire.env_vars)
    if tags.shown:
        assumed = ()
    else:
        tags = known
        assumed = tuple(one for one in assumed if one != "port" or port is None)
    return {
        **tags.info(interface=tags.interface or interface, port=port or tags.port or PORT),
        "assumed": assumed,
    }


def of_any_create(identity: Identity) -> Tags:
    """What exists under this name is taken for what this call's spec says, except for what only one create call has."""
    return replace(Tags.read(identity.constants), attempt=None, spec_hash=None, expires_at=None)


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
    """USD of one worker-hour; ``None``: not shown. An endpoint shows zero before it is placed."""
    shown = wire.per_hour_price or (wire.per_second_price or 0.0) * 3600
    if not shown:
        return None
    workers = max(1, wire.total_workers or 1) if options.price_of == "endpoint" else 1
    return worker_hour(shown / workers, 1)


def rate_of(price: float | None, workers: int | None, *, stopped: bool = False) -> Rate:
    """What that many workers cost; unknown where Yotta does not show their number. A stopped endpoint costs nothing."""
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
