"""What a deployment consists of at RunPod: its secrets (`secrets`), its registry login, its volume, and
what is called.

RunPod has no idempotency key, makes the ids, and shows by listing what exists; how soon is not documented, so all of it
is *listed* with a settle window of our own (unverified). What an endpoint stands on carries the create call's attempt
in its name: each deploy has its own, and one that gives up takes only its own back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from unigpu.driver import (
    CallClass,
    Consistency,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    is_ours,
    parse,
    provider_name,
    shaped,
)
from unigpu.errors import (
    ConflictError,
    NameConflict,
    NoCapacityError,
    NotFoundError,
    PayloadTooLarge,
    PermissionDeniedError,
)

from . import account, bodies, pods, translate
from .api import PAGES, RunPodAPI
from .gpus import (
    Product,
    best_place,
    candidates,
    catalogue_query,
    choose,
    count_of,
    countries_of,
    gpu_types,
    serverless_catalogue,
)
from .options import Options
from .wire import PROVIDER, DataCentersWire, EndpointWire, PodWire, RegistryWire, VolumeWire

_LISTED: Final = Consistency(kind="listed", settle=15.0)
_LARGEST: Final = 102_400
"""Bytes of a body: above it RunPod answers a pod's create with 413. Of an endpoint's nothing is said; it is held to it
too. https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPodResource:
    """What the parts have in common. *spec* and *identity* are there where it may be created."""

    api: RunPodAPI
    options: Options
    name: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    consistency: Consistency = _LISTED
    bills_cold: str | None = None
    optional: bool = False

    def made_from(self) -> tuple[DeploymentSpec, Identity]:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        return self.spec, self.identity

    async def _get(self, io: Io, path: str, operation: str, *, deadline: float) -> Any | None:
        try:
            return (await self.api.send(io, "GET", path, operation, deadline=deadline)).json()
        except NotFoundError:
            return None

    async def _delete(self, io: Io, path: str, operation: str, *, deadline: float) -> None:
        try:
            await self.api.send(io, "DELETE", path, operation, deadline=deadline)
        except NotFoundError:
            return  # it is gone already

    async def _must_be_free(self, io: Io, path: str, key: str, *, deadline: float) -> None:
        """A name is one deployment, an endpoint or a pod: before one is made, there must be none of the other kind.

        Raises:
            NameConflict: there is one.
        """
        rows = await self.api.rows(io, path, f"{key.removesuffix('s')}.list", under=key, pages=PAGES, deadline=deadline)
        taken = [row for row in rows if row.get("name") == self.name and row.get("status") != "TERMINATED"]
        if taken:
            what = "a pod" if key == "pods" else "an endpoint"
            raise NameConflict(
                f"{self._label} exists on RunPod as {what}",
                provider=PROVIDER,
                deployment=self._label,
                fields=("kind",),
                maybe_executed=False,
                hint="Choose another name, or tear that one down.",
            )

    def _must_fit(self, volume: Found | None, places: Sequence[str]) -> None:
        """A volume of its name may be older than the deployment: it must be as large, and where workers may be. RunPod
        itself would take the body, and never place a worker.

        Raises:
            NameConflict: it is smaller than what is asked for.
            NoCapacityError: it is in none of *places* (empty: anywhere).
        """
        if volume is None or not volume.shown:
            return  # a rehearsal's
        spec, _ = self.made_from()
        asked, size, place = spec.volumes[0], volume.shown["size_gb"], volume.shown["place"]
        common: dict[str, Any] = {"provider": PROVIDER, "deployment": spec.name, "maybe_executed": False}
        if size < asked.size_gb:
            raise NameConflict(
                f"the volume {asked.name} exists on RunPod with {size:g} GB, and {asked.size_gb} are asked for",
                fields=("volumes",),
                hint=f"Say size_gb={size:g}, let it grow in RunPod's console, or choose another name for it.",
                **common,
            )
        if places and place not in places:
            raise NoCapacityError(
                f"the volume {asked.name} is in {place}, and {spec.name} may run in {', '.join(places)} only: RunPod "
                "would place no worker",
                hint="Leave regions and data_centers out, or choose another name for the volume, which is made anew.",
                **common,
            )

    async def _post(self, io: Io, path: str, operation: str, body: object, *, deadline: float, call: CallClass) -> Any:
        size = len(json.dumps(body).encode())
        if size > _LARGEST:
            raise PayloadTooLarge(
                f"what RunPod is told of {self._label} has {size} bytes, and it takes {_LARGEST}: env is too large.",
                limit=_LARGEST,
                size=size,
                provider=PROVIDER,
                deployment=self._label,
                maybe_executed=False,
            )
        reply = await self.api.send(
            io, "POST", path, operation, json=body, role="create", call=call, deadline=deadline, deployment=self._label
        )
        return reply.json()

    @property
    def _label(self) -> str | None:
        return None if self.spec is None else self.spec.name


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointResource(RunPodResource):
    """A serverless endpoint: one call makes it, image and all."""

    kind: str = "endpoint"
    call: CallClass = CallClass.RECONCILE

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        rows = await self.api.rows(
            io, "/serverless", "endpoint.list", under="endpoints", pages=PAGES, deadline=deadline
        )
        return [self._found(row) for row in rows if row.get("name") == self.name]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, identity = self.made_from()
        await self._must_be_free(io, "/pods", "pods", deadline=deadline)
        await account.must_have_funds(self.api, self.options, io, deployment=spec.name, deadline=deadline)
        choice = choose(spec, await serverless_catalogue(self.api, io, spec, deadline=deadline))
        body = bodies.endpoint_body(spec, identity, choice, registry=_id(made, "registry"), volume=_id(made, "volume"))
        self._must_fit(made.get("volume"), body["dataCenterIds"])
        row = await self._post(io, "/serverless", "endpoint.create", body, deadline=deadline, call=self.call)
        return self._found(row, "endpoint.create")

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        row = await self._get(io, f"/serverless/{quote(id, safe='')}", "endpoint.get", deadline=deadline)
        return None if row is None else self._found(row, "endpoint.get")

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Its workers end, its queued and running jobs are cancelled; workers need not be set to none before."""
        await self._delete(io, f"/serverless/{quote(id, safe='')}", "endpoint.delete", deadline=deadline)

    def _found(self, row: object, operation: str = "endpoint.list") -> Found:
        return translate.found_endpoint(shaped(EndpointWire, row, f"runpod.{operation}"), self.options.lb_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodResource(RunPodResource):
    """A pod. RunPod takes one GPU type at a time, so what is acceptable is tried here, in its order."""

    kind: str = "pod"
    call: CallClass = CallClass.RECONCILE
    bills_cold: str | None = "the pod, from its start"

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        rows = await self.api.rows(io, "/pods", "pod.list", under="pods", pages=PAGES, deadline=deadline)
        found = [self._found(row) for row in rows if row.get("name") == self.name]
        return [one for one in found if one.info is None or one.info.raw_state != "TERMINATED"]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """The first that RunPod has: 400 and 409 mean the next one, 403 a cloud that the account may not use.

        Raises:
            NoCapacityError: none of them.
        """
        spec, identity = self.made_from()
        await self._must_be_free(io, "/serverless", "endpoints", deadline=deadline)
        await account.must_have_funds(self.api, self.options, io, deployment=spec.name, deadline=deadline)
        options, refused = bodies.options_of(spec), list[str]()
        self._must_fit(made.get("volume"), options.data_centers)
        for cloud in options.cloud:
            query = catalogue_query("POD", count=count_of(spec), cloud=cloud, countries=countries_of(spec.regions))
            catalogue = await gpu_types(self.api, io, query, deadline=deadline)
            for one in candidates(spec, catalogue, cloud):
                body = bodies.pod_body(spec, identity, one, registry=_id(made, "registry"), volume=_id(made, "volume"))
                try:
                    row = await self._post(io, "/pods", "pod.create", body, deadline=deadline, call=self.call)
                except (NoCapacityError, ConflictError, PermissionDeniedError) as exc:
                    refused.append(f"{one.type} ({cloud}): {exc.message}")
                    continue
                return self._found(row, "pod.create")
        why = f" ({'; '.join(refused[:3])})" if refused else ""
        raise NoCapacityError(
            f"RunPod has no pod for {spec.name} now: tried {len(refused)} kinds{why}.",
            provider=PROVIDER,
            operation="runpod.pod.create",
            deployment=spec.name,
            retryable=True,
            maybe_executed=False,
            hint="Accept more GPUs, a higher max_price, or strangers' hosts too: "
            'provider_options={"runpod": {"cloud": ["SECURE", "COMMUNITY"]}}.',
        )

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        row = await self._get(io, f"/pods/{quote(id, safe='')}", "pod.get", deadline=deadline)
        found = None if row is None else self._found(row, "pod.get")
        return None if found is None or (found.info and found.info.raw_state == "TERMINATED") else found

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await self._delete(io, f"/pods/{quote(id, safe='')}", "pod.delete", deadline=deadline)

    def _found(self, row: object, operation: str = "pod.list") -> Found:
        return pods.found_pod(shaped(PodWire, row, f"runpod.{operation}"), self.options.proxy_url)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryResource(RunPodResource):
    """The login of a private image registry, stored with RunPod."""

    kind: str = "registry"
    optional: bool = True
    call: CallClass = CallClass.RECONCILE

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        rows = await self.api.rows(
            io, "/registries", "registry.list", under="registries", pages=PAGES, deadline=deadline
        )
        found = [self._found(row, "registry.list") for row in rows]
        return [one for one in found if one.name == self.name]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, identity = self.made_from()
        if spec.registry is None:
            raise AssertionError("there is a login where this part is")
        body = {
            "name": f"{identity.provider_name}-{identity.attempt}",
            "username": spec.registry.username,
            "password": spec.registry.password.get_secret_value(),
        }
        row = await self._post(io, "/registries", "registry.create", body, deadline=deadline, call=self.call)
        return self._found(row, "registry.create")

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        row = await self._get(io, f"/registries/{quote(id, safe='')}", "registry.get", deadline=deadline)
        return None if row is None else self._found(row, "registry.get")

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await self._delete(io, f"/registries/{quote(id, safe='')}", "registry.delete", deadline=deadline)

    def _found(self, row: object, operation: str) -> Found:
        return translate.found_registry(shaped(RegistryWire, row, f"runpod.{operation}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeResource(RunPodResource):
    """A network volume: found by name, made where there is none, and kept when the deployment ends.

    It belongs to no create, and is in one data centre, where its deployment then runs.

    Attributes:
        id: Of one that a deployment has: of several of a name only that one is its own.
    """

    kind: str = "volume"
    optional: bool = True
    call: CallClass = CallClass.RECONCILE
    id: str | None = None

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        rows = await self.api.rows(
            io, "/network-volumes", "volume.list", under="networkVolumes", pages=PAGES, deadline=deadline
        )
        found = [one for row in rows if is_ours((one := self._found(row, "volume.list")).name)]
        named = [one for one in found if one.name == self.name]
        return sorted(named if self.id is None else [one for one in found if one.id == self.id], key=lambda one: one.id)

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, _ = self.made_from()
        volume = spec.volumes[0]
        place = await self._place(io, spec, deadline=deadline)
        body = {"name": self.name, "size": volume.size_gb, "dataCenter": place}
        row = await self._post(io, "/network-volumes", "volume.create", body, deadline=deadline, call=self.call)
        return self._found(row, "volume.create")

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """It, where it is one of unigpu's: a user's own, which a deployment uses too, is never to be deleted."""
        row = await self._get(io, f"/network-volumes/{quote(id, safe='')}", "volume.get", deadline=deadline)
        found = None if row is None else self._found(row, "volume.get")
        return found if found is not None and is_ours(found.name) else None

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        await self._delete(io, f"/network-volumes/{quote(id, safe='')}", "volume.delete", deadline=deadline)

    async def _place(self, io: Io, spec: DeploymentSpec, *, deadline: float) -> str:
        """The data centre with the best stock of what is acceptable, of those that have network volumes.

        Raises:
            NoCapacityError: there is none.
        """
        asked = bodies.options_of(spec).data_centers
        if len(asked) == 1:
            return asked[0]
        reply = await self.api.send(io, "GET", "/catalog/datacenters", "catalog.datacenters.list", deadline=deadline)
        able = [one.id for one in parse(DataCentersWire, reply).dataCenters if one.networkVolumeTypes]
        product: Product = "POD" if spec.kind == "pod" else "SERVERLESS"
        query = catalogue_query(product, count=count_of(spec), countries=countries_of(spec.regions))
        catalogue = await gpu_types(self.api, io, query, deadline=deadline)
        if spec.regions is not None:
            near = {place.id for one in catalogue for place in one.dataCenters or ()}
            able = [place for place in able if place in near]
        place = best_place(catalogue, spec, [one for one in able if not asked or one in asked])
        if place is None:
            raise NoCapacityError(
                "no data centre has network volumes and such a GPU where it was asked for.",
                provider=PROVIDER,
                operation="runpod.catalog.datacenters.list",
                deployment=spec.name,
                maybe_executed=False,
                hint='Name one: provider_options={"runpod": {"data_centers": ["EU-RO-1"]}}.',
            )
        return place

    def _found(self, row: object, operation: str) -> Found:
        return translate.found_volume(shaped(VolumeWire, row, f"runpod.{operation}"))


def volume_name(namespace: str, volume: str) -> str:
    """A volume's name at RunPod: our tag over its own name, so that deployments of one namespace share it."""
    return provider_name(namespace, volume)


def _id(made: Mapping[str, Found], kind: str) -> str | None:
    return made[kind].id if kind in made else None
