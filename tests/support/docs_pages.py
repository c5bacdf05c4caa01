"""The code blocks of the documentation, and what becomes of each: run, kept as a file, checked, or visibly not run.

A page is every ``docs/**/*.md``, and the README. Of its fenced blocks

* ``python`` runs, in order, in one process a page, in an empty directory with a state directory of its own.
  If its first line is a comment that names a file (``# app.py``), or its fence does, it is that file instead, and there
  before anything runs. One that defines tests is run by pytest. ``# not run: why``, as first line, says that it is only
  compiled: readers see it, and it is counted.
* ``text`` with ``title="prints"`` is what the block before it prints; ``…`` stands for anything.
* ``console`` shows commands. ``python``, ``pytest`` and ``unigpu`` run; of ``make`` and ``pip install`` the target and
  the extras must exist; anything else is refused, unless ``# not run: why`` is behind it.
* ``toml`` and ``json`` parse; a whole unigpu configuration also fits the published schema. One with a file's name as
  title is that file.

``python tests/support/docs_pages.py`` prints the counts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
Kind = Literal["run", "file", "tests", "prints", "command", "mentioned", "checked", "shown", "not run"]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+|~~~+)(?P<info>.*)$")
_FILE = re.compile(r"^# (?P<name>[\w/.-]+\.py)\b")
_NOT_RUN = re.compile(r"# not run: (?P<why>.+)$")
_TESTS = re.compile(r"^(async )?(def test_|class Test)", re.MULTILINE)


class PageError(Exception):
    """A page that the rules above do not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block. ``line`` is the page's line on which its text begins, counted from 1."""

    line: int
    language: str
    info: str
    text: str

    @property
    def title(self) -> str | None:
        """What stands over the block on the site."""
        found = re.search(r"title=\"([^\"]+)\"", self.info)
        return found[1] if found else None

    @property
    def file(self) -> str | None:
        """The file that this block is, where it says so."""
        if self.title and re.fullmatch(r"[\w/.-]+\.(py|toml)", self.title):
            return self.title
        named = _FILE.match(self.text) if self.language == "python" else None
        return named[1] if named else None

    @property
    def not_run(self) -> str | None:
        found = _NOT_RUN.search(self.text.partition("\n")[0])
        return found["why"] if found else None

    @property
    def kind(self) -> Kind:
        if self.language == "python":
            if self.file:
                return "file"
            if self.not_run:
                return "not run"
            return "tests" if _TESTS.search(self.text) else "run"
        if self.language == "text":
            return "prints" if self.title == "prints" else "shown"
        if self.language == "console":
            return "command"
        return "checked" if self.language in ("toml", "json") else "shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One ``$`` line of a console block, and the lines under it: what it prints."""

    line: int
    words: str
    output: str

    @property
    def not_run(self) -> str | None:
        found = _NOT_RUN.search(self.words)
        return found["why"] if found else None

    @property
    def kind(self) -> Kind:
        if self.not_run:
            return "not run"
        first = self.words.split()[0]
        if first in ("python", "pytest", "unigpu"):
            return "command"
        if first in ("make", "pip"):
            return "mentioned"
        raise PageError(f"line {self.line}: how is `{self.words}` tested? Say `# not run: why` behind it.")


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for n, line in enumerate(block.text.splitlines()):
        if line.startswith("$ "):
            found.append(Command(line=block.line + n, words=line[2:], output=""))
        elif found and line.strip():
            last = found[-1]
            found[-1] = Command(line=last.line, words=last.words, output=f"{last.output}{line}\n")
        elif line.strip():
            raise PageError(f"line {block.line + n}: a console block begins with a command, `$ …`.")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    path: Path
    blocks: tuple[Block, ...] = field(repr=False)

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    def counts(self) -> Counter[str]:
        found = Counter[str]()
        for block in self.blocks:
            if block.language == "console":
                found.update(command.kind for command in commands(block))
            else:
                found[block.kind] += 1
        return found

    def reasons(self) -> list[str]:
        """Why blocks of this page are not run."""
        found = [(b.line, b.not_run) for b in self.blocks if b.kind == "not run"]
        found += [(c.line, c.not_run) for b in self.blocks if b.language == "console" for c in commands(b)]
        return [f"{self.name}:{line}: {why}" for line, why in found if why]


def blocks(text: str) -> Iterator[Block]:
    lines = iter(enumerate(text.splitlines(), start=1))
    for n, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            continue
        inside: list[str] = []
        for _, inner in lines:
            if inner.strip() == fence["ticks"]:
                break
            inside.append(inner.removeprefix(fence["indent"]))
        else:
            raise PageError(f"line {n}: a block that is never closed")
        language, _, info = fence["info"].strip().partition(" ")
        if info and not re.fullmatch(r"(\s*\w+=\"[^\"]*\")+", info):  # the site would show the block as plain text
            raise PageError(f'line {n}: behind the language stands name="value", as in title="app.py".')
        if language in ("bash", "sh", "shell"):
            raise PageError(f"line {n}: show commands as `console`, each behind `$ `: those are tested.")
        yield Block(line=n + 1, language=language, info=info.strip(), text="".join(f"{x}\n" for x in inside))


def pages() -> list[Page]:
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [Page(path=path, blocks=tuple(blocks(path.read_text("utf-8")))) for path in paths]


def main() -> None:
    all_pages = pages()
    total = sum((page.counts() for page in all_pages), Counter[str]())
    shown = ", ".join(f"{count} {kind}" for kind, count in total.most_common())
    print(f"{len(all_pages)} pages, {total.total()} blocks and commands: {shown}")
    for page in all_pages:
        for reason in page.reasons():
            print(f"  not run: {reason}")


if __name__ == "__main__":
    main()
