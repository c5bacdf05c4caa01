"""Changing what runs: limits by PATCH, a release that is rolled, waking, stopping and starting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from unigpu.driver import DeploymentInfo, DeploymentSpec, Identity, Io, Scaling, Tags, is_rehearsal, parse
from unigpu.errors import InvalidResponseError, NoCapacityError, UnsupportedError

from . import bodies, calls, gpus, request, translate
from .api import RunPodAPI
from .secrets import write_secrets
from .wire import PROVIDER, EndpointWire, PodWire


async def roll(
    api: RunPodAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
) -> None:
    """As `unigpu.driver.Updates.update`: idle workers are replaced at once, busy ones after their job."""
    if bodies.secret_names(spec):
        await write_secrets(api, io, spec, identity, deadline=deadline)
    choice = gpus.choose(spec, await gpus.catalogue_of(api, io, spec, deadline=deadline))
    body = bodies.content_patch(spec, identity, choice, min_cuda=info.details.get("min_cuda"))
    await _patch(api, io, info, body, gpu=choice.as_shown(), deadline=deadline)


async def warm_up(api: RunPodAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
    """As `unigpu.driver.Driver.warm`."""
    if info.kind == "pod" or spec.kind == "pod":
        return  # a pod is created warm
    if info.workers == spec.workers or (info.workers is None and spec.workers[0] == 0):
        return  # an endpoint is created with its maximum, and with a minimum of 0
    workers = bodies.limits_body(spec)["workers"]
    await _patch(api, io, info, {"workers": workers}, gpu=info.details.get("gpu"), deadline=deadline)


async def change_limits(
    api: RunPodAPI,
    io: Io,
    info: DeploymentInfo,
    *,
    workers: tuple[int, int] | None,
    idle_timeout: float | None,
    scaling: Scaling | None,
    deadline: float,
) -> None:
    """As `unigpu.driver.Driver.scale`: limits only, by PATCH; a running job is not touched.

    Raises:
        NoCapacityError: a GPU that it may run on costs more now than the deployment's ``max_price``.
    """
    if info.kind == "pod":
        raise _not_here("scale", info)
    now = parse(EndpointWire, await api.about(io, "GET", info, "", "endpoint.get", deadline=deadline))
    if workers is not None and workers[1] > now.workers.max:
        await _must_be_cheap(api, io, info, now, deadline=deadline)
    body = bodies.limits_patch(now, workers=workers, idle_timeout=idle_timeout, scaling=scaling)
    if body:
        await _patch(api, io, info, body, gpu=translate.gpu_of(now), deadline=deadline)


async def start_worker(api: RunPodAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """As `unigpu.driver.Wakes.wake`. Only a call makes RunPod start a worker. So a queue gets a job that unigpu's
    worker answers by itself, without the handler; a load balancer gets a health request, whose answer is not awaited.

    Raises:
        UnsupportedError: the worker is another program, which would take that job for an input.
    """
    if info.kind == "pod":
        raise _not_here("wake", info)
    if info.details.get("type") == "LOAD_BALANCER":
        if is_rehearsal(io):
            return  # a dry run notes changes; this is a GET, and would start a worker
        await request.start_worker(api, io, info, deadline=deadline)
        return
    if info.worker_protocol == "foreign":
        raise _not_here("wake", info)
    await api.ask(
        io, "POST", info, "/run", "job.wake", json=calls.wake_body(), limit_key="runpod.run", deadline=deadline
    )


async def act_on_pod(
    api: RunPodAPI, io: Io, info: DeploymentInfo, action: Literal["start", "stop"], *, deadline: float
) -> None:
    """As `unigpu.driver.Pauses`. A stopped pod gives its GPU back: on start there may be none."""
    if info.kind != "pod":
        raise _not_here("stop", info)
    now = parse(PodWire, await api.about(io, "GET", info, "", "pod.get", deadline=deadline))
    done = ("EXITED",) if action == "stop" else ("RUNNING", "STARTING", "PROVISIONING")
    if now.status not in done:
        await api.about(io, "POST", info, "/action", f"pod.{action}", json={"action": action}, deadline=deadline)


async def _must_be_cheap(api: RunPodAPI, io: Io, info: DeploymentInfo, now: EndpointWire, *, deadline: float) -> None:
    """Before more workers are allowed: the prices may have risen since it was deployed."""
    tags = Tags.read(now.env)
    cap = tags.max_price
    if cap is None or now.gpu is None:
        return
    disk = now.disk if ",disk=" in (tags.spec_hash or "") else None  # as at create: where it was stated
    expensive = [
        one
        for one in await gpus.catalogue(api, io, "SERVERLESS", count=now.gpu.count, deadline=deadline)
        if one.pool in now.gpu.pools
        and one.id not in (now.gpu.excludedTypes or ())
        and (gpus.serverless_price(one, now.gpu.count, disk) or math.inf) > cap
    ]
    if expensive:
        raise NoCapacityError(
            f"scaling {info.name or info.id}: {', '.join(one.name for one in expensive)} may cost more than its "
            f"max_price of ${cap:g} a worker-hour now",
            provider=PROVIDER,
            operation="runpod.catalog.gpus.list",
            deployment=info.name,
            maybe_executed=False,
            hint="update(max_price=...) takes the new price, or leaves the expensive ones out.",
        )


async def _patch(
    api: RunPodAPI, io: Io, info: DeploymentInfo, body: Mapping[str, Any], *, gpu: Any, deadline: float
) -> None:
    """Change it, and see that it still runs on what it should: a PATCH was seen to wipe the excluded types
    (https://github.com/runpod/runpod-mcp/pull/70), which would let dearer GPUs in. Then they are put back.

    Raises:
        InvalidResponseError: it runs on something else all the same.
    """
    for turn in range(2):
        reply = await api.about(io, "PATCH", info, "", "endpoint.patch", json=dict(body), deadline=deadline)
        now = parse(EndpointWire, reply)
        if not gpu or now.gpu is None or translate.gpu_of(now) == gpu:
            return
        if turn == 0:
            body = {"gpu": {key: gpu[key] for key in ("pools", "excludedTypes", "count")}}
    raise InvalidResponseError(
        f"runpod.endpoint.patch: {info.name or info.id} may now run on other GPUs than it was deployed for",
        provider=PROVIDER,
        operation="runpod.endpoint.patch",
        deployment=info.name,
        maybe_executed=True,
        hint="Check it in RunPod's console; update(gpu=...) sets its GPUs again.",
    )


def _not_here(flag: str, info: DeploymentInfo) -> UnsupportedError:
    what = "a pod" if info.kind == "pod" else "a serverless endpoint"
    return UnsupportedError(
        f"{flag}: RunPod does not offer this for {what}",
        capability=flag,
        provider=PROVIDER,
        deployment=info.name,
    )
