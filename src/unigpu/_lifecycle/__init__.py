"""Deploy, update, teardown and calls for every provider: the order of steps. A driver has single verbs only."""

from __future__ import annotations

from .calls.jobs import invoke, job_cancel, job_result, job_status, new_job_id, submit
from .calls.request import Asking, OpenReply, request
from .calls.stream import StreamRun, job_stream, stream
from .consistency.absence import read
from .consistency.owed_checks import OwedChecks, pay, pay_quietly
from .deploy import deploy
from .gc import Group, collect, inspect
from .intents import Intent, IntentStore
from .inventory import inventory
from .listing import find, listing, resolve
from .ready import wait_ready
from .scale import scale, start, stop, wake
from .scope import CallOptions, Deployed, IfExists, OnFailure, OnTimeout, Scope, Wait, deploying
from .shared_status import SharedStatus
from .teardown import end_expired, known, teardown, teardown_adopted
from .update import update

__all__ = [
    "Asking",
    "CallOptions",
    "Deployed",
    "Group",
    "IfExists",
    "Intent",
    "IntentStore",
    "OnFailure",
    "OnTimeout",
    "OpenReply",
    "OwedChecks",
    "Scope",
    "SharedStatus",
    "StreamRun",
    "Wait",
    "collect",
    "deploy",
    "deploying",
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
    "teardown_adopted",
    "update",
    "wait_ready",
    "wake",
]
