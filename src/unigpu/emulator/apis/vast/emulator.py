"""Vast.ai's protocol over the engine: the console, the serverless engine, and in memory also the workers' own ports.

Console (``console.vast.ai``, account key; every path with or without its last ``/``):

* ``POST|GET /api/v0/endptjobs/``, ``GET|PUT|DELETE …/{id}/``; ``POST|GET /api/v0/workergroups/``,
  ``PUT|DELETE …/{id}/``, and the same under ``/api/v0/autojobs/``
* ``POST|GET|DELETE /api/v0/template/``, ``PUT /api/v0|v1/template/``; ``POST /api/v0/bundles/``,
  ``PUT /api/v0/search/asks/``
* ``PUT /api/v0/asks/{offer}/``; ``GET /api/v0|v1/instances/``, ``GET|PUT|DELETE /api/v0/instances/{id}/``,
  ``PUT …/instances/reboot/{id}/``, ``PUT …/instances/request_logs/{id}/``
* ``GET /api/v0/users/current/``, ``/gpu_names/unique/``, ``/static/jvastai_root.cer``, ``/api/v0/volumes`` (always
  none); ``POST /api/v0/sign_cert/``

Serverless engine (``run.vast.ai``): ``POST /route/`` (endpoint or account key), ``/get_endpoint_workers/``,
``/get_workergroup_workers/``, their logs, ``/update_workers/``; of workers: ``POST /worker_status/``,
``/delete_requests/``, ``GET /pubkey/``.

What is not here: the beta deployments, sessions, volumes, bids, secrets, bulk calls. They answer 501 with their name.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from typing import Final

from unigpu.emulator.contract import Answer, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineRefused

from .console import Console
from .instances import Instances
from .pyworker import Hop
from .rate_limits import RateLimits
from .serverless import Serverless, text
from .signing import root_certificate, sign_certificate
from .state import ADDRESSES, INSTANCE, LOOPBACK, Quirks, VastAccount, Wrong, body_of

__all__ = ["Quirks", "VastEmulator"]

_CONSOLE: Final = "console.vast.ai"
_GROUPS: Final = "/api/v0/(?:workergroups|autojobs)"
_ROUTES: Final[Sequence[tuple[str, re.Pattern[str], str]]] = [
    (method, re.compile(path.replace("ID", "([^/]+)")), operation)
    for method, path, operation in (
        ("POST", "/api/v0/template", "template.create"),
        ("GET", "/api/v0/template", "template.list"),
        ("PUT", "/api/v[01]/template", "template.edit"),
        ("DELETE", "/api/v0/template", "template.delete"),
        ("POST", "/api/v0/endptjobs", "endpoint.create"),
        ("GET", "/api/v0/endptjobs", "endpoint.list"),
        ("GET", "/api/v0/endptjobs/ID", "endpoint.get"),
        ("PUT", "/api/v0/endptjobs/ID", "endpoint.put"),
        ("DELETE", "/api/v0/endptjobs/ID", "endpoint.delete"),
        ("POST", _GROUPS, "workergroup.create"),
        ("GET", _GROUPS, "workergroup.list"),
        ("PUT", f"{_GROUPS}/ID", "workergroup.put"),
        ("DELETE", f"{_GROUPS}/ID", "workergroup.delete"),
        ("POST", "/api/v0/bundles", "offer.search"),
        ("PUT", "/api/v0/search/asks", "offer.query"),
        ("PUT", "/api/v0/asks/ID", "instance.create"),
        ("GET", "/api/v[01]/instances", "instance.list"),
        ("GET", "/api/v0/instances/ID", "instance.get"),
        ("PUT", "/api/v0/instances/ID", "instance.put"),
        ("DELETE", "/api/v0/instances/ID", "instance.delete"),
        ("PUT", "/api/v0/instances/reboot/ID", "instance.reboot"),
        ("PUT", "/api/v0/instances/request_logs/ID", "instance.logs"),
        ("GET", "/instance-logs/([^/]+)\\.log", "instance.log_file"),
        ("GET", "/api/v0/volumes", "volume.list"),
        ("GET", "/api/v0/users/current", "user.get"),
        ("GET", "/api/v0/gpu_names/unique", "gpu.names"),
        ("GET", "/static/jvastai_root\\.cer", "root"),
        ("POST", "/api/v0/sign_cert", "worker.certificate"),
        ("POST", "/route", "route"),
        ("POST", "/get_endpoint_workers", "worker.list"),
        ("POST", "/get_workergroup_workers", "workergroup.workers"),
        ("POST", "/get_autogroup_workers", "workergroup.workers"),
        ("POST", "/get_endpoint_logs", "logs"),
        ("POST", "/get_(?:autogroup|workergroup)_logs", "workergroup.logs"),
        ("POST", "/update_workers", "workers.update"),
        ("GET", "/pubkey", "pubkey"),
        ("POST", "/worker_status", "worker.status"),
        ("POST", "/delete_requests", "requests.delete"),
    )
]
_WITHOUT_KEY: Final = frozenset(
    {"root", "pubkey", "worker.status", "requests.delete", "worker.certificate", "instance.log_file"}
)
_ENDPOINT_KEY_TOO: Final = frozenset({"route", "worker.list", "logs"})


class VastEmulator:
    """The protocol over an engine.

    Args:
        token: The account's key; ``None``: any key that is not empty (under a mock).
        seed: Ids and keys are the same in each run of a seed.
    """

    name = "vast"
    operations = frozenset({"worker.call", *(operation for _, _, operation in _ROUTES)})
    hosts: tuple[str, ...] = (_CONSOLE, "run.vast.ai", "cloud.vast.ai", *ADDRESSES)

    def __init__(
        self, engine: Engine, *, token: str | None = None, quirks: Quirks | None = None, seed: int = 0
    ) -> None:
        self.quirks: Final = quirks or Quirks()
        self._token = token
        account = VastAccount(engine, self.quirks, seed)
        self._account = account
        self._console = Console(account)
        self._serverless = Serverless(account)
        self._instances = Instances(account)
        self._hop = Hop(account, self._serverless)
        self._limits = RateLimits(self.quirks)

    def operation(self, call: HttpCall) -> str | None:
        if call.host in ADDRESSES:
            return "vast.worker.call"
        found = _route(call)
        return None if found is None else f"vast.{found[0]}"

    def handle(self, call: HttpCall, now: float) -> Answer:
        if call.host in ADDRESSES:
            return self._machine(call, now)
        found = _route(call)
        if found is None:
            return Reply.json({"success": False, "error": "not_implemented", "msg": call.path}, status=501)
        operation, ids = found
        try:
            refused = self._refused(operation, call, now) or self._limits.refused(operation, call, now)
            return refused or self._answer(operation, ids, call, now)
        except Wrong as exc:
            return exc.reply
        except EngineRefused as exc:
            return Wrong(404, "not_found", exc.message).reply

    def _answer(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        base = _base(call)
        if operation == "root":
            return text(root_certificate(), "application/x-x509-ca-cert")
        if operation == "volume.list":  # an account has none here, and can be told so
            return Reply.json({"success": True, "volumes": []})
        if operation == "worker.certificate":
            try:
                return text(sign_certificate(call.body, LOOPBACK), "application/x-pem-file")
            except ValueError as exc:
                raise Wrong(400, "invalid_args", str(exc)) from None
        answer = (
            self._console.answer(operation, ids, call, now, base)
            or self._serverless.answer(operation, call, now)
            or self._instances.answer(operation, ids, call, now, base)
        )
        if answer is None:
            raise Wrong(501, "not_implemented", operation)
        return answer

    def _refused(self, operation: str, call: HttpCall, now: float) -> Reply | None:
        """The answer to a missing or wrong key."""
        if operation in _WITHOUT_KEY:
            return None
        key = _key(call)
        whole = operation not in _ENDPOINT_KEY_TOO or self.quirks.account_key_routes
        if key and whole and (self._token is None or hmac.compare_digest(key.encode(), self._token.encode())):
            return None
        if key and operation in _ENDPOINT_KEY_TOO and self._serverless.endpoint_key_owner(key, now) is not None:
            return None
        if operation == "route":
            return Reply.json({"error": "Authentication failed"}, status=401)
        if (
            operation in ("worker.list", "logs", "workergroup.workers", "workergroup.logs")
            and self.quirks.errors_as_200
        ):
            return Reply.json(
                f"authenticate_endpoint_apikey: invalid api_key or endpoint {body_of(call).get('id')} not found"
            )
        return Reply.json({"success": False, "error": "auth_error", "msg": "Invalid user key"}, status=401)

    def _machine(self, call: HttpCall, now: float) -> Answer:
        key = self._account.at_address(call.host) or ""
        if key.startswith(INSTANCE):
            return self._instances.call(key, call, now)
        return self._hop.answer(key, call, now)


def _route(call: HttpCall) -> tuple[str, tuple[str, ...]] | None:
    path = call.path.rstrip("/")
    for method, pattern, operation in _ROUTES:
        found = pattern.fullmatch(path) if method == call.method else None
        if found is not None:
            return operation, found.groups()
    return None


def _key(call: HttpCall) -> str:
    """The key, wherever it is sent: the header, the query (old clients), or the body (the serverless client)."""
    header = call.headers.get("authorization", "")
    if header.startswith("Bearer ") and header[7:].strip():
        return header[7:].strip()
    if call.query.get("api_key"):
        return call.query["api_key"]
    try:
        found: Mapping[str, object] = body_of(call)
    except Wrong:
        return ""
    key = found.get("api_key")
    return key if isinstance(key, str) else ""


def _base(call: HttpCall) -> str:
    """Where this emulator is served, for workers and for links; empty in memory."""
    host = call.headers.get("host", "")
    return f"{call.scheme}://{host}/vast" if host and host.partition(":")[0] != _CONSOLE else ""
