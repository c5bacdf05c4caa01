"""Whether a value is plain JSON, and where it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

DEEPEST: Final = 100
"""Levels of nesting that are taken; a value that holds itself is deeper than any number."""


def check_json(value: object, *, what: str) -> None:
    """Raise `ValueError` unless *value* is plain JSON: it says where, and never the value."""
    fault = _fault(value, DEEPEST)
    if fault is not None:
        raise ValueError(f"{what}{fault[0]}: {fault[1]}")


def json_path(value: Any) -> str | None:
    """Where *value* is not JSON, and why, as in ``"$.items[3]: datetime is not JSON"``; ``None`` where it is."""
    fault = _fault(value, DEEPEST)
    return None if fault is None else f"${fault[0]}: {fault[1]}"


def _fault(value: object, deep: int) -> tuple[str, str] | None:
    """The path below *value* to what is not JSON, and why. The path is built on the way back: most values have none."""
    if isinstance(value, str):
        return None if _is_text(value) else ("", "the text has half of a surrogate pair, which is not Unicode")
    if value is None or isinstance(value, bool | int):
        return None
    if isinstance(value, float):
        return None if math.isfinite(value) else ("", f"{value} is not JSON")
    if deep == 0:
        return "", f"nested deeper than {DEEPEST} levels, or holding itself"
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[object, object]", value).items():
            if not isinstance(key, str) or not _is_text(key):
                return "", "keys are text"
            fault = _fault(item, deep - 1)
            if fault is not None:
                return f".{key}{fault[0]}", fault[1]
        return None
    if isinstance(value, list | tuple):
        for i, item in enumerate(cast("list[object] | tuple[object, ...]", value)):
            fault = _fault(item, deep - 1)
            if fault is not None:
                return f"[{i}]{fault[0]}", fault[1]
        return None
    return "", f"{type(value).__name__} is not JSON"


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
