"""The resources of a serverless deployment: a template (what runs), an endpoint (the limits, and what is called), a
workergroup (what may be rented). Created in that order, deleted in reverse.

Vast has no idempotency key, makes the ids, and shows by listing what exists. How soon is not documented; its own tools
search for up to a minute, so the settle window is one (unverified).

Whether deleting an endpoint or a workergroup destroys every machine of it is stated in three ways by Vast's documents
and tools, and a machine that was missed is billed on. So the ids of the machines are remembered first, and searched for
afterwards, twice: one may have been rented while the others went. https://docs.vast.ai/guides/serverless (worker
states), https://github.com/vast-ai/docs/pull/915.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from unigpu.driver import (
    BaseResource,
    Consistency,
    Found,
    Io,
    Response,
    Tags,
    found_of,
    is_rehearsal,
    items,
    mapping,
    parse,
    shaped,
)
from unigpu.errors import (
    AuthenticationError,
    ConflictError,
    DeadlineExceeded,
    InvalidRequestError,
    InvalidResponseError,
    NotFoundError,
)

from . import bodies, translate
from .api import VastAPI
from .wire import PROVIDER, EndpointWire, GroupWire, ResultWire, TemplateWire

_LISTED: Final = Consistency(kind="listed", settle=60.0)
_TAKEN: Final = ("already exist", "already in use", "already has", "duplicate")
_FRESH_S: Final = 5.0
_PASSES: Final = 2
_PASS_S: Final = 2.0
_LONGEST_S: Final = 10.0


@dataclass(slots=True)
class ListCache:
    """The lists that resources of one deployment read for each other: each list has an interval of seconds at Vast, and
    an endpoint is described by three of them.

    What *exists* is read by each resource's own `find`. A list that a neighbour read moments before describes what
    stands beside it, and is its own find where it was read since the last one (`handed`). Any write forgets both.
    """

    templates: tuple[float, Sequence[TemplateWire]] | None = None
    groups: tuple[float, Sequence[GroupWire]] | None = None
    handed: bool = False
    hashes: dict[str, str] = field(default_factory=dict[str, str])

    def forget(self) -> None:
        self.templates = self.groups = None
        self.handed = False


@dataclass(frozen=True, kw_only=True)
class VastResource(BaseResource):
    """What Vast's resources have in common."""

    api: VastAPI
    lists: ListCache = field(default_factory=ListCache)
    consistency: Consistency = _LISTED

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


@dataclass(frozen=True, kw_only=True)
class _RentingResource(VastResource):
    """One that Vast rents machines for."""

    path: ClassVar[str]
    is_group: ClassVar[bool] = False

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it and all of its machines. One that is gone already is success.

        Raises:
            DeadlineExceeded: machines of it are still there; `may_bill` names them.
        """
        self.lists.forget()
        machines = await self._workers(io, id, deadline=deadline)
        with contextlib.suppress(NotFoundError):
            reply = await self.api.send(io, "DELETE", f"{self.path}{id}/", f"{self.kind}.delete", deadline=deadline)
            machines |= _machines_in(reply)
        passes, pause = 0, _PASS_S
        while machines and passes < _PASSES:
            machines |= await self._workers(io, id, deadline=deadline)
            there = {one.id for one in await self.api.instances(io, deadline=deadline)} & machines
            for one in sorted(there):
                await destroy(self.api, io, str(one), deadline=deadline)
            passes = 0 if there else passes + 1
            if passes < _PASSES:
                if io.now() + pause >= deadline:
                    raise _left(there or machines, f"vast.{self.kind}.delete")
                await io.sleep(pause)
                pause = min(pause * 1.5, _LONGEST_S)

    async def _workers(self, io: Io, id: str, *, deadline: float) -> set[int]:
        try:
            return {one.id for one in await self.api.workers(io, id, group=self.is_group, deadline=deadline)}
        except (NotFoundError, AuthenticationError, InvalidRequestError):
            # The engine does not know it (any more): an endpoint's own key ends with it. The delete names its machines,
            # too, and refuses a key that is really wrong.
            return set()


@dataclass(frozen=True, kw_only=True)
class TemplateResource(VastResource):
    """It carries all that another process must know, in its variables."""

    path: ClassVar[str] = "/api/v0/template/"
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
        reply = await self.post(io, self.path, body, deadline=deadline)
        data: object = reply.json()
        shown = mapping(mapping(data).get("template"))
        if not shown:
            raise _incomplete(reply, "shows no template", spec.name)
        wire = shaped(TemplateWire, {"name": identity.provider_name, **shown}, reply.operation)
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
        return next((one for one in await self.find(io, deadline=deadline) if one.id == id), None)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        self.lists.forget()
        try:
            await self.api.send(
                io, "DELETE", self.path, "template.delete", json={"template_id": int(id)}, deadline=deadline
            )
        except NotFoundError:
            return  # it is gone already


@dataclass(frozen=True, kw_only=True)
class EndpointResource(_RentingResource):
    """The limits, and the name that calls are routed by."""

    path: ClassVar[str] = "/api/v0/endptjobs/"
    kind: str = "endpoint"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        endpoints = await self.api.endpoints(io, deadline=deadline)
        mine = [one for one in endpoints if (translate.untag(one.endpoint_name) or ("",))[0] == self.name]
        return [] if not mine else await self._described(io, mine, deadline=deadline)

    async def _described(self, io: Io, wires: Sequence[EndpointWire], *, deadline: float) -> list[Found]:
        since = io.now() - _FRESH_S
        lists = self.lists
        if lists.groups is None or lists.groups[0] < since:
            await self.groups(io, deadline=deadline)
            lists.handed = True
        if lists.templates is None or lists.templates[0] < since:
            await self.templates(io, deadline=deadline)
        templates, groups = lists.templates, lists.groups
        if templates is None or groups is None:
            raise AssertionError("both were read")
        return [found_of(self.kind, translate.endpoint_among(one, templates[1], groups[1])) for one in wires]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Without load and without machines to keep.

        Raises:
            ConflictError: there is one of this name: this very attempt's, by an answer that was lost.
        """
        spec, identity = self.made_from()
        body = bodies.endpoint_body(spec, identity)
        self.lists.forget()
        try:
            reply = await self.post(io, self.path, body, deadline=deadline)
        except InvalidRequestError as exc:
            if not any(words in exc.message.lower() for words in _TAKEN):
                raise
            raise ConflictError(exc.message, status=exc.status, provider=PROVIDER, maybe_executed=False) from exc
        wire = parse(ResultWire, reply)
        id_ = wire.result if wire.result is not None else wire.id
        if id_ is None:
            raise _incomplete(reply, "has no id", spec.name)
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
        return found_of(self.kind, info.model_copy(update={"ids": ids}))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await self.api.endpoint(io, id, deadline=deadline)
        return None if wire is None else (await self._described(io, [wire], deadline=deadline))[0]

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """With its workergroups and workers, as Vast says; that its machines are gone is checked as well."""
        await super().delete(io, id, deadline=deadline)
        self.api.own.pop(id, None)  # its key ended with it


@dataclass(frozen=True, kw_only=True)
class GroupResource(_RentingResource):
    """What may be rented, at which price."""

    path: ClassVar[str] = "/api/v0/workergroups/"
    is_group: ClassVar[bool] = True
    kind: str = "workergroup"
    bills_cold: str | None = "perhaps one machine, which an older service rents to measure it"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        last, handed = self.lists.groups, self.lists.handed
        self.lists.handed = False
        if last is None or not handed or last[0] < io.now() - _FRESH_S:
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
        hash_id = self.lists.hashes.get(template.id)
        if hash_id is None:
            known = await self.templates(io, deadline=deadline)
            hash_id = next((one.hash_id for one in known if str(one.id) == template.id), None)
        body = bodies.group_body(spec, endpoint=made["endpoint"].id, template=template.id, template_hash=hash_id)
        self.lists.forget()
        reply = await self.post(io, self.path, body, deadline=deadline)
        wire = parse(ResultWire, reply)
        id_ = wire.id if wire.id is not None else wire.result
        if id_ is None:
            raise _incomplete(reply, "has no id", spec.name)
        return Found(kind=self.kind, id=str(id_), name=self.name, attempt=identity.attempt)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        found = await self.groups(io, deadline=deadline)
        return next((translate.found_group(one) for one in found if str(one.id) == id), None)


async def destroy(api: VastAPI, io: Io, id: str, *, deadline: float) -> None:
    """Destroy one instance; its disk goes with it. One that is gone already is success."""
    with contextlib.suppress(NotFoundError):
        await api.send(io, "DELETE", f"/api/v0/instances/{id}/", "instance.delete", json={}, deadline=deadline)


def _machines_in(reply: Response) -> set[int]:
    """The machines that the reply to a delete names."""
    body: object = reply.json() if reply.content else None
    named = [one for key in ("deleted_workers", "failed_workers") for one in items(mapping(body).get(key))]
    return {one for one in named if isinstance(one, int) and not isinstance(one, bool)}


def _left(ids: Iterable[int], operation: str) -> DeadlineExceeded:
    names = tuple(f"instance {one}" for one in sorted(ids))
    return DeadlineExceeded(
        f"machines of it may still be there: {', '.join(names)}",
        provider=PROVIDER,
        operation=operation,
        maybe_executed=True,
        may_bill=names,
        hint="Tear it down again, or destroy them in Vast's console.",
        stop_reason="deadline",
    )


def _incomplete(reply: Response, what: str, name: str) -> InvalidResponseError:
    return InvalidResponseError(
        f"{reply.operation}: Vast's reply {what}",
        provider=PROVIDER,
        operation=reply.operation,
        deployment=name,
        maybe_executed=True,
    )
