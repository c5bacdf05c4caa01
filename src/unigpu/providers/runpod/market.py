"""What could be rented now, and what costs money now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal, Protocol

from unigpu.driver import DeploymentInfo, GPURequest, InventoryItem, Io, Offer

from . import gpus, translate
from .api import Line
from .options import Options
from .part import gpu_types
from .wire import EndpointWire, HealthWire, PodWire, VolumeWire, shaped


class ReadsHealth(Protocol):
    """Reads an endpoint's workers now."""

    async def __call__(self, io: Io, info: DeploymentInfo, *, deadline: float) -> HealthWire: ...


async def offers(
    line: Line,
    io: Io,
    *,
    gpu: tuple[GPURequest, ...] | None,
    regions: tuple[str, ...] | None,
    kind: Literal["serverless", "pod"],
    deadline: float,
) -> Sequence[Offer]:
    """The catalogue: one call for each number of GPUs, and for pods each cloud."""
    product: gpus.Product = "POD" if kind == "pod" else "SERVERLESS"
    clouds = ("SECURE", "COMMUNITY") if kind == "pod" else (None,)
    source = f"RunPod's catalogue, {_day(io.wall())}"
    countries = gpus.countries_of(regions)
    found: list[Offer] = []
    for count in sorted({one.count for one in gpu or ()} or {1}):
        for cloud in clouds:
            query = gpus.catalogue_query(product, count=count, cloud=cloud, countries=countries)
            types = await gpu_types(line, io, query, deadline=deadline)
            if regions is not None:
                types = [one for one in types if one.dataCenters]
            if gpu is not None:
                wanted = [one for one in gpu if one.count == count]
                types = [one for one in types if any(gpus.is_wanted(one, asked) for asked in wanted)]
            found += gpus.offers_of(types, product, count=count, cloud=cloud, source=source)
    return found


async def inventory(
    line: Line, options: Options, io: Io, *, health: ReadsHealth, deadline: float
) -> Sequence[InventoryItem]:
    """Endpoints by their workers now, pods, stopped ones and network volumes, whoever made them."""
    items: list[InventoryItem] = []
    for row in await line.rows(io, "/serverless", "endpoints", "endpoint.list", deadline=deadline):
        wire = shaped(EndpointWire, row, "runpod.endpoint.list")
        info = translate.endpoint_info(wire, lb_url=options.lb_url)
        found = await health(io, info, deadline=deadline)
        items.append(translate.endpoint_item(wire, info, found))
    # Members of clusters are left out unless they are asked for, and cost as much.
    also = (("includeClusterPods", "true"),)
    for row in await line.rows(io, "/pods", "pods", "pod.list", params=also, deadline=deadline):
        pod = shaped(PodWire, row, "runpod.pod.list")
        if pod.status != "TERMINATED":
            items.append(translate.pod_item(pod, translate.pod_info(pod, proxy_url=options.proxy_url)))
    rows = await line.rows(io, "/network-volumes", "networkVolumes", "volume.list", deadline=deadline)
    items += [translate.volume_item(shaped(VolumeWire, row, "runpod.volume.list")) for row in rows]
    return items


def _day(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).date().isoformat()
