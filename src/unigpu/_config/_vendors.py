"""The vendors' own places for a key, read and never written: a user who set up their tool has set up this one.

Shapes: RunPod's Python package keeps ``[default] api_key`` in ``~/.runpod/config.toml``, its command line tool a
top-level ``apikey`` in the same file; Vast a file with nothing but the key; Yotta's command line an INI file of
profiles, and SkyPilot's driver for it lines ``apikey=...``.
"""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ..errors import ConfigurationError
from ._files import check_private, config_home, home, isolation, parse, read

_NAMES: Final = ("api_key", "apikey", "api-key", "token")
VARIABLES: Final[Mapping[str, tuple[str, ...]]] = {"vast": ("VASTAI_API_KEY",)}
"""Further names under which a vendor's key is met in the environment."""


@dataclass(frozen=True, slots=True)
class Place:
    """One file that may hold a vendor's key."""

    file: Path
    key_in: Callable[[Path], str | None]


def vendor_key(provider: str) -> tuple[str, Path] | None:
    """The key that a vendor's own tool keeps for this user, and its file; ``None``: there is none.

    Raises:
        ConfigurationError: a file holds a key and others can read it, or it cannot be read.
    """
    for place in () if isolation() else places(provider):
        try:
            if not place.file.is_file():
                continue
        except OSError:
            continue
        found = place.key_in(place.file)
        if found:
            check_private(place.file)
            return found, place.file
    return None


def places(provider: str) -> Iterator[Place]:
    """Where a vendor's tools keep the key, in the vendor's own order."""
    base, own = config_home(), home()
    if provider == "runpod" and own is not None:
        yield Place(own / ".runpod" / "config.toml", _toml_key)
    if provider == "runpod" and base is not None:
        yield Place(base / "runpod" / "credentials.toml", _toml_key)
    if provider == "vast" and base is not None:
        yield Place(base / "vastai" / "vast_api_key", _plain_key)
    if provider == "vast" and own is not None:
        yield Place(own / ".vast_api_key", _plain_key)
    if provider == "yotta" and own is not None:
        yield Place(own / ".yotta" / "config", _ini_key)
        yield Place(own / ".yotta" / "credentials", _line_key)


def _plain_key(file: Path) -> str | None:
    text = read(file).strip()
    return text if text and len(text.split()) == 1 else None


def _toml_key(file: Path) -> str | None:
    content = parse(file)
    profile = content.get(os.environ.get("RUNPOD_PROFILE") or "default")
    tables = [cast("Mapping[str, Any]", t) for t in (profile, content) if isinstance(t, Mapping)]
    return next((str(t[n]) for t in tables for n in _NAMES if isinstance(t.get(n), str) and t[n]), None)


def _ini_key(file: Path) -> str | None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read(file))
    except configparser.Error:
        raise ConfigurationError(f"{file} cannot be read: it is not an INI file.") from None
    sections = ["default", *parser.sections()]
    wanted = os.environ.get("YOTTA_PROFILE")
    for name in [wanted] if wanted else sections:
        section: Mapping[str, str] = {}
        if parser.has_section(name):
            section = dict(parser[name])
        elif name == "default":
            section = parser.defaults()
        for key in _NAMES:
            if section.get(key):
                return section[key].strip()
    return None


def _line_key(file: Path) -> str | None:
    for line in read(file).splitlines():
        name, _, value = line.partition("=")
        if name.strip().lower() in _NAMES and value.strip():
            return value.strip().strip("\"'")
    return None
