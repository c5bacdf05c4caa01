"""The application's tests: no account, no worker, no waiting. A cold start of minutes takes no time here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from main import api
from model import summarize

from unigpu.testing import UnigpuMock, unigpu_mock


@pytest.fixture
def cloud() -> Iterator[UnigpuMock]:
    with unigpu_mock("local") as cloud:
        yield cloud


def test_a_call_waits_for_a_cold_worker_and_nothing_bills_afterwards(cloud: UnigpuMock) -> None:
    cloud.serve("summarize", summarize, cold_start=90, workers=(0, 1))
    with TestClient(api) as web:
        assert web.post("/summaries", json={"text": "One. Two."}).json()["summary"] == "One"
    cloud.assert_nothing_billing(after=600)


@pytest.mark.parametrize(("cold_start", "text", "status"), [(600, "One.", 503), (1, None, 422), (1, "One.", 502)])
def test_what_our_callers_see_when_it_fails(cloud: UnigpuMock, cold_start: float, text: str, status: int) -> None:
    cloud.serve("summarize", summarize if text else fail, cold_start=cold_start)
    if status == 502:
        cloud.local.fault("job.submit", before=500, times=None)
    with TestClient(api) as web:
        assert web.post("/summaries", json={"text": text or "?"}).status_code == status


def fail(input: object) -> object:
    raise ValueError("no sentence")
