"""What an account has beside endpoints and pods: registry logins, volumes, VMs, and the list of GPUs.

Shapes: https://docs.yottalabs.ai/api-and-sdk/api-reference-v2/credentials, …/volume, and
https://docs.yottalabs.ai/api-and-sdk/api-guides for VMs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from unigpu.emulator.contract import JSON, HttpCall
from unigpu.emulator.engine import Engine

from . import wire
from .quirks import REGIONS, VRAM_GB, Quirks
from .wire import YottaProblem
from .workers import display

_NAME: Final = re.compile(r"(?=[A-Za-z])[A-Za-z0-9@._-]{1,20}")
_STORAGE: Final = ("S3", "R2", "CEPH", "VENDOR")


@dataclass(slots=True)
class _AccountRow:
    id: int
    created: float
    fields: dict[str, JSON]


class YottaAccount:
    """Rows that the engine has no use for.

    Args:
        in_use: Whether a pod or endpoint uses a registry login.
    """

    def __init__(
        self, engine: Engine, quirks: Quirks, new_id: Callable[[], int], in_use: Callable[[int, float], bool]
    ) -> None:
        self._engine = engine
        self._quirks = quirks
        self._new_id = new_id
        self._in_use = in_use
        self._credentials: dict[int, _AccountRow] = {}
        self._volumes: dict[int, _AccountRow] = {}
        self._vms: dict[int, _AccountRow] = {}

    # -- registry logins

    def credentials(self) -> list[JSON]:
        return [_credential(row) for row in self._credentials.values()]

    def credential(self, id: str) -> dict[str, JSON]:
        return _credential(self._credential(id))

    def add_credential(self, body: Mapping[str, Any], now: float) -> dict[str, JSON]:
        """The secret is taken, and told to nobody."""
        name = wire.text(body, "name")
        if not _NAME.fullmatch(name):
            raise YottaProblem(wire.BAD_REQUEST, "name: 1 to 20 of letters, digits, @ . _ -, a letter first")
        wire.text(body, "username")
        wire.text(body, "password")
        kind = str(body.get("type") or "DOCKER_HUB")
        row = _AccountRow(max(self._credentials, default=0) + 1, self._engine.wall(now), {"name": name, "type": kind})
        self._credentials[row.id] = row
        return _credential(row)

    def change_credential(self, id: str, body: Mapping[str, Any]) -> dict[str, JSON]:
        row = self._credential(id)
        for key in ("name", "type"):
            if body.get(key) is not None:
                row.fields[key] = wire.text(body, key)
        return _credential(row)

    def drop_credential(self, id: str, now: float) -> None:
        row = self._credential(id)
        if self._in_use(row.id, now):
            raise YottaProblem(wire.CREDENTIAL_IN_USE, "credential is in use")
        del self._credentials[row.id]

    # -- volumes; nothing here mounts one

    def volumes(self, call: HttpCall) -> dict[str, JSON]:
        kind = call.query.get("storageType", "").upper()
        if kind not in _STORAGE:
            raise YottaProblem(wire.BAD_REQUEST, f"storageType must be one of {', '.join(_STORAGE)}")
        region = call.query.get("region")
        rows = [
            self._volume_json(row)
            for row in self._volumes.values()
            if row.fields["type"] == kind and region in (None, "", row.fields["region"])
        ]
        return wire.paged(rows, *wire.page_of(call, "page", "size"))

    def volume(self, id: str) -> dict[str, JSON]:
        return self._volume_json(self._volume(id))

    def add_volume(self, body: Mapping[str, Any], now: float) -> dict[str, JSON]:
        kind = str(body.get("storageType", "")).upper()
        if kind not in _STORAGE:
            raise YottaProblem(wire.BAD_REQUEST, f"storageType must be one of {', '.join(_STORAGE)}")
        sized = kind in ("CEPH", "VENDOR")
        size = wire.whole(body.get("sizeInGb"), "sizeInGb", low=1, high=10_240) if sized else 0
        region = wire.text(body, "region") if sized else wire.optional_text(body, "region")
        fields = {"name": wire.text(body, "name"), "type": kind, "size": size, "region": region}
        row = _AccountRow(self._new_id(), self._engine.wall(now), {**fields, "vendor": body.get("vendorVolumeType")})
        self._volumes[row.id] = row
        return self._volume_json(row)

    def rename_volume(self, id: str, body: Mapping[str, Any]) -> dict[str, JSON]:
        row = self._volume(id)
        row.fields["name"] = wire.text(body, "name")
        return self._volume_json(row)

    def resize_volume(self, id: str, body: Mapping[str, Any]) -> None:
        row = self._volume(id)
        if row.fields["type"] not in ("CEPH", "VENDOR"):
            raise YottaProblem(wire.BAD_REQUEST, "only CEPH and VENDOR volumes have a size")
        row.fields["size"] = wire.whole(body.get("sizeInGb"), "sizeInGb", low=1, high=10_240)

    def drop_volume(self, id: str) -> None:
        del self._volumes[self._volume(id).id]

    # -- VMs: they run by the clock alone

    def vms(self, call: HttpCall, now: float) -> dict[str, JSON]:
        rows = [self._vm_json(row, now) for row in self._vms.values()]
        status = call.query.get("status", "").lower()
        rows = [row for row in rows if status in ("", str(row["status"]))]
        return wire.paged(list(rows), *wire.page_of(call, "page", "size"))

    def vm(self, id: str, now: float) -> dict[str, JSON]:
        return self._vm_json(self._vm(id), now)

    def add_vm(self, body: Mapping[str, Any], now: float) -> dict[str, JSON]:
        type_id = wire.whole(body.get("vmTypeId"), "vmTypeId", low=1)
        region, name = wire.text(body, "region"), wire.text(body, "name")
        found = next(
            (
                code
                for code, regions in self._quirks.stock.items()
                if region in regions and _vm_type(code, region) == type_id
            ),
            None,
        )
        if found is None:
            raise YottaProblem(wire.BAD_REQUEST, "vmTypeId: there is no such type in this region")
        if not self._quirks.stock[found][region]:
            raise YottaProblem(wire.CREATE_FAILED, "create vm failed: no available resource for the requested GPU")
        fields: dict[str, JSON] = {"name": name, "code": found, "region": region, "spot": int(body.get("isSpot") or 0)}
        row = _AccountRow(self._new_id(), self._engine.wall(now), fields)
        self._vms[row.id] = row
        return self._vm_json(row, now)

    def rename_vm(self, id: str, body: Mapping[str, Any], now: float) -> dict[str, JSON]:
        row = self._vm(id)
        row.fields["name"] = wire.text(body, "name")
        return self._vm_json(row, now)

    def drop_vm(self, id: str) -> None:
        del self._vms[self._vm(id).id]

    def vm_types(self) -> list[JSON]:
        """Availability by region, without a price: what the official client calls the GPU list, too."""
        return [
            {
                "gpuType": code,
                "regions": [
                    {
                        "region": region,
                        "regionName": REGIONS.get(region, region),
                        "available": there,
                        "vmTypeId": _vm_type(code, region),
                    }
                    for region, there in regions.items()
                ],
            }
            for code, regions in self._quirks.stock.items()
        ]

    # -- inside

    def _credential(self, id: str) -> _AccountRow:
        return _found(self._credentials, id, wire.NO_RECORD, "record not exist")

    def _volume(self, id: str) -> _AccountRow:
        return _found(self._volumes, id, wire.NO_RECORD, "record not exist")

    def _vm(self, id: str) -> _AccountRow:
        return _found(self._vms, id, wire.VM_MISSING, "vm not found")

    def _volume_json(self, row: _AccountRow) -> dict[str, JSON]:
        one = row.fields
        common = {"name": one["name"], "status": "active"}
        if self._quirks.volume_form == "reference":
            used = {"sizeBytes": "0", "sizeInGb": 0, "cost": "0"}
            return {"id": str(row.id), "type": one["type"], **common, **used}
        return {
            "id": row.id,
            **common,
            "sizeInGb": one["size"],
            "region": one["region"] or "",
            "storageType": one["type"],
            "vendorVolumeType": one["vendor"],
            "mountCount": 0,
            "cost": 0,
            "createdAt": wire.millis(row.created),
        }

    def _vm_json(self, row: _AccountRow, now: float) -> dict[str, JSON]:
        one, code = row.fields, str(row.fields["code"])
        runs = self._engine.wall(now) - row.created >= self._quirks.vm_boot
        return {
            "id": row.id,
            "name": one["name"],
            "status": "running" if runs else "initializing",
            "gpuDisplayName": display(code),
            "ipAddress": "192.0.2.10" if runs else "",
            "cpuCores": 8,
            "memoryInGb": "64",
            "gpuCount": 1,
            "gpuMemoryInGb": str(VRAM_GB.get(code, 0)),
            "region": one["region"],
            "storageInGb": "256",
            "sshTemplate": "ssh root@192.0.2.10" if runs else "",
            "createdAt": wire.iso(row.created),
            "isSpot": one["spot"],
        }


def _credential(row: _AccountRow) -> dict[str, JSON]:
    return {"id": row.id, **row.fields, "createdAt": wire.iso(row.created)}


def _found(rows: Mapping[int, _AccountRow], id: str, code: int, message: str) -> _AccountRow:
    row = rows.get(int(id)) if id.isdecimal() else None
    if row is None:
        raise YottaProblem(code, message)
    return row


def _vm_type(code: str, region: str) -> int:
    """A number that belongs to this GPU in this region."""
    places = list(REGIONS)
    where = places.index(region) if region in places else 90 + sum(region.encode()) % 10
    return 100 * (1 + list(VRAM_GB).index(code)) + where if code in VRAM_GB else 100_000 + where
