"""The questions to ask of anything that is sold as a "serverless GPU", and the flags that answer them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

QUESTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "Who adds workers, and on what signal?": (
        "elasticity_model",
        "autoscaling_signals",
        "min_workers",
        "max_workers",
        "scale_to_zero",
        "wakes_on_request",
        "exact_replicas",
        "idle_timeout",
    ),
    "How long is a cold start?": ("cold_start",),
    "What is the smallest thing billed?": (
        "billing_unit",
        "billed_from",
        "bills_loading",
        "bills_idle",
        "bills_stopped",
        "storage_billing",
        "bandwidth_billing",
        "max_price",
    ),
    "Whose machines are they?": ("inventory", "preemption", "host_trust", "public_endpoint", "regions", "sla"),
}
"""The four questions, each with its flags; the flags that stand in none of them follow in the order of the table."""
