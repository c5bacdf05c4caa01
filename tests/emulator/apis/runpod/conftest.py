"""RunPod's emulator in memory. Every request and reply of the control plane is held to the official OpenAPI file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi import OpenAPI

from unigpu.emulator.apis.runpod.emulator import Quirks, RunPodEmulator
from unigpu.emulator.contract import HttpCall, Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud

KEY = "rpa_key"
WIDE = (("minute", 100_000, 60),)
NEWER = "https://github.com/runpod/docs/blob/953afcc10583970fee52f78b78a48f18b26e461e/api-reference-v2/openapi.json"
NEWER_FIELDS = ("entrypoint", "cmd")
DEVIATIONS = {
    # Newer than the file of August; each is in the revision above.
    **{f"{row}{name}": NEWER for row in ("", "endpoints[].", "pods[].", "templates[].") for name in NEWER_FIELDS},
    "pagination": NEWER,
    "413": NEWER,
    # Prose of the file, not in its list of replies.
    "402": "the description of POST /v2/pods",
    "405": "the description of POST /v2/pods",
}
NEWER_ROUTES = ("/v2/account/secrets", "/v2/account/limits", "/v2/billing/balance")


@dataclass
class Answer:
    status: int
    body: Any
    headers: dict[str, str]

    def __getitem__(self, name: str) -> Any:
        return self.body[name]


@dataclass
class Bench:
    """The emulator and its cloud."""

    cloud: VirtualCloud
    face: RunPodEmulator
    spec: OpenAPI | None
    checked: list[str] = field(default_factory=list[str])

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        host: str = "api.runpod.io",
        key: str | None = f"Bearer {KEY}",
        headers: dict[str, str] | None = None,
        bad: bool = False,
        **query: Any,
    ) -> Answer:
        """*bad*: the request is one that the file forbids, on purpose."""
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {**({"authorization": key} if key else {}), **(headers or {})}
        texts = {name: str(value) for name, value in query.items()}
        reply = self.cloud.call(
            HttpCall(
                method=method,
                path=path,
                query=texts,
                headers=given,
                body=content,
                host=host,
                scheme="https",
                target=path + (f"?{urlencode(texts)}" if texts else ""),
            )
        )
        assert isinstance(reply, Reply), reply
        kept = dict(reply.headers)
        is_json = "json" in kept.get("content-type", "")
        answer = Answer(reply.status, json.loads(reply.body) if is_json else reply.body or None, kept)
        if host == "api.runpod.io" and path.startswith("/v2/") and self.spec is not None:
            self._check(method, path, texts, body, answer, bad=bad)
        return answer

    def _check(self, method: str, path: str, query: dict[str, str], body: Any, answer: Answer, *, bad: bool) -> None:
        if path.startswith(NEWER_ROUTES) or answer.status in (405, 501):
            return
        assert self.spec is not None
        if not bad:
            # Newer fields are not only unknown to the file: it forbids what it does not know.
            known = {k: v for k, v in body.items() if k not in NEWER_FIELDS} if isinstance(body, dict) else body
            self.spec.check_request(method, path, params=query, body=known, allow={"?cursor": NEWER, "?limit": NEWER})
        text = None if "event-stream" in answer.headers.get("content-type", "") else answer.body
        allow = {**DEVIATIONS, "title": "RFC 9457"}
        self.spec.check_reply(method, path, answer.status, text, allow=allow)
        self.checked.append(f"{method} {path} {answer.status}")

    # -- what tests share

    def endpoint(self, name: str = "app", **changes: Any) -> Answer:
        body = {
            "name": name,
            "type": "QUEUE",
            "image": "org/worker:1.2.0",
            "gpu": {"pools": ["ADA_24"], "count": 1},
            "workers": {"min": 0, "max": 3, "idleTimeout": 5},
            "scaling": {"type": "QUEUE_DELAY", "queueDelay": 4},
            "timeout": 600_000,
            **changes,
        }
        made = self.call("POST", "/v2/serverless", {key: value for key, value in body.items() if value is not None})
        assert made.status == 201, made.body
        return made

    def job(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        return self.call(method, f"/v2/{path}", body, host="api.runpod.ai", **more)

    def run(self, endpoint: str, **input: Any) -> str:
        return str(self.job("POST", f"{endpoint}/run", {"input": input})["id"])

    def status(self, endpoint: str, job: str) -> Any:
        return self.job("GET", f"{endpoint}/status/{job}").body

    def behave(self, name: str, **how: Any) -> None:
        self.cloud.behave(name, Behavior(**how))


Make = Callable[..., Bench]


@pytest.fixture
def make() -> Make:
    def make(*, page: int = 1000, settings: EngineSettings | None = None, **quirks: Any) -> Bench:
        cloud = VirtualCloud(settings=settings)
        face = RunPodEmulator(cloud.engine, key=KEY, page=page, quirks=Quirks(**{"rate_limits": WIDE, **quirks}))
        cloud.mount(face)
        try:
            spec: OpenAPI | None = OpenAPI.load("runpod-v2.openapi.json")
        except pytest.skip.Exception:
            spec = None  # the vendor's file is not here; the rest still holds
        return Bench(cloud, face, spec)

    return make


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()
