"""An emulator with the local emulator, on a clock of its own, and short words for talking to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from unigpu.emulator.apis.local.emulator import LocalEmulator
from unigpu.emulator.contract import Dropped, HttpCall, Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, Pending, VirtualCloud
from unigpu.models.identity import provider_name


def put_body(name: str = "hello", **changes: Any) -> dict[str, Any]:
    body: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "attempt": "a1",
        "spec_hash": "1:0123456789abcdef",
        "interface": "function",
        "kind": "serverless",
        "workers": {"min": 0, "max": 1},
        "idle_timeout": 60,
        "scaling": None,
        "execution_timeout": 600,
        "concurrency": 1,
        "idempotent": False,
        "expires_at": None,
        "origin": "/home/me/app",
        "constants": {"UNIGPU_NAME": name},
        "spec": {},
        "launch": {
            "argv": [],
            "handler": "app:handle",
            "env": {},
            "cwd": "/",
            "python": "/usr/bin/python3",
            "port": None,
        },
    }
    return body | changes


class Cloud:
    """The cloud as a client of the local protocol sees it."""

    def __init__(self, behavior: Behavior | None = None, **settings: Any) -> None:
        self.virtual = VirtualCloud(behavior=behavior, settings=EngineSettings(**settings))
        self.engine = self.virtual.engine
        self.virtual.mount(LocalEmulator(self.engine, token="t0ken"))

    @property
    def now(self) -> float:
        return self.virtual.clock.now()

    def advance(self, seconds: float) -> None:
        self.virtual.advance(seconds)

    def http_call(
        self, method: str, path: str, body: Any = None, query: Mapping[str, str] | None = None, **headers: str
    ) -> HttpCall:
        return HttpCall(
            method=method,
            path=path,
            query=query or {},
            headers={"authorization": "Bearer t0ken", **{k.replace("_", "-"): v for k, v in headers.items()}},
            body=b"" if body is None else json.dumps(body).encode(),
            host="127.0.0.1",
        )

    def raw(self, method: str, path: str, body: Any = None, **more: Any) -> Reply | Dropped:
        return self.virtual.call(self.http_call(method, path, body, **more))

    def begin(self, method: str, path: str, body: Any = None, **more: Any) -> Pending:
        return self.virtual.begin(self.http_call(method, path, body, **more))

    def ask(self, method: str, path: str, body: Any = None, *, status: int | None = None, **more: Any) -> Any:
        reply = self.raw(method, path, body, **more)
        assert isinstance(reply, Reply), reply
        assert reply.status == status if status is not None else reply.status < 300, (reply.status, reply.body)
        return json.loads(reply.body)

    def body(self, name: str = "hello", **changes: Any) -> dict[str, Any]:
        return put_body(name, **changes)

    def deploy(self, name: str = "hello", **changes: Any) -> str:
        self.ask("PUT", self.url(name), put_body(name, **changes), status=201, if_none_match="*")
        return provider_name("default", name)

    def url(self, name: str = "hello", rest: str = "") -> str:
        return f"/v1/deployments/{provider_name('default', name)}{rest}"

    def show(self, name: str = "hello") -> Any:
        return self.ask("GET", self.url(name))

    def submit(self, id: str, input: Any = None, name: str = "hello", **more: Any) -> Any:
        body = {"id": id, "input": {} if input is None else input, **more}
        return self.ask("POST", self.url(name, "/jobs"), body, status=202)

    def job(self, id: str, name: str = "hello", wait: float = 0) -> Any:
        return self.ask("GET", self.url(name, f"/jobs/{id}"), query={"wait": str(wait)})

    def finish(self, id: str, name: str = "hello", tries: int = 50) -> Any:
        for _ in range(tries):
            found = self.job(id, name, wait=60)
            if found["status"] not in ("QUEUED", "RUNNING"):
                return found
        raise AssertionError(f"job {id} does not end: {found}")

    def workers(self, name: str = "hello") -> Any:
        return self.ask("GET", self.url(name, "/workers"))["workers"]


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def make_cloud() -> type[Cloud]:
    return Cloud
