"""`unigpu_mock("yotta")`: applications' tests over the emulator, through our own client."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

import unigpu
from unigpu import errors
from unigpu.testing import unigpu_mock


def test_a_served_function_is_called_stopped_woken_and_ended() -> None:
    with unigpu_mock("yotta") as cloud:
        cloud.serve("greet", lambda given: {"hello": given["who"]}, cold_start=300, workers=(2, 2))
        with unigpu.Client("yotta") as client:
            assert client.invoke("greet", {"who": "you"}).output == {"hello": "you"}
            app = client.get("greet")
            app.stop()
            assert client.invoke("greet", {"who": "again"}).output == {"hello": "again"}
            assert len(cloud.calls("greet", "start")) == 1
            client.teardown("greet")
        cloud.assert_nothing_billing(after=60)


def test_a_handlers_failure_is_told_in_both_modes() -> None:
    def fail(given: Any) -> Any:
        raise ValueError("no luck")

    with unigpu_mock("yotta") as cloud:
        cloud.serve("queued", fail)
        cloud.serve("direct", fail, provider_options={"yotta": {"service_mode": "ALB"}})
        with unigpu.Client("yotta") as client:
            for app in (client.get("queued"), client.get("direct", interface="function")):
                with pytest.raises(errors.JobFailed, match="no luck"):
                    app.invoke({"x": 1})


def test_a_served_web_server_answers_requests_behind_the_gateway() -> None:
    with unigpu_mock("yotta") as cloud:
        cloud.serve_http("web", lambda request: httpx.Response(201, json={"at": request.url.path}), workers=(1, 1))
        with unigpu.Client("yotta") as client:
            reply = client.request("web", "GET", "/v1/models")
            assert (reply.status, reply.json()) == (201, {"at": "/v1/models"})


def test_a_gpu_that_is_not_to_be_had_is_no_capacity_for_it_alone() -> None:
    with unigpu_mock("yotta") as cloud, unigpu.Client("yotta") as client:
        cloud.yotta.no_capacity("H100 SXM")
        wanted: dict[str, Any] = {"handler": "app:f", "image": "registry.test/f:1", "workers": 1, "ttl": None}
        with pytest.raises(errors.NoCapacityError):
            client.deploy(name="big", gpu="H100 SXM", **wanted)
        client.deploy(name="small", gpu="RTX 4090", wait=False, **wanted)
        cloud.yotta.heal()
        client.deploy(name="big", gpu="H100 SXM", wait=False, **wanted)


def test_fifty_tasks_at_once_keep_to_the_limits_of_the_queue() -> None:
    with unigpu_mock("yotta") as cloud:
        cloud.serve("double", lambda given: given["n"] * 2, duration=0.01, workers=(4, 4))
        with unigpu.Client("yotta") as client:
            found = client.map("double", ({"n": n} for n in range(100)), concurrency=50, progress="off")
            assert [result.output for result in found] == [2 * n for n in range(100)]
