"""The deployments of a namespace, and one of them by its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unigpu.driver import DeploymentInfo, State, provider_name

from .consistency.absence import any_listed
from .consistency.owed_checks import of_scope
from .consistency.survey import survey
from .scope import Scope


async def listing(scope: Scope, *, deadline: float) -> Sequence[DeploymentInfo]:
    """The deployments of this namespace, sorted by name. A list that cannot be read whole raises."""
    seen = await scope.deployer.deployments(scope.io, deadline=deadline)
    ours = [d for d in seen if d.ours and d.namespace in (None, scope.namespace) and d.state is not State.GONE]
    if any(one.name is None for one in ours):
        ours = _named(scope, ours)
    return sorted(ours, key=lambda d: (d.name or "", d.provider_name, d.created_at or 0.0, d.id))


def names_here(scope: Scope) -> Mapping[str, str]:
    """The platform's name → ours, of what this machine deployed: for platforms that do not return ours."""
    if scope.store is None:
        return {}
    return {intent.provider_name: intent.name for intent in of_scope(scope, scope.store.load())}


def _named(scope: Scope, infos: Sequence[DeploymentInfo]) -> list[DeploymentInfo]:
    names = names_here(scope)
    return [
        one.model_copy(update={"name": names[one.provider_name], "namespace": scope.namespace})
        if one.name is None and one.provider_name in names
        else one
        for one in infos
    ]


async def resolve(scope: Scope, name: str, *, deadline: float) -> DeploymentInfo | None:
    """A deployment by its logical name, by one list request; ``None`` where there is none."""
    wanted = provider_name(scope.namespace, name)
    for seen in await listing(scope, deadline=deadline):  # sorted, so of several the oldest one counts
        if seen.provider_name == wanted and seen.name in (None, name):
            return seen.model_copy(update={"name": name, "namespace": scope.namespace})
    return None


async def find(scope: Scope, info: DeploymentInfo, *, deadline: float) -> DeploymentInfo | None:
    """Another deployment that has the name of *info*, whose id is gone; ``None`` where there is none.

    On an atomic platform there is never one.
    """
    parts = scope.deployer.parts(info)
    if not any_listed(parts):
        return None
    now = (await survey(scope, parts, deadline=deadline)).info
    if now is None or now.id == info.id or now.name not in (None, info.name):
        return None
    return now.model_copy(update={"name": info.name, "namespace": info.namespace})
