"""One client for serverless GPUs, whose elasticity you can trust.

    with unigpu.Client() as client:                      # nothing configured: your own machine
        app = client.deploy(name="hello", handler="app.py:hello")
        print(app.invoke({"name": "you"}).output)
        app.teardown()

`Client` and `AsyncClient` have the same verbs; `DeploymentSpec` has every field of a deploy; all that is raised is a
`UniGPUError`. ``unigpu`` is the command line, `unigpu.testing` serves whole platforms in a test's memory.
"""

# Importing this package loads nothing but this file and the version: each public name is fetched when it is first used.

from __future__ import annotations

from ._version import __version__

TYPE_CHECKING = False  # type checkers take this name for true; importing it from typing would cost 3 ms
if TYPE_CHECKING:
    from typing import Any

    from ._client import (
        AsyncClient,
        AsyncDeployment,
        AsyncHTTPStream,
        AsyncJob,
        AsyncStream,
        Client,
        Deployment,
        Deployments,
        HTTPReply,
        HTTPStream,
        Job,
        ServerSentEvent,
        Stream,
    )
    from ._client.compare import Comparison, compare
    from .elasticity.capabilities import Capabilities
    from .errors import (
        APIStatusError,
        AuthenticationError,
        CheckpointMismatch,
        CircuitOpen,
        ClientClosed,
        ConfigurationError,
        ConflictError,
        DeadlineExceeded,
        DeploymentGone,
        DeployOutcomeUnknown,
        InsufficientBalanceError,
        InvalidInput,
        InvalidRequestError,
        InvalidResponseError,
        JobCancelled,
        JobExpired,
        JobFailed,
        NameConflict,
        NoCapacityError,
        NotFoundError,
        NoWorkerReady,
        PartialDeployError,
        PayloadTooLarge,
        PermissionDeniedError,
        PlanChanged,
        ProviderUnavailableError,
        QuotaExceededError,
        RateLimitError,
        ResultUnknown,
        StateError,
        StreamInterrupted,
        TeardownIncomplete,
        TransportError,
        TransportTimeout,
        UniGPUError,
        UnsupportedError,
        WorkerFailed,
        WorkerLost,
    )
    from .models import (
        Adaptation,
        BearerToken,
        Cost,
        DeploymentInfo,
        DeploymentSpec,
        Event,
        Explanation,
        GcReport,
        GcRow,
        GPURequest,
        Inventory,
        InventoryItem,
        JobError,
        JobInfo,
        JobStatus,
        LogLine,
        Offer,
        Offers,
        Plan,
        PlannedRequest,
        Plans,
        Progress,
        Rate,
        RegistryAuth,
        Result,
        Scaling,
        SecretRef,
        State,
        Timing,
        Volume,
        Worker,
        WorkerState,
    )
__all__ = [
    "APIStatusError",
    "Adaptation",
    "AsyncClient",
    "AsyncDeployment",
    "AsyncHTTPStream",
    "AsyncJob",
    "AsyncStream",
    "AuthenticationError",
    "BearerToken",
    "Capabilities",
    "CheckpointMismatch",
    "CircuitOpen",
    "Client",
    "ClientClosed",
    "Comparison",
    "ConfigurationError",
    "ConflictError",
    "Cost",
    "DeadlineExceeded",
    "DeployOutcomeUnknown",
    "Deployment",
    "DeploymentGone",
    "DeploymentInfo",
    "DeploymentSpec",
    "Deployments",
    "Event",
    "Explanation",
    "GPURequest",
    "GcReport",
    "GcRow",
    "HTTPReply",
    "HTTPStream",
    "InsufficientBalanceError",
    "InvalidInput",
    "InvalidRequestError",
    "InvalidResponseError",
    "Inventory",
    "InventoryItem",
    "Job",
    "JobCancelled",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JobInfo",
    "JobStatus",
    "LogLine",
    "NameConflict",
    "NoCapacityError",
    "NoWorkerReady",
    "NotFoundError",
    "Offer",
    "Offers",
    "PartialDeployError",
    "PayloadTooLarge",
    "PermissionDeniedError",
    "Plan",
    "PlanChanged",
    "PlannedRequest",
    "Plans",
    "Progress",
    "ProviderUnavailableError",
    "QuotaExceededError",
    "Rate",
    "RateLimitError",
    "RegistryAuth",
    "Result",
    "ResultUnknown",
    "Scaling",
    "SecretRef",
    "ServerSentEvent",
    "State",
    "StateError",
    "Stream",
    "StreamInterrupted",
    "TeardownIncomplete",
    "Timing",
    "TransportError",
    "TransportTimeout",
    "UniGPUError",
    "UnsupportedError",
    "Volume",
    "Worker",
    "WorkerFailed",
    "WorkerLost",
    "WorkerState",
    "__version__",
    "compare",
]

_MODULES = frozenset({"driver", "errors", "models", "testing"})
_CLIENT = frozenset(
    {
        "AsyncClient",
        "AsyncDeployment",
        "AsyncHTTPStream",
        "AsyncJob",
        "AsyncStream",
        "Client",
        "Deployment",
        "Deployments",
        "HTTPReply",
        "HTTPStream",
        "Job",
        "ServerSentEvent",
        "Stream",
    }
)
_MODELS = frozenset(
    {
        "Adaptation",
        "BearerToken",
        "Cost",
        "DeploymentInfo",
        "DeploymentSpec",
        "Event",
        "Explanation",
        "GPURequest",
        "GcReport",
        "GcRow",
        "Inventory",
        "InventoryItem",
        "JobError",
        "JobInfo",
        "JobStatus",
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
        "State",
        "Timing",
        "Volume",
        "Worker",
        "WorkerState",
    }
)


def __getattr__(name: str) -> Any:
    """Fetch a public name or module when it is first used (PEP 562), and keep it."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f".{name}", __name__)
    if name not in __all__:
        # `name` and `obj` are what Python finds "did you mean" by.
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name, obj=import_module(__name__))
    if name in _CLIENT:
        module = "._client"
    elif name in _MODELS:
        module = ".models"
    elif name in ("Comparison", "compare"):
        module = "._client.compare"
    elif name == "Capabilities":
        module = ".elasticity.capabilities"
    else:
        module = ".errors"
    value = getattr(import_module(module, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
