"""The reference platform's protocol over the engine: a small imaginary cloud that only lists, as the real ones do.

====================================  ================================================================================
``POST /v1/templates``                ``name``, ``image``, ``command``, ``env``, ``secret_env``, ``disk_gb``: 201
``GET /v1/templates``                 ``{"items": […], "next": null}``; ``?after=<next>`` is the following page
``GET|DELETE /v1/templates/{id}``     409 ``in_use`` while an endpoint stands on it
``POST /v1/endpoints``                ``name``, ``template_id``, ``gpus``, ``env``, ``workers`` (``min``, ``max``),
                                      ``idle_timeout``, ``job_timeout``, ``concurrency``, ``requests_per_worker``: 201
``GET /v1/endpoints``                 as templates
``GET|PATCH|DELETE /v1/endpoints/{id}``  PATCH: ``workers``, ``idle_timeout``, ``requests_per_worker``; DELETE: 202,
                                      ``DELETING`` until its workers have ended, then 404
``POST …/{id}/wake``                  starts one worker
``POST …/{id}/jobs``                  ``{"input": {…}, "timeout": s}``: 202, with an id of the platform's own
``GET …/jobs/{job}``, ``POST …/jobs/{job}/cancel``
``GET …/{id}/workers``, ``GET …/workers/{worker}/logs?after=N``
====================================  ================================================================================

There is no idempotency key: a create that is sent twice makes two, of one name, with ids that tell nothing of their
order. ``env`` can be read back, ``secret_env`` cannot. Lists learn late of what was created or deleted
(`EngineSettings.list_lag`); reads by id do not, unless `EngineSettings.read_lag` says so. A worker is billed by the
second from its start until it is gone.

Every call needs ``Authorization: Bearer KEY``. Errors are ``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

import hmac
import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import RequestsPerWorker
from unigpu.emulator.contract import JSON, Answer, HttpCall, Launch, Reply
from unigpu.emulator.engine import DeploymentTerms, Engine, EngineDeployment, EngineJob, EngineRefused, EngineWorker

__all__ = ["HOST", "PRICES", "ReferenceEmulator"]

HOST: Final = "api.reference.test"
PRICES: Final[Mapping[str, float]] = {"RTX 4090": 0.72, "L40S": 1.08, "H100 SXM": 3.6}
"""The catalogue: USD of one worker-hour."""
_TEMPLATE: Final = "reference.template"
_ENDPOINT: Final = "reference.endpoint"
_ROUTES: Final[Sequence[tuple[str, re.Pattern[str], str]]] = [
    (method, re.compile(path.replace("ID", "([^/]+)")), operation)
    for method, path, operation in (
        ("POST", "/v1/templates", "template.create"),
        ("GET", "/v1/templates", "template.list"),
        ("GET", "/v1/templates/ID", "template.get"),
        ("DELETE", "/v1/templates/ID", "template.delete"),
        ("POST", "/v1/endpoints", "endpoint.create"),
        ("GET", "/v1/endpoints", "endpoint.list"),
        ("GET", "/v1/endpoints/ID", "endpoint.get"),
        ("PATCH", "/v1/endpoints/ID", "endpoint.patch"),
        ("DELETE", "/v1/endpoints/ID", "endpoint.delete"),
        ("POST", "/v1/endpoints/ID/wake", "endpoint.wake"),
        ("GET", "/v1/endpoints/ID/workers", "worker.list"),
        ("GET", "/v1/endpoints/ID/workers/ID/logs", "worker.logs"),
        ("POST", "/v1/endpoints/ID/jobs", "job.submit"),
        ("GET", "/v1/endpoints/ID/jobs/ID", "job.get"),
        ("POST", "/v1/endpoints/ID/jobs/ID/cancel", "job.cancel"),
    )
]
_STATUS: Final = {"not_found": 404, "gone": 404, "expired": 404, "queue_full": 429}


class _Bad(Exception):
    """The request says something that cannot be."""


class ReferenceEmulator:
    """The protocol over an engine.

    Args:
        key: The account's key, which every call must carry; ``None``: any key will do (under a mock).
        seed: Ids are the same in each run of a seed.
        page: How many rows one page of a list has.
    """

    name = "reference"
    hosts: tuple[str, ...] = (HOST,)
    operations = frozenset(operation for _, _, operation in _ROUTES)

    def __init__(self, engine: Engine, *, key: str | None, seed: int = 0, page: int = 50) -> None:
        self._engine = engine
        self._key = key
        self._page = page
        self._random = random.Random(seed)

    def operation(self, call: HttpCall) -> str | None:
        found = _route(call)
        return None if found is None else f"reference.{found[0]}"

    def handle(self, call: HttpCall, now: float) -> Answer:
        given = call.headers.get("authorization", "").encode()
        known = given if self._key is None and given[7:].strip() else f"Bearer {self._key or ''}".encode()
        if not given.startswith(b"Bearer ") or not hmac.compare_digest(given, known) or not given[7:]:
            return _error(401, "unauthorized", "the key is missing or wrong")
        found = _route(call)
        if found is None:
            return _error(501, "not_implemented", f"there is no route {call.method} {call.path}")
        operation, ids = found
        try:
            return self._answer(operation, ids, call, now)
        except _Bad as exc:
            return _error(422, "invalid", str(exc))
        except EngineRefused as exc:
            what = exc.what or operation.partition(".")[0]
            return _error(_STATUS.get(exc.kind, 409), f"{what}_{exc.kind}", exc.message)

    def _answer(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        engine = self._engine
        match operation:
            case "template.create":
                return Reply.json(_template_json(engine, self._make_template(_body(call), now)), status=201)
            case "template.list":
                rows = engine.deployments.list(now, platform=_TEMPLATE)
                return self._list([_template_json(engine, one) for one in rows], call)
            case "template.get":
                return Reply.json(_template_json(engine, self._get(ids[0], _TEMPLATE, now)))
            case "template.delete":
                return self._delete_template(ids[0], now)
            case "endpoint.create":
                return Reply.json(_endpoint_json(engine, self._make_endpoint(_body(call), now), now), status=201)
            case "endpoint.list":
                rows = engine.deployments.list(now, platform=_ENDPOINT)
                return self._list([_endpoint_json(engine, one, now) for one in rows], call)
            case _:
                return self._about(operation, self._get(ids[0], _ENDPOINT, now), ids[1:], call, now)

    def _about(self, operation: str, one: EngineDeployment, rest: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        """The routes of one endpoint."""
        engine = self._engine
        match operation:
            case "endpoint.get":
                return Reply.json(_endpoint_json(engine, one, now))
            case "endpoint.patch":
                return Reply.json(_endpoint_json(engine, self._patch(one, _body(call), now), now))
            case "endpoint.delete":
                engine.deployments.delete(one.id, now)
                return Reply.json(_endpoint_json(engine, one, now), status=202)
            case "endpoint.wake":
                return Reply.json(_endpoint_json(engine, engine.deployments.wake(one.id, now), now), status=202)
            case "worker.list":
                return Reply.json({"items": [_worker_json(engine, worker, now) for worker in engine.workers(one.id)]})
            case "worker.logs":
                after = int(_number(call.query.get("after", "0"), "after"))
                lines = engine.logs(one.id, rest[0], after=after)
                return Reply.json({"items": [{"n": line.n, "time": line.time, "text": line.text} for line in lines]})
            case "job.submit":
                return Reply.json(_job_json(engine, one, self._submit(one, _body(call), now)), status=202)
            case "job.cancel":
                return Reply.json(_job_json(engine, one, engine.jobs.cancel(one, rest[0], now)))
            case _:
                return Reply.json(_job_json(engine, one, engine.jobs.get(one, rest[0])))

    # -- templates: kept by the engine as deployments that may never have a worker

    def _make_template(self, body: Mapping[str, Any], now: float) -> EngineDeployment:
        name, image = _text(body, "name"), _text(body, "image")
        secrets = _texts(body, "secret_env")
        env = _texts(body, "env")
        command: object = body.get("command") or []
        if not isinstance(command, list):
            raise _Bad("command: a list of texts is needed")
        launch = Launch(argv=tuple(map(str, cast("list[object]", command))), env={**env, **secrets})
        data = {"name": name, "image": image, "env": env, "disk_gb": body.get("disk_gb")}
        terms = DeploymentTerms(launch=launch, max_workers=0, secret_names=frozenset(secrets), data=data)
        return self._engine.deployments.create(self._new_id("tpl"), _TEMPLATE, terms, now)

    def _delete_template(self, id: str, now: float) -> Reply:
        one = self._get(id, _TEMPLATE, now)
        deployments = self._engine.deployments
        living = [self._engine.deployments.get(each, now) for each in self._engine.deployment_ids() if each != id]
        if any(each.terms.data.get("template_id") == id for each in living):
            return _error(409, "template_in_use", f"an endpoint stands on {id}")
        deployments.delete(id, now)
        return Reply.json(_template_json(self._engine, one))

    # -- endpoints

    def _make_endpoint(self, body: Mapping[str, Any], now: float) -> EngineDeployment:
        name, template_id = _text(body, "name"), _text(body, "template_id")
        try:
            template = self._get(template_id, _TEMPLATE, now)
        except EngineRefused:
            raise _Bad(f"template_id: there is no template {template_id}") from None
        gpus = body.get("gpus")
        if not isinstance(gpus, list) or not gpus or gpus[0] not in PRICES:
            raise _Bad(f"gpus: one or more of {', '.join(PRICES)} is needed")
        least, most = _limits(body)
        terms = DeploymentTerms(
            launch=template.terms.launch,
            min_workers=least,
            max_workers=most,
            idle_timeout=_number(body.get("idle_timeout", 60), "idle_timeout"),
            execution_timeout=_number(body.get("job_timeout", 600), "job_timeout"),
            concurrency=int(_number(body.get("concurrency", 1), "concurrency")),
            rule=_rule(body),
            price_per_hour=PRICES[str(gpus[0])],  # pyright: ignore[reportUnknownArgumentType] - any JSON, checked above
            secret_names=template.terms.secret_names,
            data={"name": name, "template_id": template_id, "gpu": gpus[0], "env": _texts(body, "env")},
        )
        return self._engine.deployments.create(self._new_id("ep"), _ENDPOINT, terms, now)

    def _patch(self, one: EngineDeployment, body: Mapping[str, Any], now: float) -> EngineDeployment:
        idle = body.get("idle_timeout")
        return self._engine.deployments.patch(
            one.id,
            now,
            workers=_limits(body) if "workers" in body else None,
            idle_timeout=None if idle is None else _number(idle, "idle_timeout"),
            rule=_rule(body) if "requests_per_worker" in body else None,
        )

    def _submit(self, one: EngineDeployment, body: Mapping[str, Any], now: float) -> EngineJob:
        if not isinstance(body.get("input"), dict):
            raise _Bad("input: an object is needed")
        timeout = _number(body.get("timeout", one.terms.execution_timeout), "timeout")
        return self._engine.submit(one.id, body["input"], now, execution_timeout=timeout)

    # -- what they share

    def _get(self, id: str, platform: str, now: float) -> EngineDeployment:
        found = self._engine.deployments.get(id, now)
        if found.platform != platform:
            raise EngineRefused("not_found", f"there is no {id}")
        return found

    def _list(self, rows: Sequence[Mapping[str, JSON]], call: HttpCall) -> Reply:
        ordered = sorted(rows, key=lambda row: str(row["id"]))
        rest = [row for row in ordered if str(row["id"]) > call.query.get("after", "")]
        page = rest[: self._page]
        return Reply.json({"items": page, "next": page[-1]["id"] if len(rest) > len(page) else None})

    def _new_id(self, prefix: str) -> str:
        return f"{prefix}-{self._random.getrandbits(40):010x}"


# What is told.


def _template_json(engine: Engine, one: EngineDeployment) -> dict[str, JSON]:
    data = one.terms.data
    return {
        "id": one.id,
        "name": data["name"],
        "image": data["image"],
        "command": list(one.terms.launch.argv),
        "env": data["env"],
        "secret_env": sorted(one.terms.secret_names),
        "created_at": int(engine.wall(one.created_at)),
    }


def _endpoint_json(engine: Engine, one: EngineDeployment, now: float) -> dict[str, JSON]:
    terms = one.terms
    return {
        "id": one.id,
        "name": terms.data["name"],
        "template_id": terms.data["template_id"],
        "gpu": terms.data["gpu"],
        "env": terms.data["env"],
        "workers": {"min": terms.min_workers, "max": terms.max_workers, "ready": len(one.ready())},
        "idle_timeout": terms.idle_timeout,
        "job_timeout": terms.execution_timeout,
        "concurrency": terms.concurrency,
        "price_per_hour": terms.price_per_hour,
        "status": engine.state(one, now).value,
        "reason": engine.deployments.reason(one, now),
        "created_at": int(engine.wall(one.created_at)),
    }


def _worker_json(engine: Engine, worker: EngineWorker, now: float) -> dict[str, JSON]:
    return {
        "id": worker.id,
        "status": worker.state.value,
        "reason": worker.reason,
        "started_at": None if worker.started_at is None else engine.wall(worker.started_at),
        "jobs": worker.running,
        "billed_seconds": engine.billed_seconds(worker, now),
    }


def _job_json(engine: Engine, deployment: EngineDeployment, job: EngineJob) -> dict[str, JSON]:
    return {
        "id": job.id,
        "status": job.status.value,
        "output": job.output,
        "error": None if job.error is None else dict(job.error),
        "worker_lost": job.lost,
        "worker_id": job.worker_id,
        "submitted_at": engine.wall(job.submitted_at),
        "execution_s": job.execution_s,
        "ready_workers": len(deployment.ready()),
    }


def _error(status: int, code: str, message: str) -> Reply:
    return Reply.json({"error": {"code": code, "message": message}}, status=status)


# What is asked.


def _route(call: HttpCall) -> tuple[str, tuple[str, ...]] | None:
    for method, path, operation in _ROUTES:
        found = path.fullmatch(call.path) if method == call.method else None
        if found is not None:
            return operation, found.groups()
    return None


def _body(call: HttpCall) -> Mapping[str, Any]:
    try:
        found: object = json.loads(call.body)
    except (ValueError, RecursionError):
        raise _Bad("the body is not JSON") from None
    if not isinstance(found, dict):
        raise _Bad("the body: an object is needed")
    return cast("Mapping[str, Any]", found)


def _text(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise _Bad(f"{field}: a text is needed")
    return value


def _texts(body: Mapping[str, Any], field: str) -> dict[str, str]:
    value: object = body.get(field) or {}
    if not isinstance(value, dict):
        raise _Bad(f"{field}: an object of texts is needed")
    return {str(name): str(text) for name, text in cast("dict[object, object]", value).items()}


def _number(value: object, field: str) -> float:
    try:
        found = float(cast("str", value))
    except (TypeError, ValueError):
        raise _Bad(f"{field}: a number is needed") from None
    if not 0 <= found <= 1e9:
        raise _Bad(f"{field}: a number from 0 to 10^9 is needed")
    return found


def _limits(body: Mapping[str, Any]) -> tuple[int, int]:
    workers: object = body.get("workers")
    if not isinstance(workers, dict):
        raise _Bad("workers: an object with min and max is needed")
    limits = cast("Mapping[str, Any]", workers)
    least, most = int(_number(limits.get("min"), "workers.min")), int(_number(limits.get("max"), "workers.max"))
    if least > most:
        raise _Bad("workers: min is above max")
    return least, most


def _rule(body: Mapping[str, Any]) -> RequestsPerWorker:
    target = body.get("requests_per_worker")
    return RequestsPerWorker() if target is None else RequestsPerWorker(target=_number(target, "requests_per_worker"))
