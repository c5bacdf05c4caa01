"""What only Yotta has: the driver's own settings, and a deployment's."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from unigpu.driver import GPURequest, InputModel, duration

BASE: Final = "https://api.yottalabs.ai"
SETTLE: Final = 120.0
"""Seconds; the longest of all our platforms, because what a lost answer left behind bills from the start. How late
Yotta's lists are is not documented."""
LEAST_DISK: Final = 20
PORT: Final = 8000

Mode = Literal["QUEUE", "ALB", "CUSTOM"]
_REGION: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class Options(InputModel):
    """``driver_options["yotta"]``.

    Attributes:
        base_url: The control plane.
        env_key: The name under which create reads the environment. The guides write ``environmentVars`` at one place
            and ``envVars`` at another, so both are sent until one is known to be right
            (https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless).
        credential_key: The same for the stored login of a private registry.
        price_of: What ``perHourPrice`` of an endpoint counts. Not documented; taken as the price of one worker, a cap
            is never exceeded, at worst held too early.
        prices: Canonical GPU name → USD of one GPU-hour, for rates and offers: Yotta's API tells no price beforehand.
        settle: Seconds for which a create without an answer is looked for.
    """

    base_url: str = BASE
    env_key: Literal["both", "environmentVars", "envVars"] = "both"
    credential_key: Literal["both", "containerRegistryAuthId", "credentialId"] = "both"
    price_of: Literal["worker", "endpoint"] = "worker"
    prices: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(default_factory=dict[str, float])
    settle: Annotated[float, BeforeValidator(duration), Field(gt=0)] = SETTLE

    @field_validator("prices")
    @classmethod
    def _names(cls, given: dict[str, float]) -> dict[str, float]:
        return {GPURequest.model_validate(name).name or name: price for name, price in given.items()}


class Mount(InputModel):
    """A volume of the account, which exists and outlives the pod.

    Attributes:
        id: Yotta's id of it.
        path: Where the pod has it.
        backup: Whether Yotta keeps a backup (``needBackup``; what that is is not documented).
    """

    id: Annotated[int, Field(ge=1)]
    path: Annotated[str, Field(pattern=r"^/[^\s\x00]*$", max_length=255)]
    backup: bool = False


class SpecOptions(InputModel):
    """``provider_options["yotta"]``.

    Attributes:
        service_mode: ``QUEUE`` (the default of a function), ``ALB`` (the default of an http deployment; a function then
            has no jobs), or ``CUSTOM`` (workers that cannot be called).
        regions: Yotta's own region ids, as in ``["us-east-3", "eu-2"]``: sent as they are. Left out: every region that
            the platform lists as available for an acceptable GPU now.
        route: Where ``invoke`` posts the bare input, for an image whose server is not our worker.
        credential_id: The id of a registry login that is stored on the account, instead of ``registry=``.
        image_registry: The registry's address, as in ``"https://ghcr.io"``, where the image's name is not enough.
        webhook: Where Yotta posts worker-status notices (its payload is not documented).
        min_vram_gb, min_ram_gb, min_vcpu: The least of one GPU's memory, and of the machine's share that comes with it.
        shm_gb: Pods: shared memory.
        volumes: Pods: volumes of the account to mount. unigpu neither makes nor deletes them; they bill until you do.
    """

    service_mode: Mode | None = None
    regions: Annotated[tuple[Annotated[str, Field(pattern=_REGION)], ...] | None, Field(min_length=1)] = None
    route: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@/-]*$", max_length=255)] | None = None
    credential_id: Annotated[int, Field(ge=1)] | None = None
    image_registry: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    webhook: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=512)] | None = None
    min_vram_gb: Annotated[int, Field(ge=1, le=1536)] | None = None
    min_ram_gb: Annotated[int, Field(ge=1, le=1536)] | None = None
    min_vcpu: Annotated[int, Field(ge=1)] | None = None
    shm_gb: Annotated[int, Field(ge=1)] | None = None
    volumes: Annotated[tuple[Mount, ...] | None, Field(min_length=1)] = None
