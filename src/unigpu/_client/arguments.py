"""What a caller gave, checked before anything is sent. Nothing here waits or sends.

Checks of single values take anything, because users without a type checker give anything, and return the narrowed type.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar, cast

from unigpu._io.contract import EncodedJSON
from unigpu._lifecycle import IfExists, OnFailure, OnTimeout, Wait
from unigpu.errors import ConfigurationError, InvalidInput, PayloadTooLarge
from unigpu.models import DeploymentInfo, DeploymentSpec, Interface, Kind, nearest
from unigpu.models.identity import NAME_PATTERN
from unigpu.models.spec import Secrets

from .known import Seen

T = TypeVar("T")

OnUnsupported = Literal["raise", "adapt"]

IF_EXISTS: Final[tuple[IfExists, ...]] = ("reuse", "error", "replace")
INTERFACES: Final[tuple[Interface, ...]] = ("function", "http")
KINDS: Final[tuple[Kind, ...]] = ("serverless", "pod")
ON_FAILURE: Final[tuple[OnFailure, ...]] = ("teardown", "keep")
ON_TIMEOUT: Final[tuple[OnTimeout, ...]] = ("cancel", "keep")
ON_UNSUPPORTED: Final[tuple[OnUnsupported, ...]] = ("raise", "adapt")
WAIT: Final[tuple[Wait, ...]] = (True, False, "worker")

BY_ID: Final = "id:"
"""Begins the address of an endpoint that is called by its id on the platform."""

_MAX_SECONDS: Final = 10 * 366 * 86400.0
_MAX_DEPTH: Final = 200
# Parameters of deploy, update and plan: what a mistyped keyword may have been meant to be.
_PARAMETERS: Final = (
    "spec", "provider", "wait", "timeout", "if_exists", "ephemeral", "on_unsupported", "on_failure", "settle",
    "progress",
)  # fmt: skip


def seconds(value: object, name: str) -> float:
    """A time to wait.

    Raises:
        ConfigurationError: no finite number of seconds, or a negative one.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _MAX_SECONDS:
        raise ConfigurationError(f"{name}: give seconds as a finite number that is not negative.")
    return float(value)


def seconds_or_none(value: object, name: str) -> float | None:
    return None if value is None else seconds(value, name)


def choice(value: object, name: str, allowed: Sequence[T]) -> T:
    """*value*, as one of the *allowed* ones.

    Raises:
        ConfigurationError: it is none of them; names the nearest.
    """
    for one in allowed:
        if value is one or (type(value) is type(one) and value == one):
            return one
    near = nearest(value, [one for one in allowed if isinstance(one, str)]) if isinstance(value, str) else None
    raise ConfigurationError(
        f"{name}: give one of {', '.join(map(repr, allowed))}" + (f"; did you mean {near!r}?" if near else ".")
    )


def flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}: give True or False.")
    return value


def count(value: object, name: str, *, least: int = 1, most: int = 100_000) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ConfigurationError(f"{name}: give a whole number from {least} to {most}.")
    return value


def text_or_none(value: object, name: str) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(f"{name}: give a text that is not empty.")
    return value


def provider_name(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError('provider: give a name, as in "runpod".')
    return value


def provider_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """One provider's name, or several, each once."""
    try:
        given = (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        raise ConfigurationError("provider: give a name, or several.") from None
    return tuple(dict.fromkeys(map(provider_name, given)))


def endpoint_id(value: object) -> str:
    """The id, or the name on the platform, of an endpoint that unigpu did not create.

    Raises:
        ConfigurationError: it cannot be one.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable() or len(value) > 200 or "@" in value:
        raise ConfigurationError('id: give the endpoint\'s id on the platform, as in get(id="4nz8u2rlh5ts1a").')
    return value


def route_or_none(value: object) -> str | None:
    if value is not None and (not isinstance(value, str) or not value.startswith("/")):
        raise ConfigurationError('route: give a path, as in "/generate".')
    return value


def address(value: object, provider: str | None = None) -> tuple[str, str | None]:
    """``"summarize"``, ``"summarize@vast"`` or ``"id:4nz8u2rlh5ts1a@runpod"`` as name and provider.

    The name of an endpoint that is called by its id keeps the prefix `BY_ID`.

    Args:
        provider: What ``provider=`` says beside it.

    Raises:
        ConfigurationError: it cannot be a deployment's name, or the two providers differ.
    """
    if not isinstance(value, str):
        raise ConfigurationError(f"give a deployment's handle, name or address, not {type(value).__name__}.")
    name, at, where = value.partition("@")
    if name.startswith(BY_ID):
        endpoint_id(name.removeprefix(BY_ID))
    elif not re.fullmatch(NAME_PATTERN, name) or (at and not where):
        raise ConfigurationError(
            f"{value[:80]!r} is no deployment: give a handle, a name (lower-case letters, digits and hyphens, a letter "
            'first, at most 63), or an address as in "summarize@runpod" or "id:4nz8u2rlh5ts1a@runpod".'
        )
    if where and provider is not None and provider != where:
        raise ConfigurationError(f"provider={provider!r}, and the address says {where!r}: which one?")
    return name, where or (None if provider is None else provider_name(provider))


def check_fields(fields: Iterable[str]) -> None:
    """Raise `ConfigurationError` for a keyword that is no spec field, with the nearest field or parameter."""
    for name in fields:
        if name not in DeploymentSpec.model_fields:
            near = nearest(name, [*DeploymentSpec.model_fields, *_PARAMETERS])
            raise ConfigurationError(
                f"{name}=: there is no such spec field or parameter" + (f"; did you mean {near}=?" if near else ".")
            )


def whole_spec(seen: Seen) -> DeploymentSpec:
    """All stated fields of what runs: as the platform returns them (local does), else as this handle deployed them.

    No platform returns the values of secrets; those that this handle was given are kept.
    """
    stated: object = seen.info.details.get("spec")
    if not isinstance(stated, Mapping):
        if seen.spec is not None:
            return seen.spec
        raise ConfigurationError(
            f"{seen.label}: {seen.info.provider} does not tell the whole spec of what runs, "
            "so single fields cannot be changed from here.",
            provider=seen.info.provider,
            hint='Give the whole spec: deploy(..., if_exists="replace").',
        )
    spec = DeploymentSpec.model_validate(dict(cast("Mapping[str, Any]", stated)))
    kept: Secrets = {} if seen.spec is None else seen.spec.secrets
    values = {name: kept.get(name) if value is None else value for name, value in spec.secrets.items()}
    return spec.with_changes(secrets=values) if spec.secrets else spec


def declared(
    info: DeploymentInfo, *, interface: Interface | None, port: int | None, route: str | None = None
) -> DeploymentInfo:
    """*info* with what the caller says of it, where the platform cannot tell."""
    given: dict[str, str | int | None] = {"interface": interface, "port": port, "route": route}
    changes = {name: one for name, one in given.items() if one is not None and one != getattr(info, name)}
    for name, one in changes.items():
        if name not in info.assumed:
            raise ConfigurationError(
                f"{name}={one!r}: {info.provider} says {getattr(info, name)!r} of {info.name}.",
                provider=info.provider,
            )
    return info.model_copy(update=changes) if changes else info


def job_input(value: object) -> EncodedJSON:
    """A call's input, checked and encoded: the only time, and before anything waits, so that what the caller changes
    later is not sent.

    Raises:
        InvalidInput: it is no object, or something in it is not JSON; the error has the path.
    """
    if isinstance(value, EncodedJSON):
        return value
    if not isinstance(value, Mapping):
        raise InvalidInput(f"the input is a JSON object (a dict), not {type(value).__name__}.", path="$")
    plain = _plain(cast("object", value), "$", 0)
    try:
        return EncodedJSON(json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        raise InvalidInput("a text in the input has half of a surrogate pair, which is not Unicode.") from None
    except ValueError as exc:  # an integer beyond Python's own limit of digits
        raise InvalidInput(f"the input is not JSON: {exc}.") from None


def check_size(input: EncodedJSON, limit: int) -> None:
    """Raise `PayloadTooLarge` where an input is above what the platform takes, in bytes."""
    size = len(input.data)
    if size > limit:
        raise PayloadTooLarge(
            f"the input has {size} bytes; the platform takes {limit}.",
            limit=limit,
            size=size,
            hint="Put large data where the worker can fetch it, and send the address.",
        )


def _plain(value: object, path: str, depth: int) -> object:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{path}: {value} is not JSON.", path=path)
        return value
    if depth > _MAX_DEPTH:
        raise InvalidInput(f"{path}: nested deeper than {_MAX_DEPTH} levels.", path=path)
    if isinstance(value, Mapping):
        out: dict[str, object] = {}
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str):
                raise InvalidInput(f"{path}: a key is {type(key).__name__}; JSON has text keys only.", path=path)
            out[key] = _plain(item, f"{path}.{key}", depth + 1)
        return out
    if isinstance(value, list | tuple):
        items = cast("list[object] | tuple[object, ...]", value)
        return [_plain(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(items)]
    raise InvalidInput(
        f"{path}: {type(value).__name__} is not JSON.", path=path, hint="Send text, numbers, lists and objects only."
    )
