"""The one thing that a local deployment consists of: found by its name, put, read, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

from unigpu.driver import (
    CallClass,
    Consistency,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    is_rehearsal,
)
from unigpu.errors import ConfigurationError, ConflictError

from . import bodies, handler_source, launch, translate
from .api import SupervisorAPI, gone, is_absent, ok
from .wire import DeletedWire, DeploymentWire, parse, refusal

_ATOMIC: Final = Consistency(kind="atomic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where deployments are put.

    Attributes:
        python: The interpreter that runs handlers; ``None``: this program's own.
    """

    api: SupervisorAPI
    directory: launch.SupervisorDirectory | None
    python: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResource:
    """A deployment, by its name there. Created by a PUT that carries the attempt, so creating it twice makes one."""

    place: Place
    id: str
    spec: DeploymentSpec | None = None
    identity: Identity | None = None
    kind: str = translate.KIND
    call: CallClass = CallClass.IDEMPOTENT
    consistency: Consistency = _ATOMIC
    bills_cold: str | None = None
    optional: bool = False

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        found = await self.read(io, self.id, deadline=deadline)
        return () if found is None else (found,)

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        if self.spec is None or self.identity is None:
            raise AssertionError("a part of something that exists is never created")
        return translate.found_of(await put(self.place, io, self.spec, self.identity, now=None, deadline=deadline))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        wire = await get(self.place, io, id, deadline=deadline)
        return None if wire is None else translate.found_of(wire)

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it, and where that leaves nothing, wait until the supervisor is gone. Absent is success."""
        place = self.place
        reply = await place.api.call(
            io, "DELETE", f"/deployments/{id}", "deployment.delete", deadline=deadline, cleanup=True
        )
        if reply is None or is_absent(reply[0]):
            return
        last = parse(DeletedWire, ok(reply, deployment=None)).last
        if last and place.directory is not None and place.api.fixed is None:
            await launch.gone(io, place.directory, reply[1], deadline=deadline)


async def get(place: Place, io: Io, id: str, *, deadline: float) -> DeploymentWire | None:
    """The deployment as the supervisor shows it; ``None`` where it certainly does not exist."""
    reply = await place.api.call(io, "GET", f"/deployments/{id}", "deployment.get", deadline=deadline)
    if reply is None or is_absent(reply[0]):
        return None
    return parse(DeploymentWire, ok(reply, deployment=None))


async def put(
    place: Place, io: Io, spec: DeploymentSpec, identity: Identity, *, now: DeploymentInfo | None, deadline: float
) -> DeploymentWire:
    """Create it cold (*now* is ``None``), or replace what is there, with the limits that are not stated kept.

    Raises:
        ConflictError: the name is taken meanwhile, or what is there is not *now* any more.
        DeploymentGone: there is nothing to replace.
    """
    workers, idle_timeout, scaling = (0, spec.workers[1]), spec.idle_timeout, bodies.scaling_of(spec.scaling)
    if now is not None:
        stated = spec.stated
        workers = spec.workers if "workers" in stated or now.workers is None else now.workers
        if "idle_timeout" not in stated and now.idle_timeout is not None:
            idle_timeout = now.idle_timeout
        if "scaling" not in stated:
            scaling = now.details.get("scaling")
    cwd = launch.working_directory()
    origin, import_from = handler_source.place_of(spec, cwd=cwd)
    body = bodies.put_body(
        spec,
        identity,
        workers=workers,
        idle_timeout=idle_timeout,
        scaling=scaling,
        origin=origin,
        cwd=cwd,
        python=place.python or launch.interpreter(),
        env=_hidden_env(spec, import_from),
        folders=_folders(place, spec, identity.namespace, make=not is_rehearsal(io)),
    )
    condition = ("if-none-match", "*") if now is None else ("if-match", f'"{now.attempt}"')
    reply = await place.api.call(
        io,
        "PUT",
        f"/deployments/{identity.provider_name}",
        "deployment.put",
        json=body,
        headers=(condition,),
        deadline=deadline,
        start=now is None,
    )
    if reply is None:
        raise gone(identity.name)
    if reply[0].status != 412:
        return parse(DeploymentWire, ok(reply, deployment=identity.name))
    refused = refusal(reply[0])
    there = refused.deployment
    if now is None and there is not None and there.attempt == identity.attempt:
        return there  # our own create, whose answer was lost
    if now is not None and there is None:
        raise gone(identity.name)
    raise ConflictError(
        f"{identity.name}: {refused.error.message or 'it changed meanwhile'}",
        status=412,
        provider="local",
        operation="local.deployment.put",
        deployment=identity.name,
        maybe_executed=False,
    )


def _hidden_env(spec: DeploymentSpec, import_from: str | None) -> dict[str, str]:
    """Values of secrets, the callers' token, and where a handler outside the working directory is imported from.

    Raises:
        ConfigurationError: a value is missing.
    """
    env: dict[str, str] = {}
    for name, value in spec.secrets.items():
        if not isinstance(value, SecretStr):
            raise ConfigurationError(f"secrets: {name} has no value to send", provider="local")
        env[name] = value.get_secret_value()
    if spec.auth is not None and not isinstance(spec.auth, str) and spec.auth.env not in env:
        token = launch.own_variable(spec.auth.env)
        if not token:
            raise ConfigurationError(
                f"auth: the variable {spec.auth.env} is not set in this environment", provider="local"
            )
        env[spec.auth.env] = token
    if import_from is not None and "PYTHONPATH" not in spec.env:
        env["PYTHONPATH"] = import_from
    return env


def _folders(place: Place, spec: DeploymentSpec, namespace: str, *, make: bool) -> Mapping[str, str]:
    if not spec.volumes:
        return {}
    if place.directory is None:
        raise ConfigurationError("volumes are folders under a state directory, and this client has none")
    if not make:
        return {v.name: str(place.directory.path / "volumes" / namespace / v.name) for v in spec.volumes}
    return {v.name: launch.volume_folder(place.directory, namespace, v.name) for v in spec.volumes}
