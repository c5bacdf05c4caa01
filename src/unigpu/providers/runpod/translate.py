"""From RunPod's replies to unigpu's models. Pure. A word that we do not know is ``UNKNOWN``, never "gone"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from unigpu.driver import (
    DEFAULT_PORT,
    DeploymentInfo,
    Found,
    InventoryItem,
    LogLine,
    Rate,
    State,
    Tags,
    Worker,
    WorkerState,
    canonical,
    epoch,
    found_of,
    is_ours,
    workers_hour,
)

from .bodies import GROUP
from .wire import (
    PROVIDER,
    EndpointWire,
    HealthWire,
    HealthWorkersWire,
    LogWire,
    RegistryWire,
    ScalingWire,
    VolumeWire,
    WorkerWire,
)

VOLUME_GB_MONTH: Final = 0.07
"""USD a month for each of the first 1000 gigabytes of a network volume; what is above them costs 0.05, and the faster
tier 0.14: https://github.com/runpod/docs/blob/07bdf6d7/storage/network-volumes.mdx."""
FAST_GB_MONTH: Final = 0.14
_ABOVE_GB_MONTH: Final = 0.05
_TB: Final = 1000

_REFERENCE: Final = re.compile(r"\{\{ RUNPOD_SECRET_" + GROUP.pattern)

LOWERED: Final = (
    "it may have no worker (workers.max is 0): RunPod itself lowers it after a week without a request, or when workers "
    "keep failing; scale(workers=(0, n)) raises it again"
)

_LOWERED_TO: Final = 2

# -- endpoints --------------------------------------------------------------------------------------------------------


def found_endpoint(wire: EndpointWire, lb_url: str) -> Found:
    return found_of("endpoint", endpoint_info(wire, lb_url=lb_url))


def endpoint_info(wire: EndpointWire, *, lb_url: str, health: HealthWire | None = None) -> DeploymentInfo:
    """An endpoint; *health*: its workers now, which a list does not show."""
    tags, limits = Tags.read(wire.env), (wire.workers.min, wire.workers.max)
    balanced = wire.type == "LOAD_BALANCER"
    state, reason, ready = State.UNKNOWN, None, None
    if health is not None:
        state, reason = state_of(limits, health, balanced=balanced)
        ready = ready_of(health.workers, balanced=balanced)
    elif wire.workers.max == 0:
        state, reason = State.DEGRADED, LOWERED
    if lowered := _lowered(wire, tags):
        reason = f"{reason}; {lowered}" if reason else lowered
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=wire.name,
        id=wire.id,
        ids={"endpoint": wire.id, **ids_of(wire.env, wire.registry, wire.networkVolumes or ())},
        ours=is_ours(wire.name),
        state=state,
        raw_state=None if health is None else _counts(health.workers),
        reason=reason,
        workers=limits,
        ready_workers=ready,
        idle_timeout=wire.workers.idleTimeout,
        url=lb_url.replace("{id}", wire.id) if balanced else None,
        created_at=epoch(wire.createdAt),
        rate=rate_of(tags, limits, wire.createdAt, kept=bool(wire.networkVolumes)),
        details={
            "type": wire.type,
            "scaling": scaling_of(wire.scaling),
            "gpu": None if wire.gpu is None else gpu_of(wire),
            "min_cuda": None if wire.gpu is None else wire.gpu.minCudaVersion,
            "data_centers": list(wire.dataCenterIds or ()),
            "network_volumes": list(wire.networkVolumes or ()),
            "max_price": tags.max_price,
        },
        **replace(tags, port=tags.port or DEFAULT_PORT if balanced else None).info(
            execution_timeout=wire.timeout / 1000 or None
        ),
    )


def _lowered(wire: EndpointWire, tags: Tags) -> str | None:
    """Whether RunPod may have lowered the maximum to two workers, as it does after three days without a request."""
    most = tags.max_workers
    if most is None or not 0 < wire.workers.max <= _LOWERED_TO < most:
        return None
    return (
        f"it may have {wire.workers.max} workers at most and was deployed with {most}: RunPod itself lowers it "
        f"after three days without a request; scale(workers=({wire.workers.min}, {most})) raises it again"
    )


def gpu_of(wire: EndpointWire) -> dict[str, Any]:
    """What an endpoint may run on, to be compared before and after a change."""
    gpu = wire.gpu
    if gpu is None:
        return {}
    return {"pools": sorted(gpu.pools), "excludedTypes": sorted(gpu.excludedTypes or ()), "count": gpu.count}


def scaling_of(wire: ScalingWire) -> dict[str, Any]:
    """As `unigpu.models.Scaling` says it."""
    if wire.type == "REQUEST_COUNT":
        return {"signal": "requests", "target": float(wire.requestCount or 1)}
    return {"signal": "queue_delay", "target": float(wire.queueDelay or 0)}


def ready_of(workers: HealthWorkersWire, *, balanced: bool) -> int:
    """Workers that take calls. A load balancer routes to ``ready`` ones only: ``running`` may be a server that does
    not listen."""
    return workers.ready if balanced else max(workers.ready, workers.idle + workers.running)


def state_of(limits: tuple[int, int], health: HealthWire, *, balanced: bool = False) -> tuple[State, str | None]:
    """Where an endpoint is, and why it has no worker where it has none.

    The order of reasons: nothing allowed, a crash loop, full hosts. RunPod's own tools judge in this order, after four
    of five "no capacity" cases turned out to be crash loops: https://github.com/runpod/runpod-mcp/pull/62
    """
    workers = health.workers
    if ready_of(workers, balanced=balanced) > 0 and limits[1] > 0:
        return State.READY, None
    if limits[1] == 0:
        return State.DEGRADED, LOWERED
    if workers.unhealthy and not workers.initializing:
        return State.FAILED, f"crash_loop: {workers.unhealthy} worker(s) are unhealthy"
    if balanced and workers.running + workers.idle > 0:
        return State.STARTING, "probe: its program runs, and does not answer its health path on $PORT (yet)"
    if workers.initializing:
        return State.STARTING, None
    if workers.throttled:
        return State.STARTING, f"no capacity: {workers.throttled} worker(s) are throttled, their hosts are full"
    if health.jobs.inQueue:
        return State.STARTING, f"{health.jobs.inQueue} job(s) wait, and RunPod has placed no worker yet"
    return (State.COLD, None) if limits[0] == 0 else (State.STARTING, "RunPod has placed no worker yet")


def worker_of(wire: WorkerWire) -> Worker:
    states = {
        "RUNNING": WorkerState.BUSY,
        "IDLE": WorkerState.IDLE,
        "INITIALIZING": WorkerState.STARTING,
        "THROTTLED": WorkerState.PLACING,
        "UNHEALTHY": WorkerState.FAILED,
    }
    reasons = {
        "THROTTLED": "no capacity: its host is full",
        "UNHEALTHY": "crash_loop: RunPod calls it unhealthy; its program ended, or did not start in time",
    }
    return Worker(
        id=wire.id,
        state=states.get(wire.status, WorkerState.UNKNOWN),
        raw_state=wire.status,
        reason=reasons.get(wire.status),
        gpu=None if wire.gpuTypeId is None else canonical(PROVIDER, wire.gpuTypeId) or wire.gpuTypeId,
        gpu_count=wire.gpuCount,
        region=wire.dataCenterId,
        started_at=epoch(wire.startedAt),
    )


# -- what a deployment stands on --------------------------------------------------------------------------------------


def found_registry(wire: RegistryWire) -> Found:
    name, _, attempt = wire.name.rpartition("-")
    return Found(kind="registry", id=wire.id, name=name, attempt=attempt)


def found_volume(wire: VolumeWire) -> Found:
    """It belongs to no create: it outlives deployments, so its size and place may be others than asked for."""
    return Found(kind="volume", id=wire.id, name=wire.name, shown={"size_gb": wire.size, "place": wire.dataCenter})


def volume_month(size_gb: float, tier: str | None = None) -> float:
    """USD a month for a network volume. Ours are of the standard tier."""
    if tier == "HIGH_PERFORMANCE":
        return round(size_gb * FAST_GB_MONTH, 4)
    return round(min(size_gb, _TB) * VOLUME_GB_MONTH + max(0.0, size_gb - _TB) * _ABOVE_GB_MONTH, 4)


def volume_item(wire: VolumeWire) -> InventoryItem:
    return InventoryItem(
        provider=PROVIDER,
        id=wire.id,
        kind="volume",
        owner="ours" if is_ours(wire.name) else "foreign",
        name=wire.name,
        state="kept",
        per_hour=0.0,
        per_month=volume_month(wire.size, wire.type),
        note=f"{wire.size:g} GB in {wire.dataCenter}; billed until it is deleted",
    )


def endpoint_item(wire: EndpointWire, info: DeploymentInfo, health: HealthWire) -> InventoryItem:
    """An endpoint by its workers now. RunPod's pages contradict each other on whether one that initialises is billed;
    it is counted."""
    workers, price = health.workers, Tags.read(wire.env).price
    running = max(workers.ready, workers.idle + workers.running)
    alive = max(running + workers.initializing, wire.workers.min)
    return InventoryItem(
        provider=PROVIDER,
        id=wire.id,
        kind="endpoint",
        owner="ours" if info.ours else "foreign",
        name=info.name or info.provider_name,
        namespace=info.namespace,
        state=_counts(workers),
        per_hour=0.0 if not alive else None if price is None else round(alive * price, 6),
        per_month=0.0,
        created_at=info.created_at,
        note=f"{wire.workers.min} to {wire.workers.max} workers",
    )


def ids_of(env: Mapping[str, str], registry: str | None, volumes: tuple[str, ...]) -> dict[str, str]:
    """The ids of what it refers to, by kind."""
    ids: dict[str, str] = {}
    group = next((found.group(1) for text in env.values() if (found := _REFERENCE.match(text))), None)
    if group is not None:
        ids["secrets"] = group
    if registry:
        ids["registry"] = registry
    if volumes:
        ids["volume"] = volumes[0]
    return ids


# -- small things -----------------------------------------------------------------------------------------------------


def line_of(wire: LogWire, worker: str) -> LogLine:
    return LogLine(
        text=wire.line,
        worker_id=worker,
        stream="system" if wire.source == "system" else "stdout",
        time=epoch(wire.ts),
    )


def rate_of(tags: Tags, limits: tuple[int, int], created: str, *, kept: bool) -> Rate:
    """By the price that was written at create: an endpoint does not show its own. *kept*: it has volumes, whose sizes
    it does not show."""
    idle, most = (workers_hour(count, tags.price) for count in limits)
    source = None if tags.price is None else f"RunPod's catalogue at create, {created[:10]}"
    return Rate(idle_per_hour=idle, max_per_hour=most, storage_per_month=None if kept else 0.0, source=source)


def _counts(workers: HealthWorkersWire) -> str:
    """The workers by RunPod's words, as in ``"1 initializing, 2 throttled"``."""
    counted = [(name, int(getattr(workers, name))) for name in type(workers).model_fields]
    return ", ".join(f"{count} {name}" for name, count in counted if count) or "no worker"
