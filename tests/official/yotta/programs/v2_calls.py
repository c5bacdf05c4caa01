"""Every call of the official v2 client (``yottaml``), unmodified. Arguments: base URL, key, port, webhook."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

from yottaml.__version__ import __version__
from yottaml.credential import CredentialApi
from yottaml.elastic import ElasticApi
from yottaml.error import ClientError
from yottaml.gpu import GpuApi
from yottaml.lib.enums import ElasticDeploymentStatusEnum, TaskStatus
from yottaml.pod import PodApi
from yottaml.skywalker import SkywalkerTaskApi

BASE, KEY, PORT, HOOK = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
GPU = [{"region": "us-east-3", "gpuType": "NVIDIA_RTX_4090_24G", "gpuCount": 1}]
SUCCESS = 10000


def api(kind: Any) -> Any:
    return kind(KEY, base_url=BASE, timeout=10)


def data(reply: Any) -> Any:
    assert reply["code"] == SUCCESS, reply
    assert reply["message"] == "success"
    return reply["data"]


def until(look: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("not within 60 s: " + what)


def registry_logins(out: dict[str, Any]) -> int:
    logins = api(CredentialApi)
    made = data(logins.create_credential(name="hub", type="DOCKER_HUB", username="me", password="secret"))
    assert data(logins.get_credentials()) == [made]
    assert data(logins.get_credential(str(made["id"])))["name"] == "hub"
    assert data(logins.update_credential(str(made["id"]), name="hub2"))["name"] == "hub2"
    out["credential"] = made
    return int(made["id"])


def serverless(out: dict[str, Any], login: int) -> None:
    elastic, tasks = api(ElasticApi), api(SkywalkerTaskApi)
    made = data(
        elastic.create_deployment(
            name="official",
            image="registry.test/app:1",
            resources=GPU,
            workers=1,
            service_mode="QUEUE",
            container_volume_in_gb=20,
            credential_id=login,
            min_single_card_vram_in_gb=20,
            initialization_command="python -m unigpu.worker app:echo",
            environment_vars=[{"key": "UNIGPU_PUSHED", "value": "1"}],
            expose={"port": PORT, "protocol": "http"},
            webhook="https://example.com/workers",
        )
    )
    id = made["id"]
    out["created"] = made
    out["delete_too_early"] = elastic.delete_deployment(id)
    out["task_too_early"] = tasks.create_task(endpoint_id=id, worker_port=PORT, process_uri="/invoke", input={"n": 1})

    def status() -> str:
        return str(data(elastic.get_deployment_detail(id))["status"])

    until(lambda: status() == ElasticDeploymentStatusEnum.RUNNING.value, "RUNNING")
    assert [row["id"] for row in data(elastic.get_deployments())] == [id]
    running = data(elastic.get_deployments(status_list=[ElasticDeploymentStatusEnum.RUNNING, "STOPPED"]))
    assert [row["id"] for row in running] == [id]
    assert data(elastic.get_deployments(status_list=["FAILED"])) == []

    first = tasks.create_task(
        endpoint_id=id,
        worker_port=PORT,
        process_uri="invoke",
        input={"input": {"n": 41}},
        task_id="task_1",
        webhook=HOOK,
        webhook_auth_key="hook-key",
        headers={"X-Unigpu-Job": "task_1"},
    )
    assert data(first) == {"taskId": "task_1"}
    again = tasks.create_task(
        endpoint_id=id, worker_port=PORT, process_uri="/invoke", input={"input": {"n": 0}}, task_id="task_1"
    )
    assert data(again) == {"taskId": "task_1"}

    def ended(task: str) -> Any:
        def look() -> Any:
            found = data(tasks.get_task(endpoint_id=id, task_id=task))
            return found if found["status"] in (TaskStatus.SUCCESS.value, TaskStatus.FAILED.value) else None

        return until(look, task)

    out["task"] = ended("task_1")
    unnamed = data(tasks.create_task(endpoint_id=id, worker_port=PORT, process_uri="/run", input={"n": 7}))["taskId"]
    out["bare"] = ended(unnamed)
    assert data(tasks.get_processing_count(endpoint_id=id)) == {"processing": 0}
    page = data(tasks.list_tasks(endpoint_id=id, status=TaskStatus.SUCCESS, page=1, page_size=1))
    assert (page["total"], page["pages"], len(page["items"])) == (2, 2, 1)
    assert data(tasks.list_tasks(endpoint_id=id))["total"] == 2
    out["no_task"] = tasks.get_task(endpoint_id=id, task_id="nothing")

    assert data(elastic.scale_workers(id, 2)) is None
    until(lambda: data(elastic.get_deployment_detail(id))["runningWorkers"] == 2, "two workers")
    out["workers"] = data(elastic.get_workers(id, status_list=["RUNNING"]))
    assert len(data(elastic.get_workers(id))) == 2
    out["scaled_to_zero"] = elastic.scale_workers(id, 0)

    assert data(elastic.stop_deployment(id)) is None
    until(lambda: status() == ElasticDeploymentStatusEnum.STOPPED.value, "STOPPED")
    out["stopped_again"] = elastic.stop_deployment(id)
    changed = elastic.update_deployment(
        id,
        name="renamed",
        resources=GPU,
        workers=1,
        container_volume_in_gb=30,
        initialization_command="python -m unigpu.worker app:echo",
        webhook=None,
    )
    out["updated"] = data(changed)
    assert data(elastic.start_deployment(id)) is None
    until(lambda: status() == ElasticDeploymentStatusEnum.RUNNING.value, "RUNNING again")
    out["login_in_use"] = api(CredentialApi).delete_credential(str(login))
    data(elastic.stop_deployment(id))
    until(lambda: status() == ElasticDeploymentStatusEnum.STOPPED.value, "STOPPED again")
    assert data(elastic.delete_deployment(id)) is True
    out["gone"] = elastic.get_deployment_detail(id)
    assert data(api(CredentialApi).delete_credential(str(login))) is True


def pods(out: dict[str, Any]) -> None:
    machines = api(PodApi)
    made = data(
        machines.new_pod(
            name="box",
            image="registry.test/box:1",
            gpu_type="NVIDIA_RTX_4090_24G",
            gpu_count=1,
            regions=["us-east-3"],
            shm_in_gb=8,
            container_volume_in_gb=20,
            environment_vars=[{"key": "UNIGPU_PUSHED", "value": "1"}],
            initialization_command="python -m unigpu.worker app:echo",
            expose=[{"port": PORT, "protocol": "http"}],
        )
    )
    id = str(made["id"])

    def status() -> str:
        return str(data(machines.get_pod(id))["status"])

    until(lambda: status() == "RUNNING", "a pod")
    assert [row["id"] for row in data(machines.get_pods())] == [made["id"]]
    assert len(data(machines.get_pods(region_list=["us-east-3", "sg"], status_list=["RUNNING"]))) == 1
    out["pod"] = data(machines.get_pod(id))
    data(machines.pause_pod(id))
    until(lambda: status() in ("STOPPED", "PAUSED"), "a paused pod")
    data(machines.resume_pod(id))
    until(lambda: status() == "RUNNING", "a resumed pod")
    data(machines.delete_pod(id))
    out["pod_gone"] = until(lambda: (found := machines.get_pod(id))["code"] != SUCCESS and found, "no pod")


def main() -> None:
    out: dict[str, Any] = {"version": __version__}
    login = registry_logins(out)
    serverless(out, login)
    pods(out)
    out["gpus"] = data(api(GpuApi).get_gpus())
    try:
        GpuApi("wrong", base_url=BASE, timeout=10).get_gpus()
    except ClientError as exc:
        out["wrong_key"] = exc.status_code
    print(json.dumps(out))


main()
