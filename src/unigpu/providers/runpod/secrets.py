"""A deployment's account secrets: found by their tag, written, rotated, and deleted with the last.

https://docs.runpod.io/api-reference-v2/account/list-secrets. A value can never be read back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import BaseResource, CallClass, DeploymentSpec, Found, Identity, Io
from unigpu.errors import ConflictError, NotFoundError

from . import bodies
from .api import RunPodAPI
from .wire import PROVIDER, SecretWire


@dataclass(frozen=True, kw_only=True)
class SecretsResource(BaseResource):
    """The account secrets of one create call, as one: their names begin with our tag and the call's attempt.

    Names are unique at RunPod, so creating one again writes its value anew: harmless.
    """

    api: RunPodAPI
    kind: str = "secrets"
    call: CallClass = CallClass.IDEMPOTENT
    optional: bool = True

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        tag = self.name.replace("-", "_")
        groups = sorted({_group(one.name) for one in await _secrets(self.api, io, deadline=deadline)} - {""})
        return [self._found(group) for group in groups if group.rpartition("_")[0] == tag]

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, identity = self.made_from()
        await write_secrets(self.api, io, spec, identity, deadline=deadline)
        return self._found(bodies.secret_group(identity))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        there = any(_group(one.name) == id for one in await _secrets(self.api, io, deadline=deadline))
        return self._found(id) if there else None

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        for one in await _secrets(self.api, io, deadline=deadline):
            if _group(one.name) == id:
                with contextlib.suppress(NotFoundError):  # it is gone already
                    await self.api.send(io, "DELETE", _path(one), "secret.delete", deadline=deadline)

    def _found(self, group: str) -> Found:
        return Found(kind=self.kind, id=group, name=self.name, attempt=group.rpartition("_")[2])


async def write_secrets(api: RunPodAPI, io: Io, spec: DeploymentSpec, identity: Identity, *, deadline: float) -> None:
    """Write each value: into the secret of its name where that is there, else into a new one.

    Rotation reaches workers that boot later.
    """
    there = {one.name.lower(): one for one in await _secrets(api, io, deadline=deadline)}
    for name in bodies.secret_names(spec):
        value = spec.secrets.get(name)
        if not isinstance(value, SecretStr):
            raise AssertionError(f"{name}: values are filled in before anything is sent")
        full = f"{bodies.secret_group(identity)}_{name}"
        text = {"value": value.get_secret_value()}
        found = there.get(full.lower())
        if found is None:
            try:
                body = {"name": full, **text, "description": f"unigpu: {identity.namespace}/{identity.name}"}
                await api.send(
                    io, "POST", "/account/secrets", "secret.create", json=body, role="create", deadline=deadline
                )
                continue
            except ConflictError:  # it was made meanwhile: an answer that was lost, or a list that is late
                found = await _secret(api, io, full, deadline=deadline)
        await api.send(io, "PATCH", _path(found), "secret.patch", json=text, deadline=deadline)


async def _secrets(
    api: RunPodAPI, io: Io, *, deadline: float, params: tuple[tuple[str, str], ...] = ()
) -> list[SecretWire]:
    return await api.listed(
        io, SecretWire, "/account/secrets", "secret.list", under="secrets", params=params, deadline=deadline
    )


async def _secret(api: RunPodAPI, io: Io, name: str, *, deadline: float) -> SecretWire:
    for found in await _secrets(api, io, params=(("name", name),), deadline=deadline):
        if found.name.lower() == name.lower():
            return found
    raise ConflictError(
        f"RunPod says that the secret {name} exists, and does not show it",
        status=409,
        provider=PROVIDER,
        operation="runpod.secret.create",
    )


def _path(secret: SecretWire) -> str:
    return f"/account/secrets/{quote(secret.id, safe='')}"


def _group(name: str) -> str:
    """The group of a secret's name; empty: it is not one of ours."""
    found = bodies.GROUP.match(name)
    return found.group(1) if found else ""
