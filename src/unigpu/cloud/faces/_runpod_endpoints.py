"""Serverless endpoints: create, read, list, change, delete; their workers, releases and logs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from unigpu.cloud.contract import JSON, Answer, Hold, HttpCall, Reply
from unigpu.cloud.engine import Deployment, Refused, Worker
from unigpu.models.deployment import WorkerState

from . import _runpod_check as check
from ._runpod_catalogue import CPU_MEMORY, pool_members
from ._runpod_core import ENDPOINT, Account, Problem, Route, int_of, object_of
from ._runpod_terms import card_of, eligible, endpoint_terms

TEMPLATE: Final = "runpod.template"
VOLUME: Final = "runpod.volume"
_FIELDS: Final[Mapping[str, check.Check]] = {
    **check.CONTAINER,
    "cpu": check.list_of(check.CPU, least=1, unique=True),
    "dataCenterIds": check.list_of(check.text),
    "flashboot": check.one_of("OFF", "FLASHBOOT", "PRIORITY_FLASHBOOT"),
    "gpu": check.shape(check.ENDPOINT_GPU),
    "name": check.full,
    "networkVolumes": check.list_of(check.text),
    "scaling": check.scaling,
    "templateId": check.full,
    "timeout": check.whole(0),
    "workers": check.WORKERS,
}
_CREATE: Final[Mapping[str, check.Check]] = {**_FIELDS, "type": check.one_of("QUEUE", "LOAD_BALANCER")}
_STATUS: Final[Mapping[WorkerState, str]] = {
    WorkerState.PLACING: "THROTTLED",
    WorkerState.STARTING: "INITIALIZING",
    WorkerState.IDLE: "IDLE",
    WorkerState.BUSY: "RUNNING",
    WorkerState.DRAINING: "RUNNING",
    WorkerState.FAILED: "UNHEALTHY",
}
_LOG_TAIL: Final = 100
_LOG_WAIT: Final = 20.0
_THREE_DAYS, _SEVEN_DAYS = 259_200.0, 604_800.0


def _create(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    given = object_of(call)
    return Reply.json(endpoint_json(account, make_endpoint(account, call, given, now), call), status=201)


def make_endpoint(account: Account, call: HttpCall, given: Mapping[str, Any], now: float) -> Deployment:
    """A new endpoint, from the body of its create.

    Raises:
        Problem: it cannot be.
    """
    check.must_fit(given, _CREATE, needs=("name", "type", "scaling"))
    account_can_pay(account)
    body = with_template(account, given, now, serverless=True)
    body = _whole(account, body, now)
    must_have_quota(account, body["workers"]["max"], now)
    id = account.new_id()
    terms = endpoint_terms(account, id, body, account.base(call))
    made = account.engine.deployments.create(id, ENDPOINT, terms, now)
    if not account.quirks.bills_start:
        free = frozenset({"idle", "busy"})
        account.engine.meter.open(id, name=body["name"], price_per_hour=terms.price_per_hour, billed=free)
    account.last_request[id] = now
    return made


def with_template(account: Account, given: Mapping[str, Any], now: float, *, serverless: bool) -> dict[str, Any]:
    """The body over its template's fields: body fields win, ``env`` is merged. No link to the template is kept."""
    body = dict(given)
    id = body.pop("templateId", None)
    if id is None:
        if "image" not in body:
            raise Problem(422, "request validation failed", "$: missing property 'image'")
        return body
    template = account.find(TEMPLATE, id, now, "template not found").terms.data["body"]
    if template["serverless"] is not serverless:
        kind = "serverless" if serverless else "pod"
        raise Problem(422, "request validation failed", f"$.templateId: it is not a {kind} template")
    names = ("image", "args", "disk", "ports", "registry", *(() if serverless else ("mounts",)))
    if any(name in body for name in ("entrypoint", "cmd")):
        names = tuple(name for name in names if name != "args")
    return {**{name: template[name] for name in names}, **body, "env": {**template["env"], **body.get("env", {})}}


def _whole(account: Account, body: dict[str, Any], now: float) -> dict[str, Any]:
    """The body with what it leaves out, and its rules across fields."""
    if ("gpu" in body) == ("cpu" in body):
        raise Problem(400, "exactly one of gpu or cpu is required")
    workers = {"min": 0, "max": 3, **body.get("workers", {})}
    queue, scaling = body["type"] == "QUEUE", body["scaling"]["type"]
    if not queue and scaling != "REQUEST_COUNT":
        raise Problem(422, "request validation failed", "$.scaling: LOAD_BALANCER endpoints use REQUEST_COUNT")
    if queue and scaling == "REQUEST_COUNT":
        if "idleTimeout" in workers:
            why = "$.workers.idleTimeout: not supported with REQUEST_COUNT scaling on a QUEUE endpoint"
            raise Problem(422, "request validation failed", why)
    else:
        workers.setdefault("idleTimeout", 10)
    whole: dict[str, Any] = {
        "disk": 20,
        "ports": [],
        "env": {},
        "registry": None,
        "dataCenterIds": [],
        "networkVolumes": [],
        "timeout": account.quirks.omitted_timeout,
        "flashboot": "OFF",
        **body,
        "workers": workers,
    }
    _, whole["args"] = check.command_of(whole)
    if "gpu" in whole:
        whole["gpu"] = _gpu(whole["gpu"])
    if workers["min"] > workers["max"]:
        raise Problem(400, "workers.min must not be greater than workers.max")
    for id in whole["networkVolumes"]:
        account.find(VOLUME, id, now, "network volume not found")
    if whole["registry"]:
        account.find("runpod.registry", whole["registry"], now, "registry not found")
    for cpu in whole.get("cpu") or ():
        if cpu["id"] not in CPU_MEMORY or cpu["vcpuCount"] & (cpu["vcpuCount"] - 1):
            raise Problem(400, f"cpu flavor {cpu['id']} with {cpu['vcpuCount']} vCPUs is not valid")
    return whole


def _gpu(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """A whole selection of GPUs."""
    if "pools" not in gpu:
        raise Problem(422, "request validation failed", "$.gpu: missing property 'pools'")
    if gpu.get("allowedCudaVersions") and gpu.get("minCudaVersion"):
        raise Problem(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    whole: dict[str, Any] = {"count": 1, "allowedCudaVersions": [], "minCudaVersion": None, **gpu}
    if unknown := [pool for pool in whole["pools"] if not pool_members(pool)]:
        raise Problem(400, f"unknown gpu pool {unknown[0]!r}")
    members = {card.id for pool in whole["pools"] for card in pool_members(pool)}
    if foreign := [id for id in whole.get("excludedTypes") or () if id not in members]:
        raise Problem(400, f"excluded type {foreign[0]!r} is not in any selected pool")
    if not eligible(whole):
        raise Problem(400, "excludedTypes leaves no gpu type")
    return whole


def _list(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    rows = account.all(ENDPOINT, now)
    for one in rows:
        _lower_max(account, one, now)
    return account.listed(call, "endpoints", rows, lambda one: endpoint_json(account, one, call))


def _get(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    _lower_max(account, found, now)
    return Reply.json(endpoint_json(account, found, call))


def _patch(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    given = object_of(call)
    check.must_fit(given, _FIELDS)
    body: dict[str, Any] = dict(found.terms.data["body"])
    if "templateId" in given:
        given = with_template(account, given, now, serverless=True)
    if ("cpu" in given and "gpu" in body) or ("gpu" in given and "cpu" in body):
        raise Problem(400, "an endpoint cannot change between gpu and cpu")
    if any(name in given for name in ("args", "entrypoint", "cmd")):
        body = {key: value for key, value in body.items() if key not in ("args", "entrypoint", "cmd")}
    gpu = _changed_gpu(body, given, wipes=account.quirks.patch_wipes_exclusions)
    workers = {**body["workers"], **given.get("workers", {})}
    counted = given.get("scaling", {}).get("type") == "REQUEST_COUNT" and body["type"] == "QUEUE"
    if counted and "idleTimeout" not in given.get("workers", {}):
        workers.pop("idleTimeout", None)
    body = {**body, **given, "workers": workers, **({"gpu": gpu} if gpu else {})}
    body = _whole(account, body, now)
    must_have_quota(account, body["workers"]["max"], now, besides=found.id)
    terms = endpoint_terms(account, found.id, body, account.base(call) or _base_of(found))
    changed = account.engine.deployments.replace(found.id, terms, now)
    account.last_request[found.id] = now
    return Reply.json(endpoint_json(account, changed, call))


def _changed_gpu(body: Mapping[str, Any], given: Mapping[str, Any], *, wipes: bool) -> dict[str, Any] | None:
    if "gpu" not in body:
        return None
    old, new = dict(body["gpu"]), dict(given.get("gpu", {}))
    if "excludedTypes" in new and "pools" not in new:
        raise Problem(422, "request validation failed", "$.gpu: excludedTypes requires pools")
    if "pools" in new or wipes:
        old.pop("excludedTypes", None)
    if new.get("minCudaVersion"):
        old["allowedCudaVersions"] = []
    elif new.get("allowedCudaVersions"):
        old["minCudaVersion"] = None
    return {**old, **new}


def _base_of(found: Deployment) -> str | None:
    """Where its workers were told that the face is."""
    url = found.terms.launch.per_worker.get("RUNPOD_WEBHOOK_GET_JOB")
    return url.partition("/v2/")[0] if url else None


def _delete(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    account.find(ENDPOINT, ids[0], now, "endpoint not found")
    account.engine.deployments.delete(ids[0], now)
    return Reply(status=204)


def _lower_max(account: Account, found: Deployment, now: float) -> None:
    """RunPod's own cut of ``workers.max`` where no request came for days. Done when somebody looks."""
    if not account.quirks.vendor_lowers_max or found.deleting:
        return
    quiet = now - account.last_request.get(found.id, found.created_at)
    most = 0 if quiet >= _SEVEN_DAYS else 2 if quiet >= _THREE_DAYS else None
    body = found.terms.data["body"]
    if most is None or body["workers"]["max"] <= most:
        return
    workers = {**body["workers"], "max": most, "min": min(most, body["workers"]["min"])}
    terms = endpoint_terms(account, found.id, {**body, "workers": workers}, _base_of(found))
    account.engine.deployments.replace(found.id, terms, now)


# What an account may.


def account_can_pay(account: Account) -> None:
    if account.quirks.billing == "PREPAID" and account.quirks.balance <= 0:
        raise Problem(402, "insufficient balance")


def must_have_quota(account: Account, most: int, now: float, *, besides: str = "") -> None:
    """The quota on the sum of ``workers.max``. The status and text of its refusal are unverified."""
    rows = [one for one in account.all(ENDPOINT, now) if one.id != besides and not one.deleting]
    taken = sum(int(one.terms.data["body"]["workers"]["max"]) for one in rows)
    if taken + most > account.quirks.most_workers:
        raise Problem(400, f"max workers across all endpoints must not exceed {account.quirks.most_workers}")


# Workers, releases, logs.


def shown_workers(account: Account, one: Deployment) -> list[tuple[Worker, str]]:
    """Workers that RunPod lists, each with its status: those that are there, and failed ones while it tries again."""
    troubled = bool(one.start_failures or one.crashes)
    rows: list[tuple[Worker, str]] = []
    for worker in one.everyone():
        if worker.gone and not (troubled and worker.state is WorkerState.FAILED and worker.version == one.version):
            continue
        rows.append((worker, _STATUS.get(worker.state, "IDLE")))
    failed = [row for row in rows if row[1] == "UNHEALTHY"]
    most = max(0, one.terms.max_workers - (len(rows) - len(failed)))
    kept = failed[len(failed) - most :]
    return [row for row in rows if row[1] != "UNHEALTHY" or row in kept]


def summary(rows: Sequence[tuple[Worker, str]]) -> dict[str, JSON]:
    names = ("running", "idle", "initializing", "throttled", "unhealthy")
    counted = {name: sum(1 for _, status in rows if status == name.upper()) for name in names}
    return {**counted, "total": len(rows)}


def _workers(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    rows = shown_workers(account, found)
    return Reply.json(
        {
            "workers": [_worker_json(account, found, worker, status, now) for worker, status in rows],
            "summary": summary(rows),
            "endpointVersion": found.version,
        }
    )


def _worker_json(account: Account, one: Deployment, worker: Worker, status: str, now: float) -> dict[str, JSON]:
    body = one.terms.data["body"]
    card = card_of(account, body)
    centers = body["dataCenterIds"] or ["US-KS-2"]
    return {
        "id": worker.id,
        "status": status,
        "isStale": worker.version != one.version,
        "version": worker.version,
        "gpuCount": body["gpu"]["count"] if card else 0,
        "image": body["image"],
        "uptimeSeconds": None if worker.started_at is None else int(now - worker.started_at),
        "gpuTypeId": card.id if card else None,
        "dataCenterId": centers[0],
        "startedAt": account.when(worker.started_at),
    }


def _releases(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    rows = shown_workers(account, found)
    latest = sum(1 for worker, _ in rows if worker.version == found.version)
    rollout: dict[str, JSON] = {
        "inProgress": latest < len(rows),
        "workersOnLatest": latest,
        "workersTotal": len(rows),
        "percentOnLatest": 100 if not rows else int(100 * latest / len(rows)),
    }
    release: dict[str, JSON] = {
        "id": f"{found.id}-{found.version}",
        "version": found.version,
        "source": "MANUAL",
        "buildId": None,
        "createdByUserId": None,
        "workerCount": latest,
        "createdAt": account.when(found.created_at),
        "diff": [],
    }
    page = {"nextCursor": None, "hasNextPage": False}
    body = {"endpointVersion": found.version, "rollout": rollout, "releases": [release], "pagination": page}
    return Reply.json(body)


def _logs(account: Account, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    account.find(ENDPOINT, ids[0], now, "endpoint not found")
    try:
        worker = account.engine.worker(ids[0], ids[1])
    except Refused:
        raise Problem(404, "worker not found") from None
    return log_stream(account, worker, call, now)


def log_stream(account: Account, worker: Worker, call: HttpCall, now: float) -> Answer:
    """Server-sent events. RunPod's stream never ends; ours ends with what there is, and waits where there is nothing
    new: a client that follows comes again with ``Last-Event-ID``, as after any cut.
    """
    source = call.query.get("source")
    if source not in (None, "container", "system"):
        raise Problem(422, "request validation failed", "$.source: value must be container or system")
    tail = int_of(call.query.get("tail", str(_LOG_TAIL)), "tail", 0, 5000)
    since = call.headers.get("last-event-id") or call.query.get("since")
    after = _instant(since) if since else None

    def answer(then: float) -> Reply | None:
        lines = [one for one in worker.log if source in (None, "system" if one.stream == "system" else "container")]
        lines = [one for one in lines if one.time > after] if after is not None else lines[len(lines) - tail :]
        if not lines and after is not None and then < now + _LOG_WAIT and not worker.gone:
            return None
        frames: list[str] = []
        for one in lines:
            stamp = datetime.fromtimestamp(one.time).astimezone().isoformat(timespec="microseconds")
            name = "system" if one.stream == "system" else "container"
            data = json.dumps({"source": name, "line": one.text, "ts": stamp})
            frames.append(f"id: {stamp}\ndata: {data}\n\n")
        headers = (("content-type", "text/event-stream"), ("cache-control", "no-cache"))
        return Reply(headers=headers, body="".join(frames).encode())

    return answer(now) or Hold(until=now + _LOG_WAIT, poll=answer)


def _instant(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise Problem(422, "request validation failed", "$.since: want RFC 3339") from None


# What is told.


def endpoint_json(account: Account, one: Deployment, call: HttpCall) -> dict[str, JSON]:
    body: Mapping[str, Any] = one.terms.data["body"]
    shown = dict(body)
    if "gpu" in body:
        # Known to be left out where there is none, though the file does not say so.
        gpu = dict(body["gpu"])
        if not gpu.get("excludedTypes"):
            gpu.pop("excludedTypes", None)
        shown["gpu"] = gpu
    if "cpu" in body:
        shown["cpu"] = [{**cpu, "memory": int(CPU_MEMORY[cpu["id"]] * cpu["vcpuCount"])} for cpu in body["cpu"]]
    return {
        "id": one.id,
        **shown,
        "requestUrls": _urls(account, one, call),
        "createdAt": account.when(one.created_at),
    }


def _urls(account: Account, one: Deployment, call: HttpCall) -> dict[str, str]:
    base = account.base(call)
    body = one.terms.data["body"]
    if body["type"] == "LOAD_BALANCER":
        address = f"{base}/lb/{one.id}" if base else f"https://{one.id}.api.runpod.ai"
        return {"base": address, "health": address + body["env"].get("HEALTH_CHECK_PATH", "/ping")}
    jobs = f"{base or 'https://api.runpod.ai'}/v2/{one.id}"
    return {
        "run": f"{jobs}/run",
        "runSync": f"{jobs}/runsync",
        "status": f"{jobs}/status/{{job_id}}",
        "stream": f"{jobs}/stream/{{job_id}}",
        "cancel": f"{jobs}/cancel/{{job_id}}",
        "retry": f"{jobs}/retry/{{job_id}}",
        "purgeQueue": f"{jobs}/purge-queue",
        "health": f"{jobs}/health",
    }


ROUTES: Final = (
    Route("POST", "/serverless", "endpoint.create", _create),
    Route("GET", "/serverless", "endpoint.list", _list),
    Route("GET", "/serverless/([^/]+)", "endpoint.get", _get),
    Route("PATCH", "/serverless/([^/]+)", "endpoint.patch", _patch),
    Route("DELETE", "/serverless/([^/]+)", "endpoint.delete", _delete),
    Route("GET", "/serverless/([^/]+)/workers", "worker.list", _workers),
    Route("GET", "/serverless/([^/]+)/releases", "release.list", _releases),
    Route("GET", "/serverless/([^/]+)/workers/([^/]+)/logs", "worker.logs", _logs),
)
