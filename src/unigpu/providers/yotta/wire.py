"""What Yotta replies: only the fields that are used, all but ids and states optional; unknown ones are ignored.

The published samples leave out fields that official clients read (prices, the domain, the environment), and vary in
types: ids are texts or numbers, times are milliseconds, seconds, ISO 8601 or ``YYYY-MM-DD HH:MM:SS``, prices may be
texts. Each form is taken. Shapes: https://docs.yottalabs.ai/api-and-sdk/api-guides and
https://github.com/yottalabsai/agent-native-infra (``src/api/types.ts``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, cast

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from unigpu.driver import WireModel
from unigpu.errors import InvalidResponseError

from .api import PROVIDER

_MS: Final = 1e11
"""Above it a number counts milliseconds: as seconds it would be the year 5138."""


def _id(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def time_of(value: object) -> float | None:
    """Epoch seconds of any form that Yotta writes; ``None`` for none, and for one that cannot be read."""
    if isinstance(value, str):
        text = value.strip()
        try:
            return time_of(float(text))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()  # v1 says UTC, without a zone
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return value / 1000 if value > _MS else float(value)
    return None


def _number(value: object) -> float | None:
    """A price or a count in any form; what is none is not worth a failed call."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _pairs(value: object) -> dict[str, str]:
    """``[{"key", "value"}]`` as a mapping."""
    if not isinstance(value, list):
        return {}
    rows = [cast("Mapping[str, object]", row) for row in cast("list[object]", value) if isinstance(row, Mapping)]
    return {str(row["key"]): str(row["value"]) for row in rows if "key" in row and "value" in row}


def _count(value: object) -> int | None:
    number = _number(value)
    return None if number is None or number < 0 else int(number)


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _object(value: object) -> object:
    """What is no object says nothing; the row that it stands in is worth reading all the same."""
    return cast("object", value) if isinstance(value, Mapping) else None


def _objects(value: object) -> list[object]:
    return [one for one in cast("list[object]", value) if isinstance(one, Mapping)] if isinstance(value, list) else []


Id = Annotated[str, BeforeValidator(_id), Field(min_length=1)]
Time = Annotated[float | None, BeforeValidator(time_of)]
Number = Annotated[float | None, BeforeValidator(_number)]
Count = Annotated[int | None, BeforeValidator(_count)]
Flag = Annotated[bool | None, BeforeValidator(_flag)]
Text = Annotated[str | None, BeforeValidator(_text)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]


class Wire(WireModel):
    """Yotta writes its fields in camel case."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class ExposeWire(Wire):
    port: Count = None
    protocol: Text = None
    ingress_url: Text = None
    host: Text = None
    healthy: Flag = None


class EndpointWire(Wire):
    id: Id
    name: str
    status: str
    image: Text = None
    total_workers: Count = None
    running_workers: Count = None
    service_mode: Text = None
    domain: Text = None
    cost: Number = None
    per_hour_price: Number = None
    per_second_price: Number = None
    container_volume_in_gb: Count = None
    expose: Annotated[ExposeWire | None, BeforeValidator(_object)] = None
    environment_vars: Pairs = Field(default_factory=dict[str, str])
    env_vars: Pairs = Field(default_factory=dict[str, str])
    created_at: Time = None


class PodWire(Wire):
    id: Id
    name: str
    status: str
    image: Text = None
    region: Text = None
    gpu_type: Text = None
    gpu_count: Count = None
    single_card_price: Number = None
    container_volume_in_gb: Count = None
    expose: Annotated[tuple[ExposeWire, ...], BeforeValidator(_objects)] = ()
    environment_vars: Pairs = Field(default_factory=dict[str, str])
    env_vars: Pairs = Field(default_factory=dict[str, str])
    created_at: Time = None


class CredentialWire(Wire):
    id: Id
    name: str
    created_at: Time = None


class WorkerWire(Wire):
    id: Annotated[str | None, BeforeValidator(_id)] = None
    worker_id: Annotated[str | None, BeforeValidator(_id)] = None
    status: str
    region: Text = None
    gpu_type: Text = None
    gpu_display_name: Text = None
    gpu_count: Count = None
    created_at: Time = None


class LogWire(Wire):
    timestamp: Any = None
    log: str = ""
    offset: Any = None


class LogPageWire(Wire):
    logs: tuple[LogWire, ...]
    has_more: bool = False
    next_search_after_time: Any = None
    next_search_after_offset: Any = None


class TaskWire(Wire):
    task_id: Id
    status: str
    error: Any = None
    output: Any = None
    worker_url: Text = None
    created_at: Time = None
    updated_at: Time = None


class SubmittedWire(Wire):
    task_id: Id


class PlaceWire(Wire):
    region: str
    region_name: Text = None
    available: bool = False
    vm_type_id: Annotated[str | None, BeforeValidator(_id)] = None


class StockWire(Wire):
    gpu_type: str
    regions: tuple[PlaceWire, ...] = ()


class VmWire(Wire):
    id: Id
    name: Text = None
    status: str
    created_at: Time = None


class VolumeWire(Wire):
    id: Id
    name: Text = None
    status: Text = None
    type: Text = None
    storage_type: Text = None
    size_in_gb: Number = None
    created_at: Time = None


W = TypeVar("W", bound=WireModel)


def shaped(model: type[W], value: object, operation: str) -> W:
    """*value* as *model*.

    Raises:
        InvalidResponseError: it is not of that shape. Fields are named, values are not: one may be a secret.
    """
    try:
        return model.model_validate(value)
    except ValidationError as exc:
        fields = sorted({".".join(map(str, error["loc"])) or "the whole" for error in exc.errors(include_input=False)})
    raise InvalidResponseError(
        f"{operation}: the reply has not the expected shape ({', '.join(fields)})",
        provider=PROVIDER,
        operation=operation,
        maybe_executed=True,
    )


def rows(model: type[W], data: object, operation: str) -> Sequence[W]:
    """A list that is not paged.

    Raises:
        InvalidResponseError: it is no list, or a row is not of that shape: a list that is half read would say that
            something does not exist.
    """
    if not isinstance(data, list | tuple):
        raise InvalidResponseError(
            f"{operation}: the reply holds no list", provider=PROVIDER, operation=operation, maybe_executed=True
        )
    return [shaped(model, row, operation) for row in cast("Sequence[object]", data)]
