"""The Vast emulator in memory."""

from __future__ import annotations

import pytest
from vast_cloud import Vast


@pytest.fixture
def vast() -> Vast:
    return Vast()
