"""Deploy, update, teardown and calls for every provider: the sequence, where drivers only have verbs."""

from __future__ import annotations

from .consistency.owed_checks import Owed, pay, pay_quietly
from .gc import Group, collect, inspect
from .intents import Intent, IntentStore
from .inventory import inventory
from .jobs import invoke, job_cancel, job_result, job_status, new_job_id, submit
from .ready import read, wait_ready
from .request import Asking, OpenReply, request
from .scale import find, listing, resolve, scale, start, stop, wake
from .scope import CallOptions, Deployed, Scope
from .shared_status import SharedLooks
from .stream import StreamRun, job_stream, stream
from .teardown import end_expired, known, teardown
from .update import deploy, update

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
