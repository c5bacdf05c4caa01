"""What the engine is told of an endpoint or a pod, from what RunPod was told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from unigpu.elasticity._scaling.policy import Declared, Rule, RunPodQueueDelay, RunPodRequestCount
from unigpu.emulator.contract import Launch
from unigpu.emulator.engine import DeploymentTerms, EngineDeployment

from .body_check import command_of, secrets_in
from .catalogue import TYPES, GpuType, available, cpu_price, pool_members
from .state import RunPodAccount

SECRET: Final = "runpod.secret"
_WEEK: Final = 604_800.0
_UNDOCUMENTED_IDLE: Final = 5.0


def eligible(gpu: Mapping[str, Any]) -> list[GpuType]:
    """The cards that a selection of pools leaves, in the order of the pools."""
    cards = [one for pool in gpu["pools"] for one in pool_members(pool)]
    return [one for one in cards if one.id not in (gpu.get("excludedTypes") or ())]


def card_of(account: RunPodAccount, body: Mapping[str, Any]) -> GpuType | None:
    """The card that its workers get: the first that can be had, of an endpoint's pools or a pod's own."""
    gpu = body.get("gpu")
    if not gpu:
        return None
    cards = eligible(gpu) if "pools" in gpu else [TYPES[gpu["id"]]]
    return next((one for one in cards if available(account, one)), cards[0])


def endpoint_terms(account: RunPodAccount, id: str, body: Mapping[str, Any], base: str | None) -> DeploymentTerms:
    """How the engine runs an endpoint. *base*: where workers of this machine find the emulator."""
    quirks = account.quirks
    card = card_of(account, body)
    queue = body["type"] == "QUEUE"
    env, secret_names = resolved(account, body["env"])
    words, _ = command_of(body)
    count = body["gpu"]["count"] if card else 1
    price = (card.serverless or 0.0) * count if card else _cpu_price(body)
    can_start = card is None or available(account, card)
    idle = body["workers"].get("idleTimeout")
    pull = queue and account.processes
    return DeploymentTerms(
        launch=Launch(
            argv=words,
            env=env,
            per_worker=_worker_env(account, id, base) if account.processes else {},
            # https://docs.runpod.io/serverless/load-balancing/overview: asked until it is 200; 204 is "not yet".
            health=None if queue else env.get("HEALTH_CHECK_PATH", "/ping"),
            reports=pull,
            extra={"image": body["image"]},
        ),
        interface="function" if queue else "http",
        min_workers=body["workers"]["min"] if can_start else 0,
        max_workers=body["workers"]["max"] if can_start else 0,
        # Where REQUEST_COUNT forbids to say it, RunPod does not tell what it is: the console's value, unverified.
        idle_timeout=_UNDOCUMENTED_IDLE if idle is None else float(idle),
        execution_timeout=body["timeout"] / 1000 if body["timeout"] else _WEEK,
        # A pulled worker says with each call how many it takes. A simulated one does as the container was told.
        concurrency=1 if pull else _concurrency(env),
        idempotent=quirks.redispatch,
        dispatch="pull" if pull else "push",
        rule=_rule(body["scaling"]),
        give_up=not quirks.starts_fail_quietly,
        price_per_hour=round(price, 6),
        secret_names=secret_names,
        data={"name": body["name"], "body": dict(body)},
    )


def pod_terms(account: RunPodAccount, id: str, body: Mapping[str, Any], *, running: bool = True) -> DeploymentTerms:
    """How the engine runs a pod: one worker, while it is not stopped."""
    card = card_of(account, body)
    env, secret_names = resolved(account, body["env"])
    words, _ = command_of(body)
    cpu = body.get("cpu")
    if card is not None:
        price = (card.community if body["cloud"] == "COMMUNITY" else card.secure) * body["gpu"].get("count", 1)
    else:
        price = cpu_price(cpu["id"], cpu["vcpuCount"]) if cpu else 0.0
    return DeploymentTerms(
        launch=Launch(
            argv=words,
            env=env,
            per_worker={"RUNPOD_POD_ID": id} if account.processes else {},
            extra={"image": body["image"]},
        ),
        interface="http",
        kind="pod",
        min_workers=int(running),
        max_workers=int(running),
        idle_timeout=None,
        concurrency=1000,
        rule=Declared(),
        price_per_hour=round(price, 6),
        secret_names=secret_names,
        data={"name": body["name"], "body": dict(body)},
    )


def resolved(account: RunPodAccount, env: Mapping[str, str]) -> tuple[dict[str, str], frozenset[str]]:
    """The environment of a worker that starts now, and which of it are secrets.

    A secret that does not exist is left as it is written.
    """
    found = dict(env)
    names = secrets_in(env)
    values = secret_values(account) if names else {}
    known = {variable: values[name.lower()] for variable, name in names.items() if name.lower() in values}
    return found | known, frozenset(known)


def secret_values(account: RunPodAccount) -> dict[str, str]:
    """The account's secrets by name in lower case."""
    engine = account.engine
    now = float("inf")
    rows = [engine.deployments.get(id, now) for id in engine.deployment_ids()]
    return {
        str(one.terms.data["name"]).lower(): one.terms.launch.env["value"] for one in rows if one.platform == SECRET
    }


def renew_environment(account: RunPodAccount, deployment: EngineDeployment) -> None:
    """A secret changed: workers that start from now on see it, the others go on with the old one."""
    terms = deployment.terms
    env, names = resolved(account, terms.data["body"]["env"])
    deployment.terms = replace(terms, launch=replace(terms.launch, env=env), secret_names=names)


def _rule(scaling: Mapping[str, Any]) -> Rule:
    if scaling["type"] == "QUEUE_DELAY":
        return RunPodQueueDelay(seconds=float(scaling["queueDelay"]))
    return RunPodRequestCount(count=int(scaling["requestCount"]))


def _cpu_price(body: Mapping[str, Any]) -> float:
    cpus: Sequence[Mapping[str, Any]] = body.get("cpu") or ()
    return cpu_price(cpus[0]["id"], cpus[0]["vcpuCount"]) if cpus else 0.0


def _concurrency(env: Mapping[str, str]) -> int:
    text = env.get("UNIGPU_CONCURRENCY", "1")
    return max(1, int(text)) if text.isdigit() else 1


def _worker_env(account: RunPodAccount, id: str, base: str | None) -> dict[str, str]:
    """What RunPod sets in a worker, as its worker program reads it (runpod 1.12.0, serverless/modules)."""
    jobs = f"{base}/v2/{id}"
    return {
        "RUNPOD_POD_ID": "{worker}",
        "RUNPOD_ENDPOINT_ID": id,
        "RUNPOD_AI_API_KEY": account.worker_key(id),
        "RUNPOD_WEBHOOK_GET_JOB": f"{jobs}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{jobs}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{jobs}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
        "RUNPOD_WEBHOOK_PING": f"{jobs}/ping/$RUNPOD_POD_ID",
        "RUNPOD_PING_INTERVAL": "10000",
        # Its fitness checks reach for the internet and want a machine of a data centre's size.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
