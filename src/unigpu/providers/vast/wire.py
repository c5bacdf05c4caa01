"""What Vast replies: only the fields that are used. Unknown ones are ignored, and unknown words are kept as text.

Sources: vastai 1.9.1 on PyPI (``api/*.py``, ``serverless/client/*.py``, ``data/*.py``), and
https://github.com/vast-ai/docs (``api-reference/openapi/yaml``), which is behind the service in places.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field, SecretStr

from unigpu.driver import Count, Number, Text, Time, WireModel

PROVIDER: Final = "vast"


class TemplateWire(WireModel):
    id: int
    hash_id: str | None = None
    name: str
    env: str | Mapping[str, Any] | None = None
    created_at: Time = None


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
    created_at: Time = None
    api_key: SecretStr | None = Field(default=None, repr=False)
    auto_delete_due_24h: bool | None = None


class GroupWire(WireModel):
    id: int
    endpoint_id: int | None = None
    endpoint_name: str | None = None
    template_hash: str | None = None
    template_id: int | None = None
    search_query: Mapping[str, Any] | str | None = None
    created_at: Time = None


class WorkerWire(WireModel):
    id: int
    status: str
    measured_perf: float | None = None
    reqs_working: float | None = None
    started_at: Time = None
    loaded_at: Time = None
    gpu_name: Text = None
    error_msg: Text = None


class OfferWire(WireModel):
    id: int
    machine_id: int | None = None
    gpu_name: str
    num_gpus: int
    gpu_ram: Number = None
    dph_total: float
    geolocation: Text = None
    reliability: Number = None
    reliability2: Number = None
    verification: Text = None
    hosting_type: int | None = None
    inet_down: Number = None
    inet_down_cost: Number = None
    inet_up_cost: Number = None
    storage_cost: Number = None
    duration: Number = None
    is_bid: bool | None = None


class InstanceWire(WireModel):
    id: int
    label: str | None = None
    actual_status: str | None = None
    intended_status: str | None = None
    cur_state: str | None = None
    status_msg: Text = None
    public_ipaddr: str | None = None
    ports: Any = None
    extra_env: Any = None
    gpu_name: Text = None
    num_gpus: Count = None
    gpu_ram: Number = None
    geolocation: Text = None
    dph_total: Number = None
    disk_space: Number = None
    storage_cost: Number = None
    start_date: Time = None


class RouteWire(WireModel):
    """The answer of ``/route/``: ready where there is a ``url``. ``status`` is free text: shown, never read."""

    url: str | None = None
    status: str | None = None
    request_idx: int | None = None
    error_msg: Text = None


class ResultWire(WireModel):
    """What a create returns: the id is in ``result``, sometimes in ``id``."""

    success: bool | None = None
    result: int | None = None
    id: int | None = None


class VolumeWire(WireModel):
    id: int
    label: str | None = None
    name: str | None = None
    status: str | None = None
    dph_total: Number = None
    start_date: Time = None
