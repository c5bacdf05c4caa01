"""Endpoints ("serverless"): created, found, scaled, edited, stopped, started and deleted.

An endpoint is a declared number of workers, which are replaced when they fall. Nothing scales by itself. States:
INITIALIZING → RUNNING → STOPPING → STOPPED → INITIALIZING …, and FAILED
(https://docs.yottalabs.ai/api-and-sdk/api-guides/serverless). An endpoint's own webhook is kept and never called: what
it would be told is not documented.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import Declared
from unigpu.emulator.contract import JSON, HttpCall
from unigpu.emulator.engine import DeploymentTerms, Engine, EngineDeployment, EngineRefused
from unigpu.models.deployment import State

from . import wire
from .quirks import DISK_PRICE, FREE_DISK_GB, Quirks
from .wire import YottaProblem

PLATFORM: Final = "yotta"
MODES: Final = ("ALB", "QUEUE", "CUSTOM")
GATEWAY_SLOTS: Final = 1000
"""The gateway spreads calls and counts none: a worker's own limit is what a caller meets."""
_NAME: Final = re.compile(r"(?=[A-Za-z])[A-Za-z0-9@._-]{1,20}")
_WEBHOOK: Final = re.compile(r"https?://\S+")
_LEAST_DISK_GB: Final = 20


class Endpoints:
    """The endpoints of one account.

    Args:
        new_id: Makes a number that no other resource has.
    """

    def __init__(self, engine: Engine, quirks: Quirks, new_id: Callable[[], int]) -> None:
        self._engine = engine
        self._quirks = quirks
        self._new_id = new_id

    def find(self, id: str, now: float) -> EngineDeployment:
        try:
            found = self._engine.deployments.get(id, now)
        except EngineRefused:
            found = None
        if found is None or found.platform != PLATFORM or found.deleting:
            raise YottaProblem(self._quirks.endpoint_missing, "serverless does not exist")
        return found

    def all(self, call: HttpCall, now: float) -> list[EngineDeployment]:
        wanted = wire.values_of(call, "statusList")
        rows = self._engine.deployments.list(now, platform=PLATFORM)
        return [one for one in rows if not wanted or self.status(one, now) in wanted]

    def create(self, body: Mapping[str, Any], now: float) -> EngineDeployment:
        name = wire.text(body, "name", most=20)
        if not _NAME.fullmatch(name):
            raise YottaProblem(wire.BAD_REQUEST, "name: 1 to 20 of letters, digits, @ . _ -, a letter first")
        mode = str(body.get("serviceMode", "")).upper()
        if mode not in MODES:
            raise YottaProblem(wire.BAD_REQUEST, f"serviceMode must be one of {', '.join(MODES)}")
        data: dict[str, JSON] = {
            "name": name,
            "image": wire.text(body, "image"),
            "mode": mode,
            "registry": wire.optional_text(body, "imageRegistry"),
            "created": self._engine.wall(now),
            "started": now,
            **self._editable(body, mode, {}),
        }
        id = str(self._new_id())
        data["domain"] = f"{subdomain(int(id))}.yottadeos.com"
        made = self._engine.deployments.create(
            id, PLATFORM, self._terms(data, wire.whole(body.get("workers"), "workers")), now
        )
        self._bill(made)
        return made

    def update(self, one: EngineDeployment, body: Mapping[str, Any], now: float) -> EngineDeployment:
        """Only a stopped one; image and mode stay as they are."""
        if self.status(one, now) != "STOPPED":
            raise YottaProblem(wire.WRONG_STATE, "Elastic action not allowed")
        missing = [key for key in ("name", "resources", "workers", "containerVolumeInGb") if body.get(key) is None]
        if missing:
            raise YottaProblem(wire.BAD_REQUEST, f"{', '.join(missing)}: required")
        name = wire.text(body, "name", most=20)
        if not _NAME.fullmatch(name):
            raise YottaProblem(wire.BAD_REQUEST, "name: 1 to 20 of letters, digits, @ . _ -, a letter first")
        old = {**one.terms.data, "env": one.terms.launch.env}
        data = {**old, "name": name, **self._editable(body, str(old["mode"]), old), "updated": self._engine.wall(now)}
        workers = wire.whole(body["workers"], "workers", low=1)
        changed = self._engine.deployments.replace(one.id, self._terms(data, workers), now)
        self._bill(changed)
        return changed

    def scale(self, one: EngineDeployment, count: object, now: float) -> None:
        workers = wire.whole(count, "count")
        if workers == 0:
            if self._quirks.zero_workers == "refuse":
                raise YottaProblem(wire.BAD_REQUEST, "count must be at least 1; stop the endpoint instead")
            return self.stop(one, now)
        status = self.status(one, now)
        if status == "STOPPING" or (status == "STOPPED" and not self._quirks.scale_stopped):
            raise YottaProblem(wire.WRONG_STATE, "Elastic action not allowed")
        self._engine.deployments.patch(one.id, now, workers=(workers, workers))
        return None

    def stop(self, one: EngineDeployment, now: float) -> None:
        if one.stopped:
            raise YottaProblem(wire.WRONG_STATE, "Elastic action not allowed")
        self._engine.deployments.stop(one.id, now)

    def start(self, one: EngineDeployment, now: float) -> None:
        if self.status(one, now) != "STOPPED":
            raise YottaProblem(wire.WRONG_STATE, "Elastic action not allowed")
        self._engine.deployments.patch(one.id, now, data={"started": now})
        self._engine.deployments.start(one.id, now)

    def delete(self, one: EngineDeployment, now: float) -> None:
        if self.status(one, now) != "STOPPED":
            raise YottaProblem(wire.WRONG_STATE, "Elastic action not allowed")
        self._engine.deployments.delete(one.id, now)

    def status(self, one: EngineDeployment, now: float) -> str:
        if one.stopped or one.deleting:
            return "STOPPING" if one.workers else "STOPPED"
        if one.ready():
            return "RUNNING"
        if self._engine.state(one, now) is State.FAILED:
            return "FAILED"
        started = float(one.terms.data["started"])
        ran = any(worker.ready_at is not None and worker.ready_at >= started for worker in one.everyone())
        return "RUNNING" if ran and self._quirks.heals_running else "INITIALIZING"

    def shown(self, one: EngineDeployment, now: float, *, authority: str | None = None) -> dict[str, JSON]:
        """The endpoint's object. *authority*: of this machine; its gateway is then a path of it."""
        quirks, terms, data = self._quirks, one.terms, one.terms.data
        row = self._engine.meter.report(now)["deployments"].get(one.id, {})
        hourly = terms.price_per_hour
        shown: dict[str, JSON] = {
            "id": int(one.id) if quirks.numeric_ids else one.id,
            "name": data["name"],
            "image": data["image"],
            "resources": data["resources"],
            "containerVolumeInGb": data["disk"],
            "expose": data["expose"],
            "totalWorkers": terms.min_workers,
            "runningWorkers": sum(1 for worker in one.workers.values() if worker.state.is_ready),
            "cost": round(float(row.get("cost") or 0.0), 6),
            "serviceMode": data["mode"],
            "webhook": data["webhook"],
            "status": self.status(one, now),
            "createdAt": self._time(float(data["created"])),
            "updatedAt": self._time(float(data.get("updated", data["created"]))),
        }
        if data["registry"] is not None:
            shown["imageRegistry"] = data["registry"]
        if data["mode"] == "ALB":
            shown["domain"] = gateway(str(data["domain"]), authority)
        if quirks.shows_prices and hourly is not None:
            price = hourly * (terms.min_workers if quirks.price_of == "endpoint" else 1)
            shown["perHourPrice"], shown["perSecondPrice"] = round(price, 6), round(price / 3600, 9)
        if quirks.shows_env != "nothing":
            shown[quirks.shows_env] = [{"key": k, "value": v} for k, v in terms.launch.env.items()]
        return shown

    # -- inside

    def _editable(self, body: Mapping[str, Any], mode: str, old: Mapping[str, JSON]) -> dict[str, JSON]:
        """What creating and editing have in common; what is left out stays as it was."""
        disk = wire.whole(body.get("containerVolumeInGb"), "containerVolumeInGb", low=_LEAST_DISK_GB)
        expose = old.get("expose") if body.get("expose") is None else wire.exposed(body["expose"])
        if expose is None and mode == "ALB":
            raise YottaProblem(wire.BAD_REQUEST, "expose is required for ALB")
        webhook = body.get("webhook", old.get("webhook"))
        if webhook is not None and not (len(str(webhook)) <= 512 and _WEBHOOK.fullmatch(str(webhook))):
            raise YottaProblem(wire.BAD_REQUEST, "webhook must be an http or https address of at most 512 characters")
        env = wire.variables(body, self._quirks.env_key)
        command = body.get("initializationCommand", old.get("command"))
        return {
            "resources": self._resources(body.get("resources")),
            "disk": disk,
            "expose": expose,
            "webhook": webhook,
            "env": old.get("env", {}) if env is None else env,  # `_terms` takes it out again: values may be secrets
            "command": None if command is None else str(command),
            "credential": wire.credential(body, self._quirks.credential_key) or old.get("credential"),
        }

    def _resources(self, given: object) -> list[JSON]:
        if not isinstance(given, list) or not given:
            raise YottaProblem(wire.BAD_REQUEST, "resources is required: at least one of region, gpuType and gpuCount")
        rows: list[dict[str, JSON]] = []
        for one in cast("list[object]", given):
            entry = wire.mapping(one)
            code, region = wire.text(entry, "gpuType"), wire.text(entry, "region")
            if code not in self._quirks.stock:
                raise YottaProblem(wire.BAD_REQUEST, f"gpu type [{code}] not supported")
            rows.append({"region": region, "gpuType": code, "gpuCount": wire.gpu_count(entry.get("gpuCount"))})
        if len({row["gpuCount"] for row in rows}) > 1:
            raise YottaProblem(wire.BAD_REQUEST, "every resource must have the same gpuCount")
        if not any(self._available(row) for row in rows):
            raise YottaProblem(
                wire.CREATE_FAILED, "create deployment failed: no available resource for the requested GPU"
            )
        return list(rows)

    def _available(self, row: Mapping[str, JSON]) -> bool:
        return self._quirks.stock.get(str(row["gpuType"]), {}).get(str(row["region"]), False)

    def _terms(self, data: Mapping[str, JSON], workers: int) -> DeploymentTerms:
        if workers < 1:
            raise YottaProblem(wire.BAD_REQUEST, "workers must be at least 1")
        queue = data["mode"] == "QUEUE"
        expose = data["expose"]
        port = None if expose is None else int(expose["port"])
        places = [row for row in data["resources"] if self._available(row)] or data["resources"]
        return DeploymentTerms(
            launch=wire.launch(data["command"], data["env"], port),
            interface="function" if queue else "http",
            min_workers=workers,
            max_workers=workers,
            idle_timeout=None,
            execution_timeout=self._quirks.task_timeout,
            concurrency=self._quirks.task_slots if queue else GATEWAY_SLOTS,
            idempotent=self._quirks.requeues_lost,
            rule=Declared(),
            start_limit=self._quirks.start_limit,
            spread=not queue,  # round robin, by the official MCP server's notes; of the queue nothing is said
            price_per_hour=hourly_price(
                self._quirks, str(places[0]["gpuType"]), int(places[0]["gpuCount"]), data["disk"]
            ),
            data={**{key: value for key, value in data.items() if key != "env"}, "places": places},
        )

    def _bill(self, one: EngineDeployment) -> None:
        phases = frozenset(("loading", "idle", "busy") if self._quirks.bills_loading else ("idle", "busy"))
        name, price = str(one.terms.data["name"]), one.terms.price_per_hour
        self._engine.meter.open(one.id, name=name, price_per_hour=price, billed=phases)

    def _time(self, epoch: float) -> JSON:
        return wire.iso(epoch) if self._quirks.iso_times else wire.millis(epoch)


def hourly_price(quirks: Quirks, code: str, count: int, disk_gb: int) -> float | None:
    """USD of one worker-hour; ``None``: no price is known."""
    price = quirks.prices.get(code)
    return None if price is None else price * count + DISK_PRICE * max(0, disk_gb - FREE_DISK_GB)


def gateway(domain: str, authority: str | None) -> str:
    """Where an endpoint is called: its own host, or on this machine a path, as no name leads there."""
    return domain if authority is None else f"{authority}/{PLATFORM}/gateway/{domain.partition('.')[0]}"


def subdomain(number: int) -> str:
    """Twelve letters and digits that belong to this number alone."""
    marks = "abcdefghijklmnopqrstuvwxyz0123456789"
    found = ""
    for _ in range(12):
        number, digit = divmod(number, len(marks))
        found += marks[digit]
    return found
