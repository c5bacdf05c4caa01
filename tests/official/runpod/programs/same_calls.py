"""RunPod's own client on a deployment that ours made: the same calls, the same outputs. argv: a key, two endpoints."""

import json
import sys
import time

import runpod

key, plain, streaming = sys.argv[1:]
runpod.api_key = key
endpoint = runpod.Endpoint(plain)
found = {"outputs": [endpoint.run_sync({"n": n}, timeout=60) for n in range(3)]}
flow = runpod.Endpoint(streaming).run({"count": 4})
while flow.status() == "IN_QUEUE":
    time.sleep(0.1)
found["stream"] = list(flow.stream())
progress = endpoint.run({"progress": "half", "sleep": 1.5})
seen = []
while progress.job_status is None:
    state = progress._fetch_job()
    seen.append([state["status"], state.get("output")])
    time.sleep(0.1)
found["progress"] = [output for status, output in seen if status == "IN_PROGRESS" and output]
found["final"] = progress.output()
print(json.dumps(found))
