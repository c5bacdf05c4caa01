"""What costs money on the account, including what unigpu did not create."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unigpu.driver import InventoryItem, Io
from unigpu.errors import NotFoundError

from . import translate
from .api import VastAPI
from .docker_flags import tags_in
from .wire import PROVIDER, InstanceWire, VolumeWire


async def inventory(api: VastAPI, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Every machine (also the workers of endpoints), every endpoint, and every volume of the account."""
    items: list[InventoryItem] = []
    workers: dict[int, str] = {}
    for one in await api.endpoints(io, deadline=deadline):
        try:
            mine = await api.workers(io, str(one.id), deadline=deadline)
        except NotFoundError:
            mine = ()
        workers |= {worker.id: one.endpoint_name for worker in mine}
        known = translate.untag(one.endpoint_name)
        items.append(
            InventoryItem(
                provider=PROVIDER,
                id=str(one.id),
                kind="endpoint",
                owner="ours" if known else "foreign",
                name=known[0] if known else one.endpoint_name,
                state=one.endpoint_state,
                per_hour=0.0,
                created_at=one.created_at,
                note=f"bills by its workers: {len(mine)} now, {one.max_workers} at most",
            )
        )
    items += [instance_item(one, workers) for one in await api.instances(io, deadline=deadline)]
    volumes = await api.listed(
        io, VolumeWire, "/api/v0/volumes/", "volume.list", under="volumes", params=(("owner", "me"),), deadline=deadline
    )
    for volume in volumes:
        items.append(
            InventoryItem(
                provider=PROVIDER,
                id=str(volume.id),
                kind="volume",
                owner="foreign",  # unigpu makes none here
                name=volume.label or volume.name,
                state=volume.status,
                per_hour=volume.dph_total,
                created_at=volume.start_date,
            )
        )
    return items


def instance_item(wire: InstanceWire, workers: Mapping[int, str]) -> InventoryItem:
    """An instance, which may be a worker of an endpoint: then *workers* has that one's name."""
    known = translate.untag(wire.label) or translate.untag(workers.get(wire.id))
    tags = tags_in(wire.extra_env)
    running = wire.actual_status in ("running", "frozen", "rebooting")
    # https://docs.vast.ai/guides/serverless/pricing: an endpoint's machine bills its GPU while it loads, too
    running = running or (wire.id in workers and wire.actual_status == "loading")
    month = None
    if wire.storage_cost is not None and wire.disk_space is not None:
        month = round(wire.storage_cost * wire.disk_space, 4)
    return InventoryItem(
        provider=PROVIDER,
        id=str(wire.id),
        kind="worker" if wire.id in workers else "instance",
        owner="ours" if known else "foreign",
        name=tags.name or (known[0] if known else wire.label),
        namespace=tags.namespace if known else None,
        state=wire.actual_status,
        per_hour=wire.dph_total if running else 0.0 if month is not None else None,
        per_month=month,
        created_at=wire.start_date,
        note="traffic is billed by the byte besides",
    )
