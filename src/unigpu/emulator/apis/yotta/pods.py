"""Pods: one machine each, by the engine's workers. https://docs.yottalabs.ai/api-and-sdk/api-guides/pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import Declared
from unigpu.emulator.contract import JSON, HttpCall
from unigpu.emulator.engine import DeploymentTerms, Engine, EngineDeployment, EngineRefused
from unigpu.models.deployment import State

from . import wire
from .endpoints import GATEWAY_SLOTS, gateway, hourly_price, subdomain
from .quirks import VRAM_GB, Quirks
from .wire import YottaProblem
from .workers import display

PLATFORM: Final = "yotta.pod"
_NUMBERED: Final[Mapping[str, tuple[str, ...]]] = {
    "0": ("INITIALIZING",),
    "1": ("RUNNING",),
    "2": ("PAUSING", "STOPPING"),
    "3": ("PAUSED", "STOPPED"),
    "4": ("TERMINATING",),
    "5": ("TERMINATED",),
    "6": ("FAILED",),
}
"""v1's numbers of the states; the v2 command line still takes nothing else (``yotta pods list --status 1``)."""


class Pods:
    """The pods of one account."""

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
            raise YottaProblem(self._quirks.pod_missing, "pod not found")
        return found

    def all(self, call: HttpCall, now: float) -> list[EngineDeployment]:
        asked, regions = wire.values_of(call, "statusList"), wire.values_of(call, "regionList")
        states = {word for one in asked for word in _NUMBERED.get(one, (one,))}
        rows = self._engine.deployments.list(now, platform=PLATFORM)
        return [
            one
            for one in rows
            if (not states or self.status(one, now) in states)
            and (not regions or str(one.terms.data["region"]).upper() in regions)
        ]

    def create(self, body: Mapping[str, Any], now: float) -> EngineDeployment:
        code = wire.text(body, "gpuType")
        if code not in self._quirks.stock:
            raise YottaProblem(wire.BAD_REQUEST, f"gpu type [{code}] not supported")
        count = wire.gpu_count(body.get("gpuCount"))
        free = [region for region, there in self._quirks.stock[code].items() if there]
        given: object = body.get("regions")
        wanted = [str(one) for one in cast("list[object]", given)] if isinstance(given, list) and given else free
        region = next((one for one in wanted if one in free), None)
        if region is None:
            raise YottaProblem(wire.CREATE_FAILED, "create pod failed: no available resource for the requested GPU")
        ports: object = body.get("expose") or []
        exposes = [wire.exposed(one) for one in cast("list[object]", ports)] if isinstance(ports, list) else []
        served = next((int(one["port"]) for one in exposes if str(one["protocol"]).lower() == "http"), None)
        disk = wire.whole(body.get("containerVolumeInGb", 0), "containerVolumeInGb")
        number = self._new_id()
        command = wire.optional_text(body, "initializationCommand", most=8192)
        env = wire.variables(body, self._quirks.env_key) or {}
        price = hourly_price(self._quirks, code, count, disk)
        name = wire.optional_text(body, "name") or f"pod-{number}"
        data: dict[str, JSON] = {
            "name": name,
            "image": wire.text(body, "image"),
            "registry": wire.optional_text(body, "imageRegistry"),
            "credential": wire.credential(body, self._quirks.credential_key),
            "gpuType": code,
            "gpuCount": count,
            "region": region,
            "disk": disk,
            "shm": body.get("shmInGb"),
            "expose": exposes,
            "domain": f"{subdomain(number)}.yottadeos.com",
            "created": self._engine.wall(now),
            "card": self._quirks.prices.get(code),
        }
        terms = DeploymentTerms(
            launch=wire.launch(command, env, served),
            interface="http",
            kind="pod",
            min_workers=1,
            max_workers=1,
            idle_timeout=None,
            concurrency=GATEWAY_SLOTS,
            rule=Declared(),
            start_limit=self._quirks.start_limit,
            price_per_hour=price,
            data=data,
        )
        made = self._engine.deployments.create(str(number), PLATFORM, terms, now)
        self._engine.meter.open(made.id, name=name, price_per_hour=price, billed=frozenset(("idle", "busy")))
        return made

    def pause(self, one: EngineDeployment, now: float) -> None:
        if one.stopped:
            raise YottaProblem(12001, "resource status invalid")
        self._engine.deployments.stop(one.id, now)

    def resume(self, one: EngineDeployment, now: float) -> None:
        if not one.stopped or one.workers:
            raise YottaProblem(12001, "resource status invalid")
        self._engine.deployments.start(one.id, now)

    def delete(self, one: EngineDeployment, now: float) -> None:
        self._engine.deployments.delete(one.id, now)

    def status(self, one: EngineDeployment, now: float) -> str:
        if one.deleting:
            return "TERMINATED"
        if one.stopped:
            paused = self._quirks.paused_state
            return ("STOPPING" if paused == "STOPPED" else "PAUSING") if one.workers else paused
        if one.ready():
            return "RUNNING"
        return "FAILED" if self._engine.state(one, now) is State.FAILED else "INITIALIZING"

    def shown(self, one: EngineDeployment, now: float, *, authority: str | None) -> dict[str, JSON]:
        data = one.terms.data
        code = str(data["gpuType"])
        created = wire.millis(float(data["created"]))
        shown: dict[str, JSON] = {
            "id": int(one.id),
            "name": data["name"],
            "image": data["image"],
            "gpuType": code,
            "gpuDisplayName": display(code),
            "gpuCount": data["gpuCount"],
            "status": self.status(one, now),
            "createdAt": created,
            "updatedAt": created,
            "sshCmd": "",
            "resourceType": "GPU",
            "region": data["region"],
            "containerVolumeInGb": data["disk"],
            "singleCardVramInGb": VRAM_GB.get(code, 0),
            "singleCardRamInGb": 64,
            "singleCardVcpu": 8,
            "expose": [self._port(one, expose, index, authority) for index, expose in enumerate(data["expose"])],
        }
        if data["registry"] is not None:
            shown["imageRegistry"] = data["registry"]
        if data["shm"] is not None:
            shown["shmInGb"] = data["shm"]
        if data["card"] is not None and self._quirks.shows_prices:
            shown["singleCardPrice"] = data["card"]
        if self._quirks.shows_env != "nothing":
            shown[self._quirks.shows_env] = [{"key": k, "value": v} for k, v in one.terms.launch.env.items()]
        return shown

    def _port(
        self, one: EngineDeployment, expose: Mapping[str, JSON], index: int, authority: str | None
    ) -> dict[str, JSON]:
        """An exposed port. The first http one leads to the container; the others have an address and no server."""
        http = str(expose["protocol"]).lower() == "http"
        host = gateway(str(one.terms.data["domain"]), authority)
        return {
            "port": expose["port"],
            "proxyPort": 443 if http else 30_000 + index,
            "protocol": expose["protocol"],
            "host": host,
            "healthy": bool(one.ready()),
            "ingressUrl": f"{'https' if authority is None else 'http'}://{host}" if http else None,
            "serviceName": f"pod-{one.id}-{expose['port']}",
        }
