"""Instances of the Vast emulator: machines rented one by one, and those that serverless workers run on.

Sources: https://docs.vast.ai/api-reference/instances/create-instance.md and its neighbours; the specification that Vast
generates from its code (https://github.com/vast-ai/docs/pull/915); the shape of ``ports`` as users report it
(https://github.com/skypilot-org/skypilot/issues/10518).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import Declared
from unigpu.emulator.contract import JSON, Answer, Forward, Hold, HttpCall, Reply, worker_number
from unigpu.emulator.engine import DeploymentTerms, EngineDeployment, EngineRefused, EngineWorker
from unigpu.models.deployment import WorkerState

from .market import BadQuery, fits, offers
from .scaling import instance_launch, taken_offers, template_of
from .serverless import PORT, present, text
from .state import (
    ENDPOINT,
    INSTANCE,
    LOOPBACK,
    VastAccount,
    Wrong,
    body_of,
    engine_id,
    number,
    number_of,
    whole,
    words,
)

_PAGE: Final = 25
_LABEL_LIMIT: Final = 256
_HOLD_S: Final = 60.0


class Instances:
    """The machines of one account."""

    def __init__(self, account: VastAccount) -> None:
        self._account = account
        self._engine = account.engine
        self._logs: dict[str, str] = {}
        self._destroyed: set[str] = set()
        self._queued: set[str] = set()
        """Stopped ones that start as soon as their GPU is free."""

    def answer(self, operation: str, ids: tuple[str, ...], call: HttpCall, now: float, base: str) -> Reply | None:
        """The answer of one of these routes; ``None``: it is none of them."""
        for one in [one for one in self._account.all(INSTANCE, now) if one.id in self._queued]:
            if not self._is_taken(one, now):
                self._queued.discard(one.id)
                self._engine.deployments.start(one.id, now)
        match operation:
            case "instance.create":
                return self._create(_integer(ids[0]), body_of(call), now)
            case "instance.list":
                return self._list(call, now)
            case "instance.get":
                return self._get(_integer(ids[0]), now)
            case "instance.put":
                return self._put(_integer(ids[0]), body_of(call), now)
            case "instance.delete":
                return self._delete(_integer(ids[0]), now)
            case "instance.reboot":
                return self._reboot(_integer(ids[0]), now)
            case "instance.logs":
                return self._request_logs(_integer(ids[0]), body_of(call), now, base)
            case "instance.log_file":
                found = self._logs.get(ids[0])
                return Reply(status=404) if found is None else text(found, "text/plain")
            case _:
                return None

    # -- renting

    def _create(self, offer_id: int, body: Mapping[str, Any], now: float) -> Reply:
        account = self._account
        disk = number(body, "disk", 8.0)
        rows = offers(now=self._engine.wall(now), disk_gb=disk, taken=taken_offers(account, now))
        offer = next((row for row in rows if row["id"] == offer_id), None)
        gone = f"error 404/3603: no_such_ask Instance type by id {offer_id} is not available."
        if offer is None:
            raise Wrong(404, "no_such_ask", gone, ask_id=offer_id)
        label = words(body, "label")
        if len(label) > _LABEL_LIMIT:
            raise Wrong(400, "invalid_args", "label_too_long", ask_id=offer_id)
        template = template_of(account, {"template_hash": body.get("template_hash_id")}, now)
        known: Mapping[str, JSON] = {} if template is None else template.terms.data
        image = words(body, "image") or str(known.get("image") or "")
        if not image:
            raise Wrong(400, "invalid_args", "an image or a template_hash_id is needed", ask_id=offer_id)
        stopped = bool(offer["rented"]) or body.get("target_state") == "stopped"
        if offer["rented"] and (body.get("cancel_unavail", True) or not account.quirks.stopped_contract):
            raise Wrong(410, "no_such_ask", gone, ask_id=offer_id)
        launch, env, ports = instance_launch(known, body)
        data: dict[str, JSON] = {
            "name": label,
            "label": label or None,
            "offer": offer_id if not offer["rented"] else 0,
            "offered": offer,
            "image": image,
            "env": env,
            "ports": ports,
            "disk": disk,
            "runtype": body.get("runtype") or known.get("runtype") or "args",
            "onstart": body.get("onstart"),
            "template_hash_id": body.get("template_hash_id"),
            "is_bid": body.get("price") is not None,
        }
        terms = DeploymentTerms(
            launch=launch,
            interface="http",
            kind="pod",
            min_workers=1,
            max_workers=1,
            idle_timeout=None,
            concurrency=1000,
            rule=Declared(),
            price_per_hour=float(offer["dph_total"]),
            data=data,
        )
        one = self._engine.deployments.create(engine_id(INSTANCE, account.new_number(INSTANCE)), INSTANCE, terms, now)
        # Not while it loads, unlike a serverless worker: https://docs.vast.ai/guides/instances/manage-instances
        running = frozenset(("idle", "busy"))
        self._engine.meter.open(one.id, name=label or one.id, price_per_hour=terms.price_per_hour, billed=running)
        answer: dict[str, JSON] = {"success": True, "new_contract": number_of(one)}
        if stopped:
            self._engine.deployments.stop(one.id, now)
            if offer["rented"]:
                answer |= {"success": False, "error": "resources_unavailable", "msg": "the instance began stopped"}
        return Reply.json({**answer, "instance_api_key": account.text(128)})

    # -- showing

    def _list(self, call: HttpCall, now: float) -> Reply:
        try:
            filters: object = json.loads(call.query.get("select_filters") or "{}")
            rows = [row for row in self._rows(now) if fits(row, cast("dict[str, JSON]", filters))]
            limit = min(int(call.query.get("limit") or _PAGE), _PAGE)
            after = int(call.query.get("after_token") or 0)
        except (ValueError, TypeError, BadQuery) as exc:
            return Reply.json({"error": "invalid_request", "msg": f"{exc}"}, status=400)
        rest = [row for row in sorted(rows, key=lambda row: int(row["id"])) if int(row["id"]) > after]
        page = rest[:limit]
        labels: dict[str, JSON] = {}
        for row in rows:
            label = str(row["label"] or "")
            labels[label] = labels.get(label, 0) + 1
        return Reply.json(
            {
                "success": True,
                "instances_found": len(page),
                "total_instances": len(rows),
                "label_counts": labels,
                "next_token": str(page[-1]["id"]) if len(rest) > len(page) else None,
                "instances": page,
            }
        )

    def _rows(self, now: float) -> list[dict[str, JSON]]:
        return [self._instance_json(one, now) for one in self._account.listed(INSTANCE, now)] + self._worker_rows(now)

    def _worker_rows(self, now: float) -> list[dict[str, JSON]]:
        rows: list[dict[str, JSON]] = []
        for endpoint in self._serving(now):
            there = [one for one in present(self._engine, endpoint) if one.id not in self._destroyed]
            rows += [self._worker_json(endpoint, worker, now) for worker in there]
        return rows

    def _serving(self, now: float) -> list[EngineDeployment]:
        """Endpoints, and those being deleted, whose machines go one by one; none that only a late list shows."""
        return [one for one in self._engine.deployments.list(now, platform=ENDPOINT) if not one.deleting or one.workers]

    def _get(self, id: int, now: float) -> Reply:
        """The truth, whatever lists still show."""
        one = self._instance(id, now)
        found = next((row for row in self._worker_rows(now) if row["id"] == id), None)
        found = found if one is None else self._instance_json(one, now)
        if found is not None:
            row = dict(found)
            row["extra_env"] = [f"{name}={value}" for name, value in row["extra_env"]]
            return Reply.json({"instances": row})
        if self._account.quirks.gone_instance_null:
            return Reply.json({"instances": None})
        raise Wrong(404, "no_such_instance", f"instance {id} not found")

    def _instance_json(self, one: EngineDeployment, now: float) -> dict[str, JSON]:
        data = one.terms.data
        worker = next(iter(one.workers.values()), None)
        status, words_of = _actual(one, worker)
        ports: dict[str, JSON] | None = None
        address = self._account.address(one.id)
        if worker is not None and worker.state.is_ready and data["ports"]:
            real = worker.address
            address = LOOPBACK if real else address
            outer = real.rpartition(":")[2] if real else str(PORT)
            ports = {}
            for port in cast("list[str]", data["ports"]):
                inner = port.rpartition(":")[2]
                name = inner if "/" in inner else f"{inner}/tcp"
                ports[name] = [{"HostIp": "0.0.0.0", "HostPort": outer}]  # noqa: S104 - what docker shows
        row = self._common(number_of(one), one, cast("Mapping[str, JSON]", data["offered"]), address)
        return row | {
            "actual_status": status,
            "intended_status": "stopped" if one.stopped and one.id not in self._queued else "running",
            "cur_state": "stopped" if one.stopped else "running",
            "next_state": "stopped" if one.stopped and one.id not in self._queued else "running",
            "label": data["label"],
            "status_msg": words_of,
            "image_uuid": data["image"],
            "image_runtype": data["runtype"],
            "extra_env": [[name, value] for name, value in cast("dict[str, str]", data["env"]).items()],
            "template_hash_id": data["template_hash_id"],
            "ports": ports,
            "is_bid": data["is_bid"],
            "disk_space": data["disk"],
        }

    def _worker_json(self, endpoint: EngineDeployment, worker: EngineWorker, now: float) -> dict[str, JSON]:
        """A serverless worker is an ordinary instance; nothing on it tells whose it is."""
        rows = offers(now=self._engine.wall(now), disk_gb=8.0, taken=frozenset())
        price = endpoint.terms.price_per_hour
        offer = min(rows, key=lambda row: abs(float(row["dph_total"]) - (price or 0.0)))
        states = {
            WorkerState.PLACING: None,
            WorkerState.STARTING: "loading",
            WorkerState.STOPPED: "stopped",
            WorkerState.FAILED: "exited",
        }
        row = self._common(worker_number(worker.id), endpoint, offer, self._account.address(worker.id))
        stopped = worker.state is WorkerState.STOPPED
        env = endpoint.terms.launch.env
        return row | {
            "actual_status": states.get(worker.state, "running"),
            "intended_status": "stopped" if stopped else "running",
            "cur_state": "stopped" if stopped else "running",
            "next_state": "stopped" if stopped else "running",
            "label": None,
            "status_msg": worker.reason,
            "image_uuid": "",
            "image_runtype": "args",
            "extra_env": [[name, value] for name, value in env.items()],
            "template_hash_id": None,
            "ports": None,
            "is_bid": False,
        }

    def _common(self, id: int, one: EngineDeployment, offer: Mapping[str, JSON], address: str) -> dict[str, JSON]:
        same = (
            "machine_id", "host_id", "bundle_id", "gpu_name", "gpu_ram", "gpu_totalram", "gpu_frac", "gpu_mem_bw",
            "num_gpus", "cpu_arch", "cpu_cores_effective", "cpu_ram", "disk_bw", "dph_base", "dph_total", "min_bid",
            "dlperf", "dlperf_per_dphtotal", "storage_cost", "storage_total_cost", "inet_up", "inet_down",
            "inet_up_cost", "inet_down_cost", "geolocation", "verification", "rentable", "hosting_type", "static_ip",
            "direct_port_count", "end_date", "duration", "score", "reliability2", "driver_version", "cuda_max_good",
        )  # fmt: skip
        row = {name: offer[name] for name in same if name in offer}
        return {"id": id, **row, "public_ipaddr": address, "start_date": self._engine.wall(one.created_at)}

    # -- changing

    def _put(self, id: int, body: Mapping[str, Any], now: float) -> Reply:
        one = self._instance(id, now)
        if one is None:
            raise Wrong(404, "no_such_instance", f"instance {id} not found")
        if (label := body.get("label")) is not None:
            self._engine.deployments.patch(one.id, now, data={"label": label})
        state = body.get("state")
        if state is None:
            return Reply.json({"success": True})
        if state not in ("running", "stopped"):
            raise Wrong(400, "invalid_args", "state must be running or stopped")
        if state == "stopped":
            # Its processes are killed at once, and its GPU is free for others.
            self._queued.discard(one.id)
            self._engine.deployments.stop(one.id, now)
            for worker in list(one.workers.values()):
                self._engine.end_worker(one.id, worker.id, now)
            return Reply.json({"success": True})
        if self._is_taken(one, now):
            self._queued.add(one.id)
            return Reply.json({"success": False, "error": "resources_unavailable", "msg": "the change is queued"})
        self._engine.deployments.start(one.id, now)
        return Reply.json({"success": True})

    def _is_taken(self, one: EngineDeployment, now: float) -> bool:
        offer = whole(one.terms.data, "offer", 0)
        others = (other for other in self._account.all(INSTANCE, now) if other.id != one.id and not other.stopped)
        return not offer or any(other.terms.data["offer"] == offer for other in others)

    def _delete(self, id: int, now: float) -> Reply:
        one = self._instance(id, now)
        if one is not None:
            self._engine.deployments.delete(one.id, now)
            return Reply.json({"success": True})
        for endpoint in self._serving(now):
            for worker in present(self._engine, endpoint):
                if worker_number(worker.id) == id and worker.id not in self._destroyed:
                    if worker.state is WorkerState.FAILED:  # its machine is all that is left of it
                        self._destroyed.add(worker.id)
                    else:
                        self._engine.end_worker(endpoint.id, worker.id, now)
                    return Reply.json({"success": True})
        raise Wrong(404, "no_such_instance", f"instance {id} not found")

    def _reboot(self, id: int, now: float) -> Reply:
        one = self._instance(id, now)
        if one is None:
            raise Wrong(400, "invalid_args", f"instance {id} not found")
        for worker in list(one.workers.values()):
            self._engine.end_worker(one.id, worker.id, now)
        return Reply.json({"success": True})

    def _request_logs(self, id: int, body: Mapping[str, Any], now: float, base: str) -> Reply:
        one = self._instance(id, now)
        found = self._account.worker(id, now)
        if one is not None:
            workers = self._engine.workers(one.id)
        elif found is not None:
            workers = [found[1]]
        else:
            return Reply.json({"error": "no_such_instance", "msg": f"instance {id} not found"}, status=404)
        wanted = body.get("filter")
        lines = [line.text for worker in workers for line in worker.log if not wanted or str(wanted) in line.text]
        tail = int(str(body.get("tail") or 1000))
        key = self._account.text(96)
        self._logs[key] = "\n".join(lines[-tail:]) + ("\n" if lines else "")
        url = f"{base or 'https://console.vast.ai'}/instance-logs/{key}.log"
        return Reply.json({"success": True, "result_url": url, "msg": "the log is on its way"})

    def _instance(self, id: int, now: float) -> EngineDeployment | None:
        try:
            return self._account.find(INSTANCE, id, now)
        except EngineRefused:
            return None

    # -- its own port, in memory

    def call(self, key: str, call: HttpCall, now: float) -> Answer:
        """A request for the server on an instance."""
        try:
            found = self._engine.lease(key, call, now, wait=_HOLD_S, no_worker=_nobody)
        except EngineRefused:
            return Reply(status=502)
        return found if isinstance(found, Hold | Forward) else Reply(status=502)


def _actual(one: EngineDeployment, worker: EngineWorker | None) -> tuple[str | None, str | None]:
    """``actual_status`` and ``status_msg``."""
    if one.stopped and worker is None:
        return "stopped", None
    if worker is None:
        failed = one.failure
        return (None, None) if failed is None else ("exited", failed.message)
    match worker.state:
        case WorkerState.PLACING:
            return None, None
        case WorkerState.STARTING:
            return "loading", "starting the container"
        case WorkerState.IDLE | WorkerState.BUSY:
            return "running", "success, running"
        case _:
            return "running", worker.reason


def _nobody(_: EngineDeployment, __: Mapping[str, JSON]) -> Reply:
    return Reply(status=502)


def _integer(value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise Wrong(400, "invalid_args", f"{value!r} is no id") from None
