"""Deploy, update, teardown and calls for every provider: the sequence, where drivers only have verbs."""

from __future__ import annotations

from ._scope import CallOptions, Deployed, Scope
from .control import find, listing, resolve, scale, start, stop, wake
from .gc import Group, collect, inspect
from .intent import Intent, IntentStore
from .inventory import inventory
from .jobs import invoke, job_cancel, job_result, job_status, new_job_id, submit
from .owed import Owed, pay, pay_quietly
from .ready import read, wait_ready
from .reconcile import deploy, update
from .request import Asking, OpenReply, request
from .shared_looks import SharedLooks
from .stream import StreamRun, job_stream, stream
from .teardown import end_expired, known, teardown

__all__ = [
    "Asking",
    "CallOptions",
    "Deployed",
    "Group",
    "Intent",
    "IntentStore",
    "OpenReply",
    "Owed",
    "Scope",
    "SharedLooks",
    "StreamRun",
    "collect",
    "deploy",
    "end_expired",
    "find",
    "inspect",
    "inventory",
    "invoke",
    "job_cancel",
    "job_result",
    "job_status",
    "job_stream",
    "known",
    "listing",
    "new_job_id",
    "pay",
    "pay_quietly",
    "read",
    "request",
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
