"""The identity of a deployment: the hash of its spec, and the constants that are written on the platform.

The hash is ``1:`` + 16 hex digits of the whole + ``,field=6 hex digits`` for each stated field whose value is not the
default. So the fields that differ can be named without a copy of the spec, and a later release with new fields does not
change the hashes of old specs. The hash has no space or quote, because on Vast it is part of an env string. Of secrets
only the names are hashed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from unigpu.driver import BearerToken, Content, DeploymentSpec, Identity, Tags
from unigpu.models.spec import SCALED

HASH_VERSION: Final = "1"
CODE: Final = "code"
"""The content item that may differ between two versions of one deployment."""

# Not part of what runs: the name is the identity itself, the ttl is fixed at creation, what `scale` changes is compared
# by value, and `accept` is a permission, which changes nothing on the platform.
_LEFT_OUT: Final = SCALED | {"name", "ttl", "accept"}


def spec_hash(spec: DeploymentSpec, content: Content, *, provider: str) -> str:
    """The hash of *spec* on *provider*, in the form that is stored on the platform."""
    parts = _parts(spec, content, provider)
    whole = hashlib.sha256("\n".join(f"{k}={v}" for k, v in parts.items()).encode()).hexdigest()[:16]
    return ",".join((f"{HASH_VERSION}:{whole}", *(f"{name}={value[:6]}" for name, value in parts.items())))


def compared(spec: DeploymentSpec, content: Content, *, provider: str) -> frozenset[str]:
    """The fields that are compared with an existing deployment: what the spec states, never a default."""
    stated = {name for name in spec.stated if name not in _LEFT_OUT}
    if "provider_options" in stated and provider not in spec.provider_options:
        stated.discard("provider_options")  # a block for another provider only
    if stated & {"handler", "command"}:
        stated.add(CODE)  # the program is stated, so its content counts, even where one side has none
    return frozenset(stated | set(content.items))


def differing(old: str | None, new: str, stated: frozenset[str]) -> tuple[str, ...] | None:
    """The stated fields in which two hashes differ, sorted; ``None`` where they cannot be compared.

    A stated field that equals its default is in neither hash. It still counts: it differs where the existing deployment
    has another value.
    """
    before, after = _parse(old), _parse(new)
    if before is None or after is None:
        return None
    fields = sorted(name for name in stated if before[1].get(name) != after[1].get(name))
    if not fields and before[0] != after[0] and before[1] == after[1]:
        return tuple(sorted(after[1]))  # equal short digests, different whole: one digest is a collision
    return tuple(fields)


def new_attempt() -> str:
    """A random id of one create call."""
    return uuid.uuid4().hex


def identity_of(
    spec: DeploymentSpec,
    *,
    provider: str,
    namespace: str,
    spec_hash: str,
    attempt: str,
    expires_at: float | None,
) -> Identity:
    """The identity of this call's deployment, with the constants that another process needs to use it by name."""
    route = spec.options(provider).get("route")
    constants = Tags(
        name=spec.name,
        namespace=namespace,
        spec_hash=spec_hash,
        attempt=attempt,
        execution_timeout=spec.execution_timeout,
        concurrency=spec.concurrency,
        interface=spec.interface,
        worker_protocol="1" if is_own_worker(spec, provider) else "foreign",
        idempotent=spec.idempotent,
        route=route if isinstance(route, str) else None,
        auth_env=spec.auth.env if isinstance(spec.auth, BearerToken) else None,
        port=spec.port,
        expires_at=expires_at,
    ).write()
    return Identity(
        name=spec.name,
        namespace=namespace,
        attempt=attempt,
        spec_hash=spec_hash,
        constants=constants,
        expires_at=expires_at,
    )


def is_own_worker(spec: DeploymentSpec, provider: str) -> bool:
    """Whether the container runs our portable worker (protocol 1), as far as the spec says."""
    if spec.handler is not None:
        return True
    return spec.interface == "function" and spec.command is None and "route" not in spec.options(provider)


def _parts(spec: DeploymentSpec, content: Content, provider: str) -> dict[str, str]:
    """Field → digest of its canonical value, sorted, without what equals the default."""
    fields: dict[str, str] = {}
    for name in spec.stated - _LEFT_OUT:
        field = type(spec).model_fields[name]
        value: Any = getattr(spec, name)
        if name == "provider_options":
            value = spec.options(provider)
            if not value:
                continue
        elif value == field.get_default(call_default_factory=True):
            continue
        fields[name] = _digest(_canonical_field(name, value))
    fields.update({name: _digest(text) for name, text in content.items.items()})
    return dict(sorted(fields.items()))


def _canonical_field(name: str, value: Any) -> Any:
    if name == "secrets":
        return sorted(value)  # names only: a hash must not give away a value
    plain = _canonical(value)
    if name in ("gpu", "regions"):  # a set of acceptable ones
        return sorted(plain, key=lambda item: json.dumps(item, sort_keys=True))
    return plain


def _canonical(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return None
    if isinstance(value, BaseModel):
        # Without defaults, so that a field that a later release adds changes no old hash.
        set_ = {
            name: getattr(value, name)
            for name, field in type(value).model_fields.items()
            if getattr(value, name) != field.get_default(call_default_factory=True)
        }
        return {name: _canonical(item) for name, item in sorted(set_.items())}
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in sorted(value.items())}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType] - any JSON
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]  # pyright: ignore[reportUnknownVariableType] - any JSON
    if isinstance(value, frozenset | set):
        return sorted(_canonical(item) for item in value)  # pyright: ignore[reportUnknownVariableType] - any JSON
    return value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _parse(text: str | None) -> tuple[str, dict[str, str]] | None:
    if not text or not text.startswith(f"{HASH_VERSION}:"):
        return None
    whole, *fields = text.split(",")
    pairs = [field.partition("=") for field in fields]
    if any(not eq for _, eq, _ in pairs):
        return None
    return whole, {name: value for name, _, value in pairs}
