"""Calls of a function on a pod: one held exchange with the worker itself, through RunPod's public proxy.

There is no queue and there are no jobs. The proxy ends an exchange that sends nothing for 100 s
(https://docs.runpod.io/pods/configuration/expose-ports); the account's key never goes there.

A 502 of the proxy says that the worker could not be reached, or that it died with the call in hand. So a call that must
not run twice first asks whether the worker is there: after a yes, a 502 is a call that may have run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Final, cast

from unigpu.driver import (
    CallClass,
    DeploymentInfo,
    Invocation,
    Io,
    Request,
    Response,
    Result,
    StreamResponse,
    Timing,
    check,
)
from unigpu.errors import (
    InvalidResponseError,
    JobFailed,
    NoWorkerReady,
    StreamInterrupted,
    TransportError,
    UnsupportedError,
    WorkerLost,
)

from ._jobs import error_of
from ._wire import PROVIDER

PROXY_S: Final = 100.0
_PROBE_S: Final = 10.0
_OPERATION: Final = "runpod.pod.invoke"
NDJSON: Final = "application/x-ndjson"
_LONGEST_LINE: Final = 64_000_000
"""Bytes. A chunk above it is no answer but a mistake."""


async def invoke(io: Io, info: DeploymentInfo, call: Invocation) -> Result:
    """As `unigpu.driver.Invokes.invoke`.

    Raises:
        JobFailed: the handler raised.
        NoWorkerReady: the worker does not listen (yet), loads, or has all the calls that it takes.
        WorkerLost: it may have had the call, and gave no answer.
    """
    await _must_be_there(io, info, call)
    said = await io.send(_request(info, call))
    _refuse(said, info, call)
    return _result(said, info)


async def stream(io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
    """As `unigpu.driver.Streams.stream`: unigpu's worker sends a line for each chunk, and one that says the end.
    Leaving closes the connection, which ends the call.

    Raises:
        UnsupportedError: the worker is another program.
        StreamInterrupted: it broke off.
        JobFailed, NoWorkerReady, WorkerLost: as `invoke`.
    """
    if not _is_ours(info):
        raise UnsupportedError(
            f"stream: {info.name} has another worker than unigpu's, whose answer comes as a whole",
            capability="streaming",
            provider=PROVIDER,
            deployment=info.name,
            hint="Use invoke().",
        )
    await _must_be_there(io, info, call)
    asked = _request(info, call, accept=NDJSON)
    async with io.stream(asked) as reply:
        if reply.status >= 300:
            whole = await reply.read()
            _refuse(
                Response(status=reply.status, headers=reply.headers, content=whole, operation=_OPERATION), info, call
            )
        async with contextlib.aclosing(_lines(reply)) as lines:
            async for text in lines:
                line = _object(text)
                if "chunk" in line:
                    yield line["chunk"]
                elif "error" in line:
                    raise _failed(line["error"], info)
                elif line.get("done") is True:
                    return
                else:
                    raise _interrupted(info, "a line is no chunk")
    raise _interrupted(info, "it ended without its last line")


async def _must_be_there(io: Io, info: DeploymentInfo, call: Invocation) -> None:
    """See the module."""
    if call.idempotent or await answers(io, info, deadline=call.deadline):
        return
    raise _not_ready(info, "does not take calls (yet)")


def _is_ours(info: DeploymentInfo) -> bool:
    return info.worker_protocol != "foreign"


def _request(info: DeploymentInfo, call: Invocation, *, accept: str = "application/json") -> Request:
    ours = _is_ours(info)
    headers = [("accept", accept)]
    if ours:
        headers += [("x-unigpu-job", call.job_id), ("x-unigpu-timeout", f"{call.execution_timeout:g}")]
    if call.token is not None:
        headers.append(("authorization", f"Bearer {call.token.get_secret_value()}"))
    return Request(
        method="POST",
        url=f"{info.url}{'/invoke' if ours else info.route or '/'}",
        operation=_OPERATION,
        headers=tuple(headers),
        json={"input": call.input} if ours else call.input,
        role="worker",
        call=CallClass.IDEMPOTENT if call.idempotent else CallClass.USER_DECIDES,
        deadline=call.deadline,
        read_timeout=PROXY_S + 30.0,
        deployment=info.name,
        foreign=True,
    )


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


def _refuse(said: Response, info: DeploymentInfo, call: Invocation) -> None:
    """Raise what an answer without a result means."""
    if said.status == 429:
        raise _not_ready(info, "has all the calls that it takes")
    if said.status == 503 or (said.status == 502 and call.idempotent):
        raise _not_ready(info, "does not take calls (yet)")
    if said.status in (502, 504, 524):
        within = "" if said.status == 502 else f" within RunPod's {PROXY_S:g} s"
        raise WorkerLost(
            f"the pod {info.name} gave no answer{within} (HTTP {said.status})",
            maybe_executed=True,
            hint="The proxy ends longer calls; a serverless endpoint has jobs, which do not end so."
            if within
            else "Its worker may have died with the call; client.logs() tells.",
            **_common(info),
        )
    check(said, PROVIDER, deployment=info.name, secrets=() if call.token is None else (call.token.get_secret_value(),))


def _result(said: Response, info: DeploymentInfo) -> Result:
    body: object = said.json()
    if not _is_ours(info):
        return Result(output=body, worker_id=info.id, timing=Timing(source="client"))
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
    if "error" in fields:
        raise _failed(fields["error"], info)
    if "output" not in fields:
        raise InvalidResponseError(
            f"{_OPERATION}: the worker's reply has no output", maybe_executed=True, **_common(info)
        )
    ran: object = fields.get("execution_s")
    timing = Timing(source="client")
    if isinstance(ran, int | float):
        timing = Timing(execution=float(ran), source="execution: worker")
    return Result(output=fields["output"], worker_id=info.id, timing=timing)


async def _lines(reply: StreamResponse) -> AsyncGenerator[bytes]:
    rest = b""
    async for piece in reply.chunks():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > _LONGEST_LINE:
            raise InvalidResponseError(
                f"{_OPERATION}: a line of the stream is too long", provider=PROVIDER, maybe_executed=True
            )


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}


def _common(info: DeploymentInfo) -> dict[str, Any]:
    return {"provider": PROVIDER, "operation": _OPERATION, "deployment": info.name}


def _not_ready(info: DeploymentInfo, why: str) -> NoWorkerReady:
    return NoWorkerReady(f"the pod {info.name} {why}", state=None, maybe_executed=False, **_common(info))


def _failed(said: object, info: DeploymentInfo) -> JobFailed:
    error = error_of(said)
    return JobFailed(
        f"a call of {info.name} failed: {error.type}: {error.message}",
        error_type=error.type,
        error_message=error.message,
        traceback=error.traceback,
        maybe_executed=True,
        **_common(info),
    )


def _interrupted(info: DeploymentInfo, why: str) -> StreamInterrupted:
    return StreamInterrupted(f"the stream of {info.name} broke off: {why}", maybe_executed=True, **_common(info))
