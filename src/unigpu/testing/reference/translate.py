"""Between unigpu's models and the reference platform's JSON, both ways. Pure: no request is made here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import (
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    JobError,
    JobInfo,
    JobStatus,
    Rate,
    Scaling,
    State,
    Tags,
    Timing,
    Worker,
    WorkerState,
    found_of,
    is_ours,
    matches,
)

from .wire import EndpointWire, JobWire, TemplateWire, WorkerWire

PRICES: Final[Mapping[str, float]] = {"RTX 4090": 0.72, "L40S": 1.08, "H100 SXM": 3.6}
"""The catalogue: USD of one worker-hour, one GPU a worker."""

# What is sent.


def offered(spec: DeploymentSpec) -> list[str]:
    """The GPUs of the catalogue that are asked for and not too expensive, in the order in which they were asked for."""
    wanted = [one for one in spec.gpu or () if one.count == 1]
    names = [name for one in wanted for name in PRICES if matches(name, one)]
    return [name for name in dict.fromkeys(names) if spec.max_price is None or PRICES[name] <= spec.max_price]


def template_body(spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found]) -> dict[str, Any]:
    """What runs. A secret goes where the platform does not show it again."""
    command = spec.command or (() if spec.handler is None else ("python", "-m", "unigpu.worker", spec.handler))
    return {
        "name": identity.provider_name,
        "image": spec.image,
        "command": list(command),
        "env": {**spec.env, **identity.constants},
        "secret_env": {k: v.get_secret_value() for k, v in spec.secrets.items() if isinstance(v, SecretStr)},
        "disk_gb": spec.disk,
    }


def endpoint_body(spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found]) -> dict[str, Any]:
    """What is called. With no worker: nothing is paid before its id is recorded."""
    return {
        "name": identity.provider_name,
        "template_id": made["template"].id,
        "gpus": offered(spec),
        "env": dict(identity.constants),
        "job_timeout": spec.execution_timeout,
        "concurrency": spec.concurrency,
        **limits_body((0, spec.workers[1]), spec.idle_timeout, spec.scaling),
    }


def limits_body(workers: tuple[int, int] | None, idle_timeout: float | None, scaling: Scaling | None) -> dict[str, Any]:
    """Absolute limits; what is ``None`` is not sent, and stays."""
    body: dict[str, Any] = {}
    if workers is not None:
        body["workers"] = {"min": workers[0], "max": workers[1]}
    if idle_timeout is not None:
        body["idle_timeout"] = idle_timeout
    if scaling is not None:
        body["requests_per_worker"] = scaling.target
    return body


# What is shown.


def rate_of(price: float, workers: tuple[int, int]) -> Rate:
    return Rate(idle_per_hour=workers[0] * price, max_per_hour=workers[1] * price, source="catalogue, 2026-11-24")


def found_template(wire: TemplateWire) -> Found:
    return Found(kind="template", id=wire.id, name=wire.name, created_at=wire.created_at, **Tags.read(wire.env).found())


def found_endpoint(wire: EndpointWire) -> Found:
    return found_of("endpoint", info_of(wire))


def info_of(wire: EndpointWire) -> DeploymentInfo:
    """The deployment, as users see it. What is not ours has none of our constants, and may have any name."""
    limits = (wire.workers.min, wire.workers.max)
    return DeploymentInfo(
        provider="reference",
        provider_name=wire.name,
        id=wire.id,
        ids={"template": wire.template_id, "endpoint": wire.id},
        state=State(wire.status) if wire.status in State.__members__ else State.UNKNOWN,
        raw_state=wire.status,
        reason=wire.reason,
        workers=limits,
        ready_workers=wire.workers.ready,
        idle_timeout=wire.idle_timeout,
        created_at=wire.created_at,
        rate=rate_of(wire.price_per_hour, limits),
        ours=is_ours(wire.name),
        **Tags.read(wire.env).info(execution_timeout=wire.job_timeout, concurrency=wire.concurrency),
    )


def worker_of(wire: WorkerWire) -> Worker:
    return Worker(
        id=wire.id,
        state=WorkerState(wire.status) if wire.status in WorkerState.__members__ else WorkerState.UNKNOWN,
        raw_state=wire.status,
        reason=wire.reason,
        started_at=wire.started_at,
        jobs_running=wire.jobs,
        billed_seconds=wire.billed_seconds,
    )


def job_of(wire: JobWire) -> JobInfo:
    """The job. The platform tells how long it ran, and not how long it waited: that stays unknown."""
    return JobInfo(
        id=wire.id,
        status=JobStatus(wire.status) if wire.status in JobStatus.__members__ else JobStatus.UNKNOWN,
        raw_status=wire.status,
        output=wire.output,
        error=None if wire.error is None else JobError(type=wire.error.type, message=wire.error.message),
        lost=wire.worker_lost,
        worker_id=wire.worker_id,
        timing=Timing(execution=wire.execution_s, source="execution: platform"),
        ready_workers=wire.ready_workers,
        submitted_at=wire.submitted_at,
    )
