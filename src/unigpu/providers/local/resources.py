"""The one thing that a local deployment consists of: found by its name, put, read, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from pydantic import SecretStr

from unigpu.driver import (
    BaseResource,
    CallClass,
    Consistency,
    DeploymentInfo,
    DeploymentSpec,
    Found,
    Identity,
    Io,
    is_rehearsal,
    parse,
)
from unigpu.errors import ConfigurationError, ConflictError, DeploymentGone

from . import bodies, handler_source, launch, translate
from .api import PROVIDER, SupervisorAPI
from .wire import DeletedWire, DeploymentWire, refusal

_ATOMIC: Final = Consistency(kind="atomic")


@dataclass(frozen=True, kw_only=True)
class DeploymentResource(BaseResource):
    """A deployment, by its name. Created by a PUT that carries the attempt, so creating it twice makes one.

    Attributes:
        python: The interpreter that runs handlers; ``None``: this program's own.
    """

    api: SupervisorAPI
    kind: str = translate.KIND
    call: CallClass = CallClass.IDEMPOTENT
    consistency: Consistency = _ATOMIC
    python: str | None

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        found = await self.read(io, self.name, deadline=deadline)
        return () if found is None else (found,)

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        spec, identity = self.made_from()
        return translate.found(await put(self.api, io, spec, identity, now=None, python=self.python, deadline=deadline))

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        reply = await self.api.optional(io, _path(id), "deployment.get", deadline=deadline)
        return None if reply is None else translate.found(parse(DeploymentWire, reply))

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it, and where that leaves nothing, wait until the supervisor is gone. Absent is success."""
        api = self.api
        reply = await api.reach(io, "DELETE", _path(id), "deployment.delete", deadline=deadline, cleanup=True)
        if reply is None or reply[0].status == 404:
            return
        last = parse(DeletedWire, api.success(reply)).last
        if last and api.directory is not None and api.fixed is None:
            await launch.gone(io, api.directory, reply[1], deadline=deadline)


async def put(
    api: SupervisorAPI,
    io: Io,
    spec: DeploymentSpec,
    identity: Identity,
    *,
    now: DeploymentInfo | None,
    python: str | None,
    deadline: float,
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
        python=python or launch.interpreter(),
        env=_hidden_env(spec, import_from),
        folders=_folders(api.directory, spec, identity.namespace, make=not is_rehearsal(io)),
    )
    condition = ("if-none-match", "*") if now is None else ("if-match", f'"{now.attempt}"')
    reply = await api.reach(
        io,
        "PUT",
        _path(identity.provider_name),
        "deployment.put",
        json=body,
        headers=(condition,),
        deadline=deadline,
        start=now is None,
        deployment=identity.name,
    )
    if reply is None:
        raise _gone(identity)
    if reply[0].status != 412:
        return parse(DeploymentWire, api.success(reply, now, deployment=identity.name))
    refused = refusal(reply[0])
    there = refused.deployment
    if now is None and there is not None and there.attempt == identity.attempt:
        return there  # our own create, whose answer was lost
    if now is not None and there is None:
        raise _gone(identity)
    raise ConflictError(
        f"{identity.name}: {refused.error.message or 'it changed meanwhile'}",
        status=412,
        provider=PROVIDER,
        operation="local.deployment.put",
        deployment=identity.name,
        maybe_executed=False,
    )


def _path(id: str) -> str:
    return f"/deployments/{quote(id, safe='')}"


def _gone(identity: Identity) -> DeploymentGone:
    return DeploymentGone(
        f"{identity.name} does not exist on local any more",
        status=404,
        provider=PROVIDER,
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
            raise ConfigurationError(f"secrets: {name} has no value to send", provider=PROVIDER)
        env[name] = value.get_secret_value()
    if spec.auth is not None and not isinstance(spec.auth, str) and spec.auth.env not in env:
        token = launch.own_variable(spec.auth.env)
        if not token:
            raise ConfigurationError(
                f"auth: the variable {spec.auth.env} is not set in this environment", provider=PROVIDER
            )
        env[spec.auth.env] = token
    if import_from is not None and "PYTHONPATH" not in spec.env:
        env["PYTHONPATH"] = import_from
    return env


def _folders(
    directory: launch.SupervisorDirectory | None, spec: DeploymentSpec, namespace: str, *, make: bool
) -> Mapping[str, str]:
    if not spec.volumes:
        return {}
    if directory is None:
        raise ConfigurationError("volumes are folders under a state directory, and this client has none")
    if not make:
        return {v.name: str(directory.path / "volumes" / namespace / v.name) for v in spec.volumes}
    return {v.name: launch.volume_folder(directory, namespace, v.name) for v in spec.volumes}
