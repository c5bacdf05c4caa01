"""Tables on the terminal: by rich where it is installed, else as aligned plain text."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..models.plan import table


def show(rows: Sequence[tuple[str, ...]]) -> None:
    """Print *rows*, of which the first holds the headings. A pipe or a file always gets the plain text."""
    if sys.stdout.isatty():
        try:
            _rich(rows)
        except ModuleNotFoundError:
            pass
        else:
            return
    print(table(rows))


def _rich(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False)
    for heading in rows[0]:
        shown.add_column(heading, overflow="fold")
    for row in rows[1:]:
        shown.add_row(*map(Text, row))  # as Text: a value in brackets is not markup
    Console().print(shown)
