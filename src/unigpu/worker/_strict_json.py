"""Strict JSON, both ways: what goes out is what the handler returned, or an error that names the place."""

from __future__ import annotations

import json
from typing import Any, NoReturn, cast

_SCALARS = (str, bool, int, float, type(None))
_PLAIN_KEY = 40  # a longer key is shortened in a path


class OutputNotJSON(Exception):
    """A handler's output cannot be JSON. ``path`` says where, as in ``$.items[3].when``; values are never shown."""

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class BadJSON(ValueError):
    """A request's body is not JSON."""


def decode(body: bytes) -> Any:
    """The value in ``body``.

    Raises:
        BadJSON: It is not JSON (``NaN`` and ``Infinity`` are not), or nested too deeply.
    """
    try:
        return json.loads(body, parse_constant=_refuse)
    except RecursionError:
        raise BadJSON("nested too deeply") from None
    except ValueError as error:  # includes UnicodeDecodeError, and integers beyond Python's limit of digits
        raise BadJSON(str(error)[:200]) from None


def encode(value: Any) -> bytes:
    """``value`` as JSON in ASCII, so that no reader can split it at U+2028 or trip over half a surrogate pair.

    Raises:
        OutputNotJSON: It holds something that JSON has no form for. Tuples are taken as lists; a key that is not
            text is refused, because ``{1: "a"}`` would come back as ``{"1": "a"}``.
    """
    try:
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise _explain(value, error) from None
    if not _keys_are_text(value):
        raise _first_bad(value) or OutputNotJSON("The output has a key that is not text.")
    return text.encode("ascii")


def _refuse(constant: str) -> NoReturn:
    raise BadJSON(f"{constant} is not JSON")


def _keys_are_text(root: Any) -> bool:
    # json.dumps turns other keys into text silently. No path is built here: this runs on every output.
    stack: list[object] = [root] if isinstance(root, (dict, list, tuple)) else []
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            mapping = cast("dict[object, object]", value)
            if not all(isinstance(key, str) for key in mapping):
                return False
            value = list(mapping.values())
        for child in cast("list[object]", value):
            if isinstance(child, (dict, list, tuple)):
                stack.append(cast("object", child))  # noqa: PERF401 - a generator here loses the type
    return True


def _explain(value: Any, error: Exception) -> OutputNotJSON:
    if isinstance(error, RecursionError):
        return OutputNotJSON("The output is nested too deeply for JSON.")
    return _first_bad(value) or OutputNotJSON(f"The output is not JSON: {str(error)[:200]}.")


def _first_bad(root: Any) -> OutputNotJSON | None:
    """The first thing in ``root`` that is not JSON, looked for without recursion; a container is entered once."""
    seen: set[int] = set()
    stack: list[tuple[object, str]] = [(root, "$")]
    while stack:
        value, path = stack.pop()
        if not isinstance(value, (dict, list, tuple)):
            if (bad := _bad_scalar(value, path)) is not None:
                return bad
            continue
        container = cast("dict[object, object] | list[object] | tuple[object, ...]", value)
        if id(container) in seen:
            continue
        seen.add(id(container))
        children: list[tuple[object, str]] = []
        if isinstance(container, dict):
            for key, child in container.items():
                if not isinstance(key, str):
                    return OutputNotJSON(f"A key of the output at {path} is {_a(key)}, not text.", path)
                children.append((child, _join(path, key)))
        else:
            children.extend((child, f"{path}[{i}]") for i, child in enumerate(container))
        stack.extend(reversed(children))
    return None


def _bad_scalar(value: object, path: str) -> OutputNotJSON | None:
    if not isinstance(value, _SCALARS):
        hint = " Call .tolist() on it." if hasattr(value, "tolist") else ""
        return OutputNotJSON(f"The output at {path} is {_a(value)}, which JSON has no form for.{hint}", path)
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return OutputNotJSON(f"The output at {path} is NaN or infinite, which JSON has no form for.", path)
    return None


def _a(value: object) -> str:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"of type {name}"


def _join(path: str, key: str) -> str:
    if key.isidentifier() and len(key) <= _PLAIN_KEY:
        return f"{path}.{key}"
    return f"{path}[{json.dumps(key[:_PLAIN_KEY])}]"
