"""What a caller gave, checked before anything is sent. Nothing here waits or sends."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, cast

from unigpu._io.contract import EncodedJSON
from unigpu.errors import ConfigurationError, InvalidInput, PayloadTooLarge
from unigpu.models import nearest
from unigpu.models.identity import NAME_PATTERN

_MAX_SECONDS: Final = 10 * 366 * 86400.0
_MAX_DEPTH: Final = 200


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


def choice(value: object, name: str, allowed: Iterable[object]) -> None:
    """Raise `ConfigurationError` unless *value* is one of the *allowed* ones."""
    known = tuple(allowed)
    if not any(value is one or (type(value) is type(one) and value == one) for one in known):
        near = nearest(value, [k for k in known if isinstance(k, str)]) if isinstance(value, str) else None
        raise ConfigurationError(
            f"{name}: give one of {', '.join(map(repr, known))}" + (f"; did you mean {near!r}?" if near else ".")
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


def address(text: str) -> tuple[str, str | None]:
    """``"summarize"`` or ``"summarize@vast"`` as name and provider.

    Raises:
        ConfigurationError: it cannot be a deployment's name.
    """
    name, at, provider = text.partition("@")
    if not re.fullmatch(NAME_PATTERN, name) or (at and not provider):
        raise ConfigurationError(
            f"{text[:80]!r} is no deployment: give a handle, a name (lower-case letters, digits and hyphens, a letter "
            'first, at most 63), or an address as in "summarize@runpod".'
        )
    return name, provider or None


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


def unknown_field(name: str, fields: Iterable[str], parameters: Iterable[str]) -> ConfigurationError:
    """For a keyword that is neither a spec field nor a parameter: the nearest of both."""
    near = nearest(name, [*fields, *parameters])
    return ConfigurationError(
        f"{name}=: there is no such spec field or parameter" + (f"; did you mean {near}=?" if near else ".")
    )
