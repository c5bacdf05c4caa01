"""A user's own server: it echoes, fails, waits and dies as it is asked to."""

from __future__ import annotations

import http.server
import json
import os
import threading

go = threading.Event()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/die":
            os._exit(3)
        if self.path.startswith("/parts"):
            self.parts(breaks=self.path == "/parts/broken")
            return
        if self.path == "/go":
            go.set()
        status = 503 if self.path == "/busy" else 200
        reply = {"method": self.command, "path": self.path, "size": len(body), "auth": self.headers["authorization"]}
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.send_header("x-unigpu-error", "a server may not say this")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def parts(self, *, breaks: bool) -> None:
        self.send_response(200)
        self.send_header("content-length", "10")
        self.end_headers()
        self.wfile.write(b"first")
        self.wfile.flush()
        go.wait(60)
        go.clear()
        if not breaks:
            self.wfile.write(b"later")
        self.close_connection = True

    do_GET = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the names that http.server asks for


http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
