"""A pod at Vast: one rented machine. Found by its label, rented from an offer, called at its public port.

An offer may be taken by somebody else between the search and the rental: that is normal, and the next one is tried. A
rental is never sent again by itself: after an unclear answer the label is looked for.
https://docs.vast.ai/api-reference/instances/create-instance
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from unigpu.driver import CallClass, DeploymentInfo, Found, GPURequest, Io, Request, Response, is_rehearsal
from unigpu.errors import APIStatusError, InvalidResponseError, NoCapacityError, NotFoundError, TransportError

from . import bodies, ending, translate
from .api import Line, gone, no_capacity, no_offer
from .market import as_json, disk_of, machines, of_spec
from .options import SpecOptions
from .resources import Part
from .wire import PROVIDER, ContractWire, InstanceWire, OfferWire, items, mapping, rows_in, shaped

_PROBE_S: Final = 10.0
_MOST: Final = 64
_LEAVES: Final = 15
_LEAVE_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstancePart(Part):
    """The machine."""

    kind: str = "instance"
    bills_cold: str | None = "the machine, from its start, and its disk before"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        found = [translate.found_instance(one) for one in await self.line.instances(io, deadline=deadline) if one.label]
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
            self.line, io, as_json(of_spec(spec, options)), disk=disk_of(spec), limit=options.tries, deadline=deadline
        )
        offers = [one for one in offers if spec.max_price is None or one.dph_total <= spec.max_price]
        refused: list[str] = []
        for offer in offers[: options.tries]:
            try:
                return await self._rent(io, offer, deadline=deadline)
            except APIStatusError as exc:
                if not no_capacity(exc):
                    raise
                refused.append(f"offer {offer.id}: {exc.message}")
        raise no_offer(spec.name, len(refused), f" ({'; '.join(refused[:3])})" if refused else "")

    async def _rent(self, io: Io, offer: OfferWire, *, deadline: float) -> Found:
        """One rental. Whatever it answers, a contract in it is a machine that is billed: that is told first, and
        whether it runs is judged afterwards (`must_run`)."""
        spec, identity = self.made_from()
        request = Request(
            method="PUT",
            url=f"{self.line.console}/api/v0/asks/{offer.id}/",
            operation="vast.instance.create",
            headers=self.line.headers,
            json=bodies.instance_body(spec, identity),
            role="create",
            call=self.call,
            deadline=deadline,
            limit_key="vast.instance.create",
            deployment=spec.name,
        )
        reply = await io.send(request)
        contract = _contract(reply)
        if contract is None:
            self.line.checked(reply if reply.status >= 300 else replace(reply, status=400), spec.name)
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
        return translate.found_instance(wire)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await instance_of(self.line, io, id, deadline=deadline)
        return None if wire is None else translate.found_instance(wire)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await ending.destroy(self.line, io, id, deadline=deadline)


def _contract(reply: Response) -> int | None:
    """The contract that a reply names, whatever its status: ``success: false`` may have rented, too."""
    try:
        data: object = reply.json()
    except InvalidResponseError:
        if reply.status < 300:
            raise
        return None
    if not isinstance(mapping(data).get("new_contract"), int):
        return None
    return shaped(ContractWire, data, reply.operation).new_contract


async def instance_of(line: Line, io: Io, id: str, *, deadline: float) -> InstanceWire | None:
    """An instance by its id. One that was destroyed reads as ``{"instances": null}``, or as 404."""
    if not id.isdecimal():  # a plan's, of what is not made yet: Vast would call the request wrong
        return None
    try:
        reply = await line.done(
            io, "GET", f"/api/v0/instances/{id}/", "instance.get", params=(("owner", "me"),), deadline=deadline
        )
    except NotFoundError:
        return None
    data: object = reply.json()
    if "instances" not in mapping(data):
        raise InvalidResponseError(
            f"{reply.operation}: Vast's reply has no instance", provider=PROVIDER, operation=reply.operation
        )
    row = mapping(data)["instances"]
    if isinstance(row, list):
        row = next(iter(items(cast("object", row))), None)
    return None if row is None else shaped(InstanceWire, row, reply.operation)


async def must_run(line: Line, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """After a rental whose answer did not say that it runs: a stopped machine is started once.

    Raises:
        NoCapacityError: its GPU is somebody else's; the caller takes it back.
    """
    wire = await instance_of(line, io, info.id, deadline=deadline)
    if wire is None or "stopped" not in (wire.intended_status, wire.actual_status):
        return
    if not await start(line, io, info.id, deadline=deadline):
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


async def start(line: Line, io: Io, id: str, *, deadline: float) -> bool:
    """Ask for it to run; ``False``: its GPU is not free now, and Vast starts it when it is."""
    reply = await line.send(
        io, "PUT", f"/api/v0/instances/{id}/", "instance.put", json={"state": "running"}, deadline=deadline
    )
    body: Any = reply.json() if reply.content else {}
    return mapping(body).get("success") is not False


async def resume(line: Line, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """Start a stopped one, and see it leave its stop: an "exited" of before would be taken for a program that ended.

    Raises:
        DeploymentGone: there is none.
    """
    try:
        runs = await start(line, io, info.id, deadline=deadline)
    except NotFoundError as exc:
        raise gone(info, exc.operation) from exc
    for _ in range(_LEAVES if runs and not is_rehearsal(io) else 0):
        wire = await instance_of(line, io, info.id, deadline=deadline)
        if wire is None or wire.actual_status != "exited" or io.now() + _LEAVE_S >= deadline:
            return
        await io.sleep(_LEAVE_S)


async def probed(line: Line, io: Io, wire: InstanceWire, *, deadline: float) -> DeploymentInfo:
    """An instance with its port asked: Vast calls it running while its program still loads."""
    first = translate.instance_info(wire)
    if wire.actual_status != "running" or first.url is None or wire.intended_status == "stopped":
        return first
    request = Request(
        method="GET",
        url=f"{first.url}/",
        operation="vast.instance.probe.get",
        role="worker",
        call=CallClass.USER_DECIDES,  # the next look asks again
        deadline=min(deadline, io.now() + _PROBE_S),
        read_timeout=_PROBE_S,
        deployment=first.name,
        reroutes=True,  # that nobody listens yet is no news of the provider
        foreign=True,
    )
    try:
        async with io.stream(request) as reply:
            answers = reply.status not in (502, 503, 504)
    except TransportError:
        answers = False
    return translate.instance_info(wire, answers=answers)


async def search(
    line: Line, io: Io, conditions: Mapping[str, Any], *, disk: int, limit: int, deadline: float
) -> list[OfferWire]:
    """Offers on demand, the cheapest first; with the storage of *disk* GB in their price."""
    body = {
        **conditions,
        "order": [["dph_total", "asc"]],
        "type": "on-demand",
        "allocated_storage": disk,
        "limit": min(limit, _MOST),
    }
    reply = await line.done(io, "POST", "/api/v0/bundles/", "offers.search", json=body, deadline=deadline)
    rows = [shaped(OfferWire, row, reply.operation) for row in rows_in(reply, "offers")]
    return sorted(rows, key=lambda one: (one.dph_total, one.id))


async def offers(
    line: Line,
    io: Io,
    *,
    gpu: tuple[GPURequest, ...] | None,
    max_price: float | None,
    regions: tuple[str, ...] | None,
    deadline: float,
) -> list[OfferWire]:
    """What could be rented now, by the filters that a deployment would have: one search for each GPU asked for."""
    asked: list[tuple[GPURequest, ...] | None] = [None] if gpu is None else [(one,) for one in gpu]
    found: dict[int, OfferWire] = {}
    for one in asked:
        filters = as_json(machines(one, max_price=max_price, regions=regions, options=SpecOptions()))
        for wire in await search(line, io, filters, disk=10, limit=_MOST, deadline=deadline):
            found[wire.id] = wire
    return list(found.values())
