"""A pod at Vast: one rented machine. Found by its label, rented from an offer, called at its public port.

Another customer may take an offer between the search and the rental. That is normal, and the next offer is tried. A
rental is never repeated: after an unclear answer the label is searched for.
https://docs.vast.ai/api-reference/instances/create-instance
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from unigpu.driver import (
    DEFAULT_PORT,
    CallClass,
    DeploymentInfo,
    Found,
    Io,
    Rate,
    Request,
    Response,
    State,
    Worker,
    WorkerState,
    canonical,
    found_of,
    gone,
    is_rehearsal,
    items,
    json_object,
    mapping,
)
from unigpu.errors import APIStatusError, NoCapacityError, NotFoundError, TransportError

from . import bodies, translate
from .api import VastAPI
from .docker_flags import tags_in
from .market import as_json, country, disk_of, of_spec, search
from .resources import VastResource, destroy
from .wire import PROVIDER, InstanceWire, OfferWire

_PROBE_S: Final = 10.0
_LEAVES: Final = 15
_LEAVE_S: Final = 2.0

# https://docs.vast.ai/api-reference/instances: what `status_msg` says while `actual_status` never becomes "running".
_BROKEN: Final = (
    "oci runtime create failed", "error response from daemon", "pull access denied", "manifest unknown",
    "manifest for", "no such image", "failed to pull", "invalid reference format", "no space left on device",
)  # fmt: skip
_LOST: Final = frozenset({"exited", "unknown", "offline"})
"""States of an instance that never become "running" by themselves."""
_IDLE: Final = frozenset({"stopped", "exited", "created", None})
"""What a stopped instance is called: by the documents "stopped", by its container's own state elsewhere. SkyPilot takes
"exited" for it, too: https://github.com/skypilot-org/skypilot, ``sky/provision/vast/instance.py`` at 04698d7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceResource(VastResource):
    """The machine."""

    kind: str = "instance"
    bills_cold: str | None = "the machine, from its start, and its disk before"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        found = [found_instance(one) for one in await self.api.instances(io, deadline=deadline) if one.label]
        return [one for one in found if one.name == self.name]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """The cheapest offer that is still there.

        Raises:
            NoCapacityError: none of them is.
        """
        spec, _ = self.made_from()
        if not is_rehearsal(io):
            bodies.must_be_sendable(spec)
        options = bodies.options_of(spec)
        offers = await search(
            self.api, io, as_json(of_spec(spec, options)), disk=disk_of(spec), limit=options.tries, deadline=deadline
        )
        offers = [one for one in offers if spec.max_price is None or one.dph_total <= spec.max_price]
        refused: list[str] = []
        for offer in offers[: options.tries]:
            try:
                return await self._rent(io, offer, deadline=deadline)
            except APIStatusError as exc:
                if not _was_taken(exc):
                    raise
                refused.append(f"offer {offer.id}: {exc.message}")
        raise _no_offer(spec.name, len(refused), f" ({'; '.join(refused[:3])})" if refused else "")

    async def _rent(self, io: Io, offer: OfferWire, *, deadline: float) -> Found:
        """One rental. A contract in the reply is a machine that is billed, whatever else the reply says. So it is
        reported first, and `must_run` judges afterwards whether it runs."""
        spec, identity = self.made_from()
        reply = await io.send(
            self.api.request(
                "PUT", f"/api/v0/asks/{offer.id}/", "instance.create", json=bodies.instance_body(spec, identity),
                role="create", call=self.call, deadline=deadline, deployment=spec.name, read_timeout=None,
            )
        )  # fmt: skip
        contract = _contract(reply)
        if contract is None:
            self.api.checked(reply if reply.status >= 300 else replace(reply, status=400), deployment=spec.name)
            raise AssertionError("unreachable: that status is an error")
        wire = InstanceWire(
            id=contract,
            label=translate.tag_of(identity),
            intended_status="running",
            dph_total=offer.dph_total,
            extra_env=dict(identity.constants),
            gpu_name=offer.gpu_name,
            num_gpus=offer.num_gpus,
        )
        return found_instance(wire)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await self.api.instance(io, id, deadline=deadline)
        return None if wire is None else found_instance(wire)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await destroy(self.api, io, id, deadline=deadline)


def _was_taken(exc: APIStatusError) -> bool:
    """Whether another customer took the offer between the search and the rental."""
    return exc.status in (404, 410) or "no_such_ask" in exc.message or "offer_not_found" in exc.message


def _no_offer(name: str | None, tried: int, why: str) -> NoCapacityError:
    return NoCapacityError(
        f"Vast has no machine for {name} now: {tried} offers tried{why}.",
        provider=PROVIDER,
        operation="vast.instance.create",
        deployment=name,
        retryable=True,
        maybe_executed=False,
        hint="Accept more GPUs, a higher max_price, more regions, or a lower reliability in provider_options.",
    )


def _contract(reply: Response) -> int | None:
    """The contract that a reply names, whatever its status: ``success: false`` may have rented, too."""
    body: object = reply.json() if reply.status < 300 else json_object(reply.content)
    found: object = mapping(body).get("new_contract")
    return found if isinstance(found, int) and not isinstance(found, bool) else None


async def must_run(api: VastAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """After a rental whose answer did not say that it runs: a stopped machine is started once.

    Raises:
        NoCapacityError: another customer has its GPU. The caller deletes the machine.
    """
    wire = await api.instance(io, info.id, deadline=deadline)
    if wire is None or "stopped" not in (wire.intended_status, wire.actual_status):
        return
    if not await start(api, io, info.id, deadline=deadline):
        raise NoCapacityError(
            f"the machine of {info.name} was rented, and its GPU is not free",
            provider=PROVIDER,
            operation="vast.instance.put",
            deployment=info.name,
            retryable=True,
            maybe_executed=True,
            may_bill=(f"instance {info.id}",),
            hint="Deploy it again: another offer will be taken.",
        )


async def start(api: VastAPI, io: Io, id: str, *, deadline: float) -> bool:
    """Ask for it to run; ``False``: its GPU is not free now, and Vast starts it when it is."""
    reply = await io.send(
        api.request("PUT", f"/api/v0/instances/{id}/", "instance.put", json={"state": "running"}, deadline=deadline)
    )
    if reply.status < 300 and mapping(reply.json() if reply.content else None).get("success") is False:
        return False
    api.checked(reply)
    return True


async def resume(api: VastAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """Start a stopped one, and see it leave its stop: an "exited" of before would be taken for a program that ended.

    Raises:
        DeploymentGone: there is none.
    """
    try:
        runs = await start(api, io, info.id, deadline=deadline)
    except NotFoundError as exc:
        raise gone(info, exc) from exc
    for _ in range(_LEAVES if runs and not is_rehearsal(io) else 0):
        wire = await api.instance(io, info.id, deadline=deadline)
        if wire is None or wire.actual_status != "exited" or io.now() + _LEAVE_S >= deadline:
            return
        await io.sleep(_LEAVE_S)


async def probed(api: VastAPI, io: Io, wire: InstanceWire, *, deadline: float) -> DeploymentInfo:
    """An instance with its port asked: Vast calls it running while its program still loads."""
    first = instance_info(wire)
    if wire.actual_status != "running" or first.url is None or wire.intended_status == "stopped":
        return first
    request = Request(
        method="GET",
        url=f"{first.url}/",
        operation="vast.instance.probe.get",
        role="worker",
        call=CallClass.USER_DECIDES,  # the next check asks again
        deadline=min(deadline, io.now() + _PROBE_S),
        read_timeout=_PROBE_S,
        deployment=first.name,
        reroutes=True,  # a port that is closed says nothing about the provider
        foreign=True,
    )
    try:
        async with io.stream(request) as reply:
            answers = reply.status not in (502, 503, 504)
    except TransportError:
        answers = False
    return instance_info(wire, answers=answers)


# -- as our models ----------------------------------------------------------------------------------------------------


def instance_state(wire: InstanceWire) -> tuple[State, str | None]:
    """``running`` is not ready: its program may still load. The driver asks its port."""
    word, wanted = wire.actual_status, wire.intended_status
    said = (wire.status_msg or "").strip()[:300] or None
    if wanted == "stopped" and word in _IDLE:
        return State.STOPPED, None
    if wanted is not None and (word == "stopped" or (word == "exited" and wire.cur_state == "stopped")):
        return State.STARTING, "stopped: Vast starts it as soon as its GPU is free"
    if word in _LOST:
        reason = "crash_loop" if word == "exited" else "host_lost"
        return State.FAILED, f"{reason}: {said or f'the instance is {word}'}"
    if said and any(words in said.lower() for words in _BROKEN) and word != "running":
        return State.FAILED, f"image_pull: {said}"
    if word == "stopped":
        return State.STOPPED, None
    if word == "running":
        return State.STARTING if wanted != "stopped" else State.STOPPED, said
    if word in (None, "created", "loading", "rebooting", "scheduling"):
        return State.STARTING, said or f"the instance is {word or 'placed'}"
    if word == "frozen":
        return State.DEGRADED, "frozen: it does nothing, and its GPU is billed"
    return State.UNKNOWN, said


def address_of(wire: InstanceWire, port: int) -> str | None:
    """``http://host:port`` of a published port; ``None`` while there is none. No TLS is added by Vast."""
    host = (wire.public_ipaddr or "").strip()
    ports = mapping(wire.ports)
    entries = items(ports.get(f"{port}/tcp"))
    if not host or not entries:
        return None
    first: Any = entries[0]
    try:
        outer = int(first["HostPort"])
    except (KeyError, TypeError, ValueError):
        return None
    return f"http://{f'[{host}]' if ':' in host else host}:{outer}" if 0 < outer < 65536 else None


def instance_info(wire: InstanceWire, *, answers: bool | None = None) -> DeploymentInfo:
    """An instance as a deployment. *answers*: whether its port does; ``None``: not asked."""
    known = translate.untag(wire.label)
    tags = tags_in(wire.extra_env)
    state, reason = instance_state(wire)
    url = address_of(wire, tags.port or DEFAULT_PORT)
    if state is State.STARTING and wire.actual_status == "running":
        if url is None:
            reason = "it has no public address yet"
        elif answers is None:
            state, reason = State.UNKNOWN, None  # a list: whether its port answers was not tried
        else:
            state, reason = (State.READY, None) if answers else (State.STARTING, "its port does not answer yet")
    return DeploymentInfo(
        provider=PROVIDER,
        provider_name=known[0] if known else wire.label or str(wire.id),
        id=str(wire.id),
        ids={"instance": str(wire.id)},
        state=state,
        raw_state=wire.actual_status,
        reason=reason,
        kind="pod",
        workers=(1, 1),
        ready_workers=1 if state is State.READY else 0,
        url=url,
        created_at=wire.start_date,
        rate=Rate(idle_per_hour=wire.dph_total, max_per_hour=wire.dph_total, source="the instance's own price"),
        bills="storage, at its host's price, until it is deleted; its GPU may be gone when it is started again",
        ours=known is not None,
        **translate.stated(replace(tags, attempt=tags.attempt or (known[1] if known else None)), "http"),
    )


def found_instance(wire: InstanceWire) -> Found:
    return found_of("instance", instance_info(wire))


def instance_worker(wire: InstanceWire, state: State) -> Worker:
    by_state = {
        State.READY: WorkerState.IDLE, State.STARTING: WorkerState.STARTING, State.STOPPED: WorkerState.STOPPED,
        State.FAILED: WorkerState.FAILED,
    }  # fmt: skip
    memory = None if wire.gpu_ram is None else wire.gpu_ram / 1000
    return Worker(
        id=str(wire.id),
        state=by_state.get(state, WorkerState.UNKNOWN),
        raw_state=wire.actual_status,
        reason=instance_state(wire)[1],
        gpu=None if wire.gpu_name is None else canonical(PROVIDER, wire.gpu_name, memory_gb=memory) or wire.gpu_name,
        gpu_count=wire.num_gpus,
        region=country(wire.geolocation),
        started_at=wire.start_date,
        price_per_hour=wire.dph_total,
    )
