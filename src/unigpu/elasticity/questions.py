"""The questions to ask of anything that is sold as a "serverless GPU", the flags that answer them, and plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .fact import Fact

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

IN_SHORT: Final[tuple[tuple[tuple[str, str], ...], ...]] = (
    (
        ("", "elasticity_model"),
        ("signal:", "autoscaling_signals"),
        ("to zero:", "scale_to_zero"),
        ("a call wakes it:", "wakes_on_request"),
    ),
    (("", "cold_start"),),
    (("", "billing_unit"), ("loading:", "bills_loading"), ("idle:", "bills_idle"), ("stopped:", "bills_stopped")),
    (("", "inventory"), ("taken away:", "preemption"), ("can read its disk:", "host_trust")),
)
"""The answers in one look: for each question in its order, what to say of which flags. The first is the headline."""

_BILLED: Final = {"full": "full price", "storage": "storage only"}
_KEPT: Final = {"memory": "in memory only", "none": "not at all"}
_WORDS: Final[Mapping[str, Mapping[str, str]]] = {
    "elasticity_model": {"declared": "declared: as many as you say", "fixed": "fixed: one machine"},
    "scale_to_zero": {"manual": "by hand only", "none": "never"},
    "bills_loading": _BILLED,
    "bills_idle": _BILLED,
    "bills_stopped": _BILLED,
    "max_price": {
        "met": "it is free",
        "search": "in the search",
        "catalogue": "by the price list",
        "after_create": "read after create, and undone",
        "none": "nowhere",
    },
    "inventory": {"partners": "partners' data centres", "marketplace": "strangers', from a market"},
    "host_trust": {"host": "a stranger's host", "provider": "the provider", "you": "only you"},
    "regions": {"met": "it is here", "countries": "by country", "own_ids": "by its own ids", "none": "not at all"},
    "ttl_enforced_by": {"client": "your next call, or gc", "worker": "the worker", "platform": "the platform"},
    "queue_durability": _KEPT,
    "job_persistence": _KEPT,
    "worker_exit": {"replaced": "replaced by a new one", "ends_billing": "ends the billing"},
}


def in_words(flag: str, fact: Fact[Any]) -> str:
    """A fact's value as a reader takes it who has not read what the flag means: ``"your next call, or gc"``."""
    value: object = fact.value
    known = _WORDS.get(flag, {}).get(value) if isinstance(value, str) else None
    return known or fact.shown
