"""What can be set for RunPod only: where its services are, and what of it no other platform has."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from unigpu.driver import InputModel

CONTROL_URL: Final = "https://api.runpod.io/v2"
JOBS_URL: Final = "https://api.runpod.ai/v2"
LB_URL: Final = "https://{id}.api.runpod.ai"
PROXY_URL: Final = "https://{id}-{port}.proxy.runpod.net"

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f\\?#]")


def _address(text: str) -> str:
    """An http(s) address without user, query or fragment.

    Raises:
        ValueError: it is not one.
    """
    sample = text.replace("{id}", "a").replace("{port}", "1")
    try:
        parts = urlsplit(sample)
        port_is_good = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError("give an http or https address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_good:
        raise ValueError("give an http or https address")
    if parts.username is not None or parts.password is not None or _CONTROL.search(sample):
        raise ValueError("an address here has no user, no query and no spaces")
    return text.rstrip("/")


def _with_id(text: str) -> str:
    if "{id}" not in text:
        raise ValueError("it must say {id}, where the endpoint's or pod's id goes")
    return text


Address = Annotated[str, AfterValidator(_address)]
Template = Annotated[str, AfterValidator(_address), AfterValidator(_with_id)]
Path = Annotated[str, Field(pattern=r"^/[A-Za-z0-9/_-]+$")]


class Options(InputModel):
    """``driver_options["runpod"]``: where RunPod's services are. Each can be another address, for a proxy or a mock.

    Attributes:
        control_url: REST v2, which manages endpoints, pods, volumes, secrets.
        jobs_url: The job service: ``{jobs_url}/{endpoint}/run``.
        lb_url: Where a load-balancer endpoint is called; ``{id}`` is the endpoint's.
        proxy_url: Where a pod's HTTP port is called; ``{id}`` and ``{port}``.
        balance_path: Below ``control_url``: the account's balance. Unverified: RunPod's page names the call, not its
            path.
        limits_path: The same for the account's limits.
        account_checks: Read balance and limits before something is created, to refuse early what RunPod would not
            start. A key that may not read them is no error.
    """

    control_url: Address = CONTROL_URL
    jobs_url: Address = JOBS_URL
    lb_url: Template = LB_URL
    proxy_url: Template = PROXY_URL
    balance_path: Path = "/billing/balance"
    limits_path: Path = "/account/limits"
    account_checks: bool = True


EndpointType = Literal["QUEUE", "LOAD_BALANCER"]
Cloud = Literal["SECURE", "COMMUNITY"]


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("one stands there twice")
    return values


class SpecOptions(InputModel):
    """``provider_options["runpod"]``.

    Attributes:
        endpoint_type: A function is a ``QUEUE``, an http deployment a ``LOAD_BALANCER``. ``"QUEUE"`` for an http
            deployment is for images whose worker brings its own ``/openai/v1`` route (RunPod's vLLM worker):
            ``request`` and ``openai`` then go by that.
        flashboot: ``"FLASHBOOT"`` revives a worker from a snapshot where it can; ``"OFF"``; ``"PRIORITY_FLASHBOOT"``.
        data_centers: RunPod's own ids, as in ``"EU-RO-1"``. RunPod calls them preferred, and keeps to them.
        min_cuda: The least CUDA version of the host, as in ``"12.4"``.
        network_volumes: Ids of network volumes that you made yourself; never deleted by unigpu. Mounted at
            ``/runpod-volume``. At most one in each data center.
        health_path: http deployments: where RunPod asks whether a worker is ready (200 yes, 204 not yet).
        cloud: Pods: whose machines, in this order. ``COMMUNITY`` are strangers' hosts.
        mount_path: Pods: where their volume is mounted.
        route: Pods: where ``invoke`` posts the bare input, for a function image whose server is not unigpu's worker.
    """

    endpoint_type: EndpointType | None = None
    flashboot: Literal["OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"] = "FLASHBOOT"
    data_centers: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_distinct)] = ()
    min_cuda: Annotated[str, Field(pattern=r"^\d+\.\d+$")] | None = None
    network_volumes: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], AfterValidator(_distinct)] = ()
    health_path: Annotated[str, Field(pattern=r"^/[^\s?#]*$")] = "/ping"
    cloud: Annotated[tuple[Cloud, ...], Field(min_length=1), AfterValidator(_distinct)] = ("SECURE",)
    route: Annotated[str, Field(pattern=r"^/[^\s?#]*$")] | None = None
    mount_path: Annotated[str, Field(pattern=r"^/[^\s]+$")] = "/workspace"
