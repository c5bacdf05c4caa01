"""What GPUs are offered now, on each provider that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

from unigpu.driver import ListsOffers
from unigpu.errors import UniGPUError, UnsupportedError
from unigpu.models import DeploymentSpec, GPURequest
from unigpu.models.deployment import usd
from unigpu.models.gpu import matches
from unigpu.models.offer import Offer, Offers

from . import arguments
from .lookup import Finder
from .session import CONTROL_SECONDS

_PROBE: Final = "offers"


async def offers(
    core: Finder, *, provider: object, gpu: object, max_price: object, regions: object, kind: object
) -> Offers:
    """What matches, on each provider that is covered."""
    core.home.open()
    arguments.choice(kind, "kind", ("serverless", "pod"))
    stated: dict[str, Any] = {"gpu": gpu, "max_price": max_price, "regions": regions}
    stated = {name: value for name, value in stated.items() if value is not None}
    # A size such as "24GB" is dear without a cap only where it is deployed; here it is a question.
    capped = {"max_price": 1e9, **stated} if "gpu" in stated else stated
    asked = DeploymentSpec.model_validate({"name": _PROBE, **capped})
    cap = asked.max_price if "max_price" in stated else None
    found: list[Offer] = []
    unreadable: dict[str, UniGPUError] = {}
    for name in core.home.providers(provider):
        try:
            listed = await _listed(core, name, asked, cap, cast("Any", kind))
        except UniGPUError as exc:
            if isinstance(provider, str):
                raise  # the one that was asked for
            unreadable[name] = exc
            continue
        here = _is_here(core, name, cast("Any", kind))
        found += [one for one in listed if _fits(one, asked.gpu, cap, None if here else asked.regions)]
    return Offers(found, unreadable)


async def with_offers(core: Finder, error: UniGPUError, spec: DeploymentSpec, provider: str) -> UniGPUError:
    """*error*, with three current offers where it asks for GPUs or a cap; a list that fails adds nothing."""
    if not error.message.startswith(("gpu:", "max_price:")):
        return error
    try:
        listed = await _listed(core, provider, spec, None, spec.kind)
    except UniGPUError:
        return error
    fitting = [one for one in listed if one.price_per_hour is not None and _fits(one, spec.gpu, None, None)]
    cheapest = sorted(fitting, key=lambda one: one.price_per_hour or 0.0)[:3]
    shown = [f"{one.count} x {one.gpu} at {usd(one.price_per_hour)}/h" for one in cheapest]
    if shown:
        now = f"Offered now: {'; '.join(shown)}."
        error.hint = f"{error.hint} {now}" if error.hint else now
    return error


def _is_here(core: Finder, name: str, kind: Any) -> bool:
    """Whether every place is met: it is this machine. A platform may have pods for one interface only."""
    for interface in ("function", "http"):
        try:
            return core.home.capabilities(name, interface, kind).regions.value == "met"
        except UnsupportedError:
            continue
    return False


async def _listed(core: Finder, name: str, asked: DeploymentSpec, cap: float | None, kind: Any) -> Sequence[Offer]:
    driver = core.home.driver(name)
    if not isinstance(driver, ListsOffers):
        raise UnsupportedError(f"{name} lists no offers.", provider=name, capability="offers")
    scope = core.scope(name, asked)
    return await driver.offers(
        scope.io,
        gpu=asked.gpu,
        max_price=cap,
        regions=asked.regions,
        kind=kind,
        deadline=core.io.now() + CONTROL_SECONDS,
    )


def _fits(offer: Offer, gpu: tuple[GPURequest, ...] | None, cap: float | None, regions: tuple[str, ...] | None) -> bool:
    if gpu is not None and not any(_is(offer, one) for one in gpu):
        return False
    if cap is not None and (offer.price_per_hour is None or offer.price_per_hour > cap):
        return False
    if regions is None:
        return True
    areas = {"EU", "NA", "APAC"} & set(regions)  # which countries those are is the driver's word: it was asked for them
    return bool(areas) or offer.region in regions


def _is(offer: Offer, request: GPURequest) -> bool:
    if offer.gpu is None or offer.count != request.count:
        return False
    return matches(offer.gpu, request.model_copy(update={"count": 1}))
