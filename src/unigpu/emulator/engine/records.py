"""Deployments and jobs as records of a journal, and back. A record holds no value of a secret, only its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from unigpu.elasticity._scaling.policy import rule_from, rule_record
from unigpu.models.job import JobStatus

from ..contract import JSON, Launch
from .entities import DeploymentTerms, EngineDeployment, EngineJob
from .state import EngineState

_PLAIN: Final = (
    "interface", "kind", "min_workers", "max_workers", "idle_timeout", "execution_timeout", "concurrency",
    "idempotent", "dispatch", "expires_at", "price_per_hour", "give_up", "spread", "start_limit",
)  # fmt: skip


def deployment_record(deployment: EngineDeployment, *, created_at: float) -> dict[str, JSON]:
    """What must survive. ``secrets_lost`` names what a restored one lacks: the secrets that its workers need."""
    terms = deployment.terms
    launch = terms.launch
    hidden = terms.secret_names & set(launch.env)
    return {
        "platform": deployment.platform,
        "created_at": created_at,
        "stopped": deployment.stopped,
        "terms": {name: getattr(terms, name) for name in _PLAIN}
        | {"rule": rule_record(terms.rule), "secret_names": sorted(terms.secret_names)},
        "launch": {
            "argv": list(launch.argv),
            "handler": launch.handler,
            "env": {name: value for name, value in launch.env.items() if name not in hidden},
            "cwd": launch.cwd,
            "python": launch.python,
            "extra": dict(launch.extra),
        },
        "data": dict(terms.data),
        "secrets_lost": sorted(hidden | set(deployment.secrets_lost)),
    }


def terms_from(record: Mapping[str, JSON]) -> DeploymentTerms:
    """The terms of a record. What it lacks is the default: a later release may know more."""
    plain: Mapping[str, Any] = record.get("terms") or {}
    launch: Mapping[str, Any] = record.get("launch") or {}
    return DeploymentTerms(
        launch=Launch(
            argv=tuple(launch.get("argv") or ()),
            handler=launch.get("handler"),
            env=dict(launch.get("env") or {}),
            cwd=launch.get("cwd"),
            python=launch.get("python"),
            extra=dict(launch.get("extra") or {}),
        ),
        rule=rule_from(plain.get("rule") or {}),
        secret_names=frozenset(plain.get("secret_names") or ()),
        data=dict(record.get("data") or {}),
        **{name: plain[name] for name in _PLAIN if name in plain},
    )


def digest_of(*parts: JSON) -> str:
    """What tells whether a repeated submit is the same."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def record_id(job: EngineJob) -> str:
    """A job's id in the journal: unique over all deployments."""
    return f"{job.deployment_id}/{job.id}"


def job_record(job: EngineJob, wall: Callable[[float], float]) -> dict[str, JSON]:
    """What must survive of a job: that it was taken, and once it ended, how. Its input is not kept."""

    def epoch(at: float | None) -> float | None:
        return None if at is None else wall(at)

    record: dict[str, JSON] = {
        "deployment": job.deployment_id,
        "status": job.status.value,
        "digest": job.digest,
        "execution_timeout": job.execution_timeout,
        "stream": job.stream,
        "idempotent": job.idempotent,
        "submitted_at": epoch(job.submitted_at),
    }
    if job.status.is_terminal:
        record |= {
            "output": job.output,
            "error": job.error,
            "lost": job.lost,
            "worker_id": job.worker_id,
            "started_at": epoch(job.started_at),
            "finished_at": epoch(job.finished_at),
            "execution_s": job.execution_s,
            "waited": job.waited,
            "cold": job.cold,
            "tries": job.tries,
            "chunks": list(job.chunks),
        }
    return record


def job_from(record: Mapping[str, JSON], id: str, deployment: EngineDeployment, core: EngineState) -> EngineJob:
    """The job of a record.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """

    def moment(name: str) -> float | None:
        value = record.get(name)
        return None if value is None else core.monotonic(float(value))

    submitted = moment("submitted_at")
    at = core.now if submitted is None else submitted
    return EngineJob(
        id=id,
        deployment_id=deployment.id,
        input=None,
        digest=str(record.get("digest", "")),
        execution_timeout=float(record.get("execution_timeout") or deployment.terms.execution_timeout),
        stream=bool(record.get("stream")),
        idempotent=bool(record.get("idempotent")),
        submitted_at=at,
        queued_at=at,
        cold_mark=0.0,
        status=JobStatus(str(record["status"])),
        output=record.get("output"),
        error=record.get("error"),
        lost=bool(record.get("lost")),
        worker_id=record.get("worker_id"),
        started_at=moment("started_at"),
        finished_at=moment("finished_at"),
        execution_s=record.get("execution_s"),
        waited=float(record.get("waited") or 0.0),
        cold=float(record.get("cold") or 0.0),
        tries=int(record.get("tries") or 0),
        chunks=list(record.get("chunks") or []),
    )
