"""Calls: tasks of a QUEUE endpoint, and calls that are held, by an ALB endpoint or a pod.

A task is one HTTP request that the platform makes to a worker: ``POST http://<worker>:{workerPort}{processUri}`` with
``input`` as its body; the worker's JSON answer becomes ``output``. With our worker the body is our envelope, and so is
the answer: a handler's failure is an answer, too (HTTP 200), so a task that the platform calls FAILED was lost or
refused by its worker, and did not fail in the handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from unigpu.driver import (
    INVOKE,
    REFUSALS,
    Answer,
    DeploymentInfo,
    Invocation,
    Io,
    JobError,
    JobInfo,
    JobStatus,
    Params,
    Result,
    WorkerCall,
    answer_of,
    bearer,
    call_headers,
    error_for,
    is_own,
    json_object,
    payload,
)
from unigpu.errors import (
    APIStatusError,
    ConfigurationError,
    NoWorkerReady,
    TransportError,
    UnsupportedError,
)

from .api import NOT_RUNNING, PROVIDER, YottaAPI
from .gateway import Gateway
from .options import PORT
from .wire import SubmittedWire, TaskWire


def is_ours(info: DeploymentInfo) -> bool:
    """Whether our worker answers: it speaks in envelopes."""
    return is_own(info) and info.route is None


def has_jobs(info: DeploymentInfo) -> bool:
    """QUEUE endpoints have; calls of ALB endpoints and of pods are held."""
    return info.kind == "serverless" and info.details.get("service_mode", "QUEUE") == "QUEUE"


async def submit(api: YottaAPI, io: Io, info: DeploymentInfo, call: Invocation) -> JobInfo:
    """Put a task into the queue.

    Raises:
        NoWorkerReady: the endpoint does not run.
    """
    body = task_body(info, call)
    try:
        reply = await api.about(
            io, "POST", info, "/tasks", "task.submit", json=body, role="jobs", deadline=call.deadline
        )
    except APIStatusError as exc:
        if exc.status in NOT_RUNNING:
            raise NoWorkerReady(
                f"{info.name or info.provider_name} on yotta does not run, and takes no task",
                provider=PROVIDER,
                deployment=info.name,
                state=str(info.state),
                maybe_executed=False,
            ) from exc
        raise
    return JobInfo(id=api.parse(SubmittedWire, reply).task_id, status=JobStatus.QUEUED)


async def status(api: YottaAPI, io: Io, info: DeploymentInfo, job_id: str, *, deadline: float) -> JobInfo:
    """The task as it is now.

    Raises:
        JobExpired: the endpoint does not have it any more.
    """
    path = f"/tasks/{quote(job_id, safe='')}"
    reply = await api.about(io, "GET", info, path, "task.get", role="jobs", deadline=deadline)
    return job_of(api.parse(TaskWire, reply), info)


def task_body(info: DeploymentInfo, call: Invocation) -> dict[str, Any]:
    """``POST /v2/serverless/{id}/tasks``. Our own ``taskId`` makes repeating it harmless.

    Raises:
        UnsupportedError: a bare ``{}``, which Yotta does not take as an input.
    """
    body: dict[str, Any] = {
        "taskId": call.job_id,
        "workerPort": info.port or PORT,
        "processUri": info.route or INVOKE,
    }
    if is_ours(info):
        headers = {name.title(): value for name, value in call_headers(call)}
        return {**body, "input": payload(call), "headers": headers}
    if not call.input:
        raise UnsupportedError(
            "An empty input ({}) is not possible on yotta for an image that is not ours.",
            provider=PROVIDER,
            deployment=info.name,
            capability="empty_input",
            hint="Send at least one key.",
        )
    return {**body, "input": payload(call, own=False)}


def job_of(wire: TaskWire, info: DeploymentInfo) -> JobInfo:
    """The task as a job. PROCESSING is waiting or running, and Yotta does not show which. It never counts as started,
    so a wait for a first worker goes by the number of workers."""
    said = wire.status.upper()
    common: dict[str, Any] = {"id": wire.task_id, "raw_status": wire.status, "submitted_at": wire.created_at}
    if said == "SUCCESS" or (said == "DELIVERED" and wire.output is not None):
        return _answered(wire, info, common)
    if said == "FAILED":
        return _failed(wire, info, common)
    # "Delivered" is "to the worker" in the older manual, and "to the webhook" in the newer: a worker had it.
    status = {"PROCESSING": JobStatus.QUEUED, "DELIVERED": JobStatus.RUNNING}.get(said, JobStatus.UNKNOWN)
    return JobInfo(status=status, **common)


def _answered(wire: TaskWire, info: DeploymentInfo, common: Mapping[str, Any]) -> JobInfo:
    if not is_ours(info):
        return JobInfo(status=JobStatus.DONE, output=wire.output, **common)
    answer = answer_of(wire.output)
    if answer is None:
        error = JobError(type="InvalidAnswer", message="the worker's answer is not that of unigpu's worker")
        return JobInfo(status=JobStatus.FAILED, error=error, **common)
    if answer.error is not None:
        return _refused_or_failed(answer, answer.error, common)
    return JobInfo(status=JobStatus.DONE, output=answer.output, timing=answer.timing, **common)


def _failed(wire: TaskWire, info: DeploymentInfo, common: Mapping[str, Any]) -> JobInfo:
    ours = is_ours(info)
    answer = answer_of(wire.output) if ours else None
    if answer is not None and answer.error is not None:
        return _refused_or_failed(answer, answer.error, common)
    said = wire.error if isinstance(wire.error, str) else "" if wire.error is None else json.dumps(wire.error)
    error = JobError(type="TaskFailed", message=said[:2000] or "the platform gives no reason")
    return JobInfo(status=JobStatus.FAILED, error=error, lost=ours, **common)


def _refused_or_failed(answer: Answer, error: JobError, common: Mapping[str, Any]) -> JobInfo:
    """What a worker refused has not run: it is lost, and may run elsewhere."""
    lost = error.type in REFUSALS
    return JobInfo(status=JobStatus.FAILED, error=error, lost=lost, timing=answer.timing, **common)


# -- on a held connection


async def invoke(gateway: Gateway, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    info = gateway.info
    gateway.must_be_reachable("invoke()")
    where = await gateway.address()
    headers = (*where.headers, *_own_token(info, call))
    secrets = tuple(value.removeprefix("Bearer ") for _, value in headers)
    exchange = WorkerCall(info=info, operation="yotta.gateway.invoke", own=is_ours(info))
    try:
        reply = await gateway.io.send(exchange.request(call, f"{where.origin}{info.route or INVOKE}", headers=headers))
    except TransportError as exc:
        if exc.never_sent:
            await gateway.must_run()
        raise
    answer = answer_of(json_object(reply.content)) if exchange.own else None
    if answer is not None and answer.error is not None and answer.error.type in REFUSALS:
        words = answer.error.message or answer.error.type
        raise exchange.not_ready(f"takes no call: {words}", state=str(info.state), reason=answer.error.type)
    if 200 <= reply.status < 300:
        return exchange.result(reply)
    await gateway.judge(reply.status, idempotent=call.idempotent)
    ran = None if exchange.own else True  # our worker's refusals run nothing; another server's may come from its code
    raise error_for(reply, PROVIDER, deployment=info.name, secrets=secrets, maybe_executed=ran)


def _own_token(info: DeploymentInfo, call: Invocation) -> Params:
    """The deployment's own token, for a pod's port, which is open to everybody.

    Raises:
        ConfigurationError: its variable is not set here.
    """
    if info.kind != "pod" or info.auth_env is None:
        return ()
    if call.token is None:
        raise ConfigurationError(
            f"{info.name} asks for a token, and the variable {info.auth_env} is not set in this environment.",
            provider=PROVIDER,
            deployment=info.name,
        )
    return bearer(call.token)
