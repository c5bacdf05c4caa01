"""The resources that a deployment consists of on a platform, and how the lifecycle finds them again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from .._io.contract import CallClass, Io
from ..models import DeploymentInfo

__all__ = ["Consistency", "Found", "Resource", "found_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consistency:
    """How soon a created resource is seen.

    ``atomic``: create is a PUT by name; the answer is the truth, and two creates make one.
    ``listed``: it is found by listing, late; after an unclear create it is looked for during ``settle`` seconds.
    """

    kind: Literal["atomic", "listed"]
    settle: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One resource that carries our tag, as a list or a read showed it.

    Attributes:
        attempt: The create call that made it, where that can be read back.
        spec_hash: The spec it was made from, where that can be read back.
        created_at: Epoch seconds, where the platform tells.
        expires_at: Epoch seconds of its end, where it was given one.
        origin: Local: the folder that the handler comes from.
        info: The deployment as this resource shows it, where this is the resource that is called.
        shown: Spec field → its value, where the platform shows no spec but single fields as they were given: compared
            where no hash is known.
    """

    kind: str
    id: str
    name: str
    attempt: str | None = None
    spec_hash: str | None = None
    created_at: float | None = None
    expires_at: float | None = None
    origin: str | None = None
    info: DeploymentInfo | None = None
    shown: Mapping[str, Any] = field(default_factory=dict[str, Any])


def found_of(kind: str, info: DeploymentInfo, **facts: Any) -> Found:
    """The resource that is called, out of the deployment that it shows. *facts* replace single fields."""
    found = Found(
        kind=kind,
        id=info.id,
        name=info.provider_name,
        attempt=info.attempt,
        spec_hash=info.spec_hash,
        created_at=info.created_at,
        expires_at=info.expires_at,
        origin=info.origin,
        info=info,
    )
    return replace(found, **facts) if facts else found


class Resource(Protocol):
    """One thing that a deployment consists of on a platform.

    Attributes:
        kind: The platform's word: ``"endpoint"``, ``"template"``.
        call: What repeating its create may do.
        consistency: How soon a created one is seen.
        bills_cold: What it costs as created, before it is warmed, in words; ``None``: nothing.

    One that not every deployment has may say so by an attribute ``optional = True``: without it a deployment is whole.
    """

    @property
    def kind(self) -> str: ...
    @property
    def call(self) -> CallClass: ...
    @property
    def consistency(self) -> Consistency: ...
    @property
    def bills_cold(self) -> str | None: ...

    async def find(self, io: Io, *, deadline: float) -> Sequence[Found]:
        """Every one that carries this deployment's name. A list that cannot be read whole raises."""
        ...

    async def create_cold(self, io: Io, made: Mapping[str, Found], *, deadline: float) -> Found:
        """Create it without any worker where the platform can. *made*: what was created before it, by kind.

        Raises:
            ConflictError: atomic ones, where the name is taken meanwhile (look again).
        """
        ...

    async def read(self, io: Io, id: str, *, deadline: float) -> Found | None:
        """It, or ``None`` where the platform certainly does not have it."""
        ...

    async def delete(self, io: Io, id: str, *, deadline: float) -> None:
        """Delete it. One that is already gone is success."""
        ...
