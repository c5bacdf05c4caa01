"""RunPod's own client, synchronous and unmodified: prints what it gives as JSON. argv: its address, a key, a worker."""

import json
import sys
import threading
import time

import runpod

base, key, worker = sys.argv[1:]
runpod.api_key = key
found = {}


def create(name, **env):
    template = runpod.create_template(
        name=name, image_name="ghcr.io/me/app:1", docker_start_cmd=worker, is_serverless=True, env=env
    )
    made = runpod.create_endpoint(
        name=name,
        template_id=template["id"],
        gpu_ids="ADA_24,-NVIDIA L4" if env.get("WRONG") else "ADA_24",
        workers_min=int("MODE" in env),  # its start is not waited for alone
        workers_max=1,
        idle_timeout=60,
        flashboot=True,
    )
    return template, made


found["gpus"] = sorted(runpod.get_gpus()[0])
template, made = create("sync-proof")
found["template"] = {name: template[name] for name in ("name", "imageName", "isServerless", "dockerArgs")}
found["endpoint"] = {name: made[name] for name in ("name", "gpuIds", "workersMax", "idleTimeout", "flashBootType")}
_, streaming = create("sync-proof-stream", MODE="stream")
found["endpoints"] = sorted(one["name"] for one in runpod.get_endpoints())
try:
    create("sync-proof-wrong", WRONG="1")
except runpod.error.QueryError as error:
    found["refused"] = str(error)

endpoint = runpod.Endpoint(made["id"])
found["run_sync"] = endpoint.run_sync({"text": "a"}, timeout=60)
job = endpoint.run({"text": "b", "sleep": 0.2})
found["status"] = job.status()
found["run"] = job.output(timeout=40)
found["health"] = endpoint.health()

job = endpoint.run({"sleep": 30})
while job.status() != "IN_PROGRESS":
    time.sleep(0.1)
found["cancel"] = job.cancel()["status"]
found["cancelled"] = endpoint_status = runpod.endpoint.runner.Job(made["id"], job.job_id, endpoint.rp_client).status()

# Its stream of a cancelled job never ends: CANCELLED is none of its final states.
looked = threading.Semaphore(0)
fetch = job._fetch_job


def counted(source="status"):
    state = fetch(source)
    looked.release()
    return state


job._fetch_job = counted
never = threading.Thread(target=lambda: list(job.stream()), daemon=True)
never.start()
for _ in range(3):
    looked.acquire(timeout=30)
found["stream_of_a_cancelled_job_goes_on"] = never.is_alive()

busy = endpoint.run({"sleep": 2})
while busy.status() != "IN_PROGRESS":
    time.sleep(0.1)
for _ in range(3):
    endpoint.run({"text": "queued"})
found["purge"] = endpoint.purge_queue()
found["busy"] = busy.output(timeout=40)

# A failed job's output is None, and nothing is raised.
failed = endpoint.run({"boom": "no such thing"})
found["failed"] = [failed.output(timeout=40), failed.status()]
# An empty input is wrapped once more, so the worker gets {"input": {}}.
found["empty"] = endpoint.run_sync({"input": {}}, timeout=60)
# Without a timeout it does not wait.
quick = endpoint.run({"sleep": 1})
found["no_wait"] = quick.output()

flow = runpod.Endpoint(streaming["id"]).run({"count": 5})
while flow.status() == "IN_QUEUE":
    time.sleep(0.2)
found["stream"] = list(flow.stream())
found["aggregate"] = flow.output()
try:
    runpod.Endpoint(made["id"], api_key="wrong").health()
except RuntimeError as error:
    found["wrong_key"] = str(error)
print(json.dumps(found))
