"""The worked example in the docs is the code that the tests run, to the last line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import unigpu.testing.reference as reference

PAGE = Path(__file__).parents[2] / "docs" / "write-a-driver.md"
CODE = Path(reference.__file__).parent


def blocks(language: str, name: str) -> list[str]:
    return re.findall(
        rf"^```{language} title=\"{re.escape(name)}\"\n(.*?)^```$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE
    )


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", ["driver.py", "api.py", "wire.py", "translate.py"])
def test_the_page_holds_the_whole_file(name: str) -> None:
    shown = lines("\n".join(blocks("python", name)))
    real = lines((CODE / name).read_text())
    assert shown == real, f"docs/write-a-driver.md shows another {name} than the one that runs"


def test_the_page_shows_the_facts_as_they_are() -> None:
    (shown,) = blocks("toml", "facts.toml")
    assert shown in (CODE / "facts.toml").read_text()


def test_the_page_leaves_no_file_of_the_driver_out() -> None:
    needed = {path.name for path in CODE.iterdir() if path.suffix in (".py", ".toml")} - {"__init__.py", "emulator.py"}
    assert {name for name in needed if f"`{name}`" in PAGE.read_text()} == needed


def test_the_driver_is_short() -> None:
    assert len((CODE / "driver.py").read_text().splitlines()) < 300
