"""Yotta's own clients, unmodified, against the emulator: each of their calls, over real workers."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.processes

GPU = json.dumps([{"region": "us-east-3", "gpuType": "NVIDIA_RTX_4090_24G", "gpuCount": 1}])


def test_every_call_of_the_v2_client(official: Any, hook: Any) -> None:
    told = official.program("v2_calls.py", str(official.served.port), hook.url)
    assert told["version"] == "0.2.0"
    assert (told["created"]["status"], told["created"]["webhook"]) == ("INITIALIZING", "https://example.com/workers")
    assert told["delete_too_early"] == {"message": "Elastic action not allowed", "code": 24002, "data": None}
    assert told["task_too_early"]["code"] == 24000
    assert (told["task"]["status"], told["task"]["output"]["output"]["n"]) == ("SUCCESS", 41)
    assert told["task"]["headers"] == {"X-Unigpu-Job": "task_1"}
    assert told["bare"]["output"]["n"] == 7
    assert told["no_task"]["code"] == 24011
    assert [one["status"] for one in told["workers"]] == ["RUNNING", "RUNNING"]
    assert told["scaled_to_zero"]["code"] == 10001
    assert told["stopped_again"]["code"] == 24002
    assert (told["updated"]["name"], told["updated"]["webhook"]) == ("renamed", None)
    assert told["login_in_use"]["code"] == 25002
    assert told["gone"]["code"] == 24001
    assert (told["pod"]["status"], told["pod"]["gpuType"]) == ("RUNNING", "NVIDIA_RTX_4090_24G")
    assert told["pod_gone"]["code"] == 13000
    assert {"gpuType", "regions"} <= set(told["gpus"][0])
    assert told["wrong_key"] == 401
    assert hook.news.wait(60)
    headers, body = hook.got[0]
    assert (headers["x-api-key"], body["user_task_id"], body["success"]) == ("hook-key", "task_1", True)
    assert len(hook.got) == 1


def test_every_command_of_the_v2_command_line(official: Any) -> None:
    served, said = official.served, official.said
    port = str(served.port)
    login = said("credentials", "create", "--name", "hub", "--type", "GCR", "--username", "me", "--password", "s3")
    number = str(login["id"])
    assert said("credentials", "list") == [login]
    assert said("credentials", "update", number, "--name", "hub2")["name"] == "hub2"
    assert said("credentials", "get", number)["name"] == "hub2"
    made = said(
        "serverless", "create", "--name", "cli", "--image", "registry.test/app:1", "--resources", GPU, "--workers", "1",
        "--service-mode", "QUEUE", "--volume", "20", "--init-cmd", "python -m unigpu.worker app:echo",
        "--expose-port", port, "--expose-protocol", "HTTP", "--credential-id", number,
        "--webhook", "https://example.com/x",
    )  # fmt: skip
    id = made["id"]
    served.becomes(id, "RUNNING")
    assert said("serverless", "get", id)["status"] == "RUNNING"
    assert [row["id"] for row in said("serverless", "list", "--status", "RUNNING", "--status", "STOPPED")] == [id]
    where = ("--endpoint-id", id)
    task = said(
        "tasks", "create", *where, "--task-id", "cli_1", "--worker-port", port, "--process-uri", "/run",
        "--input", '{"n": 3}',
    )  # fmt: skip
    assert task == {"taskId": "cli_1"}
    assert served.ended(id, "cli_1")["output"]["n"] == 3
    assert said("tasks", "get", *where, "cli_1")["status"] == "SUCCESS"
    assert said("tasks", "list", *where, "--status", "SUCCESS", "--page", "1", "--page-size", "5")["total"] == 1
    assert said("tasks", "count", *where) == {"processing": 0}
    said("serverless", "scale", id, "--workers", "2")
    served.becomes(id, "RUNNING", workers=2)
    assert len(said("serverless", "workers", id, "--status", "RUNNING")) == 2
    said("serverless", "stop", id)
    served.becomes(id, "STOPPED")
    said("serverless", "start", id)
    served.becomes(id, "RUNNING")
    said("serverless", "stop", id)
    served.becomes(id, "STOPPED")
    assert said("serverless", "delete", id) is True
    assert said("credentials", "delete", number) is True
    assert said("gpus", "list")


def test_the_pod_commands_of_the_v2_command_line(official: Any) -> None:
    said, served = official.said, official.served
    made = said(
        "pods", "create", "--name", "box", "--image", "registry.test/box:1", "--gpu-type", "NVIDIA_RTX_4090_24G",
        "--region", "us-east-3", "--container-volume", "20", "--init-cmd", "python -m unigpu.worker app:echo",
        "--env", "A=b", "--expose", json.dumps([{"port": served.port, "protocol": "http"}]),
    )  # fmt: skip
    id = str(made["id"])

    def state() -> str:
        return str(said("pods", "get", id)["status"])

    served.until(lambda: state() == "RUNNING", "the pod runs")
    assert [row["name"] for row in said("pods", "list", "--region", "us-east-3", "--status", "1")] == ["box"]
    said("pods", "pause", id)
    served.until(lambda: state() == "STOPPED", "the pod is paused")
    said("pods", "resume", id)
    served.until(lambda: state() == "RUNNING", "the pod runs again")
    assert said("pods", "delete", id) is True


def test_the_command_lines_own_mistake_with_env_is_refused_as_a_parameter(official: Any) -> None:
    """``yotta serverless create --env`` sends ``name`` for ``key`` (in 0.2.0); its pods command does not."""
    done = official.cli(
        "serverless", "create", "--name", "cli", "--image", "registry.test/app:1", "--resources", GPU, "--workers", "1",
        "--service-mode", "QUEUE", "--volume", "20", "--env", "A=b",
    )  # fmt: skip
    assert json.loads(done.stdout)["code"] == 10001


def test_the_older_client_creates_and_gets_tasks(official: Any) -> None:
    served = official.served
    id = served.deploy("python -m unigpu.worker app:echo")
    served.becomes(id, "RUNNING")
    told = official.program("v1_tasks.py", id, str(served.port))
    assert told["version"] == "0.1.6"
    assert (told["task"]["status"], told["task"]["taskResult"]["n"]) == ("SUCCESS", 5)
    assert told["task"]["header"] == {"X-Trace": "1"}
    assert told["listed"]["pagination"]["totalCount"] == 1
    assert told["count"] == {"processingCount": 0}
    assert told["none"]["code"] == 40402
