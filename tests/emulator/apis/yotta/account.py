"""A caller of the emulator who knows nothing of unigpu's driver."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from openapi import FOLDERS, OpenAPI

from unigpu.emulator.apis.yotta.emulator import Quirks, YottaEmulator
from unigpu.emulator.contract import Callback, HttpCall, Reply
from unigpu.emulator.engine import EngineSettings
from unigpu.emulator.simulation.virtual_cloud import Behavior, VirtualCloud

FILE = "yotta-v2.openapi.yaml"
GPU = "NVIDIA_RTX_4090_24G"

# Where the emulator says more, or otherwise, than the client's file of March 2026, by the place in the reply.
GUIDE = "https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless"
TYPES = "https://github.com/yottalabsai/agent-native-infra: src/api/types.ts"
CLIENT_TESTS = "https://github.com/yottalabsai/YottaML/tree/main/tests"
REFERENCE = "https://docs.yottalabs.ai/api-and-sdk/api-reference-v2"
_ENDPOINT = dict.fromkeys(
    ("resources", "containerVolumeInGb", "expose", "createdAt", "updatedAt", "imageRegistry"), GUIDE
)
_ENDPOINT |= dict.fromkeys(("perHourPrice", "perSecondPrice", "domain", "environmentVars", "envVars"), TYPES)
_WORKER = dict.fromkeys(
    ("id", "region", "gpuType", "gpuDisplayName", "gpuCount", "singleCardVramInGb", "singleCardVcpu",
     "singleCardRamInGb", "uptime", "cost"),
    CLIENT_TESTS,
)  # fmt: skip
_POD = dict.fromkeys(
    ("updatedAt", "resourceType", "region", "containerVolumeInGb", "singleCardVramInGb", "singleCardRamInGb",
     "singleCardVcpu", "singleCardPrice", "expose", "shmInGb"),
    TYPES,
)  # fmt: skip
_TASK = dict.fromkeys(("webhook", "workerUrl", "output", "deliveredAt"), "null until there is one (guide)")
_VOLUME = dict.fromkeys(("id", "type", "sizeBytes", "cost"), f"{REFERENCE}/volume")
_UNTYPED = {"data": "null, as in " + CLIENT_TESTS}
DEVIATIONS: dict[str, dict[str, str]] = {
    "yotta.endpoint": {f"data{at}.{key}": why for key, why in _ENDPOINT.items() for at in ("", "[]")},
    "yotta.endpoint.stop": _UNTYPED,
    "yotta.endpoint.start": _UNTYPED,
    "yotta.endpoint.scale": _UNTYPED,
    "yotta.worker.list": {f"data[].{key}": why for key, why in _WORKER.items()},
    "yotta.pod": {f"data{at}.{key}": why for key, why in _POD.items() for at in ("", "[]")},
    "yotta.job": {f"data{at}.{key}": why for key, why in _TASK.items() for at in ("", ".items[]")},
    "yotta.volume": {f"data{at}.{key}": why for key, why in _VOLUME.items() for at in ("", ".items[]")},
}


class Account:
    """One account on a clock that is moved.

    Args:
        behavior: Of all workers.
        quirks: Of the emulator.
    """

    def __init__(self, behavior: Behavior | None = None, settings: EngineSettings | None = None, **quirks: Any) -> None:
        self.cloud = VirtualCloud(behavior=behavior, settings=settings)
        self.face = YottaEmulator(self.cloud.engine, quirks=Quirks(**quirks))
        self.cloud.mount(self.face)
        self.checked = 0
        self._file = OpenAPI.load(FILE) if any((folder / FILE).is_file() for folder in FOLDERS) else None

    # -- any call

    def send(self, method: str, url: str, body: Any = None, *, key: str | None = "key", **headers: str) -> Reply:
        """A reply as it comes. *url*: a path, or a whole address."""
        parts = urlsplit(url)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            named["x-api-key"] = key
        call = HttpCall(
            method=method,
            path=parts.path or "/",
            query=dict(parse_qsl(parts.query)),
            headers=named,
            host=parts.hostname or "api.yottalabs.ai",
            body=b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode(),
            target=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        )
        reply = self.cloud.call(call)
        assert isinstance(reply, Reply)
        operation = self.face.operation(call)
        if operation is not None and operation != "yotta.http" and not operation.startswith("yotta.v1"):
            self._check(operation, call, reply)
        return reply

    def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The data of a success."""
        code, data, message = self.outcome(method, path, body, **query)
        assert code == 10000, f"{method} {path}: {code} {message}"
        return data

    def outcome(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any, str]:
        """Code, data and message."""
        url = path + (f"?{urlencode(query)}" if query else "")
        found = json.loads(self.send(method, url, body).body)
        assert set(found) == {"message", "code", "data"}
        return found["code"], found["data"], found["message"]

    def _check(self, operation: str, call: HttpCall, reply: Reply) -> None:
        if self._file is None or (operation == "yotta.endpoint.scale" and call.path.endswith("/workers")):
            return  # the file has the count in the path, which the guide and the reference contradict
        body = json.loads(reply.body)
        allow = {**DEVIATIONS.get(operation.rpartition(".")[0], {}), **DEVIATIONS.get(operation, {})}
        if self.face.quirks.numeric_ids:
            allow |= dict.fromkeys(("data.id", "data[].id"), "a number, as in one tutorial")
        if reply.status == 200 and body["code"] != 10000:
            allow |= {"data": "an error under HTTP 200 has none: " + CLIENT_TESTS}
        self._file.check_reply(call.method, call.path, reply.status, body, allow=allow)
        self.checked += 1

    # -- what tests do again and again

    def deploy(self, **fields: Any) -> str:
        """The id of a new endpoint; ``None`` leaves a field out."""
        return str(self.call("POST", "/v2/serverless", wanted(**fields))["id"])

    def get(self, id: str) -> Any:
        return self.call("GET", f"/v2/serverless/{id}")

    def status(self, id: str) -> str:
        return str(self.get(id)["status"])

    def running(self, **fields: Any) -> str:
        """The id of a new endpoint, once it is RUNNING."""
        id = self.deploy(**fields)
        self.cloud.advance(30)
        assert self.status(id) == "RUNNING"
        return id

    def submit(self, id: str, task: str = "t", input: Any = None, **fields: Any) -> str:
        body = {"taskId": task, "input": input or {"input": {"n": 1}}, "workerPort": 8000, "processUri": "/invoke"}
        return str(self.call("POST", f"/v2/serverless/{id}/tasks", {**body, **fields})["taskId"])

    def task(self, id: str, task: str = "t") -> Any:
        return self.call("GET", f"/v2/serverless/{id}/tasks/{task}")

    def workers(self, id: str, **query: Any) -> list[Any]:
        found = self.call("GET", f"/v2/serverless/{id}/workers", **query)
        assert isinstance(found, list)
        return found

    def kill(self, id: str, position: int = 0) -> None:
        """Kill one of an endpoint's workers."""
        self.cloud.crash(list(self.cloud.engine.deployments.get(id, 0.0).workers)[position])

    def notices(self, answers: list[int | None] | None = None) -> list[Any]:
        """What a webhook got so far, as it will grow; *answers* are given in turn, then 200."""
        got: list[Any] = []
        left = list(answers or [])

        def receive(callback: Callback) -> int | None:
            got.append((dict(callback.headers), json.loads(callback.body), self.cloud.clock.now()))
            return left.pop(0) if left else 200

        self.cloud.receiver = receive
        return got


def wanted(**fields: Any) -> dict[str, Any]:
    body = {
        "name": "chat",
        "image": "registry.test/chat:1",
        "resources": [{"region": "us-east-3", "gpuType": GPU, "gpuCount": 1}],
        "workers": 1,
        "containerVolumeInGb": 20,
        "serviceMode": "QUEUE",
        "expose": {"port": 8000, "protocol": "http"},
        "initializationCommand": "python -m unigpu.worker app:handle",
        **fields,
    }
    return {key: value for key, value in body.items() if value is not None}


__all__ = ["GPU", "Account", "wanted"]
