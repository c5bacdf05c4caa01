"""The line that a deploy ends with."""

from __future__ import annotations

from typing import Any

import pytest

from unigpu.driver.prices import workers_hour
from unigpu.models import DeploymentInfo, DeploymentSpec, Rate, TtlEnforcer, deploy_line
from unigpu.models._text import seconds


def line(provider: str, price: float | None, source: str | None, by: TtlEnforcer = "platform", **fields: Any) -> str:
    spec = DeploymentSpec.model_validate({"name": "summarize", **fields})
    info = DeploymentInfo(
        provider=provider, name="summarize", provider_name="summa-ugaaaabbbbbbbb", id="e1", workers=spec.workers
    )
    gpu = "" if provider == "local" else None
    idle, most = (workers_hour(count, price) for count in spec.workers)
    rate = Rate(idle_per_hour=idle, max_per_hour=most, source=source)
    return deploy_line(info, spec, rate, ttl_enforced_by=by, gpu=gpu)


def test_it_says_where_how_many_what_it_costs_and_when_it_ends() -> None:
    assert line("runpod", 1.116, "list price, 2026-11-24", gpu="RTX 4090", workers=(0, 3)) == (
        "summarize on runpod: 0–3 × RTX 4090, idle $0.00/h, at most $3.35/h (list price, 2026-11-24), no ttl"
    )


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "0–1 workers, idle $0.00/h"),
        ({"workers": 1}, "1 worker, idle $2.00/h, at most $2.00/h"),
        ({"workers": 2, "gpu": "H100 SXM:2"}, "2 × (2 × H100 SXM), idle $4.00/h, at most $4.00/h"),
        ({"gpu": ["RTX 4090", "L40S"]}, "0–1 × RTX 4090 or L40S,"),
        ({"gpu": "24GB", "max_price": 3}, "0–1 × GPU with 24GB,"),
    ],
)
def test_workers_and_gpus_are_counted_in_words(fields: dict[str, Any], text: str) -> None:
    assert text in line("vast", 2.0, None, **fields)


def test_an_unknown_price_is_unknown_and_no_worker_costs_nothing() -> None:
    assert "idle $0.00/h, at most unknown/h, no ttl" in line("yotta", None, None)
    assert "idle unknown/h, at most unknown/h" in line("yotta", None, None, workers=1)


def test_local_costs_nothing_and_names_no_gpu() -> None:
    assert line("local", 0.0, "this machine", gpu="RTX 4090", workers=(0, 3)) == (
        "summarize on local: 0–3 workers, idle $0.00/h, at most $0.00/h (this machine), no ttl"
    )


@pytest.mark.parametrize(
    ("by", "text"),
    [
        ("platform", "ends after 6 h by the platform"),
        ("worker", "ends after 6 h by its workers"),
        ("client", "ends after 6 h by a client's next call or gc: nobody ends it while no client runs"),
        ("nobody", "ttl 6 h, but nobody ends it: tear it down"),
    ],
)
def test_it_says_who_ends_it(by: TtlEnforcer, text: str) -> None:
    assert line("vast", 1.0, None, by, ttl="6h").endswith(text)


@pytest.mark.parametrize(
    ("amount", "text"),
    [(60, "1 min"), (90, "90 s"), (0.5, "0.5 s"), (3600, "1 h"), (5400, "90 min"), (86400, "1 d"), (172800, "2 d")],
)
def test_a_duration_is_told_in_its_widest_whole_unit(amount: float, text: str) -> None:
    assert seconds(amount) == text
