"""RunPod's protocol over the engine: REST v2, the job service, load balancers, pods, and what its workers say.

==============================================  ====================================================================
``https://api.runpod.io/v2/…``                  the control plane: ``serverless``, ``pods``, ``catalog``, ``templates``,
                                                ``network-volumes``, ``registries``, ``account``, ``billing``
``https://api.runpod.io/graphql``               of GraphQL what the package ``runpod`` 1.12 says to create and list
``https://api.runpod.ai/v2/{endpoint}/…``       jobs, and what workers come for (``job-take``, ``job-done``, …)
``https://{endpoint}.api.runpod.ai/…``          a load-balancer endpoint; on loopback ``…/lb/{endpoint}/…``
``https://{pod}-{port}.proxy.runpod.net/…``     a pod's HTTP port; on loopback ``…/proxy/{pod}/{port}/…``
``https://rest.runpod.io/v1/…``                 410: retired on 2026-11-15
==============================================  ====================================================================

On loopback all of it is under one base, and the URLs that endpoints tell are of that base. There, workers are real
processes: an endpoint's ``entrypoint`` and ``cmd`` (or ``args``) are started on this machine, with the variables that
RunPod sets. In memory workers are simulated, and get their jobs pushed.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from unigpu.emulator.contract import Answer, Hold, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineRefused

from . import (
    account as account_api,
)
from . import (
    catalogue,
    endpoints,
    graphql,
    jobs,
    load_balancer,
    pods,
    worker_api,
    workers,
)
from .jobs import Refusal
from .quirks import WIDE, Quirks
from .state import Plane, Route, RunPodAccount, RunPodProblem, problem

__all__ = ["CONTROL_HOST", "JOBS_HOST", "Quirks", "RunPodEmulator"]

CONTROL_HOST: Final = "api.runpod.io"
JOBS_HOST: Final = "api.runpod.ai"
_LB_HOST: Final = f".{JOBS_HOST}"
_PROXY_HOST: Final = ".proxy.runpod.net"
_OLD_HOST: Final = "rest.runpod.io"
_TOO_LARGE: Final = 102_400


def _table(*groups: Sequence[Route]) -> list[tuple[re.Pattern[str], Route]]:
    return [(re.compile(route.path), route) for group in groups for route in group]


_TABLES: Final[Mapping[Plane, list[tuple[re.Pattern[str], Route]]]] = {
    "control": _table(
        endpoints.ROUTES,
        workers.ROUTES,
        pods.ROUTES,
        account_api.ROUTES,
        catalogue.ROUTES,
    ),
    "jobs": _table(jobs.ROUTES),
    "worker": _table(worker_api.ROUTES),
    "balancer": _table(load_balancer.ROUTES),
    "proxy": _table(pods.PROXY),
    "graphql": _table(graphql.ROUTES),
}


class RunPodEmulator:
    """The protocol over an engine.

    Args:
        key, token: The account's key, which every call must carry; neither: any key will do (under a mock).
        seed: Ids are the same in each run of a seed.
        page: Rows that one page of a list has at most.
        quirks: Default: RunPod's; with a *token*, its limits of requests are wide.
        processes: Whether workers are real processes; default: where a *token* is given, as ``cloud serve`` does.

    Attributes:
        account: What it works on; `RunPodAccount.scarce` says which GPUs cannot be had.
    """

    name = "runpod"
    operations = frozenset(route.operation for table in _TABLES.values() for _, route in table)
    hosts: tuple[str, ...] = (CONTROL_HOST, JOBS_HOST, _OLD_HOST, _LB_HOST, _PROXY_HOST)

    def __init__(
        self,
        engine: Engine,
        *,
        key: str | None = None,
        token: str | None = None,
        seed: int = 0,
        page: int = 1000,
        quirks: Quirks | None = None,
        processes: bool | None = None,
    ) -> None:
        self.account = RunPodAccount(
            engine,
            key=token or key,
            seed=seed,
            page=page,
            quirks=quirks or (Quirks() if token is None else Quirks(rate_limits=WIDE)),
            processes=token is not None if processes is None else processes,
            name=self.name,
        )
        self._used: dict[tuple[str, int], int] = {}

    def operation(self, call: HttpCall) -> str | None:
        found = self._find(call)
        return None if found is None else f"runpod.{found[1].operation}"

    def handle(self, call: HttpCall, now: float) -> Answer:
        found = self._find(call)
        if found is None:
            return problem(501, f"there is no route {call.method} {call.path}")
        plane, route, ids = found
        headers: tuple[tuple[str, str], ...] = ()
        try:
            if plane == "control":
                if route.operation == "pod.create" and len(call.body) > _TOO_LARGE:
                    raise RunPodProblem(413, "request body exceeds 102400 bytes")
                self._authorize(call)
                headers = self._count(now)
            elif plane in ("jobs", "balancer", "graphql"):
                self._authorize(call, bare=plane == "jobs")
            return _with(route.handler(self.account, call, ids, now), headers)
        except RunPodProblem as exc:
            if plane in ("jobs", "balancer"):
                return Reply.json(
                    {"title": "Unauthorized", "status": exc.status, "detail": exc.detail}, status=exc.status
                )
            return _with(exc.reply(), headers)
        except Refusal as exc:
            return exc.reply()
        except EngineRefused as exc:
            return _with(problem(404 if exc.kind == "not_found" else 409, exc.message), headers)

    # -- inside

    def _find(self, call: HttpCall) -> tuple[Plane, Route, tuple[str, ...]] | None:
        planes, path = _planes(call)
        if not planes:
            return "proxy", Route(call.method, "", "v1.gone", _gone), ()
        allowed: list[str] = []
        for plane in planes:
            for pattern, route in _TABLES[plane]:
                found = pattern.fullmatch(path)
                if found is not None and route.method in ("*", call.method):
                    return plane, route, found.groups()
                if found is not None and plane == "control":
                    allowed.append(route.method)
        if allowed:
            return "control", Route(call.method, path, "method_not_allowed", partial(_not_allowed, allowed)), ()
        return None

    def _authorize(self, call: HttpCall, *, bare: bool = False) -> None:
        """The job service also takes a key without ``Bearer``, as some of RunPod's pages show it."""
        given = call.headers.get("authorization", "")
        scheme, _, key = given.partition(" ")
        if scheme.lower() != "bearer":
            key = given if bare else ""
        key = key.strip()
        if not key:
            raise RunPodProblem(401, "missing bearer token")
        if self.account.key is not None and not hmac.compare_digest(key.encode(), self.account.key.encode()):
            raise RunPodProblem(401, "invalid api key")

    def _count(self, now: float) -> tuple[tuple[str, str], ...]:
        """Count a call of the control plane, and tell what is left of each window.

        Raises:
            Problem: 429 where nothing was left.
        """
        windows = self.account.quirks.rate_limits
        if not windows:
            return ()
        rows: list[str] = []
        over: str | None = None
        longest = 0
        wall = self.account.engine.wall(now)
        for name, most, seconds in windows:
            slot = (name, int(wall // seconds))
            used = self._used.get(slot, 0) + 1
            if slot not in self._used:
                self._used = {key: value for key, value in self._used.items() if key[0] != name}
            self._used[slot] = used
            reset = max(1, int(seconds - wall % seconds))
            rows.append(f'"{name}";r={max(0, most - used)};t={reset}')
            if used > most:
                over, longest = over or name, max(longest, reset)
        policy = ", ".join(f'"{name}";q={most};w={seconds}' for name, most, seconds in windows)
        headers = (("ratelimit", ", ".join(rows)), ("ratelimit-policy", policy))
        if over is not None:
            text = f"rate limit exceeded for the {over} window"
            raise RunPodProblem(429, text, headers=(*headers, ("retry-after", str(longest))))
        return headers


def _planes(call: HttpCall) -> tuple[tuple[Plane, ...], str]:
    """Which services a call may be for, and its path there; none: the retired one. On loopback all have one host."""
    host, path = call.host, call.path
    old = host == _OLD_HOST or path == "/v1" or path.startswith("/v1/")
    if old and not host.endswith((_LB_HOST, _PROXY_HOST)):
        return (), path
    if host.endswith(_PROXY_HOST):
        pod, _, port = host.removesuffix(_PROXY_HOST).rpartition("-")
        return ("proxy",), f"/{pod}/{port}{path}"
    if host.endswith(_LB_HOST):
        return ("balancer",), f"/{host.removesuffix(_LB_HOST)}{path}"
    if host == JOBS_HOST:
        return ("jobs", "worker"), path.removeprefix("/v2")
    if path.startswith("/lb/"):
        return ("balancer",), path[3:]
    if path.startswith("/proxy/"):
        return ("proxy",), path[6:]
    if path == "/graphql":
        return ("graphql",), path
    if path.startswith("/v2/"):
        rest = path[3:].rstrip("/")
        return (("control",), rest) if host == CONTROL_HOST else (("control", "jobs", "worker"), rest)
    return ("control",), path


def _not_allowed(
    methods: Sequence[str], account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float
) -> Answer:
    raise RunPodProblem(405, f"method {call.method} not allowed", headers=(("allow", ", ".join(methods)),))


def _with(answer: Answer, headers: tuple[tuple[str, str], ...]) -> Answer:
    if not headers:
        return answer
    if isinstance(answer, Reply):
        return replace(answer, headers=(*answer.headers, *headers))
    if isinstance(answer, Hold):
        hold = answer

        def poll(now: float) -> Answer | None:
            found = hold.poll(now)
            return replace(found, headers=(*found.headers, *headers)) if isinstance(found, Reply) else found

        return replace(hold, poll=poll)  # type: ignore[arg-type]  # a Hold's poll never gives a Hold
    return answer


def _gone(account: RunPodAccount, call: HttpCall, ids: tuple[str, ...], now: float) -> Answer:
    detail = "REST API v1 was retired on 2026-11-15; use https://api.runpod.io/v2"
    return Reply(
        status=410, headers=(("content-type", "application/json"),), body=json.dumps({"message": detail}).encode()
    )
