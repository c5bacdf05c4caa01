"""The handlers of the conformance tests: ``unigpu.testing.handlers:echo``. Every image with unigpu in it has them.

``python -m unigpu.testing.handlers`` is a server that tells each request what it was, on ``$PORT``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def echo(input: dict[str, Any]) -> dict[str, Any]:
    return {"got": input}


def count(input: dict[str, Any]) -> Iterator[dict[str, int]]:
    for i in range(input["n"]):
        yield {"i": i}


def fail(input: dict[str, Any]) -> None:
    raise ValueError("no such page")


def slow(input: dict[str, Any]) -> dict[str, float]:
    time.sleep(input["s"])
    return {"slept": input["s"]}


class Echo(BaseHTTPRequestHandler):
    """Answers any request with its method, path and body."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode("utf-8", "replace")
        said = json.dumps({"method": self.command, "path": self.path, "body": body}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the names of http.server


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8000"))), Echo).serve_forever()
