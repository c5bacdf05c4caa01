"""The handler that the workers run: the first sentence of a text."""

from __future__ import annotations

from typing import Any


def summarize(input: dict[str, Any]) -> dict[str, str]:
    summary, stop, _ = input["text"].partition(".")
    if not stop:
        raise ValueError("there is no sentence in it")
    return {"summary": summary}
