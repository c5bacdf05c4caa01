"""The local provider's own protocol, ``/v1``: JSON, a bearer token, a loopback ``Host``.

``{pname}`` is the deployment's provider name (`unigpu.models.identity.provider_name`), also its id.

==================================================  ================================================================
``PUT /v1/deployments/{pname}``                     create (``If-None-Match: *``, 201) or replace in place
                                                    (``If-Match: <attempt>``, 200); neither header: 428; else 412
                                                    ``exists``, ``changed`` or ``absent`` with ``deployment``
``GET /v1/deployments[/{pname}]``                   one, or ``{"deployments": […]}``
``PATCH /v1/deployments/{pname}``                   ``workers`` (``min``, ``max``), ``idle_timeout``, ``scaling``
``DELETE /v1/deployments/{pname}``                  ``{"deleted": bool, "last": bool}``; it is DELETING until its
                                                    workers have ended, then 404
``POST …/{pname}/wake|stop|start``                  the deployment; ``wake`` also starts a stopped one
``POST …/{pname}/jobs``                             ``id``, ``input``, and ``execution_timeout``, ``stream``,
                                                    ``idempotent``, ``wake``: 202; 409 ``conflict`` (the id is another
                                                    job's) or ``stopped``; 429 ``queue_full``
``GET …/jobs/{id}?wait=s``                          as soon as it ended, or after *s* seconds
``POST …/jobs/{id}/cancel``                         the job
``GET …/jobs/{id}/stream?after=N&wait=s``           chunks after the cursor, kept as long as the job
``ANY …/{pname}/http/{path}``                       forwarded to a worker that is free
``GET …/{pname}/workers[/{id}/logs?after=N&wait=s]``  workers, and their lines
``GET /v1/health``, ``GET /v1/meter``               protocol and process; seconds billed
==================================================  ================================================================

Errors are ``{"error": {"type", "message", …}}``. An unknown deployment is 404 ``not_found`` (``gone`` on its jobs, http
and workers), an unknown job or worker 404 ``not_found``, a forgotten job 404 ``expired``.

No worker comes: a job ends at once as FAILED with ``error.type == "WorkerFailed"`` and ``reason``, ``message``,
``logs``, ``retry_after``. On the http route our own errors carry the header ``x-unigpu-error: <type>`` (``no_worker``,
``WorkerFailed``, ``stopped``, ``gone``, ``unauthorized``), so that they are told from the server's own answers; the
header ``x-unigpu-wait: <seconds>`` says how long to hold the request, ``x-unigpu-wake: 1`` starts a stopped deployment,
and ``x-unigpu-authorization`` reaches the server as ``authorization``. Our own token never reaches it.

Job errors of ours: ``ExecutionTimeout``, ``WorkerLost`` (with ``lost: true``), ``WorkerFailed``, ``Cancelled``.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from unigpu.emulator.contract import JSON, Answer, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineDeployment, EngineRefused

from .jobs import JobRoutes
from .wire import BadRequest, deployment_json, parse_object, parse_patch, parse_put

PROTOCOL: Final = 1
LOOPBACK: Final[tuple[str, ...]] = ("127.0.0.1", "localhost", "::1", "[::1]")
_PREFIX: Final = "/v1/deployments"
_REFUSED: Final[Mapping[str, int]] = {
    "not_found": 404,
    "gone": 404,
    "expired": 404,
    "exists": 412,
    "changed": 412,
    "absent": 412,
    "stopped": 409,
    "conflict": 409,
    "queue_full": 429,
    "invalid": 400,
}


class LocalEmulator:
    """The local provider's protocol over an engine.

    Args:
        token: What callers must send as a bearer token; ``None``: nothing (in memory).
        info: What ``/v1/health`` tells beside the protocol, as in ``{"pid": 123}``.
    """

    name = "local"
    hosts: tuple[str, ...] = LOOPBACK
    operations: frozenset[str] = frozenset()  # every route's name; set below, where the routes are

    def __init__(self, engine: Engine, *, token: str | None = None, info: Mapping[str, JSON] | None = None) -> None:
        self._engine = engine
        self._token = token
        self._info = dict(info or {})
        self._jobs = JobRoutes(engine)

    def operation(self, call: HttpCall) -> str | None:
        route = _route(call)
        return None if route is None else f"local.{route[0]}"

    def handle(self, call: HttpCall, now: float) -> Answer:
        if call.host not in LOOPBACK:
            return error(403, "forbidden", "this address answers to loopback host names only")
        route = _route(call)
        if self._token is not None and not _authorized(call, self._token):
            return error(401, "unauthorized", "the bearer token is missing or wrong", http=_is_http(route))
        if route is None:
            return error(501, "not_implemented", f"local has no route {call.method} {call.path}")
        operation, pname, rest = route
        try:
            return self._answer(operation, pname, rest, call, now)
        except BadRequest as exc:
            return error(400, "invalid", str(exc), http=_is_http(route))
        except EngineRefused as exc:
            kind = exc.kind
            if exc.what == "deployment" and not operation.startswith("deployment."):
                kind = "gone"
            return error(_REFUSED[kind], kind, exc.message, http=_is_http(route))

    def _answer(self, operation: str, pname: str, rest: str, call: HttpCall, now: float) -> Answer:
        engine, deployments = self._engine, self._engine.deployments
        match operation:
            case "health":
                return Reply.json({"protocol": PROTOCOL, **self._info})
            case "meter":
                return Reply.json(engine.meter.report(now))
            case "deployment.list":
                shown = deployments.list(now, platform=self.name)
                return Reply.json({"deployments": [deployment_json(engine, one, now) for one in shown]})
            case "deployment.get":
                return Reply.json(deployment_json(engine, deployments.get(pname, now), now))
            case "deployment.put":
                return self._put(pname, call, now)
            case "deployment.patch":
                workers, idle_timeout, rule, data = parse_patch(deployments.get(pname, now), parse_object(call.body))
                changed = deployments.patch(
                    pname, now, workers=workers, idle_timeout=idle_timeout, rule=rule, data=data
                )
                return Reply.json(deployment_json(engine, changed, now))
            case "deployment.delete":
                deleted = deployments.delete(pname, now)
                return Reply.json({"deleted": deleted, "last": not engine.deployment_ids()})
            case "deployment.wake":
                return Reply.json(deployment_json(engine, deployments.wake(pname, now), now))
            case "deployment.stop":
                return Reply.json(deployment_json(engine, deployments.stop(pname, now), now))
            case "deployment.start":
                return Reply.json(deployment_json(engine, deployments.start(pname, now), now))
            case _:
                return self._jobs.answer(operation, pname, rest, call, now)

    def _put(self, pname: str, call: HttpCall, now: float) -> Reply:
        engine, deployments = self._engine, self._engine.deployments
        terms = parse_put(pname, parse_object(call.body))
        try:
            current = deployments.get(pname, now)
        except EngineRefused:
            current = None
        create, match = call.headers.get("if-none-match"), call.headers.get("if-match")
        if create is None and match is None:
            return error(428, "precondition_required", "say If-None-Match: * to create, If-Match: <attempt> to replace")
        if create is not None:
            if current is not None:
                return self._failed(current, "exists", "there is a deployment of this name", now)
            made = deployments.create(pname, self.name, terms, now)
            return Reply.json(deployment_json(engine, made, now), status=201)
        if current is None or current.deleting:
            return self._failed(current, "absent", "there is no deployment of this name", now)
        attempt = current.terms.data.get("attempt")
        if match is None or match.strip().strip('"') != attempt:
            return self._failed(current, "changed", "the deployment is another one than you know", now)
        data = {**terms.data, "attempt": attempt}
        return Reply.json(deployment_json(engine, deployments.replace(pname, replace(terms, data=data), now), now))

    def _failed(self, current: EngineDeployment | None, type: str, message: str, now: float) -> Reply:
        shown = None if current is None else deployment_json(self._engine, current, now)
        return Reply.json({"error": {"type": type, "message": message}, "deployment": shown}, status=412)


def error(status: int, type: str, message: str, *, http: bool = False, **more: JSON) -> Reply:
    """An error of ours; on the http route it says so in a header."""
    headers = (("x-unigpu-error", type),) if http else ()
    return Reply.json({"error": {"type": type, "message": message, **more}}, status=status, headers=headers)


def _authorized(call: HttpCall, token: str) -> bool:
    scheme, _, given = call.headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def _is_http(route: tuple[str, str, str] | None) -> bool:
    return route is not None and route[0] == "http"


def _route(call: HttpCall) -> tuple[str, str, str] | None:
    """(operation, deployment, what follows), or ``None`` where there is no such route."""
    method, path = call.method.upper(), call.path
    if method == "GET" and path in ("/v1/health", "/v1/meter"):
        return path[4:], "", ""
    if path.rstrip("/") == _PREFIX:
        return ("deployment.list", "", "") if method == "GET" else None
    if not path.startswith(_PREFIX + "/"):
        return None
    pname, _, rest = path[len(_PREFIX) + 1 :].partition("/")
    if not pname:
        return None
    if not rest:
        verb = {"GET": "get", "PUT": "put", "PATCH": "patch", "DELETE": "delete"}.get(method)
        return None if verb is None else (f"deployment.{verb}", pname, "")
    if rest == "http" or rest.startswith("http/"):
        return "http", pname, rest[4:] or "/"
    for operation, fits in _ROUTES.get(method, ()):
        found = fits(rest.split("/"))
        if found is not None:
            return operation, pname, found
    return None


def _exact(*parts: str) -> Callable[[list[str]], str | None]:
    """Fits a path of these parts; ``*`` is an id, which is the result."""

    def fits(given: list[str]) -> str | None:
        if len(given) != len(parts) or any(p not in ("*", g) for p, g in zip(parts, given, strict=True)):
            return None
        return next((g for p, g in zip(parts, given, strict=True) if p == "*"), "")

    return fits


_ROUTES: Final[Mapping[str, tuple[tuple[str, Callable[[list[str]], str | None]], ...]]] = {
    "POST": (
        ("deployment.wake", _exact("wake")),
        ("deployment.stop", _exact("stop")),
        ("deployment.start", _exact("start")),
        ("job.submit", _exact("jobs")),
        ("job.cancel", _exact("jobs", "*", "cancel")),
    ),
    "GET": (
        ("job.get", _exact("jobs", "*")),
        ("job.stream", _exact("jobs", "*", "stream")),
        ("worker.list", _exact("workers")),
        ("worker.logs", _exact("workers", "*", "logs")),
    ),
}
_ONE: Final = ("get", "put", "patch", "delete", "list")
LocalEmulator.operations = frozenset(
    {
        "health",
        "meter",
        "http",
        *(f"deployment.{verb}" for verb in _ONE),
        *(operation for routes in _ROUTES.values() for operation, _ in routes),
    }
)
