"""Yotta's driver over scripted replies: each test says what the control plane answers, and sees what was asked."""

from __future__ import annotations

import json
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from pydantic import SecretStr

from unigpu._io.bridge import run_sync
from unigpu._io.in_memory import MemoryIo
from unigpu._lifecycle.identity import identity_of
from unigpu.driver import DeploymentSpec, DriverConfig, Headers, Identity, Request, Response
from unigpu.providers.yotta import YottaDriver

T = TypeVar("T")
KEY = "canary-yotta-key"
BASE = "https://api.yottalabs.ai"
STOCK = [
    {"gpuType": "NVIDIA_RTX_4090_24G", "regions": [
        {"region": "us-east-3", "regionName": "US East 3", "available": True, "vmTypeId": 1},
        {"region": "eu-2", "regionName": "EU 2", "available": False, "vmTypeId": 2}]},
    {"gpuType": "NVIDIA_H100_80G", "regions": [
        {"region": "eu-2", "regionName": "EU 2", "available": True, "vmTypeId": 3}]},
]  # fmt: skip
ENDPOINT = {
    "id": "378888638324150969", "name": "llama-inference", "image": "vllm/vllm-openai:latest", "status": "RUNNING",
    "totalWorkers": 2, "runningWorkers": 2, "cost": 1.5, "serviceMode": "QUEUE", "webhook": None,
}  # fmt: skip


def reply(data: Any = None, *, code: int = 10000, message: str = "success", status: int = 200) -> Response:
    content = json.dumps({"message": message, "code": code, "data": data}).encode()
    return Response(status=status, headers=Headers(), content=content)


class Scripted:
    """A control plane that answers by ``METHOD /path``: a `Response`, a list of them (the last repeats), or a function.

    Attributes:
        asked: Every request, in order.
    """

    def __init__(self, replies: Mapping[str, Any]) -> None:
        self.replies = dict(replies)
        self.asked: list[Request] = []
        self.io = MemoryIo(self._handle, sync=True, random=lambda: 0.5)

    def _handle(self, request: Request) -> Response:
        self.asked.append(request)
        path = request.url.split("://", 1)[-1].partition("/")[2]
        found = self.replies[f"{request.method} /{path}"]
        if callable(found):
            return found(request)  # type: ignore[no-any-return]  # a test's own function
        if isinstance(found, list):
            return found.pop(0) if len(found) > 1 else found[0]
        return found  # type: ignore[no-any-return]  # a Response, as the test says

    @property
    def operations(self) -> list[str]:
        return [one.operation for one in self.asked]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return run_sync(work)


def driver(**options: Any) -> YottaDriver:
    return YottaDriver(DriverConfig(api_key=SecretStr(KEY), options=options))


def spec(**fields: Any) -> DeploymentSpec:
    given: dict[str, Any] = {
        "name": "summarize", "handler": "app:summarize", "image": "ghcr.io/me/app:1", "gpu": ["RTX 4090", "H100 SXM"],
        "workers": 1, "ttl": None, **fields,
    }  # fmt: skip
    return DeploymentSpec.model_validate(given)


def identity(of: DeploymentSpec, attempt: str = "a" * 32, expires_at: float | None = None) -> Identity:
    return identity_of(
        of, provider="yotta", namespace="default", spec_hash="1:0", attempt=attempt, expires_at=expires_at
    )
