"""The vendors' own places for a key, read and never written: a user who set up their tool has set up this one.

Shapes: RunPod's Python package and flash keep ``[default] api_key`` in ``~/.runpod/config.toml``
(https://github.com/runpod/runpod-python, ``runpod/cli/groups/config/functions.py``; another profile is named by a flag
of its commands, by no variable), its command line tool a top-level ``apikey`` in the same file
(https://github.com/runpod/runpodctl, ``cmd/initconfig_test.go``), and early releases of flash a bare ``api_key`` in
``$XDG_CONFIG_HOME/runpod/credentials.toml`` (https://github.com/runpod/flash, ``core/credentials.py``).

Vast keeps a file with nothing but the key, in ``$XDG_CONFIG_HOME/vastai/vast_api_key``, and before that in
``~/.vast_api_key`` (https://pypi.org/project/vastai/1.9.1/, ``_base.py``; its variable is ``VAST_API_KEY`` and no
other). Yotta's command line keeps an INI file of profiles with ``api_key`` and ``base_url``
(``[default]`` unless its ``--profile`` says otherwise; no variable names one:
https://github.com/yottalabsai/YottaML, ``src/yottaml_cli/config.py``), and SkyPilot's driver for it
``~/.yotta/credentials`` with lines ``orgId=...`` and ``apikey=...``
(https://github.com/yottalabsai/skypilot, ``sky/provision/yotta/yotta_utils.py``).
"""

from __future__ import annotations

import configparser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ..errors import ConfigurationError
from .files import check_private, config_home, home, isolation, parse, read

_NAMES: Final = ("api_key", "apikey", "api-key", "token")
_RUNPOD_NAMES: Final = ("api_key", "apikey")
_YOTTA_PROFILE: Final = "default"
_YOTTA_BASE: Final = "https://api.yottalabs.ai"


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
    tables = [cast("Mapping[str, Any]", t) for t in (content.get("default"), content) if isinstance(t, Mapping)]
    return next((str(t[n]) for t in tables for n in _RUNPOD_NAMES if isinstance(t.get(n), str) and t[n]), None)


def _ini_key(file: Path) -> str | None:
    """The key of the default profile. One that belongs to another address than Yotta's own is not taken."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read_string(read(file))
    except configparser.Error:
        raise ConfigurationError(f"{file} cannot be read: it is not an INI file.") from None
    if not parser.has_section(_YOTTA_PROFILE):
        return None
    profile = parser[_YOTTA_PROFILE]
    if profile.get("base_url", _YOTTA_BASE).strip().rstrip("/") != _YOTTA_BASE:
        return None
    return profile.get("api_key", "").strip() or None


def _line_key(file: Path) -> str | None:
    for line in read(file).splitlines():
        name, _, value = line.partition("=")
        if name.strip().lower() in _NAMES and value.strip():
            return value.strip().strip("\"'")
    return None
