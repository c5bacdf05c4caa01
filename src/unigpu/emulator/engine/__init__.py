"""The emulator's engine: deployments, workers, jobs, faults and the bill, without any I/O."""

from __future__ import annotations

from .engine import Engine
from .entities import Deployment, EngineSettings, Job, LogRecord, Refused, Terms, Worker

__all__ = ["Deployment", "Engine", "EngineSettings", "Job", "LogRecord", "Refused", "Terms", "Worker"]
