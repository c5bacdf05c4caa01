"""What is sent again where the platform says in the body of an HTTP 200 what others say by the status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from yotta_script import ENDPOINT, STOCK, Scripted, driver, identity, reply, spec

from unigpu import errors
from unigpu._io.resilience.retry import RetryingIo
from unigpu.driver import DeploymentInfo, Invocation

EP = "/v2/serverless/378888638324150969"
INFO = DeploymentInfo(
    provider="yotta", name="summarize", provider_name="summa-ugabcdefghijkl", id="378888638324150969",
    details={"service_mode": "QUEUE"},
)  # fmt: skip
UNTIL = 1e9
CALL = Invocation(input={"n": 1}, job_id="a", deadline=UNTIL, start_deadline=UNTIL, execution_timeout=600)


@pytest.mark.parametrize("code", [429, 10002])
def test_a_look_is_repeated_after_too_many_requests_and_after_a_fault(
    script: Callable[..., Scripted], code: int
) -> None:
    cloud = script({f"GET {EP}": [reply(code=code), reply(code=code), reply(ENDPOINT)]})
    found = cloud.run(driver().read(RetryingIo(cloud.io), INFO, deadline=UNTIL))
    assert found is not None
    assert len(cloud.asked) == 3


@pytest.mark.parametrize("code", [10001, 10004, 24001, 24002, 40101, 77777])
def test_what_does_not_pass_by_waiting_is_asked_once(script: Callable[..., Scripted], code: int) -> None:
    cloud = script({f"POST {EP}/tasks": reply(code=code)})
    with pytest.raises(errors.UniGPUError):
        cloud.run(driver().submit(RetryingIo(cloud.io), INFO, CALL))
    assert len(cloud.asked) == 1


def test_a_task_is_submitted_again_with_the_same_id(script: Callable[..., Scripted]) -> None:
    cloud = script({f"POST {EP}/tasks": [reply(code=50001), reply(code=429), reply({"taskId": "a"})]})
    cloud.run(driver().submit(RetryingIo(cloud.io), INFO, CALL))
    assert [request.json["taskId"] for request in cloud.asked] == ["a", "a", "a"]


def test_a_create_is_repeated_after_a_refusal_for_its_rate_and_never_after_a_fault(
    script: Callable[..., Scripted],
) -> None:
    wanted = spec()
    free: dict[str, Any] = {"GET /v2/vms/types": reply(STOCK), "GET /v2/pods": reply([])}
    (part,) = driver().resources(wanted, identity(wanted))
    cloud = script({**free, "POST /v2/serverless": [reply(code=429), reply(ENDPOINT)]})
    cloud.run(part.create_cold(RetryingIo(cloud.io), {}, deadline=UNTIL))
    assert cloud.operations.count("yotta.endpoint.create") == 2
    cloud = script({**free, "POST /v2/serverless": reply(code=10002)})
    with pytest.raises(errors.ProviderUnavailableError) as caught:
        cloud.run(part.create_cold(RetryingIo(cloud.io), {}, deadline=UNTIL))
    assert cloud.operations.count("yotta.endpoint.create") == 1
    assert caught.value.maybe_executed is True
