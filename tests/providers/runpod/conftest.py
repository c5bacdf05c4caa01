"""A client of a scripted RunPod account, on a clock that jumps."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openapi import OpenAPI

from unigpu import Client
from unigpu._io.clock import InstantClock, use_clock

if "runpod_script" not in sys.modules:  # the suite's import mode puts no folder on the path
    _spec = importlib.util.spec_from_file_location("runpod_script", Path(__file__).with_name("runpod_script.py"))
    assert _spec is not None
    assert _spec.loader is not None
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["runpod_script"] = _module
    _spec.loader.exec_module(_module)

from runpod_script import KEY, Account


@pytest.fixture
def clock() -> Iterator[InstantClock]:
    made = InstantClock(1000.0, epoch=1.8e9)
    with use_clock(made):
        yield made


@pytest.fixture
def account(clock: InstantClock) -> Account:
    """Holds requests and its own replies to RunPod's file, where that is there."""
    try:
        return Account(OpenAPI.load("runpod-v2.openapi.json"))
    except pytest.skip.Exception:
        return Account()


@pytest.fixture
def make(tmp_path: Path, account: Account, clock: InstantClock) -> Callable[..., Client]:
    (tmp_path / "unigpu.toml").write_text("")

    def client(machine: str = "a", **more: Any) -> Client:
        return Client(
            "runpod",
            **{
                "api_key": KEY,
                "state_dir": tmp_path / machine,
                "config": tmp_path / "unigpu.toml",
                "transport": account,
                **more,
            },
        )

    return client


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


@pytest.fixture
def fields() -> dict[str, Any]:
    return {"name": "summarize", "handler": "app:summarize", "image": "ghcr.io/me/app:1.2", "gpu": "RTX 4090"}
