"""Pods: how one is read, what it costs, and calls of a function on one.

A call is one held exchange with the worker itself, through RunPod's public proxy. There is no queue and there are no
jobs. The proxy ends an exchange that sends nothing for 100 s
(https://docs.runpod.io/pods/configuration/expose-ports); the account's key never goes there.

A 502 of the proxy says that the worker could not be reached, or that it died with the call in hand. So a call that must
not run twice first asks whether the worker is there: after a yes, a 502 is a call that may have run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, cast

from unigpu.driver import (
    DEFAULT_PORT,
    CallClass,
    DeploymentInfo,
    Found,
    InventoryItem,
    Invocation,
    Io,
    Rate,
    Request,
    Response,
    Result,
    State,
    Tags,
    Timing,
    Worker,
    WorkerState,
    canonical,
    check,
    epoch,
    found_of,
    is_ours,
    json_object,
    lines_of,
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

from .calls import error_of
from .gpus import DISK_GB_MONTH
from .translate import ids_of
from .wire import PROVIDER, PodWire

STOPPED_GB_MONTH: Final = 0.20
"""USD a month for a gigabyte of a stopped pod's own disk: https://docs.runpod.io/pods/pricing (2026-08)."""
PROXY_S: Final = 100.0
_PROBE_S: Final = 10.0
_OPERATION: Final = "runpod.pod.invoke"
NDJSON: Final = "application/x-ndjson"


# -- its state ---------------------------------------------------------------------------------------------------------


def found_pod(wire: PodWire, proxy_url: str) -> Found:
    return found_of("pod", pod_info(wire, proxy_url=proxy_url))


def pod_info(wire: PodWire, *, proxy_url: str, answers: bool | None = None) -> DeploymentInfo:
    """A pod; *answers*: whether its port was seen to answer, where that was tried."""
    tags = Tags.read(wire.env)
    port = tags.port or DEFAULT_PORT
    state, reason = _pod_state(wire, answers)
    mounted = (mount.volumeId for mount in (wire.mounts and wire.mounts.network) or ())
    cost = wire.cost if state is not State.STOPPED else None
    price = cost or tags.price
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=wire.name,
        id=wire.id,
        ours=is_ours(wire.name),
        ids={"pod": wire.id, **ids_of(wire.env, wire.registry, tuple(mounted))},
        state=state,
        raw_state=wire.status,
        reason=reason,
        kind="pod",
        workers=(1, 1),
        ready_workers=1 if state is State.READY else 0,
        url=proxy_url.replace("{id}", wire.id).replace("{port}", str(port)),
        created_at=epoch(wire.createdAt),
        rate=Rate(idle_per_hour=price, max_per_hour=price, source="the pod's own cost" if cost else None),
        bills=stopped_bills(wire) if state is State.STOPPED else None,
        details={"cloud": wire.cloud, "data_center": wire.dataCenterId, "gpu": wire.gpu and wire.gpu.id},
        **tags.info(port=port),
    )


def pod_worker(wire: PodWire, state: State) -> Worker:
    """The one worker that a pod is."""
    states = {
        State.READY: WorkerState.IDLE,
        State.STARTING: WorkerState.STARTING,
        State.CREATING: WorkerState.PLACING,
        State.STOPPED: WorkerState.STOPPED,
        State.FAILED: WorkerState.FAILED,
    }
    return Worker(
        id=wire.id,
        state=states.get(state, WorkerState.UNKNOWN),
        raw_state=wire.status,
        reason="crash_loop: the pod is in RunPod's state ERROR" if wire.status == "ERROR" else None,
        gpu=None if wire.gpu is None else canonical(PROVIDER, wire.gpu.id) or wire.gpu.id,
        gpu_count=None if wire.gpu is None else wire.gpu.count,
        region=wire.dataCenterId,
        started_at=epoch(wire.startedAt),
        price_per_hour=wire.cost,
    )


def stopped_bills(wire: PodWire) -> str:
    """What a stopped pod costs: its GPU is given back, and its own persistent disk is not."""
    return f"its volume disk, where it has one, at ${STOPPED_GB_MONTH:.2f} per GB and month; no GPU is kept for it"


def _pod_state(wire: PodWire, answers: bool | None) -> tuple[State, str | None]:
    plain = {"PROVISIONING": State.CREATING, "STARTING": State.STARTING, "EXITED": State.STOPPED}
    if wire.status == "RUNNING":
        if wire.runtime is not None and answers is None:
            return State.UNKNOWN, None  # a list: whether its port answers was not tried
        if wire.runtime is None or not answers:
            return State.STARTING, "its container runs; its port does not answer yet" if wire.runtime else None
        return State.READY, None
    if wire.status == "ERROR":
        return State.FAILED, "crash_loop: RunPod cannot start its container"
    if wire.status == "TERMINATED":
        return State.GONE, None
    return plain.get(wire.status, State.UNKNOWN), None


def pod_item(wire: PodWire, info: DeploymentInfo) -> InventoryItem:
    """A pod with its disks: the container's ends with a stop, a persistent one then costs twice as much."""
    stopped = info.state is State.STOPPED
    kept = wire.mounts.persistent.size if wire.mounts is not None and wire.mounts.persistent is not None else 0.0
    month = kept * STOPPED_GB_MONTH if stopped else ((wire.disk or 0) + kept) * DISK_GB_MONTH
    return InventoryItem(
        provider=PROVIDER,
        id=wire.id,
        kind="pod",
        owner="ours" if info.ours else "foreign",
        name=info.name or info.provider_name,
        namespace=info.namespace,
        state=wire.status,
        per_hour=0.0 if stopped else wire.cost,
        per_month=round(month, 4),
        created_at=info.created_at,
        note=info.bills or (None if wire.cluster is None else "one machine of a cluster"),
    )


# -- its calls ---------------------------------------------------------------------------------------------------------


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
        async with contextlib.aclosing(lines_of(reply.chunks())) as lines:
            async for text in lines:
                line = json_object(text)
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
