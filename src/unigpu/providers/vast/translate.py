"""Between Vast's JSON and unigpu's models. Pure.

Endpoints have no variables, and their names must be unique on an account. So an endpoint's name, and an instance's
label, is our tag and the create call's attempt; everything else that another process must know is in the variables of
the deployment's template, or of the instance itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from unigpu.driver import (
    DeploymentInfo,
    Found,
    Identity,
    Interface,
    Rate,
    State,
    Tags,
    Worker,
    WorkerState,
    canonical,
    is_ours,
    workers_hour,
)

from .docker_flags import tags_in
from .wire import PROVIDER, EndpointWire, GroupWire, TemplateWire, WorkerWire

_ASSUMED: Final = ("interface", "execution_timeout", "concurrency", "idempotent")
_TAG: Final = re.compile(r"([a-z][a-z0-9-]{0,4}-ug[a-z2-7]{12})-([0-9a-z]{1,64})")

# https://docs.vast.ai/guides/serverless/worker-states
WORKERS: Final[Mapping[str, WorkerState]] = {
    "pending": WorkerState.PLACING,
    "creating": WorkerState.PLACING,
    "created": WorkerState.PLACING,
    "loading": WorkerState.STARTING,
    "model_loading": WorkerState.STARTING,
    "starting": WorkerState.STARTING,
    "rebooting": WorkerState.STARTING,
    "update_ready": WorkerState.STARTING,
    "update_rebooting": WorkerState.STARTING,
    "update_starting": WorkerState.STARTING,
    "idle": WorkerState.IDLE,
    "stopping": WorkerState.STOPPED,
    "stopped": WorkerState.STOPPED,
    "error": WorkerState.FAILED,
    "destroying": WorkerState.EXITED,
    "unavail": WorkerState.EXITED,
}
_COMING: Final = (WorkerState.PLACING, WorkerState.STARTING)
_WORDS: Final = {"loading": "pulls the image, or starts it", "model_loading": "loads the model", "pending": "is placed"}


def tag_of(identity: Identity) -> str:
    """What an endpoint and an instance are called."""
    return f"{identity.provider_name}-{identity.attempt}"


def untag(text: str | None) -> tuple[str, str | None] | None:
    """The deployment's name and the attempt; ``None``: it is not one of ours."""
    match = _TAG.fullmatch(text or "")
    if match:
        return match[1], match[2]
    return (text, None) if text is not None and is_ours(text) else None


def stated(tags: Tags, interface: Interface) -> dict[str, Any]:
    """What our constants say of a deployment; where they were not shown, it is marked as assumed."""
    return tags.info(interface=tags.interface or interface) | ({} if tags.shown else {"assumed": _ASSUMED})


# -- serverless --------------------------------------------------------------------------------------------------------


def found_template(wire: TemplateWire) -> Found:
    tags = tags_in(wire.env)
    return Found(kind="template", id=str(wire.id), name=wire.name, created_at=wire.created_at, **tags.found())


def found_group(wire: GroupWire) -> Found:
    name, attempt = untag(wire.endpoint_name) or (wire.endpoint_name or "", None)
    return Found(kind="workergroup", id=str(wire.id), name=name, attempt=attempt, created_at=wire.created_at)


def its_template(wire: EndpointWire, templates: Sequence[TemplateWire], group: GroupWire | None) -> TemplateWire | None:
    """The template that its workergroup names; else the one that the same create call made; else the only one of its
    name, as where a later deploy had to make it anew."""
    name, attempt = untag(wire.endpoint_name) or (None, None)
    mine = [one for one in templates if one.name == name]
    named = None if group is None else next((one for one in mine if one.id == group.template_id), None)
    same = next((one for one in mine if tags_in(one.env).attempt == attempt), None)
    return named or same or (mine[0] if len(mine) == 1 else None)


def endpoint_among(
    wire: EndpointWire, templates: Sequence[TemplateWire], groups: Sequence[GroupWire]
) -> DeploymentInfo:
    """An endpoint with what stands beside it, as a deployment."""
    group = next((one for one in groups if one.endpoint_id == wire.id), None)
    return endpoint_info(wire, template=its_template(wire, templates, group), group=group)


def endpoint_info(
    wire: EndpointWire,
    *,
    template: TemplateWire | None,
    group: GroupWire | None,
    workers: Sequence[WorkerWire] | None = None,
    tags: Tags | None = None,
) -> DeploymentInfo:
    """An endpoint as a deployment.

    Args:
        workers: ``None``: not asked for, as in a list; then its state is known only where it is stopped.
        tags: Our constants, where the template need not be asked.
    """
    known = untag(wire.endpoint_name)
    tags = tags or (Tags() if template is None else tags_in(template.env))
    tags = replace(tags, attempt=known[1] if known else None)
    halfway = (
        template is not None and group is not None and None not in (template.hash_id, group.template_hash)
        and template.hash_id != group.template_hash
    )  # fmt: skip
    if halfway:  # an update that stopped in between: the workers run what an earlier content of the template said
        tags = replace(tags, spec_hash=None)
    least = 1 if (wire.min_load or 0) > 0 else 0
    state, reason = endpoint_state(wire.endpoint_state, least, workers)
    ids = {"endpoint": str(wire.id)}
    ids |= {"template": str(template.id)} if template is not None else {}
    ids |= {"workergroup": str(group.id)} if group is not None else {}
    kept = wire.cold_workers or 0
    if wire.auto_delete_due_24h:
        reason = f"{reason + '; ' if reason else ''}Vast deletes it within 24 h: it has no workergroup"
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=known[0] if known else wire.endpoint_name,
        id=str(wire.id),
        ids=ids,
        state=state,
        raw_state=wire.endpoint_state,
        reason=reason,
        workers=(least, wire.max_workers),
        ready_workers=None if workers is None else sum(worker_state(one).is_ready for one in workers),
        idle_timeout=wire.inactivity_timeout if (wire.inactivity_timeout or 0) > 0 else None,
        created_at=wire.created_at,
        rate=rate_of(tags.max_price, (least, wire.max_workers), kept),
        bills="storage and traffic of its stopped workers",
        ours=known is not None,
        details={
            "endpoint_name": wire.endpoint_name,
            "cold_workers": kept,
            "scaling": {"signal": "queue_delay", "target": wire.target_queue_time},
        },
        **stated(tags, "function"),
    )


def rate_of(price: float | None, workers: tuple[int, int], kept: int) -> Rate:
    """By the price cap: what a machine costs is known when Vast rents it."""
    # What is kept stopped bills its storage, at each host's own price.
    idle = None if kept and not workers[0] else workers_hour(workers[0], price)
    source = None if price is None else "max_price"
    return Rate(idle_per_hour=idle, max_per_hour=workers_hour(workers[1], price), source=source)


def endpoint_state(word: str | None, least: int, workers: Sequence[WorkerWire] | None) -> tuple[State, str | None]:
    """By its own word, and by its workers."""
    if word == "stopped":
        return State.STOPPED, None
    if word not in ("active", "suspended", None):
        return State.UNKNOWN, None
    said = "suspended: Vast adds and stops no workers; those that run are billed" if word == "suspended" else None
    if workers is None:
        return State.UNKNOWN, said
    states = [worker_state(one) for one in workers]
    if any(one.is_ready for one in states):
        return State.READY, said
    if WorkerState.UNKNOWN in states:
        return State.UNKNOWN, said
    coming = [one for one, state in zip(workers, states, strict=True) if state in _COMING]
    if coming:
        words = sorted({_WORDS.get(one.status.lower(), one.status) for one in coming})
        return State.STARTING, said or f"a worker {', '.join(words)}"
    failed = [one for one, state in zip(workers, states, strict=True) if state is WorkerState.FAILED]
    if failed:
        return State.STARTING, said or f"{len(failed)} workers failed: {failed[0].error_msg or 'Vast gives no reason'}"
    if least:
        return State.STARTING, said or "Vast searches for a machine that fits, or wakes one"
    return State.COLD, said


def worker_state(wire: WorkerWire) -> WorkerState:
    """Ready only with a measured performance: before, an idle one still waits for its benchmark (vastai 1.9.1,
    ``cli/commands/benchmarks.py``)."""
    state = WORKERS.get(wire.status.lower(), WorkerState.UNKNOWN)
    if state is not WorkerState.IDLE:
        return state
    if wire.measured_perf is not None and wire.measured_perf <= 0:
        return WorkerState.STARTING
    return WorkerState.BUSY if (wire.reqs_working or 0) > 0 else WorkerState.IDLE


def worker_of(wire: WorkerWire) -> Worker:
    running = wire.reqs_working
    return Worker(
        id=str(wire.id),
        state=worker_state(wire),
        raw_state=wire.status,
        reason=wire.error_msg or _WORDS.get(wire.status.lower()),
        gpu=None if wire.gpu_name is None else canonical(PROVIDER, wire.gpu_name) or wire.gpu_name,
        started_at=wire.started_at,
        ready_at=wire.loaded_at,
        jobs_running=None if running is None else int(running),
    )
