"""How single spec values are read: durations, ranges, handlers, environment names."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Final, Literal, cast, get_args

from pydantic import Field, SecretStr

from ._model_kinds import nearest
from .identity import NAME_PATTERN

EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=200)]

_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")
_NAME: Final = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z")
_IMAGE: Final = re.compile(r"[!-~]{1,500}\Z")
_DURATION: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?\s*\Z")
_UNITS: Final = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION_HELP: Final = 'give seconds, or a text such as "90s", "15m", "6h", "2d"'
_LONGEST: Final = 100 * 366 * 86400.0
RESERVED_ENV: Final = "UNIGPU_"
MOST_WORKERS: Final = 10_000


def logical_name(value: object) -> object:
    """A deployment's or a volume's own name.

    Raises:
        ValueError: it is not of the form.
    """
    if isinstance(value, str) and not _NAME.match(value):
        raise ValueError('a name is 1 to 63 small letters, digits and "-", and begins with a letter')
    return value


def image_reference(value: object) -> object:
    """A container image, as registries write it: what it names is the registry's matter.

    Raises:
        ValueError: it is empty, too long, or has a space or a control character.
    """
    if isinstance(value, str) and not _IMAGE.match(value):
        raise ValueError('an image is named as in "ghcr.io/me/app:1.2": up to 500 characters without spaces')
    return value


def duration(value: object) -> object:
    """Seconds, from a number or from ``"90s"``, ``"15m"``, ``"6h"``, ``"2d"``.

    Raises:
        ValueError: it is neither, or not finite, or longer than a hundred years.
    """
    if isinstance(value, str):
        found = _DURATION.match(value)
        if not found:
            raise ValueError(_DURATION_HELP)
        value = float(found.group(1)) * _UNITS[found.group(2)]
    if isinstance(value, bool):
        raise ValueError(_DURATION_HELP)
    # Comparing works for whole numbers of any size, which `float` and `math.isfinite` refuse.
    if isinstance(value, int | float) and not -_LONGEST <= value <= _LONGEST:
        raise ValueError("give at most a hundred years, in seconds; ttl=None means for ever")
    return value


def worker_range(value: object) -> tuple[int, int]:
    """``(least, most)`` from ``n`` or a pair.

    Raises:
        ValueError: it is neither, or leaves no worker at all.
    """
    pair: tuple[object, ...] = ()
    if isinstance(value, int) and not isinstance(value, bool):
        pair = (value, value)
    elif isinstance(value, list | tuple):
        pair = tuple(cast("list[object] | tuple[object, ...]", value))
    numbers = [n for n in pair if isinstance(n, int) and not isinstance(n, bool)]
    if len(pair) != 2 or len(numbers) != 2:
        raise ValueError("give a number of workers, or (least, most)")
    least, most = numbers
    if least < 0:
        raise ValueError("the least number of workers is 0 or more")
    if most < 1:
        raise ValueError("the most is 1 or more: a deployment without any worker cannot answer; stop() pauses one")
    if least > most:
        raise ValueError("the least is more than the most; it is (least, most)")
    if most > MOST_WORKERS:
        raise ValueError(f"the most is {MOST_WORKERS} or less")
    return least, most


def handler_target(value: object) -> object:
    """``"module:name"`` or ``"file.py:name"``, also from a function or class."""
    if value is None or isinstance(value, str):
        return None if value is None else _checked_target(value)
    module = getattr(value, "__module__", None)
    qualname = getattr(value, "__qualname__", None)
    if not callable(value) or not isinstance(module, str) or not isinstance(qualname, str):
        raise ValueError(
            'give "module:name", "file.py:name", or a function or class at the top of a module; of an object that is '
            "called give its class, and instead of a partial a function"
        )
    if "<" in qualname or "." in qualname:
        raise ValueError(
            f"{qualname} is not at the top of its module, so a worker cannot import it; write a function or a class "
            "there"
        )
    if module == "__main__":
        raise ValueError(
            f"{qualname} is defined in __main__, which a worker cannot import; move it into a file of its own, "
            f'say app.py, and give handler="app.py:{qualname}" or import it from there'
        )
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
    """A command as words; a text is split as a shell would, without running one.

    Raises:
        ValueError: it is empty, cannot be split, or has a NUL character.
    """
    if isinstance(value, str):
        try:
            value = shlex.split(value)
        except ValueError as exc:
            raise ValueError(f"this command cannot be split into words: {exc}") from None
    if isinstance(value, list | tuple):
        words = tuple(cast("list[object] | tuple[object, ...]", value))
        if not words:
            raise ValueError("the command is empty")
        if any(isinstance(w, str) and "\0" in w for w in words):
            raise ValueError("a command has no NUL characters")
        return words
    return value


Risk = Literal["secrets_on_shared_hosts"]
"""What a user may accept with ``accept=``; the refusal of each names it."""


def accepted_risks(value: object) -> object:
    """``accept=`` as a sorted tuple; a text is one word.

    Raises:
        ValueError: a word that names no risk.
    """
    words = (value,) if isinstance(value, str) else value
    if not isinstance(words, list | tuple):
        return value
    known: tuple[str, ...] = get_args(Risk)
    for word in cast("list[object] | tuple[object, ...]", words):
        if word not in known:
            near = nearest(str(word), known)
            raise ValueError(
                f"{word!r} is not a risk that can be accepted"
                + (f"; did you mean {near!r}?" if near else "")
                + f" Known: {', '.join(known)}."
            )
    return tuple(sorted(set(cast("list[str] | tuple[str, ...]", words))))


def env_map(value: object) -> object:
    """Environment variables: names checked, numbers and booleans made text, ``UNIGPU_`` kept for us.

    Raises:
        ValueError: a name that cannot be, or a value that is no text. It names the variable, never the value.
    """
    if not isinstance(value, Mapping):
        return value
    out: dict[str, str] = {}
    for name, text in cast("Mapping[object, object]", value).items():
        checked = _env_name(name)
        if isinstance(text, SecretStr):
            raise ValueError(f"{checked}: a secret belongs in secrets=, not in env=")
        if isinstance(text, bool):
            text = "true" if text else "false"
        elif isinstance(text, int | float):
            text = _number(text)
        if not isinstance(text, str):
            raise ValueError(f"{checked}: the value is text")
        if "\0" in text:
            raise ValueError(f"{checked}: the value has a NUL character")
        out[checked] = text
    return out


def _number(value: float) -> str:
    try:
        return str(value)
    except ValueError:  # Python refuses to print whole numbers of thousands of digits
        raise ValueError("the value is a number of thousands of digits; give it as text") from None


def secret_map(value: object) -> object:
    """Secrets: names to be read from the environment later, or a mapping to values or references.

    Raises:
        ValueError: a name that cannot be. It tells its place in a list: what stands there may be the secret itself.
    """
    if isinstance(value, str):
        raise ValueError('give a list of names, as in secrets=["HF_TOKEN"], or a mapping of names to values')
    if isinstance(value, list | tuple | set | frozenset):
        names = list(cast("list[object]", value))
        return dict.fromkeys([_env_name(name, f"item {i + 1}") for i, name in enumerate(names)])
    if isinstance(value, Mapping):
        given = cast("Mapping[object, object]", value)
        out = {_env_name(name, f"key {i + 1}"): item for i, (name, item) in enumerate(given.items())}
        empty = [name for name, item in out.items() if _plain(item) == ""]
        if empty:
            raise ValueError(f"{', '.join(empty)}: the value is empty")
        nul = [name for name, item in out.items() if "\0" in (_plain(item) or "")]
        if nul:
            raise ValueError(f"{', '.join(nul)}: the value has a NUL character")
        return out
    return value


def _plain(item: object) -> str | None:
    if isinstance(item, SecretStr):
        return item.get_secret_value()
    return item if isinstance(item, str) else None


def _env_name(name: object, place: str | None = None) -> str:
    if not isinstance(name, str) or not _ENV_NAME.match(name):
        what = place or (ascii(name) if isinstance(name, str) else "a key")
        raise ValueError(f"{what} is not a name of an environment variable")
    if name.startswith(RESERVED_ENV):
        raise ValueError(f"{place or name}: names that begin with {RESERVED_ENV} are unigpu's own")
    return name


def mount_path(value: object) -> object:
    """Where a volume is mounted.

    Raises:
        ValueError: it is not absolute, is the root, or has a ``..``.
    """
    if isinstance(value, str):
        parts = [part for part in value.split("/") if part not in ("", ".")]
        if not value.startswith("/") or not parts or ".." in parts or "\0" in value:
            raise ValueError("a mount path is absolute, is not the root, and has no ..")
        return "/" + "/".join(parts)
    return value
