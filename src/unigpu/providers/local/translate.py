"""Between models and the local supervisor's JSON. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from unigpu.driver import (
    DeploymentInfo,
    Found,
    Interface,
    Kind,
    LogLine,
    Rate,
    State,
    Tags,
    Worker,
    WorkerState,
    found_of,
)

from .wire import DeploymentWire, LineWire, WorkerWire

KIND: Final = "deployment"
RATE: Final = Rate(idle_per_hour=0.0, max_per_hour=0.0, storage_per_month=0.0, source="this machine")


def info_of(wire: DeploymentWire) -> DeploymentInfo:
    """The deployment, as users see it."""
    state = State(wire.state) if wire.state in State.__members__ else State.UNKNOWN
    details: dict[str, Any] = {
        "spec": dict(wire.spec),
        "scaling": None if wire.scaling is None else dict(wire.scaling),
        "queued": wire.queued,
        "running": wire.running,
        "workers_total": wire.workers_total,
        "cwd": wire.launch.cwd,
    }
    if wire.failure is not None:
        details["failure"] = wire.failure.model_dump()
    tags = Tags.read(wire.constants)
    return DeploymentInfo(
        provider="local",
        name=wire.name,
        namespace=wire.namespace,
        provider_name=wire.id,
        id=wire.id,
        ids={KIND: wire.id},
        state=state,
        raw_state=wire.state,
        reason=_reason(wire),
        interface=_interface(wire.interface),
        kind=_kind(wire.kind),
        workers=(wire.workers.min, wire.workers.max),
        ready_workers=wire.ready_workers,
        idle_timeout=wire.idle_timeout,
        execution_timeout=wire.execution_timeout,
        concurrency=wire.concurrency,
        idempotent=wire.idempotent,
        port=wire.launch.port,
        route=tags.route,
        auth_env=tags.auth_env,
        worker_protocol=tags.worker_protocol,
        spec_hash=wire.spec_hash,
        attempt=wire.attempt,
        origin=wire.origin,
        created_at=wire.created_at,
        expires_at=wire.expires_at,
        rate=RATE,
        bills="nothing" if state is State.STOPPED else None,
        details=details,
    )


def found(wire: DeploymentWire) -> Found:
    """The deployment, as the lifecycle compares it."""
    info = info_of(wire)
    return found_of(KIND, info, spec_hash=_outdated(wire.spec_hash)) if wire.secrets_lost else found_of(KIND, info)


def _outdated(spec_hash: str) -> str:
    """A hash that differs in ``code`` alone: its secrets went with a supervisor, so the next deploy sends it again."""
    return re.sub(r",code=[0-9a-f]+", ",code=000000", spec_hash)


def _reason(wire: DeploymentWire) -> str | None:
    if wire.secrets_lost:
        return f"its secrets ({', '.join(wire.secrets_lost)}) were lost with the supervisor; deploy it again"
    if wire.failure is not None and wire.reason:
        return f"{wire.failure.reason}: {wire.reason}"
    return wire.reason


def _interface(text: str) -> Interface:
    return "http" if text == "http" else "function"


def _kind(text: str) -> Kind:
    return "pod" if text == "pod" else "serverless"


def worker_of(wire: WorkerWire) -> Worker:
    """The worker, as users see it."""
    known = wire.state in WorkerState.__members__
    return Worker(
        id=wire.id,
        state=WorkerState(wire.state) if known else WorkerState.UNKNOWN,
        raw_state=wire.state,
        reason=wire.reason,
        started_at=wire.started_at,
        ready_at=wire.ready_at,
        jobs_running=wire.jobs_running,
        billed_seconds=wire.billed_seconds,
        price_per_hour=0.0,
        pid=wire.pid,
    )


def line_of(wire: LineWire, worker_id: str) -> LogLine:
    return LogLine(text=wire.text, worker_id=worker_id, stream=wire.stream, time=wire.time)
