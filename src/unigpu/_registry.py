"""Which drivers there are: the entry points of the group ``unigpu.drivers``. Built-in drivers take the same road.

A driver is imported when it is first used, so that a broken plugin costs only those who use it.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import metadata
from typing import Final

from .driver import CONTRACT, DRIVER_API, CallDriver, DeployDriver
from .errors import ConfigurationError
from .models import nearest

__all__ = ["GROUP", "installed", "load", "using"]

GROUP: Final = "unigpu.drivers"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,19}")

# Filled by idempotent assignments only, so that neither threads nor a fork can find it half made.
_loaded: dict[tuple[str, str], type[CallDriver]] = {}
_given: dict[str, type[CallDriver]] = {}
_known: list[tuple[object, tuple[metadata.EntryPoint, ...]]] = []


def installed() -> tuple[str, ...]:
    """The names of all drivers, sorted. Nothing is imported."""
    return tuple(sorted({*_given, *(point.name for point in _points())}))


def load(name: str) -> type[CallDriver]:
    """The driver of a provider.

    Raises:
        ConfigurationError: there is none of that name, two packages bring it, it cannot be imported, or it was
            written for another version of the driver contract.
    """
    if name in _given:
        return _given[name]
    points = {(_owner(p), p.value): p for p in _points() if p.name == name}
    if not points:
        known = installed()
        near = nearest(name, known)
        # What is no name at all is not shown: it may be a key in the provider's place.
        what = repr(name) if _NAME.fullmatch(name) else "of that name (a key belongs into api_key=)"
        raise ConfigurationError(
            f"there is no provider {what}" + (f"; did you mean {near!r}?" if near else "."),
            hint=f"Installed: {', '.join(known) or 'none'}.",
        )
    if len(points) > 1:
        brought = " and ".join(f"{owner} ({value})" for owner, value in sorted(points))
        raise ConfigurationError(
            f"two packages bring a driver named {name!r}: {brought}.", provider=name, hint="Uninstall one of them."
        )
    (owner, value), point = points.popitem()
    found = _loaded.get((name, value))
    if found is None:
        found = _loaded[name, value] = _checked(name, owner, _imported(name, owner, point))
    return found


@contextmanager
def using(name: str, driver: type[CallDriver]) -> Generator[None]:
    """A driver that is no entry point, for as long as the block runs (for tests and mocks)."""
    before = _given.get(name)
    _given[name] = driver
    try:
        yield
    finally:
        if before is None:
            _given.pop(name, None)
        else:
            _given[name] = before


def _points() -> tuple[metadata.EntryPoint, ...]:
    """The entry points; read again (10 ms) only where a package may have come or gone (10 µs to see)."""
    key = tuple((folder, _changed(folder)) for folder in sys.path)
    for known, points in _known[-1:]:
        if known == key:
            return points
    points = tuple(metadata.entry_points(group=GROUP))
    _known[:] = [(key, points)]
    return points


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _owner(point: metadata.EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unnamed package"


def _imported(name: str, owner: str, point: metadata.EntryPoint) -> object:
    try:
        return point.load()
    except Exception as exc:  # whatever a foreign module raises while it is imported
        raise ConfigurationError(
            f"the driver {name!r} of the package {owner} ({point.value}) cannot be loaded: "
            f"{type(exc).__name__}: {exc}.",
            provider=name,
            hint=f"Repair or uninstall {owner}; other providers are not affected.",
        ) from exc


def _checked(name: str, owner: str, found: object) -> type[CallDriver]:
    api = getattr(found, "driver_api", None)
    if not isinstance(found, type) or api is None:
        raise ConfigurationError(f"the package {owner} names {found!r} as the driver {name!r}; it is no driver class.")
    if api != DRIVER_API:
        raise ConfigurationError(
            f"the driver {name!r} of the package {owner} is written for version {api} of the driver contract; "
            f"this unigpu has version {DRIVER_API}.",
            provider=name,
            hint=f"Upgrade {'unigpu' if isinstance(api, int) and api > DRIVER_API else owner}.",
        )
    if getattr(found, "name", None) != name:
        raise ConfigurationError(
            f"the package {owner} registers {name!r}, but its driver calls itself {getattr(found, 'name', None)!r}."
        )
    return check_class(found, f"the driver {name!r} of the package {owner}")


def check_class(found: type, what: str) -> type[CallDriver]:
    """*found*, where it is a whole driver; *what* names it in errors.

    Raises:
        ConfigurationError: it derives from no tier, lacks a method of its tier, or has a public name that is nearly one
            of the contract.
    """
    if not issubclass(found, CallDriver):
        raise ConfigurationError(f"{what} derives from neither unigpu.driver.CallDriver nor DeployDriver.")
    missing = sorted(getattr(found, "__abstractmethods__", ()))
    if missing:
        tier = "DeployDriver" if issubclass(found, DeployDriver) else "CallDriver"
        raise ConfigurationError(f"{what} lacks {', '.join(missing)}: a {tier} needs them.")
    if found.has_jobs is not CallDriver.has_jobs and found.status is CallDriver.status:
        raise ConfigurationError(f"{what} lacks status: a driver that overrides has_jobs needs it.")
    for base in found.__mro__:
        if base.__module__.startswith(("unigpu.driver.", "abc", "builtins", "typing")):
            continue
        for attribute in vars(base):
            near = difflib.get_close_matches(attribute, CONTRACT, n=1, cutoff=0.8)
            if not attribute.startswith("_") and attribute not in CONTRACT and near:
                raise ConfigurationError(
                    f"{what} has an attribute {attribute!r}, which unigpu does not read; did you mean {near[0]!r}?",
                    hint="Begin names of your own with an underscore.",
                )
    return found
