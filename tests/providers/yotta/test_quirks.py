"""One life under each thing that Yotta's documents leave open or contradict: the driver must not depend on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

import unigpu
from unigpu import errors
from unigpu.driver import State
from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
from unigpu.emulator.contract import EmulatedAPI
from unigpu.emulator.engine import Engine
from unigpu.emulator.simulation.virtual_cloud import Behavior
from unigpu.testing import FaceBench

FIELDS: Mapping[str, Any] = {
    "handler": "app:f", "image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "workers": 1, "ttl": None, "progress": "off"
}  # fmt: skip
OPEN: Mapping[str, Mapping[str, Any]] = {
    "as it is taken to be": {},
    "errors have their HTTP status": {"error_status": "http"},
    "the other code for no endpoint": {"endpoint_missing": 14000},
    "the other code for no pod": {"pod_missing": 12000},
    "ids are numbers": {"numeric_ids": True},
    "times are milliseconds": {"iso_times": False},
    "the one name of the environment": {"env_key": "environmentVars", "credential_key": "containerRegistryAuthId"},
    "the other name of the environment": {"env_key": "envVars", "credential_key": "credentialId"},
    "the environment is shown": {"shows_env": "envVars"},
    "no price is shown": {"shows_prices": False},
    "the price is the endpoint's": {"price_of": "endpoint"},
    "a stopped one takes a number": {"scale_stopped": True},
    "no list of workers": {"worker_list": False},
    "no logs": {"worker_logs": False},
    "workers in lower case": {"lower_case_workers": True},
    "tasks are taken while it starts": {"accepts_tasks": "started"},
    "healing is not running": {"heals_running": False},
    "lost tasks run again": {"requeues_lost": True},
    "delivered is at the worker": {"delivered": "at_worker"},
    "delivered is after the webhook": {"delivered": "after_webhook"},
    "paused is paused": {"paused_state": "PAUSED"},
    "a pod's create gives its id": {"pod_create": "id"},
    "volumes of the older form": {"volume_form": "client"},
}


@pytest.fixture(params=OPEN.values(), ids=OPEN)
def bench(request: pytest.FixtureRequest) -> Iterator[FaceBench]:
    quirks = Quirks(**request.param)

    def face(engine: Engine, key: str) -> EmulatedAPI:
        return YottaEmulator(engine, token=key, quirks=quirks)

    options = lambda key: {"api_key": key}  # noqa: E731 - one line, read here
    with FaceBench("yotta", face, list_operation="yotta.endpoint.list", options=options) as made:
        behavior = Behavior(run=lambda given: {"got": given}, cold_start=100.0, duration=0.1, lines=("hello",))
        made.cloud.simulation._behavior_of = lambda _: behavior
        yield made


def test_a_life_does_not_depend_on_what_is_not_documented(bench: FaceBench) -> None:
    with unigpu.Client(**bench.options()) as client:
        app = client.deploy(name="life", registry={"username": "u", "password": "p"}, **FIELDS)
        assert (app.state, app.info.workers) == (State.READY, (1, 1))
        assert app.invoke({"n": 1}).output == {"got": {"n": 1}}
        job = app.submit({"n": 2})
        assert job.result().output == {"got": {"n": 2}}
        assert [worker.state.is_ready for worker in app.workers()] == [True]
        with contextlib.suppress(errors.UnsupportedError):
            assert [line.text for line in app.logs()][:1] in ([], ["hello"])
        assert app.scale(2).info.workers == (2, 2)
        assert app.wait_ready(progress="off").info.ready_workers
        assert app.stop().state is State.STOPPED
        assert app.invoke({"n": 3}).output == {"got": {"n": 3}}
        assert app.scale(0).state is State.STOPPED
        assert app.scale(3).info.workers == (3, 3)
        assert client.deploy(name="life", **FIELDS).change == "scaled"
        assert [row.name for row in client.deployments(provider="yotta")] == ["life"]
        app.teardown()
        with pytest.raises((errors.DeploymentGone, errors.NotFoundError)):
            app.invoke({"n": 4})

        pod = client.deploy(name="pod", kind="pod", auth="none", **{**FIELDS, "workers": 1})
        assert pod.invoke({"n": 5}).output == {"got": {"n": 5}}
        if "interface" in client.get("pod").info.assumed:
            with pytest.raises(errors.UnsupportedError, match=r"get\('pod', interface=\"function\"\) says otherwise"):
                client.invoke("pod", {"n": 5})
        assert client.get("pod", interface="function").invoke({"n": 5}).output == {"got": {"n": 5}}
        assert pod.stop().state is State.STOPPED
        pod.start()
        assert [worker.state.is_ready for worker in pod.workers()] == [True]
        assert [item.kind for item in client.inventory(provider="yotta")] == ["pod"]
        pod.teardown()
        assert list(client.deployments(provider="yotta")) == []
    assert bench.left() == []
