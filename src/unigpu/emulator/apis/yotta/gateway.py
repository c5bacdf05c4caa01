"""The way in: the gateway of ALB endpoints, and the ports of pods.

The gateway asks for the account's key as a bearer token, keeps that header to itself, and forwards any path to a
worker that runs. It wakes nothing and queues nothing; what it answers while nobody runs is not documented: 503 here.
A pod's port is open to everybody. (https://docs.yottalabs.ai/products/serverless/accessing-serverless-tasks)

Each has a host of its own under ``yottadeos.com``; on this machine it is a path instead:
``/gateway/<first part of that host>/…``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from unigpu.emulator.contract import JSON, Answer, HttpCall, Reply
from unigpu.emulator.engine import Engine, EngineDeployment, EngineRefused

DOMAIN: Final = ".yottadeos.com"
_PREFIX: Final = "/gateway/"


def is_called(call: HttpCall) -> bool:
    """Whether this goes to somebody's container, not to the control plane."""
    return call.host.endswith(DOMAIN) or call.path.startswith(_PREFIX)


class Gateway:
    """Forwards calls to containers."""

    def __init__(self, engine: Engine, platforms: tuple[str, ...]) -> None:
        self._engine = engine
        self._platforms = platforms

    def find(self, call: HttpCall, now: float) -> tuple[EngineDeployment | None, HttpCall]:
        """Whose container, and the request as that one gets it."""
        if call.host.endswith(DOMAIN):
            name, inner = call.host.removesuffix(DOMAIN), call
        else:
            name, _, rest = call.path[len(_PREFIX) :].partition("/")
            cut = len(_PREFIX) + len(name)
            inner = replace(call, path=f"/{rest}", target=_rooted(call.target[cut:]))
        ours = (self._engine.deployments.get(id, now) for id in self._engine.deployment_ids())
        named = (one for one in ours if str(one.terms.data.get("domain")).partition(".")[0] == name)
        return next((one for one in named if one.platform in self._platforms), None), inner

    def forward(
        self, one: EngineDeployment, call: HttpCall, now: float, *, keeps: frozenset[str] = frozenset()
    ) -> Answer:
        """*keeps*: headers that end here."""
        headers = {name: value for name, value in call.headers.items() if name not in keeps}
        try:
            return self._engine.lease(one.id, replace(call, headers=headers), now, wait=0.0, no_worker=_nobody)
        except EngineRefused:
            return nobody()


def nobody() -> Reply:
    """Nobody is behind this address now."""
    return Reply(status=503, headers=(("content-type", "text/plain"),), body=b"no healthy upstream")


def _nobody(_: EngineDeployment, __: Mapping[str, JSON]) -> Reply:
    return nobody()


def _rooted(target: str) -> str:
    return target if target.startswith("/") else f"/{target}"
