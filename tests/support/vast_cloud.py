"""The Vast emulator in memory, and short words for talking to it. Every reply is held to the official file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from openapi import OpenAPI

from unigpu.emulator.apis.vast.emulator import Quirks, VastEmulator
from unigpu.emulator.contract import Dropped, HttpCall, Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, Pending, VirtualCloud

KEY = "account-key"
ENV = "-e UNIGPU_NAME=demo -p 3000:3000"

PR = "https://github.com/vast-ai/docs/pull/915"
CLIENT = "vastai 1.9.1"
_TRAFFIC = ("inet_up", "inet_down", "inet_up_cost", "inet_down_cost")
DEVIATIONS: Mapping[str, Mapping[str, str]] = {
    "POST /api/v0/endptjobs": {},
    "GET /api/v0/endptjobs": {
        "results[].created_at": f"a number: {PR}, get_api_v0_endptjobs_id, and {CLIENT}, serverless/client/endpoint.py",
        **{
            f"results[].{name}": f"not in the file; read by {CLIENT}, data/endpoint.py"
            for name in (
                "min_cold_load",
                "max_queue_time",
                "target_queue_time",
                "inactivity_timeout",
                "auto_delete_in_seconds",
                "auto_delete_due_24h",
            )
        },
    },
    "DELETE /api/v0/endptjobs/{id}": {"404": f"{PR}, delete_api_v0_endptjobs_id"},
    "PUT /api/v0/workergroups/{id}": {},
    "DELETE /api/v0/workergroups/{id}": {},
    "GET /api/v0/workergroups": {
        "results[].created_at": f"a number, as the endpoint's: {CLIENT}, data/workergroup.py",
        "results[].template_hash": f"null where the template is gone: {CLIENT}, data/workergroup.py",
    },
    "GET /api/v0/template": {
        f"templates[].{name}": f"the file names three fields; the client sends and reads this: {CLIENT}, api/offers.py"
        for name in (
            "hash_id",
            "creator_id",
            "tag",
            "env",
            "onstart",
            "runtype",
            "args_str",
            "recommended_disk_space",
            "extra_filters",
            "private",
            "use_ssh",
            "ssh_direct",
        )
    },
    "POST /api/v0/template": {
        **{
            f"template.{name}": f"the whole template comes back: {PR}, post_api_v0_template"
            for name in (
                "creator_id",
                "image",
                "tag",
                "env",
                "onstart",
                "runtype",
                "args_str",
                "recommended_disk_space",
                "extra_filters",
                "private",
            )
        },
    },
    "PUT /api/v0/template": {
        f"template.{name}": f"the whole template comes back: {PR}, put_api_v1_template"
        for name in ("name", "creator_id", "image", "tag", "env", "runtype", "recommended_disk_space", "args_str")
    },
    "DELETE /api/v0/template": {"msg": f"{CLIENT}, api/offers.py", "": "404 has no declared body"},
    "POST /api/v0/bundles": {"429": f"the daily quota: {CLIENT}, api/client.py"},
    "POST /route": {
        "request_idx": f"{CLIENT}, serverless/client/endpoint.py",
        "": f"request_idx: {CLIENT}, serverless/client/endpoint.py",
        "error_msg": f"{PR}, post_route",
        "error": "where `Quirks.route_errors_as_200` is on",
    },
    "POST /get_endpoint_workers": {
        "": f"a bare list: {CLIENT}, serverless/client/client.py",
        "400": "where `Quirks.errors_as_200` is off",
    },
    "POST /get_workergroup_workers": {"": f"a bare list: {CLIENT}, serverless/client/client.py"},
    "POST /get_endpoint_logs": {
        **dict.fromkeys(("info0", "info1", "trace", "debug"), f"levels: {CLIENT}, api/endpoints.py"),
    },
    "PUT /api/v0/asks/{id}": {
        "instance_api_key": f"{PR}, put_api_v0_asks_id",
        "error": f"{PR}, put_api_v0_asks_id",
        "msg": f"{PR}, put_api_v0_asks_id",
    },
    "GET /api/v0/instances/{id}": {
        "instances": f"null once it is gone: {CLIENT}, api/instances.py",
        "instances.ports": "an object, or null: https://github.com/skypilot-org/skypilot/issues/10518",
        "instances.driver_version": f"{CLIENT}, data/query.py",
        "instances.cuda_max_good": f"{CLIENT}, data/query.py",
        **{f"instances.{name}": f"{CLIENT}, cli/display.py" for name in _TRAFFIC},
        "404": f"where `Quirks.gone_instance_null` is off: {PR}, get_api_v0_instances_id",
    },
    "PUT /api/v0/instances/{id}": {
        "error": f"200 with success false: {PR}, put_api_v0_instances_id",
        "msg": f"200 with success false: {PR}, put_api_v0_instances_id",
    },
    "GET /api/v1/instances": {
        "instances[].onstart": f"null where there is none: {CLIENT}",
        "instances[].driver_version": f"{CLIENT}, data/query.py",
        "instances[].cuda_max_good": f"{CLIENT}, data/query.py",
        "instances[].hosting_type": f"{CLIENT}, data/query.py",
        "instances[].bundle_id": "as in the file's answer for one instance",
        **{f"instances[].{name}": f"{CLIENT}, cli/display.py" for name in _TRAFFIC},
    },
    "GET /api/v0/users/current": {"credit": f"{CLIENT}, api/auth.py"},
}


class Vast:
    """The platform as its clients see it."""

    def __init__(self, behavior: Behavior | None = None, *, quirks: Quirks | None = None, **settings: Any) -> None:
        self.virtual = VirtualCloud(behavior=behavior, settings=EngineSettings(**settings))
        self.engine = self.virtual.engine
        self.face = VastEmulator(self.engine, token=KEY, quirks=quirks)
        self.virtual.mount(self.face)
        self.spec = _spec()
        self.checked = 0

    def advance(self, seconds: float) -> None:
        self.virtual.advance(seconds)

    def begin(self, method: str, url: str, body: Any = None, *, key: str | None = KEY) -> Pending:
        return self.virtual.begin(_call(method, url, body, key))

    def call(self, method: str, url: str, body: Any = None, *, key: str | None = KEY, **query: str) -> Reply:
        found = self.virtual.call(_call(method, url, body, key, query))
        assert isinstance(found, Reply), found
        self._check(method, url, found)
        return found

    def json(self, method: str, url: str, body: Any = None, *, status: int = 200, **more: Any) -> Any:
        reply = self.call(method, url, body, **more)
        assert reply.status == status, (reply.status, reply.body)
        return json.loads(reply.body) if reply.body else None

    def dropped(self, method: str, url: str, body: Any = None) -> bool:
        return isinstance(self.virtual.call(_call(method, url, body, KEY)), Dropped)

    def _check(self, method: str, url: str, reply: Reply) -> None:
        if self.spec is None or "203.0.113" in url or reply.status in (501,):
            return
        path = url.replace("/autojobs/", "/workergroups/").replace("/api/v1/template", "/api/v0/template")
        try:
            written, _ = self.spec.route(method, path)
        except AssertionError:
            return  # a route that the file does not have
        body = json.loads(reply.body) if reply.body.strip() else None
        self.spec.check_reply(method, path, reply.status, body, allow=DEVIATIONS.get(f"{method} {written}"))
        self.checked += 1

    # -- the usual way

    def template(self, **changes: Any) -> dict[str, Any]:
        body = {"name": "demo", "image": "registry.test/app:1", "env": ENV, "runtype": "args", "args_str": "serve"}
        return self.json("POST", "/api/v0/template/", body | changes)["template"]

    def endpoint(self, name: str = "demo", **changes: Any) -> int:
        body = {
            "endpoint_name": name,
            "min_load": 0,
            "min_cold_load": 0,
            "cold_workers": 0,
            "cold_mult": 1,
            "max_workers": 2,
            "target_util": 0.9,
            "max_queue_time": 30,
            "target_queue_time": 10,
            "inactivity_timeout": 60,
        }
        return self.json("POST", "/api/v0/endptjobs/", body | changes)["result"]

    def workergroup(self, endpoint: int, template: str, **changes: Any) -> int:
        body = {"endpoint_id": endpoint, "template_hash": template, "search_params": "gpu_name=RTX_4090 dph_total<=0.6"}
        return self.json("POST", "/api/v0/workergroups/", body | changes)["id"]

    def deployed(self, **endpoint: Any) -> int:
        id = self.endpoint(**endpoint)
        self.workergroup(id, self.template()["hash_id"])
        return id

    def route(self, name: str = "demo", *, index: int = 0, **changes: Any) -> dict[str, Any]:
        body = {"endpoint": name, "cost": 100, "request_idx": index, "replay_timeout": 60.0}
        return self.json("POST", "/route/", body | changes)

    def routed(self, name: str = "demo") -> dict[str, Any]:
        """A route with a worker, polled as clients do."""
        found = self.route(name)
        for _ in range(600):
            if "url" in found:
                return found
            self.advance(1.0)
            found = self.route(name, index=found["request_idx"])
        raise AssertionError(found)

    def envelope(self, route: Mapping[str, Any], payload: Any) -> dict[str, Any]:
        return {"auth_data": dict(route), "session_id": None, "payload": payload}

    def invoke(self, route: Mapping[str, Any], payload: Any, path: str = "/invoke") -> Reply:
        return self.call("POST", f"{route['url']}{path}", self.envelope(route, payload), key=None)

    def workers(self, endpoint: int) -> list[dict[str, Any]]:
        return self.json("POST", "/get_endpoint_workers/", {"id": endpoint})


def _spec() -> OpenAPI | None:
    """Vast's own file, where it is."""
    try:
        return OpenAPI.load("vast.openapi.yaml")
    except pytest.skip.Exception:
        return None


def _call(method: str, url: str, body: Any, key: str | None, query: Mapping[str, str] | None = None) -> HttpCall:
    host = "console.vast.ai"
    if url.startswith("https://"):
        host, _, path = url.removeprefix("https://").partition("/")
        url, host = f"/{path}", host.partition(":")[0]
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    return HttpCall(method=method, path=url, query=dict(query or {}), headers=headers, body=content, host=host)
