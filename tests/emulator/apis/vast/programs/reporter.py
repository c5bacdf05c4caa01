"""Stands for PyWorker where Vast's package is not: reports to the platform as it does, and answers on its port."""

import http.server
import json
import os
import threading
import urllib.request

PORT = int(os.environ["WORKER_PORT"])
URL = f"http://{os.environ['PUBLIC_IPADDR']}:{os.environ[f'VAST_TCP_PORT_{PORT}']}"


def tell(path: str, **body: object) -> None:
    data = json.dumps({"mtoken": os.environ["MASTER_TOKEN"], **body}).encode()
    call = urllib.request.Request(f"{os.environ['REPORT_ADDR']}{path}", data, {"content-type": "application/json"})
    urllib.request.urlopen(call, timeout=10).close()


def status(**changes: object) -> None:
    id = int(os.environ["CONTAINER_ID"])
    body = {"id": id, "loadtime": 1.5, "max_perf": 80.0, "error_msg": "", "working_request_idxs": [], "url": URL}
    tell("/worker_status/", **body | changes)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        index = body["auth_data"]["request_idx"]
        status(working_request_idxs=[index])
        answer = json.dumps({"output": body["payload"]["input"], "execution_s": 0.1}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        tell("/delete_requests/", worker_id=int(os.environ["CONTAINER_ID"]), requests=[{"request_idx": index}])

    def log_message(self, format: str, *args: object) -> None:
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler)
threading.Thread(target=server.serve_forever).start()
print("reporting", URL, flush=True)
status(error_msg="the model does not fit") if os.environ.get("BROKEN") else status()
