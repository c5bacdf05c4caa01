"""Between models and the local supervisor's JSON. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from unigpu.driver import (
    Adaptation,
    ChunkPage,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Interface,
    Invocation,
    JobError,
    JobInfo,
    JobStatus,
    Kind,
    LogLine,
    Rate,
    Scaling,
    StartFailure,
    State,
    Timing,
    Worker,
    WorkerState,
)
from unigpu.errors import ConfigurationError

from ._wire import DeploymentWire, JobWire, LineWire, PageWire, WorkerWire

KIND: Final = "deployment"
RATE: Final = Rate(idle_per_hour=0.0, max_per_hour=0.0, storage_per_month=0.0, source="this machine")
_VOLUME: Final = re.compile(r"\$\{volume\.([^}]*)\}")
_PROCESSES: Final = "local runs processes, not containers"
_UNSENT: Final = frozenset({"secrets", "registry"})


# What is sent.


def put_body(
    spec: DeploymentSpec,
    identity: Identity,
    *,
    workers: tuple[int, int],
    idle_timeout: float,
    scaling: Mapping[str, Any] | None,
    origin: str | None,
    cwd: str,
    python: str,
    env: Mapping[str, str],
    folders: Mapping[str, str],
) -> dict[str, Any]:
    """The body of a PUT: what is to run, with the values of its secrets in ``launch.env`` alone.

    Args:
        env: Secrets and whatever else the spec's ``env`` does not say.
        folders: Volume name → folder.
    """
    declared = {name: _with_folders(value, folders) for name, value in spec.env.items()}
    return {
        "name": identity.name,
        "namespace": identity.namespace,
        "attempt": identity.attempt,
        "spec_hash": identity.spec_hash,
        "interface": spec.interface,
        "kind": spec.kind,
        "workers": {"min": workers[0], "max": workers[1]},
        "idle_timeout": idle_timeout,
        "scaling": scaling,
        "execution_timeout": spec.execution_timeout,
        "concurrency": spec.concurrency,
        "idempotent": spec.idempotent,
        "expires_at": identity.expires_at,
        "origin": origin,
        "constants": dict(identity.constants),
        "spec": stated(spec),
        "launch": {
            "argv": [_with_folders(word, folders) for word in spec.command or ()],
            "handler": spec.handler,
            "env": {**env, **declared},
            "cwd": cwd,
            "python": python,
            "port": spec.port,
        },
    }


def stated(spec: DeploymentSpec) -> dict[str, Any]:
    """The stated fields as JSON, so that another process can change one of them; of secrets the names only."""
    told: dict[str, Any] = spec.model_dump(mode="json", include=set(spec.stated - _UNSENT), exclude_unset=True)
    if "secrets" in spec.stated:
        told["secrets"] = sorted(spec.secrets)
    return told


def scaling_of(scaling: Scaling | None) -> dict[str, Any] | None:
    return None if scaling is None else scaling.model_dump()


def patch_body(
    workers: tuple[int, int] | None, idle_timeout: float | None, scaling: Mapping[str, Any] | None
) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if workers is not None:
        body["workers"] = {"min": workers[0], "max": workers[1]}
    if idle_timeout is not None:
        body["idle_timeout"] = idle_timeout
    if scaling is not None:
        body["scaling"] = scaling
    return body


def job_body(call: Invocation, *, stream: bool) -> dict[str, Any]:
    return {
        "id": call.job_id,
        "input": call.input,
        "execution_timeout": call.execution_timeout,
        # Chunks are kept beside the output, so that any job can be watched; a server that is not ours has none.
        "stream": stream,
        "idempotent": call.idempotent,
        "wake": True,
    }


def _with_folders(text: str, folders: Mapping[str, str]) -> str:
    return _VOLUME.sub(lambda found: folders[found.group(1)], text)


def adaptations(spec: DeploymentSpec, *, idle_exit: float) -> tuple[Adaptation, ...]:
    """What of *spec* is placement that a process of this machine does not have, and what else is a little different."""
    out: list[Adaptation] = []

    def add(field: str, asked: str, got: str, reason: str) -> None:
        out.append(Adaptation(field=field, asked=asked, got=got, reason=reason))

    if spec.image is not None:
        add("image", spec.image, "the handler or command itself", _PROCESSES)
    if spec.gpu:
        names = " or ".join(g.name or f"{g.memory_gb}GB" for g in spec.gpu)
        add("gpu", names, "what this machine has", "a process sees all of this machine's GPUs")
    if spec.disk is not None:
        add("disk", f"{spec.disk} GB", "this machine's disk", _PROCESSES)
    if spec.registry is not None:
        add("registry", "a login", "none", _PROCESSES)
    for volume in spec.volumes:
        where = f" at {volume.path}" if volume.path else ""
        add(
            "volumes",
            f"{volume.name}, {volume.size_gb} GB{where}",
            f"a folder under the state directory; ${{volume.{volume.name}}} names it",
            "local mounts nothing and limits no size",
        )
    if spec.kind == "pod" or spec.workers[0] > 0:
        add(
            "workers",
            "one worker kept" if spec.kind == "pod" else f"at least {spec.workers[0]} kept",
            f"kept until {idle_exit:g} s pass without a call or a job; the next call starts them again",
            "the supervisor ends itself when nobody uses it (idle_exit)",
        )
    return tuple(out)


# What is told.


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
    constants = wire.constants
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
        route=constants.get("UNIGPU_ROUTE"),
        auth_env=constants.get("UNIGPU_AUTH"),
        worker_protocol=constants.get("UNIGPU_WORKER"),
        spec_hash=wire.spec_hash,
        attempt=wire.attempt,
        origin=wire.origin,
        created_at=wire.created_at,
        expires_at=wire.expires_at,
        rate=RATE,
        bills="nothing" if state is State.STOPPED else None,
        details=details,
    )


def found_of(wire: DeploymentWire) -> Found:
    """The deployment, as the lifecycle compares it."""
    return Found(
        kind=KIND,
        id=wire.id,
        name=wire.id,
        attempt=wire.attempt,
        spec_hash=_outdated(wire.spec_hash) if wire.secrets_lost else wire.spec_hash,
        created_at=wire.created_at,
        expires_at=wire.expires_at,
        origin=wire.origin,
        info=info_of(wire),
    )


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


def job_of(wire: JobWire) -> JobInfo:
    """The job, as users see it."""
    error = failure = None
    if wire.error is not None:
        # A worker that could not start has a log instead of a traceback.
        told = wire.error.traceback or "\n".join(wire.error.logs) or None
        error = JobError(type=wire.error.type, message=wire.error.message, traceback=told)
        if wire.error.type == "WorkerFailed" and wire.error.reason is not None:
            failure = StartFailure(reason=wire.error.reason, message=wire.error.message, logs=wire.error.logs)
    known = wire.status in JobStatus.__members__
    return JobInfo(
        id=wire.id,
        status=JobStatus(wire.status) if known else JobStatus.UNKNOWN,
        raw_status=wire.status,
        output=wire.output,
        error=error,
        start_failure=failure,
        lost=wire.lost,
        worker_id=wire.worker_id,
        timing=Timing(
            queue=wire.queue_s,
            cold_start=wire.cold_start_s,
            execution=wire.execution_s,
            source="queue, cold_start: platform; execution: worker",
        ),
        ready_workers=wire.ready_workers,
        submitted_at=wire.submitted_at,
        result_kept_until=wire.kept_until,
    )


def page_of(wire: PageWire) -> ChunkPage:
    return ChunkPage(
        chunks=wire.chunks,
        after=wire.after,
        end=wire.end,
        ready_workers=wire.ready_workers,
        started=wire.started,
    )


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


def base_url(text: str) -> str:
    """A configured base URL without its last slash.

    Raises:
        ConfigurationError: it is not plain http or https, or has a login, a query or a fragment.
    """
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ConfigurationError("local: base_url is http://HOST:PORT or https://HOST, without login or query")
    return text.rstrip("/")
