"""How platforms cut a list into pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .parse import mapping, whole

__all__ = ["Numbers", "Pages", "Params", "Tokens"]

Params = tuple[tuple[str, str], ...]
"""Pairs of a query, or of headers."""


class Pages(Protocol):
    """How a platform cuts a list into pages."""

    @property
    def first(self) -> Params:
        """The query of the first page."""
        ...

    def after(self, page: Mapping[str, Any], *, number: int, rows: int, total: int) -> Params | None:
        """The query of the page after *page*, or ``None`` at the end; empty where there is more and no way to ask.

        Args:
            number: Which page it was, from 1.
            rows: How many rows it had.
            total: How many rows all pages so far had.
        """
        ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """Pages by a token in each page.

    Attributes:
        token: Where the next page's token is, dotted, as in ``"pagination.nextCursor"``.
        param: The parameter that takes it.
        more: Where a flag says that there is more, which then decides; ``None``: the token does.
        first: The query of the first page, and of all others beside the token.
    """

    token: str = "next"
    param: str = "after"
    more: str | None = None
    first: Params = ()

    def after(self, page: Mapping[str, Any], *, number: int, rows: int, total: int) -> Params | None:
        token = _at(page, self.token)
        if not (token if self.more is None else _at(page, self.more)):
            return None
        return (*self.first, (self.param, str(token))) if token else ()


@dataclass(frozen=True, slots=True)
class Numbers:
    """Pages by number and size; the end is a page that is not full, or the stated total.

    Attributes:
        totals: Where the number of all rows may be, dotted.
    """

    size: int = 100
    number_param: str = "page"
    size_param: str = "size"
    totals: tuple[str, ...] = ("total", "pagination.totalCount")

    @property
    def first(self) -> Params:
        return self._page(1)

    def after(self, page: Mapping[str, Any], *, number: int, rows: int, total: int) -> Params | None:
        stated = next((count for path in self.totals if (count := whole(_at(page, path))) is not None), None)
        if rows < self.size or (stated is not None and total >= stated):
            return None
        return self._page(number + 1)

    def _page(self, number: int) -> Params:
        return ((self.number_param, str(number)), (self.size_param, str(self.size)))


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        value = mapping(value).get(name)
    return value
