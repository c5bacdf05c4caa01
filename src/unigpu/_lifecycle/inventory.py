"""Everything on an account that costs money, as far as its driver can tell."""

from __future__ import annotations

from collections.abc import Sequence

from unigpu.driver import DeploymentInfo, Inventories, State
from unigpu.models.inventory import InventoryItem

from .ready import worker_rate
from .scale import names_here
from .scope import Scope


async def inventory(scope: Scope, *, deadline: float) -> Sequence[InventoryItem]:
    """What there is: by the driver's own account of it, else by its list of deployments.

    Raises:
        UniGPUError: a list could not be read whole.
    """
    driver = scope.driver
    if isinstance(driver, Inventories):
        found = await driver.inventory(scope.io, deadline=deadline)
    else:
        listed = await driver.deployments(scope.io, deadline=deadline)
        found = [item_of(info) for info in listed if info.state is not State.GONE]
    known = names_here(scope)  # where the platform does not tell our names
    here = scope.namespace
    return [
        one.model_copy(update={"name": known[one.name], "namespace": here}) if one.name and one.name in known else one
        for one in found
    ]


def item_of(info: DeploymentInfo) -> InventoryItem:
    """A deployment as an item, by what it tells of its rate."""
    return InventoryItem(
        provider=info.provider,
        id=info.id,
        kind=next((kind for kind, id_ in info.ids.items() if id_ == info.id), "deployment"),
        owner="ours" if info.ours else "foreign",
        name=info.name or info.provider_name,
        namespace=info.namespace,
        state=str(info.state),
        per_hour=_now(info),
        per_month=info.rate.storage_per_month,
        created_at=info.created_at,
        note=info.bills,
    )


def _now(info: DeploymentInfo) -> float | None:
    """USD per hour at this moment: its workers that are ready, or those it always has, whichever is more."""
    idle, one = info.rate.idle_per_hour, worker_rate(info)
    if info.state is State.STOPPED:
        return 0.0 if info.rate.max_per_hour == 0 else None  # `note` says what it still bills, in words
    if idle is None:
        return None
    return max(idle, one * info.ready_workers) if one is not None and info.ready_workers else idle
