"""Pods: one machine each, kept until it is stopped or terminated; and their public HTTP proxy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from unigpu.emulator.contract import JSON, Answer, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment
from unigpu.models.deployment import WorkerState

from . import body_check as check
from .catalogue import CPU_MEMORY, TYPES, available
from .endpoints import VOLUME, account_can_pay, with_template
from .state import POD, Route, RunPodAccount, RunPodProblem, object_of
from .translate import card_of, pod_terms
from .workers import log_stream

NO_CAPACITY: Final = (
    "There are no longer any instances available with the requested specifications. Please refresh and try again."
)
_PERSISTENT: Final = check.shape({"size": check.whole(10), "path": check.text}, needs=("size", "path"))
_NETWORK: Final = check.shape({"volumeId": check.text, "path": check.text}, needs=("volumeId", "path"))
_GPU: Final[Mapping[str, check.Check]] = {
    "id": check.text,
    "count": check.whole(1),
    "allowedCudaVersions": check.list_of(check.CUDA),
    "minCudaVersion": check.CUDA,
    # Newer than the file of August, placement filters: the same file at 953afcc.
    "minRamPerGpu": check.whole(1),
    "minVcpuCountPerGpu": check.whole(1),
}
_FIELDS: Final[Mapping[str, check.Check]] = {
    **check.CONTAINER,
    "globalNetworking": check.flag,
    "mounts": check.shape({"persistent": _PERSISTENT, "network": check.list_of(_NETWORK)}),
    "name": check.full,
    "templateId": check.full,
}
_CREATE: Final[Mapping[str, check.Check]] = {
    **_FIELDS,
    "cloud": check.one_of("SECURE", "COMMUNITY"),
    "cpu": check.CPU,
    "dataCenterIds": check.list_of(check.text),
    "gpu": check.shape(_GPU, needs=("id",)),
    "startJupyter": check.flag,
    "startSsh": check.flag,
}
_ACTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "PROVISIONING": ("stop", "terminate"),
    "STARTING": ("stop", "terminate"),
    "RUNNING": ("stop", "restart", "terminate"),
    "EXITED": ("start", "terminate"),
    "ERROR": ("start", "terminate"),
    "TERMINATED": (),
}
_PROXY_WAIT: Final = 100.0


def _create(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    given = object_of(call)
    check.must_fit(given, _CREATE, needs=("name",))
    account_can_pay(account)
    body = with_template(account, given, now, serverless=False)
    if ("gpu" in body) == ("cpu" in body):
        raise RunPodProblem(400, "exactly one of gpu or cpu is required")
    whole: dict[str, Any] = {
        "disk": 20,
        "ports": [],
        "env": {},
        "registry": None,
        "mounts": {},
        "cloud": "SECURE",
        "dataCenterIds": [],
        "globalNetworking": False,
        **body,
    }
    _check(account, whole, now)
    id = account.new_id()
    made = account.engine.deployments.create(id, POD, pod_terms(account, id, whole), now)
    return Reply.json(pod_json(account, made, now), status=201)


def _check(account: RunPodAccount, whole: dict[str, Any], now: float) -> None:
    """Rules across fields, and whether there is such a machine."""
    _, whole["args"] = check.command_of(whole)
    mounts = whole["mounts"]
    if "persistent" in mounts and "network" in mounts:
        raise RunPodProblem(400, "mounts.persistent and mounts.network are mutually exclusive")
    for each in mounts.get("network", ()):
        account.find(VOLUME, each["volumeId"], now, "network volume not found")
    if whole["registry"]:
        account.find("runpod.registry", whole["registry"], now, "registry not found")
    if "gpu" in whole:
        gpu = whole["gpu"]
        if gpu["id"] not in TYPES:
            raise RunPodProblem(400, f"unknown gpu type {gpu['id']!r}")
        # Seen on 2026-08-04: without a count no machine fits (https://github.com/runpod/runpod-mcp, src/_shared).
        if "count" not in gpu or not available(account, TYPES[gpu["id"]]):
            raise RunPodProblem(400, NO_CAPACITY)
    elif whole["cpu"]["id"] not in CPU_MEMORY:
        raise RunPodProblem(400, f"unknown cpu flavor {whole['cpu']['id']!r}")


def _list(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    """Unknown parameters are ignored here, as RunPod does."""
    rows = account.all(POD, now)
    empty = account.quirks.short_pod_page
    return account.listed(call, "pods", rows, lambda one: pod_json(account, one, now), empty=empty)


def _get(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    return Reply.json(pod_json(account, account.find(POD, ids[0], now, "pod not found"), now))


def _patch(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(POD, ids[0], now, "pod not found")
    given = object_of(call)
    check.must_fit(given, {**_FIELDS, "locked": check.flag})
    if "templateId" in given:
        given = with_template(account, given, now, serverless=False)
    body: dict[str, Any] = dict(found.terms.data["body"])
    if any(name in given for name in ("args", "entrypoint", "cmd")):
        body = {key: value for key, value in body.items() if key not in ("args", "entrypoint", "cmd")}
    body |= given
    _check(account, body, now)
    running = found.terms.max_workers > 0
    changed = account.engine.deployments.replace(found.id, pod_terms(account, found.id, body, running=running), now)
    return Reply.json(pod_json(account, changed, now))


def _delete(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(POD, ids[0], now, "pod not found")
    if found.terms.data["body"].get("locked"):
        raise RunPodProblem(409, "the pod is locked")
    account.engine.deployments.delete(ids[0], now)
    return Reply(status=204)


def _action(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(POD, ids[0], now, "pod not found")
    body = object_of(call)
    names = check.one_of("start", "stop", "restart", "terminate")
    check.must_fit(body, {"action": names}, needs=("action",))
    action: str = body["action"]
    status = status_of(found)
    if action not in _ACTIONS[status]:
        raise RunPodProblem(409, f"action {action} is not valid for a pod that is {status}")
    if action == "terminate":
        return _delete(account, call, ids, now)
    card = card_of(account, found.terms.data["body"])
    if action == "start" and card is not None and not available(account, card):
        raise RunPodProblem(400, NO_CAPACITY)
    terms = pod_terms(account, found.id, found.terms.data["body"], running=action != "stop")
    if action == "restart":
        extra = {**terms.launch.extra, "restarts": int(found.terms.launch.extra.get("restarts", 0)) + 1}
        terms = replace(terms, launch=replace(terms.launch, extra=extra))
    changed = account.engine.deployments.replace(found.id, terms, now)
    return Reply.json(pod_json(account, changed, now))


def _logs(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    found = account.find(POD, ids[0], now, "pod not found")
    workers = found.everyone()
    if not workers:
        return Reply(headers=(("content-type", "text/event-stream"),))
    return log_stream(account, workers[-1], call, now)


def _proxy(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    """The public way to a pod's port: no key is asked for, and what the caller sends goes through."""
    pod, port, rest = ids[0], ids[1], ids[2] or "/"
    try:
        found = account.find(POD, pod, now)
    except RunPodProblem:
        return Reply(status=404, body=b"")
    if f"{port}/http" not in found.terms.data["body"]["ports"]:
        return Reply(status=404, body=b"")
    return account.engine.lease(
        pod, inner(call, rest), now, wait=0.0 if not found.ready() else _PROXY_WAIT, no_worker=_bad_gateway
    )


def _bad_gateway(_: object, error: Mapping[str, JSON]) -> Reply:
    """What the proxy says while nothing listens: Cloudflare's pages."""
    return Reply(status=502, headers=(("content-type", "text/html"),), body=b"<html><body>Bad gateway</body></html>")


def inner(call: HttpCall, path: str, *, without: frozenset[str] = frozenset()) -> HttpCall:
    """The call as the server behind it sees it, its path still encoded as it was sent."""
    headers = {name: value for name, value in call.headers.items() if name not in without}
    before = call.path[: len(call.path) - len(path)] if call.path.endswith(path) else call.path
    target = call.target.removeprefix(before)  # what goes before are ids, which are never encoded
    if target and not target.startswith("/"):
        target = f"/{target}"
    return replace(call, path=path, headers=headers, target=target)


# What is told.


def status_of(one: EngineDeployment) -> str:
    if one.terms.max_workers == 0:
        return "EXITED"
    workers = [worker for worker in one.workers.values() if worker.alive]
    if any(worker.state.is_ready for worker in workers):
        return "RUNNING"
    if any(worker.state is WorkerState.STARTING for worker in workers):
        return "STARTING"
    return "ERROR" if one.failure is not None and not workers else "PROVISIONING"


def pod_json(account: RunPodAccount, one: EngineDeployment, now: float) -> dict[str, JSON]:
    body: Mapping[str, Any] = one.terms.data["body"]
    status = status_of(one)
    ready = one.ready()
    row: dict[str, JSON] = {
        "id": one.id,
        "name": body["name"],
        "status": status,
        "actions": list(_ACTIONS[status]),
        **{name: body[name] for name in ("image", "args", "disk", "mounts", "ports", "env", "registry", "cloud")},
        **{name: body[name] for name in ("entrypoint", "cmd") if name in body},
        "dataCenterId": (body["dataCenterIds"] or ["US-KS-2"])[0],
        "cudaVersion": "12.8" if "gpu" in body else None,
        "ssh": {"proxy": None, "direct": None},
        "template": None,
        "cost": one.terms.price_per_hour or 0.0,
        "locked": bool(body.get("locked")),
        "runtime": None,
        "createdAt": account.when(one.created_at),
        "startedAt": account.when(ready[0].started_at) if ready and status == "RUNNING" else None,
        "globalNetworking": {"enabled": bool(body["globalNetworking"])},
    }
    if "gpu" in body:
        row["gpu"] = {"id": body["gpu"]["id"], "count": body["gpu"]["count"]}
    else:
        cpu = body["cpu"]
        row["cpu"] = {**cpu, "memory": int(CPU_MEMORY[cpu["id"]] * cpu["vcpuCount"])}
    if ready and status == "RUNNING":
        started = ready[0].ready_at
        ports: list[JSON] = [
            {"private": int(port.partition("/")[0]), "public": None, "type": port.partition("/")[2], "ip": None}
            for port in body["ports"]
        ]
        row["runtime"] = {
            "uptime": 0 if started is None else int(now - started),
            "ports": ports,
            "gpus": [],
            "cpu": {"util": 0},
            "memory": {"util": 0},
        }
    return row


ROUTES: Final = (
    Route("POST", "/pods", "pod.create", _create),
    Route("GET", "/pods", "pod.list", _list),
    Route("GET", "/pods/([^/]+)", "pod.get", _get),
    Route("PATCH", "/pods/([^/]+)", "pod.patch", _patch),
    Route("DELETE", "/pods/([^/]+)", "pod.delete", _delete),
    Route("POST", "/pods/([^/]+)/action", "pod.action", _action),
    Route("GET", "/pods/([^/]+)/logs", "pod.logs", _logs),
)
PROXY: Final = (Route("*", "/([^/]+)/([0-9]+)(/.*)?", "pod.http", _proxy),)
