"""A live account under test: this machine is one, with real processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from unigpu import AuthenticationError, Client
from unigpu.testing import FaceBench, LiveBench
from unigpu.testing.reference import ReferenceDriver, ReferenceEmulator


@pytest.mark.processes
def test_a_live_bench_ends_what_its_tests_left(tmp_path: Path) -> None:
    with Client("local", state_dir=tmp_path) as other:
        other.deploy(name="mine", handler="unigpu.testing.handlers:slow", progress="off")
        with LiveBench("local", {"workers": (0, 1)}, options={"state_dir": tmp_path}) as bench:
            with Client(**bench.options()) as client:
                client.deploy(name="left", progress="off", **bench.fields("echo"))
                assert client.invoke("left", {"n": 1}).output == {"got": {"n": 1}}
                fields = {**bench.shape("http", "serverless"), "command": [sys.executable, "-m", "http.server"]}
                client.deploy(name="server", progress="off", wait=False, **fields)
            assert bench.without_permission() is None  # this machine asks for no key
        assert [one.name for one in other.deployments(provider="local")] == ["mine"]
        other.teardown("mine")


def test_a_face_is_a_platform_of_its_own_that_is_empty_at_first() -> None:
    def bench() -> FaceBench:
        return FaceBench(
            "reference",
            lambda engine, key: ReferenceEmulator(engine, key=key),
            list_operation="reference.endpoint.list",
            fields={"image": "me/app:1", "gpu": "RTX 4090"},
            driver=ReferenceDriver,
        )

    with bench() as one:
        with Client(**one.options()) as client:
            client.deploy(name="a", progress="off", **one.fields("echo"))
        assert list(one.left()) == ["a"]
        with Client(**one.without_permission()) as client, pytest.raises(AuthenticationError):
            client.deployments(provider="reference")
    with bench() as other:
        assert list(other.left()) == []
