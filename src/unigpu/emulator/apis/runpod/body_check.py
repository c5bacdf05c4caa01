"""What bodies of REST v2 may say: 422 for what breaks the schema, 400 for rules across fields."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from .state import RunPodProblem

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, or nothing."""

_CUDA: Final = re.compile(r"\d+\.\d+")
_PORT: Final = re.compile(r"\d+/(http|tcp)")
_SECRET: Final = re.compile(r"\{\{\s*RUNPOD_SECRET_([^}\s]+)\s*\}\}")


def text(value: Any) -> str | None:
    return None if isinstance(value, str) else "got something else, want string"


def full(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "want a string that is not empty"


def nullable(value: Any) -> str | None:
    return None if value is None or isinstance(value, str) else "want string or null"


def flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "want boolean"


def whole(low: int, high: int = 2**53) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return None if good else f"want an integer from {low}" + ("" if high == 2**53 else f" to {high}")

    return check


def number(low: float) -> Check:
    def check(value: Any) -> str | None:
        good = isinstance(value, int | float) and not isinstance(value, bool) and value >= low
        return None if good else f"want a number of at least {low:g}"

    return check


def one_of(*names: str) -> Check:
    return lambda value: None if value in names else f"value must be one of {', '.join(names)}"


def list_of(each: Check, *, least: int = 0, unique: bool = False) -> Check:
    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return "want array"
        items = cast("Sequence[Any]", value)
        if len(items) < least:
            return f"minItems: got {len(items)}, want {least}"
        if unique and len({json.dumps(one, sort_keys=True) for one in items}) < len(items):
            return "items must be unique"
        return next((why for one in items if (why := each(one))), None)

    return check


def texts(value: Any) -> str | None:
    """``env``: numbers and booleans are not made texts."""
    if not isinstance(value, dict):
        return "want object"
    wrong = [str(key) for key, one in cast("Mapping[Any, Any]", value).items() if not isinstance(one, str)]
    return f"'/{wrong[0]}': want string" if wrong else None


def shape(fields: Mapping[str, Check], *, needs: Sequence[str] = (), least: int = 0) -> Check:
    def check(value: Any) -> str | None:
        found = wrong(value, fields, needs=needs, least=least)
        return found[0] if found else None

    return check


def wrong(value: Any, fields: Mapping[str, Check], *, needs: Sequence[str] = (), least: int = 0) -> list[str]:
    """Everything that breaks the schema, as RunPod words it."""
    if not isinstance(value, dict):
        return ["$: want object"]
    given = cast("dict[str, Any]", value)
    unknown = [key for key in given if key not in fields]
    found = [f"$: additional properties {', '.join(repr(key) for key in unknown)} not allowed"] if unknown else []
    found += [f"$: missing property {name!r}" for name in needs if name not in given]
    if len(given) < least:
        found.append(f"$: minProperties: got {len(given)}, want {least}")
    for key, one in given.items():
        if key in fields and (why := fields[key](one)):
            found.append(f"$.{key}: {why}")
    return found


def must_fit(value: Any, fields: Mapping[str, Check], *, needs: Sequence[str] = (), least: int = 0) -> None:
    """Raises a 422 with all that is wrong."""
    if found := wrong(value, fields, needs=needs, least=least):
        raise RunPodProblem(422, "request validation failed", *found)


CUDA: Final[Check] = lambda value: None if isinstance(value, str) and _CUDA.fullmatch(value) else "want major.minor"  # noqa: E731 - a rule like the others
PORT: Final[Check] = lambda value: None if isinstance(value, str) and _PORT.fullmatch(value) else "want port/protocol"  # noqa: E731 - the same
CONTAINER: Final[Mapping[str, Check]] = {
    "args": text,
    "disk": whole(1),
    "env": texts,
    "image": text,
    "ports": list_of(PORT),
    "registry": nullable,
    # Newer than the file of August: https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc.
    "entrypoint": list_of(text),
    "cmd": list_of(text),
}
SCALING: Final = one_of("QUEUE_DELAY", "REQUEST_COUNT")
ENDPOINT_GPU: Final[Mapping[str, Check]] = {
    "pools": list_of(text, least=1),
    "excludedTypes": list_of(full, unique=True),
    "count": whole(1),
    "allowedCudaVersions": list_of(CUDA),
    "minCudaVersion": CUDA,
}
CHANGED_GPU: Final[Mapping[str, Check]] = {
    **ENDPOINT_GPU,
    "minCudaVersion": lambda value: None if value == "" else CUDA(value),  # an empty text clears the floor
}
CPU: Final = shape({"id": text, "vcpuCount": whole(2)}, needs=("id", "vcpuCount"))
WORKERS: Final = shape({"min": whole(0), "max": whole(0), "idleTimeout": whole(1, 3600)})


def scaling(value: Any) -> str | None:
    """A union by its ``type``."""
    if not isinstance(value, dict):
        return "want object"
    given = cast("dict[str, Any]", value)
    if given.get("type") == "QUEUE_DELAY":
        fields: dict[str, Check] = {"type": text, "queueDelay": number(0.5)}
        return shape(fields, needs=("type", "queueDelay"))(given)
    if given.get("type") == "REQUEST_COUNT":
        fields = {"type": text, "requestCount": whole(1)}
        return shape(fields, needs=("type", "requestCount"))(given)
    return "type: value must be one of QUEUE_DELAY, REQUEST_COUNT"


def command_of(body: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """The command as words, and as the ``args`` that RunPod keeps of it.

    Raises:
        Problem: ``args`` and the arrays say different things. That this is a 400 is unverified.
    """
    arrays: list[list[str]] = [list(body.get(name) or ()) for name in ("entrypoint", "cmd")]
    given: str = body.get("args") or ""
    words = _words(given)
    if not any(arrays):
        return words, given
    joined = tuple(arrays[0] + arrays[1])
    if given and words != joined:
        raise RunPodProblem(400, "args and entrypoint/cmd specify different commands")
    if not arrays[0]:
        return joined, shlex.join(joined)
    return joined, json.dumps({"entrypoint": arrays[0], "cmd": arrays[1]})


def _words(given: str) -> tuple[str, ...]:
    if given.startswith("{"):
        try:
            found: Any = json.loads(given)
            return (*(found.get("entrypoint") or []), *(found.get("cmd") or []))
        except (ValueError, TypeError, AttributeError):
            return (given,)
    try:
        return tuple(shlex.split(given))
    except ValueError:
        return (given,)


def secrets_in(env: Mapping[str, str]) -> dict[str, str]:
    """Variables whose value is one of the account's secrets, and its name."""
    return {name: found[1] for name, value in env.items() if (found := _SECRET.fullmatch(value.strip()))}
