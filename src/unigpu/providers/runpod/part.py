"""What the parts of a deployment have in common: how one is read, made and deleted, and the catalogue of GPUs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from unigpu.driver import CallClass, Consistency, DeploymentSpec, Found, Identity, Io
from unigpu.errors import NameConflict, NoCapacityError, NotFoundError, PayloadTooLarge

from .api import Line
from .gpus import catalogue_query, count_of, countries_of
from .options import Options
from .wire import PROVIDER, GpuTypesWire, GpuTypeWire, parse

_LISTED: Final = Consistency(kind="listed", settle=15.0)
_LARGEST: Final = 102_400
"""Bytes of a body: above it RunPod answers a pod's create with 413. Of an endpoint's nothing is said; it is held to it
too. https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the parts have in common. *spec* and *identity* are there where it may be created."""

    line: Line
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
            return (await self.line.send(io, "GET", path, operation, deadline=deadline)).json()
        except NotFoundError:
            return None

    async def _delete(self, io: Io, path: str, operation: str, *, deadline: float) -> None:
        try:
            await self.line.send(io, "DELETE", path, operation, deadline=deadline)
        except NotFoundError:
            return  # it is gone already

    async def _must_be_free(self, io: Io, path: str, key: str, *, deadline: float) -> None:
        """A name is one deployment, an endpoint or a pod: before one is made, there must be none of the other kind.

        Raises:
            NameConflict: there is one.
        """
        rows = await self.line.rows(io, path, key, f"{key.removesuffix('s')}.list", deadline=deadline)
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
        reply = await self.line.send(
            io, "POST", path, operation, json=body, role="create", call=call, deadline=deadline, deployment=self._label
        )
        return reply.json()

    @property
    def _label(self) -> str | None:
        return None if self.spec is None else self.spec.name


async def gpu_types(
    line: Line, io: Io, query: tuple[tuple[str, str], ...], *, deadline: float
) -> Sequence[GpuTypeWire]:
    """The live catalogue of GPU types."""
    reply = await line.send(io, "GET", "/catalog/gpus", "catalog.gpus.list", params=query, deadline=deadline)
    return parse(GpuTypesWire, reply).gpus


async def serverless_catalogue(line: Line, io: Io, spec: DeploymentSpec, *, deadline: float) -> Sequence[GpuTypeWire]:
    query = catalogue_query("SERVERLESS", count=count_of(spec), countries=countries_of(spec.regions))
    return await gpu_types(line, io, query, deadline=deadline)
