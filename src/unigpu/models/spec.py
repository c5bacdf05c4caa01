"""What a user asks for: the deployment spec, checked before anything is sent.

Fields are *demands* (a platform meets them, or says no) or *placement and content* (where and what). Only a field that
was stated is a demand: a default that a platform lacks becomes the platform's nearest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, TypedDict

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StrictBool, field_validator, model_validator

from ..errors import ConfigurationError
from ._json_check import check_json
from ._model_kinds import InputModel
from ._regions import region_codes
from ._spec_values import (
    EnvName,
    Risk,
    accepted_risks,
    duration,
    env_map,
    handler_target,
    image_reference,
    logical_name,
    mount_path,
    secret_map,
    shell_words,
    worker_range,
)
from .deployment import Interface, Kind
from .gpu import GPURequest, distinct, gpu_requests

DEFAULT_WORKERS: Final = (0, 1)
DEFAULT_IDLE_TIMEOUT: Final = 60.0
DEFAULT_EXECUTION_TIMEOUT: Final = 600.0
DEFAULT_PORT: Final = 8000

# What a deployment must be. All other fields say where it runs and what is in it.
DEMANDS: Final = frozenset(
    {
        "name", "interface", "kind", "workers", "idle_timeout", "scaling", "execution_timeout",
        "concurrency", "max_price", "ttl", "regions",
    }
)  # fmt: skip
# What `scale` changes, and what never makes two deployments differ.
SCALED: Final = frozenset({"workers", "idle_timeout", "scaling"})


# A pod is exactly one worker; it has no other default.
def _default_workers(before: dict[str, Any]) -> tuple[int, int]:
    return (1, 1) if before.get("kind") == "pod" else DEFAULT_WORKERS


class Scaling(InputModel):
    """When workers are added.

    Attributes:
        signal: ``"queue_delay"`` (seconds that a job waits) or ``"requests"`` (requests per worker).
        target: Above this, a worker is added.
    """

    signal: Literal["queue_delay", "requests"]
    target: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]


class RegistryAuth(InputModel):
    """The login of a private image registry."""

    username: Annotated[str, Field(min_length=1)]
    password: SecretStr


class SecretRef(InputModel):
    """A secret that is already stored on the platform, by its name there."""

    name: Annotated[str, Field(min_length=1)]


class BearerToken(InputModel):
    """A token that callers must send; read from the environment variable ``env`` and put into the container."""

    env: EnvName


class Volume(InputModel):
    """A disk that outlives workers and deployments.

    Attributes:
        size_gb: Gigabytes (10^9 bytes).
        path: Where it is mounted; ``None``: where the platform mounts it (``${volume.NAME}`` names it).
    """

    name: Annotated[str, BeforeValidator(logical_name)]
    size_gb: Annotated[int, Field(ge=1, le=100_000, strict=True)]
    path: Annotated[str | None, BeforeValidator(mount_path)] = None


Secrets = Mapping[str, SecretStr | SecretRef | None]


class DeploymentSpec(InputModel):
    """What should run. Every field can be given to ``deploy`` as a keyword.

    Attributes:
        name: The logical name, ``[a-z][a-z0-9-]{0,62}``; unique in a namespace of an account.
        interface: ``"function"`` (JSON in, JSON out, through a handler) or ``"http"`` (your own server).
        kind: ``"serverless"``, or ``"pod"``: one machine kept for sustained work.
        handler: ``"module:name"``, ``"file.py:name"``, or a function or class defined in a module.
        image: A container image. Clouds need one; local ignores it, and says so.
        command: The container's own command, instead of a handler.
        workers: ``n`` or ``(least, most)``; by default none to one, and for a pod exactly one.
        idle_timeout: Seconds without work after which a worker above the least is stopped.
        scaling: When workers are added; ``None``: the platform's documented default.
        execution_timeout: Seconds one call may run.
        concurrency: Calls that one worker takes at a time.
        max_price: USD per worker-hour, all its GPUs and disk.
        ttl: Seconds (or ``"6h"``) after which it ends by itself; ``None``, stated: never.
        regions: ISO country codes, ``"EU"``, ``"NA"``, ``"APAC"``.
        gpu: Acceptable GPUs: ``"RTX 4090"``, ``["L40S", "H100 SXM:2"]``, ``"24GB"`` (at least that much memory).
        disk: Gigabytes of container disk.
        registry: The login for a private image.
        env: Visible configuration, as environment variables of the worker.
        secrets: Names to be read from the environment when they are sent, or a mapping to values.
        accept: Risks that you accept; the refusal of each names the word to add. ``"secrets_on_shared_hosts"``: send
            secrets to machines whose host can read them.
        volumes: Disks that outlive the deployment.
        auth: Who may call a public address: `BearerToken`, ``"none"``, or unset.
        port: The port that an http deployment's server listens on.
        idempotent: Whether the handler may safely run twice for one input.
        provider_options: What only one platform has, keyed by provider.

    Raises:
        ConfigurationError: naming the field, and what is allowed.
    """

    name: Annotated[str, BeforeValidator(logical_name)]
    interface: Interface = "function"
    kind: Kind = "serverless"
    handler: Annotated[str | None, BeforeValidator(handler_target)] = None
    image: Annotated[str | None, BeforeValidator(image_reference)] = None
    command: Annotated[tuple[str, ...] | None, BeforeValidator(shell_words)] = None
    workers: Annotated[tuple[int, int], BeforeValidator(worker_range)] = Field(default_factory=_default_workers)
    idle_timeout: Annotated[float, BeforeValidator(duration), Field(ge=0)] = DEFAULT_IDLE_TIMEOUT
    scaling: Scaling | None = None
    execution_timeout: Annotated[float, BeforeValidator(duration), Field(gt=0)] = DEFAULT_EXECUTION_TIMEOUT
    concurrency: Annotated[int, Field(ge=1, le=1000, strict=True)] = 1
    max_price: Annotated[float | None, Field(gt=0, allow_inf_nan=False, strict=True)] = None
    ttl: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(duration)] = None
    regions: Annotated[tuple[str, ...] | None, BeforeValidator(region_codes)] = None
    gpu: Annotated[tuple[GPURequest, ...] | None, BeforeValidator(gpu_requests), AfterValidator(distinct)] = None
    disk: Annotated[int | None, Field(ge=1, le=100_000, strict=True)] = None
    registry: RegistryAuth | None = None
    env: Annotated[Mapping[str, str], BeforeValidator(env_map)] = Field(default_factory=dict)
    secrets: Annotated[Secrets, BeforeValidator(secret_map)] = Field(default_factory=dict)
    accept: Annotated[tuple[Risk, ...], BeforeValidator(accepted_risks)] = ()
    volumes: tuple[Volume, ...] = ()
    auth: BearerToken | Literal["none"] | None = None
    port: Annotated[int | None, Field(ge=1, le=65535, strict=True)] = None
    idempotent: StrictBool = False
    provider_options: Mapping[str, Mapping[str, Any]] = Field(default_factory=dict)

    @field_validator("provider_options", mode="before")
    @classmethod
    def _options(cls, value: object) -> object:
        check_json(value, what="provider_options")
        return value

    @model_validator(mode="after")
    def _together(self) -> DeploymentSpec:
        if self.handler is not None and self.command is not None:
            raise ValueError("give handler= or command=, not both: a handler is the container's command")
        if self.interface == "http" and self.handler is not None:
            raise ValueError(
                'interface="http" serves your own program: give command=[...] (it listens on $PORT), '
                'or use interface="function" for a handler'
            )
        if self.kind == "pod" and "workers" in self.model_fields_set and self.workers != (1, 1):
            raise ValueError('kind="pod" is exactly one worker: leave workers out, or say workers=1')
        overlap = sorted(set(self.env) & set(self.secrets))
        if overlap:
            raise ValueError(f"{', '.join(overlap)}: in env and in secrets; a variable is one of the two")
        names = [v.name for v in self.volumes]
        if len(set(names)) != len(names):
            raise ValueError("volumes: two volumes have the same name")
        paths = [v.path for v in self.volumes if v.path is not None]
        if len(set(paths)) != len(paths):
            raise ValueError("volumes: two volumes are mounted at the same path")
        texts = [(f"env.{name}", text) for name, text in self.env.items()]
        texts += [("command", word) for word in self.command or ()]
        for where, text in texts:
            if any(used not in names for used in re.findall(r"\$\{volume\.([^}]*)\}", text)):
                known = f"it has: {', '.join(names)}" if names else "it has none"
                raise ValueError(f"{where}: ${{volume.NAME}} names no volume of this spec; {known}")
        if isinstance(self.auth, BearerToken) and self.auth.env in self.env:
            raise ValueError(f"auth: {self.auth.env} is in env too, which anybody can see; leave it out there")
        if any(g.memory_gb is not None and g.name is None for g in self.gpu or ()) and self.max_price is None:
            raise ValueError(
                'gpu: a size such as "24GB" accepts every GPU with at least that much memory, also dear ones; '
                "give max_price= (USD per worker-hour) with it"
            )
        return self

    @property
    def stated(self) -> frozenset[str]:
        """The fields that the user gave: the demands."""
        return frozenset(self.model_fields_set)

    def options(self, provider: str) -> Mapping[str, Any]:
        """The options for one provider."""
        return self.provider_options.get(provider, {})

    def runs_our_worker(self, provider: str) -> bool:
        """Whether the container runs unigpu's portable worker, as far as the spec tells.

        A function image without a command of its own is taken for one, unless its option ``route`` says where to post.
        """
        if self.handler is not None:
            return True
        return self.interface == "function" and self.command is None and "route" not in self.options(provider)

    def without(self, *fields: str) -> DeploymentSpec:
        """A copy in which these fields are as if they had not been stated, checked again."""
        return DeploymentSpec.model_validate({k: getattr(self, k) for k in self.model_fields_set if k not in fields})

    def with_changes(self, **fields: Any) -> DeploymentSpec:
        """A copy with other fields, checked again; only stated fields stay stated."""
        known = {k: getattr(self, k) for k in self.model_fields_set}
        return DeploymentSpec.model_validate({**known, **fields})


class SpecFields(TypedDict, total=False):
    """The fields of `DeploymentSpec`, as keywords of ``deploy``, ``update`` and ``plan``."""

    name: str
    interface: Interface
    kind: Kind
    handler: str | Callable[..., Any]
    image: str | None
    command: str | list[str] | tuple[str, ...] | None
    workers: int | tuple[int, int]
    idle_timeout: float | str
    scaling: Scaling | Mapping[str, Any] | None
    execution_timeout: float | str
    concurrency: int
    max_price: float | None
    ttl: float | str | None
    regions: str | list[str] | tuple[str, ...] | None
    gpu: str | GPURequest | list[str] | tuple[str, ...] | list[GPURequest] | tuple[GPURequest, ...] | None
    disk: int | None
    registry: RegistryAuth | Mapping[str, Any] | None
    env: Mapping[str, str]
    secrets: list[str] | tuple[str, ...] | Mapping[str, Any]
    accept: Risk | list[Risk] | tuple[Risk, ...]
    volumes: list[Volume] | tuple[Volume, ...] | list[Mapping[str, Any]]
    auth: BearerToken | Literal["none"] | Mapping[str, Any] | None
    port: int | None
    idempotent: bool
    provider_options: Mapping[str, Mapping[str, Any]]


def scale_range(workers: object) -> tuple[int, int]:
    """The ``workers`` of a ``scale`` call, checked.

    Raises:
        ConfigurationError: where it is not ``n`` or ``(least, most)``, or leaves no worker at all.
    """
    try:
        return worker_range(workers)
    except ValueError as exc:
        raise ConfigurationError(f"workers: {exc}") from None
