"""What a deployment consists of at RunPod: its secrets (`secrets`), its volume, its registry login, and the endpoint
or pod that is called.

RunPod has no idempotency key, makes the ids, and shows by listing what exists; how soon is not documented, so each of
them is *listed* with a settle window of our own (unverified). What an endpoint refers to carries the create call's
attempt in its name: each deploy has its own, and one that gives up deletes only its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from unigpu.driver import (
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    ListedResource,
    Resource,
    is_ours,
    parse,
    provider_name,
)
from unigpu.errors import (
    ConflictError,
    NameConflict,
    NoCapacityError,
    PayloadTooLarge,
    PermissionDeniedError,
)

from . import account, bodies, gpus, pods, translate
from .api import RunPodAPI
from .options import Options
from .secrets import SecretsResource
from .wire import PROVIDER, DataCentersWire, EndpointWire, PodWire, RegistryWire, VolumeWire

_LARGEST: Final = 102_400
"""Bytes of a body: above it RunPod answers a pod's create with 413. For an endpoint no limit is documented; the same
one is kept. https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc."""


def resources_of(api: RunPodAPI, options: Options, spec: DeploymentSpec, identity: Identity) -> Sequence[Resource]:
    """What *spec* consists of, in the order of creation: an endpoint or pod refers to the others."""
    name, found = identity.provider_name, list[Resource]()
    given: dict[str, Any] = {"spec": spec, "identity": identity}
    if spec.volumes:
        found.append(replace(_volume(api, _volume_name(identity.namespace, spec.volumes[0].name)), **given))
    if bodies.secret_names(spec):
        found.append(replace(SecretsResource(api=api, name=name), **given))
    if spec.registry is not None:
        found.append(replace(_registry(api, name), **given))
    called = _pod(api, options, name) if spec.kind == "pod" else _endpoint(api, options, name)
    return [*found, replace(called, **given)]


def parts_of(api: RunPodAPI, options: Options, info: DeploymentInfo) -> Sequence[Resource]:
    """What an existing deployment may consist of. An intent does not say whether it is an endpoint or a pod, so both
    are searched for."""
    name = info.provider_name
    volumes = [replace(_volume(api, name), id=info.ids["volume"])] if "volume" in info.ids else []
    return [
        *volumes,
        SecretsResource(api=api, name=name),
        _registry(api, name),
        replace(_pod(api, options, name), optional=True),
        replace(_endpoint(api, options, name), optional=True),
    ]


# -- what is called ---------------------------------------------------------------------------------------------------


def _endpoint(api: RunPodAPI, options: Options, name: str) -> EndpointResource:
    return EndpointResource(
        api=api,
        options=options,
        kind="endpoint",
        name=name,
        path="/serverless",
        under="endpoints",
        shape=EndpointWire,
        found=lambda wire: translate.found_endpoint(wire, options.lb_url),
    )


def _pod(api: RunPodAPI, options: Options, name: str) -> PodResource:
    return PodResource(
        api=api,
        options=options,
        kind="pod",
        name=name,
        path="/pods",
        under="pods",
        shape=PodWire,
        found=lambda wire: pods.found_pod(wire, options.proxy_url),
        bills_cold="the pod, from its start",
    )


@dataclass(frozen=True, kw_only=True)
class EndpointResource(ListedResource[EndpointWire]):
    """A serverless endpoint: one call creates it, image and all. Deleting it ends its workers and cancels its jobs;
    its workers need not be set to none before."""

    api: RunPodAPI
    options: Options

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, identity = self.made_from()
        await replace(_pod(self.api, self.options, self.name), spec=spec).must_not_exist(io, deadline=deadline)
        await account.must_have_funds(self.api, self.options, io, deployment=spec.name, deadline=deadline)
        choice = gpus.choose(spec, await gpus.catalogue_of(self.api, io, spec, deadline=deadline))
        body = bodies.endpoint_body(spec, identity, choice, registry=_id(made, "registry"), volume=_id(made, "volume"))
        _volume_must_fit(made.get("volume"), spec, body["dataCenterIds"])
        return await self.create(io, _sendable(body, spec), deadline=deadline)


@dataclass(frozen=True, kw_only=True)
class PodResource(ListedResource[PodWire]):
    """A pod. RunPod takes one GPU type at a time, so the acceptable ones are tried here, in their order."""

    api: RunPodAPI
    options: Options

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """The first that RunPod has: 400 and 409 mean the next one, 403 a cloud that the account may not use.

        Raises:
            NoCapacityError: none of them.
        """
        spec, identity = self.made_from()
        await replace(_endpoint(self.api, self.options, self.name), spec=spec).must_not_exist(io, deadline=deadline)
        await account.must_have_funds(self.api, self.options, io, deployment=spec.name, deadline=deadline)
        wanted, refused = bodies.options_of(spec), list[str]()
        _volume_must_fit(made.get("volume"), spec, wanted.data_centers)
        for cloud in wanted.cloud:
            catalogue = await gpus.catalogue_of(self.api, io, spec, cloud=cloud, deadline=deadline)
            for one in gpus.candidates(spec, catalogue, cloud):
                body = bodies.pod_body(spec, identity, one, registry=_id(made, "registry"), volume=_id(made, "volume"))
                try:
                    return await self.create(io, _sendable(body, spec), deadline=deadline)
                except (NoCapacityError, ConflictError, PermissionDeniedError) as exc:
                    refused.append(f"{one.type} ({cloud}): {exc.message}")
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


def _id(made: Mapping[str, Found], kind: str) -> str | None:
    return made[kind].id if kind in made else None


def _sendable(body: dict[str, Any], spec: DeploymentSpec) -> dict[str, Any]:
    """*body*, where RunPod takes one of its size.

    Raises:
        PayloadTooLarge: it does not.
    """
    size = len(json.dumps(body).encode())
    if size <= _LARGEST:
        return body
    raise PayloadTooLarge(
        f"the request that creates {spec.name} has {size} bytes, and RunPod takes {_LARGEST}: env is too large.",
        limit=_LARGEST,
        size=size,
        provider=PROVIDER,
        deployment=spec.name,
        maybe_executed=False,
    )


def _volume_must_fit(volume: Found | None, spec: DeploymentSpec, places: Sequence[str]) -> None:
    """A volume of that name may be older than the deployment: it must be as large as asked for, and where workers may
    be. RunPod itself would take the body, and never place a worker.

    Raises:
        NameConflict: it is smaller than what is asked for.
        NoCapacityError: it is in none of *places* (empty: anywhere).
    """
    if volume is None or not volume.shown:
        return  # a dry run's
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


# -- what it refers to ------------------------------------------------------------------------------------------------


def _registry(api: RunPodAPI, name: str) -> ListedResource[RegistryWire]:
    """The login of a private image registry, stored with RunPod."""
    return ListedResource(
        api=api,
        kind="registry",
        name=name,
        path="/registries",
        under="registries",
        shape=RegistryWire,
        found=translate.found_registry,
        body=bodies.registry_body,
        optional=True,
    )


def _volume(api: RunPodAPI, name: str) -> VolumeResource:
    return VolumeResource(
        api=api,
        kind="volume",
        name=name,
        path="/network-volumes",
        under="networkVolumes",
        shape=VolumeWire,
        found=translate.found_volume,
        tag=None,
        optional=True,
    )


@dataclass(frozen=True, kw_only=True)
class VolumeResource(ListedResource[VolumeWire]):
    """A network volume: found by name, created where there is none, and kept when the deployment ends.

    It belongs to no create call, and is in one data center, where its deployment then runs.

    Attributes:
        id: Of one that a deployment has: of several of a name only that one is its own.
    """

    api: RunPodAPI
    id: str | None = None

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        ours = [one for one in await self.all(io, deadline=deadline) if is_ours(one.name)]
        found = [one for one in ours if (one.name == self.name if self.id is None else one.id == self.id)]
        return sorted(found, key=lambda one: one.id)

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """The volume, where unigpu made it: a user's own, which a deployment uses too, is never deleted."""
        found = await super().read(io, id, deadline=deadline)
        return found if found is not None and is_ours(found.name) else None

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, _ = self.made_from()
        place = await self._place(io, spec, deadline=deadline)
        body = {"name": self.name, "size": spec.volumes[0].size_gb, "dataCenter": place}
        return await self.create(io, body, deadline=deadline)

    async def _place(self, io: Io, spec: DeploymentSpec, *, deadline: float) -> str:
        """The data center with the best stock of acceptable GPUs, among those that have network volumes.

        Raises:
            NoCapacityError: there is none.
        """
        asked = bodies.options_of(spec).data_centers
        if len(asked) == 1:
            return asked[0]
        reply = await self.api.send(io, "GET", "/catalog/datacenters", "catalog.datacenters.list", deadline=deadline)
        able = [one.id for one in parse(DataCentersWire, reply).dataCenters if one.networkVolumeTypes]
        catalogue = await gpus.catalogue_of(self.api, io, spec, deadline=deadline)
        if spec.regions is not None:
            near = {place.id for one in catalogue for place in one.dataCenters or ()}
            able = [place for place in able if place in near]
        place = gpus.best_place(catalogue, spec, [one for one in able if not asked or one in asked])
        if place is None:
            where = f" in {', '.join(asked or spec.regions or ())}" if asked or spec.regions else ""
            raise NoCapacityError(
                f"No data center{where} offers both network volumes and {' or '.join(map(str, spec.gpu or ()))}.",
                provider=PROVIDER,
                operation="runpod.catalog.datacenters.list",
                deployment=spec.name,
                maybe_executed=False,
                hint='Accept more GPUs or regions, or name a data center: provider_options={"runpod": {"data_centers": '
                '["EU-RO-1"]}}.',
            )
        return place


def _volume_name(namespace: str, volume: str) -> str:
    """A volume's name at RunPod: our tag over its own name, so that deployments of one namespace share it."""
    return provider_name(namespace, volume)
