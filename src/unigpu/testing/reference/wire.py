"""What the reference platform replies: only the fields that are used. Unknown ones are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from unigpu.driver import Response, WireModel
from unigpu.errors import InvalidResponseError


class PageWire(WireModel):
    items: tuple[Mapping[str, Any], ...]
    next: str | None


class TemplateWire(WireModel):
    id: str
    name: str
    env: Mapping[str, str]
    created_at: float


class LimitsWire(WireModel):
    min: int
    max: int
    ready: int


class EndpointWire(WireModel):
    id: str
    name: str
    template_id: str
    env: Mapping[str, str]
    workers: LimitsWire
    idle_timeout: float
    job_timeout: float
    concurrency: int
    price_per_hour: float
    status: str
    reason: str | None = None
    created_at: float


class WorkerWire(WireModel):
    id: str
    status: str
    reason: str | None = None
    started_at: float | None = None
    jobs: int
    billed_seconds: float


class WorkersWire(WireModel):
    items: tuple[WorkerWire, ...]


class LineWire(WireModel):
    n: int
    time: float
    text: str


class LinesWire(WireModel):
    items: tuple[LineWire, ...]


class JobErrorWire(WireModel):
    type: str = "Error"
    message: str = ""


class JobWire(WireModel):
    id: str
    status: str
    output: Any = None
    error: JobErrorWire | None = None
    worker_lost: bool = False
    worker_id: str | None = None
    submitted_at: float
    execution_s: float | None = None
    ready_workers: int


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
            provider="reference",
            operation=operation,
            maybe_executed=True,
        ) from None


def parse(model: type[W], response: Response) -> W:
    """The body of a reply as *model*; raises as `shaped`."""
    return shaped(model, response.json(), response.operation)
