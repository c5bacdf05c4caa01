"""From a spec to the bodies of the supervisor's requests. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from unigpu.driver import DeploymentSpec, Identity, Scaling

_VOLUME: Final = re.compile(r"\$\{volume\.([^}]*)\}")
_UNSENT: Final = frozenset({"secrets", "registry"})


def put_body(
    spec: DeploymentSpec,
    identity: Identity,
    *,
    workers: tuple[int, int],
    idle_timeout: float,
    scaling: Mapping[str, Any] | None,
    origin: str | None,
    cwd: str,
    python: str,
    env: Mapping[str, str],
    folders: Mapping[str, str],
) -> dict[str, Any]:
    """The body of a PUT: what is to run, with the values of its secrets in ``launch.env`` alone.

    Args:
        env: Secrets and whatever else the spec's ``env`` does not say.
        folders: Volume name → folder.
    """
    declared = {name: _with_folders(value, folders) for name, value in spec.env.items()}
    return {
        "name": identity.name,
        "namespace": identity.namespace,
        "attempt": identity.attempt,
        "spec_hash": identity.spec_hash,
        "interface": spec.interface,
        "kind": spec.kind,
        "workers": {"min": workers[0], "max": workers[1]},
        "idle_timeout": idle_timeout,
        "scaling": scaling,
        "execution_timeout": spec.execution_timeout,
        "concurrency": spec.concurrency,
        "idempotent": spec.idempotent,
        "expires_at": identity.expires_at,
        "origin": origin,
        "constants": dict(identity.constants),
        "spec": stated(spec),
        "launch": {
            "argv": [_with_folders(word, folders) for word in spec.command or ()],
            "handler": spec.handler,
            "env": {**env, **declared},
            "cwd": cwd,
            "python": python,
            "port": spec.port,
        },
    }


def stated(spec: DeploymentSpec) -> dict[str, Any]:
    """The stated fields as JSON, so that another process can change one of them; of secrets the names only."""
    fields: dict[str, Any] = spec.model_dump(mode="json", include=set(spec.stated - _UNSENT), exclude_unset=True)
    if "secrets" in spec.stated:
        fields["secrets"] = sorted(spec.secrets)
    return fields


def scaling_of(scaling: Scaling | None) -> dict[str, Any] | None:
    return None if scaling is None else scaling.model_dump()


def patch_body(
    workers: tuple[int, int] | None, idle_timeout: float | None, scaling: Mapping[str, Any] | None
) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if workers is not None:
        body["workers"] = {"min": workers[0], "max": workers[1]}
    if idle_timeout is not None:
        body["idle_timeout"] = idle_timeout
    if scaling is not None:
        body["scaling"] = scaling
    return body


def _with_folders(text: str, folders: Mapping[str, str]) -> str:
    return _VOLUME.sub(lambda found: folders[found.group(1)], text)
