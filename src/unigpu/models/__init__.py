"""The words that users and drivers share, as data. No I/O here."""

from __future__ import annotations

from ._json_check import json_path
from ._model_kinds import Data, InputModel, WireModel, nearest
from ._text import deploy_line
from .deployment import (
    Adaptation,
    Change,
    DeploymentInfo,
    Event,
    Interface,
    Kind,
    LogLine,
    Progress,
    Rate,
    State,
    TtlEnforcer,
    Worker,
    WorkerState,
)
from .explain import Explanation
from .gc import GcReport, GcRow
from .gpu import GPURequest
from .identity import Identity, is_in_namespace, is_ours, provider_name
from .inventory import Inventory, InventoryItem
from .job import Cost, JobError, JobInfo, JobStatus, Result, StartFailure, Timing
from .offer import Offer, Offers
from .plan import Plan, PlannedRequest, Plans
from .spec import (
    BearerToken,
    DeploymentSpec,
    RegistryAuth,
    Scaling,
    SecretRef,
    SpecFields,
    Volume,
    scale_range,
)

__all__ = [
    "Adaptation",
    "BearerToken",
    "Change",
    "Cost",
    "Data",
    "DeploymentInfo",
    "DeploymentSpec",
    "Event",
    "Explanation",
    "GPURequest",
    "GcReport",
    "GcRow",
    "Identity",
    "InputModel",
    "Interface",
    "Inventory",
    "InventoryItem",
    "JobError",
    "JobInfo",
    "JobStatus",
    "Kind",
    "LogLine",
    "Offer",
    "Offers",
    "Plan",
    "PlannedRequest",
    "Plans",
    "Progress",
    "Rate",
    "RegistryAuth",
    "Result",
    "Scaling",
    "SecretRef",
    "SpecFields",
    "StartFailure",
    "State",
    "Timing",
    "TtlEnforcer",
    "Volume",
    "WireModel",
    "Worker",
    "WorkerState",
    "deploy_line",
    "is_in_namespace",
    "is_ours",
    "json_path",
    "nearest",
    "provider_name",
    "scale_range",
]
