"""What a deployment is, beyond what Yotta shows of it.

Its environment holds our constants, and whether the API shows an environment is not documented (the official clients'
types have the field, the published samples do not). Where it is not shown, what is known otherwise stands in: this
call's own spec, or what a handle knew before; and `DeploymentInfo.assumed` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from unigpu.driver import DeploymentInfo, Identity, Interface, Kind

from .options import PORT

# Of one create call alone: another call's must never be taken for what exists.
_OF_ONE_CALL: Final = frozenset({"UNIGPU_ATTEMPT", "UNIGPU_SPEC", "UNIGPU_EXPIRES"})
ASSUMED: Final = ("interface", "port", "route", "execution_timeout", "concurrency", "idempotent", "worker_protocol")


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a deployment without asking.

    Attributes:
        constants: As they would be read back from its environment.
        assumed: What of it is not certain, as `DeploymentInfo.assumed`.
    """

    constants: Mapping[str, str]
    assumed: tuple[str, ...] = ASSUMED


NOTHING: Final = Known({})


def by_spec(identity: Identity) -> Known:
    """What exists under this name is taken for what this call's spec says."""
    return Known({name: value for name, value in identity.constants.items() if name not in _OF_ONE_CALL})


def by_info(info: DeploymentInfo) -> Known:
    """What an earlier look, or a deploy of this process, came to know."""
    known: dict[str, str | None] = {
        "UNIGPU_NAME": info.name,
        "UNIGPU_NAMESPACE": info.namespace,
        "UNIGPU_INTERFACE": info.interface,
        "UNIGPU_PORT": None if info.port is None else str(info.port),
        "UNIGPU_ROUTE": info.route,
        "UNIGPU_TIMEOUT": repr(info.execution_timeout),
        "UNIGPU_CONCURRENCY": str(info.concurrency),
        "UNIGPU_IDEMPOTENT": "1" if info.idempotent else "0",
        "UNIGPU_WORKER": info.worker_protocol,
        "UNIGPU_AUTH": info.auth_env,
    }
    return Known({name: value for name, value in known.items() if value is not None}, info.assumed)


def fields(shown: Mapping[str, str], known: Known, *, mode: str | None, kind: Kind, port: int | None) -> dict[str, Any]:
    """The fields of a `DeploymentInfo` that our constants tell.

    Args:
        shown: The environment that the platform showed.
        known: What else is known of it.
        port: The exposed port, where it was shown.
    """
    told = "UNIGPU_NAME" in shown
    env = shown if told else known.constants
    default = "http" if kind == "pod" or mode == "ALB" else "function"
    assumed = () if told else tuple(one for one in known.assumed if one != "port" or port is None)
    return {
        "name": env.get("UNIGPU_NAME"),
        "namespace": env.get("UNIGPU_NAMESPACE"),
        "interface": cast("Interface", env.get("UNIGPU_INTERFACE", default)),
        "port": port or _whole(env.get("UNIGPU_PORT")) or PORT,
        "route": env.get("UNIGPU_ROUTE"),
        "execution_timeout": number(env.get("UNIGPU_TIMEOUT")) or 600.0,
        "concurrency": _whole(env.get("UNIGPU_CONCURRENCY")) or 1,
        "idempotent": env.get("UNIGPU_IDEMPOTENT") == "1",
        "worker_protocol": env.get("UNIGPU_WORKER"),
        "auth_env": env.get("UNIGPU_AUTH"),
        "spec_hash": shown.get("UNIGPU_SPEC") if told else None,
        "attempt": shown.get("UNIGPU_ATTEMPT") if told else None,
        "expires_at": number(shown.get("UNIGPU_EXPIRES")) if told else None,
        "assumed": assumed,
    }


def number(text: str | None) -> float | None:
    """What we wrote ourselves; a user may have overwritten it with anything."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 6 else None
