"""Deployments as records of a journal, and back. A record holds no value of a secret, only its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unigpu.elasticity.policy import rule_from, rule_record

from ._state import Deployment, Terms
from .contract import JSON, Launch

_PLAIN: Final = (
    "interface", "kind", "min_workers", "max_workers", "idle_timeout", "execution_timeout", "concurrency",
    "idempotent", "dispatch", "expires_at", "price_per_hour",
)  # fmt: skip


def deployment_record(deployment: Deployment, *, created_at: float) -> dict[str, JSON]:
    """What must survive. ``secrets_lost`` names what a restored one lacks: the secrets that its workers need."""
    terms = deployment.terms
    launch = terms.launch
    hidden = terms.secret_names & set(launch.env)
    return {
        "platform": deployment.platform,
        "created_at": created_at,
        "stopped": deployment.stopped,
        "terms": {name: getattr(terms, name) for name in _PLAIN}
        | {"rule": rule_record(terms.rule), "secret_names": sorted(terms.secret_names)},
        "launch": {
            "argv": list(launch.argv),
            "handler": launch.handler,
            "env": {name: value for name, value in launch.env.items() if name not in hidden},
            "cwd": launch.cwd,
            "python": launch.python,
            "extra": dict(launch.extra),
        },
        "data": dict(terms.data),
        "secrets_lost": sorted(hidden | set(deployment.secrets_lost)),
    }


def terms_from(record: Mapping[str, JSON]) -> Terms:
    """The terms of a record. What it lacks is the default: a later release may know more."""
    plain: Mapping[str, Any] = record.get("terms") or {}
    launch: Mapping[str, Any] = record.get("launch") or {}
    return Terms(
        launch=Launch(
            argv=tuple(launch.get("argv") or ()),
            handler=launch.get("handler"),
            env=dict(launch.get("env") or {}),
            cwd=launch.get("cwd"),
            python=launch.get("python"),
            extra=dict(launch.get("extra") or {}),
        ),
        rule=rule_from(plain.get("rule") or {}),
        secret_names=frozenset(plain.get("secret_names") or ()),
        data=dict(record.get("data") or {}),
        **{name: plain[name] for name in _PLAIN if name in plain},
    )
