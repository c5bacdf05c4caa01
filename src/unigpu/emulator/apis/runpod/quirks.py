"""What RunPod does that one would not expect, each with a switch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

WIDE: Final = (("minute", 6_000, 60), ("hour", 300_000, 3600), ("day", 5_000_000, 86_400))
"""Limits for tests and for `cloud serve`, whose calls come faster than a person's: announced, and never reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What RunPod does that one would not expect. Each can be switched; the default is RunPod as it is today.

    Attributes:
        omitted_timeout: Milliseconds that ``timeout`` is where a create leaves it out: the OpenAPI file says 300000,
            RunPod's migration notes saw 0, which is none
            (https://github.com/runpod/runpod-plugins-official, breaking-changes.md).
        patch_wipes_exclusions: Any PATCH clears ``gpu.excludedTypes``: so in the middle of 2026
            (https://github.com/runpod/runpod-mcp/pull/70); the OpenAPI file describes the repaired behaviour.
        empty_input_fails: A job with ``{}`` ends FAILED with "job timed out after 1 retries": the worker drops it
            (https://github.com/runpod/runpod-plugins-official, golden-paths/15).
        redispatch: A job whose worker died is given to another one, once (the same note); RunPod promises delivery at
            least once (https://docs.runpod.io/serverless/endpoints/operation-reference, ``retries``).
        starts_fail_quietly: Workers that cannot start are tried for ever, and what waits stays IN_QUEUE: a crash loop
            looks like missing capacity (https://github.com/runpod/runpod-mcp/pull/62).
        vendor_lowers_max: After 3 days without a request RunPod sets ``workers.max`` to 2, after 7 to 0
            (https://docs.runpod.io/serverless/endpoints/endpoint-configurations).
        rate_limits: Name, requests and seconds of each window of the control plane, announced in ``RateLimit``
            headers. The numbers are the OpenAPI file's examples, no promise.
        job_rates: Requests in 10 seconds on one endpoint, by operation
            (https://docs.runpod.io/serverless/endpoints/send-requests).
        most_run_bytes, most_runsync_bytes: How large a job may be (the same page). The status of a larger one is not
            documented; 413 is ours, unverified.
        run_kept, runsync_kept: Seconds that results are kept (the same page: 30 minutes, 1 minute).
        sync_wait: Seconds that ``/runsync`` waits where the caller does not say (operation-reference: 90 s).
        stream_wait: The same of ``/stream`` (https://github.com/runpod/runpod-mcp, src/tools/jobs.ts: 10 s).
        lb_wait: Seconds that a load balancer waits for a worker
            (https://docs.runpod.io/serverless/load-balancing/overview: 2 minutes).
        no_worker_status: What a load balancer answers without a worker. The texts are documented, the status is not.
        most_workers: The quota on the sum of ``workers.max`` (https://docs.runpod.io/serverless/workers/overview: 5 to
            60 by the account's balance). What is above it is refused with 400, unverified.
        balance: USD; at 0 or below creates are refused with 402 where billing is ``PREPAID``.
        billing: ``PREPAID`` or ``POSTPAID``.
        spend_limit: USD per hour (https://docs.runpod.io/api-reference-v2/account/get-account-limits).
        bills_start: Whether a worker is billed before it is ready. RunPod's pages disagree: "initializing" is free,
            "start time" is not.
        short_pod_page: A page of pods may be empty although another follows (the OpenAPI file's note on clusters).
    """

    omitted_timeout: int = 0
    patch_wipes_exclusions: bool = False
    empty_input_fails: bool = True
    redispatch: bool = True
    starts_fail_quietly: bool = True
    vendor_lowers_max: bool = True
    rate_limits: tuple[tuple[str, int, int], ...] = (("minute", 60, 60), ("hour", 3000, 3600), ("day", 50_000, 86_400))
    job_rates: Mapping[str, int] = field(
        default_factory=lambda: {
            "runsync": 2000,
            "run": 1000,
            "status": 2000,
            "cancel": 100,
            "purge": 2,
            "openai": 2000,
        }
    )
    most_run_bytes: int = 10_000_000
    most_runsync_bytes: int = 20_000_000
    run_kept: float = 1800.0
    runsync_kept: float = 60.0
    sync_wait: float = 90.0
    stream_wait: float = 10.0
    lb_wait: float = 120.0
    no_worker_status: int = 400
    most_workers: int = 60
    balance: float = 100.0
    billing: Literal["PREPAID", "POSTPAID"] = "PREPAID"
    spend_limit: float = 80.0
    bills_start: bool = True
    short_pod_page: bool = False
