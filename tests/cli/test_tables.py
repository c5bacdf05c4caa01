"""Tables: plain text for a pipe and without rich; rich on a terminal."""

from __future__ import annotations

import io
import sys

import pytest

from unigpu.cli.tables import show

ROWS = [("SETTING", "VALUE"), ("provider", "[bold]local"), ("gpu", "RTX 4090")]
PLAIN = "SETTING   VALUE\nprovider  [bold]local\ngpu       RTX 4090\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(on: io.StringIO, rows: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stdout", on)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    show(rows)
    return on.getvalue()


def test_a_pipe_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), ROWS, monkeypatch) == PLAIN


def test_a_terminal_without_rich_gets_plain_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert shown(Terminal(), ROWS, monkeypatch) == PLAIN


def test_rich_fits_a_table_into_the_terminal_and_takes_no_value_for_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    lines = shown(Terminal(), [*ROWS, ("long", "word " * 30)], monkeypatch).splitlines()
    assert "[bold]local" in lines[1]
    assert len(lines) > len(ROWS) + 1
    assert max(map(len, lines)) <= 80  # a dumb terminal has 80 columns
