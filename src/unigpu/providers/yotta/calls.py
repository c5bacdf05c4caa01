"""Calls: tasks of a QUEUE endpoint, and calls that are held, by an ALB endpoint or a pod.

A task is one HTTP request that the platform makes to a worker: ``POST http://<worker>:{workerPort}{processUri}`` with
``input`` as its body; the worker's JSON answer becomes ``output``. With our worker the body is our envelope, and so is
the answer: a handler's failure is an answer, too (HTTP 200), so a task that the platform calls FAILED was lost or
refused by its worker, and did not fail in the handler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    Invocation,
    JobError,
    JobInfo,
    JobStatus,
    Request,
    Response,
    Result,
    Timing,
    error_for,
)
from unigpu.errors import (
    ConfigurationError,
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    TransportError,
    UnsupportedError,
)

from .api import PROVIDER
from .gateway import INVOKE, Gateway
from .options import PORT
from .wire import TaskWire

_PATH: Final = "/invoke"
# The worker's own words for "not now": nothing ran.
REFUSALS: Final = frozenset({"busy", "loading", "draining", "expired"})


def is_ours(info: DeploymentInfo) -> bool:
    """Whether our worker answers: it speaks in envelopes."""
    return info.worker_protocol != "foreign" and info.route is None


def task_body(info: DeploymentInfo, call: Invocation) -> dict[str, Any]:
    """``POST /v2/serverless/{id}/tasks``. Our own ``taskId`` makes repeating it harmless.

    Raises:
        UnsupportedError: a bare ``{}``, which Yotta does not take as an input.
    """
    body: dict[str, Any] = {
        "taskId": call.job_id,
        "workerPort": info.port or PORT,
        "processUri": info.route or _PATH,
    }
    if is_ours(info):
        headers = {"X-Unigpu-Job": call.job_id, "X-Unigpu-Timeout": f"{call.execution_timeout:g}"}
        return {**body, "input": {"input": call.input}, "headers": headers}
    if not call.input:
        raise UnsupportedError(
            "An empty input ({}) is not possible on yotta for an image that is not ours.",
            provider=PROVIDER,
            deployment=info.name,
            capability="empty_input",
            hint="Send at least one key.",
        )
    return {**body, "input": call.input}


def job_of(wire: TaskWire, info: DeploymentInfo) -> JobInfo:
    """The task as a job. PROCESSING is waiting or running, the platform does not tell which: it is never taken for
    started, so a wait for a first worker goes by the number of workers."""
    told = wire.status.upper()
    common: dict[str, Any] = {"id": wire.task_id, "raw_status": wire.status, "submitted_at": wire.created_at}
    if told == "SUCCESS" or (told == "DELIVERED" and wire.output is not None):
        return _answered(wire, info, common)
    if told == "FAILED":
        return _failed(wire, info, common)
    # "Delivered" is "to the worker" in the older manual, and "to the webhook" in the newer: a worker had it.
    status = {"PROCESSING": JobStatus.QUEUED, "DELIVERED": JobStatus.RUNNING}.get(told, JobStatus.UNKNOWN)
    return JobInfo(status=status, **common)


def answer_of(output: object) -> tuple[Mapping[str, Any] | None, JobError | None, float | None]:
    """Our worker's envelope: itself where it holds an output, or the failure; and how long the handler ran."""
    if isinstance(output, str):  # a result that was stored as text
        try:
            output = json.loads(output)
        except (ValueError, RecursionError):
            return None, None, None
    if not isinstance(output, Mapping):
        return None, None, None
    envelope = cast("Mapping[str, Any]", output)
    ran = envelope.get("execution_s")
    seconds = float(ran) if isinstance(ran, int | float) and not isinstance(ran, bool) else None
    said = envelope.get("error")
    if isinstance(said, Mapping) and "output" not in envelope:
        error = cast("Mapping[str, Any]", said)
        trace = error.get("traceback")
        return (
            None,
            JobError(
                type=str(error.get("type") or "Error"),
                message=str(error.get("message") or ""),
                traceback=trace if isinstance(trace, str) else None,
            ),
            seconds,
        )
    return (envelope if "output" in envelope else None), None, seconds


def _answered(wire: TaskWire, info: DeploymentInfo, common: Mapping[str, Any]) -> JobInfo:
    if not is_ours(info):
        return JobInfo(status=JobStatus.DONE, output=wire.output, **common)
    envelope, error, seconds = answer_of(wire.output)
    timing = Timing(execution=seconds, source=None if seconds is None else "execution: worker")
    if error is not None:
        lost = error.type in REFUSALS
        return JobInfo(status=JobStatus.FAILED, error=error, lost=lost, timing=timing, **common)
    if envelope is None:
        error = JobError(type="InvalidAnswer", message="the worker's answer is not that of unigpu's worker")
        return JobInfo(status=JobStatus.FAILED, error=error, timing=timing, **common)
    return JobInfo(status=JobStatus.DONE, output=envelope["output"], timing=timing, **common)


def _failed(wire: TaskWire, info: DeploymentInfo, common: Mapping[str, Any]) -> JobInfo:
    ours = is_ours(info)
    if ours:
        _, error, seconds = answer_of(wire.output)
        if error is not None:
            timing = Timing(execution=seconds, source=None if seconds is None else "execution: worker")
            lost = error.type in REFUSALS
            return JobInfo(status=JobStatus.FAILED, error=error, lost=lost, timing=timing, **common)
    said = wire.error if isinstance(wire.error, str) else "" if wire.error is None else json.dumps(wire.error)
    error = JobError(type="TaskFailed", message=said[:2000] or "the platform gives no reason")
    return JobInfo(status=JobStatus.FAILED, error=error, lost=ours, **common)


def submitted(task_id: str) -> JobInfo:
    return JobInfo(id=task_id, status=JobStatus.QUEUED)


# -- on a held connection


async def invoke(gateway: Gateway, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`."""
    info = gateway.info
    gateway.must_be_reachable("invoke()")
    where = await gateway.address()
    ours = is_ours(info)
    credentials = (*where.headers, *_own_token(info, call))
    secrets = tuple(value.removeprefix("Bearer ") for _, value in credentials)
    headers = (("x-unigpu-job", call.job_id), ("x-unigpu-timeout", f"{call.execution_timeout:g}")) if ours else ()
    request = Request(
        method="POST",
        url=f"{where.origin}{info.route or _PATH}",
        operation=INVOKE,
        headers=(*credentials, *headers),
        json={"input": call.input} if ours else call.input,
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        deployment=info.name,
        foreign=True,
    )
    try:
        reply = await gateway.io.send(request)
    except TransportError as exc:
        if exc.never_sent:
            await gateway.must_run()
        raise
    if ours:
        return await _envelope(gateway, reply, secrets, idempotent=call.idempotent)
    if 200 <= reply.status < 300:
        return Result(output=reply.json())
    await gateway.judge(reply.status, idempotent=call.idempotent)
    raise error_for(reply, PROVIDER, deployment=info.name, secrets=secrets, maybe_executed=True)


def _own_token(info: DeploymentInfo, call: Invocation) -> tuple[tuple[str, str], ...]:
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
    return (("authorization", f"Bearer {call.token.get_secret_value()}"),)


async def _envelope(gateway: Gateway, reply: Response, secrets: tuple[str, ...], *, idempotent: bool) -> Result:
    """What our worker said; whatever else it is, is the gateway's."""
    info = gateway.info
    try:
        envelope, error, seconds = answer_of(reply.json())
    except InvalidResponseError:
        envelope, error, seconds = None, None, None
    timing = Timing(execution=seconds, source=None if seconds is None else "execution: worker")
    if envelope is not None and reply.status == 200:
        return Result(output=envelope["output"], timing=timing)
    common: dict[str, Any] = {"provider": PROVIDER, "operation": INVOKE, "deployment": info.name}
    if error is not None and error.type in REFUSALS:
        raise NoWorkerReady(
            f"the worker of {info.name or info.provider_name} takes no call: {error.message or error.type}",
            state=str(info.state),
            reason=error.type,
            maybe_executed=False,
            **common,
        )
    if error is not None and reply.status == 200:
        raise JobFailed(
            f"the call of {info.name or info.provider_name} failed: {error.type}: {error.message}",
            error_type=error.type,
            error_message=error.message,
            traceback=error.traceback,
            maybe_executed=True,
            **common,
        )
    await gateway.judge(reply.status, idempotent=idempotent)
    if 200 <= reply.status < 300:
        raise InvalidResponseError("the answer is not that of unigpu's worker", maybe_executed=True, **common)
    raise error_for(reply, PROVIDER, deployment=info.name, secrets=secrets)
