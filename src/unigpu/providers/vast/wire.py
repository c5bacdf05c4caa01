"""What Vast replies: only the fields that are used. Unknown ones are ignored, and unknown words are kept as text.

Sources: vastai 1.9.1 on PyPI (``api/*.py``, ``serverless/client/*.py``, ``data/*.py``), and
https://github.com/vast-ai/docs (``api-reference/openapi/yaml``), which is behind the service in places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, cast

from pydantic import Field, SecretStr, ValidationError

from unigpu.driver import Response, WireModel
from unigpu.errors import InvalidResponseError

PROVIDER: Final = "vast"


class TemplateWire(WireModel):
    id: int
    hash_id: str | None = None
    name: str
    env: str | Mapping[str, Any] | None = None
    created_at: float | str | None = None


class EndpointWire(WireModel):
    id: int
    endpoint_name: str
    endpoint_state: str | None = None
    min_load: float | None = None
    cold_workers: int | None = None
    max_workers: int
    max_queue_time: float | None = None
    target_queue_time: float | None = None
    inactivity_timeout: float | None = None
    created_at: float | str | None = None
    api_key: SecretStr | None = Field(default=None, repr=False)
    auto_delete_due_24h: bool | None = None


class GroupWire(WireModel):
    id: int
    endpoint_id: int | None = None
    endpoint_name: str | None = None
    template_hash: str | None = None
    template_id: int | None = None
    search_query: Mapping[str, Any] | str | None = None
    created_at: float | str | None = None


class WorkerWire(WireModel):
    id: int
    status: str
    measured_perf: float | None = None
    reqs_working: float | None = None
    started_at: float | None = None
    loaded_at: float | None = None
    gpu_name: str | None = None
    error_msg: str | None = None


class OfferWire(WireModel):
    id: int
    machine_id: int | None = None
    gpu_name: str
    num_gpus: int
    gpu_ram: float | None = None
    dph_total: float
    geolocation: str | None = None
    reliability: float | None = None
    reliability2: float | None = None
    verification: str | None = None
    hosting_type: int | None = None
    inet_down: float | None = None
    inet_down_cost: float | None = None
    inet_up_cost: float | None = None
    storage_cost: float | None = None
    duration: float | None = None
    is_bid: bool | None = None


class InstanceWire(WireModel):
    id: int
    label: str | None = None
    actual_status: str | None = None
    intended_status: str | None = None
    cur_state: str | None = None
    status_msg: str | None = None
    public_ipaddr: str | None = None
    ports: Any = None
    extra_env: Any = None
    gpu_name: str | None = None
    num_gpus: int | None = None
    gpu_ram: float | None = None
    geolocation: str | None = None
    dph_total: float | None = None
    disk_space: float | None = None
    storage_cost: float | None = None
    start_date: float | None = None
    end_date: float | None = None


class ContractWire(WireModel):
    """The answer to a rental: a contract id counts whatever else is said."""

    success: bool | None = None
    new_contract: int | None = None


class RouteWire(WireModel):
    """The answer of ``/route/``: ready where there is a ``url``. ``status`` is free text: shown, never read."""

    url: str | None = None
    status: str | None = None
    request_idx: int | None = None
    error_msg: str | None = None


class ResultWire(WireModel):
    """What a create returns: the id is in ``result``, sometimes in ``id``."""

    success: bool | None = None
    result: int | None = None
    id: int | None = None


class OutputWire(WireModel):
    """What unigpu's worker answers."""

    output: Any = None
    execution_s: float | None = None
    error: Mapping[str, Any] | None = None


class VolumeWire(WireModel):
    id: int
    label: str | None = None
    name: str | None = None
    status: str | None = None
    disk_space: float | None = None
    dph_total: float | None = None
    start_date: float | None = None


class SpendWire(WireModel):
    id: int
    hourly_spend: float | None = None


class Page(WireModel):
    instances: tuple[Mapping[str, Any], ...] = Field()
    next_token: str | None = None


W = TypeVar("W", bound=WireModel)


def shaped(model: type[W], data: object, operation: str) -> W:
    """*data* as *model*.

    Raises:
        InvalidResponseError: it is of another shape; the message has the field, never the value.
    """
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
    raise InvalidResponseError(
        f"{operation}: Vast's reply is not as documented ({place})",
        provider=PROVIDER,
        operation=operation,
        maybe_executed=True,
    )


def parse(model: type[W], response: Response) -> W:
    """The body of a reply as *model*; raises as `shaped`."""
    return shaped(model, response.json(), response.operation)


def mapping(value: object) -> Mapping[str, Any]:
    """*value* where it is a JSON object, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[Any]:
    """*value* where it is a JSON list, else an empty one."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def rows_in(response: Response, key: str) -> Sequence[Mapping[str, Any]]:
    """The list under *key*, or the body itself where that is one.

    Raises:
        InvalidResponseError: there is no such list. It is never taken for an empty one.
    """
    body: Any = response.json()
    found: object = cast("object", body if isinstance(body, list) else mapping(body).get(key))
    if isinstance(found, list) and all(isinstance(one, Mapping) for one in cast("list[object]", found)):
        return cast("list[Mapping[str, Any]]", found)
    raise InvalidResponseError(
        f"{response.operation}: Vast's reply has no list of {key}",
        provider=PROVIDER,
        operation=response.operation,
        maybe_executed=False,
    )
