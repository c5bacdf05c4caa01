"""Pods: how one is read, what it costs, and calls of a function on one.

A call is one held exchange with the worker itself, through RunPod's public proxy. There is no queue and there are no
jobs. The proxy ends an exchange that sends nothing for 100 s
(https://docs.runpod.io/pods/configuration/expose-ports); the account's key never goes there.

A 502 of the proxy says that the worker could not be reached, or that it died with the call in hand. So a call that must
not run twice first asks whether the worker is there: after a yes, a 502 is a call that may have run.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from unigpu.driver import (
    DEFAULT_PORT,
    INVOKE,
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
    Worker,
    WorkerCall,
    WorkerState,
    bearer,
    buffered,
    canonical,
    epoch,
    found_of,
    is_ours,
    is_own,
)
from unigpu.errors import TransportError, UnsupportedError

from .gpus import DISK_GB_MONTH
from .translate import ids_of
from .wire import PROVIDER, PodWire

STOPPED_GB_MONTH: Final = 0.20
"""USD a month for a gigabyte of a stopped pod's own disk: https://docs.runpod.io/pods/pricing (2026-08)."""
_PROXY_S: Final = 100.0
_PROBE_S: Final = 10.0
_OPERATION: Final = "runpod.pod.invoke"


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
    exchange = _exchange(info)
    await _must_be_there(exchange, io, call)
    reply = await io.send(_request(exchange, call))
    _raise_for(exchange, reply, call)
    return exchange.result(reply, worker_id=info.id)


async def stream(io: Io, info: DeploymentInfo, call: Invocation) -> AsyncIterator[Any]:
    """As `unigpu.driver.Streams.stream`. Leaving closes the connection, which ends the call.

    Raises:
        UnsupportedError: the worker is another program.
        StreamInterrupted: it broke off.
        JobFailed, NoWorkerReady, WorkerLost: as `invoke`.
    """
    exchange = _exchange(info)
    if not exchange.own:
        raise UnsupportedError(
            f"stream: {info.name} has another worker than unigpu's, whose answer comes as a whole",
            capability="streaming",
            provider=PROVIDER,
            deployment=info.name,
            hint="Use invoke().",
        )
    await _must_be_there(exchange, io, call)
    async with io.stream(_request(exchange, call, stream=True)) as reply:
        if reply.status >= 300:
            _raise_for(exchange, await buffered(reply, _OPERATION), call)
        async with contextlib.aclosing(exchange.chunks(reply)) as chunks:
            async for chunk in chunks:
                yield chunk


async def answers(io: Io, info: DeploymentInfo, *, deadline: float) -> bool:
    """Whether its port answers: RunPod calls a pod RUNNING half a minute before."""
    ours = info.interface == "function" and is_own(info)
    request = Request(
        method="GET",
        url=f"{info.url}{'/ping' if ours else '/'}",
        operation="runpod.pod.probe.get",
        role="worker",
        call=CallClass.USER_DECIDES,  # the next check asks again
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
    """Whether the proxy itself says that nothing listens. A server rarely answers one of these itself."""
    return status in (502, 503, 504) or status >= 520


def _exchange(info: DeploymentInfo) -> WorkerCall:
    return WorkerCall(info=info, operation=_OPERATION, own=is_own(info))


def _request(exchange: WorkerCall, call: Invocation, *, stream: bool = False) -> Request:
    path = INVOKE if exchange.own else exchange.info.route or "/"
    return exchange.request(
        call, f"{exchange.info.url}{path}", headers=bearer(call.token), stream=stream, read_timeout=_PROXY_S + 30.0
    )


async def _must_be_there(exchange: WorkerCall, io: Io, call: Invocation) -> None:
    """Ask first where the call must not run twice: see the module.

    Raises:
        NoWorkerReady: its port does not answer.
    """
    if not call.idempotent and not await answers(io, exchange.info, deadline=call.deadline):
        raise exchange.not_ready("does not take calls (yet)")


def _raise_for(exchange: WorkerCall, reply: Response, call: Invocation) -> None:
    """Raise what a reply without an answer means."""
    if reply.status in (504, 524):
        raise exchange.lost(
            f"HTTP {reply.status} after RunPod's {_PROXY_S:g} s",
            hint="The proxy ends longer calls; a serverless endpoint has jobs, which do not end so.",
        )
    if reply.status == 502 and not call.idempotent:
        raise exchange.lost("HTTP 502", hint="Its worker may have died with the call: see client.logs().")
    secrets = () if call.token is None else (call.token.get_secret_value(),)
    exchange.raise_for(reply, not_ready=(429, 502, 503), secrets=secrets)
