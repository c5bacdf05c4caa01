"""The words of the project: no phrases that read as translated, and no names that only their authors understand."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PHRASES = re.compile(
    r"\b(?:"
    r"doomed|debris|hunted|knocks?|dear(?:er|est)?|small cloud|asked wrongly|in silence|"
    r"starts since|its most is|its least is|(?:was|were) ending|the end it (?:is|was) given|"
    r"owed and paid|what nothing costs|whoever|has no such thing"
    r")\b",
    re.IGNORECASE,
)
NAMES = frozenset(
    {"way", "ways", "room", "rooms", "house", "door", "doors", "flight", "flights", "look", "looks"}
    | {"doomed", "debris", "hunted", "knock", "dear", "face", "faces"}
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def files() -> list[str]:
    """Sources, documents and examples, as paths from the root."""
    found = [*(ROOT / "src").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.py")]
    found += [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    return sorted(str(path.relative_to(ROOT)) for path in found)


def offences(path: str) -> list[str]:
    """Each banned phrase or name, with its line."""
    text = (ROOT / path).read_text(encoding="utf-8")
    lines = enumerate(text.splitlines(), 1)
    found = [f"{path}:{number}: {match[0]!r}" for number, line in lines for match in PHRASES.finditer(line)]
    if path.endswith(".py"):
        found += [f"{path}:{number}: the name {name}" for number, name in _defined(ast.parse(text)) if _banned(name)]
    return found


def _banned(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    return "single" not in words and not NAMES.isdisjoint(words)  # single flight is a term of the field


def _defined(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield node.lineno, name
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.Attribute(attr=name, ctx=ast.Store()):
                yield node.lineno, name
            case _:
                pass


@pytest.mark.parametrize("path", files())
def test_a_file_has_no_banned_phrase_and_no_banned_name(path: str) -> None:
    assert offences(path) == []
