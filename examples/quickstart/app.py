"""A handler with real work: what else in this repository belongs to a text?

Nothing here knows unigpu. ``__init__`` loads once per worker: it reads every document and links all sentences that
share rare words. ``__call__`` walks that graph from the input (PageRank with restart) and yields the sentences it
finds, best first; a generator, so that its result can be streamed.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESTART, ROUNDS = 0.2, 40
MOST = 500  # sentences that are linked: work grows with their square


def sections() -> list[dict[str, str]]:
    """The documents that this repository ships, cut at their headings."""
    found: list[dict[str, str]] = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "LICENSE"]):
        for i, part in enumerate(re.split(r"^#+ .*$", path.read_text("utf-8"), flags=re.MULTILINE)):
            if len(part.split()) >= 40:
                found.append({"id": f"{path.relative_to(ROOT)}#{i}", "text": part})
    return found


def docstrings() -> list[dict[str, str]]:
    """What the modules say of themselves: read, never imported."""
    paths = sorted((ROOT / "src").rglob("*.py"))
    texts = ((path, ast.get_docstring(ast.parse(path.read_text("utf-8")))) for path in paths)
    return [{"id": str(path.relative_to(ROOT / "src")), "text": text} for path, text in texts if text]


def sentences(text: str) -> list[str]:
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    plain = re.sub(r"\s+", " ", re.sub(r"[`*|>]|\[|\]\([^)]*\)", " ", text))
    return [s.strip() for s in re.split(r"(?<=[.!?:;])\s+", plain) if len(s.split()) >= 6]


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]{4,}", text.lower()))


class Reader:
    """``{"text": str, "most": int}`` in; related sentences of other documents out, one by one."""

    def __init__(self) -> None:
        parts = [*sections(), *docstrings()]
        self.found = [(part["id"], s, words(s)) for part in parts for s in sentences(part["text"])][:MOST]
        seen = Counter(word for _, _, bag in self.found for word in bag)
        self.rarity = {word: math.log(len(self.found) / count) for word, count in seen.items()}
        self.links: list[list[tuple[int, float]]] = []
        for i, (_, _, a) in enumerate(self.found):
            near = [(j, self.alike(a, b)) for j, (_, _, b) in enumerate(self.found) if i != j]
            total = sum(weight for _, weight in near) or 1.0
            self.links.append([(j, weight / total) for j, weight in near if weight > 0])

    def alike(self, a: set[str], b: set[str]) -> float:
        shared = sum(self.rarity.get(word, 0.0) for word in a & b)
        return shared / math.sqrt((1 + len(a)) * (1 + len(b)))

    def __call__(self, input: dict[str, Any]) -> Iterator[str]:
        asked, own = words(input["text"]), set(sentences(input["text"]))
        start = [self.alike(asked, bag) for _, _, bag in self.found]
        total = sum(start) or 1.0
        score = start = [x / total for x in start]
        for _ in range(ROUNDS):
            walked = [RESTART * x for x in start]
            for i, near in enumerate(self.links):
                for j, weight in near:
                    walked[j] += (1 - RESTART) * score[i] * weight
            score = walked
        best = sorted(range(len(score)), key=lambda i: -score[i])
        others = (i for i in best if self.found[i][1] not in own)
        for i, _ in zip(others, range(int(input.get("most", 2))), strict=False):
            yield f"{self.found[i][0]}: {self.found[i][1]}"
