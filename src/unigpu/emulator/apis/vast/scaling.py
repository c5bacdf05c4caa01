"""What an endpoint, its workergroup and its template come to: how many workers there may be, and how one is started."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping
from typing import Any, Final, cast

from unigpu.elasticity._scaling.policy import Declared, Rule, VastLoad
from unigpu.emulator.contract import JSON, Launch
from unigpu.emulator.engine import DeploymentTerms, EngineDeployment

from .market import BadQuery, docker_flags, fits, offers
from .state import (
    INSTANCE,
    LOOPBACK,
    TEMPLATE,
    WORKERGROUP,
    VastAccount,
    Wrong,
    number,
    number_of,
    whole,
)

COST: Final = 100.0
"""Workload of a call whose worker has no calculator of its own (vastai 1.9.1, ``DEFAULT_WORKLOAD``)."""
DEFAULTS: Final[Mapping[str, JSON]] = {
    # https://docs.vast.ai/api-reference/serverless/create-endpoint.md; the console's and the command line's differ.
    "min_load": 10.0,
    "min_cold_load": 0.0,
    "target_util": 0.9,
    "cold_mult": 2.5,
    "cold_workers": 5,
    "max_workers": 20,
    "max_queue_time": 30.0,
    "target_queue_time": 10.0,
    "inactivity_timeout": None,
}
_NO_LIMIT_S: Final = 7 * 86400.0  # the platform has none; the engine wants a number
STATES: Final = ("active", "suspended", "stopped")


def settings_of(body: Mapping[str, Any], before: Mapping[str, JSON]) -> dict[str, JSON]:
    """The scaling fields of a request over those before; what is absent or ``null`` stays.

    Raises:
        Wrong: a value that cannot be.
    """
    found = dict(before)
    for name in DEFAULTS:
        if body.get(name) is None:
            continue
        value = number(body, name, 0.0)
        found[name] = int(value) if name in ("cold_workers", "max_workers") else value
        if value < 0 and name != "inactivity_timeout":
            raise Wrong(400, "invalid_args", f"{name} must not be negative")
    if not 0 < float(found["target_util"]) <= 1:
        raise Wrong(400, "invalid_args", "target_util must be above 0 and at most 1")
    if float(found["target_queue_time"]) > float(found["max_queue_time"]):
        raise Wrong(400, "invalid_args", "target_queue_time must not exceed max_queue_time")
    if int(found["cold_workers"]) > int(found["max_workers"]):
        raise Wrong(400, "invalid_args", "cold_workers must not exceed max_workers")
    state = body.get("endpoint_state")
    if state is not None and state not in STATES:
        raise Wrong(400, "invalid_args", f"endpoint_state must be one of {', '.join(STATES)}")
    found["endpoint_state"] = found.get("endpoint_state", "active") if state is None else state
    return found


def settle(
    account: VastAccount, endpoint: EngineDeployment, now: float, *, changes: Mapping[str, JSON] | None = None
) -> None:
    """Let an endpoint's workers follow its fields, its workergroup and the template of that, as they are now."""
    engine = account.engine
    data = {**endpoint.terms.data, **(changes or {})}
    group = group_of(account, number_of(endpoint), now)
    terms = _terms(account, data, group, endpoint, now)
    engine.deployments.replace(endpoint.id, terms, now)
    if data["endpoint_state"] == "stopped":
        engine.deployments.stop(endpoint.id, now)
    else:
        engine.deployments.start(endpoint.id, now)


def group_of(account: VastAccount, endpoint: int, now: float) -> EngineDeployment | None:
    """The workergroup that an endpoint runs: its first. Further ones are kept, and wait until it is gone."""
    groups = [one for one in account.all(WORKERGROUP, now) if one.terms.data["endpoint_id"] == endpoint]
    return min(groups, key=number_of, default=None)


def template_of(account: VastAccount, data: Mapping[str, JSON], now: float) -> EngineDeployment | None:
    """The template that a workergroup or an instance names, by its hash or its number."""
    for one in account.all(TEMPLATE, now):
        known = one.terms.data
        if data.get("template_hash") == known["hash_id"] or data.get("template_id") == number_of(one):
            return one
    return None


def rule_of(data: Mapping[str, JSON], *, perf: float) -> VastLoad:
    return VastLoad(
        perf=perf,
        cost=COST,
        min_load=float(data["min_load"]),
        min_cold_load=float(data["min_cold_load"]),
        target_util=float(data["target_util"]),
        cold_mult=float(data["cold_mult"]),
        cold_workers=int(data["cold_workers"]),
        target_queue_time=float(data["target_queue_time"]),
    )


def _terms(
    account: VastAccount,
    data: Mapping[str, JSON],
    group: EngineDeployment | None,
    endpoint: EngineDeployment,
    now: float,
) -> DeploymentTerms:
    if group is None:
        quirk = account.quirks.auto_delete_s
        expires = None if quirk is None else account.engine.wall(now) + quirk
        return DeploymentTerms(launch=Launch(), max_workers=0, data={**data, "deleted_at": expires}, expires_at=expires)
    template = cast("Mapping[str, JSON]", group.terms.data["template"])
    launch, env = worker_launch(account, template, group.terms.data)
    disk = float(template.get("recommended_disk_space") or 8)
    offer = cheapest(account, group.terms.data["search_query"], disk, now)
    concurrency = _slots(env)
    measured = max((report.perf for id, report in account.reports.items() if id in endpoint.workers), default=0.0)
    most = int(data["max_workers"]) if offer is not None else 0
    load = rule_of(data, perf=measured or account.quirks.perf * concurrency)
    if not account.quirks.two_level_zero:
        load = dataclasses.replace(load, cold_workers=0, cold_mult=0.0, min_cold_load=0.0)
    rule: Rule = load
    least = 0
    inactivity = data["inactivity_timeout"]
    idle: float | None = account.quirks.downscale_s
    if inactivity is not None and float(inactivity) > 0:
        idle = float(inactivity)
    elif inactivity is not None and float(inactivity) < 0:
        least = min(1, most)
    if data["endpoint_state"] == "suspended":
        # The engine lets go: what runs stays and bills, nothing is added.
        alive = sum(1 for worker in endpoint.workers.values() if worker.alive)
        least, most, idle, rule = alive, alive, None, Declared()
    return DeploymentTerms(
        launch=launch,
        interface="http" if env.get("UNIGPU_INTERFACE") == "http" else "function",
        min_workers=least,
        max_workers=most,
        idle_timeout=idle,
        execution_timeout=_seconds(env.get("UNIGPU_TIMEOUT"), _NO_LIMIT_S),
        concurrency=concurrency,
        rule=rule,
        price_per_hour=None if offer is None else float(offer["dph_total"]),
        data={**data, "deleted_at": None},
    )


def cheapest(account: VastAccount, query: Mapping[str, JSON], disk_gb: float, now: float) -> Mapping[str, JSON] | None:
    """The machine that would be rented first; ``None``: there is none that fits."""
    rows = offers(now=account.engine.wall(now), disk_gb=disk_gb, taken=frozenset())
    try:
        found = [row for row in rows if fits(row, query)]
    except BadQuery as exc:
        raise Wrong(400, "invalid_args", str(exc)) from None
    return min(found, key=lambda row: float(row["dph_total"]), default=None)


def worker_launch(
    account: VastAccount, template: Mapping[str, JSON], group: Mapping[str, JSON]
) -> tuple[Launch, dict[str, str]]:
    """How a serverless worker is started on this machine, and the variables that its template gives it.

    The image is not run: its command is, in the folder where the server was started.
    """
    env, _ = _flags(str(template.get("env") or ""))
    overrides = _launch_args(str(group.get("launch_args") or ""))
    more, _ = _flags(overrides.get("env", ""))
    env |= more
    argv = command({**template, **{key: value for key, value in overrides.items() if key != "env"}})
    per_worker = {
        "CONTAINER_ID": "{number}",
        "VAST_CONTAINERLABEL": "C.{number}",
        "PUBLIC_IPADDR": LOOPBACK,
        "WORKER_PORT": "{port}",
        "VAST_TCP_PORT_{port}": "{port}",
        "PYWORKER_HOST": LOOPBACK,
        "WORKER_HTTP_PORT": "0",  # workers share one machine here, and the port above may be a neighbour's
        "REPORT_ADDR": str(group.get("base") or "http://127.0.0.1:9"),
        "UNIGPU_VAST_CONSOLE": str(group.get("base") or "http://127.0.0.1:9"),
        "MASTER_TOKEN": str(group["api_key"]),
        "USE_SSL": "true" if account.quirks.worker_tls else "false",
    }
    if env.get("UNIGPU_INTERFACE") == "http":  # the user's server and PyWorker are two
        per_worker |= {"PORT": "{second}", "UNIGPU_PORT": "{second}"}
    return Launch(argv=argv, env=env, python=sys.executable, per_worker=per_worker, reports=True), env


def instance_launch(template: Mapping[str, JSON], body: Mapping[str, JSON]) -> tuple[Launch, dict[str, str], list[str]]:
    """How an instance is started on this machine, its variables and its ports."""
    env, ports = _flags(str(template.get("env") or ""))
    given = body.get("env")
    if isinstance(given, Mapping):
        for name, value in cast("Mapping[str, JSON]", given).items():
            if name.startswith("-p"):
                ports.append(name[2:].strip())
            else:
                env[name] = str(value)
    elif isinstance(given, str):
        more, extra = _flags(given)
        env |= more
        ports += extra
    inner = [int(port.rpartition(":")[2].partition("/")[0]) for port in ports if not port.endswith("/udp")]
    extra_port: dict[str, JSON] = {"port": inner[0]} if inner else {}
    launch = Launch(argv=command({**template, **body}), env=env, python=sys.executable, extra=extra_port)
    return launch, env, ports


def command(source: Mapping[str, JSON]) -> tuple[str, ...]:
    """What the container runs: its start script, else its arguments (after the image's entry point, which we lack)."""
    script = source.get("onstart")
    if isinstance(script, str) and script.strip():
        return ("/bin/sh", "-c", script)
    args: object = source.get("args")
    if isinstance(args, list):
        return tuple(map(str, cast("list[object]", args)))
    try:
        return tuple(shlex.split(str(source.get("args_str") or "")))
    except ValueError:
        raise Wrong(400, "invalid_args", "args_str: quotes that do not end") from None


def taken_offers(account: VastAccount, now: float) -> frozenset[int]:
    """The machines that somebody rents; a stopped one holds no GPU, so it is offered again."""
    return frozenset(whole(one.terms.data, "offer", 0) for one in account.all(INSTANCE, now) if not one.stopped)


def _flags(text: str) -> tuple[dict[str, str], list[str]]:
    try:
        return docker_flags(text)
    except BadQuery as exc:
        raise Wrong(400, "invalid_args", str(exc)) from None


def _launch_args(text: str) -> dict[str, str]:
    """``--image I --disk D --env '…' --onstart-cmd '…' --args …`` as fields of a template."""
    names = {"--image": "image", "--disk": "recommended_disk_space", "--env": "env", "--onstart-cmd": "onstart"}
    try:
        parts = shlex.split(text)
    except ValueError:
        raise Wrong(400, "invalid_args", "launch_args: quotes that do not end") from None
    found: dict[str, str] = {}
    for position, part in enumerate(parts):
        if part == "--args":
            found["args_str"] = shlex.join(parts[position + 1 :])
            break
        if part in names and position + 1 < len(parts):
            found[names[part]] = parts[position + 1]
    return found


def _slots(env: Mapping[str, str]) -> int:
    """How many calls the worker takes at a time: our portable worker says so."""
    text = env.get("UNIGPU_CONCURRENCY", "")
    return int(text) if text.isdigit() and int(text) > 0 else 1


def _seconds(text: str | None, default: float) -> float:
    try:
        return float(text) if text else default
    except ValueError:
        return default
