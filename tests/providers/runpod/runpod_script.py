"""A RunPod account as its documents describe it, in a few lines: for tests of single requests, and for what a face does
not do by itself. Every request that arrives is held to RunPod's own OpenAPI file, where that is there.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx

from unigpu._io.clock import get_clock

KEY = "rpa_0123456789"
CONTROL, JOBS = "api.runpod.io", "api.runpod.ai"

NEWER = {
    "entrypoint": "https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc (after August 2026)",
    "cmd": "the same",
    "?cursor": "the same: pagination",
}
"""What RunPod's file of August does not have, and a later revision has."""

GPUS: list[dict[str, Any]] = [
    {"id": "NVIDIA GeForce RTX 4090", "name": "RTX 4090", "pool": "ADA_24", "memory": 24, "price": (0.69, 0.34, 1.1)},
    {"id": "NVIDIA L4", "name": "L4", "pool": "AMPERE_24", "memory": 24, "price": (0.39, 0.2, 0.68)},
    {"id": "NVIDIA RTX A5000", "name": "RTX A5000", "pool": "AMPERE_24", "memory": 24, "price": (0.27, 0.16, 0.69)},
    {"id": "NVIDIA L40", "name": "L40", "pool": "ADA_48_PRO", "memory": 48, "price": (0.99, 0.69, 1.9)},
    {"id": "NVIDIA L40S", "name": "L40S", "pool": "ADA_48_PRO", "memory": 48, "price": (0.86, 0.79, 1.9)},
    {"id": "NVIDIA A30", "name": "A30", "pool": None, "memory": 24, "price": (0.3, 0.2, None)},
]
PLACES = [("US-KS-2", "HIGH"), ("EU-RO-1", "LOW")]

Reply = tuple[int, Any]
Route = Callable[[re.Match[str], Any, dict[str, str]], Reply]


class Account(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """See the module.

    Attributes:
        sent: Method, host, path, query, body and headers of each request.
        before: Called with method and path before anything is done; what it returns is the reply.
        health: Of every endpoint.
        jobs: By id, the statuses still to come; the last one stays.
    """

    def __init__(self, spec: Any = None, page: int | None = None) -> None:
        self.spec, self.page = spec, page
        self.sent: list[httpx.Request] = []
        self.before: Callable[[str, str], Any] = lambda method, path: None
        self.rows: dict[str, dict[str, dict[str, Any]]] = {
            k: {} for k in ("serverless", "pods", "network-volumes", "registries", "secrets")
        }
        self.gpus = [gpu(one) for one in GPUS]
        self.health: dict[str, Any] = {"jobs": {}, "workers": {}}
        self.workers: list[dict[str, Any]] = []
        self.jobs: dict[str, list[dict[str, Any]]] = {}
        self.next_job: list[dict[str, Any]] = [{"status": "COMPLETED", "output": {"ok": True}, "executionTime": 40}]
        self.streams: dict[str, list[dict[str, Any]]] = {}
        self.balance: Reply = (200, {"balanceAmount": 12.5, "billingMode": "PREPAID"})
        self.limits: Reply = (404, problem(404, "Not Found"))
        self.proxy: Reply = (200, {"ok": True})
        self.edge: tuple[int, Any, dict[str, str]] = (200, {"served": True}, {"x-runpod-worker-id": "w1"})
        self.log = ""
        self._ids = itertools.count(1)

    # -- what tests ask

    def bodies(self, method: str, path: str) -> list[Any]:
        """The JSON bodies of what was sent to a path, in order."""
        found = [one for one in self.sent if one.method == method and re.fullmatch(path, one.url.path)]
        return [json.loads(one.content) if one.content else None for one in found]

    def count(self, method: str, path: str) -> int:
        return len(self.bodies(method, path))

    def only(self, kind: str) -> dict[str, Any]:
        (row,) = self.rows[kind].values()
        return row

    # -- transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        return self._reply(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self._reply(request)

    def _reply(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        path, host = unquote(request.url.path), request.url.host
        early = self.before(request.method, path)
        if isinstance(early, Exception):
            raise early
        if early is not None:
            return response(request, *early)
        if host.endswith(".proxy.runpod.net"):
            assert "authorization" not in request.headers or KEY not in request.headers["authorization"]
            return response(request, *self.proxy)
        assert request.headers["authorization"] == f"Bearer {KEY}", "every request but a pod's own carries the key"
        assert KEY not in str(request.url)
        if host == CONTROL:
            return self._control(request, path)
        if host == JOBS:
            return response(request, *self._jobs(request, path))
        return httpx.Response(self.edge[0], json=self.edge[1], headers=self.edge[2], request=request)

    def _control(self, request: httpx.Request, path: str) -> httpx.Response:
        query = dict(parse_qsl(request.url.query.decode()))
        body = json.loads(request.content) if request.content else None
        newer = path.startswith(("/v2/account/secrets", "/v2/account/limits", "/v2/billing/balance"))
        if self.spec is not None and not newer:
            self.spec.check_request(request.method, str(request.url), body=older(body), allow=NEWER)
        if path.endswith("/logs"):
            return httpx.Response(200, text=self.log, headers={"content-type": "text/event-stream"}, request=request)
        for method, pattern, route in self._routes():
            found = re.fullmatch(pattern, path)
            if method == request.method and found:
                status, said = route(found, body, query)
                if self.spec is not None and not newer and status < 300:
                    self.spec.check_reply(request.method, path, status, older(said))
                return response(request, status, said)
        return response(request, 404, problem(404, "no such route"))

    def _routes(self) -> list[tuple[str, str, Route]]:
        out: list[tuple[str, str, Route]] = [
            ("GET", "/v2/catalog/gpus", lambda m, b, q: (200, {"gpus": self.gpus})),
            ("GET", "/v2/catalog/datacenters", lambda m, b, q: (200, {"dataCenters": [place(id) for id, _ in PLACES]})),
            ("GET", "/v2/billing/balance", lambda m, b, q: self.balance),
            ("GET", "/v2/account/limits", lambda m, b, q: self.limits),
            ("GET", "/v2/serverless/([^/]+)/workers", lambda m, b, q: (200, self._workers())),
            ("POST", "/v2/pods/([^/]+)/action", self._action),
        ]
        makers: list[tuple[str, str, str, Callable[[Any], dict[str, Any]]]] = [
            ("/v2/serverless", "serverless", "endpoints", endpoint),
            ("/v2/pods", "pods", "pods", pod),
            ("/v2/network-volumes", "network-volumes", "networkVolumes", volume),
            ("/v2/registries", "registries", "registries", lambda b: {"name": b["name"]}),
            ("/v2/account/secrets", "secrets", "secrets", lambda b: {"name": b["name"], "createdAt": when()}),
        ]
        for path, kind, key, make in makers:
            out += [
                ("GET", path, lambda m, b, q, k=kind, w=key: self._list(k, w, q)),
                ("POST", path, lambda m, b, q, k=kind, f=make: self._make(k, f(b), b)),
                ("GET", f"{path}/([^/]+)", lambda m, b, q, k=kind: self._row(k, m[1])),
                ("PATCH", f"{path}/([^/]+)", lambda m, b, q, k=kind: self._patch(k, m[1], b)),
                ("DELETE", f"{path}/([^/]+)", lambda m, b, q, k=kind: self._delete(k, m[1])),
            ]
        return out

    def _list(self, kind: str, key: str, query: dict[str, str]) -> Reply:
        rows = list(self.rows[kind].values())
        if kind == "secrets" and "name" in query:
            return 200, {key: [one for one in rows if one["name"].lower() == query["name"].lower()]}
        if self.page is None or kind not in ("serverless", "pods"):
            return 200, {key: rows}
        start = int(query.get("cursor", "0"))
        more = start + self.page < len(rows)
        pages = {"hasNextPage": more, "nextCursor": str(start + self.page) if more else None}
        return 200, {key: rows[start : start + self.page], "pagination": pages}

    def _make(self, kind: str, row: dict[str, Any], body: Any) -> Reply:
        if kind == "secrets" and any(one["name"].lower() == row["name"].lower() for one in self.rows[kind].values()):
            return 409, problem(409, "a secret of that name exists")
        row = {"id": f"{kind[:2]}{next(self._ids)}", **row}
        if kind == "serverless":
            row["requestUrls"] = {"base": f"https://{row['id']}.api.runpod.ai", "health": "…"}
            if row["type"] == "QUEUE":
                names = "run runSync status stream cancel retry purgeQueue health"
                row["requestUrls"] = {name: f"https://{JOBS}/v2/{row['id']}/{name}" for name in names.split()}
        self.rows[kind][row["id"]] = row
        return 201, row

    def _row(self, kind: str, id: str) -> Reply:
        row = self.rows[kind].get(id)
        return (200, row) if row else (404, problem(404, "resource not found"))

    def _patch(self, kind: str, id: str, body: Any) -> Reply:
        row = self.rows[kind].get(id)
        if row is None:
            return 404, problem(404, "resource not found")
        gpu_ = body.pop("gpu", None) if kind == "serverless" else None
        if gpu_ is not None:
            if gpu_.get("minCudaVersion") == "":
                gpu_["minCudaVersion"] = None
            row["gpu"] = {**row["gpu"], **gpu_}
        row.update({key: value for key, value in body.items() if key != "value"})
        return 200, row

    def _delete(self, kind: str, id: str) -> Reply:
        return (204, None) if self.rows[kind].pop(id, None) else (404, problem(404, "resource not found"))

    def _workers(self) -> dict[str, Any]:
        counts = dict.fromkeys(("running", "idle", "initializing", "throttled", "unhealthy"), 0)
        return {"workers": self.workers, "summary": {**counts, "total": len(self.workers)}, "endpointVersion": 1}

    def _action(self, found: re.Match[str], body: Any, query: dict[str, str]) -> Reply:
        row = self.rows["pods"][found[1]]
        if body["action"] not in row["actions"]:
            return 409, problem(409, f"a pod that is {row['status']} cannot {body['action']}")
        running = body["action"] == "start"
        row.update(
            status="RUNNING" if running else "EXITED",
            actions=["stop", "restart", "terminate"] if running else ["start", "terminate"],
            cost=0.69 if running else 0.0,
            runtime={"uptime": 1, "ports": []} if running else None,
        )
        return 200, row

    # -- jobs

    def _jobs(self, request: httpx.Request, path: str) -> Reply:
        found = re.fullmatch(r"/v2/([^/]+)/(\w+)(?:/([^/]+))?(?:/.*)?", path)
        assert found, path
        id, verb, job = found[1], found[2], found[3]
        if verb == "openai":
            return 200, {"openai": path.partition("/openai")[2]}
        if id not in self.rows["serverless"]:
            return 404, {"error": "endpoint not found"}
        if verb == "health":
            return 200, self.health
        if verb in ("run", "runsync"):
            job = f"{'sync-' if verb == 'runsync' else ''}job{next(self._ids)}-u1"
            self.jobs[job] = [dict(one) for one in self.next_job]
            return 200, {"id": job, **(self._job(job) if verb == "runsync" else {"status": "IN_QUEUE"})}
        if job not in self.jobs:
            return 404, {"error": "job not found"}
        if verb == "cancel":
            self.jobs[job] = [{"status": "CANCELLED"}]
            return 200, {"id": job, "status": "CANCELLED"}
        if verb == "stream":
            left = self.streams.get(job, [])
            return 200, left.pop(0) if left else {"status": "COMPLETED", "stream": []}
        return 200, {"id": job, **self._job(job)}

    def _job(self, id: str) -> dict[str, Any]:
        left = self.jobs[id]
        return left.pop(0) if len(left) > 1 else left[0]


def older(body: Any) -> Any:
    """A body without what RunPod's file of August does not have."""
    if isinstance(body, dict):
        return {key: older(value) for key, value in body.items() if key not in NEWER and key != "pagination"}
    return [older(one) for one in body] if isinstance(body, list) else body


def response(request: httpx.Request, status: int, body: Any) -> httpx.Response:
    if body is None:
        return httpx.Response(status, request=request)
    if isinstance(body, bytes):
        return httpx.Response(status, content=body, headers={"content-type": "application/x-ndjson"}, request=request)
    kind = "application/problem+json" if status >= 400 else "application/json"
    return httpx.Response(status, content=json.dumps(body), headers={"content-type": kind}, request=request)


def problem(status: int, detail: str) -> dict[str, Any]:
    return {"title": "Error", "status": status, "detail": detail}


def when() -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(get_clock().wall(), UTC).isoformat().replace("+00:00", "Z")


def gpu(one: dict[str, Any]) -> dict[str, Any]:
    secure, community, serverless = one["price"]
    price = {"secure": secure, "community": community}
    return {
        **{key: one[key] for key in ("id", "name", "pool", "memory")},
        "manufacturer": "NVIDIA",
        "secure": True,
        "community": True,
        "price": price if serverless is None else {**price, "serverless": serverless},
        "maxCount": {"secure": 8, "community": 4},
        "availability": "HIGH",
        "dataCenters": [{"id": id, "name": id, "availability": stock} for id, stock in PLACES],
    }


def place(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "name": id,
        "region": "NORTH_AMERICA" if id.startswith("US") else "EUROPE",
        "networkVolumeTypes": ["STANDARD"],
        "compliance": [],
        "globalNetwork": False,
    }


def endpoint(body: dict[str, Any]) -> dict[str, Any]:
    gpu_ = {"allowedCudaVersions": [], "minCudaVersion": None, **body["gpu"]}
    return {
        "args": "", "disk": 20, "ports": [], "registry": None, "dataCenterIds": [], "networkVolumes": [],
        **body, "gpu": gpu_, "createdAt": when(),
    }  # fmt: skip


def pod(body: dict[str, Any]) -> dict[str, Any]:
    body = {key: value for key, value in body.items() if key != "dataCenterIds"}  # told as the one it is in
    return {
        "args": "", "disk": 20, "mounts": {}, "registry": None,
        **body,
        "status": "RUNNING", "actions": ["stop", "restart", "terminate"], "dataCenterId": "US-KS-2",
        "cudaVersion": "12.8", "ssh": {"proxy": None, "direct": None}, "template": None, "cost": 0.69,
        "locked": False, "runtime": {"uptime": 1, "ports": []}, "createdAt": when(), "startedAt": when(),
        "globalNetworking": {"enabled": False},
    }  # fmt: skip


def volume(body: dict[str, Any]) -> dict[str, Any]:
    return {"type": "STANDARD", **body}
