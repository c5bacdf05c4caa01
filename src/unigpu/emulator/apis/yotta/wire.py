"""Yotta's envelope and codes, and how its requests are read. Shapes: https://docs.yottalabs.ai/api-and-sdk/api-guides."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast
from urllib.parse import parse_qs, urlsplit

from unigpu.emulator.contract import JSON, HttpCall, Launch, Reply

SUCCESS: Final = 10000
BAD_REQUEST: Final = 10001
NO_PERMISSION: Final = 10004
NO_RECORD: Final = 10007
VM_MISSING: Final = 11000
CREATE_FAILED: Final = 20001
UNAVAILABLE: Final = 24000
WRONG_STATE: Final = 24002
TASK_MISSING: Final = 24011
CREDENTIAL_IN_USE: Final = 25002
RATE: Final = 429
TASK_FIELD: Final = 40001
UNAUTHENTICATED: Final = 40101
TASK_MISSING_V1: Final = 40402
_STATUS: Final[Mapping[int, int]] = {
    BAD_REQUEST: 400,
    TASK_FIELD: 400,
    CREATE_FAILED: 400,
    NO_RECORD: 404,
    VM_MISSING: 404,
    12000: 404,
    13000: 404,
    14000: 404,
    24001: 404,
    TASK_MISSING: 404,
    TASK_MISSING_V1: 404,
    WRONG_STATE: 409,
    CREDENTIAL_IN_USE: 409,
    RATE: 429,
}
_SHELL: Final = frozenset("&|;<>$`\n")


class YottaProblem(Exception):
    """A business error of the platform."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def ok(data: JSON = None) -> Reply:
    return Reply.json({"message": "success", "code": SUCCESS, "data": data})


def problem(exc: YottaProblem, *, http: bool) -> Reply:
    """*http*: with the HTTP status that fits, instead of 200."""
    status = _STATUS.get(exc.code, 400) if http else 200
    return Reply.json({"message": exc.message, "code": exc.code, "data": None}, status=status)


# -- what is asked


def body_of(call: HttpCall) -> dict[str, Any]:
    """The body's object; an empty body is an empty one.

    Raises:
        Problem: it is none.
    """
    if not call.body.strip():
        return {}
    try:
        found: object = json.loads(call.body)
    except (ValueError, RecursionError):
        raise YottaProblem(BAD_REQUEST, "the request body is not JSON") from None
    if not isinstance(found, dict):
        raise YottaProblem(BAD_REQUEST, "the request body is not an object")
    return cast("dict[str, Any]", found)


def values_of(call: HttpCall, name: str) -> frozenset[str]:
    """A list in the query: separated by commas (the clients), or the parameter repeated (one tutorial)."""
    given = parse_qs(urlsplit(call.target).query).get(name) if call.target else None
    texts = given if given is not None else [call.query[name]] if name in call.query else []
    return frozenset(one.strip().upper() for text in texts for one in text.split(",") if one.strip())


def page_of(call: HttpCall, number: str, size: str) -> tuple[int, int]:
    """Which page, from 1, and how many rows one has."""
    return max(1, whole(call.query.get(number, "1"), number)), max(1, whole(call.query.get(size, "10"), size))


def paged(rows: list[JSON], page: int, size: int) -> dict[str, JSON]:
    pages = -(-len(rows) // size)
    shown = rows[(page - 1) * size : page * size]
    return {"items": shown, "page": page, "size": size, "total": len(rows), "pages": pages}


def text(body: Mapping[str, Any], field: str, *, most: int = 255) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise YottaProblem(BAD_REQUEST, f"{field} is required: 1 to {most} characters")
    return value


def optional_text(body: Mapping[str, Any], field: str, *, most: int = 255) -> str | None:
    return None if body.get(field) in (None, "") else text(body, field, most=most)


def mapping(value: object) -> Mapping[str, Any]:
    """An object of JSON; anything else is an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def whole(value: object, field: str, *, low: int = 0, high: int = 2**53) -> int:
    try:
        found = int(cast("str", value))
    except (TypeError, ValueError):
        raise YottaProblem(BAD_REQUEST, f"{field} must be a number") from None
    if isinstance(value, bool) or not low <= found <= high:
        raise YottaProblem(BAD_REQUEST, f"{field} must be from {low} to {high}")
    return found


def variables(body: Mapping[str, Any], reads: str) -> dict[str, str] | None:
    """The environment, from the name that is read; ``None``: it was not given."""
    names = ("environmentVars", "envVars") if reads == "both" else (reads,)
    given: object = next((body[name] for name in names if body.get(name) is not None), None)
    if given is None:
        return None
    if not isinstance(given, list):
        raise YottaProblem(BAD_REQUEST, "environmentVars must be a list of key and value")
    found: dict[str, str] = {}
    for one in cast("list[object]", given):
        entry = mapping(one)
        if not isinstance(entry.get("key"), str) or not entry["key"]:
            raise YottaProblem(BAD_REQUEST, "environmentVars: each needs a key")
        found[entry["key"]] = str(entry.get("value", ""))
    return found


def credential(body: Mapping[str, Any], reads: str) -> int | None:
    names = ("containerRegistryAuthId", "credentialId") if reads == "both" else (reads,)
    given: object = next((body[name] for name in names if body.get(name) is not None), None)
    return None if given is None else whole(given, "containerRegistryAuthId", low=1)


def gpu_count(value: object) -> int:
    count = whole(value, "gpuCount", low=1, high=1024)
    if count & (count - 1):
        raise YottaProblem(BAD_REQUEST, "gpuCount must be a power of 2")
    return count


def exposed(value: object, field: str = "expose") -> dict[str, JSON]:
    if not isinstance(value, Mapping):
        raise YottaProblem(BAD_REQUEST, f"{field}: port and protocol are required")
    given = cast("Mapping[str, Any]", value)
    port = whole(given.get("port"), f"{field}.port", low=1, high=65535)
    return {"port": port, "protocol": str(given.get("protocol") or "http")}


def launch(command: str | None, env: Mapping[str, str], port: int | None) -> Launch:
    """The container, as a process of this machine: its command."""
    argv: tuple[str, ...] = ()
    if command:
        try:
            argv = ("/bin/sh", "-c", command) if _SHELL & set(command) else tuple(shlex.split(command))
        except ValueError:
            raise YottaProblem(BAD_REQUEST, "initializationCommand cannot be read") from None
    # A server may insist on the port that was stated; our worker takes any, so that many fit on one machine.
    extra: dict[str, JSON] = {} if port is None or "unigpu.worker" in (command or "") else {"port": port}
    return Launch(argv=argv, env=dict(env), extra=extra)


# -- what is told


def millis(epoch: float) -> int:
    return int(epoch * 1000)


def iso(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def spaced(epoch: float) -> str:
    """As v1 and the callbacks write it: UTC, without a zone."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
