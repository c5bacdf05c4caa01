"""Serverless endpoints: create, read, list, change, delete; and what an account may have of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unigpu.emulator.contract import JSON, HttpCall, Reply
from unigpu.emulator.engine import EngineDeployment

from . import body_check as check
from .catalogue import CPU_MEMORY, pool_members
from .state import ENDPOINT, Route, RunPodAccount, RunPodProblem, object_of
from .translate import eligible, endpoint_terms

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
_CHANGE: Final[Mapping[str, check.Check]] = {**_FIELDS, "gpu": check.shape(check.CHANGED_GPU)}
_THREE_DAYS, _SEVEN_DAYS = 259_200.0, 604_800.0


def _create(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    given = object_of(call)
    return Reply.json(endpoint_json(account, make_endpoint(account, call, given, now), call), status=201)


def make_endpoint(account: RunPodAccount, call: HttpCall, given: Mapping[str, Any], now: float) -> EngineDeployment:
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


def with_template(account: RunPodAccount, given: Mapping[str, Any], now: float, *, serverless: bool) -> dict[str, Any]:
    """The body over its template's fields: body fields win, ``env`` is merged. No link to the template is kept."""
    body = dict(given)
    id = body.pop("templateId", None)
    if id is None:
        if "image" not in body:
            raise RunPodProblem(422, "request validation failed", "$: missing property 'image'")
        return body
    template = account.find(TEMPLATE, id, now, "template not found").terms.data["body"]
    if template["serverless"] is not serverless:
        kind = "serverless" if serverless else "pod"
        raise RunPodProblem(422, "request validation failed", f"$.templateId: it is not a {kind} template")
    names = ("image", "args", "disk", "ports", "registry", *(() if serverless else ("mounts",)))
    if any(name in body for name in ("entrypoint", "cmd")):
        names = tuple(name for name in names if name != "args")
    return {**{name: template[name] for name in names}, **body, "env": {**template["env"], **body.get("env", {})}}


def _whole(account: RunPodAccount, body: dict[str, Any], now: float) -> dict[str, Any]:
    """The body with what it leaves out, and its rules across fields."""
    if ("gpu" in body) == ("cpu" in body):
        raise RunPodProblem(400, "exactly one of gpu or cpu is required")
    workers = {"min": 0, "max": 3, **body.get("workers", {})}
    queue, scaling = body["type"] == "QUEUE", body["scaling"]["type"]
    if not queue and scaling != "REQUEST_COUNT":
        raise RunPodProblem(422, "request validation failed", "$.scaling: LOAD_BALANCER endpoints use REQUEST_COUNT")
    if queue and scaling == "REQUEST_COUNT":
        if "idleTimeout" in workers:
            why = "$.workers.idleTimeout: not supported with REQUEST_COUNT scaling on a QUEUE endpoint"
            raise RunPodProblem(422, "request validation failed", why)
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
        raise RunPodProblem(400, "workers.min must not be greater than workers.max")
    for id in whole["networkVolumes"]:
        account.find(VOLUME, id, now, "network volume not found")
    if whole["registry"]:
        account.find("runpod.registry", whole["registry"], now, "registry not found")
    for cpu in whole.get("cpu") or ():
        if cpu["id"] not in CPU_MEMORY or cpu["vcpuCount"] & (cpu["vcpuCount"] - 1):
            raise RunPodProblem(400, f"cpu flavor {cpu['id']} with {cpu['vcpuCount']} vCPUs is not valid")
    return whole


def _gpu(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """A whole selection of GPUs."""
    if "pools" not in gpu:
        raise RunPodProblem(422, "request validation failed", "$.gpu: missing property 'pools'")
    if gpu.get("allowedCudaVersions") and gpu.get("minCudaVersion"):
        raise RunPodProblem(400, "allowedCudaVersions and minCudaVersion are mutually exclusive")
    whole: dict[str, Any] = {"count": 1, "allowedCudaVersions": [], "minCudaVersion": None, **gpu}
    if unknown := [pool for pool in whole["pools"] if not pool_members(pool)]:
        raise RunPodProblem(400, f"unknown gpu pool {unknown[0]!r}")
    members = {card.id for pool in whole["pools"] for card in pool_members(pool)}
    if foreign := [id for id in whole.get("excludedTypes") or () if id not in members]:
        raise RunPodProblem(400, f"excluded type {foreign[0]!r} is not in any selected pool")
    if not eligible(whole):
        raise RunPodProblem(400, "excludedTypes leaves no gpu type")
    return whole


def _list(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    rows = account.all(ENDPOINT, now)
    for one in rows:
        _lower_max(account, one, now)
    return account.listed(call, "endpoints", rows, lambda one: endpoint_json(account, one, call))


def _get(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    _lower_max(account, found, now)
    return Reply.json(endpoint_json(account, found, call))


def _patch(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(ENDPOINT, ids[0], now, "endpoint not found")
    given = object_of(call)
    check.must_fit(given, _CHANGE)
    body: dict[str, Any] = dict(found.terms.data["body"])
    if "templateId" in given:
        given = with_template(account, given, now, serverless=True)
    if ("cpu" in given and "gpu" in body) or ("gpu" in given and "cpu" in body):
        raise RunPodProblem(400, "an endpoint cannot change between gpu and cpu")
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
        raise RunPodProblem(422, "request validation failed", "$.gpu: excludedTypes requires pools")
    if "pools" in new or wipes:
        old.pop("excludedTypes", None)
    if new.get("minCudaVersion"):
        old["allowedCudaVersions"] = []
    elif new.get("allowedCudaVersions"):
        old["minCudaVersion"] = None
    if new.get("minCudaVersion") == "":
        new["minCudaVersion"] = None
    return {**old, **new}


def _base_of(found: EngineDeployment) -> str | None:
    """Where its workers were told that the emulator is."""
    url = found.terms.launch.per_worker.get("RUNPOD_WEBHOOK_GET_JOB")
    return url.partition("/v2/")[0] if url else None


def _delete(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    account.find(ENDPOINT, ids[0], now, "endpoint not found")
    account.engine.deployments.delete(ids[0], now)
    return Reply(status=204)


def _lower_max(account: RunPodAccount, found: EngineDeployment, now: float) -> None:
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


def account_can_pay(account: RunPodAccount) -> None:
    if account.quirks.billing == "PREPAID" and account.quirks.balance <= 0:
        raise RunPodProblem(402, "insufficient balance")


def must_have_quota(account: RunPodAccount, most: int, now: float, *, besides: str = "") -> None:
    """The quota on the sum of ``workers.max``. The status and text of its refusal are unverified."""
    rows = [one for one in account.all(ENDPOINT, now) if one.id != besides and not one.deleting]
    taken = sum(int(one.terms.data["body"]["workers"]["max"]) for one in rows)
    if taken + most > account.quirks.most_workers:
        raise RunPodProblem(400, f"max workers across all endpoints must not exceed {account.quirks.most_workers}")


# What is told.


def endpoint_json(account: RunPodAccount, one: EngineDeployment, call: HttpCall) -> dict[str, JSON]:
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


def _urls(account: RunPodAccount, one: EngineDeployment, call: HttpCall) -> dict[str, str]:
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
)
