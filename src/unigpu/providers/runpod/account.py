"""The account: what it may spend, why RunPod would start nothing, and what costs money now. The reads of the first two
are optional.

https://docs.runpod.io/api-reference-v2/billing/get-the-account-balance and .../account/get-account-limits, both of
2026-11-18. Their paths, and the inner fields of the limits, are unverified: the paths are options, and of the fields
only plain numbers with a telling name are used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from unigpu.driver import InventoryItem, Io, mapping, parse
from unigpu.errors import APIStatusError, InsufficientBalanceError, InvalidResponseError

from . import pods, translate
from .api import RunPodAPI
from .options import Options
from .wire import PROVIDER, BalanceWire, EndpointWire, PodWire, VolumeWire

_CAPS: Final = ("limit", "max", "cap", "quota", "allowed")
_USED: Final = ("used", "current", "usage", "allocated", "inuse")
_NAMES: Final = {
    "spendRate": "the account's spending limit per hour",
    "serverlessWorkers": "the account's worker quota",
}


async def obstacle(api: RunPodAPI, options: Options, io: Io, *, deadline: float, workers: int = 0) -> str | None:
    """Why RunPod would not start a worker now, as far as the key may know; ``None``: nothing is known against it.

    Args:
        workers: How many more the account is to start.
    """
    if not options.account_checks:
        return None
    limits = await _read(api, io, options.limits_path, "account.limits.get", deadline=deadline)
    for name, words in _NAMES.items():
        cap, used = _numbers(mapping(limits.get(name)))
        more = workers if name == "serverlessWorkers" else 0
        if cap is not None and used is not None and (used >= cap if not more else used + more > cap):
            return f"{words} is used up ({used:g} of {cap:g})"
    balance = await _balance(api, options, io, deadline=deadline)
    if balance is not None and balance.billingMode == "PREPAID" and balance.balanceAmount <= 0:
        return f"the account's balance is ${balance.balanceAmount:.2f}, and it is prepaid"
    return None


async def must_have_funds(api: RunPodAPI, options: Options, io: Io, *, deployment: str, deadline: float) -> None:
    """Before something is created.

    Raises:
        InsufficientBalanceError: RunPod would start nothing: the account is prepaid, and has nothing left.
    """
    if not options.account_checks:
        return
    balance = await _balance(api, options, io, deadline=deadline)
    if balance is None or balance.billingMode != "PREPAID" or balance.balanceAmount > 0:
        return  # invoiced accounts run on whatever the balance is
    raise InsufficientBalanceError(
        f"the account's balance is ${balance.balanceAmount:.2f}, and it is prepaid: RunPod starts nothing",
        status=402,
        provider=PROVIDER,
        operation="runpod.account.balance.get",
        deployment=deployment,
        maybe_executed=False,
        hint="Add funds to the account.",
    )


async def inventory(api: RunPodAPI, options: Options, io: Io, *, deadline: float) -> Sequence[InventoryItem]:
    """Endpoints by their workers now, pods, also stopped ones, and network volumes: ours and others'."""
    items: list[InventoryItem] = []
    for wire in await api.listed(
        io, EndpointWire, "/serverless", "endpoint.list", under="endpoints", deadline=deadline
    ):
        info = translate.endpoint_info(wire, lb_url=options.lb_url)
        items.append(translate.endpoint_item(wire, info, await api.health(io, info, deadline=deadline)))
    # Members of clusters are left out without this parameter, and cost as much.
    also = (("includeClusterPods", "true"),)
    found = await api.listed(io, PodWire, "/pods", "pod.list", under="pods", params=also, deadline=deadline)
    items += [
        pods.pod_item(pod, pods.pod_info(pod, proxy_url=options.proxy_url))
        for pod in found
        if pod.status != "TERMINATED"
    ]
    volumes = await api.listed(
        io, VolumeWire, "/network-volumes", "volume.list", under="networkVolumes", deadline=deadline
    )
    return [*items, *map(translate.volume_item, volumes)]


async def _balance(api: RunPodAPI, options: Options, io: Io, *, deadline: float) -> BalanceWire | None:
    try:
        reply = await api.send(io, "GET", options.balance_path, "account.balance.get", deadline=deadline)
        return parse(BalanceWire, reply)
    except (APIStatusError, InvalidResponseError):
        return None  # a key without the scope billing:read, or another path: nothing is known


async def _read(api: RunPodAPI, io: Io, path: str, operation: str, *, deadline: float) -> Mapping[str, Any]:
    try:
        return mapping((await api.send(io, "GET", path, operation, deadline=deadline)).json())
    except (APIStatusError, InvalidResponseError):
        return {}


def _numbers(inner: Mapping[str, object]) -> tuple[float | None, float | None]:
    """The cap and what is used of it, where there are fields that say so."""
    return next(_like(inner, _CAPS), None), next(_like(inner, _USED), None)


def _like(inner: Mapping[str, object], words: tuple[str, ...]) -> Iterator[float]:
    for name, value in inner.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and any(w in name.lower() for w in words):
            yield float(value)
