"""What GPUs are offered now, on each provider that lists them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from unigpu.driver import ListsOffers
from unigpu.errors import UniGPUError, UnsupportedError
from unigpu.models import DeploymentSpec, GPURequest, Kind
from unigpu.models.deployment import usd
from unigpu.models.gpu import matches
from unigpu.models.offer import Offer, Offers

from . import arguments
from .context import Context
from .gate import Gate
from .session import Providers, Unreadable

_PROBE: Final = "offers"


async def offers(
    context: Context,
    *,
    provider: Providers,
    gpu: str | GPURequest | Sequence[str] | Sequence[GPURequest] | None,
    max_price: float | None,
    regions: str | Sequence[str] | None,
    kind: Kind,
) -> Offers:
    """What matches, on each provider that is covered."""
    context.session.open()
    kind = arguments.choice(kind, "kind", arguments.KINDS)
    stated: dict[str, Any] = {"gpu": gpu, "max_price": max_price, "regions": regions}
    stated = {name: value for name, value in stated.items() if value is not None}
    # A size such as "24GB" without a cap may mean an expensive GPU, which a deploy refuses; a search does not.
    capped = {"max_price": 1e9, **stated} if "gpu" in stated else stated
    asked = DeploymentSpec.model_validate({"name": _PROBE, **capped})
    cap = asked.max_price if "max_price" in stated else None
    found: list[Offer] = []
    unreadable = Unreadable(provider)
    for name in context.session.providers(provider):
        with unreadable.unless_read(name):
            listed = await _listed(context, name, asked, cap, kind)
            regions_here = None if _is_here(context.gate, name, kind) else asked.regions
            found += [one for one in listed if _fits(one, asked.gpu, cap, regions_here)]
    return Offers(found, unreadable)


async def with_offers(context: Context, error: UniGPUError, spec: DeploymentSpec, provider: str) -> UniGPUError:
    """*error*, with three current offers where it asks for GPUs or a cap; a list that fails adds nothing."""
    if not error.message.startswith(("gpu:", "max_price:")):
        return error
    try:
        listed = await _listed(context, provider, spec, None, spec.kind)
    except UniGPUError:
        return error
    fitting = [one for one in listed if one.price_per_hour is not None and _fits(one, spec.gpu, None, None)]
    cheapest = sorted(fitting, key=lambda one: one.price_per_hour or 0.0)[:3]
    shown = [f"{one.count} x {one.gpu} at {usd(one.price_per_hour)}/h" for one in cheapest]
    if shown:
        now = f"Offered now: {'; '.join(shown)}."
        error.hint = f"{error.hint} {now}" if error.hint else now
    return error


def _is_here(gate: Gate, name: str, kind: Kind) -> bool:
    """Whether every place is met: it is this machine. A platform may have pods for one interface only."""
    for interface in arguments.INTERFACES:
        try:
            return gate.capabilities(name, interface, kind).regions.value == "met"
        except UnsupportedError:
            continue
    return False


async def _listed(context: Context, name: str, asked: DeploymentSpec, cap: float | None, kind: Kind) -> Sequence[Offer]:
    driver = context.session.driver(name)
    if not isinstance(driver, ListsOffers):
        raise UnsupportedError(f"{name} lists no offers.", provider=name, capability="offers")
    scope = context.scope(name, asked.interface, asked.kind)
    return await driver.offers(
        scope.io,
        gpu=asked.gpu,
        max_price=cap,
        regions=asked.regions,
        kind=kind,
        deadline=context.soon(),
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
