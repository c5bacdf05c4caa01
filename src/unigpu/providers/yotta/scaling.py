"""How many workers there are, and at most at which price. Nothing scales by itself: the declared number is kept."""

from __future__ import annotations

from typing import Final

from unigpu.driver import DeploymentInfo, DeploymentSpec, Io, State, is_rehearsal
from unigpu.errors import ConflictError, NoCapacityError

from . import gpus, resources, translate
from .api import PROVIDER, YottaAPI

_PRICE_READS: Final = 5
_PRICE_PAUSE: Final = 2.0


async def warm(api: YottaAPI, io: Io, info: DeploymentInfo, spec: DeploymentSpec, *, deadline: float) -> None:
    """It was created with its workers. A cap on the price is held here: Yotta shows the price only now.

    Raises:
        NoCapacityError: a worker costs more than ``max_price``, or Yotta does not show what it costs.
    """
    if spec.max_price is not None and not is_rehearsal(io):
        info = await _within(api, io, info, spec, spec.max_price, deadline=deadline)
    wanted = max(1, spec.workers[0])
    if spec.kind == "serverless" and info.workers is not None and info.workers != (wanted, wanted):
        await set_count(api, io, info, wanted, deadline=deadline)


async def _within(
    api: YottaAPI,
    io: Io,
    info: DeploymentInfo,
    spec: DeploymentSpec,
    cap: float,
    *,
    deadline: float,
) -> DeploymentInfo:
    """*info*, once its price is shown and at most *cap*. Where it is not shown, the user's own prices hold the cap if
    every acceptable GPU has one: then the create named no GPU above the cap."""
    codes = gpus.gpu_codes(spec, api.options.prices)
    by_own_prices = all(gpus.price_in(api.options.prices, code) is not None for code in codes)
    for turn in range(_PRICE_READS):
        price = info.details.get(translate.WORKER_PRICE)
        if price is not None:
            if price <= cap:
                return info
            raise _above_cap(info, f"a worker costs ${price:.2f}/h, more than max_price (${cap:.2f})")
        if by_own_prices:
            return info
        if turn + 1 < _PRICE_READS:
            await io.sleep(_PRICE_PAUSE)
            info = await resources.read(api, io, info, deadline=deadline) or info
    raise _above_cap(info, f"Yotta does not tell what a worker costs, so max_price (${cap:.2f}) cannot be held")


async def set_count(api: YottaAPI, io: Io, info: DeploymentInfo, count: int, *, deadline: float) -> None:
    """An absolute count. Zero is `stop`; a stopped one is started first.

    Raises:
        ConflictError: it is busy with its last change.
    """
    if count == 0:
        await stop(api, io, info, deadline=deadline)
        return
    now = await resources.must_exist(api, io, info, deadline=deadline)
    if now.state is State.STOPPED and not is_rehearsal(io):  # a plan has noted the start already
        await start(api, io, now, deadline=deadline)
    params = (("count", str(count)),)
    await api.about(io, "PUT", info, "/workers", "endpoint.scale", params=params, deadline=deadline)


async def stop(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """Stop it; a pod is paused. One that is stopping or stopped is left as it is.

    Raises:
        ConflictError: it is busy with its last change, and has to be stopped again.
    """
    now = await resources.must_exist(api, io, info, deadline=deadline)
    if now.state is State.STOPPED or (now.raw_state or "").upper() in ("STOPPING", "PAUSING"):
        return
    path, what = ("/stop", "endpoint.stop") if info.kind == "serverless" else ("/pause", "pod.pause")
    await api.about(io, "POST", info, path, what, json={}, deadline=deadline)


async def start(api: YottaAPI, io: Io, info: DeploymentInfo, *, deadline: float) -> None:
    """Start it; a pod is resumed. Where it was started meanwhile, nothing is sent.

    Raises:
        ConflictError: it is still stopping.
    """
    if not is_rehearsal(io):
        now = await resources.must_exist(api, io, info, deadline=deadline)
        if now.state is State.DEGRADED:
            raise ConflictError(
                f"{info.name or info.id} is still stopping",
                provider=PROVIDER,
                deployment=info.name,
                maybe_executed=False,
            )
        if now.state is not State.STOPPED:
            return
    path, what = ("/start", "endpoint.start") if info.kind == "serverless" else ("/resume", "pod.resume")
    await api.about(io, "POST", info, path, what, json={}, deadline=deadline)


def _above_cap(info: DeploymentInfo, why: str) -> NoCapacityError:
    return NoCapacityError(
        f"{info.name or info.provider_name} on yotta: {why}",
        provider=PROVIDER,
        deployment=info.name,
        retryable=False,
        maybe_executed=True,
        hint="Raise max_price, accept other GPUs, or leave max_price out.",
    )
