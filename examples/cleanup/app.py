"""The handler: the words of a text, each once."""

from __future__ import annotations

from typing import Any


def distinct(input: dict[str, Any]) -> list[str]:
    return sorted(set(input["text"].lower().split()))
