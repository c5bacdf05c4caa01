"""The workers of a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from unigpu.driver import DeploymentInfo, Io, Worker, WorkerState, canonical
from unigpu.errors import DeploymentGone

from . import translate
from .api import NO_ROUTE, PROVIDER, YottaAPI, kind_of
from .wire import EndpointWire, PodWire, WorkerWire, rows, shaped

_ENDED: Final = frozenset({"TERMINATED", "TERMINATING", "STOPPED", "DELETING"})


async def workers(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
    """``GET /v2/serverless/{id}/workers``. The call stands in the guide, and not in the reference: where it is missing,
    the numbers of running and declared workers stand for them."""
    if info.kind == "pod":
        return _as_workers(await _again(api, io, info, deadline=deadline), of_pod=True)
    found = await listed(api, io, info, deadline=deadline)
    if found is None:
        return _as_workers(await _again(api, io, info, deadline=deadline), of_pod=False)
    return found


async def listed(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker] | None:
    """The workers by their ids; ``None``: there is no such call."""
    try:
        data = await api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
    except DeploymentGone as exc:
        if exc.status != NO_ROUTE:
            raise
        return None
    return tuple(map(translate.worker_of, rows(WorkerWire, data, "worker.list")))


async def _again(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> Any:
    return await api.about(io, "GET", info, "", f"{kind_of(info)}.get", deadline=deadline)


def _as_workers(data: Any, *, of_pod: bool) -> Sequence[Worker]:
    """The workers that the numbers tell of; they have no ids of their own."""
    if of_pod:
        pod = shaped(PodWire, data, "pod.get")
        state = translate.worker_of(WorkerWire(id=pod.id, status=pod.status))
        name = None if pod.gpu_type is None else canonical(PROVIDER, pod.gpu_type) or pod.gpu_type
        return (state.model_copy(update={"gpu": name, "gpu_count": pod.gpu_count, "region": pod.region}),)
    one = shaped(EndpointWire, data, "endpoint.get")
    ready, whole = one.running_workers or 0, one.total_workers or 0
    if one.status.upper() in _ENDED:
        return ()
    return tuple(
        Worker(
            id=f"{one.id}-{n + 1}", state=WorkerState.IDLE if n < ready else WorkerState.STARTING, raw_state=one.status
        )
        for n in range(max(ready, whole))
    )
