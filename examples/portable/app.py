"""One handler. It runs as it is on every platform: it knows none of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

WORD = re.compile(r"[a-z']{4,}")


def keywords(input: dict) -> Iterator[dict]:
    """The most frequent words of each paragraph, one answer a paragraph."""
    if not input["text"].strip():
        raise ValueError("there is nothing to read")
    for number, paragraph in enumerate(input["text"].split("\n\n"), start=1):
        counts = Counter(WORD.findall(paragraph.lower()))
        best = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: input.get("most", 3)]
        yield {"paragraph": number, "keywords": [word for word, _ in best]}
