"""A teardown that ends some parts and not the one that is called: who deploys again builds on none that was ending."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matrix_faults import BY_NAME
from matrix_life import put_right, run, whole_life
from matrix_platforms import Platform
from matrix_world import Script, World

from unigpu.errors import UniGPUError


@pytest.mark.parametrize("lag", [0.0, 4.0], ids=["prompt lists", "late lists"])
def test_what_was_ending_is_not_built_on(make: Callable[..., World], platform: Platform, lag: float) -> None:
    operation = next(one for one in platform.deletes if f".{platform.main}." in one)
    refused: Any = BY_NAME["HTTP 429, Retry-After 600"]
    world = make(list_lag=lag)
    ended = run(world, whole_life, script=Script((operation, 0, refused)))
    assert isinstance(ended, UniGPUError)
    assert put_right(world, "again", ended) == []
