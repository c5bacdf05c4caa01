"""Everything on an account that costs money, as far as its driver can list it."""

from __future__ import annotations

from collections.abc import Sequence

from unigpu.driver import DeploymentInfo, Inventories, State
from unigpu.models.inventory import InventoryItem

from .listing import names_here
from .ready import worker_rate
from .scope import Scope


async def inventory(scope: Scope, *, deadline: float) -> Sequence[InventoryItem]:
    """What exists: by the driver's own inventory, else by its list of deployments.

    Raises:
        UniGPUError: a list could not be read whole.
    """
    driver = scope.driver
    if isinstance(driver, Inventories):
        found = await driver.inventory(scope.io, deadline=deadline)
    else:
        listed = await scope.deployer.deployments(scope.io, deadline=deadline)
        found = [item_of(info) for info in listed if info.state is not State.GONE]
    names = names_here(scope)  # for platforms that do not return our names
    here = scope.namespace
    return [
        one.model_copy(update={"name": names[one.name], "namespace": here}) if one.name and one.name in names else one
        for one in found
    ]


def item_of(info: DeploymentInfo) -> InventoryItem:
    """A deployment as an item, by its rate."""
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
    """USD per hour now: of its ready workers, or of its minimum number of workers, whichever is more."""
    idle, one = info.rate.idle_per_hour, worker_rate(info)
    if info.state is State.STOPPED:
        return 0.0 if info.rate.max_per_hour == 0 else None  # `note` says in words what it still bills
    if idle is None:
        return None
    return max(idle, one * info.ready_workers) if one is not None and info.ready_workers else idle
