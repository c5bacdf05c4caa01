"""RunPod: serverless endpoints (queues and load balancers) and pods, by its REST v2 and its job service."""

from __future__ import annotations

from .driver import RunPodDriver

__all__ = ["RunPodDriver"]
