"""What a deployment consists of: an endpoint or a pod, and the login of a private registry where one is given.

Nothing can be created cold: an endpoint has at least one worker, and bills from RUNNING. So a lost answer is looked for
longer than elsewhere, and an endpoint is stopped before it is deleted (deleting a running one is refused: 24002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import CallClass, Consistency, DeploymentInfo, DeploymentSpec, Found, Identity, Io, State
from unigpu.errors import (
    APIStatusError,
    ConflictError,
    InvalidResponseError,
    NameConflict,
    NoCapacityError,
    NotFoundError,
    UniGPUError,
)

from . import _known, bodies, gpus, translate
from .api import CREDENTIAL, ENDPOINT, NO_ROUTE, PATHS, POD, PROVIDER, YottaAPI, kind_of
from .options import Options, SpecOptions
from .wire import CredentialWire, EndpointWire, PodWire, StockWire, rows, shaped

_MODELS: Final[Mapping[str, type[EndpointWire | PodWire | CredentialWire]]] = {
    ENDPOINT: EndpointWire,
    POD: PodWire,
    CREDENTIAL: CredentialWire,
}
_BILLS: Final[Mapping[str, str]] = {
    ENDPOINT: "all its workers, from RUNNING",
    POD: "its GPUs and disk, from RUNNING",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: found in a list by name, read and deleted by id. Creating one twice makes two."""

    api: YottaAPI
    options: Options
    kind: str
    name: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    known: _known.Known = _known.NOTHING
    optional: bool = False
    call: CallClass = CallClass.RECONCILE

    @property
    def consistency(self) -> Consistency:
        return Consistency(kind="listed", settle=self.options.settle)

    @property
    def bills_cold(self) -> str | None:
        return _BILLS.get(self.kind)

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        return [one for one in await self._all(io, deadline=deadline) if one.name == self.name]

    async def _all(self, io: Io, *, deadline: float) -> Sequence[Found]:
        what = f"{self.kind}.list"
        data = await self.api.listed(io, PATHS[self.kind], what, deadline=deadline)
        found = [self.found(row) for row in rows(_MODELS[self.kind], data, what)]
        return [one for one in found if not _is_over(one)]

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        what = f"{self.kind}.get"
        try:
            data = await self.api.send(io, "GET", f"{PATHS[self.kind]}/{id}", what, deadline=deadline)
        except NotFoundError as exc:
            return await self._listed(io, id, deadline=deadline) if exc.status == NO_ROUTE else None
        found = self.found(self.shaped(data, what))
        return None if _is_over(found) else found

    async def _listed(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """After a "not found" that is not in Yotta's words: a proxy may say so of what exists and bills. The list
        decides."""
        return next((one for one in await self._all(io, deadline=deadline) if one.id == id), None)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it; an endpoint that runs is told to stop, and has to be asked again.

        Raises:
            ConflictError: it is not stopped yet, or (a login) still used.
        """
        try:
            if self.kind == ENDPOINT and not await self._may_be_deleted(io, id, deadline=deadline):
                await self._stop(io, id, deadline=deadline)
            try:
                await self.api.send(io, "DELETE", f"{PATHS[self.kind]}/{id}", f"{self.kind}.delete", deadline=deadline)
            except ConflictError:
                if self.kind == ENDPOINT:
                    await self._stop(io, id, deadline=deadline)  # a failed one that has to be stopped first
                raise
        except NotFoundError:
            return  # it is gone already

    async def _may_be_deleted(self, io: Io, id: str, *, deadline: float) -> bool:
        now = await self.read(io, id, deadline=deadline)
        return now is None or now.info is None or now.info.state in (State.STOPPED, State.FAILED)

    async def _stop(self, io: Io, id: str, *, deadline: float) -> None:
        """Tell it to stop.

        Raises:
            ConflictError: always; it is not stopped yet.
        """
        await stop(self.api, io, id, deadline=deadline)
        raise ConflictError(
            f"{self.name} is stopping", provider=PROVIDER, operation="yotta.endpoint.delete", maybe_executed=False
        )

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        own = SpecOptions.model_validate(dict(self.spec.options(PROVIDER)))
        if self.kind == CREDENTIAL:
            return await self._post(io, bodies.credential_body(self.name, self.spec), deadline=deadline)
        login = made.get(CREDENTIAL)
        stored = None if own.credential_id is None else str(own.credential_id)
        about: dict[str, Any] = {
            "options": self.options,
            "own": own,
            "credential": stored if login is None else login.id,
        }
        codes = gpus.gpu_codes(self.spec, self.options.prices)
        count = gpus.gpu_count(self.spec)
        stock = await self._stock(io, own, deadline=deadline)
        places = bodies.placement(codes, count, stock, own.regions)
        if not places:
            raise _no_capacity(self.spec, stock)
        await self._must_be_free(io, deadline=deadline)
        if self.kind == ENDPOINT:
            body = bodies.endpoint_body(self.spec, self.identity, places, **about)
            return await self._post(io, body, deadline=deadline)
        return await self._create_pod(io, places, about, deadline=deadline)

    async def _must_be_free(self, io: Io, *, deadline: float) -> None:
        """A name is one deployment, whatever its kind.

        Raises:
            NameConflict: it is a pod's, where an endpoint is wanted, or the other way round.
        """
        other = replace(self, kind=POD if self.kind == ENDPOINT else ENDPOINT)
        taken = await other.find(io, deadline=deadline)
        if taken:
            name = self.name if self.identity is None else self.identity.name
            raise NameConflict(
                f"{name} exists on yotta as a {other.kind} ({taken[0].id})",
                provider=PROVIDER,
                deployment=name,
                fields=("kind",),
                hint="Tear it down first, or choose another name; nothing was touched.",
            )

    async def _create_pod(
        self, io: Io, places: Sequence[Mapping[str, Any]], about: Mapping[str, Any], *, deadline: float
    ) -> Found:
        """A pod has one GPU type: the acceptable ones are tried in their order."""
        spec, identity = self.spec, self.identity
        if spec is None or identity is None:
            raise AssertionError("unreachable: create_cold has checked both")
        codes = list(dict.fromkeys(str(place["gpuType"]) for place in places))
        for code in codes:
            regions = [str(place["region"]) for place in places if place["gpuType"] == code]
            body = bodies.pod_body(spec, identity, code, regions, **about)
            try:
                return await self._post(io, body, deadline=deadline)
            except NoCapacityError:
                if code == codes[-1]:
                    raise
        raise AssertionError("unreachable: the last one returns or raises")

    async def _post(self, io: Io, body: Mapping[str, Any], *, deadline: float) -> Found:
        what = f"{self.kind}.create"
        try:
            data = await self.api.send(
                io,
                "POST",
                PATHS[self.kind],
                what,
                json=body,
                role="create",
                call=self.call,
                deadline=deadline,
                hide=() if self.spec is None else _secrets(self.spec),
            )
        except NotFoundError as exc:  # the route is gone: nothing was made
            raise InvalidResponseError(
                exc.message, provider=PROVIDER, operation=exc.operation, maybe_executed=False
            ) from exc
        except APIStatusError as exc:
            exc.deployment = None if self.identity is None else self.identity.name
            raise
        if isinstance(data, int | str) and not isinstance(data, bool):  # the older API answered with the id alone
            return await self._made(io, str(data), deadline=deadline)
        return self._fresh(self.found(self.shaped(data, what)))

    async def _made(self, io: Io, id: str, *, deadline: float) -> Found:
        try:
            now = await self.read(io, id, deadline=deadline)
        except UniGPUError as exc:
            exc.maybe_executed = True  # it exists, whatever became of the look at it
            raise
        if now is None:
            raise InvalidResponseError(
                f"{self.kind} {id} was created and is not found", provider=PROVIDER, maybe_executed=True
            )
        return self._fresh(now)

    def _fresh(self, found: Found) -> Found:
        """What this call made is what it asked for, also where the platform shows no environment."""
        if found.info is None or self.identity is None:
            return found
        ends = self.identity.expires_at if found.expires_at is None else found.expires_at
        info = found.info.model_copy(update={"expires_at": ends, "assumed": ()})
        return replace(found, expires_at=ends, info=info)

    async def _stock(self, io: Io, own: SpecOptions, *, deadline: float) -> Sequence[StockWire]:
        """Which GPU is available where, now; not asked where the regions are given."""
        return () if own.regions is not None else await gpus.stock(self.api, io, deadline=deadline)

    def shaped(self, data: object, operation: str) -> EndpointWire | PodWire | CredentialWire:
        return shaped(_MODELS[self.kind], data, operation)

    def found(self, wire: EndpointWire | PodWire | CredentialWire) -> Found:
        if isinstance(wire, EndpointWire):
            return translate.found_endpoint(wire, self.api.base, self.options, self.known)
        if isinstance(wire, PodWire):
            return translate.found_pod(wire, self.options, self.known)
        return Found(kind=self.kind, id=wire.id, name=wire.name, created_at=wire.created_at)


async def read(
    api: YottaAPI, options: Options, io: Io, info: DeploymentInfo, *, deadline: float
) -> DeploymentInfo | None:
    """*info* as it is now; what Yotta does not show, as *info* has it."""
    part = Part(api=api, options=options, kind=kind_of(info), name=info.provider_name, known=_known.by_info(info))
    found = await part.read(io, info.id, deadline=deadline)
    if found is None or found.info is None:
        return None
    now = found.info
    if now.expires_at is None and info.id == now.id:
        now = now.model_copy(update={"expires_at": info.expires_at})
    return now


async def stop(api: YottaAPI, io: Io, id: str, *, deadline: float) -> None:
    """Tell an endpoint to stop. One that stops or has stopped refuses that, which is as good."""
    try:
        path = f"{PATHS[ENDPOINT]}/{id}/stop"
        await api.send(io, "POST", path, "endpoint.stop", json={}, deadline=deadline)
    except ConflictError:
        return  # the next look tells


def of_spec(api: YottaAPI, options: Options, spec: DeploymentSpec, identity: Identity) -> Sequence[Part]:
    """The parts of a new one, in the order of creation."""
    kinds = [POD if spec.kind == "pod" else ENDPOINT]
    if spec.registry is not None:
        kinds.insert(0, CREDENTIAL)
    known = _known.by_spec(identity)
    return tuple(
        Part(
            api=api,
            options=options,
            kind=kind,
            name=identity.provider_name,
            spec=spec,
            identity=identity,
            known=known,
        )
        for kind in kinds
    )


def _secrets(spec: DeploymentSpec) -> tuple[str, ...]:
    """What a create sends, and no error may show."""
    values = [one for one in spec.secrets.values() if isinstance(one, SecretStr)]
    if spec.registry is not None:
        values.append(spec.registry.password)
    return tuple(value.get_secret_value() for value in values)


def _is_over(found: Found) -> bool:
    """What is terminated stays listed for a while; nobody can bring it back."""
    return found.info is not None and found.info.state is State.GONE


def _no_capacity(spec: DeploymentSpec, seen: Sequence[StockWire]) -> NoCapacityError:
    there = sorted({row.gpu_type for row in seen if any(place.available for place in row.regions)})
    return NoCapacityError(
        f"none of the GPUs of {spec.name} is available on Yotta now; it lists: {', '.join(there) or 'none'}",
        provider=PROVIDER,
        deployment=spec.name,
        maybe_executed=False,
        hint="Accept more GPUs, or try later. The list is of virtual machines' stock: "
        'provider_options={"yotta": {"regions": [...]}} asks regions whatever it says.',
    )
