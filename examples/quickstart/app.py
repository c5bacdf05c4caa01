"""A handler with real work: it ranks a text's sentences and yields the ones that say most (TextRank).

Nothing here knows unigpu. ``__init__`` loads once per worker; ``__call__`` is a generator, so its result can be streamed.
The ranking is Mihalcea and Tarau's (TextRank, EMNLP 2004), over the words that a worker's own collection makes rare.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DAMPING = 0.85


def sections() -> list[dict[str, str]]:
    """The documents that this repository ships, cut at their headings."""
    found: list[dict[str, str]] = []
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "LICENSE"]):
        for i, part in enumerate(re.split(r"^#+ .*$", path.read_text("utf-8"), flags=re.MULTILINE)):
            if len(part.split()) >= 40:
                found.append({"id": f"{path.relative_to(ROOT)}#{i}", "text": part})
    return found


def sentences(text: str) -> list[str]:
    text = re.sub(r"```.*?```", " ", text, flags=re.DOTALL)
    plain = re.sub(r"\s+", " ", re.sub(r"[`*|>]|\[|\]\([^)]*\)", " ", text))
    return [s.strip() for s in re.split(r"(?<=[.!?:;])\s+", plain) if len(s.split()) >= 5]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]{3,}", text.lower())


class Summarizer:
    """``{"text": str, "sentences": int}`` in; the best sentences out, one by one."""

    def __init__(self) -> None:
        texts = [set(words(part["text"])) for part in sections()]
        seen = Counter(word for text in texts for word in text)
        self._rarity = {word: math.log(1 + len(texts) / count) for word, count in seen.items()}

    def __call__(self, input: dict[str, Any]) -> Iterator[str]:
        found = sentences(input["text"])
        for index in self._rank(found)[: int(input.get("sentences", 2))]:
            yield found[index]

    def _rank(self, found: list[str]) -> list[int]:
        bags = [set(words(s)) for s in found]
        links = [[self._alike(a, b) if i != j else 0.0 for j, b in enumerate(bags)] for i, a in enumerate(bags)]
        out = [sum(row) or 1.0 for row in links]
        score = [1.0] * len(found)
        for _ in range(30):
            score = [
                1 - DAMPING + DAMPING * sum(links[j][i] / out[j] * score[j] for j in range(len(found)))
                for i in range(len(found))
            ]
        return sorted(range(len(found)), key=lambda i: -score[i])

    def _alike(self, a: set[str], b: set[str]) -> float:
        shared = sum(self._rarity.get(word, 5.0) for word in a & b)
        return shared / (math.log(2 + len(a)) + math.log(2 + len(b)))
