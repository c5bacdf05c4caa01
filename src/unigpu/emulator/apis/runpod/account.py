"""What an account has beside its endpoints and pods: templates, network volumes, registry logins, secrets, limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from unigpu.emulator.contract import JSON, HttpCall, Launch, Reply
from unigpu.emulator.engine import DeploymentTerms, EngineDeployment

from . import body_check as check
from .catalogue import CENTERS
from .endpoints import TEMPLATE, VOLUME
from .state import ENDPOINT, POD, Route, RunPodAccount, RunPodProblem, object_of
from .translate import SECRET, renew_environment

REGISTRY: Final = "runpod.registry"
_SECRET_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.\-/]{0,190}")
_MOST_VALUE: Final = 16 * 1024 * 1024
_MOUNT: Final = check.shape({"size": check.whole(10), "path": check.text}, needs=("size", "path"))
_TEMPLATE_FIELDS: Final[Mapping[str, check.Check]] = {
    **check.CONTAINER,
    "allowedCudaVersions": check.list_of(check.CUDA),
    "category": check.one_of("NVIDIA", "AMD", "CPU"),
    "mounts": check.shape({"persistent": _MOUNT}),
    "name": check.full,
    "public": check.flag,
    "serverless": check.flag,
    "startJupyter": check.flag,
    "startSsh": check.flag,
}
Shown = Callable[[EngineDeployment], JSON]


# Templates.


def _make_template(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    body = object_of(call)
    check.must_fit(body, _TEMPLATE_FIELDS, needs=("name", "image"))
    return Reply.json(template_json(keep_template(account, body, now)), status=201)


def keep_template(account: RunPodAccount, body: Mapping[str, Any], now: float) -> EngineDeployment:
    """A new template.

    Raises:
        Problem: its name is taken.
    """
    if any(one.terms.data["name"] == body["name"] for one in account.all(TEMPLATE, now)):
        raise RunPodProblem(400, "template name must be unique")
    whole: dict[str, Any] = {
        "disk": 20,
        "mounts": {},
        "ports": [],
        "env": {},
        "registry": None,
        "serverless": False,
        "public": False,
        "category": "NVIDIA",
        "startSsh": True,
        "startJupyter": True,
        "allowedCudaVersions": [],
        **body,
    }
    _, whole["args"] = check.command_of(whole)
    return account.keep(TEMPLATE, {"name": body["name"], "body": whole}, now, id=account.new_id(10))


def template_json(one: EngineDeployment) -> dict[str, JSON]:
    return {"id": one.id, **one.terms.data["body"]}


def _patch_template(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(TEMPLATE, ids[0], now, "template not found")
    given = object_of(call)
    check.must_fit(given, _TEMPLATE_FIELDS)
    body = {**found.terms.data["body"], **given}
    if any(name in given for name in ("entrypoint", "cmd")):
        body["args"] = ""
    _, body["args"] = check.command_of(body)
    data = {"name": body["name"], "body": body}
    return Reply.json(template_json(account.engine.deployments.patch(found.id, now, data=data)))


# Network volumes.


def _make_volume(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    body = object_of(call)
    fields: dict[str, check.Check] = {
        "name": check.full,
        "size": check.whole(10, 4096),
        "dataCenter": check.full,
        "type": check.one_of("STANDARD", "HIGH_PERFORMANCE"),
    }
    check.must_fit(body, fields, needs=("name", "size", "dataCenter"))
    if body["dataCenter"] not in CENTERS:
        good = ", ".join(CENTERS)
        raise RunPodProblem(
            400, f"data center {body['dataCenter']} does not support network volumes; supported: {good}"
        )
    data = {"name": body["name"], "body": {"type": "STANDARD", **body}}
    return Reply.json(_plain(account.keep(VOLUME, data, now, id=account.new_id(10))), status=201)


def _patch_volume(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(VOLUME, ids[0], now, "network volume not found")
    given = object_of(call)
    check.must_fit(given, {"name": check.full, "size": check.whole(10, 4096)}, least=1)
    body = {**found.terms.data["body"], **given}
    if body["size"] < found.terms.data["body"]["size"]:
        raise RunPodProblem(400, "a network volume can only grow")
    data = {"name": body["name"], "body": body}
    return Reply.json(_plain(account.engine.deployments.patch(found.id, now, data=data)))


def _drop_volume(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    account.find(VOLUME, ids[0], now, "network volume not found")
    mounted = [
        one
        for one in account.all(POD, now)
        if any(each["volumeId"] == ids[0] for each in one.terms.data["body"]["mounts"].get("network", ()))
    ]
    if mounted:  # the status is not documented for this case
        raise RunPodProblem(400, "the network volume is in use by a pod")
    account.engine.deployments.delete(ids[0], now)
    return Reply(status=204)


# Registry logins.


def _make_registry(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    body = object_of(call)
    fields = {"name": check.full, "username": check.full, "password": check.full}
    check.must_fit(body, fields, needs=tuple(fields))
    data = {"name": body["name"], "body": {"name": body["name"]}}
    hidden = {"username": body["username"], "password": body["password"]}
    terms = DeploymentTerms(launch=Launch(env=hidden), max_workers=0, secret_names=frozenset(hidden), data=data)
    return Reply.json(_plain(account.keep(REGISTRY, data, now, id=account.new_id(25), terms=terms)), status=201)


def _drop_registry(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    account.find(REGISTRY, ids[0], now, "registry not found")
    if any(one.terms.data["body"]["registry"] == ids[0] for one in account.all(POD, now)):
        raise RunPodProblem(400, "the registry is in use by a pod")
    account.engine.deployments.delete(ids[0], now)
    return Reply(status=204)


# Secrets. Newer than the file of August: https://github.com/runpod/docs, api-reference-v2/openapi.json at 953afcc.


def _list_secrets(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    name = call.query.get("name")
    rows = [one for one in account.all(SECRET, now) if name is None or one.terms.data["name"].lower() == name.lower()]
    return Reply.json({"secrets": [_secret_json(account, one) for one in rows]})


def _make_secret(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    body = object_of(call)
    fields = {"name": check.full, "value": _value, "description": check.text}
    check.must_fit(body, fields, needs=("name", "value"))
    name: str = body["name"]
    if not _SECRET_NAME.fullmatch(name) or name.upper().startswith("RUNPOD"):
        raise RunPodProblem(422, "request validation failed", "$.name: it is not a name of a secret")
    # Whether lists lag or not, a name is taken from the moment of its creation.
    if any(one.terms.data["name"].lower() == name.lower() for one in _every(account, SECRET)):
        raise RunPodProblem(409, f"a secret named {name} already exists")
    data = {"name": name, "description": body.get("description"), "changed": None}
    terms = DeploymentTerms(
        launch=Launch(env={"value": body["value"]}), max_workers=0, secret_names=frozenset({"value"}), data=data
    )
    made = account.keep(SECRET, data, now, id=account.new_id(), terms=terms)
    _renew(account)
    return Reply.json(_secret_json(account, made), status=201)


def _patch_secret(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    found = account.find(SECRET, ids[0], now, "secret not found")
    given = object_of(call)
    check.must_fit(given, {"value": _value, "description": check.text}, least=1)
    terms = found.terms
    if "value" in given:
        terms = replace(terms, launch=replace(terms.launch, env={"value": given["value"]}))
        terms = replace(terms, data={**terms.data, "changed": account.when(now)})
    if "description" in given:
        terms = replace(terms, data={**terms.data, "description": given["description"] or None})
    changed = account.engine.deployments.replace(found.id, terms, now)
    _renew(account)
    return Reply.json(_secret_json(account, changed))


def _drop_secret(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    account.find(SECRET, ids[0], now, "secret not found")
    account.engine.deployments.delete(ids[0], now)
    _renew(account)
    return Reply(status=204)


def _renew(account: RunPodAccount) -> None:
    for kind in (ENDPOINT, POD):
        for one in _every(account, kind):
            renew_environment(account, one)


def _every(account: RunPodAccount, kind: str) -> list[EngineDeployment]:
    """What really is there, whatever lists show."""
    engine = account.engine
    rows = [engine.deployments.get(id, float("inf")) for id in engine.deployment_ids()]
    return [one for one in rows if one.platform == kind]


def _value(value: Any) -> str | None:
    good = isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) < _MOST_VALUE
    return None if good else "want a string under 16 MiB"


def _secret_json(account: RunPodAccount, one: EngineDeployment) -> dict[str, JSON]:
    data = one.terms.data
    return {
        "id": one.id,
        "name": data["name"],
        "description": data["description"],
        "createdAt": account.when(one.created_at),
        "valueLastUpdatedAt": data["changed"],
    }


# The account itself. The pages of these two name the calls, not their paths: these follow their neighbours, unverified.
# https://docs.runpod.io/api-reference-v2/account/get-account-limits and .../billing/get-the-account-balance


def _balance(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    return Reply.json({"balanceAmount": account.quirks.balance, "billingMode": account.quirks.billing})


def _limits(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
    """Both objects are documented, what is in them is not: these fields are unverified."""
    rows = [one for kind in (ENDPOINT, POD) for one in _every(account, kind)]
    spent = sum((one.terms.price_per_hour or 0.0) * sum(w.alive for w in one.workers.values()) for one in rows)
    taken = sum(int(one.terms.data["body"]["workers"]["max"]) for one in rows if one.platform == ENDPOINT)
    return Reply.json(
        {
            "spendRate": {"limit": account.quirks.spend_limit, "current": round(spent, 4)},
            "serverlessWorkers": {"limit": account.quirks.most_workers, "current": taken},
        }
    )


# Routes that are alike.


def _plain(one: EngineDeployment) -> dict[str, JSON]:
    return {"id": one.id, **one.terms.data["body"]}


def _lister(kind: str, name: str, shown: Shown, *, paged: bool) -> Callable[..., Reply]:
    def handler(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
        rows = account.all(kind, now)
        return account.listed(call, name, rows, shown) if paged else Reply.json({name: [shown(one) for one in rows]})

    return handler


def _getter(kind: str, word: str, shown: Callable[[RunPodAccount, EngineDeployment], JSON]) -> Callable[..., Reply]:
    def handler(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
        return Reply.json(shown(account, account.find(kind, ids[0], now, f"{word} not found")))

    return handler


def _dropper(kind: str, word: str) -> Callable[..., Reply]:
    def handler(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Reply:
        account.find(kind, ids[0], now, f"{word} not found")
        account.engine.deployments.delete(ids[0], now)
        return Reply(status=204)

    return handler


ROUTES: Final = (
    Route("POST", "/templates", "template.create", _make_template),
    Route("GET", "/templates", "template.list", _lister(TEMPLATE, "templates", template_json, paged=True)),
    Route(
        "GET", "/templates/([^/]+)", "template.get", _getter(TEMPLATE, "template", lambda _, one: template_json(one))
    ),
    Route("PATCH", "/templates/([^/]+)", "template.patch", _patch_template),
    Route("DELETE", "/templates/([^/]+)", "template.delete", _dropper(TEMPLATE, "template")),
    Route("POST", "/network-volumes", "volume.create", _make_volume),
    Route("GET", "/network-volumes", "volume.list", _lister(VOLUME, "networkVolumes", _plain, paged=False)),
    Route(
        "GET", "/network-volumes/([^/]+)", "volume.get", _getter(VOLUME, "network volume", lambda _, one: _plain(one))
    ),
    Route("PATCH", "/network-volumes/([^/]+)", "volume.patch", _patch_volume),
    Route("DELETE", "/network-volumes/([^/]+)", "volume.delete", _drop_volume),
    Route("POST", "/registries", "registry.create", _make_registry),
    Route("GET", "/registries", "registry.list", _lister(REGISTRY, "registries", _plain, paged=False)),
    Route("GET", "/registries/([^/]+)", "registry.get", _getter(REGISTRY, "registry", lambda _, one: _plain(one))),
    Route("DELETE", "/registries/([^/]+)", "registry.delete", _drop_registry),
    Route("POST", "/account/secrets", "secret.create", _make_secret),
    Route("GET", "/account/secrets", "secret.list", _list_secrets),
    Route("GET", "/account/secrets/([^/]+)", "secret.get", _getter(SECRET, "secret", _secret_json)),
    Route("PATCH", "/account/secrets/([^/]+)", "secret.patch", _patch_secret),
    Route("DELETE", "/account/secrets/([^/]+)", "secret.delete", _drop_secret),
    Route("GET", "/billing/balance", "account.balance.get", _balance),
    Route("GET", "/account/limits", "account.limits.get", _limits),
)
