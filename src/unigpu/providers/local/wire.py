"""The JSON shapes of the local supervisor's protocol, as it replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from unigpu.driver import Response, WireModel
from unigpu.errors import InvalidResponseError


class WorkersWire(WireModel):
    min: int
    max: int


class LaunchWire(WireModel):
    handler: str | None = None
    argv: tuple[str, ...] = ()
    cwd: str | None = None
    port: int | None = None


class FailureWire(WireModel):
    reason: str
    message: str
    logs: tuple[str, ...] = ()


class DeploymentWire(WireModel):
    id: str
    name: str
    namespace: str
    attempt: str
    spec_hash: str
    interface: str = "function"
    kind: str = "serverless"
    workers: WorkersWire
    idle_timeout: float | None = None
    scaling: Mapping[str, Any] | None = None
    execution_timeout: float
    concurrency: int
    idempotent: bool = False
    expires_at: float | None = None
    origin: str | None = None
    constants: Mapping[str, str] = Field(default_factory=dict)
    spec: Mapping[str, Any] = Field(default_factory=dict)
    launch: LaunchWire = Field(default_factory=LaunchWire)
    state: str
    reason: str | None = None
    ready_workers: int = 0
    workers_total: int = 0
    queued: int = 0
    running: int = 0
    created_at: float | None = None
    secrets_lost: tuple[str, ...] = ()
    failure: FailureWire | None = None


class DeploymentsWire(WireModel):
    deployments: tuple[DeploymentWire, ...]


class DeletedWire(WireModel):
    deleted: bool
    last: bool


class JobErrorWire(WireModel):
    type: str = "Error"
    message: str = ""
    traceback: str | None = None
    reason: str | None = None
    logs: tuple[str, ...] = ()


class JobWire(WireModel):
    id: str
    status: str
    output: Any = None
    error: JobErrorWire | None = None
    lost: bool = False
    worker_id: str | None = None
    submitted_at: float | None = None
    queue_s: float | None = None
    cold_start_s: float | None = None
    execution_s: float | None = None
    ready_workers: int | None = None
    kept_until: float | None = None


class PageWire(WireModel):
    chunks: tuple[Any, ...]
    after: int
    end: bool
    ready_workers: int | None = None
    started: bool | None = None


class WorkerWire(WireModel):
    id: str
    state: str
    reason: str | None = None
    started_at: float | None = None
    ready_at: float | None = None
    jobs_running: int | None = None
    billed_seconds: float | None = None
    pid: int | None = None


class WorkerListWire(WireModel):
    workers: tuple[WorkerWire, ...]


class LineWire(WireModel):
    n: int
    time: float
    stream: str = "stdout"
    text: str


class LinesWire(WireModel):
    lines: tuple[LineWire, ...]
    after: int


class ErrorWire(WireModel):
    type: str = ""
    message: str = ""
    reason: str | None = None
    logs: tuple[str, ...] = ()


class RefusedWire(WireModel):
    """An error, and with a failed condition what is there instead."""

    error: ErrorWire = Field(default_factory=ErrorWire)
    deployment: DeploymentWire | None = None


def refusal(response: Response) -> RefusedWire:
    """What an error reply says; empty where it says nothing in our form."""
    try:
        return RefusedWire.model_validate(response.json())
    except (InvalidResponseError, ValidationError):
        return RefusedWire()
