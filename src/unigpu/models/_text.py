"""One-line texts for people: what a deployment is, what it costs, when it ends."""

from __future__ import annotations

from typing import Final

from .deployment import DeploymentInfo, Rate, TtlEnforcer
from .gpu import GPURequest
from .spec import DeploymentSpec

_STEPS: Final = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def seconds(amount: float) -> str:
    """A duration in its widest whole unit: ``"6 h"``, ``"90 s"``."""
    for size, unit in _STEPS:
        if amount >= size and amount % size == 0:
            return f"{amount / size:.0f} {unit}"
    return f"{amount:g} s"


def worker_range_text(workers: tuple[int, int]) -> str:
    """``"3"``, or ``"0–3"``."""
    least, most = workers
    return str(most) if least == most else f"{least}–{most}"


def deploy_line(
    info: DeploymentInfo,
    spec: DeploymentSpec,
    rate: Rate,
    *,
    ttl_enforced_by: TtlEnforcer,
    gpu: str | None = None,
) -> str:
    """The last line of a deploy: where it is, its workers, what it costs, when it ends.

    ``summarize on runpod: 0–3 × RTX 4090, idle $0.00/h, at most $3.35/h (list price, 2026-11-24), no ttl``

    Args:
        gpu: What was taken of the acceptable GPUs, where that is known; ``""``: the provider gives none of them.
    """
    name = info.name or info.provider_name
    workers = info.workers or spec.workers
    source = f" ({rate.source})" if rate.source else ""
    return f"{name} on {info.provider}: {_workers(workers, spec, gpu)}, {rate}{source}, {_end(spec, ttl_enforced_by)}"


def _workers(workers: tuple[int, int], spec: DeploymentSpec, gpu: str | None) -> str:
    count = worker_range_text(workers)
    if gpu is None:
        gpu = " or ".join(_gpu(request) for request in spec.gpu or ())
    if not gpu:
        return f"{count} worker" if workers == (1, 1) else f"{count} workers"
    return f"{count} × {gpu}"


def _gpu(request: GPURequest) -> str:
    text = request.name or f"GPU with {request.memory_gb}GB"
    return text if request.count == 1 else f"({request.count} × {text})"


def _end(spec: DeploymentSpec, enforcer: TtlEnforcer) -> str:
    if spec.ttl is None:
        return "no ttl"
    after = f"ends after {seconds(spec.ttl)}"
    if enforcer == "client":
        return f"{after} by a client's next call or gc: nobody ends it while no client runs"
    if enforcer == "nobody":
        return f"ttl {seconds(spec.ttl)}, but nobody ends it: tear it down"
    return f"{after} by {'its workers' if enforcer == 'worker' else 'the platform'}"
