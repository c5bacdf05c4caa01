"""What `gc` found, and what it did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, overload

from ..errors import UniGPUError
from ._model_kinds import Data
from .deployment import State, usd

GcReason = Literal["failed", "abandoned", "duplicate", "expired", "unclaimed"]


class GcRow(Data):
    """One resource that carries unigpu's tag and that no deploy of this machine stands behind.

    Attributes:
        kind: The platform's word: ``"endpoint"``, ``"template"``.
        name: The deployment's logical name; ``None`` where only the platform's name is known.
        age: Seconds since it was created, where the platform tells.
        per_hour: USD per hour with no request, where it is known.
        reason: ``failed``: a deploy of this machine gave it up and could not delete it. ``abandoned``: a deploy of this
            machine was killed. ``duplicate``: another one of its name is older. ``expired``: its ttl has passed.
            ``unclaimed``: nothing is known of it here; it may be another machine's, so it is only ended by name.
        why: The reason in words, and what to do where gc does not delete it.
        deletable: Whether ``gc(delete=True)`` deletes it.
        deleted: It was deleted, and read to be gone.
        error: Why it could not be deleted.
    """

    provider: str
    id: str
    kind: str
    name: str | None = None
    provider_name: str
    namespace: str | None = None
    state: State | None = None
    age: float | None = None
    per_hour: float | None = None
    reason: GcReason
    why: str = ""
    deletable: bool = False
    deleted: bool = False
    error: str | None = None

    def __str__(self) -> str:
        what = f"{self.kind} {self.id} of {self.name or self.provider_name} on {self.provider}"
        cost = "" if self.per_hour is None else f", {usd(self.per_hour)}/h"
        state = "deleted" if self.deleted else self.error or ("to be deleted" if self.deletable else "left")
        return f"{what}{cost}: {self.reason} ({self.why}): {state}"


class GcReport(Sequence[GcRow]):
    """The rows, and the providers that could not be read.

    Attributes:
        unreadable: Provider → why its list could not be read. Where there is one, nothing was deleted anywhere.
        deleting: Whether deletion was asked for.
    """

    def __init__(self, rows: Sequence[GcRow], unreadable: Mapping[str, UniGPUError], *, deleting: bool = False) -> None:
        self._rows = tuple(rows)
        self.unreadable = dict(unreadable)
        self.deleting = deleting

    @property
    def deleted(self) -> tuple[GcRow, ...]:
        """What was deleted, and read to be gone."""
        return tuple(row for row in self._rows if row.deleted)

    @property
    def deletable(self) -> tuple[GcRow, ...]:
        """What ``gc(delete=True)`` deletes, or could not delete."""
        return tuple(row for row in self._rows if row.deletable and not row.deleted)

    @property
    def refused(self) -> bool:
        """Deletion was asked for and nothing was deleted, because a list could not be read."""
        return self.deleting and bool(self.unreadable)

    @overload
    def __getitem__(self, index: int) -> GcRow: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[GcRow]: ...
    def __getitem__(self, index: int | slice) -> GcRow | Sequence[GcRow]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[GcRow]:
        return iter(self._rows)

    def __repr__(self) -> str:
        lost = f", unreadable: {', '.join(sorted(self.unreadable))}" if self.unreadable else ""
        return f"<GcReport {len(self._rows)} rows, {len(self.deleted)} deleted{lost}>"
