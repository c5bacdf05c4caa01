"""Deploy, update, teardown and calls for every provider: the sequence, where drivers only have verbs."""

from __future__ import annotations

from ._scope import CallOptions, Deployed, Scope
from .control import listing, read, resolve, scale, start, stop, wake
from .intent import Intent, IntentStore
from .jobs import invoke, job_cancel, job_result, job_status, new_job_id, submit
from .ready import wait_ready
from .reconcile import deploy, update
from .stream import StreamRun, job_stream, stream
from .teardown import known, teardown

__all__ = [
    "CallOptions",
    "Deployed",
    "Intent",
    "IntentStore",
    "Scope",
    "StreamRun",
    "deploy",
    "invoke",
    "job_cancel",
    "job_result",
    "job_status",
    "job_stream",
    "known",
    "listing",
    "new_job_id",
    "read",
    "resolve",
    "scale",
    "start",
    "stop",
    "stream",
    "submit",
    "teardown",
    "update",
    "wait_ready",
    "wake",
]
