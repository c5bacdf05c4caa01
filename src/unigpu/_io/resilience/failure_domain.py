"""What fails together: one provider's control plane, its jobs, and each deployment's workers."""

from __future__ import annotations

from typing import Final, TypeVar
from urllib.parse import urlsplit

from ..contract import Request

V = TypeVar("V")

MOST: Final = 1_000
"""Planes that are remembered; workers come and go, so there is an end to it."""


def provider_of(request: Request) -> str:
    """The provider, by the operation's first word."""
    return request.operation.partition(".")[0]


def plane_of(request: Request) -> str:
    """``"runpod control"``, ``"runpod jobs"``, ``"vast worker summarize"``; holds no secret.

    A call to a worker that does not say its deployment belongs to the worker's own address.
    """
    provider = provider_of(request)
    if request.role != "worker":
        return f"{provider} {'jobs' if request.role == 'jobs' else 'control'}"
    return f"{provider} worker {request.deployment or host_of(request)}"


def host_of(request: Request) -> str:
    """Host and port: no user, path or query."""
    try:
        parts = urlsplit(request.url)
        return (parts.hostname or "?") + (f":{parts.port}" if parts.port is not None else "")
    except ValueError:
        return "?"


def latest(known: dict[str, V], key: str) -> V | None:
    """*known*[*key*], which is then the last to be forgotten."""
    found = known.pop(key, None)
    if found is not None:
        known[key] = found
    return found


def keep(known: dict[str, V], key: str, value: V) -> V:
    """Remember *value*; the one that was used least lately makes room."""
    if len(known) >= MOST:
        del known[next(iter(known))]
    known[key] = value
    return value
