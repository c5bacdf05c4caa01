"""Of RunPod's GraphQL, what the package ``runpod`` 1.12.0 says to create and to list endpoints; the rest is an error.

It is retired early in 2027 (https://docs.runpod.io/sdks/graphql/configurations). Errors come with HTTP 200. Source of
the calls: https://github.com/runpod/runpod-python at 1.12.0, runpod/api.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from unigpu.emulator.contract import JSON, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment

from .account import keep_template
from .catalogue import TYPES
from .endpoints import TEMPLATE, make_endpoint
from .state import ENDPOINT, Route, RunPodAccount, RunPodProblem

_TOKEN: Final = re.compile(r'\s*,?\s*(?:("(?:[^"\\]|\\.)*")|([{}\[\]():])|([^\s{}\[\]():,"]+))')
_PORTS: Final = re.compile(r"[,\s]+")


class _Reader:
    """Reads the arguments of a field."""

    def __init__(self, text: str) -> None:
        self._tokens = [str(match[1] or match[2] or match[3]) for match in _TOKEN.finditer(text)]
        self._at = 0

    def find(self, names: Mapping[str, object]) -> str | None:
        """Go behind the first of these fields."""
        for position, token in enumerate(self._tokens):
            if token in names:
                self._at = position + 1
                return token
        return None

    def arguments(self) -> dict[str, Any]:
        """``input: {…}``, or nothing."""
        if self._peek() != "(":
            return {}
        self._next()
        found: dict[str, Any] = {}
        while self._peek() not in (")", None):
            name = self._next()
            self._expect(":")
            found[name] = self._value()
        return found

    def _value(self) -> Any:
        token = self._next()
        if token == "{":
            fields: dict[str, Any] = {}
            while self._peek() != "}":
                name = self._next()
                self._expect(":")
                fields[name] = self._value()
            self._next()
            return fields
        if token == "[":
            items: list[Any] = []
            while self._peek() != "]":
                items.append(self._value())
            self._next()
            return items
        try:
            return json.loads(token)
        except ValueError:
            return token  # an enum

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise RunPodProblem(400, f"Syntax Error: expected {token}")

    def _peek(self) -> str | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self) -> str:
        token = self._peek()
        if token is None:
            raise RunPodProblem(400, "Syntax Error: unexpected end")
        self._at += 1
        return token


Resolver = Callable[[RunPodAccount, HttpCall, Mapping[str, Any], float], JSON]


def _answer(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    """One request with one field of the table."""
    try:
        query: Any = json.loads(call.body)["query"]
        reader = _Reader(str(query))
        name = reader.find(_FIELDS)
        if name is None:
            raise RunPodProblem(400, "this field is not served here; see REST v2")
        value = _FIELDS[name](account, call, reader.arguments().get("input", {}), now)
    except (ValueError, KeyError, TypeError):
        return Reply.json({"errors": [{"message": "the query cannot be read"}]}, status=400)
    except RunPodProblem as exc:
        text = "; ".join((exc.detail, *exc.errors))
        return Reply.json({"errors": [{"message": text}], "data": {}})
    return Reply.json({"data": {name: value}})


def _save_template(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> JSON:
    ports = [port for port in _PORTS.split(given.get("ports") or "") if port]
    body: dict[str, Any] = {
        "name": given["name"],
        "image": given["imageName"],
        "args": given.get("dockerArgs") or "",
        "disk": int(given.get("containerDiskInGb") or 10),
        "ports": ports,
        "env": {row["key"]: row["value"] for row in given.get("env") or ()},
        "serverless": bool(given.get("isServerless")),
        "registry": given.get("containerRegistryAuthId") or None,
    }
    made = keep_template(account, body, now)
    shown = made.terms.data["body"]
    return {
        "id": made.id,
        "name": shown["name"],
        "imageName": shown["image"],
        "dockerArgs": shown["args"],
        "containerDiskInGb": shown["disk"],
        "volumeInGb": 0,
        "volumeMountPath": given.get("volumeMountPath") or "/workspace",
        "ports": ",".join(shown["ports"]),
        "env": [{"key": key, "value": value} for key, value in shown["env"].items()],
        "isServerless": shown["serverless"],
    }


def _save_endpoint(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> JSON:
    words = [word.strip() for word in str(given["gpuIds"]).split(",") if word.strip()]
    gpu: dict[str, Any] = {"pools": [word for word in words if not word.startswith("-")]}
    if excluded := [word[1:] for word in words if word.startswith("-")]:
        gpu["excludedTypes"] = excluded
    if given.get("gpuCount"):
        gpu["count"] = int(given["gpuCount"])
    value = given.get("scalerValue", 4)
    counted = given.get("scalerType") == "REQUEST_COUNT"
    workers: dict[str, Any] = {"min": given.get("workersMin", 0), "max": given.get("workersMax", 3)}
    if not counted:
        workers["idleTimeout"] = given.get("idleTimeout", 5)
    body: dict[str, Any] = {
        "name": given["name"],
        "templateId": given["templateId"],
        "type": "QUEUE",
        "gpu": gpu,
        "workers": workers,
        "scaling": {"type": "REQUEST_COUNT", "requestCount": value}
        if counted
        else {"type": "QUEUE_DELAY", "queueDelay": value},
        "timeout": int(given.get("executionTimeoutMs") or 0),
        "flashboot": given.get("flashBootType") or "OFF",
        "networkVolumes": [given["networkVolumeId"]] if given.get("networkVolumeId") else [],
        "dataCenterIds": [one for one in str(given.get("locations") or "").split(",") if one],
    }
    made = make_endpoint(account, call, body, now)
    return {**_endpoint(account, made), "templateId": given["templateId"]}


def _endpoint(account: RunPodAccount, one: EngineDeployment) -> dict[str, JSON]:
    body: Mapping[str, Any] = one.terms.data["body"]
    gpu = body.get("gpu", {})
    volumes: list[str] = list(body["networkVolumes"])
    return {
        "id": one.id,
        "name": body["name"],
        "type": "QB" if body["type"] == "QUEUE" else "LB",
        "gpuIds": ",".join([*gpu.get("pools", ()), *(f"-{id}" for id in gpu.get("excludedTypes", ()))]),
        "gpuCount": gpu.get("count", 0),
        "networkVolumeId": volumes[0] if volumes else None,
        "networkVolume": None,
        "locations": ",".join(body["dataCenterIds"]),
        "idleTimeout": body["workers"].get("idleTimeout", 5),
        "scalerType": body["scaling"]["type"],
        "scalerValue": body["scaling"].get("queueDelay", body["scaling"].get("requestCount")),
        "workersMin": body["workers"]["min"],
        "workersMax": body["workers"]["max"],
        "workersStandby": 0,
        "templateId": None,
        "allowedCudaVersions": "",
        "flashBootType": body["flashboot"],
        "version": one.version,
        "userId": "user_of_the_face",
        "aiKey": None,
        "env": [{"key": key, "value": value} for key, value in body["env"].items()],
        "createdAt": account.when(one.created_at),
    }


def _myself(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> JSON:
    return {
        "id": "user_of_the_face",
        "email": None,
        "clientBalance": account.quirks.balance,
        "endpoints": [_endpoint(account, one) for one in account.all(ENDPOINT, now)],
    }


def _gpu_types(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> JSON:
    rows = [one for one in TYPES.values() if given.get("id") in (None, one.id)]
    return [
        {
            "id": one.id,
            "displayName": one.name,
            "memoryInGb": one.memory,
            "manufacturer": "Nvidia",
            "maxGpuCount": 8,
            "secureCloud": True,
            "communityCloud": True,
            "securePrice": one.secure,
            "communityPrice": one.community,
        }
        for one in rows
    ]


def _update_template(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> JSON:
    account.find(TEMPLATE, str(given["templateId"]), now, "Template not found")
    raise RunPodProblem(400, "updateEndpointTemplate is not served here; see PATCH /v2/serverless/{id}")


_FIELDS: Final[Mapping[str, Resolver]] = {
    "saveTemplate": _save_template,
    "saveEndpoint": _save_endpoint,
    "updateEndpointTemplate": _update_template,
    "myself": _myself,
    "gpuTypes": _gpu_types,
}
ROUTES: Final = (Route("POST", "/graphql", "graphql", _answer),)
