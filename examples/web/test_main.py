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


def test_a_cold_start_asks_to_come_again_and_nothing_bills_afterwards(cloud: UnigpuMock) -> None:
    cloud.serve("summarize", summarize, cold_start=90, workers=(0, 1))
    with TestClient(api) as web:
        assert web.post("/summaries", json={"text": "One. Two."}).status_code == 503
        cloud.advance(90)
        assert web.post("/summaries", json={"text": "One. Two."}).json()["summary"] == "One"
    cloud.assert_nothing_billing(after=600)


@pytest.mark.parametrize(("text", "reply", "status"), [("One.", None, 200), ("none", None, 422), ("One.", 500, 502)])
def test_a_failure_is_told_apart(cloud: UnigpuMock, text: str, reply: int | None, status: int) -> None:
    cloud.serve("summarize", summarize, cold_start=5)
    if reply:
        cloud.local.fault("job.submit", before=reply, times=None)
    with TestClient(api) as web:
        assert web.post("/summaries", json={"text": text}).status_code == status
