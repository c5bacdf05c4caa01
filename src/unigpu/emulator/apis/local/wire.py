"""The local protocol's JSON: what a client sent, checked, and what it is shown. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import Declared, QueueDelay, RequestsPerWorker, Rule
from unigpu.emulator.contract import JSON, Launch
from unigpu.emulator.engine import DeploymentTerms, Engine, EngineDeployment, EngineJob, EngineWorker, LogRecord
from unigpu.models.identity import provider_name

_DATA: Final = ("name", "namespace", "attempt", "spec_hash", "origin", "constants", "spec", "scaling")
_MOST_SECONDS: Final = 1e11  # an epoch time in the year 5138
_JOB_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,128}")


class BadRequest(Exception):
    """The request is not one of this protocol; the text names the field."""


def parse_object(body: bytes) -> Mapping[str, Any]:
    """The body as a JSON object.

    Raises:
        BadRequest: where it is none; NaN and infinities are none either, also those written as ``1e999``.
    """
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as exc:
        raise BadRequest(f"the body is not JSON: {type(exc).__name__}") from None
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return cast("Mapping[str, Any]", value)


def parse_put(pname: str, body: Mapping[str, Any]) -> DeploymentTerms:
    """The terms of a deployment."""
    name, namespace = _text(body, "name"), _text(body, "namespace")
    if pname != provider_name(namespace, name):
        raise BadRequest(f"{pname!r} is not the provider name of {name!r} in namespace {namespace!r}")
    for field in ("attempt", "spec_hash"):
        _text(body, field)
    kind = _choice(body, "kind", ("serverless", "pod"))
    least, most = _workers(body.get("workers"))
    spec = _mapping(body, "spec")
    launch = _mapping(body, "launch")
    constants = _texts(body, "constants")
    env = _texts(launch, "env", where="launch.env")
    interface = _choice(body, "interface", ("function", "http"))
    if not launch.get("handler") and not launch.get("argv"):
        raise BadRequest("launch: a handler or an argv is needed")
    scaling, port = body.get("scaling"), launch.get("port")
    if port is not None:
        _count(port, "launch.port", most=65_535)
    return DeploymentTerms(
        launch=Launch(
            argv=_words(launch, "argv"),
            handler=_optional_text(launch, "handler"),
            env={**env, **constants},
            cwd=_optional_text(launch, "cwd"),
            python=_optional_text(launch, "python"),
            extra={"port": port, "interface": interface},
        ),
        interface="http" if interface == "http" else "function",
        kind="pod" if kind == "pod" else "serverless",
        min_workers=least,
        max_workers=most,
        idle_timeout=None if kind == "pod" else _seconds(body, "idle_timeout", 60.0, least=0.0),
        execution_timeout=_seconds(body, "execution_timeout", 600.0),
        concurrency=_count(body.get("concurrency", 1), "concurrency"),
        idempotent=_flag(body, "idempotent"),
        rule=Declared() if kind == "pod" else rule_of(scaling),
        expires_at=None if body.get("expires_at") is None else _seconds(body, "expires_at", 0.0),
        price_per_hour=0.0,
        secret_names=_secret_names(spec),
        data={field: body.get(field) for field in _DATA},
    )


def parse_patch(
    deployment: EngineDeployment, body: Mapping[str, Any]
) -> tuple[tuple[int, int] | None, float | None, Rule | None, dict[str, JSON] | None]:
    """(workers, idle timeout, rule, data) that a PATCH changes."""
    unknown = set(body) - {"workers", "idle_timeout", "scaling"}
    if unknown:
        raise BadRequest(f"{sorted(unknown)[0]}: PATCH changes workers, idle_timeout and scaling only")
    terms = deployment.terms
    workers = None
    if body.get("workers") is not None:
        workers = _workers({"min": terms.min_workers, "max": terms.max_workers, **_mapping(body, "workers")})
        if terms.kind == "pod" and workers != (1, 1):
            raise BadRequest("workers: a pod is exactly one worker")
    idle = None if body.get("idle_timeout") is None else _seconds(body, "idle_timeout", 0.0, least=0.0)
    if "scaling" not in body:
        return workers, idle, None, None
    rule: Rule = Declared() if terms.kind == "pod" else rule_of(body["scaling"])
    return workers, idle, rule, {"scaling": body["scaling"]}


def rule_of(scaling: object) -> Rule:
    """The rule of a ``scaling`` field; ``None``: one worker for as many calls as it takes at a time."""
    if scaling is None:
        return RequestsPerWorker()
    if not isinstance(scaling, Mapping):
        raise BadRequest("scaling: an object with signal and target is needed")
    values = cast("Mapping[str, Any]", scaling)
    target = _seconds(values, "target", 0.0)
    match values.get("signal"):
        case "requests":
            return RequestsPerWorker(target)
        case "queue_delay":
            return QueueDelay(target)
        case _:
            raise BadRequest("scaling.signal: requests or queue_delay is needed")


def job_arguments(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a submitted job says, as `Engine.submit` takes it."""
    id = body.get("id")
    if not isinstance(id, str) or not _JOB_ID.fullmatch(id):
        raise BadRequest("id: 1 to 128 letters, digits, '_', '-' or '.' are needed")
    if not isinstance(body.get("input"), dict):
        raise BadRequest("input: a JSON object is needed")
    timeout = None if body.get("execution_timeout") is None else _seconds(body, "execution_timeout", 0.0)
    idempotent = None if body.get("idempotent") is None else _flag(body, "idempotent")
    return {
        "input": body["input"],
        "id": id,
        "execution_timeout": timeout,
        "stream": _flag(body, "stream"),
        "idempotent": idempotent,
        "wake": _flag(body, "wake"),
    }


def number(text: str | None, field: str, default: float, most: float) -> float:
    """A number of a query or header, at most *most*."""
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise BadRequest(f"{field}: a number is needed") from None
    if not math.isfinite(value) or value < 0:
        raise BadRequest(f"{field}: a number from 0 up is needed")
    return min(value, most)


def deployment_json(engine: Engine, deployment: EngineDeployment, now: float) -> dict[str, JSON]:
    """A deployment as it is shown: all that was put, but no value of its environment."""
    terms, launch = deployment.terms, deployment.terms.launch
    failure = deployment.failure
    return {
        **{field: terms.data.get(field) for field in _DATA},
        "id": deployment.id,
        "interface": terms.interface,
        "kind": terms.kind,
        "workers": {"min": terms.min_workers, "max": terms.max_workers},
        "idle_timeout": terms.idle_timeout,
        "execution_timeout": terms.execution_timeout,
        "concurrency": terms.concurrency,
        "idempotent": terms.idempotent,
        "expires_at": terms.expires_at,
        "launch": {
            "argv": list(launch.argv),
            "handler": launch.handler,
            "env": sorted(launch.env),
            "cwd": launch.cwd,
            "python": launch.python,
            "port": launch.extra.get("port"),
        },
        "state": engine.deployments.state(deployment, now).value,
        "reason": engine.deployments.reason(deployment, now),
        "ready_workers": len(deployment.ready()),
        "workers_total": len(deployment.workers),
        "queued": len(deployment.queue) + len(deployment.waiting),
        "running": len(deployment.running) + sum(len(worker.leases) for worker in deployment.workers.values()),
        "created_at": engine.wall(deployment.created_at),
        "secrets_lost": list(deployment.secrets_lost),
        "failure": None if failure is None else failure.record(),
    }


def job_json(engine: Engine, deployment: EngineDeployment, job: EngineJob, now: float) -> dict[str, JSON]:
    """A job as it is shown. Times are epoch seconds; a wait goes on counting until a worker takes it."""

    def epoch(at: float | None) -> float | None:
        return None if at is None else engine.wall(at)

    waiting = job.status.value == "QUEUED"
    waited = job.waited + (now - job.queued_at if waiting else 0.0)
    cold = job.cold + (deployment.cold(now) - job.cold_mark if waiting else 0.0)
    return {
        "id": job.id,
        "status": job.status.value,
        "output": job.output,
        "error": None if job.error is None else dict(job.error),
        "lost": job.lost,
        "worker_id": job.worker_id,
        "submitted_at": epoch(job.submitted_at),
        "started_at": epoch(job.started_at),
        "finished_at": epoch(job.finished_at),
        "queue_s": max(0.0, waited - cold),
        "cold_start_s": cold,
        "execution_s": job.execution_s,
        "ready_workers": len(deployment.ready()),
        "kept_until": None if job.finished_at is None else engine.wall(job.finished_at + engine.settings.result_ttl),
        "tries": job.tries,
    }


def worker_json(engine: Engine, worker: EngineWorker, now: float) -> dict[str, JSON]:
    """A worker as it is shown."""
    return {
        "id": worker.id,
        "state": worker.state.value,
        "reason": worker.reason,
        "started_at": None if worker.started_at is None else engine.wall(worker.started_at),
        "ready_at": None if worker.ready_at is None else engine.wall(worker.ready_at),
        "ended_at": None if worker.ended_at is None else engine.wall(worker.ended_at),
        "jobs_running": worker.running,
        "billed_seconds": engine.billed_seconds(worker, now),
        "pid": worker.pid,
    }


def log_json(line: LogRecord) -> dict[str, JSON]:
    return {"n": line.n, "time": line.time, "stream": line.stream, "text": line.text}


def _no_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number that can be kept")
    return value


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{field}: a text is needed")
    return _clean(value, field)


def _optional_text(body: Mapping[str, Any], field: str) -> str | None:
    value = body.get(field)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{field}: a text or null is needed")
    return None if value is None else _clean(value, field)


def _clean(text: str, field: str) -> str:
    """A text that can be an argument or a variable of a process."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadRequest(f"{field}: a text has characters that no process can be given")
    return text


def _choice(body: Mapping[str, Any], field: str, known: tuple[str, str]) -> str:
    value = body.get(field, known[0])
    if value not in known:
        raise BadRequest(f"{field}: {known[0]} or {known[1]} is needed")
    return str(value)


def _flag(body: Mapping[str, Any], field: str) -> bool:
    value = body.get(field, False)
    if not isinstance(value, bool):
        raise BadRequest(f"{field}: true or false is needed")
    return value


def _count(value: object, field: str, *, least: int = 1, most: int = 10_000) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadRequest(f"{field}: a whole number from {least} to {most} is needed")
    return value


def _workers(value: object) -> tuple[int, int]:
    if not isinstance(value, Mapping):
        raise BadRequest("workers: an object with min and max is needed")
    limits = cast("Mapping[str, Any]", value)
    least, most = (
        _count(limits.get("min"), "workers.min", least=0),
        _count(limits.get("max"), "workers.max", least=0),
    )
    if least > most:
        raise BadRequest("workers: min is above max")
    return least, most


def _seconds(body: Mapping[str, Any], field: str, default: float, *, least: float | None = None) -> float:
    value = body.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MOST_SECONDS:
        raise BadRequest(f"{field}: a number up to {_MOST_SECONDS:g} is needed")
    if value < (least or 0.0) or (least is None and value == 0):
        raise BadRequest(f"{field}: a number above 0 is needed")
    return float(value)


def _mapping(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body.get(field)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise BadRequest(f"{field}: an object is needed")
    return cast("Mapping[str, Any]", value)


def _texts(body: Mapping[str, Any], field: str, *, where: str | None = None) -> dict[str, str]:
    found = _mapping(body, field)
    if not all(isinstance(value, str) for value in found.values()):
        raise BadRequest(f"{where or field}: texts are needed")
    if any(not name or "=" in name for name in found):
        raise BadRequest(f"{where or field}: a variable's name is empty or has a '='")
    return {_clean(name, where or field): _clean(value, where or field) for name, value in found.items()}


def _words(body: Mapping[str, Any], field: str) -> tuple[str, ...]:
    value: object = body.get(field) or ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadRequest(f"launch.{field}: a list of texts is needed")
    words = cast("Sequence[object]", value)
    if not all(isinstance(word, str) for word in words):
        raise BadRequest(f"launch.{field}: a list of texts is needed")
    return tuple(_clean(str(word), f"launch.{field}") for word in words)


def _secret_names(spec: Mapping[str, Any]) -> frozenset[str]:
    """The variables whose values are secrets: the spec's ``secrets`` (names), and that of its ``auth`` token."""
    secrets: object = spec.get("secrets") or ()
    if not isinstance(secrets, Sequence | Mapping) or isinstance(secrets, str):
        raise BadRequest("spec.secrets: a list of names is needed")
    names = {str(name) for name in cast("Sequence[object]", secrets)}
    auth = spec.get("auth")
    if isinstance(auth, Mapping):
        names.add(str(cast("Mapping[str, Any]", auth).get("env")))
    return frozenset(names)
