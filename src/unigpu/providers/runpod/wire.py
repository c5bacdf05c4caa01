"""What RunPod replies: only the fields that are used. Unknown ones are ignored, and unknown words are kept as text.

Sources: https://github.com/runpod/docs (api-reference-v2/openapi.json; serverless/endpoints/operation-reference.mdx).
"""
# ruff: noqa: N815 - fields are spelled as RunPod spells them

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from unigpu.driver import WireModel

PROVIDER = "runpod"


class WorkersWire(WireModel):
    min: int
    max: int
    idleTimeout: float | None = None


class ScalingWire(WireModel):
    type: str
    queueDelay: float | None = None
    requestCount: float | None = None


class GpuWire(WireModel):
    pools: tuple[str, ...] = ()
    excludedTypes: tuple[str, ...] | None = None
    count: int = 1
    minCudaVersion: str | None = None


class EndpointWire(WireModel):
    id: str
    name: str
    type: str | None = None
    env: Mapping[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] | None = None
    registry: str | None = None
    disk: float | None = None
    gpu: GpuWire | None = None
    workers: WorkersWire
    scaling: ScalingWire
    networkVolumes: tuple[str, ...] | None = None
    dataCenterIds: tuple[str, ...] | None = None
    timeout: float
    createdAt: str


class HealthJobsWire(WireModel):
    inQueue: int = 0
    inProgress: int = 0


class HealthWorkersWire(WireModel):
    idle: int = 0
    initializing: int = 0
    ready: int = 0
    running: int = 0
    throttled: int = 0
    unhealthy: int = 0


class HealthWire(WireModel):
    """``GET {jobs}/{id}/health``. The manual shows two workers' keys, the service six: each may be missing."""

    jobs: HealthJobsWire = Field(default_factory=HealthJobsWire)
    workers: HealthWorkersWire = Field(default_factory=HealthWorkersWire)


class WorkerWire(WireModel):
    id: str
    status: str
    gpuCount: int | None = None
    gpuTypeId: str | None = None
    dataCenterId: str | None = None
    startedAt: str | None = None
    isStale: bool = False


class WorkerListWire(WireModel):
    workers: tuple[WorkerWire, ...]


class PodGpuWire(WireModel):
    id: str
    count: int = 1


class NetworkMountWire(WireModel):
    volumeId: str


class PersistentMountWire(WireModel):
    size: float = 0.0


class MountsWire(WireModel):
    persistent: PersistentMountWire | None = None
    network: tuple[NetworkMountWire, ...] | None = None


class PodWire(WireModel):
    id: str
    name: str
    status: str
    env: Mapping[str, str] = Field(default_factory=dict)
    ports: tuple[str, ...] | None = None
    registry: str | None = None
    gpu: PodGpuWire | None = None
    mounts: MountsWire | None = None
    cluster: Mapping[str, Any] | None = None
    cloud: str | None = None
    dataCenterId: str | None = None
    cost: float | None = None
    runtime: Mapping[str, Any] | None = None
    disk: float | None = None
    createdAt: str
    startedAt: str | None = None


class PriceWire(WireModel):
    secure: float | None = None
    community: float | None = None
    serverless: float | None = None


class PlaceWire(WireModel):
    id: str
    availability: str | None = None


class GpuTypeWire(WireModel):
    id: str
    name: str
    pool: str | None = None
    memory: float
    secure: bool = False
    community: bool = False
    price: PriceWire = Field(default_factory=PriceWire)
    availability: str | None = None
    dataCenters: tuple[PlaceWire, ...] | None = None
    maxCount: Mapping[str, int] | None = None


class GpuTypesWire(WireModel):
    gpus: tuple[GpuTypeWire, ...]


class DataCenterWire(WireModel):
    id: str
    networkVolumeTypes: tuple[str, ...] = ()


class DataCentersWire(WireModel):
    dataCenters: tuple[DataCenterWire, ...]


class VolumeWire(WireModel):
    id: str
    name: str
    size: float
    dataCenter: str
    type: str | None = None


class RegistryWire(WireModel):
    id: str
    name: str


class SecretWire(WireModel):
    id: str
    name: str
    createdAt: str | None = None


class BalanceWire(WireModel):
    balanceAmount: float
    billingMode: str


class JobWire(WireModel):
    id: str
    status: str
    output: Any = None
    error: Any = None
    workerId: str | None = None
    executionTime: float | None = None


class StreamWire(WireModel):
    status: str | None = None
    stream: tuple[Mapping[str, Any], ...] = ()


class LogWire(WireModel):
    line: str
    source: str | None = None
    ts: str | None = None
