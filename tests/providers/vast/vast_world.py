"""Vast in memory for the driver's own tests: every request is kept, and held to who may see the account's key.

The platform's whole protocol over the engine (`Account`), and what its engine and workers answer instead on a bad day
(`Script`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from unigpu._io.clock import get_clock
from unigpu.emulator.apis.vast.emulator import Quirks, VastEmulator
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud
from unigpu.testing._conformance.transport import CloudTransport

KEY = "canary-vast-key-71c3"
CONSOLE, ENGINE = "console.vast.ai", "run.vast.ai"
FIELDS: Mapping[str, Any] = {
    "name": "summarize", "handler": "app:summarize", "image": "ghcr.io/me/app:1", "gpu": "RTX 4090", "max_price": 1.0
}  # fmt: skip


class Kept(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Keeps what is sent. The key goes to Vast's two services, in one header, and nowhere else."""

    def __init__(self) -> None:
        self.sent: list[httpx.Request] = []
        self.to_workers: list[httpx.Request] = []
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda request: None

    def keep(self, request: httpx.Request) -> httpx.Response | None:
        self.sent.append(request)
        seen = f"{request.url} {request.content!r}"
        assert KEY not in seen, f"the key is in {request.url.path} or its body"
        if request.url.host in (CONSOLE, ENGINE) and not request.url.path.startswith("/instance-logs/"):
            assert request.url.scheme == "https"
            if request.url.host == CONSOLE:  # an engine that refused it is asked with the endpoint's own
                assert request.headers["authorization"] == f"Bearer {KEY}"
        else:
            self.to_workers.append(request)
            assert KEY not in repr(request.headers.raw)
            assert "user-agent" not in request.headers
        return self.before(request)

    def of(self, method: str, path: str) -> list[httpx.Request]:
        return [one for one in self.sent if one.method == method and one.url.path.rstrip("/") == path.rstrip("/")]

    def bodies(self, method: str, path: str) -> list[Any]:
        return [json.loads(one.content) if one.content else None for one in self.of(method, path)]

    def puts(self, field: str) -> list[Any]:
        """The bodies of every PUT to an endpoint that say *field*."""
        sent = [one for one in self.sent if one.method == "PUT" and one.url.path.startswith("/api/v0/endptjobs/")]
        return [body for one in sent if field in (body := json.loads(one.content))]


class Account(Kept):
    """The emulator over the engine."""

    def __init__(self, quirks: Quirks | None = None, *, clock: Any) -> None:
        super().__init__()
        self.cloud = VirtualCloud(clock=clock)
        self.face = VastEmulator(self.cloud.engine, token=KEY, quirks=quirks)
        self.cloud.mount(self.face)
        self._inner = CloudTransport(self.cloud, self.face)
        self.behave(Behavior(run=lambda given: {"got": given}, cold_start=30.0))

    def behave(self, behavior: Behavior) -> None:
        self.cloud.simulation._behavior_of = lambda _: behavior

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self.keep(request) or self._inner.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.keep(request) or await self._inner.handle_async_request(request)


class Script:
    """What the engine and the workers of an `Account` answer, where a test says so: put it into ``account.before``.

    An answer is a status and JSON, an exception, or a function of the request that gives one of them; of a list the
    last repeats. ``None``: as the emulator has it.

    Attributes:
        route, worker, workers, endpoint: Of ``/route/``, of workers, of the worker list, of the console.
        times: When each ``/route/`` came, on the clock.
        asked: What ``/route/`` was asked.
        dialled: The workers that were called.
    """

    def __init__(self) -> None:
        self.route: Any = None
        self.worker: Any = None
        self.workers: Any = None
        self.endpoint: Any = None
        self.times: list[float] = []
        self.asked: list[Any] = []
        self.dialled: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response | None:
        path = request.url.path.rstrip("/")
        if request.url.host not in (CONSOLE, ENGINE):
            self.dialled.append(str(request.url))
            return self._made("worker", request)
        if path == "/route":
            self.times.append(get_clock().now())
            self.asked.append(json.loads(request.content))
            return self._made("route", request)
        if path == "/get_endpoint_workers":
            return self._made("workers", request)
        if request.method == "GET" and path.startswith("/api/v0/endptjobs/"):
            return self._made("endpoint", request)
        return None

    def _made(self, what: str, request: httpx.Request) -> httpx.Response | None:
        found = getattr(self, what)
        if isinstance(found, list):
            found = found.pop(0) if len(found) > 1 else found[0]
        if callable(found):
            found = found(request)
        if isinstance(found, Exception):
            raise found
        if found is None or isinstance(found, httpx.Response):
            return found
        status, body = found
        return httpx.Response(status, content=body if isinstance(body, bytes) else json.dumps(body), request=request)


def ready(url: str = "https://203.0.113.42:33526", idx: int = 2421) -> tuple[int, Any]:
    """``/route/`` names a worker: https://docs.vast.ai, and what the official client gets."""
    body = {"endpoint": "demo", "url": url, "cost": 100, "reqnum": 12345, "request_idx": idx, "signature": "c2ln"}
    return 200, {**body, "__request_id": "3f0c"}


def waiting(idx: int | None = 2421, status: str = "total workers: 1, loading: 1") -> tuple[int, Any]:
    return 200, {"endpoint": "demo", "status": status} | ({} if idx is None else {"request_idx": idx})
