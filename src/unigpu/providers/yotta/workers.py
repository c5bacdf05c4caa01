"""The workers of a deployment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unigpu.driver import DeploymentInfo, Io, Worker, WorkerState, canonical, rows
from unigpu.errors import DeploymentGone

from . import translate
from .api import NO_ROUTE, PROVIDER, YottaAPI
from .wire import EndpointWire, PodWire, WorkerWire

_ENDED: Final = frozenset({"TERMINATED", "TERMINATING", "STOPPED", "DELETING"})


async def workers(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker]:
    """``GET /v2/serverless/{id}/workers``. The call is in the guide, and not in the reference: where it is missing, the
    numbers of running and declared workers stand for them."""
    if info.kind == "pod":
        reply = await api.about(io, "GET", info, "", "pod.get", deadline=deadline)
        return (_of_pod(api.parse(PodWire, reply)),)
    found = await listed(api, io, info, deadline=deadline)
    if found is not None:
        return found
    reply = await api.about(io, "GET", info, "", "endpoint.get", deadline=deadline)
    return _by_numbers(api.parse(EndpointWire, reply))


async def listed(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> Sequence[Worker] | None:
    """The workers by their ids; ``None``: there is no such call."""
    try:
        reply = await api.about(io, "GET", info, "/workers", "worker.list", deadline=deadline)
    except DeploymentGone as exc:
        if exc.status != NO_ROUTE:
            raise
        return None
    return tuple(map(translate.worker_of, rows(WorkerWire, api.body_of(reply), reply.operation)))


def _of_pod(pod: PodWire) -> Worker:
    """A pod's one worker: the pod itself."""
    worker = translate.worker_of(WorkerWire(id=pod.id, status=pod.status))
    gpu = None if pod.gpu_type is None else canonical(PROVIDER, pod.gpu_type) or pod.gpu_type
    return worker.model_copy(update={"gpu": gpu, "gpu_count": pod.gpu_count, "region": pod.region})


def _by_numbers(endpoint: EndpointWire) -> Sequence[Worker]:
    """As many workers as the endpoint states; they have no ids of their own."""
    if endpoint.status.upper() in _ENDED:
        return ()
    ready, declared = endpoint.running_workers or 0, endpoint.total_workers or 0
    return tuple(
        Worker(
            id=f"{endpoint.id}-{n + 1}",
            state=WorkerState.IDLE if n < ready else WorkerState.STARTING,
            raw_state=endpoint.status,
        )
        for n in range(max(ready, declared))
    )
