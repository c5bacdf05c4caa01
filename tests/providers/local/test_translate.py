"""What is sent and told, without any process: adaptations, the stated spec, unknown words, odd replies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from unigpu.driver import DriverConfig, Headers, JobStatus, Response, State, WorkerState, parse
from unigpu.errors import ConfigurationError, InvalidResponseError
from unigpu.models import DeploymentSpec
from unigpu.providers.local import LocalDriver, bodies, calls, translate
from unigpu.providers.local.wire import DeploymentWire, JobWire, WorkerWire, refusal

WIRE: dict[str, Any] = {
    "id": "hello-ugabcdefghijkl", "name": "hello", "namespace": "default", "attempt": "a",
    "spec_hash": "1:0,code=abc123",
    "workers": {"min": 0, "max": 1}, "execution_timeout": 600, "concurrency": 1, "state": "READY",
}  # fmt: skip


def test_placement_is_ignored_and_said_with_the_reason() -> None:
    spec = DeploymentSpec(
        name="a", handler="app:f", image="ghcr.io/me/x:1", gpu="RTX 4090", disk=20, regions="EU", max_price=1.0,
        registry={"username": "u", "password": "hidden"}, volumes=[{"name": "v", "size_gb": 5, "path": "/data"}],
    )  # fmt: skip
    told = LocalDriver(DriverConfig(state_dir="/s")).check(spec)
    assert told.refusals == ()
    assert [a.field for a in told.adaptations] == ["image", "gpu", "disk", "registry", "volumes"]
    assert "hidden" not in str(told)
    assert LocalDriver(DriverConfig(state_dir="/s")).check(DeploymentSpec(name="a", handler="app:f")).adaptations == ()


@pytest.mark.parametrize("fields", [{"workers": (1, 2)}, {"kind": "pod"}])
def test_a_warm_worker_is_told_when_it_ends(fields: dict[str, Any]) -> None:
    driver = LocalDriver(DriverConfig(state_dir="/s", options={"idle_exit": "2h"}))
    (told,) = driver.check(DeploymentSpec(name="a", handler="app:f", **fields)).adaptations
    assert told.field == "workers"
    assert "7200 s" in told.got


def test_the_stated_fields_come_back_as_the_spec_they_were_and_hold_no_secret() -> None:
    spec = DeploymentSpec(
        name="a", handler="app:f", gpu=["RTX 4090", "L40S:2"], workers=(0, 3), idle_timeout="5m", ttl=None,
        scaling={"signal": "requests", "target": 2}, env={"A": "1"}, secrets={"S": SecretStr("canary")},
        volumes=[{"name": "v", "size_gb": 1}], auth={"env": "T"}, provider_options={"local": {"route": "/x"}},
        max_price=2.0, regions=["EU"], command=None,
    )  # fmt: skip
    told = bodies.stated(spec)
    assert "canary" not in str(told)
    back = DeploymentSpec.model_validate(told)
    assert back.stated == spec.stated
    assert {n: getattr(back, n) for n in spec.stated - {"secrets"}} == {
        n: getattr(spec, n) for n in spec.stated - {"secrets"}
    }
    assert dict(back.secrets) == {"S": None}


def test_an_unknown_state_is_unknown_never_gone() -> None:
    info = translate.info_of(DeploymentWire.model_validate({**WIRE, "state": "HIBERNATING", "news": 1}))
    assert (info.state, info.raw_state) == (State.UNKNOWN, "HIBERNATING")
    job = calls.job_of(JobWire.model_validate({"id": "j", "status": "PONDERING"}))
    assert (job.status, job.status.is_terminal) == (JobStatus.UNKNOWN, False)
    worker = translate.worker_of(WorkerWire.model_validate({"id": "w", "state": "YAWNING"}))
    assert (worker.state, worker.raw_state) == (WorkerState.UNKNOWN, "YAWNING")


def test_lost_secrets_make_the_code_differ_and_nothing_else() -> None:
    whole = DeploymentWire.model_validate(WIRE)
    lost = DeploymentWire.model_validate({**WIRE, "secrets_lost": ["KEY"]})
    assert translate.found(whole).spec_hash == "1:0,code=abc123"
    assert translate.found(lost).spec_hash == "1:0,code=000000"
    assert translate.info_of(lost).reason == "its secrets (KEY) were lost with the supervisor; deploy it again"


@given(
    body=st.sampled_from(
        [b"", b"[]", b"null", b"{}", b"\xff", b'{"id": 1}', b'{"error": 5}', b'{"error": {"type": []}}']
    )
)
def test_a_reply_of_another_shape_is_our_error_and_shows_no_value(body: bytes) -> None:
    response = Response(status=200, headers=Headers(), content=body, operation="local.deployment.get")
    with pytest.raises(InvalidResponseError):
        parse(DeploymentWire, response)
    assert refusal(response).error.type == ""


@pytest.mark.parametrize(
    "options", [{"idle_exit": 0}, {"idel_exit": 5}, {"python": ""}, {"base_url": "localhost:80"}, {"token": "x"}]
)
def test_a_bad_driver_option_is_named(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        LocalDriver(DriverConfig(state_dir="/s", options=options))


def test_volume_names_become_folders_in_env_and_command() -> None:
    driver = LocalDriver(DriverConfig(state_dir="/s"))
    spec = DeploymentSpec(
        name="a", interface="http", command=["serve", "--data=${volume.data}/x"], env={"D": "${volume.data}"},
        volumes=[{"name": "data", "size_gb": 1}],
    )  # fmt: skip
    from unigpu._lifecycle.identity import identity_of

    identity = identity_of(spec, provider="local", namespace="n", spec_hash="1:0", attempt="a", expires_at=None)
    body = bodies.put_body(
        spec, identity, workers=(0, 1), idle_timeout=60, scaling=None, origin=None, cwd="/", python="py", env={},
        folders={"data": "/s/v"},
    )  # fmt: skip
    assert body["launch"]["argv"] == ["serve", "--data=/s/v/x"]
    assert body["launch"]["env"] == {"D": "/s/v"}
    assert driver.updatable(frozenset({"code", "env", "secrets", "handler", "command"}))
    assert not driver.updatable(frozenset({"kind"}))
