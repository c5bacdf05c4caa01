"""What changes an endpoint that exists: the limits, the template that its workers run, a stop and a start.

https://docs.vast.ai/guides/serverless/managing-scale
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unigpu.driver import DeploymentInfo, DeploymentSpec, Identity, Io, Scaling, gone, is_rehearsal
from unigpu.errors import APIStatusError, InvalidResponseError, UnsupportedError

from . import bodies, instances, routing, translate
from .api import VastAPI
from .market import contradicts, of_spec
from .wire import PROVIDER, GroupWire


async def update(
    api: VastAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, identity: Identity, *, deadline: float
) -> None:
    """Template, workergroup, limits, and the roll of the workers: each step is harmless to repeat. Until the
    workergroup has the new template the deployment shows no spec, so a half update is never taken for a whole."""
    wire = await api.endpoint(io, info.id, deadline=deadline)
    if wire is None:
        raise gone(info, operation="vast.endpoint.get")
    groups = await api.groups(io, deadline=deadline)
    group = next((one for one in groups if one.endpoint_id == wire.id), None)
    templates = await api.templates(io, [info.provider_name], deadline=deadline)
    template = translate.its_template(wire, templates, group)
    if template is None or group is None:
        raise InvalidResponseError(
            f"{info.name}: its {'template' if template is None else 'workergroup'} is not there",
            provider=PROVIDER,
            deployment=info.name,
            maybe_executed=False,
            hint='Deploy it again: what is missing is made anew. Or if_exists="replace".',
        )
    if not is_rehearsal(io):
        bodies.must_be_sendable(spec)
    body = {
        **bodies.template_body(spec, identity, engine=api.engine),
        "id": template.id,
        "hash_id": template.hash_id,
    }
    await api.send(io, "PUT", "/api/v1/template/", "template.put", json=body, deadline=deadline, deployment=info.name)
    again = await api.templates(io, [info.provider_name], deadline=deadline)
    now = next((one for one in again if one.id == template.id), None)
    changed = bodies.group_body(
        spec, endpoint=info.id, template=str(template.id), template_hash=None if now is None else now.hash_id
    )
    await _put_group(api, io, info, group.id, changed, deadline=deadline)
    groups = await api.groups(io, deadline=deadline)
    _must_be_capped(spec, next((one for one in groups if one.id == group.id), None), endpoint=info.id)
    planned = bodies.changed_body(spec, identity, was=info.spec_hash, min_load=wire.min_load)
    await _put(api, io, info, planned, deadline=deadline)
    await _roll(api, io, info, group.id, deadline=deadline)


async def warm(api: VastAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
    """The limits that were asked. Before: that Vast understood the price cap, as a search that it reads otherwise
    would rent at any price."""
    if spec.kind == "pod":
        await instances.must_run(api, io, info, deadline=deadline)
        return
    groups = await api.groups(io, deadline=deadline)
    group = next((one for one in groups if str(one.endpoint_id) == info.id), None)
    _must_be_capped(spec, group)
    await _join(api, io, info, spec, group, deadline=deadline)
    options = bodies.options_of(spec)
    cold = spec.workers[0] == 0 and not (options.cold_workers or options.min_load or options.min_cold_load)
    if cold and info.workers == spec.workers:
        return  # it was made so
    await _put(api, io, info, bodies.limits_body(spec), deadline=deadline)


async def set_limits(
    api: VastAPI,
    io: Io,
    info: DeploymentInfo,
    workers: tuple[int, int] | None,
    idle_timeout: float | None,
    scaling: Scaling | None,
    *,
    deadline: float,
) -> None:
    """Limits only. A running call is not touched; which machine leaves first is Vast's choice.

    Raises:
        UnsupportedError: more than one hot worker as the least.
    """
    if info.kind == "pod":
        raise _not_here("scale", info)
    if workers is not None and workers[0] > 1:
        raise UnsupportedError(
            f"workers: Vast holds load, not a number of hot workers: {workers[0]} cannot be promised",
            capability="exact_replicas",
            provider=PROVIDER,
            deployment=info.name,
            hint=f"(1, {workers[1]}) keeps one; for more say the load: "
            'update(provider_options={"vast": {"min_load": ...}}).',
        )
    wire = await api.endpoint(io, info.id, deadline=deadline)
    if wire is None:
        raise gone(info, operation="vast.endpoint.get")
    now = {one: getattr(wire, one) for one in ("min_load", "cold_workers", "max_queue_time")}
    body = bodies.scale_body(now, workers, idle_timeout, scaling)
    if body:
        await _put(api, io, info, body, deadline=deadline)


async def wake(api: VastAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """One question to ``/route/``: it counts as one call that waits, so Vast starts a worker. The route is not used."""
    route = routing.Route(api, io, info, deadline, deadline)
    await route.ask()


async def stop(api: VastAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """All workers are stopped and keep their disks; a pod gives its GPU back. Storage is billed on."""
    if info.kind == "pod":
        await api.about(io, "PUT", info, "", "instance.put", json={"state": "stopped"}, deadline=deadline)
    else:
        await _put(api, io, info, {"endpoint_state": "stopped"}, deadline=deadline)


async def start(api: VastAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """A stopped pod holds no GPU: where it is not free, Vast keeps the wish and starts it later."""
    if info.kind == "pod":
        await instances.resume(api, io, info, deadline=deadline)
    else:
        await _put(api, io, info, {"endpoint_state": "active"}, deadline=deadline)


async def _roll(api: VastAPI, io: Io, info: DeploymentInfo, group: int, *, deadline: float) -> None:
    """Ask for the roll: the guide says that it begins by itself, but users saw old workers stay. A refusal means that
    there is no worker to replace."""
    try:
        await api.send(
            io, "POST", "/update_workers/", "workergroup.roll", json={"workergroup_id": group}, deadline=deadline,
            deployment=info.name, base=api.engine,
        )  # fmt: skip
    except APIStatusError as exc:
        if exc.status not in (400, 404):
            raise
        return


async def _join(
    api: VastAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, group: GroupWire | None, *, deadline: float
) -> None:
    """Where the template had to be made anew the workergroup still names one that is gone."""
    template = info.ids.get("template")
    if group is None or template is None or group.template_id is None or str(group.template_id) == template:
        return
    found = await api.templates(io, [info.provider_name], deadline=deadline)
    hash_id = next((one.hash_id for one in found if str(one.id) == template), None)
    body = bodies.group_body(spec, endpoint=info.id, template=template, template_hash=hash_id)
    await _put_group(api, io, info, group.id, body, deadline=deadline)


async def _put_group(
    api: VastAPI, io: Io, info: DeploymentInfo, group: int, body: Mapping[str, Any], *, deadline: float
) -> None:
    await api.send(
        io, "PUT", f"/api/v0/workergroups/{group}/", "workergroup.put", json=dict(body), deadline=deadline,
        deployment=info.name,
    )  # fmt: skip


async def _put(api: VastAPI, io: Io, info: DeploymentInfo, body: Mapping[str, Any], *, deadline: float) -> None:
    """Set some of an endpoint's limits: only what is set is sent, as Vast takes ``null`` for a value."""
    await api.about(io, "PUT", info, "", "endpoint.put", json=dict(body), deadline=deadline)


def _must_be_capped(spec: DeploymentSpec, group: GroupWire | None, *, endpoint: str | None = None) -> None:
    """Before anything is rented; or after a change of *endpoint*, whose workers run.

    Raises:
        InvalidResponseError: Vast's reading of the search allows more expensive machines than asked.
    """
    wrong = None
    if group is not None:
        wrong = contradicts(group.search_query, of_spec(spec, bodies.options_of(spec)))
    if wrong is not None:
        raise InvalidResponseError(
            f"{spec.name}: {wrong}; " + ("no worker was replaced" if endpoint else "nothing was rented"),
            provider=PROVIDER,
            operation="vast.workergroup.list",
            deployment=spec.name,
            maybe_executed=endpoint is None,
            may_bill=() if endpoint is None else (f"endpoint {endpoint}",),
            hint=endpoint and "Machines that it rents from now on may cost more: scale it to (0, 1), or tear it down.",
        )


def _not_here(flag: str, info: DeploymentInfo) -> UnsupportedError:
    return UnsupportedError(
        f"{flag}: Vast has no such thing for a pod",
        capability=flag,
        provider=PROVIDER,
        deployment=info.name,
    )
