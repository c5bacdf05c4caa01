"""What Yotta replies: only the fields that are used, all but ids and states optional; unknown ones are ignored.

The published samples leave out fields that official clients read (prices, the domain, the environment), and vary in
types: ids are texts or numbers, times are milliseconds, seconds, ISO 8601 or ``YYYY-MM-DD HH:MM:SS``, prices may be
texts. Each form is taken. Shapes: https://docs.yottalabs.ai/api-and-sdk/api-guides and
https://github.com/yottalabsai/agent-native-infra (``src/api/types.ts``).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from unigpu.driver import Count, Flag, Id, Number, Pairs, Text, Time, WireModel, object_or_none, objects


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
    expose: Annotated[ExposeWire | None, BeforeValidator(object_or_none)] = None
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
    expose: Annotated[tuple[ExposeWire, ...], BeforeValidator(objects)] = ()
    environment_vars: Pairs = Field(default_factory=dict[str, str])
    env_vars: Pairs = Field(default_factory=dict[str, str])
    created_at: Time = None


class CredentialWire(Wire):
    id: Id
    name: str
    created_at: Time = None


ResourceWire = EndpointWire | PodWire | CredentialWire
"""A row of what a deployment consists of."""


class WorkerWire(Wire):
    id: Id | None = None
    worker_id: Id | None = None
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
