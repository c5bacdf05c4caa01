"""How single spec values are read: durations, ranges, handlers, environment names."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Final

from pydantic import Field, SecretStr

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]

_ENV_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
_DURATION: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?\s*$")
_UNITS: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_AREAS: Final = frozenset({"EU", "NA", "APAC"})
RESERVED_ENV: Final = "UNIGPU_"


def duration(value: object) -> object:
    """Seconds, from a number or from ``"90s"``, ``"15m"``, ``"6h"``, ``"2d"``."""
    if isinstance(value, str):
        found = _DURATION.match(value)
        if not found:
            raise ValueError('give seconds, or a text such as "90s", "15m", "6h", "2d"')
        return float(found.group(1)) * _UNITS[found.group(2)]
    if isinstance(value, bool):
        raise ValueError('give seconds, or a text such as "90s", "15m", "6h", "2d"')
    if isinstance(value, int | float) and not math.isfinite(value):
        raise ValueError("give a finite number of seconds; ttl=None means for ever")
    return value


def worker_range(value: object) -> tuple[int, int]:
    """``(least, most)`` from ``n`` or a pair."""
    if isinstance(value, int) and not isinstance(value, bool):
        pair: tuple[object, ...] = (value, value)
    elif isinstance(value, list | tuple):
        pair = tuple(value)
    else:
        raise ValueError("give a number of workers, or (least, most)")
    if len(pair) != 2 or not all(isinstance(n, int) and not isinstance(n, bool) for n in pair):
        raise ValueError("give a number of workers, or (least, most)")
    least, most = (int(n) for n in pair if isinstance(n, int))
    if least < 0:
        raise ValueError("the least number of workers is 0 or more")
    if most < 1:
        raise ValueError("the most is 1 or more: a deployment without any worker cannot answer; stop() pauses one")
    if least > most:
        raise ValueError(f"the least ({least}) is more than the most ({most}); it is (least, most)")
    if most > 10_000:
        raise ValueError("the most is 10000 or less")
    return least, most


def handler_target(value: object) -> object:
    """``"module:name"`` or ``"file.py:name"``, also from a function or class."""
    if value is None or isinstance(value, str):
        return None if value is None else _checked_target(value)
    module = getattr(value, "__module__", None)
    qualname = getattr(value, "__qualname__", None)
    if not callable(value) or not isinstance(module, str) or not isinstance(qualname, str):
        raise ValueError('give "module:name", "file.py:name", or a function or class defined in a module')
    if module == "__main__":
        raise ValueError(
            f"{qualname} is defined in __main__, which a worker cannot import; move it into a file of its own, "
            f'say app.py, and give handler="app.py:{qualname}" or import it from there'
        )
    if "<" in qualname or "." in qualname:
        raise ValueError(f"{module}:{qualname} is not at the top of its module, so a worker cannot import it")
    return f"{module}:{qualname}"


def _checked_target(text: str) -> str:
    where, colon, name = text.rpartition(":")
    if not colon or not where or not name.isidentifier():
        raise ValueError('give "module:name" or "file.py:name", as in "app:summarize"')
    if where.endswith(".py"):
        if "\0" in where or not PurePath(where).name:
            raise ValueError("that is not a file's path")
    elif not all(part.isidentifier() for part in where.split(".")):
        raise ValueError('give "module:name" or "file.py:name", as in "app:summarize"')
    return text


def shell_words(value: object) -> object:
    """A command as words; a text is split as a shell would, without running one."""
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as exc:
            raise ValueError(f"this command cannot be split into words: {exc}") from None
    if isinstance(value, list | tuple):
        words = tuple(value)
        if not words:
            raise ValueError("the command is empty")
        if any(isinstance(w, str) and "\0" in w for w in words):
            raise ValueError("a command has no NUL characters")
        return words
    return value


def env_map(value: object) -> object:
    """Environment variables: names checked, numbers and booleans made text, ``UNIGPU_`` kept for us."""
    if not isinstance(value, Mapping):
        return value
    out: dict[str, str] = {}
    for name, text in value.items():
        _check_env_name(name)
        if isinstance(text, SecretStr):
            raise ValueError(f"{name}: a secret belongs in secrets=, not in env=")  # noqa: TRY004 - pydantic wants ValueError
        if isinstance(text, bool):
            text = "true" if text else "false"
        elif isinstance(text, int | float):
            text = str(text)
        if not isinstance(text, str):
            raise ValueError(f"{name}: the value is text")  # noqa: TRY004 - pydantic wants ValueError
        if "\0" in text:
            raise ValueError(f"{name}: the value has a NUL character")
        out[name] = text
    return out


def secret_map(value: object) -> object:
    """Secrets: names to be read from the environment later, or a mapping to values or references."""
    if isinstance(value, str):
        raise ValueError('give a list of names, as in secrets=["HF_TOKEN"], or a mapping of names to values')
    if isinstance(value, list | tuple | set | frozenset):
        names = list(value)
        for name in names:
            _check_env_name(name)
        return dict.fromkeys(names)
    if isinstance(value, Mapping):
        for name in value:
            _check_env_name(name)
        return dict(value)
    return value


def _check_env_name(name: object) -> None:
    if not isinstance(name, str) or not _ENV_NAME.match(name):
        raise ValueError(f"{name!r} is not a name of an environment variable")
    if name.startswith(RESERVED_ENV):
        raise ValueError(f"{name}: names that begin with {RESERVED_ENV} are unigpu's own")


def mount_path(value: object) -> object:
    if isinstance(value, str) and (not value.startswith("/") or ".." in value.split("/") or "\0" in value):
        raise ValueError("a mount path is absolute and has no ..")
    return value


def regions(value: object) -> object:
    """ISO country codes, and the areas EU, NA and APAC."""
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list | tuple):
        out: list[str] = []
        for item in value:
            code = item.upper() if isinstance(item, str) else ""
            if code not in _AREAS and not re.match(r"^[A-Z]{2}$", code):
                raise ValueError(
                    f'{item!r} is no ISO country code ("US", "DE") and not one of {", ".join(sorted(_AREAS))}; '
                    "a platform's own region ids go into provider_options"
                )
            out.append(code)
        if not out:
            raise ValueError("the list of regions is empty; leave it out for any region")
        return tuple(dict.fromkeys(out))
    return value


def check_json(value: object, *, what: str) -> None:
    """Raise `ValueError` unless *value* is plain JSON."""
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{what}: {value} is not JSON")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{what}: keys are text")  # noqa: TRY004 - pydantic wants ValueError
            check_json(item, what=f"{what}.{key}")
        return
    if isinstance(value, list | tuple):
        for i, item in enumerate(value):
            check_json(item, what=f"{what}[{i}]")
        return
    raise ValueError(f"{what}: {type(value).__name__} is not JSON")


def json_path(value: Any) -> str | None:
    """Where *value* is not JSON, as in ``"$.items[3]"``; ``None`` where it is."""
    try:
        check_json(value, what="$")
    except ValueError as exc:
        return str(exc)
    return None
