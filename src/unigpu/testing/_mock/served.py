"""What stands behind a served deployment: the handler that it names, and a test's function as a server."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import httpx

from unigpu.emulator.contract import HttpCall, Reply

Answer = Callable[[httpx.Request], Any]
"""Request → `httpx.Response`, or what becomes one: text, bytes, JSON data, ``None`` (204)."""

_HOP: Final = ("content-length", "transfer-encoding", "connection")


def served(input: dict[str, Any]) -> dict[str, Any]:
    """The handler that a served deployment names. It never runs: the function that was given to `serve` answers."""
    return input


def as_server(fn: Answer) -> Callable[[HttpCall], Reply]:
    """*fn* as a worker's server. What it raises is a 500, as it is of any server."""

    def answer(call: HttpCall) -> Reply:
        headers = [(name, value) for name, value in call.headers.items() if name not in _HOP]
        request = httpx.Request(call.method, f"http://worker{call.target}", headers=headers, content=call.body)
        try:
            return _reply(fn(request))
        except Exception as exc:  # the server is the user's: whatever it raises is its answer
            return Reply.json({"error": {"type": type(exc).__name__, "message": str(exc)}}, status=500)

    return answer


def _reply(given: Any) -> Reply:
    if isinstance(given, httpx.Response):
        headers = tuple((name.lower(), value) for name, value in given.headers.multi_items())
        kept = tuple(one for one in headers if one[0] not in (*_HOP, "content-encoding"))
        return Reply(status=given.status_code, headers=kept, body=given.read())
    if given is None:
        return Reply(status=204)
    if isinstance(given, str):
        return Reply(status=200, headers=(("content-type", "text/plain; charset=utf-8"),), body=given.encode())
    if isinstance(given, bytes):
        return Reply(status=200, headers=(("content-type", "application/octet-stream"),), body=given)
    return Reply(status=200, headers=(("content-type", "application/json"),), body=json.dumps(given).encode())
