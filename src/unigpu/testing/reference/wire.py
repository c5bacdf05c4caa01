"""What the reference platform replies: only the fields that are used. Unknown ones are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unigpu.driver import WireModel


class TemplateWire(WireModel):
    id: str
    name: str
    env: Mapping[str, str]
    created_at: float


class LimitsWire(WireModel):
    min: int
    max: int
    ready: int


class EndpointWire(WireModel):
    id: str
    name: str
    template_id: str
    env: Mapping[str, str]
    workers: LimitsWire
    idle_timeout: float
    job_timeout: float
    concurrency: int
    price_per_hour: float
    status: str
    reason: str | None = None
    created_at: float


class WorkerWire(WireModel):
    id: str
    status: str
    reason: str | None = None
    started_at: float | None = None
    jobs: int
    billed_seconds: float


class WorkersWire(WireModel):
    items: tuple[WorkerWire, ...]


class LineWire(WireModel):
    n: int
    time: float
    text: str


class LinesWire(WireModel):
    items: tuple[LineWire, ...]


class JobErrorWire(WireModel):
    type: str = "Error"
    message: str = ""


class JobWire(WireModel):
    id: str
    status: str
    output: Any = None
    error: JobErrorWire | None = None
    worker_lost: bool = False
    worker_id: str | None = None
    submitted_at: float
    execution_s: float | None = None
    ready_workers: int
