"""Calls of a function on a pod: one held exchange with the worker itself, through RunPod's public proxy.

There is no queue and there are no jobs. The proxy ends an exchange after 100 s
(https://docs.runpod.io/pods/configuration/expose-ports); the account's key never goes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.driver import CallClass, DeploymentInfo, Invocation, Io, Request, Response, Result, Timing, check
from unigpu.errors import InvalidResponseError, JobFailed, NoWorkerReady, TransportError, WorkerLost

from ._jobs import error_of
from ._wire import PROVIDER

PROXY_S: Final = 100.0
_PROBE_S: Final = 10.0
_OPERATION: Final = "runpod.pod.invoke"


async def invoke(io: Io, info: DeploymentInfo, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`.

    Raises:
        JobFailed: the handler raised.
        NoWorkerReady: the worker does not listen (yet), loads, or has all the calls that it takes.
        WorkerLost: it had the call, and gave no answer.
    """
    ours = info.worker_protocol != "foreign"
    path = "/invoke" if ours else info.route or "/"
    headers = [("x-unigpu-job", call.job_id), ("x-unigpu-timeout", f"{call.execution_timeout:g}")] if ours else []
    if call.token is not None:
        headers.append(("authorization", f"Bearer {call.token.get_secret_value()}"))
    request = Request(
        method="POST",
        url=f"{info.url}{path}",
        operation=_OPERATION,
        headers=tuple(headers),
        json={"input": dict(call.input)} if ours else dict(call.input),
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        read_timeout=PROXY_S + 30.0,
        deployment=info.name,
        foreign=True,
    )
    secrets = () if call.token is None else (call.token.get_secret_value(),)
    return _result(await io.send(request), info, ours=ours, secrets=secrets)


async def answers(io: Io, info: DeploymentInfo, *, deadline: float) -> bool:
    """Whether its port answers: RunPod calls a pod RUNNING half a minute before."""
    ours = info.interface == "function" and info.worker_protocol != "foreign"
    request = Request(
        method="GET",
        url=f"{info.url}{'/ping' if ours else '/'}",
        operation="runpod.pod.probe.get",
        role="worker",
        call=CallClass.USER_DECIDES,  # the next look asks again
        deadline=min(deadline, io.now() + _PROBE_S),
        read_timeout=_PROBE_S,
        deployment=info.name,
        foreign=True,
    )
    try:
        async with io.stream(request) as reply:
            return reply.status == 200 if ours else not _is_proxys(reply.status)
    except TransportError:
        return False


def _is_proxys(status: int) -> bool:
    """Whether the proxy says by itself that nobody listens. A server rarely answers one of these itself."""
    return status in (502, 503, 504) or status >= 520


def _result(said: Response, info: DeploymentInfo, *, ours: bool, secrets: tuple[str, ...]) -> Result:
    common: dict[str, Any] = {"provider": PROVIDER, "operation": _OPERATION, "deployment": info.name}
    if said.status in (502, 503, 429):
        why = "has all the calls that it takes" if said.status == 429 else "does not take calls (yet)"
        raise NoWorkerReady(f"the pod {info.name} {why}", state=None, maybe_executed=False, **common)
    if said.status in (504, 524):
        raise WorkerLost(
            f"the pod {info.name} gave no answer within RunPod's {PROXY_S:g} s (HTTP {said.status})",
            maybe_executed=True,
            hint="The proxy ends longer calls; a serverless endpoint has jobs, which do not end so.",
            **common,
        )
    check(said, PROVIDER, deployment=info.name, secrets=secrets)
    body: object = said.json()
    if not ours:
        return Result(output=body, worker_id=info.id, timing=Timing(source="client"))
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
    if "error" in fields:
        error = error_of(fields["error"])
        raise JobFailed(
            f"a call of {info.name} failed: {error.type}: {error.message}",
            error_type=error.type,
            error_message=error.message,
            traceback=error.traceback,
            maybe_executed=True,
            **common,
        )
    if "output" not in fields:
        raise InvalidResponseError(f"{_OPERATION}: the worker's reply has no output", maybe_executed=True, **common)
    ran: object = fields.get("execution_s")
    timing = Timing(source="client")
    if isinstance(ran, int | float):
        timing = Timing(execution=float(ran), source="execution: worker")
    return Result(output=fields["output"], worker_id=info.id, timing=timing)
