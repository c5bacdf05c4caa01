"""A server of a user's, which knows nothing of Vast."""

from __future__ import annotations

import gzip
import json
import os
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(200 if self.path == "/health" else 404, {})

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "4711")
        self.end_headers()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        told = {"path": self.path, "bytes": len(body), "mine": self.headers["x-mine"]}
        data = json.dumps(told).encode()
        squeezed = self.path == "/gzip"
        self.send_response(201)
        self.send_header("x-server", "PUT")
        self.send_header("content-type", "application/json")
        if squeezed:
            data = gzip.compress(data)
            self.send_header("content-encoding", "gzip")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body.get("events"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for number in range(body["events"]):
                self._chunk(b"data: %d\n\n" % number)
                time.sleep(0.01)
            self._chunk(b"")
        else:
            self._answer(body.get("status", 200), {"path": self.path, "got": body})

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _answer(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


ThreadingHTTPServer(("127.0.0.1", int(os.environ["UNIGPU_PORT"])), Handler).serve_forever()
