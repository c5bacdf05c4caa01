"""The handler: how hard is a text to read? (Flesch's formula, with vowel groups for syllables.)"""

from __future__ import annotations

import re
from typing import Any


def measure(input: dict[str, Any]) -> dict[str, float]:
    words = re.findall(r"[A-Za-z']+", input["text"]) or ["a"]
    sentences = len(re.findall(r"[.!?:](?:\s|$)", input["text"])) or 1
    syllables = sum(max(1, len(re.findall(r"[aeiouy]+", word.lower()))) for word in words)
    ease = 206.835 - 1.015 * len(words) / sentences - 84.6 * syllables / len(words)
    return {"words": len(words), "ease": round(ease, 1)}
