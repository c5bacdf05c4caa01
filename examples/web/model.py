"""The handler that the workers run: the first sentence of a text."""

from __future__ import annotations

from typing import Any


def summarize(input: dict[str, Any]) -> dict[str, str]:
    return {"summary": input["text"].split(".")[0]}
