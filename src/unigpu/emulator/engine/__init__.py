"""The emulator's engine: deployments, workers, jobs, faults and the bill, without any I/O."""

from __future__ import annotations

from .engine import Engine
from .entities import (
    DeploymentTerms,
    EngineDeployment,
    EngineJob,
    EngineRefused,
    EngineSettings,
    EngineWorker,
    LogRecord,
)

__all__ = [
    "DeploymentTerms",
    "Engine",
    "EngineDeployment",
    "EngineJob",
    "EngineRefused",
    "EngineSettings",
    "EngineWorker",
    "LogRecord",
]
