"""What a serverless deployment consists of at Vast: a template (what runs), an endpoint (the limits, and what is
called), a workergroup (what may be rented). Created in that order, ended in reverse.

Vast has no idempotency key, makes the ids, and shows by listing what exists. How soon is not documented; its own tools
look for up to a minute, so the settle window is one (unverified).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from unigpu.driver import (
    CallClass,
    Consistency,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    Tags,
    found_of,
    is_rehearsal,
    mapping,
    parse,
    shaped,
)
from unigpu.errors import ConflictError, InvalidRequestError, InvalidResponseError, NotFoundError, UniGPUError

from . import bodies, ending, translate
from .api import VastAPI
from .market import contradicts, of_spec
from .wire import PROVIDER, EndpointWire, GroupWire, ResultWire, TemplateWire

LISTED: Final = Consistency(kind="listed", settle=60.0)
_TAKEN: Final = ("already exist", "already in use", "already has", "duplicate")


_STILL_S: Final = 5.0


@dataclass(slots=True)
class ListCache:
    """The lists that parts of one deployment read for each other: each list has an interval of seconds at Vast, and an
    endpoint is described by three of them.

    What *exists* is read by each part's own `find`. A list that a neighbour read moments before describes what stands
    beside it, and is its own find where it was read since the last one (`handed`). Any write forgets both.
    """

    templates: tuple[float, Sequence[TemplateWire]] | None = None
    groups: tuple[float, Sequence[GroupWire]] | None = None
    handed: bool = False
    hashes: dict[str, str] = field(default_factory=dict[str, str])

    def forget(self) -> None:
        self.templates = self.groups = None
        self.handed = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VastResource:
    """What the parts have in common. *spec* and *identity* are there where it may be created."""

    api: VastAPI
    name: str
    lists: ListCache = field(default_factory=ListCache)
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    call: CallClass = CallClass.RECONCILE
    consistency: Consistency = LISTED
    bills_cold: str | None = None
    optional: bool = False

    def made_from(self) -> tuple[DeploymentSpec, Identity]:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        return self.spec, self.identity

    @property
    def label(self) -> str | None:
        return None if self.spec is None else self.spec.name

    async def templates(self, io: Io, *, deadline: float) -> Sequence[TemplateWire]:
        """Those of this name, as they are now."""
        self.lists.templates = None
        found = await self.api.templates(io, [self.name], deadline=deadline)
        self.lists.templates = io.now(), found
        return found

    async def groups(self, io: Io, *, deadline: float) -> Sequence[GroupWire]:
        """All of the account, as they are now."""
        self.lists.groups = None
        found = await self.api.groups(io, deadline=deadline)
        self.lists.groups = io.now(), found
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TemplateResource(VastResource):
    """It carries all that another process must know, in its variables."""

    kind: str = "template"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        return [translate.found_template(one) for one in await self.templates(io, deadline=deadline)]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """One that is identical is given back, with ``success: false`` beside it: it is the same."""
        spec, identity = self.made_from()
        if not is_rehearsal(io):
            bodies.must_be_sendable(spec)
        body = bodies.template_body(spec, identity, engine=self.api.engine)
        self.lists.forget()
        reply = await self.api.send(
            io, "POST", "/api/v0/template/", "template.create", json=body, role="create", call=self.call,
            deadline=deadline, deployment=self.label,
        )  # fmt: skip
        data: object = reply.json()
        told = mapping(mapping(data).get("template"))
        if not told:
            raise InvalidResponseError(
                f"{reply.operation}: Vast's reply shows no template",
                provider=PROVIDER,
                operation=reply.operation,
                deployment=spec.name,
                maybe_executed=True,
            )
        wire = shaped(TemplateWire, {"name": identity.provider_name, **told}, reply.operation)
        if wire.hash_id is not None:
            self.lists.hashes[str(wire.id)] = wire.hash_id
        return Found(
            kind=self.kind,
            id=str(wire.id),
            name=identity.provider_name,
            attempt=identity.attempt,
            spec_hash=identity.spec_hash,
            created_at=wire.created_at,
        )

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        found = await self.templates(io, deadline=deadline)
        return next((translate.found_template(one) for one in found if str(one.id) == id), None)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        self.lists.forget()
        try:
            await self.api.send(
                io, "DELETE", "/api/v0/template/", "template.delete", json={"template_id": int(id)}, deadline=deadline
            )
        except NotFoundError:
            return  # it is gone already


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResource(VastResource):
    """The limits, and the name that calls are routed by."""

    kind: str = "endpoint"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        endpoints = await self.api.endpoints(io, deadline=deadline)
        mine = [one for one in endpoints if (translate.untag(one.endpoint_name) or ("",))[0] == self.name]
        return [] if not mine else await self._shown(io, mine, deadline=deadline)

    async def _shown(self, io: Io, wires: Sequence[EndpointWire], *, deadline: float) -> list[Found]:
        since = io.now() - _STILL_S
        lists = self.lists
        if lists.groups is None or lists.groups[0] < since:
            await self.groups(io, deadline=deadline)
            lists.handed = True
        if lists.templates is None or lists.templates[0] < since:
            await self.templates(io, deadline=deadline)
        templates, groups = lists.templates, lists.groups
        if templates is None or groups is None:
            raise AssertionError("both were read")
        return [found_of("endpoint", shown(one, templates[1], groups[1])) for one in wires]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Without load and without machines to keep.

        Raises:
            ConflictError: there is one of this name: this very attempt's, by an answer that was lost.
        """
        spec, identity = self.made_from()
        body = bodies.endpoint_body(spec, identity)
        self.lists.forget()
        try:
            reply = await self.api.send(
                io, "POST", "/api/v0/endptjobs/", "endpoint.create", json=body, role="create", call=self.call,
                deadline=deadline, deployment=self.label,
            )  # fmt: skip
        except InvalidRequestError as exc:
            if not any(words in exc.message.lower() for words in _TAKEN):
                raise
            raise ConflictError(exc.message, status=exc.status, provider=PROVIDER, maybe_executed=False) from exc
        wire = parse(ResultWire, reply)
        id_ = wire.result if wire.result is not None else wire.id
        if id_ is None:
            raise _no_id(reply.operation, spec.name)
        seen = EndpointWire.model_validate(
            {
                "id": id_, "endpoint_name": body["endpoint_name"], "endpoint_state": "active", "min_load": 0.0,
                "cold_workers": 0, "max_workers": body["max_workers"], "target_queue_time": body["target_queue_time"],
                "inactivity_timeout": body["inactivity_timeout"],
            }
        )  # fmt: skip
        tags = Tags.read(bodies.env_of(spec, identity))
        info = translate.endpoint_info(seen, template=None, group=None, workers=(), tags=tags)
        ids = {kind: one.id for kind, one in made.items()} | {self.kind: str(id_)}
        return found_of("endpoint", info.model_copy(update={"ids": ids}))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await self.api.endpoint(io, id, deadline=deadline)
        return None if wire is None else (await self._shown(io, [wire], deadline=deadline))[0]

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """With its workergroups and workers, by Vast's word; that its machines are gone is looked at besides."""
        self.lists.forget()
        await ending.end(self.api, io, f"/api/v0/endptjobs/{id}/", "endpoint.delete", id, deadline=deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupResource(VastResource):
    """What may be rented, at which price."""

    kind: str = "workergroup"
    bills_cold: str | None = "perhaps one machine, which an older service rents to measure it"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        last, handed = self.lists.groups, self.lists.handed
        self.lists.handed = False
        if last is None or not handed or last[0] < io.now() - _STILL_S:
            rows = await self.groups(io, deadline=deadline)
        else:
            rows = last[1]
        return [found for one in rows if (found := translate.found_group(one)).name == self.name]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """By the endpoint's id, never its name: with an unknown name Vast makes an endpoint of its own.

        Raises:
            InvalidResponseError: Vast understood another price than was asked.
        """
        spec, identity = self.made_from()
        template = made["template"]
        told = self.lists.hashes.get(template.id)
        if told is None:
            known = await self.templates(io, deadline=deadline)
            told = next((one.hash_id for one in known if str(one.id) == template.id), None)
        body = bodies.group_body(spec, endpoint=made["endpoint"].id, template=template.id, template_hash=told)
        self.lists.forget()
        reply = await self.api.send(
            io, "POST", "/api/v0/workergroups/", "workergroup.create", json=body, role="create", call=self.call,
            deadline=deadline, deployment=self.label,
        )  # fmt: skip
        wire = parse(ResultWire, reply)
        id_ = wire.id if wire.id is not None else wire.result
        if id_ is None:
            raise _no_id(reply.operation, spec.name)
        return Found(kind=self.kind, id=str(id_), name=self.name, attempt=identity.attempt)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        found = await self.groups(io, deadline=deadline)
        return next((translate.found_group(one) for one in found if str(one.id) == id), None)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        self.lists.forget()
        await ending.end(
            self.api, io, f"/api/v0/workergroups/{id}/", "workergroup.delete", id, group=True, deadline=deadline
        )  # fmt: skip


# -- what several of them do ------------------------------------------------------------------------------------------


def shown(wire: EndpointWire, templates: Sequence[TemplateWire], groups: Sequence[GroupWire]) -> Any:
    """An endpoint with what stands beside it, as a deployment."""
    group = next((one for one in groups if one.endpoint_id == wire.id), None)
    return translate.endpoint_info(wire, template=translate.its_template(wire, templates, group), group=group)


def must_be_capped(spec: DeploymentSpec, group: GroupWire | None, *, endpoint: str | None = None) -> None:
    """Before anything is rented; or after a change of *endpoint*, whose workers run.

    Raises:
        InvalidResponseError: what Vast made of the search lets dearer machines in than was asked.
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
            hint=endpoint and "Machines that it rents from now on may be dearer: scale it to (0, 1), or tear it down.",
        )


def _no_id(operation: str, name: str) -> UniGPUError:
    return InvalidResponseError(
        f"{operation}: Vast's reply has no id",
        provider=PROVIDER,
        operation=operation,
        deployment=name,
        maybe_executed=True,
    )
