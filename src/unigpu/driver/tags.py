"""The ``UNIGPU_*`` constants of a deployment: written and read here, and nowhere else.

They stand in the environment that a platform keeps for a deployment, so another process can find and call it by name. A
user can overwrite them there with anything. So a value that cannot be read counts as absent, and never raises: one odd
deployment must not hide all others of the account.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from ..models import DeploymentInfo, Interface
from .parse import epoch, number, whole

__all__ = ["Tags"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the constants say. ``None``: absent, or unreadable.

    Attributes:
        name: The logical name. Without it the deployment's constants were not shown, or it is not ours: see `shown`.
        spec_hash, attempt: As `unigpu.driver.Identity` has them.
        execution_timeout: Seconds.
        auth_env: The name of the variable that holds the callers' token, never the token.
        worker_protocol: ``"1"``: unigpu's worker; ``"foreign"``: another server.
        expires_at: Epoch seconds.
        price: USD of a worker-hour when it was created, for platforms that do not show one.
        max_price: The cap in USD an hour, for platforms that do not show it.
        max_workers: The maximum it was deployed with, for platforms that lower it on their own.
    """

    name: str | None = None
    namespace: str | None = None
    spec_hash: str | None = None
    attempt: str | None = None
    execution_timeout: float | None = None
    concurrency: int | None = None
    interface: Interface | None = None
    worker_protocol: str | None = None
    idempotent: bool | None = None
    route: str | None = None
    auth_env: str | None = None
    port: int | None = None
    expires_at: float | None = None
    price: float | None = None
    max_price: float | None = None
    max_workers: int | None = None

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Self:
        """The tags in an environment. Other variables are ignored."""
        return cls(**{field: read(env.get(name)) for field, (name, read) in _TABLE.items()})

    @classmethod
    def of(cls, info: DeploymentInfo) -> Self:
        """What *info* says of any create call: without attempt, spec hash and expiry, which belong to one."""
        return cls(**{field: getattr(info, field) for field in _IN_INFO - _OF_ONE_CREATE})

    @property
    def shown(self) -> bool:
        """Whether the platform showed our constants at all."""
        return self.name is not None

    def write(self) -> dict[str, str]:
        """The variables to put into the environment."""
        values = {name: getattr(self, field) for field, (name, _) in _TABLE.items()}
        return {name: _written(value) for name, value in values.items() if value is not None}

    def info(self, **facts: Any) -> dict[str, Any]:
        """Keyword arguments for `DeploymentInfo`. *facts* are what the platform itself shows, and win unless ``None``.
        What neither knows is left out, so the model's default holds."""
        known = {field: getattr(self, field) for field in _IN_INFO}
        return _stated({**_stated(known), **_stated(facts)})

    def found(self, **facts: Any) -> dict[str, Any]:
        """Keyword arguments for a `Found` that has no `DeploymentInfo`; *facts* as in `info`."""
        known = {field: getattr(self, field) for field in _OF_ONE_CREATE}
        return {**_stated(known), **_stated(facts)}


def _stated(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _written(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def _text(value: str | None) -> str | None:
    return value or None


def _interface(value: str | None) -> Interface | None:
    return "http" if value == "http" else "function" if value == "function" else None


def _flag(value: str | None) -> bool | None:
    return {"1": True, "0": False}.get(value or "")


def _above_zero(value: str | None) -> float | None:
    found = number(value)
    return found if found is not None and found > 0 else None


def _count(value: str | None) -> int | None:
    return whole(value, least=1, most=10**6)


def _port(value: str | None) -> int | None:
    return whole(value, least=1, most=65_535)


_TABLE: Final[Mapping[str, tuple[str, Callable[[str | None], Any]]]] = {
    "name": ("UNIGPU_NAME", _text),
    "namespace": ("UNIGPU_NAMESPACE", _text),
    "spec_hash": ("UNIGPU_SPEC", _text),
    "attempt": ("UNIGPU_ATTEMPT", _text),
    "execution_timeout": ("UNIGPU_TIMEOUT", _above_zero),
    "concurrency": ("UNIGPU_CONCURRENCY", _count),
    "interface": ("UNIGPU_INTERFACE", _interface),
    "worker_protocol": ("UNIGPU_WORKER", _text),
    "idempotent": ("UNIGPU_IDEMPOTENT", _flag),
    "route": ("UNIGPU_ROUTE", _text),
    "auth_env": ("UNIGPU_AUTH", _text),
    "port": ("UNIGPU_PORT", _port),
    "expires_at": ("UNIGPU_EXPIRES", epoch),
    "price": ("UNIGPU_PRICE", _above_zero),
    "max_price": ("UNIGPU_MAX_PRICE", _above_zero),
    "max_workers": ("UNIGPU_MAX_WORKERS", _count),
}
"""Field → its variable, and how that is read."""
_OF_ONE_CREATE: Final = frozenset({"attempt", "spec_hash", "expires_at"})
_IN_INFO: Final = frozenset(field.name for field in fields(Tags)) & DeploymentInfo.model_fields.keys()
"""The tags that `DeploymentInfo` has, too."""
