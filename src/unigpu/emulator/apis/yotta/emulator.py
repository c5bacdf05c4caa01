"""Yotta Labs' protocol over the engine: the v2 API, the gateway of ALB endpoints, and of v1 what tasks need.

=============================================================  ==================================================
``POST|GET /v2/serverless``, ``GET|PATCH|DELETE …/{id}``       endpoints: `Endpoints`
``POST …/{id}/stop``, ``POST …/{id}/start``
``PUT …/{id}/workers?count=N``                                 scale; also ``PUT …/workers/N`` (the client's OpenAPI
                                                               file) and ``POST …/workers`` with a body (a tutorial)
``GET …/{id}/workers``, ``GET …/workers/{worker}/logs``        `Workers`
``POST|GET …/{id}/tasks``, ``GET …/tasks/count|{task}``        `Tasks`
``/v2/pods``, ``…/{id}``, ``…/{id}/pause|resume``              `Pods`
``/v2/container-registry-auths``, ``/v2/volumes``, ``/v2/vms``,  `YottaAccount`
``GET /v2/vms/types``
``/openapi/v1/skywalker/tasks``                                `tasks_v1`
``<name>.yottadeos.com``, on this machine ``/gateway/<name>``  `Gateway`
=============================================================  ==================================================

Every answer is ``{"message", "code", "data"}``: 10000 is success; most errors are codes under HTTP 200. The key comes
in ``X-Api-Key``. What the documents leave open is a switch of `Quirks`. A container is a process of this machine, or a
simulated worker: ``initializationCommand`` is its command, its health is that its port answers.

Not here (501): metrics, reserves, the v1 API beside tasks, and what only Yotta's SkyPilot fork calls.
"""

from __future__ import annotations

import hmac
import random
import re
from collections.abc import Sequence
from typing import Final

from unigpu.emulator.contract import JSON, Answer, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineDeployment, EngineRefused

from . import tasks_v1, wire
from .account import YottaAccount
from .endpoints import PLATFORM as ENDPOINTS
from .endpoints import Endpoints
from .gateway import DOMAIN, Gateway, is_called, nobody
from .pods import PLATFORM as PODS
from .pods import Pods
from .quirks import Quirks
from .tasks import Tasks
from .wire import YottaProblem
from .workers import Workers

__all__ = ["HOST", "Quirks", "YottaEmulator"]

HOST: Final = "api.yottalabs.ai"
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1", "[::1]")
_FIRST_ID: Final = 378_888_638_324_150_969
_ENDPOINT, _POD, _AUTH, _VOLUME, _VM = (
    "/v2/serverless",
    "/v2/pods",
    "/v2/container-registry-auths",
    "/v2/volumes",
    "/v2/vms",
)
_V1: Final = "/openapi/v1/skywalker/tasks"
_ROUTES: Final[Sequence[tuple[str, re.Pattern[str], str]]] = [
    (method, re.compile(path.replace("ID", "([^/]+)") + "/?"), operation)
    for method, path, operation in (
        ("POST", _ENDPOINT, "endpoint.create"),
        ("GET", _ENDPOINT, "endpoint.list"),
        ("GET", f"{_ENDPOINT}/ID", "endpoint.get"),
        ("PATCH", f"{_ENDPOINT}/ID", "endpoint.update"),
        ("DELETE", f"{_ENDPOINT}/ID", "endpoint.delete"),
        ("POST", f"{_ENDPOINT}/ID/stop", "endpoint.stop"),
        ("POST", f"{_ENDPOINT}/ID/start", "endpoint.start"),
        ("PUT", f"{_ENDPOINT}/ID/workers", "endpoint.scale"),
        ("POST", f"{_ENDPOINT}/ID/workers", "endpoint.scale"),
        ("PUT", f"{_ENDPOINT}/ID/workers/ID", "endpoint.scale"),
        ("GET", f"{_ENDPOINT}/ID/workers", "worker.list"),
        ("GET", f"{_ENDPOINT}/ID/workers/ID/logs", "worker.logs"),
        ("POST", f"{_ENDPOINT}/ID/tasks", "job.submit"),
        ("GET", f"{_ENDPOINT}/ID/tasks", "job.list"),
        ("GET", f"{_ENDPOINT}/ID/tasks/count", "job.count"),
        ("GET", f"{_ENDPOINT}/ID/tasks/ID", "job.get"),
        ("POST", _POD, "pod.create"),
        ("GET", _POD, "pod.list"),
        ("GET", f"{_POD}/ID", "pod.get"),
        ("DELETE", f"{_POD}/ID", "pod.delete"),
        ("POST", f"{_POD}/ID/pause", "pod.pause"),
        ("POST", f"{_POD}/ID/resume", "pod.resume"),
        ("POST", _AUTH, "credential.create"),
        ("GET", _AUTH, "credential.list"),
        ("GET", f"{_AUTH}/ID", "credential.get"),
        ("PATCH", f"{_AUTH}/ID", "credential.update"),
        ("DELETE", f"{_AUTH}/ID", "credential.delete"),
        ("POST", _VOLUME, "volume.create"),
        ("GET", _VOLUME, "volume.list"),
        ("GET", f"{_VOLUME}/ID", "volume.get"),
        ("DELETE", f"{_VOLUME}/ID", "volume.delete"),
        ("POST", f"{_VOLUME}/ID/name", "volume.rename"),
        ("POST", f"{_VOLUME}/ID/resize", "volume.resize"),
        ("GET", f"{_VM}/types", "vm.types"),
        ("POST", _VM, "vm.create"),
        ("GET", _VM, "vm.list"),
        ("GET", f"{_VM}/ID", "vm.get"),
        ("PATCH", f"{_VM}/ID", "vm.update"),
        ("DELETE", f"{_VM}/ID", "vm.delete"),
        ("POST", f"{_V1}/create", "v1.job.submit"),
        ("GET", _V1, "v1.job.list"),
        ("GET", f"{_V1}/processing/count", "v1.job.count"),
        ("GET", f"{_V1}/ID", "v1.job.get"),
    )
]


class YottaEmulator:
    """The protocol over an engine.

    Args:
        token: The account's key, which every call must carry; ``None``: any that is not empty (in memory).
        quirks: Where the emulator shall behave otherwise than it does by default.
        seed: Ids are the same in each run of a seed.
    """

    name = "yotta"
    operations = frozenset({"http", *(operation for _, _, operation in _ROUTES)})
    hosts: tuple[str, ...] = (HOST, DOMAIN)

    def __init__(
        self, engine: Engine, *, token: str | None = None, quirks: Quirks | None = None, seed: int = 0
    ) -> None:
        self.quirks: Final = quirks or Quirks()
        self._engine = engine
        self._token = token
        self._random = random.Random(seed)
        self._last_id = _FIRST_ID
        self.endpoints: Final = Endpoints(engine, self.quirks, self._new_id)
        self.tasks: Final = Tasks(engine, self.quirks, self._new_id, self.endpoints.status)
        self.pods: Final = Pods(engine, self.quirks, self._new_id)
        self.workers: Final = Workers(engine, self.quirks)
        self.account: Final = YottaAccount(engine, self.quirks, self._new_id, self._in_use)
        self._gateway = Gateway(engine, (ENDPOINTS, PODS))

    def operation(self, call: HttpCall) -> str | None:
        if is_called(call):
            return "yotta.http"
        route = _route(call)
        return None if route is None else f"yotta.{route[0]}"

    def handle(self, call: HttpCall, now: float) -> Answer:
        if is_called(call):
            return self._to_container(call, now)
        if not self._is_known(call.headers.get("x-api-key", "")):
            data = {"message": "authentication context not found", "code": wire.UNAUTHENTICATED, "data": None}
            return Reply.json(data, status=401)
        route = _route(call)
        if route is None:
            return Reply.json({"message": f"no route {call.method} {call.path}", "code": 501, "data": None}, status=501)
        operation, ids = route
        http = self.quirks.error_status == "http"
        try:
            return self._answer(operation, ids, call, now)
        except YottaProblem as exc:
            return wire.problem(exc, http=http)
        except EngineRefused as exc:
            code = self.quirks.endpoint_missing if exc.kind == "not_found" else wire.WRONG_STATE
            return wire.problem(YottaProblem(code, exc.message), http=http)

    def _answer(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        kind = operation.partition(".")[0]
        if kind in ("endpoint", "worker", "job"):
            return self._about_endpoints(operation, ids, call, now)
        if kind == "pod":
            return self._about_pods(operation, ids, call, now)
        if kind == "v1":
            return self._v1_tasks(operation, ids, call, now)
        return self._about_account(operation, ids, call, now)

    def _about_endpoints(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        endpoints, where = self.endpoints, _authority(call)
        if operation == "endpoint.create":
            return wire.ok(endpoints.shown(endpoints.create(wire.body_of(call), now), now, authority=where))
        if operation == "endpoint.list":
            return wire.ok([endpoints.shown(one, now, authority=where) for one in endpoints.all(call, now)])
        one = endpoints.find(ids[0], now)
        match operation:
            case "endpoint.get":
                return wire.ok(endpoints.shown(one, now, authority=where))
            case "endpoint.update":
                changed = endpoints.update(one, wire.body_of(call), now)
                return wire.ok(endpoints.shown(changed, now, authority=where))
            case "endpoint.delete":
                endpoints.delete(one, now)
                self.tasks.forget(one.id)
                return wire.ok(True)
            case "endpoint.stop":
                endpoints.stop(one, now)
                return wire.ok()
            case "endpoint.start":
                endpoints.start(one, now)
                return wire.ok()
            case "endpoint.scale":
                in_path = ids[1] if len(ids) > 1 else call.query.get("count")
                endpoints.scale(one, wire.body_of(call).get("workers") if in_path is None else in_path, now)
                return wire.ok()
            case "worker.list":
                return wire.ok(self.workers.all(one, call, now)) if self.quirks.worker_list else _missing(call)
            case "worker.logs":
                return wire.ok(self.workers.logs(one, ids[1], call)) if self.quirks.worker_logs else _missing(call)
            case _:
                return self._about_tasks(operation, one, ids[1:], call, now)

    def _about_tasks(
        self, operation: str, one: EngineDeployment, ids: tuple[str, ...], call: HttpCall, now: float
    ) -> Reply:
        tasks = self.tasks
        self.tasks.limit(one, operation, now)
        match operation:
            case "job.submit":
                return wire.ok({"taskId": tasks.submit(one, wire.body_of(call), now)})
            case "job.count":
                return wire.ok({"processing": tasks.count(one)})
            case "job.list":
                rows = tasks.all(one, call.query.get("status") or None)
                found: list[JSON] = [tasks.shown(one, job, whole=False) for job in rows]
                return wire.ok(wire.paged(found, *wire.page_of(call, "pageNumber", "pageSize")))
            case _:
                return wire.ok(tasks.shown(one, tasks.get(one, ids[0])))

    def _about_pods(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        pods, where = self.pods, _authority(call)
        if operation == "pod.create":
            made = pods.create(wire.body_of(call), now)
            return wire.ok(int(made.id) if self.quirks.pod_create == "id" else pods.shown(made, now, authority=where))
        if operation == "pod.list":
            return wire.ok([pods.shown(one, now, authority=where) for one in pods.all(call, now)])
        one = pods.find(ids[0], now)
        if operation == "pod.get":
            return wire.ok(pods.shown(one, now, authority=where))
        {"pod.pause": pods.pause, "pod.resume": pods.resume, "pod.delete": pods.delete}[operation](one, now)
        return wire.ok(True)

    def _about_account(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        account, body = self.account, wire.body_of(call)
        id = ids[0] if ids else ""
        match operation:
            case "credential.create":
                return wire.ok(account.add_credential(body, now))
            case "credential.list":
                return wire.ok(account.credentials())
            case "credential.get":
                return wire.ok(account.credential(id))
            case "credential.update":
                return wire.ok(account.change_credential(id, body))
            case "credential.delete":
                account.drop_credential(id, now)
            case "volume.create":
                return wire.ok(account.add_volume(body, now))
            case "volume.list":
                return wire.ok(account.volumes(call))
            case "volume.get":
                return wire.ok(account.volume(id))
            case "volume.rename":
                return wire.ok(account.rename_volume(id, body))
            case "volume.resize":
                account.resize_volume(id, body)
            case "volume.delete":
                account.drop_volume(id)
            case "vm.types":
                return wire.ok(account.vm_types())
            case "vm.create":
                return wire.ok(account.add_vm(body, now))
            case "vm.list":
                return wire.ok(account.vms(call, now))
            case "vm.get":
                return wire.ok(account.vm(id, now))
            case "vm.update":
                return wire.ok(account.rename_vm(id, body, now))
            case _:
                account.drop_vm(id)
        return wire.ok(True)

    def _v1_tasks(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float) -> Reply:
        tasks, engine = self.tasks, self._engine
        one = self.endpoints.find(call.headers.get("x-endpoint-id", ""), now)
        tasks.limit(one, operation.removeprefix("v1."), now)
        match operation:
            case "v1.job.submit":
                return wire.ok({"userTaskId": tasks.submit(one, tasks_v1.submitted(wire.body_of(call)), now)})
            case "v1.job.count":
                return wire.ok({"processingCount": tasks.count(one)})
            case "v1.job.list":
                given = call.query.get("status") or None
                number = None if given is None else wire.whole(given, "status", high=3)
                jobs = tasks.all(one, None if number is None else tasks_v1.STATES[number])
                rows: list[JSON] = [tasks_v1.shown(engine, tasks, one, job, whole=False) for job in jobs]
                return wire.ok(tasks_v1.listed(rows, *wire.page_of(call, "page", "pageSize")))
            case _:
                if ids[0] not in one.jobs:
                    raise YottaProblem(wire.TASK_MISSING_V1, "task not found")
                return wire.ok(tasks_v1.shown(engine, tasks, one, one.jobs[ids[0]]))

    def _to_container(self, call: HttpCall, now: float) -> Answer:
        one, inner = self._gateway.find(call, now)
        if one is None:
            return Reply(status=404, headers=(("content-type", "text/plain"),), body=b"no such host")
        if one.platform == PODS:
            return self._gateway.forward(one, inner, now)
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not self._is_known(given.strip()):
            return Reply(status=401, headers=(("content-type", "text/plain"),), body=b"unauthorized")
        if one.terms.data["mode"] != "ALB" or self.endpoints.status(one, now) != "RUNNING":
            return nobody()
        return self._gateway.forward(one, inner, now, keeps=frozenset({"authorization", "x-api-key"}))

    # -- what they share

    def _new_id(self) -> int:
        """Numbers that grow, as the real ones seem to."""
        self._last_id += 1 + self._random.getrandbits(24)
        return self._last_id

    def _is_known(self, given: str) -> bool:
        if self._token is None:
            return bool(given)
        return hmac.compare_digest(given.encode(), self._token.encode())

    def _in_use(self, credential: int, now: float) -> bool:
        ours = (ENDPOINTS, PODS)
        return any(
            one.terms.data.get("credential") == credential and not one.deleting
            for platform in ours
            for one in self._engine.deployments.list(now, platform=platform)
        )


def _authority(call: HttpCall) -> str | None:
    """Host and port of this machine under which the caller came; ``None``: it came to the platform's own name."""
    return call.headers.get("host", call.host) if call.host in _LOOPBACK else None


def _missing(call: HttpCall) -> Reply:
    """What a server without this route says."""
    return Reply.json({"message": f"No static resource {call.path[1:]}.", "code": 404, "data": None}, status=404)


def _route(call: HttpCall) -> tuple[str, tuple[str, ...]] | None:
    for method, path, operation in _ROUTES:
        found = path.fullmatch(call.path) if method == call.method else None
        if found is not None:
            return operation, found.groups()
    return None
