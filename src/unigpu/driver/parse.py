"""Reading what a platform replies: numbers and times in any form, typed fields for wire models, and whole shapes.

A field that is informative is read tolerantly: a junk price must not make a deployment invisible. A field without which
a row means nothing is required, and its absence is an error: a list that is read in part would say that something does
not exist.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import BeforeValidator, Field, ValidationError

from .._io.contract import Response
from ..errors import InvalidResponseError
from ..models import WireModel

__all__ = [
    "Count",
    "Flag",
    "Id",
    "Number",
    "Pairs",
    "Text",
    "Time",
    "epoch",
    "items",
    "json_object",
    "mapping",
    "number",
    "object_or_none",
    "objects",
    "parse",
    "rows",
    "rows_in",
    "shaped",
    "whole",
]

W = TypeVar("W", bound=WireModel)

_MILLISECONDS: Final = 1e11
"""A number above it counts milliseconds: as seconds it would be the year 5138."""
_LAST_SECOND: Final = 253_402_300_799.0  # of the year 9999, the last that `datetime` has

# -- single values ----------------------------------------------------------------------------------------------------


def number(value: object) -> float | None:
    """A finite number, also as text; ``None`` for anything else."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def whole(value: object, *, least: int = 0, most: int = 10**9) -> int | None:
    """A whole number from *least* to *most*, also as text; ``None`` for anything else."""
    found = number(value)
    return int(found) if found is not None and found.is_integer() and least <= found <= most else None


def epoch(value: object) -> float | None:
    """Epoch seconds of an ISO 8601 time, of seconds, or of milliseconds. ``None`` for what is no time.

    A time without a zone is UTC: platforms that leave the zone out mean it, and two readers must not differ.
    """
    seconds = number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds > _MILLISECONDS else seconds
    elif isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value.strip())
            seconds = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        except (ValueError, OverflowError):
            return None
    return seconds if seconds is not None and 0 < seconds <= _LAST_SECOND else None


def mapping(value: object) -> Mapping[str, Any]:
    """*value* where it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[Any]:
    """*value* where it is a JSON list, else an empty one."""
    return cast("Sequence[Any]", value) if isinstance(value, list | tuple) else ()


def json_object(content: bytes | str) -> Mapping[str, Any]:
    """The JSON object that *content* is, else an empty one."""
    try:
        return mapping(json.loads(content))
    except (ValueError, RecursionError):
        return {}


# -- fields of wire models --------------------------------------------------------------------------------------------


def object_or_none(value: object) -> Mapping[str, Any] | None:
    """For a nested model: what is no object says nothing, and the row around it is worth reading all the same."""
    return mapping(cast("object", value)) if isinstance(value, Mapping) else None


def objects(value: object) -> list[Mapping[str, Any]]:
    """For a list of nested models: the objects of a list."""
    return [found for one in items(value) if (found := object_or_none(one)) is not None]


def _id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _count(value: object) -> int | None:
    found = number(value)
    return None if found is None or found < 0 else int(found)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _pairs(value: object) -> dict[str, str]:
    rows = objects(value)
    return {str(row["key"]): str(row["value"]) for row in rows if "key" in row and "value" in row}


Id = Annotated[str, BeforeValidator(_id), Field(min_length=1)]
"""Required text; platforms write some ids as numbers."""
Time = Annotated[float | None, BeforeValidator(epoch)]
Number = Annotated[float | None, BeforeValidator(number)]
Count = Annotated[int | None, BeforeValidator(_count)]
Flag = Annotated[bool | None, BeforeValidator(_flag)]
Text = Annotated[str | None, BeforeValidator(_text)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
"""``[{"key", "value"}]`` as a mapping."""

# -- whole replies ----------------------------------------------------------------------------------------------------


def shaped(model: type[W], value: object, operation: str) -> W:
    """*value* as *model*.

    Args:
        operation: The full name, as in ``"runpod.endpoint.get"``; its first word is the provider.

    Raises:
        InvalidResponseError: it has another shape. The message names fields, never values: one may be a secret.
    """
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        fields = sorted({".".join(map(str, error["loc"])) or "the whole" for error in exc.errors(include_input=False)})
    # Outside of the except block: pydantic's error, which holds the values, must not be its context.
    raise _unexpected(f"the reply does not have the expected shape ({', '.join(fields)})", operation, maybe=True)


def parse(model: type[W], response: Response) -> W:
    """The body of a reply as *model*; raises as `shaped`."""
    return shaped(model, response.json(), response.operation)


def rows(model: type[W], value: object, operation: str) -> list[W]:
    """A list, each row as *model*.

    Raises:
        InvalidResponseError: it is no list, or a row has another shape.
    """
    if not isinstance(value, list | tuple):
        raise _unexpected("the reply holds no list", operation, maybe=True)
    return [shaped(model, row, operation) for row in items(cast("object", value))]


def rows_in(value: object, under: str | None, operation: str) -> list[Mapping[str, Any]]:
    """The objects of the list that *value* has in the field *under*; ``None``: *value* is the list.

    Raises:
        InvalidResponseError: there is no such list, or something else than an object is in it.
    """
    listed: object = value if under is None else mapping(value).get(under)
    found = objects(listed)
    if not isinstance(listed, list) or len(found) != len(items(cast("object", listed))):
        raise _unexpected(f"the reply has no list of {under or 'objects'}", operation, maybe=False)
    return found


def _unexpected(what: str, operation: str, *, maybe: bool) -> InvalidResponseError:
    return InvalidResponseError(
        f"{operation}: {what}",
        provider=operation.partition(".")[0] or None,
        operation=operation or None,
        maybe_executed=maybe,
    )
