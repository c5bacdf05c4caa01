"""A template's environment: one text of docker flags (``-e K=V -p 3000:3000``). Pure.

How Vast splits that text is not documented, so only values that need no quoting go in, and what needs it is refused
before anything is sent. An instance takes a real mapping, where any text is fine, of 256 characters at most.
https://docs.vast.ai/api-reference/templates/create-template
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.driver import Tags, items, mapping

PLAIN: Final = re.compile(r"[A-Za-z0-9_./:,=@%+~^-]*")
"""What no shell and no splitting changes."""
ENTRY: Final = 256
"""Characters of one variable of an instance at most."""
TOTAL: Final = 32768
_PART: Final = 200
_PARTED: Final = re.compile(r"(UNIGPU_[A-Z]+)__(\d+)")


def flags(env: Mapping[str, str], ports: tuple[int, ...] = ()) -> str:
    """As docker flags. The caller has refused what is not `PLAIN`."""
    words = [f"-e {name}={value}" for name, value in env.items()]
    words += [f"-p {port}:{port}" for port in ports]
    return " ".join(words)


def fragile(env: Mapping[str, str]) -> list[str]:
    """The variables whose values cannot go into a template."""
    return sorted(name for name, value in env.items() if not PLAIN.fullmatch(value))


def too_long(env: Mapping[str, str]) -> list[str]:
    """The variables that are too long for an instance."""
    return sorted(name for name, value in env.items() if len(name) + len(value) + 1 > ENTRY)


def parted(constants: Mapping[str, str]) -> dict[str, str]:
    """Our constants for an instance: a long one in parts."""
    out: dict[str, str] = {}
    for name, value in constants.items():
        if len(name) + len(value) + 1 <= ENTRY:
            out[name] = value
            continue
        for n in range(0, len(value), _PART):
            out[f"{name}__{n // _PART}"] = value[n : n + _PART]
    return out


def read(env: Any) -> dict[str, str]:
    """What a template or an instance shows: flags, a mapping, or a list of pairs. What is neither is no variable."""
    found: dict[str, str] = {}
    if isinstance(env, str):
        try:
            words = shlex.split(env)
        except ValueError:
            words = env.split()
        for flag, word in itertools.pairwise(words):
            name, eq, value = word.partition("=")
            if flag == "-e" and eq:
                found[name] = value
    elif isinstance(env, Mapping):
        found = {name: str(value) for name, value in mapping(cast("object", env)).items()}
    else:
        for pair in items(env):
            if len(items(pair)) == 2:
                name, value = items(pair)
                found[str(name)] = str(value)
            elif isinstance(pair, str) and "=" in pair:
                name, _, value = pair.partition("=")
                found[name] = value
    return _joined(found)


def tags_in(env: Any) -> Tags:
    """Our constants in what a template or an instance shows."""
    return Tags.read(read(env))


def _joined(env: dict[str, str]) -> dict[str, str]:
    parts: dict[str, dict[int, str]] = {}
    for name in list(env):
        match = _PARTED.fullmatch(name)
        if match:
            parts.setdefault(match[1], {})[int(match[2])] = env.pop(name)
    return env | {name: "".join(text for _, text in sorted(pieces.items())) for name, pieces in parts.items()}
