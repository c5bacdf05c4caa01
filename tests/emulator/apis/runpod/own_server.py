"""A server, and a worker of a queue, on the standard library: what a user's container may hold."""

from __future__ import annotations

import http.server
import json
import os
import sys
import urllib.request


class Handler(http.server.BaseHTTPRequestHandler):
    looks = 0 if sys.argv[1] == "slow" else 3

    def do_POST(self) -> None:
        if self.path == "/health":
            Handler.looks += 1
            self.send_response(200 if Handler.looks > 3 else 204)
            self.send_header("content-length", "0")
            self.end_headers()
            return
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        told = {"path": self.path, "body": body.decode(), "key": self.headers.get("authorization")}
        told |= {"pod": os.environ.get("RUNPOD_POD_ID"), "mine": os.environ.get("MINE")}
        told["loaded"] = Handler.looks >= 3
        content = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815 - the base class names it

    def log_message(self, format: str, *args: object) -> None:
        print("served", self.path, flush=True)


def queue() -> None:
    """RunPod's protocol in its smallest form."""
    worker = os.environ["RUNPOD_POD_ID"]
    take = os.environ["RUNPOD_WEBHOOK_GET_JOB"].replace("$ID", worker) + "&job_in_progress=0"
    done = os.environ["RUNPOD_WEBHOOK_POST_OUTPUT"].replace("$RUNPOD_POD_ID", worker)
    headers = {"authorization": os.environ["RUNPOD_AI_API_KEY"]}
    while True:
        with urllib.request.urlopen(urllib.request.Request(take, headers=headers), timeout=90) as reply:
            if reply.status != 200:
                continue
            job = json.loads(reply.read())
        body = json.dumps({"output": {"got": job["input"], "by": worker}}).encode()
        url = done.replace("$ID", job["id"]) + "&isStream=false"
        urllib.request.urlopen(urllib.request.Request(url, data=body, headers=headers), timeout=30).close()


if sys.argv[1] == "queue":
    queue()
else:
    http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
