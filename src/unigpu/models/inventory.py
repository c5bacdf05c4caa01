"""Everything that costs money on an account, whoever made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, overload

from ..errors import UniGPUError
from ._model_kinds import Data

Owner = Literal["ours", "foreign", "unknown"]


class InventoryItem(Data):
    """One thing on an account that bills, or may.

    Attributes:
        kind: The platform's word: ``"endpoint"``, ``"worker"``, ``"pod"``, ``"disk"``, ``"volume"``.
        owner: ``ours``: it carries unigpu's tag (of any namespace); ``foreign``: it does not; ``unknown``: the platform
            does not show what would tell.
        name: The deployment's logical name where it is known, else what the platform shows.
        namespace: Of ours, where it can be read.
        state: In the platform's words, or unigpu's. Something that is stopped may still bill.
        per_hour: USD per hour now; ``None``: unknown.
        per_month: USD per month for what is kept whatever runs; ``None``: unknown.
        created_at: Epoch seconds, where the platform tells.
        note: What else there is to say: what a stopped one still bills, when it ends.
    """

    provider: str
    id: str
    kind: str
    owner: Owner = "unknown"
    name: str | None = None
    namespace: str | None = None
    state: str | None = None
    per_hour: float | None = None
    per_month: float | None = None
    created_at: float | None = None
    note: str | None = None


class Inventory(Sequence[InventoryItem]):
    """The items, and the providers that could not be read.

    Attributes:
        unreadable: Provider → why it could not be read. What it bills is not known, so it is never left out.
    """

    def __init__(self, items: Sequence[InventoryItem], unreadable: Mapping[str, UniGPUError]) -> None:
        self._items = tuple(items)
        self.unreadable = dict(unreadable)

    @property
    def per_hour(self) -> float | None:
        """USD per hour of everything; ``None`` where something is unknown."""
        return _total([item.per_hour for item in self._items], whole=not self.unreadable)

    @property
    def per_month(self) -> float | None:
        """USD per month of what is kept whatever runs; ``None`` where something is unknown."""
        return _total([item.per_month for item in self._items], whole=not self.unreadable)

    @overload
    def __getitem__(self, index: int) -> InventoryItem: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[InventoryItem]: ...
    def __getitem__(self, index: int | slice) -> InventoryItem | Sequence[InventoryItem]:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[InventoryItem]:
        return iter(self._items)

    def __repr__(self) -> str:
        lost = f", unreadable: {', '.join(sorted(self.unreadable))}" if self.unreadable else ""
        return f"<Inventory {list(self._items)!r}{lost}>"


def _total(amounts: Sequence[float | None], *, whole: bool) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if whole and len(known) == len(amounts) else None
