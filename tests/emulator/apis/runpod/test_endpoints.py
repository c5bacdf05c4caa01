"""Serverless endpoints on RunPod's emulator: what a create takes, PATCH, lists by cursor, workers, logs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unigpu.emulator.engine import EngineSettings


def test_the_documented_create_gives_the_documented_reply(bench: Any) -> None:
    made = bench.endpoint("unigpu-echo-7f3a", env={"MODEL": "sdxl"}, flashboot="FLASHBOOT")
    id = made["id"]
    assert made["requestUrls"] == {
        "run": f"https://api.runpod.ai/v2/{id}/run",
        "runSync": f"https://api.runpod.ai/v2/{id}/runsync",
        "status": f"https://api.runpod.ai/v2/{id}/status/{{job_id}}",
        "stream": f"https://api.runpod.ai/v2/{id}/stream/{{job_id}}",
        "cancel": f"https://api.runpod.ai/v2/{id}/cancel/{{job_id}}",
        "retry": f"https://api.runpod.ai/v2/{id}/retry/{{job_id}}",
        "purgeQueue": f"https://api.runpod.ai/v2/{id}/purge-queue",
        "health": f"https://api.runpod.ai/v2/{id}/health",
    }
    assert made["gpu"] == {"pools": ["ADA_24"], "count": 1, "allowedCudaVersions": [], "minCudaVersion": None}
    assert (made["args"], made["ports"], made["registry"]) == ("", [], None)
    assert bench.call("GET", f"/v2/serverless/{id}").body == made.body


def test_what_a_create_leaves_out_is_rather_surprising(make: Any) -> None:
    body = {"name": "a", "type": "QUEUE", "image": "i", "gpu": {"pools": ["ADA_24"]}}
    body |= {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}
    made = make().call("POST", "/v2/serverless", body)
    assert made["workers"] == {"min": 0, "max": 3, "idleTimeout": 10}
    assert (made["timeout"], made["flashboot"], made["gpu"]["count"]) == (0, "OFF", 1)
    assert make(omitted_timeout=300_000).call("POST", "/v2/serverless", body)["timeout"] == 300_000


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"gpuTypeIds": ["NVIDIA L4"]}, 422, "additional properties 'gpuTypeIds' not allowed"),
        ({"env": {"A": 1}}, 422, "$.env"),
        ({"flashboot": True}, 422, "$.flashboot"),
        ({"workers": {"idleTimeout": 0}}, 422, "$.workers"),
        ({"scaling": {"type": "QUEUE_DELAY", "queueDelay": 0.1}}, 422, "$.scaling"),
        ({"name": ""}, 422, "$.name"),
        ({"image": None}, 422, "image"),
        ({"ports": ["8000"]}, 422, "$.ports"),
        ({"scaling": {"type": "REQUEST_COUNT", "requestCount": 1}}, 422, "idleTimeout"),
        ({"type": "LOAD_BALANCER"}, 422, "REQUEST_COUNT"),
        ({"gpu": None}, 400, "exactly one of gpu or cpu"),
        ({"cpu": [{"id": "cpu5c", "vcpuCount": 4}]}, 400, "exactly one of gpu or cpu"),
        ({"gpu": {"pools": ["NO_POOL"]}}, 400, "unknown gpu pool"),
        ({"gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA L4"]}}, 400, "not in any selected pool"),
        ({"gpu": {"pools": ["ADA_24"], "excludedTypes": ["NVIDIA GeForce RTX 4090"]}}, 400, "leaves no gpu"),
        ({"gpu": {"pools": ["ADA_24"], "allowedCudaVersions": ["12.8"], "minCudaVersion": "12.1"}}, 400, "exclusive"),
        ({"workers": {"min": 4, "max": 2}}, 400, "workers.min"),
        ({"workers": {"min": 0, "max": 61}}, 400, "must not exceed 60"),
        ({"args": "python a.py", "cmd": ["python", "b.py"]}, 400, "different commands"),
        ({"networkVolumes": ["nothing"]}, 404, "network volume not found"),
        ({"templateId": "nothing"}, 404, "template not found"),
    ],
)
def test_a_create_that_cannot_be_is_refused_in_runpods_words(bench: Any, change: Any, status: int, says: str) -> None:
    body = {
        "name": "a",
        "type": "QUEUE",
        "image": "i",
        "gpu": {"pools": ["ADA_24"]},
        "workers": {"min": 0, "max": 3, "idleTimeout": 5},
        "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
    }
    sent = {key: value for key, value in {**body, **change}.items() if value is not None}
    refused = bench.call("POST", "/v2/serverless", sent, bad=True)
    assert (refused.status, refused["status"]) == (status, status)
    assert refused.headers["content-type"] == "application/problem+json"
    assert says in json.dumps(refused.body)
    assert bench.call("GET", "/v2/serverless")["endpoints"] == []


@pytest.mark.parametrize(
    ("given", "args"),
    [
        ({"args": "python -m app"}, "python -m app"),
        ({"cmd": ["python", "-c", "print(1 + 1)"]}, "python -c 'print(1 + 1)'"),
        ({"entrypoint": ["tini", "--"], "cmd": ["app"]}, '{"entrypoint": ["tini", "--"], "cmd": ["app"]}'),
        ({"args": "python a.py", "cmd": ["python", "a.py"]}, "python a.py"),
    ],
)
def test_a_command_is_kept_as_runpod_keeps_it(bench: Any, given: Any, args: str) -> None:
    made = bench.endpoint(**given)
    assert made["args"] == args
    for name in ("entrypoint", "cmd"):
        assert made.body.get(name) == given.get(name)


def test_a_patch_changes_what_it_says_and_nothing_else(bench: Any) -> None:
    made = bench.endpoint(gpu={"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L4"], "count": 1}, env={"A": "1"})
    path = f"/v2/serverless/{made['id']}"
    changed = bench.call("PATCH", path, {"workers": {"max": 5}})
    assert changed["workers"] == {"min": 0, "max": 5, "idleTimeout": 5}
    assert changed["gpu"] == made["gpu"]
    assert changed["gpu"]["excludedTypes"] == ["NVIDIA L4"]
    assert bench.call("PATCH", path, {"env": {"B": "2"}})["env"] == {"B": "2"}
    # A selection of pools is one with its exclusions.
    assert "excludedTypes" not in bench.call("PATCH", path, {"gpu": {"pools": ["AMPERE_24"]}})["gpu"]
    assert bench.call("PATCH", path, {"gpu": {"excludedTypes": ["NVIDIA L4"]}}, bad=True).status == 422
    assert bench.call("PATCH", path, {"cpu": [{"id": "cpu5c", "vcpuCount": 4}]}).status == 400
    assert bench.call("PATCH", path, {"type": "QUEUE"}, bad=True).status == 422


def test_an_empty_cuda_version_clears_the_floor(bench: Any) -> None:
    made = bench.endpoint(gpu={"pools": ["AMPERE_24"], "minCudaVersion": "12.1"})
    path = f"/v2/serverless/{made['id']}"
    assert made["gpu"]["minCudaVersion"] == "12.1"
    assert bench.call("PATCH", path, {"gpu": {"minCudaVersion": ""}})["gpu"]["minCudaVersion"] is None


def test_the_quirk_of_the_middle_of_2026_wipes_exclusions_on_any_patch(make: Any) -> None:
    bench = make(patch_wipes_exclusions=True)
    made = bench.endpoint(gpu={"pools": ["AMPERE_24"], "excludedTypes": ["NVIDIA L4"]})
    assert "excludedTypes" not in bench.call("PATCH", f"/v2/serverless/{made['id']}", {"workers": {"max": 5}})["gpu"]


def test_a_delete_is_at_once_and_a_second_one_finds_nothing(bench: Any) -> None:
    made = bench.endpoint(workers={"min": 1, "max": 1, "idleTimeout": 5})
    path = f"/v2/serverless/{made['id']}"
    bench.cloud.advance(60)
    assert bench.call("DELETE", path).status == 204
    assert bench.call("GET", path).body == {"title": "Not Found", "status": 404, "detail": "endpoint not found"}
    assert bench.call("DELETE", path).status == 404
    assert bench.call("GET", "/v2/serverless")["endpoints"] == []
    bench.cloud.advance(60)
    assert bench.cloud.engine.deployment_ids() == []


def test_a_list_is_walked_by_cursor_newest_first_and_a_foreign_cursor_is_refused(make: Any) -> None:
    bench = make(page=2)
    names = [f"app-{n}" for n in range(5)]
    for name in names:
        bench.endpoint(name)
        bench.cloud.advance(1)
    seen: list[str] = []
    query: dict[str, str] = {}
    pages = 0
    while True:
        page = bench.call("GET", "/v2/serverless", **query).body
        seen += [one["name"] for one in page["endpoints"]]
        pages += 1
        if not page["pagination"]["hasNextPage"]:
            break
        query = {"cursor": page["pagination"]["nextCursor"]}
    assert (seen, pages) == (names[::-1], 3)
    assert bench.call("GET", "/v2/templates", **query).status == 422
    assert bench.call("GET", "/v2/serverless", cursor="made.up.1").status == 422
    assert [one["name"] for one in bench.call("GET", "/v2/serverless", limit=1)["endpoints"]] == ["app-4"]


def test_lists_learn_late_where_that_is_asked_for(make: Any) -> None:
    bench = make(settings=EngineSettings(list_lag=10.0))
    made = bench.endpoint()
    assert bench.call("GET", "/v2/serverless")["endpoints"] == []
    assert bench.call("GET", f"/v2/serverless/{made['id']}").status == 200
    bench.cloud.advance(11)
    assert len(bench.call("GET", "/v2/serverless")["endpoints"]) == 1


def test_workers_are_listed_with_their_states_and_their_lines_are_events(bench: Any) -> None:
    bench.behave("app", cold_start=10, duration=20, lines=("loading", "loaded"))
    made = bench.endpoint(dataCenterIds=["EU-RO-1"])
    path = f"/v2/serverless/{made['id']}/workers"
    assert bench.call("GET", path).body == {
        "workers": [],
        "summary": {"running": 0, "idle": 0, "initializing": 0, "throttled": 0, "unhealthy": 0, "total": 0},
        "endpointVersion": 1,
    }
    bench.run(made["id"], a=1)
    (worker,) = bench.call("GET", path)["workers"]
    assert (worker["status"], worker["gpuTypeId"], worker["dataCenterId"]) == (
        "INITIALIZING",
        "NVIDIA GeForce RTX 4090",
        "EU-RO-1",
    )
    bench.cloud.advance(11)
    assert bench.call("GET", path)["summary"]["running"] == 1
    logs = bench.call("GET", f"{path}/{worker['id']}/logs", tail=10)
    assert logs.headers["content-type"] == "text/event-stream"
    frames = [frame.split("\n") for frame in logs.body.decode().strip().split("\n\n")]
    assert [json.loads(frame[1].removeprefix("data: "))["line"] for frame in frames] == ["loading", "loaded"]
    last = frames[-1][0].removeprefix("id: ")
    before = bench.cloud.clock.now()
    more = bench.call("GET", f"{path}/{worker['id']}/logs", headers={"last-event-id": last})
    assert more.body is None
    assert bench.cloud.clock.now() - before >= 10  # it waited for something new
    assert bench.call("GET", f"{path}/nobody/logs").status == 404
    assert bench.call("GET", f"{path}/{worker['id']}/logs", tail=5001, bad=True).status == 422
    bench.cloud.advance(2)
    assert bench.call("GET", path)["summary"]["idle"] == 1
    assert bench.call("GET", f"/v2/serverless/{made['id']}/releases")["rollout"]["percentOnLatest"] == 100


def test_a_new_image_rolls_and_a_running_job_goes_on(bench: Any) -> None:
    bench.behave("app", cold_start=1, duration=30)
    made = bench.endpoint()
    job = bench.run(made["id"], a=1)
    bench.cloud.advance(10)
    changed = bench.call("PATCH", f"/v2/serverless/{made['id']}", {"image": "org/worker:2"})
    assert changed["image"] == "org/worker:2"
    shown = bench.call("GET", f"/v2/serverless/{made['id']}/workers").body
    assert (shown["endpointVersion"], shown["workers"][0]["isStale"]) == (2, True)
    assert bench.call("GET", f"/v2/serverless/{made['id']}/releases")["rollout"]["inProgress"] is True
    bench.cloud.advance(30)
    assert bench.status(made["id"], job)["status"] == "COMPLETED"


def test_a_crash_loop_looks_as_if_there_were_no_capacity(bench: Any) -> None:
    bench.behave("app", start="crash", cold_start=2, lines=("ModuleNotFoundError: no torch",))
    made = bench.endpoint()
    job = bench.run(made["id"], a=1)
    bench.cloud.advance(120)
    assert bench.status(made["id"], job) == {"id": job, "status": "IN_QUEUE"}
    workers = bench.call("GET", f"/v2/serverless/{made['id']}/workers").body
    assert workers["summary"]["unhealthy"] >= 1
    bad = next(one for one in workers["workers"] if one["status"] == "UNHEALTHY")
    logs = bench.call("GET", f"/v2/serverless/{made['id']}/workers/{bad['id']}/logs").body.decode()
    assert "no torch" in logs
    assert bench.job("GET", f"{made['id']}/health")["workers"]["unhealthy"] >= 1


def test_where_no_such_gpu_can_be_had_an_endpoint_is_made_and_gets_no_worker(bench: Any) -> None:
    bench.face.account.scarce.add("ADA_24")
    made = bench.endpoint(workers={"min": 1, "max": 2, "idleTimeout": 5})
    job = bench.run(made["id"], a=1)
    bench.cloud.advance(600)
    assert bench.status(made["id"], job)["status"] == "IN_QUEUE"
    assert bench.call("GET", f"/v2/serverless/{made['id']}/workers")["summary"]["total"] == 0


def test_a_host_that_is_full_shows_as_throttled(make: Any) -> None:
    bench = make(settings=EngineSettings(placing=60.0))
    made = bench.endpoint()
    bench.run(made["id"], a=1)
    assert bench.call("GET", f"/v2/serverless/{made['id']}/workers")["summary"]["throttled"] == 1


def test_runpod_lowers_the_most_workers_of_an_endpoint_that_nobody_uses(bench: Any) -> None:
    made = bench.endpoint()
    day = 86_400
    for days, most in ((2.9, 3), (3.1, 2), (7.1, 0)):
        bench.cloud.advance(days * day - (bench.cloud.clock.now() - made_at(bench, made)))
        assert bench.call("GET", f"/v2/serverless/{made['id']}")["workers"]["max"] == most
    assert bench.call("PATCH", f"/v2/serverless/{made['id']}", {"workers": {"max": 3}})["workers"]["max"] == 3
    bench.cloud.advance(day)
    assert bench.call("GET", f"/v2/serverless/{made['id']}")["workers"]["max"] == 3


def made_at(bench: Any, made: Any) -> float:
    return bench.cloud.engine.deployments.get(made["id"], bench.cloud.clock.now()).created_at


def test_a_template_is_applied_once_and_the_body_wins(bench: Any) -> None:
    body = {"name": "t", "image": "org/base:1", "env": {"A": "template", "B": "template"}, "serverless": True}
    template = bench.call("POST", "/v2/templates", body)
    made = bench.endpoint(image=None, templateId=template["id"], env={"A": "body"})
    assert (made["image"], made["env"]) == ("org/base:1", {"A": "body", "B": "template"})
    assert "templateId" not in made.body
    assert bench.call("DELETE", f"/v2/templates/{template['id']}").status == 204
    assert bench.call("GET", f"/v2/serverless/{made['id']}")["image"] == "org/base:1"
    pods = bench.call("POST", "/v2/templates", {**body, "serverless": False})
    sent = {"name": "a", "type": "QUEUE", "gpu": {"pools": ["ADA_24"]}, "templateId": pods["id"]}
    sent |= {"scaling": {"type": "QUEUE_DELAY", "queueDelay": 4}}
    assert bench.call("POST", "/v2/serverless", sent).status == 422
