"""How Yotta's emulator behaves where Yotta's documents are silent or contradict each other, and what it has in stock.

Each switch stands at what the platform is most likely to do today; its source, or that there is none, is beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

GUIDE: Final = "https://docs.yottalabs.ai/api-and-sdk/api-guides"
TESTS: Final = "https://github.com/yottalabsai/YottaML/tree/main/tests"

VRAM_GB: Final[Mapping[str, int]] = {
    "NVIDIA_RTX_4090_24G": 24,
    "NVIDIA_RTX_5090_32G": 32,
    "NVIDIA_RTX_A6000_48G": 48,
    "NVIDIA_RTX_6000_Ada_48G": 48,
    "NVIDIA_A100_PCIe_40G": 40,
    "NVIDIA_A100_40G": 40,
    "NVIDIA_A100_PCIe_80G": 80,
    "NVIDIA_A100_80G": 80,
    "NVIDIA_H100_PCIe_80G": 80,
    "NVIDIA_H100_80G": 80,
    "NVIDIA_RTX_PRO_6000_96G": 96,
    "NVIDIA_H200_141G": 141,
    "NVIDIA_B200_180G": 180,
    "NVIDIA_B300_262G": 262,
    "AWS_Trainium_32G": 32,
    "AMD_MI300X_192G": 192,
}
"""GPU codes of https://docs.yottalabs.ai/api-and-sdk/api-guides (data model)."""

PRICES: Final[Mapping[str, float]] = {
    "NVIDIA_RTX_4090_24G": 0.40,
    "NVIDIA_RTX_5090_32G": 0.65,
    "NVIDIA_RTX_A6000_48G": 0.50,
    "NVIDIA_RTX_6000_Ada_48G": 0.75,
    "NVIDIA_A100_PCIe_40G": 0.90,
    "NVIDIA_A100_40G": 1.00,
    "NVIDIA_A100_PCIe_80G": 1.20,
    "NVIDIA_A100_80G": 1.30,
    "NVIDIA_H100_PCIe_80G": 1.75,
    "NVIDIA_H100_80G": 1.85,
    "NVIDIA_RTX_PRO_6000_96G": 1.50,
    "NVIDIA_H200_141G": 2.50,
    "NVIDIA_B200_180G": 4.00,
    "NVIDIA_B300_262G": 5.00,
    "AWS_Trainium_32G": 1.40,
    "AMD_MI300X_192G": 2.00,
}
"""USD of one GPU-hour. Yotta publishes two of these, as examples: the H100 (1.85,
https://docs.yottalabs.ai/products/serverless/pricing-and-billing) and Trainium (1.40, its tutorial). The others are
stand-ins of this emulator, and say nothing about Yotta."""

FREE_DISK_GB: Final = 256
DISK_PRICE: Final = 0.00005
"""USD of a GB-hour above the free ones: https://docs.yottalabs.ai/products/storage."""

REGIONS: Final[Mapping[str, str]] = {
    "us-east-3": "US East 3",
    "us-east-4": "US East 4",
    "us-central-7": "US Central 7",
    "eu-2": "Europe 2",
    "eu-3": "Europe 3",
}
"""Region codes that were seen in a live list; they change with supply."""


def full_stock() -> dict[str, dict[str, bool]]:
    """Every GPU in every region."""
    return {code: dict.fromkeys(REGIONS, True) for code in VRAM_GB}


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """Switches of the emulator.

    Attributes:
        error_status: A business error's HTTP status: ``ok`` is 200 (the official client's tests model 24002, 12000 and
            25002 so, https://github.com/yottalabsai/YottaML/tree/main/tests); ``http`` is the status that its OpenAPI
            file lists.
        endpoint_missing: The code of an endpoint that is not there: 24001, or 14000. Both are in the table of
            https://docs.yottalabs.ai/api-and-sdk/api-guides.
        pod_missing: 13000 (that table) or 12000 (the official client's tests).
        numeric_ids: Endpoint ids as numbers, as one tutorial shows them, instead of texts.
        iso_times: ``createdAt`` of endpoints as ISO 8601 (the guide); else milliseconds.
        env_key: The name under which create and update read the environment. The guide writes both.
        credential_key: The same for the stored registry login.
        shows_env: Under which name an endpoint shows its environment. The published objects do not show it.
        shows_prices: Whether ``perHourPrice`` and ``perSecondPrice`` are there: they are in the official MCP server's
            types (https://github.com/yottalabsai/agent-native-infra), not in the published samples.
        price_of: What they count. Not documented.
        zero_workers: What ``count=0`` does. Not documented; the console refuses to stop the last worker
            (https://docs.yottalabs.ai/products/serverless/queue-based).
        scale_stopped: Whether a stopped endpoint takes a new count. Not documented.
        worker_list, worker_logs: Whether these routes exist: the guide has them, the generated reference has not.
        lower_case_workers: Worker states in lower case, as one sample has them.
        accepts_tasks: Whether tasks are taken while no worker has been ready since the start. "Only RUNNING endpoints
            are accessible" (https://docs.yottalabs.ai/products/serverless/accessing-serverless-tasks); that the code is
            24000 is a guess.
        heals_running: An endpoint whose workers are being replaced stays RUNNING. Not documented.
        task_slots: Tasks that one worker gets at a time. Not documented.
        task_timeout: Seconds after which a task is given up. None is documented; a day here.
        requeues_lost: Whether a task whose worker died runs again. Not documented: it fails.
        delivered: When a task shows DELIVERED: the v1 guide means "given to the worker", v2 "result delivered".
        other_ports_refuse: A task for another port than the exposed one fails: nothing listens there.
        rate_limits: The limits of the queue, documented for v1: 40 creates and 60 reads a second and 1000 tasks of an
            endpoint, 200 and 400 a second of all (…/api-guides/serverless/queue-based-elastic-execution). "1000 tasks
            in all" is taken as those that are not at their end.
        callback_waits: Seconds before the further tries of a result's webhook (the same page).
        callback_upper: ``"SUCCESS"`` in callbacks, as that page's sample has it; its table says ``"Success"``.
        start_limit: Seconds that a worker may take until its port answers. None is documented, but a first start of 10
            to 20 minutes (https://github.com/yottalabsai/docs, serverless-inference-with-image-generation-models.md):
            an hour here.
        bills_loading: Whether a worker is billed before it is RUNNING. Pods are not; for serverless nothing is said.
        paused_state: Of a paused pod: ``STOPPED`` (guide and client), or ``PAUSED`` (the client's own test script).
        pod_create: What creating a pod gives: the object (reference), or its id (v1).
        volume_form: Volumes as the reference shows them now, or as the client's OpenAPI file of March 2026.
        vm_boot: Seconds until a VM runs.
        prices: GPU code → USD of one GPU-hour.
        stock: GPU code → region → available.
    """

    error_status: Literal["ok", "http"] = "ok"
    endpoint_missing: int = 24001
    pod_missing: int = 13000
    numeric_ids: bool = False
    iso_times: bool = True
    env_key: Literal["both", "environmentVars", "envVars"] = "both"
    credential_key: Literal["both", "containerRegistryAuthId", "credentialId"] = "both"
    shows_env: Literal["nothing", "environmentVars", "envVars"] = "nothing"
    shows_prices: bool = True
    price_of: Literal["worker", "endpoint"] = "worker"
    zero_workers: Literal["refuse", "stop"] = "refuse"
    scale_stopped: bool = False
    worker_list: bool = True
    worker_logs: bool = True
    lower_case_workers: bool = False
    accepts_tasks: Literal["running", "started"] = "running"
    heals_running: bool = True
    task_slots: int = 1
    task_timeout: float = 86_400.0
    requeues_lost: bool = False
    delivered: Literal["never", "at_worker", "after_webhook"] = "never"
    other_ports_refuse: bool = True
    rate_limits: bool = True
    callback_waits: tuple[float, ...] = (60.0, 300.0, 900.0)
    callback_upper: bool = False
    start_limit: float = 3600.0
    bills_loading: bool = False
    paused_state: Literal["STOPPED", "PAUSED"] = "STOPPED"
    pod_create: Literal["object", "id"] = "object"
    volume_form: Literal["reference", "client"] = "reference"
    vm_boot: float = 30.0
    prices: Mapping[str, float] = field(default_factory=lambda: dict(PRICES))
    stock: Mapping[str, Mapping[str, bool]] = field(default_factory=full_stock)
