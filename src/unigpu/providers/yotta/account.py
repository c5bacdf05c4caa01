"""Everything on the account that costs money, ours or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from unigpu.driver import DeploymentInfo, InventoryItem, Io, Numbers, State, is_ours

from .api import PROVIDER, YottaAPI, kind_of
from .wire import VmWire, VolumeWire

_STORAGE: Final = ("S3", "CEPH", "VENDOR", "R2")


def item_of(info: DeploymentInfo) -> InventoryItem:
    """An endpoint or pod, at the price that Yotta shows."""
    stopped = info.state is State.STOPPED
    return InventoryItem(
        provider=PROVIDER,
        id=info.id,
        kind=kind_of(info),
        owner="ours" if info.ours else "foreign",
        name=info.name or info.provider_name,
        namespace=info.namespace,
        state=info.raw_state,
        per_hour=0.0 if stopped and info.kind != "pod" else None if stopped else info.rate.idle_per_hour,
        created_at=info.created_at,
        note=info.bills if stopped else None,
    )


async def machines(api: YottaAPI, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Virtual machines. unigpu creates none, so they are the user's own; Yotta does not show their price."""
    found = await api.listed(io, VmWire, "/v2/vms", "vm.list", under="items", pages=Numbers(), deadline=deadline)
    return [
        InventoryItem(
            provider=PROVIDER,
            id=one.id,
            kind="vm",
            owner="ours" if is_ours(one.name or "") else "foreign",
            name=one.name,
            state=one.status,
            created_at=one.created_at,
        )
        for one in found
        if one.status.upper() != "TERMINATED"
    ]


async def volumes(api: YottaAPI, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Volumes bill until they are deleted, whatever uses them. They are listed by kind of storage."""
    found: list[tuple[str, VolumeWire]] = []
    for storage in _STORAGE:
        params = (("storageType", storage),)
        listed = await api.listed(
            io, VolumeWire, "/v2/volumes", "volume.list",
            under="items", pages=Numbers(), params=params, deadline=deadline,
        )  # fmt: skip
        found += [(storage, one) for one in listed]
    return [
        InventoryItem(
            provider=PROVIDER,
            id=one.id,
            kind="volume",
            owner="ours" if is_ours(one.name or "") else "foreign",
            name=one.name,
            state=one.status,
            created_at=one.created_at,
            note=f"{storage} storage; bills by the month until it is deleted",
        )
        for storage, one in found
    ]
