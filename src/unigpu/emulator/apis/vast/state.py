"""What the parts of the Vast emulator share: its quirks, the account's things by their numbers, and reports."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from unigpu.emulator.contract import JSON, HttpCall, Reply, worker_number
from unigpu.emulator.engine import Engine, EngineDeployment, EngineRefused, EngineWorker

TEMPLATE: Final = "vast.template"
ENDPOINT: Final = "vast.endpoint"
WORKERGROUP: Final = "vast.workergroup"
INSTANCE: Final = "vast.instance"
LOOPBACK: Final = "127.0.0.1"
_FIRST: Final = {TEMPLATE: 334_500, ENDPOINT: 12_300, WORKERGROUP: 780, INSTANCE: 12_345_600}
ADDRESSES: Final = tuple(f"203.0.113.{last}" for last in range(1, 200))
"""Where machines are in memory: a block of addresses that is nobody's (RFC 5737)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """What the platform does that one would not expect; each can be turned off, or on.

    Attributes:
        duplicate_names: A second endpoint of one name is made; off: 400. (Newest: 400,
            https://github.com/vast-ai/docs/pull/915, ``post_api_v0_endptjobs``; older reports: accepted.)
        empty_list_400: A list of no endpoints is 400 "no endpoints for user" (the same, ``get_api_v0_endptjobs``).
        known_template_fails: An identical template is answered with ``success: false`` beside it (the same,
            ``post_api_v0_template``).
        gone_endpoint: Status of a second delete: 404 (the same, ``delete_api_v0_endptjobs_id``), formerly 400.
        errors_as_200: Worker lists and logs tell errors as a JSON text with status 200
            (https://docs.vast.ai/api-reference/serverless/get-endpoint-workers.md).
        bare_list: Worker lists are a JSON list, not ``{"workers": […]}`` (vastai 1.9.1,
            ``serverless/client/client.py``).
        two_level_zero: Workers that are not needed are stopped, as many as the cold parameters keep; off: given up
            (https://docs.vast.ai/guides/serverless/managing-scale.md).
        gone_instance_null: An instance that was destroyed reads as ``{"instances": null}`` with 200, not as 404
            (vastai 1.9.1, ``api/instances.py``).
        retry_after: A 429 carries ``Retry-After`` (some do: https://github.com/vast-ai/docs, commit 027ea89).
        limits: Calls that come sooner than their documented interval are 429. Off here, so that tests need not wait.
        early_without_idx: The first answer of a route that is not ready has no ``request_idx`` (vastai 1.9.1,
            ``serverless/client/client.py``, "polling delay").
        stopped_contract: ``PUT /asks/`` without ``cancel_unavail`` on a taken offer makes a stopped instance and
            answers ``success: false`` with its number (the same, ``put_api_v0_asks_id``).
        route_errors_as_200: A route's error is an object with ``error_msg`` and status 200, not 400 (vastai 1.9.1,
            ``serverless/client/client.py``, reads both).
        searches_a_day: Offer searches until midnight UTC; then 429 ``search_quota_exceeded`` with
            ``X-RateLimit-Reset`` (vastai 1.9.1, ``api/client.py``). How many there are is not documented.
        auto_delete_s: After that long an endpoint without a workergroup is deleted; ``None``: never. That there is such
            a countdown is documented (the same, ``get_api_v0_endptjobs``), how long it is, is not.
        downscale_s: Idle seconds after which a worker may leave where no ``inactivity_timeout`` gates it. Unverified.
        perf: Workload a second of a simulated worker's slot, where nobody measures.
        account_key_routes: The engine takes the account's key for routes, worker lists and logs (docs,
            ``guides/serverless``); off: an endpoint's own alone (https://github.com/vast-ai/docs/pull/915,
            ``post_get_endpoint_workers``). Unverified.
        worker_tls: Worker processes on loopback serve TLS; they need a private ``/etc`` for it.
    """

    duplicate_names: bool = False
    empty_list_400: bool = False
    known_template_fails: bool = True
    gone_endpoint: int = 404
    errors_as_200: bool = True
    bare_list: bool = True
    two_level_zero: bool = True
    gone_instance_null: bool = True
    retry_after: bool = False
    limits: bool = False
    early_without_idx: bool = False
    stopped_contract: bool = True
    route_errors_as_200: bool = False
    searches_a_day: int | None = None
    auto_delete_s: float | None = None
    downscale_s: float = 30.0
    perf: float = 100.0
    account_key_routes: bool = True
    worker_tls: bool = False


@dataclass(slots=True)
class Report:
    """What a worker's PyWorker told last."""

    perf: float = 0.0
    cur_load: float = 0.0
    new_load: float = 0.0
    cur_perf: float = 0.0
    working: int = 0
    disk_usage: float = 0.0
    url: str | None = None
    confirmed: set[str] = field(default_factory=set[str])


class Wrong(Exception):
    """The request is answered with an error of the console's form."""

    def __init__(self, status: int, error: str, msg: str, **more: JSON) -> None:
        super().__init__(msg)
        self.reply = Reply.json({"success": False, "error": error, "msg": msg, **more}, status=status)


class VastAccount:
    """One account's things, over the engine."""

    def __init__(self, engine: Engine, quirks: Quirks, seed: int) -> None:
        self.engine = engine
        self.quirks = quirks
        self.random = random.Random(seed)
        self.reports: dict[str, Report] = {}
        self.tokens: dict[str, str] = {}
        self.known_gone: dict[int, None] = {}
        self._next = dict(_FIRST)
        self._requests = 2420
        self._addresses: dict[str, str] = {}

    # -- numbers and ids

    def new_number(self, platform: str) -> int:
        self._next[platform] += self.random.randint(1, 40)
        return self._next[platform]

    def new_request(self) -> int:
        self._requests += 1
        return self._requests

    def text(self, bits: int = 128) -> str:
        return f"{self.random.getrandbits(bits):0{bits // 4}x}"

    def find(self, platform: str, number: int, now: float) -> EngineDeployment:
        """The thing of this number, unless it is being deleted.

        Raises:
            Refused: ``not_found``.
        """
        one = self.engine.deployments.get(engine_id(platform, number), now)
        if one.deleting:
            raise EngineRefused("not_found", f"{one.id} is being deleted")
        return one

    def all(self, platform: str, now: float) -> list[EngineDeployment]:
        """What there really is, whatever lists show."""
        found = [self.engine.deployments.get(id, now) for id in self.engine.deployment_ids() if id.startswith(platform)]
        return [one for one in found if one.platform == platform]

    def listed(self, platform: str, now: float) -> list[EngineDeployment]:
        """What a list shows."""
        lag = self.engine.settings.list_lag
        late = callable(lag) or lag > 0
        found = self.engine.deployments.list(now, platform=platform)
        return sorted((one for one in found if late or not one.deleting), key=number_of)

    def worker(self, number: int, now: float) -> tuple[EngineDeployment, EngineWorker] | None:
        """A serverless worker by its instance's number, also one that has ended lately."""
        for endpoint in self.all(ENDPOINT, now):
            for worker in self.engine.workers(endpoint.id):
                if worker_number(worker.id) == number:
                    return endpoint, worker
        return None

    # -- where a machine is, in memory

    def address(self, key: str) -> str:
        """The address of a worker's or an instance's machine."""
        if key not in self._addresses:
            taken = len(self._addresses)
            if taken >= len(ADDRESSES):  # the oldest one's machine is somebody else's by now
                del self._addresses[next(iter(self._addresses))]
            free = [one for one in ADDRESSES if one not in self._addresses.values()]
            self._addresses[key] = free[0] if taken else ADDRESSES[0]
        return self._addresses[key]

    def at_address(self, host: str) -> str | None:
        """Whose machine it is."""
        return next((key for key, address in self._addresses.items() if address == host), None)


def engine_id(platform: str, number: int) -> str:
    return f"{platform}-{number}"


def number_of(one: EngineDeployment) -> int:
    return int(one.id.rpartition("-")[2])


# What is asked.


def body_of(call: HttpCall) -> dict[str, Any]:
    """The body, which must be an object; an empty one is one without fields.

    Raises:
        Wrong: it is none.
    """
    if not call.body.strip():
        return {}
    try:
        found: object = json.loads(call.body)
    except (ValueError, RecursionError):
        raise Wrong(400, "invalid_args", "the body is not JSON") from None
    if not isinstance(found, dict):
        raise Wrong(400, "invalid_args", "the body: an object is needed")
    return cast("dict[str, Any]", found)


def number(body: Mapping[str, Any], field: str, default: float) -> float:
    """A number of the body, where it is given and not ``null``.

    Raises:
        Wrong: it is something else.
    """
    value = body.get(field)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong(400, "invalid_args", f"{field}: a number is needed")
    return float(value)


def whole(body: Mapping[str, Any], field: str, default: int) -> int:
    return int(number(body, field, default))


def words(body: Mapping[str, Any], field: str, default: str = "") -> str:
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, str):
        raise Wrong(400, "invalid_args", f"{field}: a text is needed")
    return value
