"""What a deployment consists of: an endpoint or a pod, and the login of a private registry where one is given.

Nothing can be created cold: an endpoint has at least one worker, and bills from RUNNING. So a create without an answer
is looked for longer than elsewhere, and an endpoint is stopped before it is deleted (Yotta refuses to delete a running
one: 24002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from pydantic import SecretStr

from unigpu.driver import (
    Consistency,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    ListedResource,
    State,
    Tags,
)
from unigpu.errors import ConflictError, InvalidResponseError, NoCapacityError, NotFoundError, UniGPUError

from . import bodies, gpus, translate
from .api import CREDENTIAL, ENDPOINT, NO_ROUTE, PATHS, POD, PROVIDER, YottaAPI, kind_of
from .options import SpecOptions
from .wire import CredentialWire, EndpointWire, PodWire, ResourceWire, StockWire


@dataclass(frozen=True, kw_only=True)
class YottaResource(ListedResource[ResourceWire]):
    """A resource of any kind."""

    api: YottaAPI

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """As `Resource.read`. After a "not found" that is not in Yotta's words the list decides: a proxy may say so of
        what exists and bills."""
        what = f"{self.kind}.get"
        try:
            reply = await self.api.send(io, "GET", self.path_of(id), what, deadline=deadline)
        except NotFoundError as exc:
            if exc.status != NO_ROUTE:
                return None
            listed = await replace(self, tag=None).all(io, deadline=deadline)
            return next((one for one in listed if one.id == id), None)
        found = self.shown(self.api.body_of(reply), what)
        return None if found.info is not None and found.info.state is State.GONE else found

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """As `Resource.create_cold`: the first of `candidates` that there is capacity for."""
        spec, identity = self.made_from()
        candidates = await self.candidates(io, spec, identity, made, deadline=deadline)
        for body in candidates:
            try:
                found = await self.create(io, body, deadline=deadline, hide=_secrets(spec))
            except NoCapacityError:
                if body is candidates[-1]:
                    raise
            except NotFoundError as exc:  # the route is gone: nothing was created
                raise InvalidResponseError(
                    exc.message, provider=PROVIDER, operation=exc.operation, maybe_executed=False
                ) from exc
            else:
                return _fresh(await self._whole(io, found, deadline=deadline), identity)
        raise AssertionError("unreachable: the last body returns or raises")

    async def candidates(
        self, io: Io, spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found], *, deadline: float
    ) -> Sequence[Mapping[str, Any]]:
        """The bodies of what may be created, the best first."""
        raise NotImplementedError

    def shown(self, row: object, operation: str) -> Found:
        """What a row shows. The older API answers a create with the id alone."""
        if operation.endswith(".create") and isinstance(row, int | str) and not isinstance(row, bool):
            return Found(kind=self.kind, id=str(row), name=self.name)
        return super().shown(row, operation)

    async def _whole(self, io: Io, found: Found, *, deadline: float) -> Found:
        """*found*, read where only its id is known."""
        if found.info is not None or self.kind == CREDENTIAL:
            return found
        try:
            now = await self.read(io, found.id, deadline=deadline)
        except UniGPUError as exc:
            exc.maybe_executed = True  # it exists, whatever became of the request that reads it
            raise
        if now is None:
            raise InvalidResponseError(
                f"{self.kind} {found.id} was created and is not found", provider=PROVIDER, maybe_executed=True
            )
        return now

    async def _places(
        self, io: Io, spec: DeploymentSpec, identity: Identity, own: SpecOptions, other: str, *, deadline: float
    ) -> list[dict[str, Any]]:
        """Where it may run now, if its name is free.

        Raises:
            NoCapacityError: nowhere.
            NameConflict: the name is taken by the *other* kind.
        """
        stock = () if own.regions is not None else await gpus.stock(self.api, io, deadline=deadline)
        codes = gpus.gpu_codes(spec, self.api.options.prices)
        places = bodies.placement(codes, gpus.gpu_count(spec), stock, own.regions)
        if not places:
            raise _no_capacity(spec, stock)
        there = _resource(other, self.api, self.name, spec=spec, identity=identity)
        await there.must_not_exist(io, deadline=deadline)
        return places


class EndpointResource(YottaResource):
    """Declared workers behind one name."""

    async def candidates(
        self, io: Io, spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found], *, deadline: float
    ) -> Sequence[Mapping[str, Any]]:
        """One: it names all acceptable GPUs."""
        own = SpecOptions.model_validate(dict(spec.options(PROVIDER)))
        places = await self._places(io, spec, identity, own, POD, deadline=deadline)
        login = _login(own, made)
        return (bodies.endpoint_body(spec, identity, places, options=self.api.options, own=own, credential=login),)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """As `Resource.delete`. One that runs is stopped, and has to be deleted again.

        Raises:
            ConflictError: it is not stopped yet.
        """
        now = await self.read(io, id, deadline=deadline)
        try:
            if now is not None and now.info is not None and now.info.state not in (State.STOPPED, State.FAILED):
                await self._stop(io, id, deadline=deadline)
            try:
                await super().delete(io, id, deadline=deadline)
            except ConflictError:
                await self._stop(io, id, deadline=deadline)  # a failed one that has to be stopped first
                raise
        except NotFoundError:
            return  # it is gone already

    async def _stop(self, io: Io, id: str, *, deadline: float) -> None:
        """Stop it. One that is stopping or stopped refuses that, which is as good.

        Raises:
            ConflictError: always; it is not stopped yet.
        """
        try:
            path = f"{self.path_of(id)}/stop"
            await self.api.send(io, "POST", path, "endpoint.stop", json={}, deadline=deadline)
        except ConflictError:
            pass  # the next read shows it
        raise ConflictError(
            f"{self.name} is stopping", provider=PROVIDER, operation="yotta.endpoint.delete", maybe_executed=False
        )


class PodResource(YottaResource):
    """One machine's share."""

    async def candidates(
        self, io: Io, spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found], *, deadline: float
    ) -> Sequence[Mapping[str, Any]]:
        """One for each acceptable GPU, in their order: a pod names one GPU."""
        own = SpecOptions.model_validate(dict(spec.options(PROVIDER)))
        places = await self._places(io, spec, identity, own, ENDPOINT, deadline=deadline)
        login = _login(own, made)
        regions: dict[str, list[str]] = {}
        for place in places:
            regions.setdefault(place["gpuType"], []).append(place["region"])
        return [
            bodies.pod_body(spec, identity, code, there, options=self.api.options, own=own, credential=login)
            for code, there in regions.items()
        ]


class CredentialResource(YottaResource):
    """The login of a private registry."""

    async def candidates(
        self, io: Io, spec: DeploymentSpec, identity: Identity, made: Mapping[str, Found], *, deadline: float
    ) -> Sequence[Mapping[str, Any]]:
        return (bodies.credential_body(self.name, spec),)


_KINDS: Final[Mapping[str, tuple[type[YottaResource], type[ResourceWire], str | None]]] = {
    ENDPOINT: (EndpointResource, EndpointWire, "all its workers, from RUNNING"),
    POD: (PodResource, PodWire, "its GPUs and disk, from RUNNING"),
    CREDENTIAL: (CredentialResource, CredentialWire, None),
}
"""Kind → its class, the shape of a row, and what it bills as created."""


def of_spec(api: YottaAPI, spec: DeploymentSpec, identity: Identity) -> Sequence[YottaResource]:
    """The resources of a new deployment, in the order of creation."""
    kinds = [POD if spec.kind == "pod" else ENDPOINT]
    if spec.registry is not None:
        kinds.insert(0, CREDENTIAL)
    more: dict[str, Any] = {"known": translate.of_any_create(identity), "spec": spec, "identity": identity}
    return tuple(_resource(kind, api, identity.provider_name, **more) for kind in kinds)


def of_name(api: YottaAPI, info: DeploymentInfo) -> Sequence[YottaResource]:
    """Every resource that may carry the name of *info*. Yotta does not show which kinds there are of it."""
    more: dict[str, Any] = {"known": Tags.of(info), "assumed": info.assumed, "optional": True}
    return tuple(_resource(kind, api, info.provider_name, **more) for kind in (CREDENTIAL, POD, ENDPOINT))


async def read(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    """*info* as it is now; what Yotta does not show, as *info* has it."""
    found = await _of_info(api, info).read(io, info.id, deadline=deadline)
    if found is None or found.info is None:
        return None
    now = found.info
    if now.expires_at is None and info.id == now.id:
        now = now.model_copy(update={"expires_at": info.expires_at})
    return now


async def must_exist(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo:
    """*info* as it is now, also what Yotta calls terminated.

    Raises:
        DeploymentGone: it does not exist.
    """
    operation = f"{kind_of(info)}.get"
    reply = await api.about(io, "GET", info, "", operation, deadline=deadline)
    found = _of_info(api, info).shown(api.body_of(reply), operation)
    return found.info or info


def _of_info(api: YottaAPI, info: DeploymentInfo) -> YottaResource:
    name = info.provider_name
    return _resource(kind_of(info), api, name, known=Tags.of(info), assumed=info.assumed)


def _resource(
    kind: str,
    api: YottaAPI,
    name: str,
    *,
    known: Tags = translate.UNKNOWN,
    assumed: tuple[str, ...] = translate.ASSUMED,
    **more: Any,
) -> YottaResource:
    made, shape, bills = _KINDS[kind]
    return made(
        api=api,
        kind=kind,
        name=name,
        path=PATHS[kind],
        shape=shape,
        found=partial(translate.found, base=api.base, options=api.options, known=known, assumed=assumed),
        consistency=Consistency(kind="listed", settle=api.options.settle),
        bills_cold=bills,
        **more,
    )


def _fresh(found: Found, identity: Identity) -> Found:
    """What this call created is what it asked for, also where Yotta shows no environment."""
    if found.info is None:
        return found
    ends = identity.expires_at if found.expires_at is None else found.expires_at
    info = found.info.model_copy(update={"expires_at": ends, "assumed": ()})
    return replace(found, expires_at=ends, info=info)


def _login(own: SpecOptions, made: Mapping[str, Found]) -> str | None:
    """The id of the stored login: the one that was just created, or the one that the spec names."""
    created = made.get(CREDENTIAL)
    if created is not None:
        return created.id
    return None if own.credential_id is None else str(own.credential_id)


def _secrets(spec: DeploymentSpec) -> tuple[str, ...]:
    """What a create sends, and no error may show."""
    values = [one for one in spec.secrets.values() if isinstance(one, SecretStr)]
    if spec.registry is not None:
        values.append(spec.registry.password)
    return tuple(value.get_secret_value() for value in values)


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
